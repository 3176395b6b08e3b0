"""The optimizers made for LSTMs: one that averages when the time has come, and Muon by gate."""

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
    """Clip, descend, and average once the validation loss has ceased to fall, as AWD-LSTM does.

        θ ← θ − η (g · min(1, c/‖g‖) + λ θ);  `eval_params` gives the mean of θ since the trigger

    The clip is exact: a norm below c changes nothing, and above it the norm becomes c. The authors'
    code has PyTorch's, which divides by ‖g‖ + 1e-6: `presets.algoperf.clip_gradients` is that one.

    Pass the validation losses to `report_validation_loss`; see `triggered_average`. A `rate_factor`
    passed to `update`, such as the relative length of a window, scales η of that step.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule. The authors' is constant.
      clip: c ≥ 0, the largest norm of the gradient; ∞ only measures.
      weight_decay: λ ≥ 0, per unit of learning rate.
      nonmonotone: n ≥ 1, how many of the losses may be no better than one before them; a Python
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
    """Muon on each gate's kernels of an LSTM, Nadam on all other parameters.

        u = rms · √max(rows, columns) · orthogonalised(momentum of g),  for each gate's block alone
        θ ← θ − η u;  elsewhere u is the direction of nadam

    The momentum is that of Optax's Muon, which corrects the bias of the mean and of the gradient
    before Nesterov's mix of the two. Jordan's code corrects neither, so its first steps differ: of
    the second, the newest gradient is 68 % there and 73 % here, at the default momentum.

    Muon on a whole kernel mixes its four gates: where one has a large gradient, the steps of the
    others shrink.

    Args:
      learning_rate: η ≥ 0; a number, a traced scalar, or a schedule.
      momentum: in [0, 1), Muon's, with Nesterov's look-ahead.
      rms: ≥ 0, about the root mean square of Muon's u; Nadam's entries are of that order.
      b1: in [0, 1), of `nadam`.
      b2: in [0, 1), of `nadam`.
      eps: ≥ 0, of `nadam`.
      gates: as in `by_gate`.

    Raises:
      ValueError: a number out of range; at `init`: there is no LSTM, or as `find_gates`.

    Reference: Jordan et al., 2024, "Muon"; the scale of Liu et al., 2025, arXiv:2502.16982.
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
