"""A learned optimizer: a recurrent network sets Nadam's rate, look-ahead and clip per tensor.

Experimental, and not part of the library: see docs/learned.md.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from learned.loss_watch import LossWatch, loss_features, start_watch, too_high, watch
from learned.tensor_features import Moments, tensor_features, time_features
from learned.tensor_lstm import Controls, Theta, read_heads, run_cell, zero_state
from lstm_optax import clip_by_global_norm
from lstm_optax.checks import DECAY, RATE, SIZE
from lstm_optax.lstm import LSTMState
from lstm_optax.transforms._finite import all_finite, is_finite_loss, new_if, zero_unless
from lstm_optax.transforms.derivatives import safe_divide, safe_sqrt
from lstm_optax.transforms.dtypes import accumulate, cast_like, moments_like, real_only
from lstm_optax.transforms.scalars import Scalar, complement, debias_factor, increment


class GuardState(NamedTuple):
    """What the guard remembers; scalars."""

    tripped: jax.Array  # bool; from now on the rule is Nadam
    not_finite: jax.Array  # int32; skipped steps


class ScaleByLearnedState(NamedTuple):
    """State of `scale_by_learned`."""

    count: jax.Array  # int32 []
    mu: optax.Updates  # the parameters' tree and shapes
    nu: optax.Updates  # the same
    cell: LSTMState  # h and c, float32 [tensors, units]
    loss: LossWatch
    guard: GuardState


@real_only
def scale_by_learned(
    theta: Theta,
    *,
    base_rate: Scalar = 0.01,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    horizon: Any = 0,
    guard: bool | jax.Array = True,
    use_loss: bool | jax.Array = True,
) -> optax.GradientTransformationExtraArgs:
    """Scale Nadam's direction per tensor, as a small LSTM decides from the gradient's statistics.

        m, ν as in `nadam`;  m̂ = m/(1 − β₁ᵗ),  n̂ = (β₁ m + (1 − β₁) g)/(1 − β₁ᵗ)
        (rate, ahead, clip) = heads of the LSTM, for each tensor
        d = (m̂ + ahead · (n̂ − m̂)) / (√(ν/(1 − β₂ᵗ)) + ε)
        returns η₀ · rate · (d + clip · (max(−1, min(d, 1)) − d))

    With zeros in the heads it returns η₀ times the direction of `nadam`. The rate is within
    [η₀/30, 30 η₀], and no entry is larger than 2 · 30 η₀ |d|. Nothing more is guaranteed: with
    momentum and noise, no bound on the rate makes every step descend.

    Pass the loss as `value=` for the features of the loss and for the guard. If the loss rises, see
    `loss_watch`, or if it or a gradient is not finite, the guard resets h and c and makes the rule
    Nadam for the rest of the run. A step that is not finite is skipped and counted. Follow it by
    `optax.scale(-1)`.

    Args:
      theta: the weights, see `init_theta` and `load_theta`.
      base_rate: η₀ ≥ 0.
      b1, b2: β₁ and β₂ in [0, 1).
      eps: ε ≥ 0, in units of the gradient.
      horizon: planned number of steps, as a schedule would need it; 0 if it is unknown.
      guard: whether to guard.
      use_loss: whether the network sees the loss; meta-training sometimes hides it.

    Raises:
      ValueError: a number is out of range.

    Reference: Andrychowicz et al., 2016, arXiv:1606.04474; Lv et al., 2017, arXiv:1703.03633.
    """
    RATE.check(base_rate=base_rate)
    DECAY.check(b1=b1, b2=b2)
    SIZE.check(eps=eps)
    guarded = jnp.asarray(guard, jnp.bool_)

    def init(params):
        return ScaleByLearnedState(
            count=jnp.zeros([], jnp.int32),
            mu=moments_like(params),
            nu=moments_like(params),
            cell=zero_state(theta, len(jax.tree.leaves(params))),
            loss=start_watch(),
            guard=GuardState(jnp.zeros([], jnp.bool_), jnp.zeros([], jnp.int32)),
        )

    @jax.named_scope("scale_by_learned")
    def update(updates, state, params=None, *, value=None, **extra_args):
        del extra_args
        finite = all_finite(updates) & is_finite_loss({"value": value}) | ~guarded
        g = zero_unless(finite, updates)
        count = increment(state.count)
        mu = accumulate(lambda g, m: b1 * m + complement(b1) * g, g, state.mu)
        nu = accumulate(lambda g, v: b2 * v + complement(b2) * g * g, g, state.nu)
        seen = state.loss
        if value is not None:
            seen = new_if(finite, watch(seen, value), seen)
        tripped = state.guard.tripped | (guarded & (~finite | too_high(seen)))
        leaves = _moments(g, state.mu, mu, nu, count)
        cell = state.cell
        if leaves:
            known = jnp.asarray(use_loss, jnp.bool_) & (value is not None)
            shared = jnp.concatenate([time_features(count, horizon), loss_features(seen, known)])
            tensors = None if params is None else jax.tree.leaves(params)
            features = tensor_features(leaves, tensors, shared, jnp.float32(base_rate))
            cell = run_cell(theta, features, cell)
            cell = zero_unless(~tripped, cell)
            found = _direct(leaves, _unless(tripped, read_heads(theta, cell)))
        else:
            found = []
        scaled = jax.tree.unflatten(jax.tree.structure(updates), [base_rate * d for d in found])
        new = ScaleByLearnedState(
            count=jnp.where(finite, count, state.count),
            mu=new_if(finite, mu, state.mu),
            nu=new_if(finite, nu, state.nu),
            cell=cell,
            loss=seen,
            guard=GuardState(tripped, state.guard.not_finite + (~finite).astype(jnp.int32)),
        )
        return cast_like(zero_unless(finite, scaled), updates), new

    def _moments(g, before, mu, nu, count) -> list[Moments]:
        first_factor, second_factor = debias_factor(b1, count), debias_factor(b2, count)

        def of_tensor(g, before, m, v):
            g = jnp.asarray(g, m.dtype)
            second = v / second_factor.astype(v.dtype)
            ahead = (b1 * m + complement(b1) * g) / first_factor.astype(m.dtype)
            bottom = safe_sqrt(second) + eps
            first = m / first_factor.astype(m.dtype)
            return Moments(g, before, first, second, safe_divide(ahead, bottom))

        trees = (jax.tree.leaves(tree) for tree in (g, before, mu, nu))
        return [of_tensor(*leaf) for leaf in zip(*trees, strict=True)]

    def _direct(leaves: list[Moments], controls: Controls) -> list[jax.Array]:
        directions = []
        for j, tensor in enumerate(leaves):
            rate, ahead, clip = (x[j].astype(tensor.direction.dtype) for x in controls)
            plain = safe_divide(tensor.first, safe_sqrt(tensor.second) + eps)
            d = tensor.direction + (ahead - 1) * (tensor.direction - plain)
            directions.append(rate * (d + clip * (jnp.clip(d, -1, 1) - d)))
        return directions

    return optax.GradientTransformationExtraArgs(init, update)


def learned(theta: Theta, **options: Any) -> optax.GradientTransformationExtraArgs:
    """Descend along `scale_by_learned`, after a clip of the gradient's global norm to 1."""
    return optax.chain(
        clip_by_global_norm(1.0), scale_by_learned(theta, **options), optax.scale(-1.0)
    )


def _unless(tripped: jax.Array, controls: Controls) -> Controls:
    """Return the controls, or those of Nadam."""
    plain = Controls(*(jnp.full_like(x, one) for x, one in zip(controls, (1, 1, 0), strict=True)))
    return new_if(tripped, plain, controls)
