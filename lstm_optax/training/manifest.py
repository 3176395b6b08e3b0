"""The manifest of a checkpoint: the SHA-256 of each file, in the format of `sha256sum`."""

import errno
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from lstm_optax.records import write_atomically
from lstm_optax.training.checkpoint_error import CheckpointError, describe_failure

# the names that `Checkpoints` writes: no leading zeros, and no digits other than ASCII
NAME = re.compile(r"(0|[1-9][0-9]{0,17})\.sha256")


def write_manifest(manifest: Path, folder: Path) -> None:
    """Write the manifest of a folder, completely or not at all."""
    write_atomically(manifest, "".join(f"{h}  {name}\n" for name, h in _hashes(folder)))


def matches_manifest(manifest: Path, folder: Path) -> bool:
    """Return whether a folder has exactly the files of its manifest, with the same contents.

    Raises:
      CheckpointError: no file can be opened, since too many are open.
    """
    try:
        expected = dict(line.split("  ", 1)[::-1] for line in manifest.read_text().splitlines())
        return bool(expected) and dict(_hashes(folder)) == expected
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise CheckpointError(f"cannot read {folder}: {describe_failure(error)}") from error
        return False


def manifest_steps(folder: Path) -> list[int]:
    """Return the steps of the manifests in a folder, in order."""
    names = (NAME.fullmatch(path.name) for path in folder.glob("*.sha256"))
    return sorted(int(name[1]) for name in names if name)


def _hashes(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield f"{folder.name}/{path.relative_to(folder).as_posix()}", digest
