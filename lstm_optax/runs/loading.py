"""What a run trained, ready to be used."""

from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from flax import nnx

from lstm_optax.data import Vocabulary
from lstm_optax.models import LanguageModel
from lstm_optax.runs.build import make_model
from lstm_optax.runs.options import OptionError, TrainConfig
from lstm_optax.runs.run_folder import RunFolder
from lstm_optax.training import best_record, read_params

__all__ = ["LoadedRun", "load_run"]

Which = Literal["best", "latest"]


class LoadedRun(NamedTuple):
    """What a run trained."""

    model: LanguageModel  # with the parameters in it, and without dropout until `model.train()`
    params: nnx.State[Any, Any]  # the parameters, averaged where the optimizer kept an average
    vocabulary: Vocabulary
    config: TrainConfig
    step: int  # of the checkpoint
    damaged: list[int]  # the steps of checkpoints that were passed over


def load_run(folder: str | PathLike[str], *, checkpoint: Which = "best") -> LoadedRun:
    """Load the model of a run from its folder.

    Where the optimizer kept an average of the parameters, the model has the average.

    Args:
      folder: of the run, as `train_language_model` or `lstm-optax train` wrote it.
      checkpoint: the one of the lowest validation loss, or the latest. Where that one is damaged,
        the newest whole one is taken, and `damaged` says so.

    Raises:
      OptionError: the folder holds no run, its configuration is damaged, or the run is of a version
        with other options or parameters.
      CheckpointError: the run has no whole checkpoint.
    """
    if checkpoint not in get_args(Which):
        raise ValueError(f"checkpoint is {checkpoint!r}; expected one of {get_args(Which)}")
    run = RunFolder(Path(folder))
    config, facts = run.read_config()
    vocabulary = _vocabulary(run, facts)
    graphdef, params, rest = nnx.split(make_model(config, len(vocabulary)), nnx.Param, ...)
    best = best_record(run.read_records()) if checkpoint == "best" else None
    try:
        saved = read_params(run.checkpoints, params, prefer=best["step"] if best else None)
    except ValueError as error:
        raise OptionError(
            f"the run in {run.path} is of a version with other parameters: {error}"
        ) from error
    model: LanguageModel = nnx.merge(graphdef, saved.params, rest)
    model.eval()
    return LoadedRun(model, saved.params, vocabulary, config, saved.step, saved.damaged)


def _vocabulary(run: RunFolder, facts: dict[str, Any]) -> Vocabulary:
    try:
        return Vocabulary.of(facts["text"]["vocabulary"])
    except (KeyError, TypeError, ValueError) as error:
        raise OptionError(f"{run.config} is of another version: it has no vocabulary") from error
