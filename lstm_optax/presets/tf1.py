"""TensorFlow 1's optimizers, as `tf.compat.v1.train` still has them, for dense gradients.

`name` and `use_locking` are left out. The slices of a sparse gradient (`tf.IndexedSlices`), of
which TensorFlow updates no other entries, are not followed: here every entry decays.
"""

import optax

from lstm_optax.checks import DECAY, RATE, SHARE, SIZE, check_flags
from lstm_optax.presets.links import unbias_epsilon
from lstm_optax.transforms import (
    centered_mean_square,
    debias,
    ema,
    mean_square,
    precondition,
    scale_by_learning_rate,
)
from lstm_optax.transforms import momentum as heavy_ball
from lstm_optax.transforms import nesterov as look_ahead
from lstm_optax.transforms.scalars import Scalar

__all__ = ["AdamOptimizer", "MomentumOptimizer", "RMSPropOptimizer"]


def RMSPropOptimizer(
    learning_rate: optax.ScalarOrSchedule,
    decay: Scalar = 0.9,
    momentum: Scalar = 0.0,
    epsilon: Scalar = 1e-10,
    *,
    centered: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Divide by the root of a mean square that starts at 1, then accumulate.

        ν₀ = 1;  ν ← ρ ν + (1 − ρ) g²;  v ← μ v + η g / √(ν + ε);  θ ← θ − v

    ε stands inside the root and η inside the velocity. As ν starts at 1, small gradients take
    small steps at first, where Keras' and PyTorch's start with a large one.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      decay: ρ in [0, 1).
      momentum: μ in [0, 1].
      epsilon: ε ≥ 0, in units of the squared gradient.
      centered: divide by the root of the variance, ν minus the squared mean gradient.

    Raises:
      ValueError: a number is out of range.

    Reference: `tf.compat.v1.train.RMSPropOptimizer`; Tieleman & Hinton, 2012, lecture 6e.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(decay=decay)
    SHARE.check(momentum=momentum)
    SIZE.check(epsilon=epsilon)
    check_flags(centered=centered)
    estimator = centered_mean_square if centered else mean_square
    return optax.chain(
        precondition(optax.identity(), estimator(decay, initial=1.0), eps_root=epsilon),
        scale_by_learning_rate(learning_rate),
        heavy_ball(momentum),
    )


def MomentumOptimizer(
    learning_rate: optax.ScalarOrSchedule, momentum: Scalar, *, use_nesterov: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Descend with momentum, the learning rate outside the velocity.

        v ← μ v + g;  θ ← θ − η v,  or with Nesterov  θ ← θ − η (g + μ v)

    Keras' SGD, which took its place, has η inside the velocity.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      momentum: μ in [0, 1].
      use_nesterov: look one step ahead, with the μ of this step.

    Raises:
      ValueError: a number is out of range.

    Reference: `tf.compat.v1.train.MomentumOptimizer`; Sutskever et al., 2013, ICML.
    """
    RATE.check(learning_rate=learning_rate)
    SHARE.check(momentum=momentum)
    check_flags(use_nesterov=use_nesterov)
    velocity = heavy_ball(momentum)
    return optax.chain(
        look_ahead(velocity) if use_nesterov else velocity,
        scale_by_learning_rate(learning_rate),
    )


def AdamOptimizer(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta1: Scalar = 0.9,
    beta2: Scalar = 0.999,
    epsilon: Scalar = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Divide the mean gradient by the root of its mean square, ε not bias-corrected.

        m ← β₁ m + (1 − β₁) g;  ν ← β₂ ν + (1 − β₂) g²
        θ ← θ − η √(1 − β₂ᵗ)/(1 − β₁ᵗ) · m / (√ν + ε)

    ε stands outside the root, as Adam's ε hat; the learning rate comes last.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      beta1: β₁ in [0, 1).
      beta2: β₂ in [0, 1).
      epsilon: ε ≥ 0, in units of the gradient.

    Raises:
      ValueError: a number is out of range.

    Reference: `tf.compat.v1.train.AdamOptimizer`; Kingma & Ba, 2015, arXiv:1412.6980.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(beta1=beta1, beta2=beta2)
    SIZE.check(epsilon=epsilon)
    direction = optax.chain(debias(ema(beta1), beta1), unbias_epsilon(beta2))
    return optax.chain(
        precondition(direction, mean_square(beta2), eps=epsilon),
        scale_by_learning_rate(learning_rate),
    )
