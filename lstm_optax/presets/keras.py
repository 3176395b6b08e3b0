"""Keras' optimizers, equal to `keras.optimizers` of Keras 3.15.

The learning rate is inside the velocity. Each optimizer divides the gradient by
`loss_scale_factor`, clips it, applies its rule, decays the parameters (θ − η λ θ, not through the
rule), and averages them, in this order.

Arguments of all optimizers:

- weight_decay: λ ≥ 0, or None;
- clipnorm, clipvalue, global_clipnorm: ≥ 0, at most one of the three: clip each leaf by its norm,
  each entry by its absolute value, or all leaves by their global norm; 0 disables clipping;
- use_ema: average the parameters, with decay ema_momentum in [0, 1]; `eval_params` returns the
  average from the state;
- ema_overwrite_frequency: ≥ 1, or None: replace the parameters by the average after this many
  steps;
- loss_scale_factor: > 0, or None: the factor by which the loss was multiplied.

The argument `name` is omitted, and `gradient_accumulation_steps`; use `optax.MultiSteps` for the
latter. The moments are float32 or wider here; Keras uses the parameters' dtype.
"""

import optax

import lstm_optax.transforms as tx
from lstm_optax.checks import DECAY, RATE, SHARE, SIZE, check_flags
from lstm_optax.presets.keras_around import links_after, links_before, with_average
from lstm_optax.presets.links import unbias_epsilon
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
    """Descend with momentum, with the learning rate inside the velocity.

        v ← μ v − η g;  θ ← θ + v,  or with nesterov  θ ← θ + μ v − η g

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      momentum: μ in [0, 1].
      nesterov: use Nesterov momentum.
      weight_decay: see the module docstring for this and the following arguments.

    Raises:
      ValueError: a number is out of range, or more than one clip argument is set.

    Reference: `keras.optimizers.SGD`, Keras 3.15; Polyak, 1964, doi:10.1016/0041-5553(64)90137-5.
    """
    RATE.check(learning_rate=learning_rate)
    SHARE.check(momentum=momentum)
    check_flags(nesterov=nesterov)
    velocity = tx.nesterov(tx.momentum(momentum)) if nesterov else tx.momentum(momentum)
    rule = optax.chain(
        *links_before(clipnorm, clipvalue, global_clipnorm, loss_scale_factor),
        tx.scale_by_learning_rate(learning_rate),
        velocity,
        *links_after(learning_rate, weight_decay),
    )
    return with_average(rule, use_ema, ema_momentum, ema_overwrite_frequency)


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
    """Divide by the root mean square of the gradient, then accumulate momentum.

        ν ← ρ ν + (1 − ρ) g²;  v ← μ v + η g / √(ν + ε);  θ ← θ − v

    Unlike in PyTorch, ε is added inside the square root, and η is inside the velocity. For
    `centered`, the variance is computed by a recurrence that cannot become negative; Keras
    subtracts, and its variance can.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      rho: ρ in [0, 1).
      momentum: μ in [0, 1].
      epsilon: ε ≥ 0, in units of the squared gradient.
      centered: divide by the square root of the variance, ν minus the squared mean gradient.
      weight_decay: see the module docstring for this and the following arguments.

    Raises:
      ValueError: a number is out of range, or more than one clip argument is set.

    Reference: `keras.optimizers.RMSprop`, Keras 3.15; Tieleman & Hinton, 2012, lecture 6e.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(rho=rho)
    SHARE.check(momentum=momentum)
    SIZE.check(epsilon=epsilon)
    check_flags(centered=centered)
    second_moment = tx.centered_mean_square(rho) if centered else tx.mean_square(rho)
    rule = optax.chain(
        *links_before(clipnorm, clipvalue, global_clipnorm, loss_scale_factor),
        tx.precondition(optax.identity(), second_moment, eps_root=epsilon),
        tx.scale_by_learning_rate(learning_rate),
        tx.momentum(momentum),
        *links_after(learning_rate, weight_decay),
    )
    return with_average(rule, use_ema, ema_momentum, ema_overwrite_frequency)


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
    """Apply Adam with Dozat's scheduled look-ahead, with a schedule 250 times as fast.

        μₜ = β₁ (1 − ½ · 0.96ᵗ),  Pₜ = μ₁ … μₜ
        m ← β₁ m + (1 − β₁) g;  ν ← β₂ ν + (1 − β₂) g²
        m̂ = μₜ₊₁ m / (1 − Pₜ₊₁) + (1 − μₜ) g / (1 − Pₜ);  θ ← θ − η m̂ / (√(ν/(1 − β₂ᵗ)) + ε)

    ε is added outside the square root, after the bias correction. PyTorch, TF-Keras 2 and Dozat use
    0.96^(t/250).

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      beta_1: β₁ in [0, 1).
      beta_2: β₂ in [0, 1).
      epsilon: ε ≥ 0, in units of the gradient.
      weight_decay: see the module docstring for this and the following arguments.

    Raises:
      ValueError: a number is out of range, or more than one clip argument is set.

    Reference: `keras.optimizers.Nadam`, Keras 3.15; Dozat, 2015, report for Stanford's CS229.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(beta_1=beta_1, beta_2=beta_2)
    SIZE.check(epsilon=epsilon)
    direction = tx.dozat_momentum(beta_1, 1.0)
    rule = optax.chain(
        *links_before(clipnorm, clipvalue, global_clipnorm, loss_scale_factor),
        tx.precondition(direction, tx.debias(tx.mean_square(beta_2), beta_2), eps=epsilon),
        tx.scale_by_learning_rate(learning_rate),
        *links_after(learning_rate, weight_decay),
    )
    return with_average(rule, use_ema, ema_momentum, ema_overwrite_frequency)


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
    """Divide the averaged gradient by its root mean square, with ε outside the bias correction.

        m ← β₁ m + (1 − β₁) g;  ν ← β₂ ν + (1 − β₂) g²
        θ ← θ − η √(1 − β₂ᵗ)/(1 − β₁ᵗ) · m / (√ν + ε)

    ε is added outside the square root of the uncorrected ν: at the first step it has 1/√(1 − β₂)
    times its effect in PyTorch. With `amsgrad`, the largest ν of all steps replaces ν.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      beta_1: β₁ in [0, 1).
      beta_2: β₂ in [0, 1).
      epsilon: ε ≥ 0, in units of the gradient.
      amsgrad: use the largest ν of all steps.
      weight_decay: see the module docstring for this and the following arguments.

    Raises:
      ValueError: a number is out of range, or more than one clip argument is set.

    Reference: `keras.optimizers.Adam`, Keras 3.15; Kingma & Ba, 2015, arXiv:1412.6980.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(beta_1=beta_1, beta_2=beta_2)
    SIZE.check(epsilon=epsilon)
    check_flags(amsgrad=amsgrad)
    direction = optax.chain(tx.debias(tx.ema(beta_1), beta_1), unbias_epsilon(beta_2))
    second_moment = tx.mean_square(beta_2)
    if amsgrad:
        second_moment = tx.running_max(second_moment)
    rule = optax.chain(
        *links_before(clipnorm, clipvalue, global_clipnorm, loss_scale_factor),
        tx.precondition(direction, second_moment, eps=epsilon),
        tx.scale_by_learning_rate(learning_rate),
        *links_after(learning_rate, weight_decay),
    )
    return with_average(rule, use_ema, ema_momentum, ema_overwrite_frequency)
