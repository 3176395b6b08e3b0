"""General-purpose optimizers, each one `optax.chain` of links."""

from typing import Any

import optax

import lstm_optax.transforms as tx
from lstm_optax.checks import DECAY, RATE, SHARE, SIZE
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
    return optax.chain(tx.scale_by_learning_rate(learning_rate))


def momentum_sgd(
    learning_rate: optax.ScalarOrSchedule, *, momentum: optax.ScalarOrSchedule = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Descend with momentum, with the learning rate inside the velocity.

        v ← γ v + η g;  θ ← θ − v

    A change of η takes full effect only after about 1/(1 − γ) steps. For the learning rate outside
    the velocity, as in PyTorch, use `optax.chain(momentum(γ), scale_by_learning_rate(η))`.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      momentum: γ in [0, 1]; a number, a traced scalar, or a schedule.

    Raises:
      ValueError: a number is out of range.

    Reference: Polyak, 1964, doi:10.1016/0041-5553(64)90137-5.
    """
    RATE.check(learning_rate=learning_rate)
    SHARE.or_schedule().check(momentum=momentum)
    return optax.chain(tx.scale_by_learning_rate(learning_rate), tx.momentum(momentum))


def nesterov_sgd(
    learning_rate: optax.ScalarOrSchedule, *, momentum: optax.ScalarOrSchedule = 0.9
) -> optax.GradientTransformationExtraArgs:
    """Descend with Nesterov momentum, with the learning rate outside the velocity.

        v ← γ v + g;  θ ← θ − η (γ v + g)

    Equal to PyTorch's `SGD(nesterov=True)` and `optax.sgd(nesterov=True)`.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      momentum: γ in [0, 1]; a number, a traced scalar, or a schedule.

    Raises:
      ValueError: a number is out of range.

    Reference: Sutskever et al., 2013, ICML; this form: Bengio et al., 2013, arXiv:1212.0901.
    """
    RATE.check(learning_rate=learning_rate)
    SHARE.or_schedule().check(momentum=momentum)
    return optax.chain(tx.nesterov(tx.momentum(momentum)), tx.scale_by_learning_rate(learning_rate))


def rmsprop(
    learning_rate: optax.ScalarOrSchedule, *, decay: Scalar = 0.9, eps: Scalar = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Divide the gradient by its root mean square, with ε inside the square root.

        ν ← ρ ν + (1 − ρ) g²;  θ ← θ − η g / √(ν + ε)

    There is no bias correction: for a constant gradient the first step is η/√(1 − ρ), and later
    steps converge to η. Equal to `optax.rmsprop`.

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
        tx.precondition(optax.identity(), tx.mean_square(decay), eps_root=eps),
        tx.scale_by_learning_rate(learning_rate),
    )


def rmsprop_momentum(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: Scalar = 0.9,
    decay: Scalar = 0.9,
    eps: Scalar = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Divide the averaged gradient by its root mean square, without bias correction.

        m ← β m + (1 − β) g;  ν ← γ ν + (1 − γ) g²;  θ ← θ − η m / √(ν + ε)

    For a constant gradient the step converges to η. PyTorch and Keras divide first and then
    accumulate, so their step converges to η/(1 − β). If β = γ, no step exceeds η √(1 − βᵗ), by the
    Cauchy–Schwarz inequality.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      momentum: β in [0, 1), decay of the average of the gradient.
      decay: γ in [0, 1), decay of the average of the squared gradient.
      eps: ε ≥ 0, in units of the squared gradient.

    Raises:
      ValueError: a number is out of range.

    Reference: Tieleman & Hinton, 2012, Coursera lecture 6e, with an averaged gradient here.
    """
    RATE.check(learning_rate=learning_rate)
    DECAY.check(momentum=momentum, decay=decay)
    SIZE.check(eps=eps)
    return optax.chain(
        tx.precondition(tx.ema(momentum), tx.mean_square(decay), eps_root=eps),
        tx.scale_by_learning_rate(learning_rate),
    )


def adam(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Divide the averaged gradient by its root mean square, both bias-corrected.

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
        tx.precondition(tx.debias(tx.ema(b1), b1), tx.debias(tx.mean_square(b2), b2), eps=eps),
        tx.scale_by_learning_rate(learning_rate),
    )


def nadam_direction(b1: Scalar, b2: Scalar, eps: Scalar) -> optax.GradientTransformation:
    """Return the direction u of `nadam`, with θ ← θ − η u."""
    DECAY.check(b1=b1, b2=b2)
    SIZE.check(eps=eps)
    return tx.precondition(
        tx.debias(tx.nesterov(tx.ema(b1)), b1), tx.debias(tx.mean_square(b2), b2), eps=eps
    )


def nadam(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """Apply Adam with Nesterov's look-ahead in the first moment (textbook form).

        m ← β₁ m + (1 − β₁) g;  ν ← β₂ ν + (1 − β₂) g²
        θ ← θ − η · (β₁ m + (1 − β₁) g)/(1 − β₁ᵗ) / (√(ν/(1 − β₂ᵗ)) + ε)

    The first step is (1 + β₁) η. The Nadam optimizers of PyTorch, Keras and Optax are different
    rules, built from `dozat_momentum`.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε ≥ 0, in units of the gradient.

    Raises:
      ValueError: a number is out of range.

    Reference: Dozat, 2016, ICLR workshop; this form: Dahl et al., 2023, arXiv:2306.07179.
    """
    RATE.check(learning_rate=learning_rate)
    return optax.chain(nadam_direction(b1, b2, eps), tx.scale_by_learning_rate(learning_rate))


def nadamw(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 1e-4,
    mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Apply Nadam with decoupled weight decay.

        θ ← θ − η (u + λ θ),  u the direction of `nadam`

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      b1: β₁ in [0, 1).
      b2: β₂ in [0, 1).
      eps: ε ≥ 0, in units of the gradient.
      weight_decay: λ ≥ 0, per unit of learning rate.
      mask: which leaves decay: a tree of bools that is a prefix of the parameters' tree, or a
        function of the parameters that returns one; by default all leaves decay.

    Raises:
      ValueError: a number is out of range, or the mask has a leaf that is not a bool.

    Reference: Loshchilov & Hutter, 2019, arXiv:1711.05101, applied to Nadam.
    """
    RATE.check(learning_rate=learning_rate)
    return optax.chain(
        nadam_direction(b1, b2, eps),
        decayed_weights(weight_decay, mask),
        tx.scale_by_learning_rate(learning_rate),
    )
