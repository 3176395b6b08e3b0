"""Several devices, or a skip with its reason; on a CPU, conftest.py asks JAX for eight."""

import jax
import pytest


def first_devices(count: int) -> list[jax.Device]:
    """Return that many devices; skip the test where JAX has fewer."""
    if jax.device_count() < count:
        pytest.skip(_reason(count))
    return jax.devices()[:count]


def needs_devices(count: int) -> pytest.MarkDecorator:
    """Return the mark of a test, or of a file, that needs so many devices."""
    return pytest.mark.skipif(jax.device_count() < count, reason=_reason(count))


def _reason(count: int) -> str:
    return f"needs {count} devices, and JAX has {jax.device_count()} here"
