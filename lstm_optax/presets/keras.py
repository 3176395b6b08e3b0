"""Keras' optimizers, equal to `keras.optimizers` of Keras 3.15.

The learning rate stands inside the velocity. Around its rule each does, in this order, what the
arguments below say: divide the gradient by `loss_scale_factor`, clip it, take the step of the rule,
decay the parameters (θ − η λ θ, never through the rule), and average them.

The arguments that all share:

- weight_decay: λ ≥ 0, or None;
- clipnorm, clipvalue, global_clipnorm: ≥ 0, at most one of them: clip each leaf by its norm, each
  entry, or all leaves by the norm of them all; 0 does not clip;
- use_ema, ema_momentum in [0, 1], ema_overwrite_frequency ≥ 1 or None: average the parameters;
  `eval_params` gives the average from the state; after every so many steps it takes the place of
  the parameters;
- loss_scale_factor: > 0, what the loss was multiplied with, or None.

`name` is left out, and `gradient_accumulation_steps`, for which there is `optax.MultiSteps`. Keras
keeps its moments in the parameters' dtype, where these are float32 or better.
"""

import optax

from lstm_optax.checks import DECAY, RATE, SHARE, SIZE, check_flags
from lstm_optax.presets.keras_around import averaged, decayed, prepared
from lstm_optax.presets.links import unbias_epsilon
from lstm_optax.transforms import (
    centered_mean_square,
    debias,
    dozat_momentum,
    ema,
    mean_square,
    precondition,
    running_max,
    scale_by_learning_rate,
)
from lstm_optax.transforms import momentum as heavy_ball
from lstm_optax.transforms import nesterov as look_ahead
from lstm_optax.transforms.scalars import Scalar

__all__ = ["Adam", "Nadam", "RMSprop", "SGD"]


