"""Small links that only some sources need: Adam's ε hat, and what Keras does around a rule."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import COUNT, DECAY, RATE, SIZE, check_transformations
from lstm_optax.transforms.derivatives import root
from lstm_optax.transforms.dtypes import cast_like, real_only
from lstm_optax.transforms.scalars import (
    Scalar,
    as_schedule,
    debias_factor,
    increment,
)

__all__ = [
    "clip_each_by_norm",
    "clip_together_by_norm",
    "decay_at_rate",
    "overwrite_parameters",
    "unbias_epsilon",
]


class CountState(NamedTuple):
    """State of a link that only counts its steps."""

    count: jax.Array  # int32 []


@real_only
def unbias_epsilon(decay: Scalar) -> optax.GradientTransformation:
    """Leave ε out of the bias correction of a second moment, by a factor on the direction.

        gives √(1 − decayᵗ) u

    Put on the direction over √ν + ε, where ν is not bias-corrected, it gives
    m̂ / (√ν̂ + ε/√(1 − decayᵗ)): the ε hat of Adam's efficient form, in Keras and TensorFlow.

    Args:
      decay: of the second moment, in [0, 1).

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
        factor = root(debias_factor(decay, count))
        return cast_like(jax.tree.map(lambda u: factor * u, updates), updates), CountState(count)

    return optax.GradientTransformation(init, update)


@real_only
def decay_at_rate(
    learning_rate: optax.ScalarOrSchedule, weight_decay: Scalar
) -> optax.GradientTransformation:
    """Decay the parameters beside a finished rule, at its learning rate, as Keras does.

        gives u − η λ θ

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule of this link's own count.
      weight_decay: λ ≥ 0, per unit of learning rate.

    Raises:
      ValueError: λ is a negative number, or `update` is called without the parameters.

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
            raise ValueError("params is None, but they are to decay: pass them to `update`")
        step = rate(state.count) * weight_decay
        decayed = jax.tree.map(lambda u, p: u - step * p, updates, params)
        return cast_like(decayed, updates), CountState(increment(state.count))

    return optax.GradientTransformation(init, update)


@real_only
def overwrite_parameters(
    average: optax.GradientTransformationExtraArgs, every: int
) -> optax.GradientTransformationExtraArgs:
    """Put the average in place of the parameters after every n-th step, as Keras can.

        gives a − θ where t is a multiple of n, else the updates as they are

    Args:
      average: an average of the parameters around an optimizer, of state `AverageState`.
      every: n ≥ 1.

    Raises:
      ValueError: n is out of range, or `average` is no transformation.

    Reference: `keras.optimizers.Optimizer`, Keras 3.15, `ema_overwrite_frequency`.
    """
    check_transformations(average=average)
    COUNT.check(every=every)

    def update(updates, state, params=None, **extra_args):
        updates, new_state = average.update(updates, state, params, **extra_args)
        kept: Any = new_state
        due = kept.count % every == 0
        moved = jax.tree.map(
            lambda u, a, p: jnp.where(due, a - p, u), updates, kept.average, params
        )
        return cast_like(moved, updates), kept

    return optax.GradientTransformationExtraArgs(average.init, update)


@real_only
def clip_each_by_norm(max_norm: Scalar) -> optax.GradientTransformation:
    """Clip each leaf by its own norm, as Keras' `clipnorm` does.

        gives c g / max(‖g‖, c) for each leaf g, or g where c = 0

    Args:
      max_norm: c ≥ 0.

    Raises:
      ValueError: c is a negative number.

    Reference: `keras.optimizers.Optimizer`, Keras 3.15.
    """
    SIZE.check(max_norm=max_norm)

    def leaf(g):
        norm = root(jnp.sum(jnp.square(_wide(g))))
        return jnp.where(max_norm > 0, max_norm * g / _positive(jnp.maximum(norm, max_norm)), g)

    return optax.stateless(lambda updates, _: cast_like(jax.tree.map(leaf, updates), updates))


@real_only
def clip_together_by_norm(max_norm: Scalar) -> optax.GradientTransformation:
    """Clip all leaves by the norm of them all, as Keras' `global_clipnorm` does.

        gives c g · min(1/‖g‖, 1/c), or g where c = 0;  NaN where the norm is not finite

    Args:
      max_norm: c ≥ 0.

    Raises:
      ValueError: c is a negative number.

    Reference: `keras.optimizers.Optimizer`, Keras 3.15.
    """
    SIZE.check(max_norm=max_norm)

    def clip(updates, _):
        squares = [jnp.sum(jnp.square(_wide(g))) for g in jax.tree.leaves(updates)]
        norm = root(sum(squares, start=jnp.zeros([])))
        scale = max_norm * jnp.minimum(1 / _positive(norm), 1 / _positive(max_norm))
        scale = jnp.where(max_norm > 0, scale + (norm - norm), 1)
        return cast_like(jax.tree.map(lambda g: scale * g, updates), updates)

    return optax.stateless(clip)


def _wide(g) -> jax.Array:
    return jnp.asarray(g, jnp.promote_types(jnp.result_type(g), jnp.float32))


def _positive(x: Scalar) -> jax.Array:
    """The number x, and the smallest positive one where x is 0."""
    x = jnp.asarray(x, float)
    return jnp.where(x == 0, jnp.finfo(x.dtype).tiny, x)
