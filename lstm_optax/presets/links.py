"""Links that only some presets need: Adam's ε̂, and clipping, decay and averaging of Keras."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import COUNT, DECAY, RATE, SIZE, check_transformations
from lstm_optax.transforms.derivatives import safe_sqrt
from lstm_optax.transforms.dtypes import cast_like, real_only
from lstm_optax.transforms.scalars import Scalar, as_schedule, debias_factor, increment

__all__ = [
    "clip_each_by_norm",
    "clip_together_by_norm",
    "decay_at_rate",
    "overwrite_parameters",
    "unbias_epsilon",
]


class CountState(NamedTuple):
    """State of `unbias_epsilon` and `decay_at_rate`: the step count."""

    count: jax.Array  # int32 []


@real_only
def unbias_epsilon(decay: Scalar) -> optax.GradientTransformation:
    """Scale a direction by the bias correction of the second moment, which excludes ε from it.

        u ← √(1 − decayᵗ) u

    A direction scaled in this way and divided by √ν + ε, with ν not bias-corrected, equals
    m̂ / (√ν̂ + ε/√(1 − decayᵗ)). This ε is the ε̂ of Adam's efficient form, in Keras and TensorFlow.

    Args:
      decay: in [0, 1), the decay of the second moment.

    Raises:
      ValueError: decay is a number out of range.

    Reference: Kingma & Ba, 2015, arXiv:1412.6980, end of section 2.
    """
    DECAY.check(decay=decay)

    def init(params):
        del params
        return CountState(jnp.zeros([], jnp.int32))

    @jax.named_scope("unbias_epsilon")
    def update(updates, state, params=None):
        del params
        count = increment(state.count)
        factor = safe_sqrt(debias_factor(decay, count))
        return cast_like(jax.tree.map(lambda u: factor * u, updates), updates), CountState(count)

    return optax.GradientTransformation(init, update)


@real_only
def decay_at_rate(
    learning_rate: optax.ScalarOrSchedule, weight_decay: Scalar
) -> optax.GradientTransformation:
    """Add weight decay to the final updates of a rule, scaled by the learning rate, as Keras does.

        u ← u − η λ θ

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule of this link's own step count.
      weight_decay: λ ≥ 0, per unit of learning rate.

    Raises:
      ValueError: η or λ is out of range, or `update` is called without the parameters.

    Reference: `keras.optimizers.Optimizer`, Keras 3.15.
    """
    RATE.check(learning_rate=learning_rate)
    SIZE.check(weight_decay=weight_decay)
    rate = as_schedule(learning_rate, SIZE)

    def init(params):
        del params
        return CountState(jnp.zeros([], jnp.int32))

    @jax.named_scope("decay_at_rate")
    def update(updates, state, params=None):
        if params is None:
            raise ValueError("params is None, but the decay needs them: pass them to `update`")
        step = rate(state.count) * weight_decay
        decayed = jax.tree.map(lambda u, p: u - step * p, updates, params)
        return cast_like(decayed, updates), CountState(increment(state.count))

    return optax.GradientTransformation(init, update)


@real_only
def overwrite_parameters(
    average: optax.GradientTransformationExtraArgs, every: int
) -> optax.GradientTransformationExtraArgs:
    """Replace the parameters by their average after every n-th step, as an option of Keras does.

        u ← a − θ if t is a multiple of n, otherwise unchanged

    Args:
      average: an optimizer inside an average of the parameters, with the state `AverageState`.
      every: n ≥ 1.

    Raises:
      ValueError: n is out of range, or `average` is not a gradient transformation.

    Reference: `keras.optimizers.Optimizer`, Keras 3.15, `ema_overwrite_frequency`.
    """
    check_transformations(average=average)
    COUNT.check(every=every)

    def update(updates, state, params=None, **extra_args):
        updates, new_state = average.update(updates, state, params, **extra_args)
        average_state: Any = new_state
        due = average_state.count % every == 0
        new_updates = jax.tree.map(
            lambda u, a, p: jnp.where(due, a - p, u), updates, average_state.average, params
        )
        return cast_like(new_updates, updates), average_state

    return optax.GradientTransformationExtraArgs(average.init, update)


@real_only
def clip_each_by_norm(max_norm: Scalar) -> optax.GradientTransformation:
    """Clip each leaf by its own norm, as Keras' `clipnorm` does.

        g ← c g / max(‖g‖, c) for each leaf g, unchanged if c = 0

    Args:
      max_norm: c ≥ 0.

    Raises:
      ValueError: c is a negative number.

    Reference: `keras.optimizers.Optimizer`, Keras 3.15.
    """
    SIZE.check(max_norm=max_norm)

    def leaf(g):
        norm = safe_sqrt(jnp.sum(jnp.square(_wide(g))))
        return jnp.where(max_norm > 0, max_norm * g / _nonzero(jnp.maximum(norm, max_norm)), g)

    return optax.stateless(lambda updates, _: cast_like(jax.tree.map(leaf, updates), updates))


@real_only
def clip_together_by_norm(max_norm: Scalar) -> optax.GradientTransformation:
    """Clip by the norm of all leaves together, as Keras' `global_clipnorm` does.

        g ← c g · min(1/‖g‖, 1/c), unchanged if c = 0;  NaN if the norm is not finite

    Args:
      max_norm: c ≥ 0.

    Raises:
      ValueError: c is a negative number.

    Reference: `keras.optimizers.Optimizer`, Keras 3.15.
    """
    SIZE.check(max_norm=max_norm)

    def clip(updates, _):
        squares = [jnp.sum(jnp.square(_wide(g))) for g in jax.tree.leaves(updates)]
        norm = safe_sqrt(sum(squares, start=jnp.zeros([])))
        scale = max_norm * jnp.minimum(1 / _nonzero(norm), 1 / _nonzero(max_norm))
        scale = jnp.where(max_norm > 0, scale + (norm - norm), 1)  # norm - norm: 0, or NaN for ∞
        return cast_like(jax.tree.map(lambda g: scale * g, updates), updates)

    return optax.stateless(clip)


def _wide(g: Any) -> jax.Array:
    return jnp.asarray(g, jnp.promote_types(jnp.result_type(g), jnp.float32))


def _nonzero(x: Scalar) -> jax.Array:
    """Return x, or the smallest positive normal number if x is 0, to divide by."""
    x = jnp.asarray(x, float)
    return jnp.where(x == 0, jnp.finfo(x.dtype).tiny, x)
