"""The files of checkpoints: a folder STEP for each, next to its manifest STEP.sha256."""

import errno
import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from lstm_optax.records import write_atomically
from lstm_optax.training.checkpoint_error import CheckpointError, describe_failure

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
        return self.folder / str(step), self.folder / f"{step}.sha256"

    def steps(self) -> list[int]:
        """Return the steps that have a manifest, in order."""
        names = (MANIFEST.fullmatch(path.name) for path in self.folder.glob("*.sha256"))
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

    def seal(self, step: int) -> None:
        """Write the manifest of a folder, completely or not at all; it marks it as complete."""
        target, manifest = self.paths(step)
        write_atomically(manifest, "".join(f"{h}  {name}\n" for name, h in _hashes(target)))

    def keep_only(self, step: int, keep: int, every: int | None, best: int | None) -> None:
        """Delete later checkpoints than `step`, and all others that are not kept.

        Args:
          step: the newest step.
          keep: the number of newest checkpoints to keep.
          every: keep the multiples of this; None for none.
          best: another step to keep, also if it is later.
        """
        steps = self.steps()
        newest = [s for s in steps if s <= step]
        kept = {best, *newest[-keep:], *(s for s in newest if every and s % every == 0)}
        for other in steps:
            if other not in kept:
                self.delete(other)

    def delete(self, step: int) -> None:
        """Delete a checkpoint, and what a killed save of this step has left."""
        target, manifest = self.paths(step)
        # first, so that a half-deleted folder does not count as a checkpoint
        manifest.unlink(missing_ok=True)
        for folder in (target, *self.folder.glob(f"{step}.orbax-checkpoint-tmp*")):
            shutil.rmtree(folder, ignore_errors=True)
        for partial in self.folder.glob(f"{manifest.name}.*.partial"):
            partial.unlink(missing_ok=True)


def _hashes(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield f"{folder.name}/{path.relative_to(folder).as_posix()}", digest
