"""Load the trained model of a run."""

from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from flax import nnx

from lstm_optax.checkpoints import read_params
from lstm_optax.data import TextError
from lstm_optax.data.tokens import AnyVocabulary, vocabulary_of
from lstm_optax.models import LanguageModel
from lstm_optax.runs.build import make_model
from lstm_optax.runs.constraints import OptionError
from lstm_optax.runs.options import TrainConfig
from lstm_optax.runs.run_folder import RunFolder
from lstm_optax.training import best_record

__all__ = ["LoadedRun", "load_run"]

Which = Literal["best", "latest"]


class LoadedRun(NamedTuple):
    """A trained model with its vocabulary and configuration."""

    model: LanguageModel  # with the trained parameters; dropout is off until `model.train()`
    params: nnx.State[Any, Any]  # the parameters, or their average if the optimizer keeps one
    vocabulary: AnyVocabulary
    config: TrainConfig
    step: int  # of the loaded checkpoint
    damaged: list[int]  # steps of damaged checkpoints, which were skipped


def load_run(folder: str | PathLike[str], *, checkpoint: Which = "best") -> LoadedRun:
    """Load the trained model of a run.

    If the optimizer kept an average of the parameters, the model has the average.

    Args:
      folder: run folder of `train_language_model` or `lstm-optax train`.
      checkpoint: "best" for the lowest validation loss, or "latest". If that checkpoint is damaged,
        the newest intact one is loaded, and `damaged` lists the others.

    Raises:
      OptionError: the folder contains no run, its configuration is damaged, or the run was made by
        a version with other options or parameters.
      CheckpointError: the run has no intact checkpoint.
      TextError: the run has subwords, and the package `tokenizers` is not installed.
    """
    if checkpoint not in get_args(Which):
        raise ValueError(f"checkpoint is {checkpoint!r}, but must be one of {get_args(Which)}")
    run = RunFolder(Path(folder))
    config, facts = run.read_config()
    vocabulary = _read_vocabulary(run, facts)
    graphdef, params, rest = nnx.split(make_model(config, len(vocabulary)), nnx.Param, ...)
    best = best_record(run.records.read()) if checkpoint == "best" else None
    try:
        saved = read_params(run.checkpoints, params, prefer=best["step"] if best else None)
    except ValueError as error:
        raise OptionError(
            f"the run in {run.path} was made by a version with other parameters: {error}"
        ) from error
    model: LanguageModel = nnx.merge(graphdef, saved.params, rest)
    model.eval()
    return LoadedRun(model, saved.params, vocabulary, config, saved.step, saved.damaged)


def _read_vocabulary(run: RunFolder, facts: dict[str, Any]) -> AnyVocabulary:
    try:
        text = facts["text"]
        return vocabulary_of(text.get("kind", "characters"), text["vocabulary"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, TextError):
            raise
        raise OptionError(
            f"{run.config} was written by another version: it has no vocabulary"
        ) from error
