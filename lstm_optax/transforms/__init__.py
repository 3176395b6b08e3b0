"""Gradient transformations in the form of Optax; this package does not use Flax.

An estimator turns gradients into a running estimate; a link turns updates into updates. Every
optimizer and preset is an `optax.chain` of these.
"""

from lstm_optax.transforms._by_gate import ByGateState, by_gate
from lstm_optax.transforms._corrected_momentum import CorrectedMomentumState, corrected_momentum
from lstm_optax.transforms._debias import DebiasState, debias
from lstm_optax.transforms._eval_params import eval_params
from lstm_optax.transforms._find_states import find_states
from lstm_optax.transforms._guard import GuardState, guard
from lstm_optax.transforms._learning_rate import (
    ScaleByLearningRateState,
    scale_by_learning_rate,
    scale_by_rate_factor,
)
from lstm_optax.transforms._mean_square import (
    CenteredMeanSquareState,
    MeanSquareState,
    RunningMaxState,
    SumSquareState,
    centered_mean_square,
    mean_square,
    running_max,
    sum_square,
)
from lstm_optax.transforms._momentum import (
    DampedMomentumState,
    EmaState,
    MomentumState,
    damped_momentum,
    ema,
    momentum,
)
from lstm_optax.transforms._nesterov import (
    DozatMomentumState,
    NesterovState,
    dozat_momentum,
    nesterov,
)
from lstm_optax.transforms._precondition import PreconditionState, precondition
from lstm_optax.transforms._triggered_average import (
    TriggeredAverageState,
    report_validation_loss,
    triggered_average,
)
from lstm_optax.transforms.averaging import AverageState, ema_average, polyak_average
from lstm_optax.transforms.clipping import (
    ClipByGlobalNormState,
    ClipByNormQuantileState,
    clip_by_global_norm,
    clip_by_norm_quantile,
    global_norm,
)
from lstm_optax.transforms.dtypes import keep_dtype

__all__ = [
    "AverageState",
    "ByGateState",
    "CenteredMeanSquareState",
    "ClipByGlobalNormState",
    "ClipByNormQuantileState",
    "CorrectedMomentumState",
    "DampedMomentumState",
    "DebiasState",
    "DozatMomentumState",
    "EmaState",
    "GuardState",
    "MeanSquareState",
    "MomentumState",
    "NesterovState",
    "PreconditionState",
    "RunningMaxState",
    "ScaleByLearningRateState",
    "SumSquareState",
    "TriggeredAverageState",
    "by_gate",
    "centered_mean_square",
    "clip_by_global_norm",
    "clip_by_norm_quantile",
    "corrected_momentum",
    "damped_momentum",
    "debias",
    "dozat_momentum",
    "ema",
    "ema_average",
    "eval_params",
    "find_states",
    "global_norm",
    "guard",
    "keep_dtype",
    "mean_square",
    "momentum",
    "nesterov",
    "report_validation_loss",
    "polyak_average",
    "precondition",
    "running_max",
    "scale_by_learning_rate",
    "scale_by_rate_factor",
    "sum_square",
    "triggered_average",
]
