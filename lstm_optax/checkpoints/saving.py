"""`Save`: one save of a checkpoint, begun by the caller and finished in a thread."""

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import jax

from lstm_optax.checkpoints.agreement import Agreement, Refused
from lstm_optax.checkpoints.checkpoint_error import describe_failure, save_error
from lstm_optax.checkpoints.checkpoint_files import CheckpointFiles
from lstm_optax.checkpoints.orbax_io import check_written, copy_to_host, start_write
from lstm_optax.heap import release_freed_memory

# at least as many as a save opens at once: Orbax needed up to 11 on two processors, and opens more
# on more; when it cannot, some of its threads fail and others wait for them
FREE_FILES = 32


class Save:
    """A save of one state, by all processes together.

    Args:
      files: the files of the checkpoints.
      step: the step of the checkpoint.
      state: a tree of arrays; it may be donated or changed afterwards.

    Raises:
      CheckpointError: the save cannot begin; nothing is written.
    """

    def __init__(self, files: CheckpointFiles, step: int, state: Any):
        self.files: CheckpointFiles = files
        self.step: int = step
        release_freed_memory()  # of what was compiled since the last save
        self.tree: Any = copy_to_host(state)
        self.agreement: Agreement = Agreement()
        self.kept: list[int] | None = None
        self.kept, name = self.agreement.from_first(self._prepare)
        self.target: Path = files.folder / name
        self.end_write: Callable[[], None] | None = None
        if jax.process_count() > 1:  # only Orbax can copy arrays that processes share
            if failure := self.agreement.first_error(_failure_of(_open_files)):
                raise self._error(failure)
            try:
                self.end_write = self._start_write()
            except Exception as error:
                raise self._error(describe_failure(error)) from error

    def finish(self, clean_up: Callable[[], None]) -> None:
        """Write the files, in any thread; the manifest last, since it marks them as complete.

        Args:
          clean_up: called by process 0 when the checkpoint is complete.

        Raises:
          CheckpointError: a process failed; every process raises it.
        """
        first, cause = jax.process_index() == 0, None
        try:
            end_write = self.end_write or self._start_write()
            end_write()
            if first:
                check_written(self.target, self.tree)
                self.files.seal(self.step, self.target)
                clean_up()
            failure = None
        except Refused as refused:
            raise self._error(str(refused)) from None
        except BaseException as error:
            failure, cause = describe_failure(error), error
        finally:
            self.tree = None
            release_freed_memory()  # of the arrays, and of Orbax
            if first:
                with suppress(OSError):
                    self.files.discard(self.step)
        if failure := self.agreement.first_error(failure):
            raise self._error(failure) from cause

    def _prepare(self) -> tuple[list[int], str]:
        """Check that the save can begin; return the steps that are saved, and the folder's name."""
        try:
            self.kept = self.files.steps()
            _open_files()
            self.files.folder.mkdir(parents=True, exist_ok=True)
            # Orbax would fail halfway through, and its threads would print their tracebacks
            needed = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(self.tree)) + 2**20
            if shutil.disk_usage(self.files.folder).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self.files.is_whole(self.step):
                self.files.discard(self.step)
            else:  # there is no copy to keep
                self.files.delete(self.step)
                self.kept = self.files.steps()
            return self.kept, self.files.free_folder(self.step).name
        except OSError as error:
            raise self._error(describe_failure(error)) from error

    def _start_write(self) -> Callable[[], None]:
        return start_write(self.target, self.tree, self.agreement)

    def _error(self, reason: str) -> Exception:
        return save_error(self.files.folder / str(self.step), reason, self.kept)


def _open_files() -> None:
    """Raise OSError unless this process can open as many files as a save needs."""
    with ExitStack() as stack:
        for _ in range(FREE_FILES):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))


def _failure_of(action: Callable[[], None]) -> str | None:
    """Return why an action fails, None if it does not."""
    try:
        action()
    except Exception as error:
        return describe_failure(error)
    return None
