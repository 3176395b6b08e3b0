"""A wrapper that scales the loss, so that small gradients do not underflow in float16."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import FACTOR, Range, check_transformations
from lstm_optax.transforms._finite import all_finite, is_finite_loss, new_if, zero_unless
from lstm_optax.transforms.dtypes import cast_like, real_only
from lstm_optax.transforms.scalars import Scalar, increment, scalar


class LossScalingState(NamedTuple):
    """State of `loss_scaling`."""

    scale: jax.Array  # float []; S, by which the next loss is multiplied
    finite_in_a_row: jax.Array  # int32 []; finite steps since the scale last changed
    skipped: jax.Array  # int32 []; number of steps that were skipped because of the scale
    inner: optax.OptState


@real_only
def loss_scaling(
    inner: optax.GradientTransformation,
    *,
    initial: Scalar = 2.0**15,
    growth_interval: Scalar = 2000,
    factor: Scalar = 2.0,
    min_scale: Scalar = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """Divide the gradient of a scaled loss by its scale, which follows what the gradient allows.

        u = inner(∇(S L) / S)

    In float16, numbers below 6e-8 are 0, and many gradients are smaller. The gradient of S times
    the loss is S times as large. `make_step` multiplies the loss; a loop of your own multiplies it
    by the `scale` in the state, before it differentiates.

    If the scaled gradient is not finite, the step is skipped: the updates are 0, the state of
    `inner` does not change, and S is divided by the factor. After `growth_interval` finite steps in
    a row, S is multiplied by it. The scale cannot be the cause if S is already `min_scale`, or if
    the loss, passed as `value`, is not finite: then `inner` receives the gradient as it is, and a
    `guard` in it can skip the step.

    Args:
      inner: the whole optimizer, including clipping and the guard; it receives the gradient in
        float32 or wider.
      initial: S of the first step, > 0.
      growth_interval: the number of finite steps, ≥ 1.
      factor: > 1; scaling by a power of 2 does not round.
      min_scale: > 0; the smallest S.

    Raises:
      ValueError: a number is out of range.

    Reference: Micikevicius et al., 2018, arXiv:1710.03740, section 3.2. The rule is that of
    `torch.amp.GradScaler`, which has no smallest scale and does not look at the loss.
    """
    check_transformations(inner=inner)
    FACTOR.check(initial=initial, min_scale=min_scale)
    Range(1).check(growth_interval=growth_interval)
    Range(1, above=True).check(factor=factor)
    inner = optax.with_extra_args_support(inner)

    def init(params):
        return LossScalingState(  # distinct arrays, because the state may be donated
            scale=jnp.array(initial, float),
            finite_in_a_row=jnp.zeros([], jnp.int32),
            skipped=jnp.zeros([], jnp.int32),
            inner=inner.init(params),
        )

    @jax.named_scope("loss_scaling")
    def update(updates, state, params=None, **extra_args):
        finite = all_finite(updates)
        apply = finite | (state.scale <= min_scale) | ~is_finite_loss(extra_args)

        def divided(u):
            wide = jnp.asarray(u, jnp.promote_types(jnp.result_type(u), jnp.float32))
            return wide / state.scale.astype(wide.dtype)

        gradient = zero_unless(apply, jax.tree.map(divided, updates))
        new_updates, new_inner = inner.update(gradient, state.inner, params, **extra_args)
        new_state = LossScalingState(
            *next_scale(state, finite, apply),
            skipped=jnp.where(apply, state.skipped, increment(state.skipped)),
            inner=new_if(apply, new_inner, state.inner),
        )
        return zero_unless(apply, cast_like(new_updates, updates)), new_state

    def next_scale(state, finite, apply):
        in_a_row = jnp.where(finite, increment(state.finite_in_a_row), 0)
        grown = state.scale * scalar(factor)
        grows = (in_a_row >= growth_interval) & jnp.isfinite(grown)
        lower = jnp.maximum(state.scale / scalar(factor), scalar(min_scale))
        scale = jnp.where(apply, jnp.where(grows, grown, state.scale), lower)
        return scale, jnp.where(in_a_row >= growth_interval, 0, in_a_row)

    return optax.GradientTransformationExtraArgs(init, update)
