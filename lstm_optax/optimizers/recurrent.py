"""Optimizers for LSTMs: triggered averaging (AWD-LSTM), and Muon for each gate block."""

from collections.abc import Callable
from typing import Any

import optax

from lstm_optax.checks import BOUND, RATE
from lstm_optax.gates import GateMap
from lstm_optax.optimizers.classic import nadam_direction
from lstm_optax.transforms import (
    by_gate,
    clip_by_global_norm,
    scale_by_learning_rate,
    scale_by_rate_factor,
    triggered_average,
)
from lstm_optax.transforms.decay import decayed_weights
from lstm_optax.transforms.muon import muon_direction
from lstm_optax.transforms.scalars import Scalar


def awd_sgd(
    learning_rate: optax.ScalarOrSchedule = 30.0,
    *,
    clip: Scalar = 0.25,
    weight_decay: Scalar = 1.2e-6,
    nonmonotone: int = 5,
) -> optax.GradientTransformationExtraArgs:
    """Descend with clipping, and average once the validation loss stops improving.

        θ ← θ − η (g · min(1, c/‖g‖) + λ θ);  `eval_params` returns the mean of θ since the trigger

    This is the optimizer of AWD-LSTM, except that clipping is exact: a gradient with norm at most c
    is unchanged, a larger one is scaled to norm c. The authors' code uses PyTorch's clipping, which
    divides by ‖g‖ + 1e-6; see `presets.algoperf.clip_gradients`.

    Report each validation loss with `report_validation_loss`; see `triggered_average`. A
    `rate_factor` passed to `update`, such as the relative length of a window, scales η of that
    step.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule. The authors use a constant.
      clip: c ≥ 0, the largest norm of the gradient; with ∞ the norm is only recorded.
      weight_decay: λ ≥ 0, per unit of learning rate.
      nonmonotone: n ≥ 1, the number of recent losses that the newest is not compared with; a Python
        integer.

    Raises:
      ValueError: a number is out of range.

    Reference: Merity, Keskar & Socher, 2018, arXiv:1708.02182, NT-ASGD.
    """
    RATE.check(learning_rate=learning_rate)
    BOUND.check(clip=clip)
    descent = optax.chain(
        clip_by_global_norm(clip),
        decayed_weights(weight_decay),
        scale_by_learning_rate(learning_rate),
        scale_by_rate_factor(),
    )
    return triggered_average(descent, nonmonotone=nonmonotone)


def gate_muon(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: Scalar = 0.95,
    rms: Scalar = 0.2,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-8,
    gates: Callable[[Any], GateMap] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Apply Muon to each gate's kernels of an LSTM, and Nadam to all other parameters.

        θ ← θ − η u
        gate kernels: u = rms · √max(rows, columns) · orthogonalised(momentum of g), for each block
        other parameters: u is the direction of `nadam`

    Each gate block is orthogonalised separately. Muon on a whole kernel couples its four gates: a
    large gradient of one gate reduces the steps of the others.

    The momentum is computed by Optax's Muon, which corrects the bias of the mean and of the
    gradient before it combines them for Nesterov's look-ahead. Jordan's code corrects neither, so
    the first steps differ: at the default momentum, the weight of the newest gradient in the second
    step is 68 % there and 73 % here.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      momentum: in [0, 1), the momentum of Muon, with Nesterov's look-ahead.
      rms: ≥ 0, the approximate root mean square of Muon's u; the entries of Nadam's u have the same
        order of magnitude at the default.
      b1: in [0, 1), for `nadam`.
      b2: in [0, 1), for `nadam`.
      eps: ≥ 0, for `nadam`.
      gates: as in `by_gate`.

    Raises:
      ValueError: a number is out of range; at `init`: the tree has no LSTM, or `find_gates` raises.

    Reference: Jordan et al., 2024, "Muon"; scale from Liu et al., 2025, arXiv:2502.16982.
    """
    RATE.check(learning_rate=learning_rate)
    muon = muon_direction(momentum, rms)
    return optax.chain(
        by_gate(
            {"kernel_ih": muon, "kernel_hh": muon},
            others=nadam_direction(b1, b2, eps),
            gates=gates,
        ),
        scale_by_learning_rate(learning_rate),
    )
