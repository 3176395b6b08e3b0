"""The optimizers of every network, each one chain of the algebra."""

from typing import Any

import optax

from lstm_optax.checks import DECAY, RATE, SHARE, SIZE
from lstm_optax.transforms import (
    debias,
    ema,
    mean_square,
    nesterov,
    precondition,
    scale_by_learning_rate,
)
from lstm_optax.transforms import (
    momentum as heavy_ball,
)
from lstm_optax.transforms.decay import decayed_weights
from lstm_optax.transforms.scalars import Scalar


def sgd(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """Descend along the gradient.

        θ ← θ − η g

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.

    Raises:
      ValueError: a number is out of range.

    Reference: Robbins & Monro, 1951, doi:10.1214/aoms/1177729586.
    """
    RATE.check(learning_rate=learning_rate)
    return optax.chain(scale_by_learning_rate(learning_rate))


def momentum_sgd(
    learning_rate: optax.ScalarOrSchedule, *, momentum: optax.ScalarOrSchedule = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Descend with momentum, the learning rate inside the velocity.

        v ← γ v + η g;  θ ← θ − v

    A change of η thus takes 1/(1 − γ) steps to act in full. With the rate outside, as in PyTorch,
    it is `optax.chain(momentum(γ), scale_by_learning_rate(η))`.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      momentum: γ in [0, 1]; a number, a traced scalar, or a schedule.

    Raises:
      ValueError: a number is out of range.

    Reference: Polyak, 1964, doi:10.1016/0041-5553(64)90137-5.
    """
    RATE.check(learning_rate=learning_rate)
    SHARE.or_schedule().check(momentum=momentum)
    return optax.chain(scale_by_learning_rate(learning_rate), heavy_ball(momentum))


def nesterov_sgd(
    learning_rate: optax.ScalarOrSchedule, *, momentum: optax.ScalarOrSchedule = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Descend with Nesterov's momentum, the learning rate outside the velocity.

        v ← γ v + g;  θ ← θ − η (γ v + g)

    Equals PyTorch's `SGD(nesterov=True)` and `optax.sgd(nesterov=True)`.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      momentum: γ in [0, 1]; a number, a traced scalar, or a schedule.

    Raises:
      ValueError: a number is out of range.

    Reference: Sutskever et al., 2013, ICML; in this form Bengio et al., 2013, arXiv:1212.0901.
    """
    RATE.check(learning_rate=learning_rate)
    SHARE.or_schedule().check(momentum=momentum)
    return optax.chain(nesterov(heavy_ball(momentum)), scale_by_learning_rate(learning_rate))


def rmsprop(
    learning_rate: optax.ScalarOrSchedule, *, decay: Scalar = 0.9, eps: Scalar = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Divide the gradient by the root of its mean square, ε inside the root.

        ν ← ρ ν + (1 − ρ) g²;  θ ← θ − η g / √(ν + ε)

    Not bias-corrected: the first step is 1/√(1 − ρ) times the steady one. Equals `optax.rmsprop`.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      decay: ρ in [0, 1).
      eps: ε ≥ 0, in units of the squared gradient.

    Raises:
      ValueError: a number is out of range.

    Reference: Tieleman & Hinton, 2012, Coursera lecture 6e.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(decay=decay)
    SIZE.check(eps=eps)
    return optax.chain(
        precondition(optax.identity(), mean_square(decay), eps_root=eps),
        scale_by_learning_rate(learning_rate),
    )


def rmsprop_momentum(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: Scalar = 0.9,
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Average the gradient and its square, then divide; no bias correction.

        m ← β m + (1 − β) g;  ν ← γ ν + (1 − γ) g²;  θ ← θ − η m / √(ν + ε)

    Its steady step is η, where the forms that divide first and accumulate after (PyTorch, Keras)
    take η/(1 − β). With β = γ no step exceeds η √(1 − βᵗ), by Cauchy and Schwarz.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      momentum: β in [0, 1), on the gradient.
      decay: γ in [0, 1), on its square.
      eps: ε ≥ 0, in units of the squared gradient.

    Raises:
      ValueError: a number is out of range.

    Reference: Tieleman & Hinton, 2012, Coursera lecture 6e, with momentum by averaging.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(momentum=momentum, decay=decay)
    SIZE.check(eps=eps)
    return optax.chain(
        precondition(ema(momentum), mean_square(decay), eps_root=eps),
        scale_by_learning_rate(learning_rate),
    )


def adam(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Divide the mean gradient by the root of its mean square, both bias-corrected.

        m ← β₁ m + (1 − β₁) g;  ν ← β₂ ν + (1 − β₂) g²
        θ ← θ − η · m/(1 − β₁ᵗ) / (√(ν/(1 − β₂ᵗ)) + ε)

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε ≥ 0, in units of the gradient.

    Raises:
      ValueError: a number is out of range.

    Reference: Kingma & Ba, 2015, arXiv:1412.6980.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(b1=b1, b2=b2)
    SIZE.check(eps=eps)
    return optax.chain(
        precondition(debias(ema(b1), b1), debias(mean_square(b2), b2), eps=eps),
        scale_by_learning_rate(learning_rate),
    )


def nadam_direction(b1: Scalar, b2: Scalar, eps: Scalar) -> optax.GradientTransformation:
    """Return the direction of `nadam`."""
    DECAY.check(b1=b1, b2=b2)
    SIZE.check(eps=eps)
    return precondition(debias(nesterov(ema(b1)), b1), debias(mean_square(b2), b2), eps=eps)


def nadam(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Adam with Nesterov's look-ahead in the mean, the textbook form.

        m ← β₁ m + (1 − β₁) g;  ν ← β₂ ν + (1 − β₂) g²
        θ ← θ − η · (β₁ m + (1 − β₁) g)/(1 − β₁ᵗ) / (√(ν/(1 − β₂ᵗ)) + ε)

    Its first step is (1 + β₁) η. The Nadams of PyTorch, Keras and Optax are other rules, made of
    `dozat_momentum`.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε ≥ 0, in units of the gradient.

    Raises:
      ValueError: a number is out of range.

    Reference: Dozat, 2016, ICLR workshop; in this form Dahl et al., 2023, arXiv:2306.07179.
    """
    RATE.check(learning_rate=learning_rate)
    return optax.chain(nadam_direction(b1, b2, eps), scale_by_learning_rate(learning_rate))


def nadamw(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 1e-4,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Nadam with decoupled weight decay.

        θ ← θ − η (u + λ θ),  u the direction of nadam

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε ≥ 0, in units of the gradient.
      weight_decay: λ ≥ 0, per unit of learning rate.
      mask: a tree of bools, a prefix of the parameters', or a function that makes one of them:
        which leaves decay; all by default.

    Raises:
      ValueError: a number is out of range, or the mask has a leaf that is no bool.

    Reference: Loshchilov & Hutter, 2019, arXiv:1711.05101, on Nadam.
    """
    RATE.check(learning_rate=learning_rate)
    return optax.chain(
        nadam_direction(b1, b2, eps),
        decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
