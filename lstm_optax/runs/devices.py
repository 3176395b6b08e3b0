"""Choice of the devices that share the rows of a batch; JAX is imported on demand."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lstm_optax.records import core_count
from lstm_optax.runs.constraints import OptionError

if TYPE_CHECKING:
    from lstm_optax.runs.options import TrainConfig
    from lstm_optax.training import BatchSharding

MIN_ROWS = 8  # rows of each device by default; the speed with fewer was not measured


def prepare_devices(rows: int, count: int = 0) -> None:
    """Configure JAX to create as many CPU devices as a run uses.

    For the command line only, before JAX is initialised. Nothing is changed if JAX is already
    initialised or the environment sets the number of CPU devices. On a machine with an accelerator
    the CPU devices have no effect.

    Args:
      rows: of a batch.
      count: number of devices; 0 for as many as there are cores, with at least 8 rows each, or for
        one if there is the native backend, which uses all cores.
    """
    import jax

    is_set = jax.config.jax_num_cpu_devices >= 0  # pyright: ignore[reportAttributeAccessIssue]
    if is_set or "host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    try:
        limit = 1 if _uses_all_cores() else core_count()
        jax.config.update("jax_num_cpu_devices", count or _default_count(rows, limit))
    except RuntimeError:
        pass  # JAX is already initialised: use the existing devices


def find_devices(rows: int, count: int = 0) -> list[Any]:
    """Return the devices that share the rows of a batch.

    Args:
      rows: of a batch.
      count: number of devices; 0 for as many as there are accelerators or cores, with at least 8
        rows each, or for one CPU if there is the native backend, which uses all cores.

    Raises:
      OptionError: JAX has fewer devices than `count`.
    """
    import jax

    devices = jax.devices()
    platform = devices[0].platform
    if count > len(devices):
        on_cpu = f", or start with JAX_NUM_CPU_DEVICES={count}" if platform == "cpu" else ""
        raise OptionError(
            f"--devices is {count}, but JAX has {len(devices)} here ({platform}): use fewer "
            f"(with --resume, the results then differ by rounding only){on_cpu}"
        )
    limit = len(devices)
    if platform == "cpu":
        limit = 1 if _uses_all_cores() else min(limit, core_count())
    return devices[: count or _default_count(rows, limit)]


def use_all_devices(config: "TrainConfig") -> "TrainConfig":
    """Return the configuration with the number of devices of all processes.

    Raises:
      OptionError: they do not divide the rows of a batch.
    """
    import jax

    devices, processes = jax.device_count(), jax.process_count()
    if config.batch % devices:
        raise OptionError(
            f"--batch {config.batch}: the {processes} processes have {devices} devices, which do "
            f"not divide it; use a multiple of {devices}"
        )
    return replace(config, devices=devices)


def make_sharding(devices: list[Any], *, shard_state: bool = False) -> "BatchSharding | None":
    """Return the sharding of a text's windows over the rows; None for a single device."""
    from lstm_optax.data.windows import ROW_AXES
    from lstm_optax.training import BatchSharding

    if len(devices) == 1:
        return None
    return BatchSharding(ROW_AXES, devices=devices, shard_state=shard_state)


def describe_devices(devices: list[Any], rows: int) -> str:
    """Return a short description of the devices and of their share of the rows."""
    first, *others = devices
    if not others:
        return str(first)
    processes = len({device.process_index for device in devices})
    place = f" in {processes} processes" if processes > 1 else ""
    share = f"each with {rows // len(devices)} of {rows} rows"
    return f"{len(devices)} × {first.platform}{place}, {share}"


def _uses_all_cores() -> bool:
    from lstm_optax.lstm.native import library

    return library.missing() is None


def _default_count(rows: int, limit: int) -> int:
    """Return the largest divisor of `rows`, up to `limit`, that leaves 8 rows for each device."""
    return max(n for n in range(1, limit + 1) if n == 1 or rows % n == 0 and rows >= n * MIN_ROWS)
