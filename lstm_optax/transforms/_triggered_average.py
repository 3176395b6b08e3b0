"""Parameter averaging that starts when the validation loss stops improving (NT-ASGD)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import LENGTH, check_transformations
from lstm_optax.transforms.averaging import AverageState, advance_average, initial_average
from lstm_optax.transforms.dtypes import real_only
from lstm_optax.transforms.scalars import Scalar, increment, scalar


class TriggeredAverageState(NamedTuple):
    """State of `triggered_average`."""

    triggered: jax.Array  # bool []
    results: jax.Array  # int32 []; number of reported validation losses
    recent: jax.Array  # float [nonmonotone]; the most recent losses, oldest first
    best: jax.Array  # float []; the lowest loss before the recent ones
    average: AverageState  # its count is the number of steps since the trigger


@real_only
def triggered_average(
    inner: optax.GradientTransformation, *, nonmonotone: int = 5
) -> optax.GradientTransformationExtraArgs:
    """Start averaging the parameters when the validation loss stops improving (NT-ASGD).

        trigger: v > min(v₁, …, vₖ₋ₙ),  v the newest loss, v₁, …, vₖ the earlier ones, k > n
        a = mean(θ₂, …, θₜ),  θₜ the parameters t steps after the trigger,  a = θ₁ for t = 1

    Call `report_validation_loss` after each validation. `eval_params` returns a, or before the
    trigger the parameters; the trained parameters are not replaced. As in the authors' code, the n
    losses before the newest do not count, and θ₁ is excluded, because PyTorch's ASGD excludes it. A
    NaN loss counts as one of the n, but does not trigger and is never the minimum.

    Args:
      inner: the whole optimizer, including the learning rate.
      nonmonotone: n ≥ 1, the number of recent losses that the newest is not compared with; a Python
        integer, because the shape of the state depends on it.

    Raises:
      ValueError: `nonmonotone` is not an integer ≥ 1, or `update` is called without the parameters.

    Reference: Merity, Keskar & Socher, 2018, arXiv:1708.02182, section 3, and the authors' code.
    """
    check_transformations(inner=inner)
    LENGTH.check(nonmonotone=nonmonotone)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return TriggeredAverageState(  # distinct arrays, because the state may be donated
            triggered=jnp.zeros([], jnp.bool_),
            results=jnp.zeros([], jnp.int32),
            recent=jnp.zeros([nonmonotone], float),
            best=scalar(0),
            average=initial_average(inner, params),
        )

    @jax.named_scope("triggered_average")
    def update(updates, state, params=None, **extra_args):
        w = jnp.where(state.triggered, 1 / jnp.maximum(1.0, state.average.count), 1.0)
        updates, average = advance_average(inner, w, updates, state.average, params, extra_args)
        average = average._replace(count=jnp.where(state.triggered, average.count, 0))
        return updates, state._replace(average=average)

    return optax.GradientTransformationExtraArgs(init, update)


def report_validation_loss(state: optax.OptState, validation_loss: Scalar) -> optax.OptState:
    """Return the optimizer state after reporting a validation loss to each `triggered_average`.

    Call it after each validation, with the loss of the parameters from `eval_params`; `fit` does.

    Args:
      state: the state of an optimizer; returned unchanged if it has no `triggered_average`.
      validation_loss: the loss, lower is better; for a state that `jax.vmap` batches, one loss for
        all members or an array with one for each.

    Raises:
      ValueError: the loss has another shape, or the state contains objects other than arrays.
    """

    def report(node: Any) -> Any:
        if not isinstance(node, TriggeredAverageState):
            return node
        return _record_loss(node, validation_loss)._replace(
            average=report_validation_loss(node.average, validation_loss)
        )

    return jax.tree.map(report, state, is_leaf=lambda node: isinstance(node, TriggeredAverageState))


def _record_loss(state: TriggeredAverageState, validation_loss: Scalar) -> TriggeredAverageState:
    """Return the state with the loss appended to `recent`, and with the trigger and best updated.

    Under `jax.vmap` over members every field has the members' axes in front: [*members, …].
    """
    if not jax.tree_util.all_leaves(state[:4]):
        raise ValueError(
            f"the state holds a {type(state.triggered).__name__}; expected arrays: for an "
            "nnx.Optimizer, pass nnx.as_pure(optimizer.opt_state)"
        )
    loss, shape = jnp.asarray(validation_loss, state.best.dtype), jnp.shape(state.triggered)
    if loss.shape not in ((), shape):
        raise ValueError(f"the validation loss has shape {loss.shape}; expected {shape}")
    loss = jnp.broadcast_to(loss, shape)  # [*members]
    n, oldest = state.recent.shape[-1], state.recent[..., 0]  # the loss that leaves `recent`
    return state._replace(
        triggered=state.triggered | ((state.results > n) & (loss > state.best)),
        results=increment(state.results),
        recent=jnp.concatenate([state.recent[..., 1:], loss[..., None]], axis=-1),
        best=jnp.where(state.results <= n, oldest, jnp.fmin(state.best, oldest)),
    )
