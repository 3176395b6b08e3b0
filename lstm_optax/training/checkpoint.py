"""Checkpoints written by Orbax in the background and verified by a SHA-256 manifest."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import jax

from lstm_optax.checks import check_integer
from lstm_optax.training.agreement import Agreement, Refused
from lstm_optax.training.argument_checks import describe_differences
from lstm_optax.training.background import Background
from lstm_optax.training.checkpoint_error import CheckpointError, describe_failure, save_error
from lstm_optax.training.manifest import manifest_steps, matches_manifest, write_manifest
from lstm_optax.training.orbax_io import (
    check_storable,
    check_written,
    copy_to_host,
    describe_stored,
    describe_tree,
    read_tree,
    start_write,
)

STEP_LIMIT = 10**18


class Checkpoints:
    """The checkpoints of one run: a folder STEP for each, next to its manifest STEP.sha256.

    The manifest lists the SHA-256 of every file in the format of `sha256sum`. It is written last,
    after the name, shape and dtype of every stored array have been read back, and checked before
    anything is restored, since Orbax does not notice a flipped bit.

    `save` returns when the state is copied to the host, and a thread writes the files. Other
    methods, and other objects for the same folder in this process, wait for it; so does the end of
    the program. As a context manager, `Checkpoints` waits at its end, also after an exception.

    In a run of several processes of `jax.distributed`, all call `save` and `restore` with the same
    arguments, and see one file system. Process 0 writes the manifest when all have written.

    A process that is killed during a save leaves the earlier checkpoints whole, and at most
    STEP.orbax-checkpoint-tmp, a folder STEP without its manifest, and STEP.sha256.partial.

    Args:
      folder: the folder of the checkpoints, created by the first save; any path that the file
        system accepts.
      keep: the number of newest checkpoints to keep, at least 1.
      keep_every: keep every checkpoint whose step is a multiple of this as well; None for none.
    """

    def __init__(self, folder: Path, *, keep: int = 2, keep_every: int | None = None):
        self.folder: Path = Path(folder).absolute()
        self.keep: int = check_integer("keep", keep, 1)
        self.keep_every: int | None = keep_every
        if keep_every is not None:
            self.keep_every = check_integer("keep_every", keep_every, 1)
        self._saving: Background = Background.of(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.wait()
        except CheckpointError as failure:
            if error is None:
                raise
            error.add_note(str(failure))

    def save(self, step: int, state: Any, *, keep: int | None = None) -> None:
        """Save `state` as the checkpoint of `step`; when it is whole, delete those not kept.

        Returns when the state is copied: it may then be donated or changed. Waits for the save
        before it.

        Checkpoints of later steps are deleted too: they remain from before a run was resumed at an
        earlier step. An older checkpoint of the same step is deleted first.

        Args:
          step: the number of the step, from 0 to 10¹⁸ − 1.
          state: any tree of JAX or NumPy arrays, numbers and random keys. With several processes,
            leaves that are not sharded over them are those of process 0.
          keep: the step of a checkpoint to keep whatever its age, such as the best so far.

        Raises:
          ValueError: a step out of range, or a leaf that is not an array; nothing is written.
          CheckpointError: this save cannot begin, or the save before it has failed; see `wait`.
        """
        step = check_integer("step", step, 0)
        if step >= STEP_LIMIT:
            raise ValueError(f"step is {step}, but must be below 10¹⁸")
        check_storable(state)
        self.wait()
        tree, agreement = copy_to_host(state), Agreement()
        kept = agreement.from_first(lambda: self._prepare(step, tree))
        target, _ = self._paths(step)
        try:
            # arrays that processes share are copied here, all others are copied already
            finish = start_write(target, tree, agreement) if jax.process_count() > 1 else None
        except Exception as error:
            raise save_error(target, describe_failure(error), kept) from error

        def write() -> None:
            failure, cause = self._write(step, tree, agreement, finish, keep)
            if failure:
                raise save_error(target, failure, kept) from cause

        self._saving.start(write)

    def wait(self) -> None:
        """Wait until the last save is complete.

        Raises:
          CheckpointError: it failed; the message has the path, the reason, and the steps of the
            checkpoints that remain. It is raised once.
        """
        self._saving.result()

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint and its manifest, in order."""
        self._saving.join()
        return manifest_steps(self.folder)

    def is_whole(self, step: int) -> bool:
        """Return whether every file of the checkpoint exists and matches its SHA-256."""
        self._saving.join()
        target, manifest = self._paths(step)
        return matches_manifest(manifest, target)

    def restore(
        self, like: Any, *, prefer: int | None = None, cast: bool = False
    ) -> tuple[int, Any, list[int]]:
        """Return the newest whole checkpoint, and the newer ones that are damaged.

        Args:
          like: a state of the same tree, shapes and dtypes. Each leaf is restored as the type that
            it has here: a JAX array with the same sharding, whatever sharding it was saved with, a
            NumPy array, or a Python number.
          prefer: the step of the checkpoint to try first, if it exists.
          cast: convert the saved arrays to the dtypes of `like`.

        Returns:
          The step, the state, and the steps of the damaged checkpoints that were passed over.

        Raises:
          CheckpointError: there is no checkpoint, none is whole, or its tree, shapes or dtypes are
            not those of `like`; the message names the first leaves that differ.
        """
        step, saved, damaged = Agreement().from_first(lambda: self.newest_whole(prefer))
        target, _ = self._paths(step)
        _check_saved(target, saved, describe_tree(like), cast)
        with _reading(target):
            return step, read_tree(target, like), damaged

    def newest_whole(self, prefer: int | None = None) -> tuple[int, dict[str, str], list[int]]:
        """Return the step of the newest whole checkpoint, its leaves, and the newer damaged steps.

        The leaves are a dictionary from the stored name to the dtype and shape.

        Raises:
          CheckpointError: there is no checkpoint, or none is whole.
        """
        prefer = None if prefer is None else check_integer("prefer", prefer, 0)
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"there is no checkpoint in {self.folder}")
        damaged = []
        for step in sorted(steps, key=lambda s: (s == prefer, s), reverse=True):
            target, _ = self._paths(step)
            with _reading(target):
                saved = describe_stored(target) if self.is_whole(step) else None
            if saved is not None:
                return step, saved, damaged
            damaged.append(step)
        raise CheckpointError(
            f"every checkpoint in {self.folder} is damaged (steps {', '.join(map(str, steps))})"
        )

    def _paths(self, step: int) -> tuple[Path, Path]:
        return self.folder / str(step), self.folder / f"{step}.sha256"

    def _prepare(self, step: int, tree: Any) -> list[int]:
        """Check that a save can begin; return the steps of the checkpoints that it leaves."""
        kept = []
        try:
            kept = [s for s in self.steps() if s != step]
            self.folder.mkdir(parents=True, exist_ok=True)
            # Orbax would fail halfway through, and its threads would print their tracebacks
            needed = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + 2**20
            if shutil.disk_usage(self.folder).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
            if jax.process_count() > 1:
                self._delete(step)
            return kept
        except OSError as error:
            raise save_error(self._paths(step)[0], describe_failure(error), kept) from error

    def _write(
        self,
        step: int,
        tree: Any,
        agreement: Agreement,
        finish: Callable[[], None] | None,
        keep: int | None,
    ) -> tuple[str | None, BaseException | None]:
        """Write a checkpoint with all processes; return the failure of any, and its cause here."""
        first = jax.process_index() == 0
        try:
            if finish is None:
                self._delete(step)
                finish = start_write(self._paths(step)[0], tree, agreement)
            finish()
            if first:
                self._seal(step, tree, keep)
        except Refused as refused:
            failure, cause = str(refused), None
        except BaseException as error:
            failure, cause = agreement.first_error(describe_failure(error)), error
        else:
            return agreement.first_error(None), None
        if first and not self._paths(step)[1].exists():
            with suppress(OSError):
                self._delete(step)
        return failure, cause

    def _seal(self, step: int, tree: Any, best: int | None) -> None:
        """Write the manifest, which marks the checkpoint as complete, and delete those not kept."""
        target, manifest = self._paths(step)
        check_written(target, tree)
        write_manifest(manifest, target)
        steps = self.steps()
        kept = {best, *[s for s in steps if s <= step][-self.keep :]}
        for other in steps:
            multiple = self.keep_every and other <= step and other % self.keep_every == 0
            if not multiple and other not in kept:
                self._delete(other)

    def _delete(self, step: int) -> None:
        target, manifest = self._paths(step)
        # first, so that a half-deleted folder does not count as a checkpoint
        manifest.unlink(missing_ok=True)
        for folder in (target, *self.folder.glob(f"{step}.orbax-checkpoint-tmp*")):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _reading(target: Path) -> Iterator[None]:
    """Raise CheckpointError for any error of Orbax or of the file system."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"cannot read {target}: {describe_failure(error)}") from error


def _check_saved(path: Path, saved: dict[str, str], expected: dict[str, str], cast: bool) -> None:
    """Raise CheckpointError unless the saved leaves match; with `cast`, dtypes may differ."""
    shapes = [{n: "[" + d.split("[")[1] for n, d in leaves.items()} for leaves in (saved, expected)]
    same_shapes = shapes[0] == shapes[1]
    if saved == expected or (cast and same_shapes):
        return
    remedy = ", or convert to these dtypes with cast=True" if same_shapes else ""
    raise CheckpointError(
        f"{path} was saved with {describe_differences(saved, expected)}: restore into a state of "
        f"the same model and optimizer{remedy}"
    )