def SGD(
    learning_rate: optax.ScalarOrSchedule = 0.01,
    momentum: Scalar = 0.0,
    nesterov: bool = False,
    weight_decay: Scalar | None = None,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    use_ema: bool = False,
    ema_momentum: Scalar = 0.99,
    ema_overwrite_frequency: int | None = None,
    loss_scale_factor: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Descend with momentum, as `keras.optimizers.SGD` does; the learning rate inside the velocity.

        v ← μ v − η g;  θ ← θ + v,  or with nesterov  θ ← θ + μ v − η g

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      momentum: μ in [0, 1].
      nesterov: look one step ahead.
      weight_decay: this and the arguments after it are explained at the top of this module.

    Raises:
      ValueError: a number is out of range, or there is more than one clip.

    Reference: `keras.optimizers.SGD`, Keras 3.15; Polyak, 1964, doi:10.1016/0041-5553(64)90137-5.
    """
    RATE.check(learning_rate=learning_rate)
    SHARE.check(momentum=momentum)
    check_flags(nesterov=nesterov)
    velocity = look_ahead(heavy_ball(momentum)) if nesterov else heavy_ball(momentum)
    rule = optax.chain(
        *prepared(clipnorm, clipvalue, global_clipnorm, loss_scale_factor),
        scale_by_learning_rate(learning_rate),
        velocity,
        *decayed(learning_rate, weight_decay),
    )
    return averaged(rule, use_ema, ema_momentum, ema_overwrite_frequency)


def RMSprop(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    rho: Scalar = 0.9,
    momentum: Scalar = 0.0,
    epsilon: Scalar = 1e-7,
    centered: bool = False,
    weight_decay: Scalar | None = None,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    use_ema: bool = False,
    ema_momentum: Scalar = 0.99,
    ema_overwrite_frequency: int | None = None,
    loss_scale_factor: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Divide by the root of the mean square, then accumulate, as `keras.optimizers.RMSprop` does.

        ν ← ρ ν + (1 − ρ) g²;  v ← μ v + η g / √(ν + ε);  θ ← θ − v

    ε stands inside the root and η inside the velocity, unlike PyTorch. The variance of `centered`
    is a recurrence that cannot go negative, where Keras takes a difference that can.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      rho: ρ in [0, 1).
      momentum: μ in [0, 1].
      epsilon: ε ≥ 0, in units of the squared gradient.
      centered: divide by the root of the variance, ν minus the squared mean gradient.
      weight_decay: this and the arguments after it are explained at the top of this module.

    Raises:
      ValueError: a number is out of range, or there is more than one clip.

    Reference: `keras.optimizers.RMSprop`, Keras 3.15; Tieleman & Hinton, 2012, lecture 6e.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(rho=rho)
    SHARE.check(momentum=momentum)
    SIZE.check(epsilon=epsilon)
    check_flags(centered=centered)
    size = centered_mean_square(rho) if centered else mean_square(rho)
    rule = optax.chain(
        *prepared(clipnorm, clipvalue, global_clipnorm, loss_scale_factor),
        precondition(optax.identity(), size, eps_root=epsilon),
        scale_by_learning_rate(learning_rate),
        heavy_ball(momentum),
        *decayed(learning_rate, weight_decay),
    )
    return averaged(rule, use_ema, ema_momentum, ema_overwrite_frequency)


def Nadam(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta_1: Scalar = 0.9,
    beta_2: Scalar = 0.999,
    epsilon: Scalar = 1e-7,
    weight_decay: Scalar | None = None,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    use_ema: bool = False,
    ema_momentum: Scalar = 0.99,
    ema_overwrite_frequency: int | None = None,
    loss_scale_factor: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adam with Dozat's look-ahead, scheduled 250 times as fast, as `keras.optimizers.Nadam` does.

        μₜ = β₁ (1 − ½ · 0.96ᵗ),  Pₜ = μ₁ … μₜ
        m ← β₁ m + (1 − β₁) g;  ν ← β₂ ν + (1 − β₂) g²
        m̂ = μₜ₊₁ m / (1 − Pₜ₊₁) + (1 − μₜ) g / (1 − Pₜ);  θ ← θ − η m̂ / (√(ν/(1 − β₂ᵗ)) + ε)

    ε stands outside the root, after the bias correction. PyTorch, TF-Keras 2 and Dozat have
    0.96^(t/250).

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      beta_1: β₁ in [0, 1).
      beta_2: β₂ in [0, 1).
      epsilon: ε ≥ 0, in units of the gradient.
      weight_decay: this and the arguments after it are explained at the top of this module.

    Raises:
      ValueError: a number is out of range, or there is more than one clip.

    Reference: `keras.optimizers.Nadam`, Keras 3.15; Dozat, 2015, report for Stanford's CS229.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(beta_1=beta_1, beta_2=beta_2)
    SIZE.check(epsilon=epsilon)
    direction = dozat_momentum(beta_1, 1.0)
    rule = optax.chain(
        *prepared(clipnorm, clipvalue, global_clipnorm, loss_scale_factor),
        precondition(direction, debias(mean_square(beta_2), beta_2), eps=epsilon),
        scale_by_learning_rate(learning_rate),
        *decayed(learning_rate, weight_decay),
    )
    return averaged(rule, use_ema, ema_momentum, ema_overwrite_frequency)


def Adam(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta_1: Scalar = 0.9,
    beta_2: Scalar = 0.999,
    epsilon: Scalar = 1e-7,
    amsgrad: bool = False,
    weight_decay: Scalar | None = None,
    clipnorm: Scalar | None = None,
    clipvalue: Scalar | None = None,
    global_clipnorm: Scalar | None = None,
    use_ema: bool = False,
    ema_momentum: Scalar = 0.99,
    ema_overwrite_frequency: int | None = None,
    loss_scale_factor: Scalar | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Divide the mean gradient by the root of its mean square, as `keras.optimizers.Adam` does.

        m ← β₁ m + (1 − β₁) g;  ν ← β₂ ν + (1 − β₂) g²
        θ ← θ − η √(1 − β₂ᵗ)/(1 − β₁ᵗ) · m / (√ν + ε)

    ε stands outside the root and is not bias-corrected: at the first step it weighs 1/√(1 − β₂)
    times what it does in PyTorch. With `amsgrad` the largest ν so far takes the place of ν.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      beta_1: β₁ in [0, 1).
      beta_2: β₂ in [0, 1).
      epsilon: ε ≥ 0, in units of the gradient.
      amsgrad: never forget a large gradient.
      weight_decay: this and the arguments after it are explained at the top of this module.

    Raises:
      ValueError: a number is out of range, or there is more than one clip.

    Reference: `keras.optimizers.Adam`, Keras 3.15; Kingma & Ba, 2015, arXiv:1412.6980.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(beta_1=beta_1, beta_2=beta_2)
    SIZE.check(epsilon=epsilon)
    check_flags(amsgrad=amsgrad)
    direction = optax.chain(debias(ema(beta_1), beta_1), unbias_epsilon(beta_2))
    size = running_max(mean_square(beta_2)) if amsgrad else mean_square(beta_2)
    rule = optax.chain(
        *prepared(clipnorm, clipvalue, global_clipnorm, loss_scale_factor),
        precondition(direction, size, eps=epsilon),
        scale_by_learning_rate(learning_rate),
        *decayed(learning_rate, weight_decay),
    )
    return averaged(rule, use_ema, ema_momentum, ema_overwrite_frequency)
