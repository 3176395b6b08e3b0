"""The loggers of a run: opened before the training, and closed after it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import jax

from lstm_optax.runs.constraints import OptionError
from lstm_optax.runs.options import LOGGERS, TrainConfig
from lstm_optax.runs.run_folder import RunFolder
from lstm_optax.training import MlflowLogger, TensorBoardLogger, TrainState, WandbLogger

CLASSES: dict[str, Any] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
    "mlflow": MlflowLogger,
}


class Watchers:
    """The loggers that a configuration asks for, as one callback and one context.

    An error of a logger does not end the training: the logger is dropped, and metrics.jsonl has
    all records. Of several processes only the first one logs.

    Args:
      config: of the run.
      run: its folder; the loggers write into `logs` there.
      warn: called with a message for each logger that failed.

    Raises:
      OptionError: a logger cannot start.
    """

    def __init__(self, config: TrainConfig, run: RunFolder, warn: Callable[[str], None]):
        self._warn, self._run = warn, run
        self._loggers: dict[str, Any] = {}
        names = LOGGERS if jax.process_index() == 0 else ()
        values = asdict(config)
        for name in (name for name in names if values[name]):
            shown = {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
            shown["run"] = str(run.path)
            try:
                self._loggers[name] = CLASSES[name](run.logs, shown)
            except Exception as error:
                self._close(failed=True)
                raise OptionError(f"--{name}: {_describe_error(error)}") from error

    def __call__(self, history: Sequence[dict[str, Any]], state: TrainState) -> None:
        """Pass the history to each logger."""
        for name, logger in list(self._loggers.items()):
            try:
                logger(history, state)
            except Exception as error:
                del self._loggers[name]
                self._warn_failed(name, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._close(failed=kind is not None)

    def _close(self, *, failed: bool) -> None:
        for name, logger in self._loggers.items():
            try:
                logger.close(failed=failed)
            except Exception as error:
                self._warn_failed(name, error)

    def _warn_failed(self, name: str, error: Exception) -> None:
        self._warn(
            f"--{name} stopped: {_describe_error(error)}; {self._run.records.path} has all records"
        )


def _describe_error(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
