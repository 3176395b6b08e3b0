"""How many devices share the rows of a batch, and which; JAX is imported when it is needed."""

import os
from typing import TYPE_CHECKING, Any

from lstm_optax.runs.options import OptionError, TrainConfig

if TYPE_CHECKING:
    from lstm_optax.training import BatchSharding

LEAST_ROWS = 8  # that a device is given by default; whether fewer are worth it was not measured


def prepare_devices(config: TrainConfig) -> None:
    """Have JAX make as many CPU devices as a run wants, for the command line alone.

    Before JAX starts, and only if the user has not said how many; beside an accelerator they harm
    nothing.
    """
    import jax

    said = jax.config.jax_num_cpu_devices >= 0  # pyright: ignore[reportAttributeAccessIssue]
    if said or "host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    try:
        jax.config.update("jax_num_cpu_devices", config.devices or _most(config.batch, _cores()))
    except RuntimeError:
        pass  # JAX has started: the devices that there are must do


def find_devices(config: TrainConfig) -> list[Any]:
    """Return the devices that share the rows; OptionError if there are too few."""
    import jax

    there = jax.devices()
    kind = there[0].platform
    if config.devices > len(there):
        on_cpu = f", or start with JAX_NUM_CPU_DEVICES={config.devices}" if kind == "cpu" else ""
        raise OptionError(
            f"--devices is {config.devices}, but JAX has {len(there)} here ({kind}): take fewer "
            f"(with --resume, the run is then equal to rounding alone){on_cpu}"
        )
    limit = min(len(there), _cores()) if kind == "cpu" else len(there)
    return there[: config.devices or _most(config.batch, limit)]


def make_sharding(devices: list[Any]) -> "BatchSharding | None":
    """Return how the devices share the rows of a text's windows; None for a single one."""
    from lstm_optax.data.windows import ROW_AXES
    from lstm_optax.training import BatchSharding

    return BatchSharding(ROW_AXES, devices=devices) if len(devices) > 1 else None


def describe_devices(devices: list[Any], batch: int) -> str:
    """Return what a run shows of its devices."""
    first, *others = devices
    share = f"each with {batch // len(devices)} of {batch} rows"
    return f"{len(devices)} × {first.platform}, {share}" if others else str(first)


def _most(batch: int, limit: int) -> int:
    """The most devices, up to a limit, that divide the rows and leave each enough of them."""
    return max(
        n for n in range(1, limit + 1) if n == 1 or batch % n == 0 and batch >= n * LEAST_ROWS
    )


def _cores() -> int:
    """The cores that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)  # Linux has it
    return len(usable(0)) if usable else os.cpu_count() or 1
