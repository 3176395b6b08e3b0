"""`CheckpointError`: a checkpoint cannot be written or restored."""

import os
from collections.abc import Sequence

from lstm_optax.os_errors import WRITE_ERRORS, error_number


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or there is none to restore.

    Attributes:
      kept: after a failed save, the steps of the checkpoints that remain; otherwise None.
    """

    def __init__(self, message: str, kept: Sequence[int] | None = None):
        super().__init__(message)
        self.kept: list[int] | None = None if kept is None else list(kept)


def save_error(path: object, reason: str, kept: Sequence[int] | None) -> CheckpointError:
    """Return the error of a failed save; `kept` is None if the folder cannot be listed."""
    if kept is None:
        remain = "the other checkpoints are unchanged"
    elif not kept:
        remain = "there is no other checkpoint"
    elif len(kept) == 1:
        remain = f"the checkpoint of step {kept[0]} remains"
    else:
        remain = f"the checkpoints of steps {', '.join(map(str, kept))} remain"
    return CheckpointError(f"cannot write the checkpoint {path}: {reason}; {remain}", kept)


def describe_failure(error: BaseException) -> str:
    """Return the reason of an error in one line, with the remedy where there is one."""
    number = error_number(error)
    if number in WRITE_ERRORS:
        reason, remedy = WRITE_ERRORS[number]
        return f"{reason} ({os.strerror(number)}), {remedy}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if number is not None:
        return os.strerror(number)
    text = str(error).split("\n", 1)[0][:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
