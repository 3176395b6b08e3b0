"""The C++ of the native backend without Python: sanitizers, and other machines by an emulator."""

import importlib.util
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lstm_optax.lstm.native import build

HERE = Path(__file__).parent
OPTIONS = ["-std=c++17", "-O2", "-g1", f"-I{build.SOURCES}"]
pytestmark = pytest.mark.slow


def run(command, seconds=300):
    """Return what a command prints; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-4000:]}"
    return done.stdout


def compiled(compiler, path, sources, *link):
    """Compile (file, its options) each, link them by `link`, and return the program's path."""
    objects = [f"{path}-{number}.o" for number in range(len(sources))]

    def compile_one(source, output):
        file, options = source
        run([*compiler.command, *OPTIONS, *options, "-c", str(file), "-o", output])

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(compile_one, sources, objects))
    run([*compiler.command, *objects, *link, "-o", str(path)])
    return str(path)


def kernels(machine, *options):
    """Return the sources of all kernels of a machine, with their options."""
    return [
        (build.SOURCES / "kernels.cc", [*options, f"-DTABLE={name}", f'-DNAME="{name}"', *flags])
        for name, flags in build.INSTRUCTIONS[machine].items()
    ]


@pytest.fixture
def sanitizer(tmp_path):
    """Return a function from an option to a compiler that has it, or skip the test."""

    def find(option):
        try:
            compiler = build.find_compiler()
        except build.BuildError as error:
            pytest.skip(str(error))
        source = tmp_path / "empty.cc"
        source.write_text("int main() {}\n")
        for command in (
            [*compiler.command, option, source, "-o", tmp_path / "a"],
            [tmp_path / "a"],
        ):
            if subprocess.run(command, capture_output=True).returncode:
                pytest.skip(f"{option} does not work here")
        return compiler

    return find


@pytest.mark.parametrize("layers", [25, pytest.param(400, marks=pytest.mark.soak)])
def test_kernels_stay_within_their_arrays(sanitizer, tmp_path, layers):
    """All kernels of this CPU on random layers, in arrays of the exact size."""
    option = "-fsanitize=address,undefined"
    compiler = sanitizer(option)
    sources = kernels(compiler.machine, option, "-fno-sanitize-recover=all")
    sources.append((HERE / "native_check.cc", []))  # its own loops would be slow
    program = compiled(compiler, tmp_path / "check", sources, option)
    assert f"{layers} layers, largest error" in run([program, str(layers)], seconds=900)


def test_threads_share_nothing_unguarded(sanitizer, tmp_path):
    """1,000 loops at once from several threads, while the pool is busy, and from the pool."""
    option = "-fsanitize=thread"
    compiler = sanitizer(option)
    sources = [(HERE / "native_threads.cc", [option])]
    assert run([compiled(compiler, tmp_path / "threads", sources, option)]) == "all calls ended\n"


@pytest.mark.skipif(not shutil.which("qemu-aarch64"), reason="needs qemu-aarch64")
@pytest.mark.skipif(not importlib.util.find_spec("ziglang"), reason="needs ziglang")
def test_aarch64_kernels_equal_reference(monkeypatch, tmp_path):
    monkeypatch.setenv(build.CHOICE, "zig-aarch64")
    compiler = build.find_compiler()
    static = [option.replace("gnu.2.28", "musl") for option in compiler.command]  # no libc needed
    compiler = compiler._replace(command=[*static, "-static"])
    sources = [*kernels("aarch64"), (HERE / "native_check.cc", [])]
    program = compiled(compiler, tmp_path / "check", sources)
    assert "100 layers, largest error" in run(["qemu-aarch64", program, "100"])
