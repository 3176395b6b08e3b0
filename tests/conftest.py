"""Strict settings for every test: no rank promotion, no warnings, eight CPU devices, given keys."""

import importlib
import os
import signal
import warnings
from pathlib import Path

import quick_compilation  # noqa: F401  before JAX is imported

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads spin where workers fill the cores

import chex
import hypothesis
import jax
import pytest

# a shell that starts the tests in the background, or nohup, lets all programs ignore these
for name in ("SIGINT", "SIGHUP"):
    if (number := getattr(signal, name, None)) and signal.getsignal(number) == signal.SIG_IGN:
        default = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
        signal.signal(number, default)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    cache = Path(__file__).parent.parent / ".jax_cache"
    jax.config.update("jax_compilation_cache_dir", str(cache))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

hypothesis.settings.register_profile(
    "strict", deadline=None, derandomize=True, database=None, print_blob=True
)
hypothesis.settings.load_profile("strict")


@pytest.fixture
def key() -> jax.Array:
    """The one random key of a test, from which it splits others."""
    return jax.random.key(20_250_101)


@pytest.fixture
def x64():
    """Double precision for the length of a test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def need():
    """Import another library, or skip where it is not installed; ranks may be promoted in it."""

    def find(name):
        os.environ.setdefault("KERAS_BACKEND", "jax")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return importlib.import_module(name)
            except ImportError:
                pytest.skip(f"{name} is not installed: pip install 'lstm_optax[parity]'")

    with jax.numpy_rank_promotion("allow"):
        yield find


@pytest.fixture(autouse=True)
def count_traces_anew():
    """`chex.assert_max_traces` counts by name, over all tests of a process."""
    chex.clear_trace_counter()
