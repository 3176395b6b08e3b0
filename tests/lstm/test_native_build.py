"""How the native library is compiled and installed, and what is said where it is not."""

import ctypes
import importlib
import os
import platform
import re
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from lstm_optax import LSTMParams, lstm_sequence
from lstm_optax.lstm.native import build, library

REPOSITORY = Path(__file__).parents[2]
NATIVE = REPOSITORY / "lstm_optax" / "lstm" / "native"
LINUX = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in build.INSTRUCTIONS,
    reason="the native library is for Linux on x86-64 or AArch64",
)


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch):
    for name in ("CXX", "LSTM_OPTAX_BUILD", "LSTM_OPTAX_NATIVE"):
        monkeypatch.delenv(name, raising=False)


def instructions_of_cpu():
    """Return what Linux says that this CPU can run, and whether that multiplies in bfloat16."""
    if platform.machine() != "x86_64":
        return "neon", False
    flags = set(re.findall(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M)[0].split())
    if flags >= {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma"}:
        return "avx512", "avx512_bf16" in flags
    return ("avx2" if flags >= {"avx2", "fma"} else "baseline"), False


@LINUX
@pytest.mark.skipif(library.missing() is not None, reason=str(library.missing()))
def test_widest_instructions_of_cpu_are_used():
    instructions, bfloat16 = instructions_of_cpu()
    assert library.instructions() == instructions
    compiled = b"avx512_bf16" in (library.HERE / build.LIBRARY).read_bytes()  # not by old compilers
    assert library.multiplies_in_bfloat16() == (bfloat16 and compiled)


# ---- the compiler ----


@LINUX
def test_compiler_of_the_environment_is_used(monkeypatch):
    monkeypatch.setenv("CXX", "ccache 'my g++'")
    compiler = build.find_compiler()
    assert compiler.command == ["ccache", "my g++"]
    assert compiler.platform == f"linux_{compiler.machine}"


@LINUX
def test_missing_compiler_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError, match=r"no C\+\+ compiler was found"):
        build.find_compiler()


def test_other_platform_has_no_library(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(build.BuildError, match="for Linux on x86_64 or aarch64 only"):
        build.find_compiler()


def test_zig_compiles_for_named_machine(monkeypatch):
    monkeypatch.setenv("LSTM_OPTAX_BUILD", "zig-aarch64")
    compiler = build.find_compiler()
    assert compiler.command[-2:] == ["-target", "aarch64-linux-gnu.2.28"]
    assert compiler[1:] == ("aarch64", "manylinux_2_28_aarch64")


@pytest.mark.parametrize("choice", ["gcc", "zig-riscv64"])
def test_unknown_build_choice_is_rejected(monkeypatch, choice):
    monkeypatch.setenv("LSTM_OPTAX_BUILD", choice)
    with pytest.raises(build.BuildError, match=f"LSTM_OPTAX_BUILD is '{choice}', but must be"):
        build.find_compiler()


def test_first_error_of_compiler_is_shown(tmp_path):
    script = "echo warned >&2; echo 'kernels.cc:1:2: error: no' >&2; echo more >&2; exit 1"
    compiler = build.Compiler(["sh", "-c", script], "x86_64", "linux_x86_64")
    with pytest.raises(build.BuildError) as raised:
        build.build(tmp_path, compiler)
    first, *rest = str(raised.value).splitlines()
    assert first == "the C++ compiler failed: kernels.cc:1:2: error: no"
    assert rest == ["warned", "kernels.cc:1:2: error: no", "more"]
    assert not list(tmp_path.iterdir())


@LINUX
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86-64")
def test_old_compiler_leaves_bfloat16_out(tmp_path):
    """The library of a compiler without AVX512_BF16 loads, and multiplies in float32."""
    try:
        found = build.find_compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    script = (
        f'case "$*" in *avx512bf16*) echo unknown >&2; exit 1;; esac; exec {found.command[0]} "$@"'
    )
    old = found._replace(command=["sh", "-c", script, "sh"])
    made = ctypes.CDLL(str(build.build(tmp_path, old)))
    made.lstm_optax_bfloat16.restype = made.lstm_optax_use.restype = ctypes.c_bool
    assert not made.lstm_optax_bfloat16() and made.lstm_optax_use(b"baseline")


def test_compiler_that_does_not_start_is_named(tmp_path):
    compiler = build.Compiler(["/nowhere/g++"], "x86_64", "linux_x86_64")
    with pytest.raises(build.BuildError, match="/nowhere/g.. does not start"):
        build.build(tmp_path, compiler)


# ---- the hook ----


class Hook:
    """What hatchling gives to a build hook."""

    target_name = "wheel"

    def __init__(self):
        self.said = []
        self.app = types.SimpleNamespace(display_warning=self.said.append)


@pytest.fixture
def hook(monkeypatch):
    """The hook with a stand-in for hatchling; it compiles nothing, into a file."""
    interface = "hatchling.builders.hooks.plugin.interface"
    for name in (interface.rsplit(".", k)[0] for k in range(4, -1, -1)):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[interface].BuildHookInterface = Hook
    spec = importlib.util.spec_from_file_location("lstm_optax_hook", NATIVE / "hook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def write(folder, compiler):
        Path(folder, build.LIBRARY).write_bytes(b"library")
        return Path(folder, build.LIBRARY)

    monkeypatch.setattr(build, "build", write)
    monkeypatch.setattr(module, "_load_build", lambda: build)
    hook = module.NativeLibrary()
    hook.module = module
    yield hook
    hook.finalize("standard", {}, "")


def fresh_data():
    return {"pure_python": True, "force_include": {}}


@LINUX
def test_wheel_with_library_is_for_platform(hook, monkeypatch):
    monkeypatch.setenv("CXX", "g++")
    data = fresh_data()
    assert hook.dependencies() == ["jaxlib>=0.10"]
    hook.initialize("standard", data)
    [(source, target)] = data["force_include"].items()
    assert Path(source).read_bytes() == b"library"
    assert target == "lstm_optax/lstm/native/lstm_optax_native.so"
    assert data["tag"] == f"py3-none-linux_{os.uname().machine}" and not data["pure_python"]
    hook.finalize("standard", data, "")
    assert not Path(source).exists() and not hook.said


def test_zig_is_a_build_dependency(hook, monkeypatch):
    monkeypatch.setenv("LSTM_OPTAX_BUILD", "zig-aarch64")
    data = fresh_data()
    assert [name.split(">")[0] for name in hook.dependencies()] == ["jaxlib", "ziglang"]
    hook.initialize("standard", data)
    assert data["tag"] == "py3-none-manylinux_2_28_aarch64"


@LINUX
@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"LSTM_OPTAX_NATIVE": "0"}, "LSTM_OPTAX_NATIVE was 0"),
        ({"PATH": "/nowhere"}, "no C++ compiler was found"),
    ],
)
def test_wheel_without_library_is_for_any_platform(hook, monkeypatch, environment, reason):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    data = fresh_data()
    assert hook.dependencies() == []
    hook.initialize("standard", data)
    [(source, target)] = data["force_include"].items()
    assert Path(source).read_text().startswith(reason)
    assert target == f"lstm_optax/lstm/native/{build.REASON}"
    assert "tag" not in data and data["pure_python"]
    assert len(hook.said) == 1 and reason in hook.said[0]


