"""Checkpoints written by Orbax in the background and verified by a SHA-256 manifest."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from lstm_optax.checkpoints.agreement import Agreement
from lstm_optax.checkpoints.background import Background
from lstm_optax.checkpoints.checkpoint_error import CheckpointError, describe_failure
from lstm_optax.checkpoints.checkpoint_files import CheckpointFiles
from lstm_optax.checkpoints.orbax_io import (
    check_storable,
    describe_stored,
    describe_tree,
    read_tree,
)
from lstm_optax.checkpoints.saving import Save
from lstm_optax.checks import check_integer
from lstm_optax.trees import describe_differences

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

    While the checkpoint of a step is replaced, the new one is written to the folder STEP.again, or
    to STEP if that is the name of the old one. The manifest contains the folder's name.

    A process that is killed during a save leaves the earlier checkpoints whole, and at most
    STEP.orbax-checkpoint-tmp, a folder STEP without its manifest, and STEP.sha256.*.partial.

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
        self._files: CheckpointFiles = CheckpointFiles(self.folder)
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

    def save(self, step: int, state: Any, *, keep: Iterable[int] = ()) -> None:
        """Save `state` as the checkpoint of `step`; when it is whole, delete those not kept.

        Returns when the state is copied: it may then be donated or changed. Waits for the save
        before it.

        Checkpoints of later steps are deleted too: they remain from before a run was resumed at an
        earlier step. An older checkpoint of the same step is deleted when the new one is whole.

        Args:
          step: the number of the step, from 0 to 10¹⁸ − 1.
          state: any tree of JAX or NumPy arrays, numbers and random keys. With several processes,
            leaves that are not sharded over them are those of process 0.
          keep: the steps of checkpoints to keep whatever their age, such as the best so far.

        Raises:
          ValueError: a step out of range, `keep` without whole numbers, or a leaf that is not an
            array; nothing is written.
          CheckpointError: this save cannot begin, or the save before it has failed; see `wait`.
        """
        step = check_integer("step", step, 0)
        if step >= STEP_LIMIT:
            raise ValueError(f"step is {step}, but must be below 10¹⁸")
        if not isinstance(keep, Iterable):
            raise ValueError(f"keep is {keep!r}; expected steps, such as [100]")
        named = {check_integer("keep", each, 0) for each in keep}
        check_storable(state)
        self.wait()
        save = Save(self._files, step, state)
        others = (self.keep, self.keep_every, named)
        self._saving.start(lambda: save.finish(lambda: self._files.keep_only(step, *others)))

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
        return self._files.steps()

    def is_whole(self, step: int) -> bool:
        """Return whether every file of the checkpoint exists and matches its SHA-256."""
        self._saving.join()
        return self._files.is_whole(step)

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
        target, _ = self._files.paths(step)
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
            target, _ = self._files.paths(step)
            with _reading(target):
                saved = describe_stored(target) if self.is_whole(step) else None
            if saved is not None:
                return step, saved, damaged
            damaged.append(step)
        raise CheckpointError(
            f"every checkpoint in {self.folder} is damaged (steps {', '.join(map(str, steps))})"
        )


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
