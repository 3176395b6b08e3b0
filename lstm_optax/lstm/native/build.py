"""Compile the native library: one shared library for all Pythons of a platform.

    python -m lstm_optax.lstm.native.build [FOLDER]

writes it into FOLDER, by default next to the sources, where the package finds it. An installation
runs this through `hook.py`. It imports nothing of the package, since it runs before there is one.
"""

import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).parent
LIBRARY = "lstm_optax_native.so"
REASON = "lstm_optax_native.txt"  # in an installation without the library: why, in one line
CHOICE = "LSTM_OPTAX_BUILD"
"""Environment variable: zig, or zig-MACHINE, compiles for manylinux_2_28 by zig."""

AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
INSTRUCTIONS: dict[
    str, dict[str, list[str]]
] = {  # of each machine: the table of kernels, and the flags to compile them with
    "x86_64": {
        "AVX512_BF16": ["-mavx2", "-mfma", *AVX512, "-mavx512bf16"],  # left out if not known
        "AVX512": ["-mavx2", "-mfma", *AVX512],
        "AVX2": ["-mavx2", "-mfma"],
        "BASELINE": [],
    },
    "aarch64": {"NEON": []},
}
OPTIONS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]
LINK = ["-shared", "-Wl,--version-script=exports.map", "-Wl,-z,defs", "-Wl,-s"]


class BuildError(Exception):
    """The library cannot be compiled here; the first line of the message says why, for users."""


class Compiler(NamedTuple):
    """A C++ compiler, and what it compiles for."""

    command: list[str]  # it understands the options of GCC
    machine: str  # a key of INSTRUCTIONS
    platform: str  # of the wheel


def find_compiler() -> Compiler:
    """Return zig if LSTM_OPTAX_BUILD asks for it, else $CXX or the system's compiler.

    Raises:
      BuildError: there is none, the platform is not supported, or LSTM_OPTAX_BUILD is unknown.
    """
    if wanted := os.environ.get(CHOICE):
        return _find_zig(wanted)
    machine = platform.machine()
    if sys.platform != "linux" or machine not in INSTRUCTIONS:
        raise BuildError(f"it is for Linux on {' or '.join(INSTRUCTIONS)} only")
    command = shlex.split(os.environ.get("CXX", ""))
    command = command or [name for name in ("g++", "clang++", "c++") if shutil.which(name)][:1]
    if not command:
        raise BuildError("no C++ compiler was found (g++, clang++ or c++)")
    tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return Compiler(command, machine, tag)


def _find_zig(wanted: str) -> Compiler:
    known = {f"zig-{machine}": machine for machine in INSTRUCTIONS}
    machine = {"zig": platform.machine(), **known}.get(wanted)
    if machine not in INSTRUCTIONS:
        raise BuildError(
            f"{CHOICE} is {wanted!r}, but must be unset, or zig or {' or '.join(known)}"
        )
    command = [sys.executable, "-m", "ziglang", "c++", "-target", f"{machine}-linux-gnu.2.28"]
    return Compiler(command, machine, f"manylinux_2_28_{machine}")


def build(folder: Path, compiler: Compiler) -> Path:
    """Compile and link the library into a folder, and return its path.

    Raises:
      BuildError: the compiler failed, or there are no headers of jaxlib.
    """
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor() as threads:
        objects = [
            (["kernels.cc", f"-DTABLE={table}", f'-DNAME="{table.lower()}"', *flags], table)
            for table, flags in INSTRUCTIONS[compiler.machine].items()
            if table != "AVX512_BF16" or _knows(compiler, flags, work)
        ]
        stamp = f'-DSOURCES="{fingerprint()}"'
        objects.append((["ffi.cc", stamp, "-isystem", _jaxlib_headers()], "ffi"))

        def compile_one(arguments, name):
            _run([*compiler.command, *OPTIONS, "-c", *arguments, "-o", f"{work}/{name}.o"])
            return f"{work}/{name}.o"

        compiled = list(threads.map(lambda one: compile_one(*one), objects))
        # The C++ library is linked in, so that this one loads next to any other; zig always does.
        static = [] if "ziglang" in compiler.command else ["-static-libstdc++", "-static-libgcc"]
        partial = f"{work}/{LIBRARY}"
        _run([*compiler.command, *compiled, *LINK, *static, "-o", partial])
        library = folder.resolve() / LIBRARY
        shutil.copy(partial, f"{library}.partial")
        os.replace(f"{library}.partial", library)  # a running process keeps the former library
    return library


def _knows(compiler: Compiler, flags: list[str], work: str) -> bool:
    """Return whether the compiler has these flags: those for bfloat16 are of GCC 10, Clang 9."""
    command = [*compiler.command, *flags, "-c", "-x", "c++", os.devnull, "-o", f"{work}/empty.o"]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def fingerprint() -> str | None:
    """Return a hash of the C++ sources, or None where they are not installed."""
    paths = sorted(path for path in SOURCES.iterdir() if path.suffix in (".cc", ".h"))
    text = b"".join(path.read_bytes() for path in paths)
    return hashlib.sha256(text).hexdigest()[:16] if paths else None


def _jaxlib_headers() -> str:
    """Return the folder of XLA's headers, without importing jaxlib."""
    spec = importlib.util.find_spec("jaxlib")
    if spec is None or spec.origin is None:
        raise BuildError("the headers of jaxlib are missing: install jaxlib")
    return str(Path(spec.origin).parent / "include")


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, cwd=SOURCES, check=True, capture_output=True, text=True)
    except OSError as error:
        raise BuildError(f"the C++ compiler {command[0]} does not start: {error}") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.splitlines() or ["it printed nothing"]
        first = next((line for line in lines if "error" in line), lines[-1])
        raise BuildError(f"the C++ compiler failed: {first}\n{error.stderr}") from error


def main() -> None:
    """Compile the library into the folder that the command line names."""
    try:
        print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCES, find_compiler()))
    except BuildError as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    main()
