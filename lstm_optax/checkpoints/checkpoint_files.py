"""The files of checkpoints: a folder STEP for each, next to its manifest STEP.sha256.

While the checkpoint of a step is replaced, the new copy is written to STEP.again, or to STEP if the
old copy has that name. The manifest names the folder, so writing it changes from one to the other.
"""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Set
from pathlib import Path

from lstm_optax.checkpoints.checkpoint_error import CheckpointError, describe_failure
from lstm_optax.records import write_atomically

# the names that are written: no leading zeros, and no digits other than ASCII
MANIFEST = re.compile(r"(0|[1-9][0-9]{0,17})\.sha256")


class CheckpointFiles:
    """The files of the checkpoints in a folder.

    A manifest lists the SHA-256 of every file in the format of `sha256sum`. Only the process that
    writes it, number 0, deletes files.
    """

    def __init__(self, folder: Path):
        self.folder: Path = folder

    def paths(self, step: int) -> tuple[Path, Path]:
        """Return the folder and the manifest of a checkpoint."""
        try:
            sealed = self._sealed_folder(step)
        except OSError:
            sealed = None
        return sealed or self._folders(step)[0], self._manifest(step)

    def free_folder(self, step: int) -> Path:
        """Return where to write the checkpoint of a step: not where its present copy is."""
        first, second = self._folders(step)
        return second if self._sealed_folder(step) == first else first

    def steps(self) -> list[int]:
        """Return the steps that have a manifest, in order."""
        try:
            found = os.listdir(self.folder)  # `glob` of Python 3.13 hides that it cannot read
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = map(MANIFEST.fullmatch, found)
        return sorted(int(name[1]) for name in names if name)

    def is_whole(self, step: int) -> bool:
        """Return whether a folder has exactly the files of its manifest, with the same contents.

        Raises:
          CheckpointError: no file can be opened, since too many are open.
        """
        target, manifest = self.paths(step)
        try:
            expected = dict(line.split("  ", 1)[::-1] for line in manifest.read_text().splitlines())
            return bool(expected) and dict(_hashes(target)) == expected
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise CheckpointError(f"cannot read {target}: {describe_failure(error)}") from error
            return False

    def seal(self, step: int, target: Path) -> None:
        """Make a folder the checkpoint of a step, by its manifest: completely or not at all."""
        lines = [f"{h}  {name}\n" for name, h in _hashes(target)]
        write_atomically(self._manifest(step), "".join(lines))

    def keep_only(self, step: int, keep: int, every: int | None, named: Set[int]) -> None:
        """Delete later checkpoints than `step`, and all others that are not kept.

        Args:
          step: the newest step.
          keep: the number of newest checkpoints to keep.
          every: keep the multiples of this; None for none.
          named: other steps to keep, also if they are later.
        """
        steps = self.steps()
        newest = [s for s in steps if s <= step]
        kept = {*named, *newest[-keep:], *(s for s in newest if every and s % every == 0)}
        for other in steps:
            if other not in kept:
                self.delete(other)

    def delete(self, step: int) -> None:
        """Delete a checkpoint, and what a killed save of this step has left."""
        # first, so that a half-deleted folder does not count as a checkpoint
        self._manifest(step).unlink(missing_ok=True)
        self.discard(step)

    def discard(self, step: int) -> None:
        """Delete what was written for a step, except the folder that its manifest names."""
        sealed = self._sealed_folder(step)
        for folder in self._folders(step):
            if folder != sealed:
                shutil.rmtree(folder, ignore_errors=True)
            for temporary in self.folder.glob(f"{folder.name}.orbax-checkpoint-tmp*"):
                shutil.rmtree(temporary, ignore_errors=True)
        for partial in self.folder.glob(f"{step}.sha256.*.partial"):
            partial.unlink(missing_ok=True)

    def _sealed_folder(self, step: int) -> Path | None:
        """Return the folder that a manifest names, STEP if it is damaged, None without one."""
        try:
            line = self._manifest(step).read_text().split("\n", 1)[0]
        except FileNotFoundError:
            return None
        except ValueError:
            line = ""
        first, second = self._folders(step)
        return second if line.split("  ", 1)[-1].startswith(f"{second.name}/") else first

    def _folders(self, step: int) -> tuple[Path, Path]:
        return self.folder / str(step), self.folder / f"{step}.again"

    def _manifest(self, step: int) -> Path:
        return self.folder / f"{step}.sha256"


def _hashes(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield f"{folder.name}/{path.relative_to(folder).as_posix()}", digest