def fail(folder, compiler):
    raise build.BuildError("the C++ compiler failed: error: no\n" + "\n".join(map(str, range(99))))


@LINUX
def test_failed_compilation_leaves_library_out(hook, monkeypatch):
    monkeypatch.setenv("CXX", "g++")
    monkeypatch.setattr(build, "build", fail)
    data = fresh_data()
    hook.initialize("standard", data)
    assert Path(*data["force_include"]).read_text() == "the C++ compiler failed: error: no\n"
    assert hook.said[0].endswith("the C++ compiler failed: error: no")
    assert hook.said[1:] == [str(line) for line in range(89, 99)]


@pytest.mark.parametrize("wish", [("LSTM_OPTAX_NATIVE", "1"), ("LSTM_OPTAX_BUILD", "zig-x86_64")])
def test_wanted_library_must_compile(hook, monkeypatch, wish):
    monkeypatch.setenv("CXX", "g++")
    monkeypatch.setenv(*wish)
    monkeypatch.setattr(build, "build", fail)
    with pytest.raises(build.BuildError):
        hook.initialize("standard", fresh_data())


@LINUX
def test_editable_install_compiles_into_checkout(hook, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "g++")
    monkeypatch.setattr(hook.module, "HERE", tmp_path)
    data = fresh_data()
    hook.initialize("editable", data)
    assert (tmp_path / build.LIBRARY).exists() and not data["force_include"]


# ---- the library at run time ----


@pytest.fixture
def loaded_again():
    """Forget what was loaded, before and after a test."""
    before = library.load, library.missing
    library.load.cache_clear()
    library.missing.cache_clear()
    yield
    assert (library.load, library.missing) == before
    library.load.cache_clear()
    library.missing.cache_clear()


def call(backend):
    params = LSTMParams(jnp.ones((2, 12)), jnp.ones((3, 12)), jnp.ones(12))
    run = jax.make_jaxpr(lambda x: lstm_sequence(params, x, backend=backend)[0])
    return str(run(jnp.ones((4, 5, 2))))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the library runs on CPUs alone")
def test_variable_switches_library_off(loaded_again, monkeypatch):
    monkeypatch.setenv("LSTM_OPTAX_NATIVE", "0")
    assert call("auto") == call("fused")
    with pytest.raises(ValueError, match="the environment variable LSTM_OPTAX_NATIVE is 0"):
        call("native")


def test_missing_library_has_its_reason(loaded_again, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "HERE", tmp_path)
    assert "it was not compiled" in library.missing()
    library.missing.cache_clear()
    (tmp_path / build.REASON).write_text("no C++ compiler was found\n")
    assert "there is no native library: no C++ compiler was found. `python -m" in library.missing()


@pytest.mark.skipif(library.missing() is not None, reason=str(library.missing()))
def test_library_of_other_sources_is_refused(loaded_again, monkeypatch):
    monkeypatch.setattr(library, "fingerprint", lambda: "0123456789abcdef")
    assert "was compiled from other sources" in library.missing()
