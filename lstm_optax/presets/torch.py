"""PyTorch's optimizers, equal to `torch.optim` of PyTorch 2.13.

`params` is left out, as are `foreach`, `fused`, `capturable` and `differentiable`, which do not
change the result. Everywhere the learning rate stands outside the velocity and ε outside the root.
`update` needs the parameters. A rate that changes is a schedule here, which is read at each step
as `param_groups` are there.
"""

import jax.numpy as jnp
import optax

from lstm_optax.checks import ANY, RATE, SHARE, SIZE, check_flags
from lstm_optax.presets.torch_checks import check_adaptive, check_nesterov
from lstm_optax.transforms import (
    debias,
    dozat_momentum,
    ema,
    mean_square,
    precondition,
    running_max,
    scale_by_learning_rate,
)
from lstm_optax.transforms import nesterov as look_ahead
from lstm_optax.transforms._mean_square import averaged_square, averaged_variance
from lstm_optax.transforms._momentum import damped_ball, heavy_ball
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
    """Descend with momentum, as `torch.optim.SGD` does; the learning rate outside the velocity.

        g ← ±g + λ θ;  b₁ = g, then  b ← μ b + (1 − d) g
        θ ← θ − η b,  or with nesterov  θ ← θ − η (g + μ b)

    Args:
      lr: η ≥ 0; a number, a traced scalar, or a schedule.
      momentum: μ ≥ 0.
      dampening: d, any number; without effect at μ = 0.
      weight_decay: λ ≥ 0, added to the gradient.
      nesterov: look one step ahead; only with μ > 0 and d = 0.
      maximize: ascend.

    Raises:
      ValueError: a number is out of range, or `nesterov` comes without momentum or with dampening.

    Reference: `torch.optim.SGD`, PyTorch 2.13; Sutskever et al., 2013, ICML.
    """
    RATE.check(lr=lr)
    SIZE.check(momentum=momentum, weight_decay=weight_decay)
    ANY.check(dampening=dampening)
    check_flags(nesterov=nesterov, maximize=maximize)
    if nesterov:
        check_nesterov(momentum, dampening)
        velocity = look_ahead(heavy_ball(momentum))
    else:
        velocity = damped_ball(momentum, dampening * (momentum != 0))
    return optax.chain(
        _signed(maximize), decayed_weights(weight_decay), velocity, scale_by_learning_rate(lr)
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
    """Divide by the root of the mean square, then accumulate, as `torch.optim.RMSprop` does.

        g ← ±g + λ θ;  ν ← α ν + (1 − α) g²;  b ← μ b + g / (√ν + ε);  θ ← θ − η b

    ε stands outside the root and η outside the velocity, unlike Keras and TensorFlow. The variance
    of `centered` is a recurrence that cannot go negative, where PyTorch takes a difference that
    can, and gives NaN then.

    Args:
      lr: η ≥ 0; a number, a traced scalar, or a schedule.
      alpha: α in [0, 1].
      eps: ε ≥ 0, in units of the gradient.
      weight_decay: λ ≥ 0, added to the gradient.
      momentum: μ ≥ 0.
      centered: divide by the root of the variance, ν minus the squared mean gradient.
      maximize: ascend.

    Raises:
      ValueError: a number is out of range.

    Reference: `torch.optim.RMSprop`, PyTorch 2.13; Graves, 2013, arXiv:1308.0850.
    """
    RATE.check(lr=lr)
    SHARE.check(alpha=alpha)
    SIZE.check(eps=eps, weight_decay=weight_decay, momentum=momentum)
    check_flags(centered=centered, maximize=maximize)
    size = averaged_variance(alpha) if centered else averaged_square(alpha)
    return optax.chain(
        _signed(maximize),
        decayed_weights(weight_decay),
        precondition(optax.identity(), size, eps=eps),
        heavy_ball(momentum),
        scale_by_learning_rate(lr),
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
    """Adam with Dozat's scheduled look-ahead, as `torch.optim.NAdam` has it.

        μₜ = β₁ (1 − ½ · 0.96^(ψ t)),  Pₜ = μ₁ … μₜ
        m ← β₁ m + (1 − β₁) g;  ν ← β₂ ν + (1 − β₂) g²
        m̂ = μₜ₊₁ m / (1 − Pₜ₊₁) + (1 − μₜ) g / (1 − Pₜ);  θ ← θ − η m̂ / (√(ν/(1 − β₂ᵗ)) + ε)

    ε stands outside the root, after the bias correction. The first step is 1.056 η, not η.

    Args:
      lr: η ≥ 0; a number, a traced scalar, or a schedule.
      betas: β₁ and β₂ in [0, 1).
      eps: ε ≥ 0, in units of the gradient.
      weight_decay: λ ≥ 0: g ← g + λ θ, or if decoupled θ ← (1 − η λ) θ.
      momentum_decay: ψ ≥ 0, the speed of the schedule.
      decoupled_weight_decay: keep the decay out of the moments.
      maximize: ascend.

    Raises:
      ValueError: a number is out of range.

    Reference: `torch.optim.NAdam`, PyTorch 2.13; Dozat, 2016, ICLR workshop.
    """
    b1, b2 = check_adaptive(lr, betas, eps, weight_decay)
    SIZE.check(momentum_decay=momentum_decay)
    check_flags(decoupled_weight_decay=decoupled_weight_decay, maximize=maximize)
    direction = dozat_momentum(b1, momentum_decay)
    rule = precondition(direction, debias(mean_square(b2), b2), eps=eps)
    return _adaptive(rule, lr, weight_decay, decoupled_weight_decay, maximize)


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
    """Divide the mean gradient by the root of its mean square, as `torch.optim.Adam` does.

        m ← β₁ m + (1 − β₁) g;  ν ← β₂ ν + (1 − β₂) g²
        θ ← θ − η · m/(1 − β₁ᵗ) / (√(ν/(1 − β₂ᵗ)) + ε)

    ε stands outside the root, after the bias correction. With `amsgrad` the largest ν so far takes
    the place of ν, before its correction (Optax's takes the largest corrected one).

    Args:
      lr: η ≥ 0; a number, a traced scalar, or a schedule.
      betas: β₁ and β₂ in [0, 1).
      eps: ε ≥ 0, in units of the gradient.
      weight_decay: λ ≥ 0: g ← g + λ θ, or if decoupled θ ← (1 − η λ) θ.
      amsgrad: never forget a large gradient.
      maximize: ascend.
      decoupled_weight_decay: keep the decay out of the moments, as AdamW does.

    Raises:
      ValueError: a number is out of range.

    Reference: `torch.optim.Adam`, PyTorch 2.13; Kingma & Ba, 2015, arXiv:1412.6980.
    """
    b1, b2 = check_adaptive(lr, betas, eps, weight_decay)
    check_flags(amsgrad=amsgrad, maximize=maximize, decoupled_weight_decay=decoupled_weight_decay)
    size = running_max(mean_square(b2)) if amsgrad else mean_square(b2)
    rule = precondition(debias(ema(b1), b1), debias(size, b2), eps=eps)
    return _adaptive(rule, lr, weight_decay, decoupled_weight_decay, maximize)


def AdamW(
    lr: optax.ScalarOrSchedule = 1e-3,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Adam with decoupled weight decay, as `torch.optim.AdamW` has it.

        θ ← θ − η (u + λ θ),  u the direction of `Adam`

    Args:
      lr: η ≥ 0; a number, a traced scalar, or a schedule.
      betas: β₁ and β₂ in [0, 1).
      eps: ε ≥ 0, outside the root, in units of the gradient.
      weight_decay: λ ≥ 0, per unit of learning rate.
      amsgrad: never forget a large gradient.
      maximize: ascend; the decay still pulls to zero.

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
    """Descend with a decaying rate and average the parameters, as `torch.optim.ASGD` does.

        ηₜ = r / (1 + λ r (t − 1))^α,  r the lr of the step before
        θ ← (1 − λ ηₜ) θ − ηₜ (±g + weight_decay · θ);  a ← a + (θ − a) / max(1, t − 1 − t₀)

    PyTorch computes ηₜ at the end of the step before, so that a schedule of `lr` acts one step
    late, save for its first value; this does too. The parameters are θ; `eval_params` gives a,
    PyTorch's `ax`, from the state.

    Args:
      lr: a number ≥ 0, a traced scalar, or a schedule.
      lambd: λ ≥ 0, the decay of the parameters and of the rate.
      alpha: α ≥ 0, the power of the rate's decay.
      t0: t₀ ≥ 0, the step after which to average; before, a is θ.
      weight_decay: ≥ 0, added to the gradient.
      maximize: ascend.

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
        _signed(maximize),
        decayed_weights(weight_decay),
        decayed_weights(lambd),
        scale_by_learning_rate(rate),
    )
    return average_parameters(descent, lambda count: 1 / jnp.maximum(1, count - t0))


def _signed(maximize: bool) -> optax.GradientTransformation:
    return optax.scale(-1.0) if maximize else optax.identity()


def _adaptive(
    rule: optax.GradientTransformation,
    lr: optax.ScalarOrSchedule,
    weight_decay: Scalar,
    decoupled: bool,
    maximize: bool,
) -> optax.GradientTransformationExtraArgs:
    """The chain of an adaptive rule, its decay before or after the division."""
    decayed = decayed_weights(weight_decay)
    links = (rule, decayed) if decoupled else (decayed, rule)
    return optax.chain(_signed(maximize), *links, scale_by_learning_rate(lr))
