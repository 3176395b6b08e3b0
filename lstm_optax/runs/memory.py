"""The memory that there is, and that a training needs at least; JAX is imported when needed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from lstm_optax.runs.options import OptionError, TrainConfig

if TYPE_CHECKING:
    from lstm_optax.training import TrainState

CGROUPS = (  # limit and use, of version 2 and of version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)
GIB = 2**30


def free_memory() -> int:
    """Return the bytes of memory that this process can still take, as far as is known."""
    free = [psutil.virtual_memory().available]
    for limit, use in CGROUPS:
        try:
            free.append(int(Path(limit).read_text()) - int(Path(use).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return max(min(free), 0)


def check_memory(config: TrainConfig, state: "TrainState", vocabulary: int, devices: Any) -> None:
    """Raise OptionError if the memory is less than the training needs at least.

    That is the state, and one step's gradient and activations: what is computed forwards and
    kept for the way back. What XLA and Orbax take in addition is not counted.

    Args:
      config: of the training.
      state: arrays, or only their shapes and dtypes.
      vocabulary: V.
      devices: those that share the rows; CPU devices share one memory.
    """
    whole = _bytes_of(state) + _bytes_of(state.params)  # of which each device has all
    activations = _activations(config, vocabulary)
    first, count = devices[0], len(devices)
    if first.platform == "cpu":
        needed, free = count * whole + activations, free_memory()
    else:
        needed = whole + activations // count
        free = (first.memory_stats() or {}).get("bytes_limit", needed)
    if needed > free:
        raise OptionError(
            f"this training needs at least {needed / GIB:,.1f} GiB of memory: "
            f"{_bytes_of(state) / GIB:,.1f} for parameters and optimizer, "
            f"{_bytes_of(state.params) / GIB:,.1f} for their gradient"
            f"{f', on each of {count} devices' if count > 1 else ''}, and "
            f"{activations / GIB:,.1f} for the activations of a window; {free / GIB:,.1f} GiB are "
            "free: take a smaller --hidden, --embedding, --layers, --batch or --window"
        )


def _activations(config: TrainConfig, vocabulary: int) -> int:
    """Return the bytes that a step keeps of its way forwards.

    At each step of a row: the vector of the character, four gates, c and h of each layer, and
    the logits with their cotangent, which are float32.
    """
    size = 2 if config.dtype == "bfloat16" else 4
    kept = size * (config.embedding + 6 * config.hidden * config.layers) + 2 * 4 * vocabulary
    return config.batch * config.window * kept


def _bytes_of(tree: Any) -> int:
    import jax

    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
