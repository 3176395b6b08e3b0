"""Checkpoints written by Orbax and verified by a SHA-256 manifest."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from lstm_optax.checks import check_integer
from lstm_optax.records import write_atomically
from lstm_optax.training.argument_checks import describe_differences
from lstm_optax.training.orbax_io import (
    check_storable,
    describe_stored,
    describe_tree,
    read_tree,
    write_tree,
)

# the names that `save` writes: no leading zeros, and no digits other than ASCII
MANIFEST = re.compile(r"(0|[1-9][0-9]{0,17})\.sha256")
STEP_LIMIT = 10**18


class CheckpointError(RuntimeError):
    """There is no checkpoint to restore, or every checkpoint is damaged."""


class Checkpoints:
    """The checkpoints of one run: a folder STEP for each, next to its manifest STEP.sha256.

    The manifest lists the SHA-256 of every file in the format of `sha256sum`. It is written last,
    after the name, shape and dtype of every stored array have been read back, and checked before
    anything is restored, since Orbax does not notice a flipped bit.

    Args:
      folder: the folder of the checkpoints, created by the first save; any path that the file
        system accepts.
      keep: the number of newest checkpoints to keep, at least 1.
    """

    def __init__(self, folder: Path, *, keep: int = 2):
        self.folder: Path = Path(folder).absolute()
        self.keep: int = check_integer("keep", keep, 1)

    def save(self, step: int, state: Any, *, keep: int | None = None) -> None:
        """Write `state` as the checkpoint of `step`, then delete the oldest beyond `keep`.

        Checkpoints of later steps are deleted too: they remain from before a run was resumed at an
        earlier step.

        Args:
          step: the number of the step, from 0 to 10¹⁸ − 1.
          state: any tree of JAX or NumPy arrays, numbers and random keys.
          keep: the step of a checkpoint to keep whatever its age, such as the best so far.

        Raises:
          ValueError: a step out of range, or a leaf that is not an array; nothing is written.
          OSError: the folder cannot be written or the disk is full; earlier checkpoints remain.
        """
        step = check_integer("step", step, 0)
        if step >= STEP_LIMIT:
            raise ValueError(f"step is {step}, but must be below 10¹⁸")
        check_storable(state)
        target, manifest = self._paths(step)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_space(state)
        self._delete(step)
        try:
            write_tree(target, state)
            # last, since the manifest marks the checkpoint as complete: a run that is killed
            # before leaves a folder without a manifest, which is never restored
            write_atomically(manifest, "".join(f"{h}  {name}\n" for name, h in _hashes(target)))
        except BaseException as error:
            self._delete(step)
            if isinstance(error, ValueError) and "RESOURCE_EXHAUSTED" in str(error):
                raise OSError(f"cannot write {target}: the disk is full") from error
            raise
        kept = [s for s in self.steps() if s <= step][-self.keep :]
        for other in self.steps():
            if other not in kept and other != keep:
                self._delete(other)

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint and its manifest, in order."""
        names = (MANIFEST.fullmatch(path.name) for path in self.folder.glob("*.sha256"))
        return sorted(int(name[1]) for name in names if name)

    def is_whole(self, step: int) -> bool:
        """Return whether every file of the checkpoint exists and matches its SHA-256."""
        target, manifest = self._paths(step)
        try:
            expected = dict(line.split("  ", 1)[::-1] for line in manifest.read_text().splitlines())
            return bool(expected) and dict(_hashes(target)) == expected
        except (OSError, ValueError):
            return False

    def restore(
        self, like: Any, *, prefer: int | None = None, cast: bool = False
    ) -> tuple[int, Any, list[int]]:
        """Return the newest whole checkpoint, and the newer ones that are damaged.

        Args:
          like: a state of the same tree, shapes and dtypes. Each leaf is restored as the type that
            it has here: a JAX array on the same devices, a NumPy array, or a Python number.
          prefer: the step of the checkpoint to try first, if it exists.
          cast: convert the saved arrays to the dtypes of `like`.

        Returns:
          The step, the state, and the steps of the damaged checkpoints that were passed over.

        Raises:
          CheckpointError: there is no checkpoint, none is whole, or its tree, shapes or dtypes are
            not those of `like`; the message names the first leaves that differ.
        """
        step, saved, damaged = self.newest_whole(prefer)
        target, _ = self._paths(step)
        _check_saved(target, saved, describe_tree(like), cast)
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
            saved = describe_stored(self._paths(step)[0]) if self.is_whole(step) else None
            if saved is not None:
                return step, saved, damaged
            damaged.append(step)
        raise CheckpointError(
            f"every checkpoint in {self.folder} is damaged (steps {', '.join(map(str, steps))})"
        )

    def _paths(self, step: int) -> tuple[Path, Path]:
        return self.folder / str(step), self.folder / f"{step}.sha256"

    def _check_space(self, state: Any) -> None:
        """Raise OSError if the disk is too full.

        Orbax would fail halfway through, and its threads would print their tracebacks.
        """
        needed = 2 * sum(getattr(leaf, "nbytes", 8) for leaf in jax.tree.leaves(state)) + 2**20
        if shutil.disk_usage(self.folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    def _delete(self, step: int) -> None:
        target, manifest = self._paths(step)
        # first, so that a half-deleted folder does not count as a checkpoint
        manifest.unlink(missing_ok=True)
        for folder in (target, *self.folder.glob(f"{step}.orbax-checkpoint-tmp*")):
            shutil.rmtree(folder, ignore_errors=True)


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


def _hashes(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield f"{folder.name}/{path.relative_to(folder).as_posix()}", digest
