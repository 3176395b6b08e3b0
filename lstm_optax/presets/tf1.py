"""TensorFlow 1's optimizers (`tf.compat.v1.train`), for dense gradients.

The arguments `name` and `use_locking` are omitted. Sparse gradients (`tf.IndexedSlices`) are
treated as dense: for them, TensorFlow's RMSPropOptimizer and MomentumOptimizer update only the
entries in the slices, while here all moments decay, as in its AdamOptimizer.
"""

import optax

import lstm_optax.transforms as tx
from lstm_optax.checks import DECAY, RATE, SHARE, SIZE, check_flags
from lstm_optax.presets.links import unbias_epsilon
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
    """Divide by the root of a mean square that starts at 1, then accumulate momentum.

        ν₀ = 1;  ν ← ρ ν + (1 − ρ) g²;  v ← μ v + η g / √(ν + ε);  θ ← θ − v

    ε is added inside the square root; η is inside the velocity. Because ν starts at 1, the first
    steps for small gradients are small; in Keras and PyTorch they are large.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      decay: ρ in [0, 1).
      momentum: μ in [0, 1].
      epsilon: ε ≥ 0, in units of the squared gradient.
      centered: divide by the square root of the variance, ν minus the squared mean gradient.

    Raises:
      ValueError: a number is out of range.

    Reference: `tf.compat.v1.train.RMSPropOptimizer`; Tieleman & Hinton, 2012, lecture 6e.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(decay=decay)
    SHARE.check(momentum=momentum)
    SIZE.check(epsilon=epsilon)
    check_flags(centered=centered)
    estimator = tx.centered_mean_square if centered else tx.mean_square
    return optax.chain(
        tx.precondition(optax.identity(), estimator(decay, initial=1.0), eps_root=epsilon),
        tx.scale_by_learning_rate(learning_rate),
        tx.momentum(momentum),
    )


def MomentumOptimizer(
    learning_rate: optax.ScalarOrSchedule, momentum: Scalar, *, use_nesterov: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Descend with momentum, with the learning rate outside the velocity.

        v ← μ v + g;  θ ← θ − η v,  or with Nesterov  θ ← θ − η (g + μ v)

    Its successor, Keras' SGD, has η inside the velocity.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      momentum: μ in [0, 1].
      use_nesterov: use Nesterov momentum, with the μ of this step.

    Raises:
      ValueError: a number is out of range.

    Reference: `tf.compat.v1.train.MomentumOptimizer`; Sutskever et al., 2013, ICML.
    """
    RATE.check(learning_rate=learning_rate)
    SHARE.check(momentum=momentum)
    check_flags(use_nesterov=use_nesterov)
    velocity = tx.momentum(momentum)
    return optax.chain(
        tx.nesterov(velocity) if use_nesterov else velocity,
        tx.scale_by_learning_rate(learning_rate),
    )


def AdamOptimizer(
    learning_rate: optax.ScalarOrSchedule = 0.001,
    beta1: Scalar = 0.9,
    beta2: Scalar = 0.999,
    epsilon: Scalar = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Divide the averaged gradient by its root mean square, with ε outside the bias correction.

        m ← β₁ m + (1 − β₁) g;  ν ← β₂ ν + (1 − β₂) g²
        θ ← θ − η √(1 − β₂ᵗ)/(1 − β₁ᵗ) · m / (√ν + ε)

    ε is added outside the square root of the uncorrected ν (Adam's ε̂); the learning rate comes
    last.

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
    direction = optax.chain(tx.debias(tx.ema(beta1), beta1), unbias_epsilon(beta2))
    return optax.chain(
        tx.precondition(direction, tx.mean_square(beta2), eps=epsilon),
        tx.scale_by_learning_rate(learning_rate),
    )
