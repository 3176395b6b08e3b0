"""PyTorch's optimizers, equal to `torch.optim` of PyTorch 2.13.

The argument `params` is omitted, and `foreach`, `fused`, `capturable` and `differentiable`, which
do not change the result. In all rules the learning rate is outside the velocity, and ε is added
outside the square root. `update` needs the parameters. Pass a changing learning rate as a schedule,
which is evaluated at each step; PyTorch reads it from `param_groups`.
"""

import jax.numpy as jnp
import optax

import lstm_optax.transforms as tx
from lstm_optax.checks import ANY, RATE, SHARE, SIZE, check_flags
from lstm_optax.presets.torch_checks import check_adaptive, check_nesterov
from lstm_optax.transforms._mean_square import (
    unchecked_centered_mean_square,
    unchecked_mean_square,
)
from lstm_optax.transforms._momentum import unchecked_damped_momentum, unchecked_momentum
from lstm_optax.transforms.averaging import average_parameters
from lstm_optax.transforms.decay import decayed_weights
from lstm_optax.transforms.scalars import Scalar, as_schedule

__all__ = ["ASGD", "Adam", "AdamW", "NAdam", "RMSprop", "SGD"]


def SGD(
    lr: optax.ScalarOrSchedule = 1e-3,
    momentum: Scalar = 0,
    dampening: Scalar = 0,
    weight_decay: Scalar = 0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Descend with momentum, with the learning rate outside the velocity.

        g ← ±g + λ θ;  b₁ = g, then  b ← μ b + (1 − d) g
        θ ← θ − η b,  or with nesterov  θ ← θ − η (g + μ b)

    Args:
      lr: η ≥ 0; a number, a traced scalar, or a schedule.
      momentum: μ ≥ 0.
      dampening: d, any number; ignored if μ = 0.
      weight_decay: λ ≥ 0, added to the gradient.
      nesterov: use Nesterov momentum; needs μ > 0 and d = 0.
      maximize: ascend instead of descend.

    Raises:
      ValueError: a number is out of range, or `nesterov` is set without momentum or with dampening.

    Reference: `torch.optim.SGD`, PyTorch 2.13; Sutskever et al., 2013, ICML.
    """
    RATE.check(lr=lr)
    SIZE.check(momentum=momentum, weight_decay=weight_decay)
    ANY.check(dampening=dampening)
    check_flags(nesterov=nesterov, maximize=maximize)
    if nesterov:
        check_nesterov(momentum, dampening)
        velocity = tx.nesterov(unchecked_momentum(momentum))
    else:
        velocity = unchecked_damped_momentum(momentum, dampening * (momentum != 0))
    return optax.chain(
        _sign(maximize), decayed_weights(weight_decay), velocity, tx.scale_by_learning_rate(lr)
    )


def RMSprop(
    lr: optax.ScalarOrSchedule = 1e-2,
    alpha: Scalar = 0.99,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0,
    momentum: Scalar = 0,
    centered: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Divide by the root mean square of the gradient, then accumulate momentum.

        g ← ±g + λ θ;  ν ← α ν + (1 − α) g²;  b ← μ b + g / (√ν + ε);  θ ← θ − η b

    Unlike in Keras and TensorFlow, ε is added outside the square root, and η is outside the
    velocity. For `centered`, the variance is computed by a recurrence that cannot become negative;
    PyTorch subtracts, and returns NaN if the difference is negative.

    Args:
      lr: η ≥ 0; a number, a traced scalar, or a schedule.
      alpha: α in [0, 1].
      eps: ε ≥ 0, in units of the gradient.
      weight_decay: λ ≥ 0, added to the gradient.
      momentum: μ ≥ 0.
      centered: divide by the square root of the variance, ν minus the squared mean gradient.
      maximize: ascend instead of descend.

    Raises:
      ValueError: a number is out of range.

    Reference: `torch.optim.RMSprop`, PyTorch 2.13; Graves, 2013, arXiv:1308.0850.
    """
    RATE.check(lr=lr)
    SHARE.check(alpha=alpha)
    SIZE.check(eps=eps, weight_decay=weight_decay, momentum=momentum)
    check_flags(centered=centered, maximize=maximize)
    estimator = unchecked_centered_mean_square if centered else unchecked_mean_square
    return optax.chain(
        _sign(maximize),
        decayed_weights(weight_decay),
        tx.precondition(optax.identity(), estimator(alpha), eps=eps),
        unchecked_momentum(momentum),
        tx.scale_by_learning_rate(lr),
    )


def NAdam(
    lr: optax.ScalarOrSchedule = 2e-3,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0,
    momentum_decay: Scalar = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Apply Adam with Dozat's scheduled look-ahead.

        μₜ = β₁ (1 − ½ · 0.96^(ψ t)),  Pₜ = μ₁ … μₜ
        m ← β₁ m + (1 − β₁) g;  ν ← β₂ ν + (1 − β₂) g²
        m̂ = μₜ₊₁ m / (1 − Pₜ₊₁) + (1 − μₜ) g / (1 − Pₜ);  θ ← θ − η m̂ / (√(ν/(1 − β₂ᵗ)) + ε)

    ε is added outside the square root, after the bias correction. The first step is 1.056 η.

    Args:
      lr: η ≥ 0; a number, a traced scalar, or a schedule.
      betas: β₁ and β₂ in [0, 1).
      eps: ε ≥ 0, in units of the gradient.
      weight_decay: λ ≥ 0: g ← g + λ θ, or θ ← (1 − η λ) θ if decoupled.
      momentum_decay: ψ ≥ 0, the speed of the schedule.
      decoupled_weight_decay: exclude the decay from the moments.
      maximize: ascend instead of descend.

    Raises:
      ValueError: a number is out of range.

    Reference: `torch.optim.NAdam`, PyTorch 2.13; Dozat, 2016, ICLR workshop.
    """
    b1, b2 = check_adaptive(lr, betas, eps, weight_decay)
    SIZE.check(momentum_decay=momentum_decay)
    check_flags(decoupled_weight_decay=decoupled_weight_decay, maximize=maximize)
    direction = tx.dozat_momentum(b1, momentum_decay)
    rule = tx.precondition(direction, tx.debias(tx.mean_square(b2), b2), eps=eps)
    return _adaptive_chain(rule, lr, weight_decay, decoupled_weight_decay, maximize)


def Adam(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Divide the averaged gradient by its root mean square, both bias-corrected.

        m ← β₁ m + (1 − β₁) g;  ν ← β₂ ν + (1 − β₂) g²
        θ ← θ − η · m/(1 − β₁ᵗ) / (√(ν/(1 − β₂ᵗ)) + ε)

    ε is added outside the square root, after the bias correction. With `amsgrad`, the largest ν of
    all steps replaces ν before the bias correction; Optax takes the largest corrected ν.

    Args:
      lr: η ≥ 0; a number, a traced scalar, or a schedule.
      betas: β₁ and β₂ in [0, 1).
      eps: ε ≥ 0, in units of the gradient.
      weight_decay: λ ≥ 0: g ← g + λ θ, or θ ← (1 − η λ) θ if decoupled.
      amsgrad: use the largest ν of all steps.
      maximize: ascend instead of descend.
      decoupled_weight_decay: exclude the decay from the moments, as AdamW does.

    Raises:
      ValueError: a number is out of range.

    Reference: `torch.optim.Adam`, PyTorch 2.13; Kingma & Ba, 2015, arXiv:1412.6980.
    """
    b1, b2 = check_adaptive(lr, betas, eps, weight_decay)
    check_flags(amsgrad=amsgrad, maximize=maximize, decoupled_weight_decay=decoupled_weight_decay)
    second_moment = tx.running_max(tx.mean_square(b2)) if amsgrad else tx.mean_square(b2)
    direction = tx.debias(tx.ema(b1), b1)
    rule = tx.precondition(direction, tx.debias(second_moment, b2), eps=eps)
    return _adaptive_chain(rule, lr, weight_decay, decoupled_weight_decay, maximize)


def AdamW(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Apply Adam with decoupled weight decay.

        θ ← θ − η (u + λ θ),  u the direction of `Adam`

    Args:
      lr: η ≥ 0; a number, a traced scalar, or a schedule.
      betas: β₁ and β₂ in [0, 1).
      eps: ε ≥ 0, added outside the square root; in units of the gradient.
      weight_decay: λ ≥ 0, per unit of learning rate.
      amsgrad: use the largest ν of all steps.
      maximize: ascend instead of descend; the decay does not change sign.

    Raises:
      ValueError: a number is out of range.

    Reference: `torch.optim.AdamW`, PyTorch 2.13; Loshchilov & Hutter, 2019, arXiv:1711.05101.
    """
    return Adam(
        lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True
    )


def ASGD(
    lr: optax.ScalarOrSchedule = 1e-2,
    lambd: Scalar = 1e-4,
    alpha: Scalar = 0.75,
    t0: Scalar = 1e6,
    weight_decay: Scalar = 0,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Descend with a decaying learning rate, and average the parameters.

        ηₜ = r / (1 + λ r (t − 1))^α,  r the lr of the previous step
        θ ← (1 − λ ηₜ) θ − ηₜ (±g + weight_decay · θ);  a ← a + (θ − a) / max(1, t − 1 − t₀)

    PyTorch computes ηₜ at the end of the previous step. So each value of a schedule of `lr`, except
    the first, takes effect one step late, here as well. The parameters are θ; `eval_params` returns
    a, which is PyTorch's `ax`, from the state.

    Args:
      lr: a number ≥ 0, a traced scalar, or a schedule.
      lambd: λ ≥ 0, the decay of the parameters and of the learning rate.
      alpha: α ≥ 0, the exponent of the learning-rate decay.
      t0: t₀ ≥ 0, the step after which averaging starts; until then a is θ.
      weight_decay: ≥ 0, added to the gradient.
      maximize: ascend instead of descend.

    Raises:
      ValueError: a number is out of range.

    Reference: `torch.optim.ASGD`, PyTorch 2.13; Polyak & Juditsky, 1992, doi:10.1137/0330046.
    """
    RATE.check(lr=lr)
    SIZE.check(lambd=lambd, alpha=alpha, t0=t0, weight_decay=weight_decay)
    check_flags(maximize=maximize)
    schedule = as_schedule(lr, SIZE)

    def rate(count):
        r = schedule(jnp.maximum(count - 1, 0))
        return r / (1 + lambd * r * count) ** alpha

    descent = optax.chain(
        _sign(maximize),
        decayed_weights(weight_decay),
        decayed_weights(lambd),
        tx.scale_by_learning_rate(rate),
    )
    return average_parameters(descent, lambda count: 1 / jnp.maximum(1, count - t0))


def _sign(maximize: bool) -> optax.GradientTransformation:
    return optax.scale(-1.0) if maximize else optax.identity()


def _adaptive_chain(
    rule: optax.GradientTransformation,
    lr: optax.ScalarOrSchedule,
    weight_decay: Scalar,
    decoupled: bool,
    maximize: bool,
) -> optax.GradientTransformationExtraArgs:
    """Return the chain of an adaptive rule, with weight decay before or after the division."""
    decay = decayed_weights(weight_decay)
    links = (rule, decay) if decoupled else (decay, rule)
    return optax.chain(_sign(maximize), *links, tx.scale_by_learning_rate(lr))
