"""Optimizers for LSTMs in JAX: exact, composable Optax update rules, and a Flax LSTM to train.

Every public name is here; each is imported when it is first asked for, so that the command line
answers before JAX is needed. The rules as other sources ship them are in `lstm_optax.presets`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lstm_optax._version import __version__

_ROOMS = {
    "lstm_optax.transforms": (
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
        "observe",
        "polyak_average",
        "precondition",
        "running_max",
        "scale_by_learning_rate",
        "scale_by_rate_factor",
        "sum_square",
        "triggered_average",
    ),
    "lstm_optax.optimizers": (
        "OPTIMIZERS",
        "adam",
        "awd_sgd",
        "gate_muon",
        "momentum_sgd",
        "nadam",
        "nadamw",
        "nesterov_sgd",
        "rmsprop",
        "rmsprop_momentum",
        "sgd",
    ),
    "lstm_optax.gates": (
        "GATES",
        "KINDS",
        "CuDNNLayout",
        "GateBlock",
        "GateMap",
        "GatePart",
        "find_gates",
        "gate_slice",
    ),
    "lstm_optax.lstm": (
        "BACKENDS",
        "CotangentClip",
        "CotangentNormClip",
        "GradientFlow",
        "LSTM",
        "LSTMParams",
        "LSTMState",
        "LSTMWeights",
        "clip_cotangent",
        "clip_cotangent_norm",
        "init_chrono",
        "init_forget_bias",
        "init_orthogonal",
        "lstm_cell",
        "lstm_params_from_equinox",
        "lstm_params_from_flax",
        "lstm_params_from_haiku",
        "lstm_params_from_keras",
        "lstm_params_from_tensorflow",
        "lstm_params_from_torch",
        "lstm_params_to_equinox",
        "lstm_params_to_flax",
        "lstm_params_to_haiku",
        "lstm_params_to_keras",
        "lstm_params_to_tensorflow",
        "lstm_params_to_torch",
        "lstm_sequence",
        "module_from_torch",
        "module_to_torch",
        "probe",
        "vanishing_penalty",
    ),
    "lstm_optax.files": ("load_weights", "read_torch", "save_weights"),
    "lstm_optax.models": (
        "LanguageModel",
        "SequenceModel",
        "activation_regularizer",
        "sequence_losses",
        "temporal_activation_regularizer",
        "token_losses",
    ),
    "lstm_optax.data": (
        "Batch",
        "SequenceTask",
        "Sequences",
        "TextError",
        "VaryingWindows",
        "Vocabulary",
        "Windows",
        "adding",
        "copy_memory",
        "delayed_xor",
        "ngram_losses",
        "read_text",
        "split",
        "temporal_order",
        "topics_text",
    ),
    "lstm_optax.training": (
        "BatchSharding",
        "CheckpointError",
        "Checkpoints",
        "FitResult",
        "NonFiniteError",
        "SavedParams",
        "TrainState",
        "best_record",
        "fit",
        "init_state",
        "make_evaluate",
        "make_step",
        "read_params",
        "run_steps",
    ),
    "lstm_optax.response": (
        "DtypeResponse",
        "RateResponse",
        "Response",
        "ScaleRange",
        "ScaleResponse",
        "SpikeResponse",
        "explain",
    ),
    "lstm_optax.experiments.bench.plan": ("BenchConfig",),
    "lstm_optax.experiments.bench.records": ("read_bench",),
    "lstm_optax.experiments.bench.running": ("benchmark",),
    "lstm_optax.experiments.loading": ("LoadedRun", "load_run"),
    "lstm_optax.experiments.measure": ("explain_optimizers",),
    "lstm_optax.experiments.options": ("OptionError", "SampleConfig", "TrainConfig"),
    "lstm_optax.experiments.sample": ("sample_text",),
    "lstm_optax.experiments.train": (
        "Diverged",
        "Observer",
        "TrainResult",
        "train_language_model",
    ),
    "lstm_optax.report": (
        "BenchScreen",
        "TrainScreen",
        "bench_figure",
        "bench_markdown",
        "bench_means",
        "bench_tables",
        "draw_bench",
        "draw_gradients",
        "draw_losses",
        "draw_responses",
        "fill_bench_page",
        "gradient_figure",
        "loss_figure",
        "loss_table",
        "plan_table",
        "response_figure",
        "response_notes",
        "response_table",
        "study_table",
    ),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_ROOM_OF)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:  # type checkers see these names alone: any other is an error to them
    import lstm_optax.presets as presets
    from lstm_optax.data import *
    from lstm_optax.experiments.bench.plan import *
    from lstm_optax.experiments.bench.records import *
    from lstm_optax.experiments.bench.running import *
    from lstm_optax.experiments.loading import *
    from lstm_optax.experiments.measure import *
    from lstm_optax.experiments.options import *
    from lstm_optax.experiments.sample import *
    from lstm_optax.experiments.train import *
    from lstm_optax.files import *
    from lstm_optax.gates import *
    from lstm_optax.lstm import *
    from lstm_optax.models import *
    from lstm_optax.optimizers import *
    from lstm_optax.report import *
    from lstm_optax.response import *
    from lstm_optax.training import *
    from lstm_optax.transforms import *
else:

    def __getattr__(name: str) -> Any:
        if name == "presets":  # a room that is used by its modules: presets.torch.NAdam
            return import_module("lstm_optax.presets")
        if name not in _ROOM_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_ROOM_OF[name]), name)

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
