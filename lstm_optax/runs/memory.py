"""Free memory, and a lower bound on what a training needs; JAX is imported on demand."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from lstm_optax.runs.constraints import OptionError
from lstm_optax.runs.options import TrainConfig

if TYPE_CHECKING:
    from lstm_optax.training import TrainState

CGROUPS = (  # files with the limit and the usage, of cgroup version 2 and version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)
GIB = 2**30


def free_memory() -> int:
    """Return the number of bytes that this process can still allocate, as far as is known."""
    free = [psutil.virtual_memory().available]
    for limit, usage in CGROUPS:
        try:
            free.append(int(Path(limit).read_text()) - int(Path(usage).read_text()))
        except (OSError, ValueError):  # the group does not exist, or its limit is "max"
            continue
    return max(min(free), 0)


def memory_in_use(devices: Any) -> dict[str, int]:
    """Return the memory of this process in bytes, for a record.

    "host_memory" is the resident set size. "device_memory" is the largest number of bytes that one
    device has had in use; it is missing where JAX does not know it, as on a CPU.
    """
    found = {"host_memory": psutil.Process().memory_info().rss}
    stats = [device.memory_stats() or {} for device in devices]
    peaks = [stat["peak_bytes_in_use"] for stat in stats if "peak_bytes_in_use" in stat]
    return found | ({"device_memory": max(peaks)} if peaks else {})


def check_memory(
    state: "TrainState", activations: int, devices: Any, *, shard: bool = False
) -> None:
    """Raise OptionError if the free memory is less than a lower bound on what a training needs.

    The bound counts the state, and the gradient and the stored activations of one step. Memory that
    XLA and Orbax allocate in addition is not counted.

    Args:
      state: arrays, or only their shapes and dtypes.
      activations: bytes that one step stores for its backward pass, see `activation_bytes`.
      devices: those that share the rows; the CPU devices of a process share one memory.
      shard: whether the devices share the state, too; the parameters of a step are whole on each.
    """
    import jax

    local = [device for device in devices if device.process_index == jax.process_index()]
    first, count = local[0], len(devices)
    each = _tree_bytes(state) + _tree_bytes(state.params)
    if shard:
        each = each // count + _tree_bytes(state.params)
    if first.platform == "cpu":
        needed = len(local) * each + activations * len(local) // count
        free = free_memory()
    else:
        needed = each + activations // count
        free = (first.memory_stats() or {}).get("bytes_limit", needed)
    if needed > free:
        raise OptionError(
            f"this training needs at least {needed / GIB:,.1f} GiB of memory: "
            f"{_tree_bytes(state) / GIB:,.1f} for parameters and optimizer, "
            f"{_tree_bytes(state.params) / GIB:,.1f} for their gradient"
            f"{f', on each of {count} devices' if count > 1 else ''}, and "
            f"{activations / GIB:,.1f} for the activations of a window; {free / GIB:,.1f} GiB are "
            "free: use a smaller --hidden, --embedding, --layers, --batch or --window"
        )


def activation_bytes(config: TrainConfig, vocabulary: int) -> int:
    """Return the number of bytes that one step stores for its backward pass.

    Per row and time step: the character's embedding; four gates, c and h of each layer; the logits
    and their cotangent, in float32, unless they are computed in chunks.
    """
    from lstm_optax.models.language import MOST_LOGITS  # imports JAX

    size = 4 if config.dtype == "float32" else 2
    steps = config.batch * config.window
    stored = size * (config.embedding + 6 * config.hidden * config.layers)
    logits = 0 if config.softmax == "adaptive" else steps * vocabulary
    return steps * stored + (2 * 4 * logits if logits <= MOST_LOGITS else 0)


def _tree_bytes(tree: Any) -> int:
    import jax

    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
