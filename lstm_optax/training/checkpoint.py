"""Checkpoints that are whole or refused: Orbax writes them, a SHA-256 manifest seals them."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from lstm_optax.checks import whole
from lstm_optax.training.checks import differences
from lstm_optax.training.stored import check_storable, leaves_of, read_leaves, read_tree, write_tree

MANIFEST = re.compile(r"(0|[1-9][0-9]{0,17})\.sha256")  # as `save` names them, and no other digits
MOST_STEPS = 10**18


class CheckpointError(RuntimeError):
    """There is no checkpoint to restore, or none is whole."""


class Checkpoints:
    """The checkpoints of one run: a folder STEP for each, and beside it its manifest STEP.sha256.

    The manifest lists the SHA-256 of every file, as `sha256sum` prints them. It is written last,
    after every array was found again by name, shape and dtype, and checked before anything is
    restored, since Orbax does not notice a flipped bit.

    Args:
      folder: where they are; made when the first is saved. Any path that the file system takes.
      keep: how many of the newest stay, at least 1.
    """

    def __init__(self, folder: Path, *, keep: int = 2):
        self.folder: Path = Path(folder).absolute()
        self.keep: int = whole("keep", keep, 1)

    def save(self, step: int, state: Any, *, keep: int | None = None) -> None:
        """Write `state` as the checkpoint of `step`, then drop the oldest beyond `keep`.

        Those of later steps are dropped too: a run that was resumed before them left them behind.

        Args:
          step: its number, from 0 to 10¹⁸ − 1.
          state: any tree of JAX or NumPy arrays, numbers and random keys.
          keep: the step of a checkpoint that stays, however old, such as the best so far.

        Raises:
          ValueError: a step that is no such number, or a leaf that is no array; nothing is written.
          OSError: the folder cannot be written or the disk is full; earlier checkpoints remain.
        """
        step = whole("step", step, 0)
        if step >= MOST_STEPS:
            raise ValueError(f"step is {step}, but must be below 10¹⁸")
        check_storable(state)
        target, manifest = self._paths(step)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_space(state)
        self._drop(step)
        try:
            write_tree(target, state)
            _write_whole(manifest, "".join(f"{h}  {name}\n" for name, h in _hashes(target)))
        except BaseException as error:
            self._drop(step)
            if isinstance(error, ValueError) and "RESOURCE_EXHAUSTED" in str(error):
                raise OSError(f"cannot write {target}: the disk is full") from error
            raise
        kept = [s for s in self.steps() if s <= step][-self.keep :]
        for other in self.steps():
            if other not in kept and other != keep:
                self._drop(other)

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint and its manifest, in order."""
        names = (MANIFEST.fullmatch(path.name) for path in self.folder.glob("*.sha256"))
        return sorted(int(name[1]) for name in names if name)

    def is_whole(self, step: int) -> bool:
        """Return whether every file of the checkpoint is there, and as it was written."""
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
          like: a state of the same tree, shapes and dtypes; each leaf is restored as JAX array on
            the devices of this one, as NumPy array or as Python number, whichever it is here.
          prefer: the step of the one to try first, if it is there.
          cast: convert to the dtypes of `like` where those saved are others.

        Returns:
          Its step, its state, and the steps of the damaged ones that were passed over.

        Raises:
          CheckpointError: there is none, none is whole, or it holds another tree, other shapes or
            other dtypes than `like`; the message names the first leaves that differ.
        """
        step, saved, damaged = self.newest_whole(prefer)
        target, _ = self._paths(step)
        _check_like(target, saved, leaves_of(like), cast)
        return step, read_tree(target, like), damaged

    def newest_whole(self, prefer: int | None = None) -> tuple[int, dict[str, str], list[int]]:
        """Return the step of the newest whole checkpoint, its leaves, and the newer damaged steps.

        The leaves are described by dtype and shape, by the name that each is stored under.

        Raises:
          CheckpointError: there is none, or none is whole.
        """
        prefer = None if prefer is None else whole("prefer", prefer, 0)
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"there is no checkpoint in {self.folder}")
        damaged = []
        for step in sorted(steps, key=lambda s: (s == prefer, s), reverse=True):
            saved = read_leaves(self._paths(step)[0]) if self.is_whole(step) else None
            if saved is not None:
                return step, saved, damaged
            damaged.append(step)
        raise CheckpointError(
            f"every checkpoint in {self.folder} is damaged (steps {', '.join(map(str, steps))})"
        )

    def _paths(self, step: int) -> tuple[Path, Path]:
        return self.folder / str(step), self.folder / f"{step}.sha256"

    def _check_space(self, state: Any) -> None:
        """Raise OSError before Orbax fails halfway, with the tracebacks of its threads."""
        needed = 2 * sum(getattr(leaf, "nbytes", 8) for leaf in jax.tree.leaves(state)) + 2**20
        if shutil.disk_usage(self.folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    def _drop(self, step: int) -> None:
        target, manifest = self._paths(step)
        manifest.unlink(missing_ok=True)
        for folder in (target, *self.folder.glob(f"{step}.orbax-checkpoint-tmp*")):
            shutil.rmtree(folder, ignore_errors=True)


def _check_like(path: Path, saved: dict[str, str], expected: dict[str, str], cast: bool) -> None:
    """Raise CheckpointError unless what was saved is what is expected, but for dtypes if `cast`."""
    shapes = [{n: "[" + d.split("[")[1] for n, d in leaves.items()} for leaves in (saved, expected)]
    others_agree = shapes[0] == shapes[1]
    if saved == expected or (cast and others_agree):
        return
    remedy = ", or ask for these dtypes with cast=True" if others_agree else ""
    raise CheckpointError(
        f"{path} was saved with {differences(saved, expected)}: restore into a state of the same "
        f"model and optimizer{remedy}"
    )


def _hashes(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield f"{folder.name}/{path.relative_to(folder).as_posix()}", digest


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
