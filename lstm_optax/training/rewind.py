"""Return to an earlier state after a step that is not finite."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import Range, check_callable, check_instance, check_integer
from lstm_optax.training.records import Record
from lstm_optax.training.state import TrainState
from lstm_optax.transforms import ScaleByRateFactorState, find_states
from lstm_optax.trees import check_same_tree

RATE_FACTOR = Range(0, 1, above=True, closed=True)


@dataclass(frozen=True)
class Rewind:
    """Where `fit` returns to after a step that is not finite, and how often.

    Training continues from the restored state with the batches that were not read before, with a
    carry of zeros and with a lower learning rate. The optimizer must contain
    `scale_by_rate_factor`, whose state holds the product of all factors.

    Args:
      restore: error → the state to return to; the error is a `NonFiniteError`. Its `state`, the one
        before the failed step, serves as `like` of `Checkpoints.restore`, or is returned itself.
      times: after this many rewinds of a run, the next failure ends it; at least 1.
      rate_factor: multiplies the learning rate at each rewind, in (0, 1].

    Raises:
      ValueError: an argument is out of range.

    Reference: Chowdhery et al., 2022, arXiv:2204.02311, section 5.1: a run restarts from a
    checkpoint before a spike of the loss, and skips the batches around it.
    """

    restore: Callable[[Any], TrainState]
    times: int = 3
    rate_factor: float = 0.5

    def __post_init__(self) -> None:
        check_callable("restore", self.restore, "a function error → state")
        check_integer("times", self.times, 1)
        RATE_FACTOR.check(rate_factor=self.rate_factor)

    def check_optimizer(self, opt_state: optax.OptState) -> None:
        """Raise ValueError if the learning rate of an optimizer cannot be lowered."""
        if self.rate_factor != 1 and not find_states(opt_state, ScaleByRateFactorState):
            raise ValueError(
                f"rewind has rate_factor {self.rate_factor:g}, but the optimizer cannot lower its "
                "rate: use optax.chain(optimizer, scale_by_rate_factor()), or rate_factor=1"
            )


def count_rewinds(history: Sequence[Record], state: TrainState) -> int:
    """Return the number of rewinds of a run so far."""
    return sum(record.get("rewinds", 0) for record in history) + int(state.sums.rewinds)


def rewind_run(
    rewind: Rewind, error: Any, history: Sequence[Record], position: int
) -> tuple[TrainState, list[Record]]:
    """Return the state to continue with after a failed step, and the records up to its step.

    Args:
      rewind: where to return to.
      error: the `NonFiniteError` of the step.
      history: the records so far.
      position: of the first batch that was not read.

    Raises:
      ValueError: the restored state is no state of this training from before the failure.
    """
    failed, restored = error.state, rewind.restore(error)
    check_instance("the restored state", restored, TrainState, "a TrainState")
    check_same_tree("the restored state", restored, failed, "restore a state of this training")
    step = int(restored.step)
    if step > int(failed.step):
        raise ValueError(
            f"restore returned a state after step {step}, but step {error.step} failed: return "
            "one from before"
        )
    kept = [record for record in history if record["step"] <= step]
    rewinds = count_rewinds(history, failed) + 1 - sum(r.get("rewinds", 0) for r in kept)

    def lower(new: Any, old: Any) -> Any:
        if not _is_factor(new):
            return new
        # from the failed state, since one state may be restored twice
        return ScaleByRateFactorState(old.rate_factor * rewind.rate_factor)

    state = restored._replace(
        position=jnp.int32(position),
        opt_state=jax.tree.map(lower, restored.opt_state, failed.opt_state, is_leaf=_is_factor),
        carry=jax.tree.map(_zeros, restored.carry),
        sums=restored.sums._replace(rewinds=jnp.int32(rewinds)),
    )
    # copies, because training donates the state, and the caller may restore it again
    return jax.tree.map(_copy_to_devices_of, state, failed), kept


def _is_factor(node: Any) -> bool:
    return isinstance(node, ScaleByRateFactorState)


def _zeros(leaf: Any) -> Any:
    """Return zeros like a leaf; one without numbers, such as a random key, does not change."""
    return jnp.zeros_like(leaf) if jnp.issubdtype(leaf.dtype, jnp.number) else leaf


def _copy_to_devices_of(new: Any, old: jax.Array) -> jax.Array:
    return jax.device_put(jnp.copy(new), old.sharding)
