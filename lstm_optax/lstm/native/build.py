"""Compile the native library: one shared library for all Pythons of a platform.

    python -m lstm_optax.lstm.native.build [FOLDER]

writes it into FOLDER, by default next to the sources, where a source checkout finds it. An install
runs this through `hook.py`. It imports nothing of the package, since it runs before there is one.
"""

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent
LIBRARY = "lstm_optax_native.so"
ZIG_TARGETS = {  # release wheels, compiled on any machine: platform of the wheel, target of zig
    "manylinux_2_28_x86_64": "x86_64-linux-gnu.2.28",
    "manylinux_2_28_aarch64": "aarch64-linux-gnu.2.28",
}
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
INSTRUCTIONS = {  # of each machine: the table of kernels, and the flags to compile them with
    "x86_64": {
        "AVX512": ["-mavx2", "-mfma", *AVX512],
        "AVX2": ["-mavx2", "-mfma"],
        "BASELINE": [],
    },
    "aarch64": {"NEON": []},
}


def find_compiler() -> list[str] | None:
    """Return the command of a C++ compiler: zig if LSTM_OPTAX_BUILD asks for it, or the system's.

    None: there is none, or the platform is not one that this builds for.

    Raises:
      RuntimeError: LSTM_OPTAX_BUILD has another value than zig.
    """
    wanted = os.environ.get("LSTM_OPTAX_BUILD", "")
    if wanted not in ("", "zig"):
        raise RuntimeError(f"LSTM_OPTAX_BUILD is {wanted!r}, but must be 'zig' or unset")
    if wanted == "zig":
        return [sys.executable, "-m", "ziglang", "c++"]
    if sys.platform != "linux" or platform.machine() not in INSTRUCTIONS:
        return None
    if named := shlex.split(os.environ.get("CXX", "")):
        return named
    return next(([name] for name in ("g++", "clang++", "c++") if shutil.which(name)), None)


def build(folder: Path, compiler: list[str], target: str | None = None, extra=()) -> Path:
    """Compile and link the library into a folder, and return its path.

    Args:
      compiler: a command that understands the options of GCC.
      target: a key of `ZIG_TARGETS`, to compile for another machine by zig.
      extra: further options for compiler and linker, such as -fsanitize=address.

    Raises:
      subprocess.CalledProcessError: the compiler failed; its messages are in `stderr`.
    """
    machine = target.split("_", 3)[-1] if target else platform.machine()
    command = [*compiler, *(["-target", ZIG_TARGETS[target]] if target else []), *extra]
    options = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]
    objects = [
        (["kernels.cc", f"-DTABLE={table}", f'-DNAME="{table.lower()}"', *flags], table)
        for table, flags in INSTRUCTIONS[machine].items()
    ]
    objects.append((["ffi.cc", "-isystem", _jaxlib_headers()], "ffi"))
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor() as threads:

        def compile_one(arguments, name):
            _run([*command, *options, "-c", *arguments, "-o", f"{work}/{name}.o"])
            return f"{work}/{name}.o"

        compiled = list(threads.map(lambda one: compile_one(*one), objects))
        # The C++ library is linked in, so that the library loads next to any other.
        static = [] if "ziglang" in command else ["-static-libstdc++", "-static-libgcc"]
        exports = "-Wl,--version-script=exports.map"
        library = folder.resolve() / LIBRARY
        partial = f"{work}/{LIBRARY}"
        _run([*command, "-shared", *compiled, "-o", partial, exports, "-Wl,-s", *static])
        shutil.copy(partial, f"{library}.partial")
        os.replace(f"{library}.partial", library)  # a running process keeps the former library
    return library


def _jaxlib_headers() -> str:
    """Return the folder of XLA's headers, without importing jaxlib."""
    spec = importlib.util.find_spec("jaxlib")
    if spec is None or spec.origin is None:
        raise RuntimeError("the native library needs jaxlib's headers: install jaxlib")
    return str(Path(spec.origin).parent / "include")


def _run(command: list[str]) -> None:
    subprocess.run(command, cwd=SOURCES, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    found = find_compiler()
    if found is None:
        sys.exit("no C++ compiler was found (g++, clang++ or c++), or this is not Linux")
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCES, found))
