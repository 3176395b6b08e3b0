"""Averaging that begins when the validation loss has ceased to fall, as NT-ASGD's does."""

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
    results: jax.Array  # validation losses observed; int32 []
    recent: jax.Array  # the last of them, the oldest first; float [nonmonotone]
    best: jax.Array  # the lowest of those before; float []
    average: AverageState  # its count is that of the steps since the trigger


@real_only
def triggered_average(
    inner: optax.GradientTransformation, *, nonmonotone: int = 5
) -> optax.GradientTransformationExtraArgs:
    """Average the parameters from when the validation loss has ceased to fall: NT-ASGD's.

        triggered once v > min(v₁, …, vₖ₋ₙ),  v the newest loss, v₁, …, vₖ those before, k > n
        a = mean(θ₂, …, θₜ),  θₜ the parameters t = 1, 2, … steps after that, a = θ₁ at t = 1

    Call `report_validation_loss` after each validation. `eval_params` returns a, and before the
    trigger the parameters themselves; the parameters in training are never replaced. The rule
    follows the authors' code: the n losses before the newest do not count, and PyTorch's ASGD,
    which they switch to, leaves θ₁ out. A NaN loss counts as one of the n, but it never triggers
    and never is the lowest.

    Args:
      inner: the whole optimizer, its learning rate included.
      nonmonotone: n ≥ 1, how many of the losses may be no better than one before them; a Python
        integer, since the shape of the state depends on it.

    Raises:
      ValueError: `nonmonotone` is no integer of at least 1, or `update` is called without the
        parameters.

    Reference: Merity, Keskar & Socher, 2018, arXiv:1708.02182, section 5, by the authors' code.
    """
    check_transformations(inner=inner)
    LENGTH.check(nonmonotone=nonmonotone)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return TriggeredAverageState(  # no array twice: each may be donated
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
    """Return the state of an optimizer with a validation loss told to every trigger in it.

    To be called after each validation, with the loss of what `eval_params` gives; `fit` does.

    Args:
      state: of an optimizer; without a `triggered_average` in it it stays as it is.
      validation_loss: lower is better; of states that `jax.vmap` made, one for each or for all.

    Raises:
      ValueError: a loss of another shape, or a state that holds something else than arrays.
    """

    def fed(node: Any) -> Any:
        if not isinstance(node, TriggeredAverageState):
            return node
        return _told(node, validation_loss)._replace(
            average=report_validation_loss(node.average, validation_loss)
        )

    return jax.tree.map(fed, state, is_leaf=lambda node: isinstance(node, TriggeredAverageState))


def _told(state: TriggeredAverageState, validation_loss: Scalar) -> TriggeredAverageState:
    if not jax.tree_util.all_leaves(state[:4]):
        raise ValueError(
            f"the state holds a {type(state.triggered).__name__}; expected arrays: of an "
            "nnx.Optimizer, give nnx.as_pure(optimizer.opt_state)"
        )
    loss, shape = jnp.asarray(validation_loss, state.best.dtype), jnp.shape(state.triggered)
    if loss.shape not in ((), shape):
        raise ValueError(f"the validation loss has shape {loss.shape}; expected {shape}")
    loss = jnp.broadcast_to(loss, shape)
    n, oldest = state.recent.shape[-1], state.recent[..., 0]
    return state._replace(
        triggered=state.triggered | ((state.results > n) & (loss > state.best)),
        results=increment(state.results),
        recent=jnp.concatenate([state.recent[..., 1:], loss[..., None]], axis=-1),
        best=jnp.where(state.results <= n, oldest, jnp.fmin(state.best, oldest)),
    )
