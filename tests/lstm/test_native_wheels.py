"""Wheels with the native library, by each compiler and by none: their tags, contents and use."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from test_native_build import instructions_of_cpu

from lstm_optax.lstm.native import build

REPOSITORY = Path(__file__).parents[2]
FOLDER = "lstm_optax/lstm/native"
MACHINE = os.uname().machine
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or MACHINE not in build.INSTRUCTIONS, reason="needs such a machine"
    ),
    *(
        pytest.mark.skipif(not importlib.util.find_spec(name), reason=f"needs {name}")
        for name in ("pip", "hatchling")
    ),
]
SHOW = """
import jax.numpy as jnp
from lstm_optax import LSTMParams, lstm_sequence
from lstm_optax.lstm.native import library

params = LSTMParams(jnp.ones((2, 12)), jnp.ones((3, 12)), jnp.ones(12))
print(lstm_sequence(params, jnp.ones((4, 5, 2)))[0].shape, library.__file__)
print(library.missing() or library.instructions())
"""


def run(*command, **environment):
    """Return what a command prints; it must succeed."""
    unset = ("CXX", "LSTM_OPTAX_BUILD", "LSTM_OPTAX_NATIVE", "PIP_QUIET")
    environ = {name: value for name, value in os.environ.items() if name not in unset}
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, env={**environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def make_wheel(folder, **environment):
    """Return a wheel of the repository, the names in it, and what pip printed."""
    pip = (sys.executable, "-m", "pip", "-v", "wheel", "--no-deps", "--no-build-isolation")
    said = run(*pip, "--wheel-dir", folder, REPOSITORY, **environment)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return wheel, archive.namelist(), said


def show_installed(wheel, folder):
    """Install a wheel next to the packages of this environment; return what a call there shows."""
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", folder / "site", wheel)
    paths = os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])
    shape, shown = run(sys.executable, "-P", "-c", SHOW, PYTHONPATH=paths).splitlines()
    assert shape == f"(4, 5, 3) {folder / 'site' / FOLDER / 'library.py'}"
    return shown


def read_library(wheel, folder):
    """Return the machine, the needed libraries, the symbols and the newest GLIBC of a library."""
    if not shutil.which("readelf"):
        pytest.skip("needs readelf")
    with zipfile.ZipFile(wheel) as archive:
        path = archive.extract(f"{FOLDER}/{build.LIBRARY}", folder)
    text = run("readelf", "-hdVW", "--dyn-syms", path)
    symbols = re.findall(r"GLOBAL +DEFAULT +\d+ (\w+)$", text, re.MULTILINE)
    versions = [tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([\d.]+\d)", text)]
    machine = re.search(r"Machine: +(.*)", text)
    return machine[1], set(re.findall(r"\(NEEDED\).*\[(.*)\]", text)), symbols, max(versions)


def check_library(wheel, folder):
    """Check what a library needs and exports; return its machine and its newest GLIBC."""
    machine, needed, symbols, glibc = read_library(wheel, folder)
    assert {re.sub(r"\.so.*", "", name) for name in needed} <= {
        *("libc", "libm", "libpthread", "libdl"),
        *("ld-linux-x86-64", "ld-linux-aarch64"),
    }
    assert "lstm_optax_forward" in symbols
    assert all(name.startswith("lstm_optax_") for name in symbols), symbols
    return machine, glibc


def test_wheel_is_for_this_platform(tmp_path):
    try:
        build.find_compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    wheel, names, _ = make_wheel(tmp_path, LSTM_OPTAX_NATIVE="1")
    assert wheel.name.endswith(f"-py3-none-linux_{MACHINE}.whl")
    inside = {Path(name).name for name in names if name.startswith(FOLDER)}
    assert inside >= {build.LIBRARY, "kernels.cc", "kernels.h", "exports.map", "build.py"}
    assert not inside & {build.REASON, "hook.py"}
    check_library(wheel, tmp_path)
    assert show_installed(wheel, tmp_path) == instructions_of_cpu()[0]


def test_wheel_without_compiler_says_why(tmp_path):
    wheel, names, said = make_wheel(tmp_path, PATH=str(tmp_path))
    assert wheel.name.endswith("-py3-none-any.whl")
    assert f"{FOLDER}/{build.LIBRARY}" not in names
    lines = [line for line in said.splitlines() if "without its native backend" in line]
    assert len(lines) == 1 and "no C++ compiler was found (g++, clang++ or c++)" in lines[0]
    assert "there is no native library: no C++ compiler" in show_installed(wheel, tmp_path)


@pytest.mark.soak
@pytest.mark.skipif(not importlib.util.find_spec("ziglang"), reason="needs ziglang")
@pytest.mark.parametrize(("machine", "name"), [("x86_64", "X86-64"), ("aarch64", "AArch64")])
def test_zig_makes_release_wheel(tmp_path, machine, name):
    wheel, names, _ = make_wheel(tmp_path, LSTM_OPTAX_BUILD=f"zig-{machine}", PATH=str(tmp_path))
    assert wheel.name.endswith(f"-py3-none-manylinux_2_28_{machine}.whl")
    read, glibc = check_library(wheel, tmp_path)
    assert name in read and glibc <= (2, 28)
    with zipfile.ZipFile(wheel) as archive:
        has_bfloat16 = b"avx512_bf16" in archive.read(f"{FOLDER}/{build.LIBRARY}")
    assert has_bfloat16 == (machine == "x86_64")
    if machine == MACHINE:
        assert show_installed(wheel, tmp_path) == instructions_of_cpu()[0]
