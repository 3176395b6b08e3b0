"""Checkpoints that are whole or refused: Orbax writes them, a SHA-256 manifest seals them."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp


class CheckpointError(RuntimeError):
    """There is no checkpoint to restore, or none is whole."""


class Checkpoints:
    """The checkpoints of one run: a folder STEP for each, and beside it its manifest STEP.sha256.

    The manifest lists the SHA-256 of every file, as `sha256sum` prints them. It is written last and
    checked before anything is restored, since Orbax does not notice a flipped bit.

    Args:
      folder: where they lie; made when the first is saved.
      keep: how many of the newest stay, at least 1.
    """

    def __init__(self, folder: Path, *, keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep is {keep}, but must be at least 1")
        self.folder = Path(folder).absolute()
        self.keep = keep

    def save(self, step: int, state: Any, *, spare: int | None = None) -> None:
        """Write `state` as the checkpoint of `step`, then drop the oldest beyond `keep`.

        Those of later steps are dropped too: a run that was resumed before them left them behind.

        Args:
          step: its number.
          state: any tree of arrays.
          spare: the step of a checkpoint that stays, however old, such as the best so far.

        Raises:
          OSError: the folder cannot be written or the disk is full; earlier checkpoints remain.
        """
        target, manifest = self._paths(step)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_space(state)
        self._drop(step)
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(target, state)
            _write_whole(manifest, "".join(f"{h}  {name}\n" for name, h in _hashes(target)))
        except BaseException as error:
            self._drop(step)
            if isinstance(error, ValueError) and "RESOURCE_EXHAUSTED" in str(error):
                raise OSError(f"cannot write {target}: the disk is full") from error
            raise
        kept = [s for s in self.steps() if s <= step][-self.keep :]
        for other in self.steps():
            if other not in kept and other != spare:
                self._drop(other)

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint and its manifest, in order."""
        manifests = self.folder.glob("*.sha256")
        return sorted(int(m.stem) for m in manifests if m.stem.isdigit())

    def is_whole(self, step: int) -> bool:
        """Return whether every file of the checkpoint is there, and as it was written."""
        target, manifest = self._paths(step)
        try:
            expected = dict(line.split("  ", 1)[::-1] for line in manifest.read_text().splitlines())
            return bool(expected) and dict(_hashes(target)) == expected
        except (OSError, ValueError):
            return False

    def restore(self, like: Any, *, prefer: int | None = None) -> tuple[int, Any, list[int]]:
        """Return the newest whole checkpoint, and the newer ones that are damaged.

        Args:
          like: a state of the same tree, shapes, dtypes and devices.
          prefer: the step of the one to try first, if it is there.

        Returns:
          Its step, its state, and the steps of the damaged ones that were passed over.

        Raises:
          CheckpointError: there is none, or none is whole.
        """
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"there is no checkpoint in {self.folder}")
        damaged = []
        for step in sorted(steps, key=lambda s: (s == prefer, s), reverse=True):
            if not self.is_whole(step):
                damaged.append(step)
                continue
            target = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
            )
            with ocp.StandardCheckpointer() as checkpointer:
                return step, checkpointer.restore(self._paths(step)[0], target), damaged
        raise CheckpointError(
            f"every checkpoint in {self.folder} is damaged (steps {', '.join(map(str, steps))})"
        )

    def _paths(self, step: int) -> tuple[Path, Path]:
        return self.folder / str(step), self.folder / f"{step}.sha256"

    def _check_space(self, state: Any) -> None:
        """Raise OSError before Orbax fails halfway, with the tracebacks of its threads."""
        needed = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + 2**20
        if shutil.disk_usage(self.folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    def _drop(self, step: int) -> None:
        target, manifest = self._paths(step)
        manifest.unlink(missing_ok=True)
        for folder in (target, *self.folder.glob(f"{step}.orbax-checkpoint-tmp*")):
            shutil.rmtree(folder, ignore_errors=True)


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
