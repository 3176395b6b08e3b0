"""Training of any recurrent model; the loss, the optimizer and the batches are arguments."""

from lstm_optax.training._read_params import SavedParams, read_params
from lstm_optax.training.checkpoint import CheckpointError, Checkpoints
from lstm_optax.training.evaluation import make_evaluate
from lstm_optax.training.loop import FitResult, NonFiniteError, fit
from lstm_optax.training.records import best_record
from lstm_optax.training.sharding import BatchSharding
from lstm_optax.training.state import TrainState, init_state
from lstm_optax.training.step import make_step, run_steps

__all__ = [
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
]
