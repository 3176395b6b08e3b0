"""Which files of a folder a run wrote, and their removal; imports no JAX.

A new run starts only where none of the names that it writes to exist, and lists these names in
`.run.json` before it writes to any of them: so all files of these names are its own, and no others.
In `checkpoints/` they are STEP, STEP.again, STEP.sha256, and the temporary names of these; `logs/`
is the run's as a whole.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lstm_optax.checkpoints.checkpoint_files import CheckpointFiles
from lstm_optax.records import PARTIAL, write_atomically
from lstm_optax.runs.folder_lock import LOCK_FILE

MANIFEST = ".run.json"
CONFIG = "config.json"
CHECKPOINTS = "checkpoints"
LOG = "train.log"
LOGS = "logs"
FOLDERS = (CHECKPOINTS, LOGS)
FILES = (
    "metrics.jsonl",
    "loss.png",
    "gradients.jsonl",
    "gradients.png",
    "sample.txt",
    LOG,
    CONFIG,
)
STEP = r"(0|[1-9][0-9]{0,17})"
STEP_FOLDER = re.compile(rf"{STEP}(\.again)?(\.orbax-checkpoint-tmp.*)?")
STEP_FILE = re.compile(rf"{STEP}\.sha256({PARTIAL})?")
SHOWN = 5  # names in a message


def write_manifest(folder: Path) -> None:
    """Record that the files of a run in the folder, which do not exist yet, are this library's."""
    names = json.dumps({"files": [*FILES, *FOLDERS]}, indent=2)
    write_atomically(folder / MANIFEST, names + "\n")


def owned_names(folder: Path) -> set[str]:
    """Return the names in the folder that belong to a run, whether or not they exist.

    A run of a version without a manifest is recognised by its config.json.
    """
    names = {*FILES, *FOLDERS}
    listed = _read_object(folder / MANIFEST).get("files")
    if isinstance(listed, list):
        return names.intersection(name for name in listed if isinstance(name, str))
    config = _read_object(folder / CONFIG)
    return names if {"config", "sha256"} <= config.keys() else set()


def existing_files(folder: Path) -> list[Path]:
    """Return the files and folders of the run in the folder."""
    owned = owned_names(folder)
    paths = [folder / name for name in (*FILES, *FOLDERS) if name in owned]
    return [path for path in paths if path.exists()]


def foreign_files(folder: Path) -> list[str]:
    """Return what a run would write to or replace, but did not write, relative to the folder.

    Symbolic links are among them, as a run writes through none, and so are folders in the place of
    a file.
    """
    owned = owned_names(folder)
    found = [name for name in FILES if _is_other(folder / name, name not in owned, folder=False)]
    if _is_other(folder / MANIFEST, False, folder=False):
        found.append(MANIFEST)
    if _is_other(folder / LOGS, LOGS not in owned, folder=True):
        found.append(LOGS)
    checkpoints = folder / CHECKPOINTS
    if _is_other(checkpoints, CHECKPOINTS not in owned, folder=True):
        return [*found, CHECKPOINTS]
    return found + [
        f"{CHECKPOINTS}/{path.name}"
        for path in _entries(checkpoints)
        if (STEP_FOLDER.fullmatch(path.name) and _is_other(path, False, folder=True))
        or (STEP_FILE.fullmatch(path.name) and _is_other(path, False, folder=False))
    ]


def remove_run(folder: Path) -> list[str]:
    """Remove the files of the run in the folder; return what is left, relative to the folder."""
    owned = owned_names(folder)
    write_manifest(folder)  # in case that this process is killed after it removed config.json
    for name in owned & {*FILES}:
        (folder / name).unlink(missing_ok=True)
    if LOGS in owned and (folder / LOGS).exists():
        shutil.rmtree(folder / LOGS)
    if CHECKPOINTS in owned:
        for path in _entries(folder / CHECKPOINTS):
            if STEP_FOLDER.fullmatch(path.name):
                shutil.rmtree(path)
            elif STEP_FILE.fullmatch(path.name):
                path.unlink()
    remove_leftovers(folder)
    inner = [f"{CHECKPOINTS}/{path.name}" for path in _entries(folder / CHECKPOINTS)]
    if not inner and (folder / CHECKPOINTS).exists():
        (folder / CHECKPOINTS).rmdir()
    outer = {path.name for path in _entries(folder)} - {MANIFEST, LOCK_FILE, CHECKPOINTS}
    return sorted(outer) + inner


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left: temporary files, and checkpoints without a manifest.

    Only the process that holds the folder may call it.
    """
    partial = re.compile(f"({'|'.join(map(re.escape, (*FILES, MANIFEST)))}){PARTIAL}")
    for path in _entries(folder):
        if partial.fullmatch(path.name):
            path.unlink()
    if CHECKPOINTS not in owned_names(folder):
        return
    files = CheckpointFiles(folder / CHECKPOINTS)
    sealed = {files.paths(step)[0] for step in files.steps()}
    for path in _entries(folder / CHECKPOINTS):
        if STEP_FOLDER.fullmatch(path.name) and path not in sealed:
            shutil.rmtree(path)
        elif STEP_FILE.fullmatch(path.name) and path.suffix == ".partial":
            path.unlink()


def join_names(names: list[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _is_other(path: Path, foreign: bool, *, folder: bool) -> bool:
    """Return whether a path exists, and is foreign, a symbolic link, or of the other kind."""
    if path.is_symlink():
        return True
    return path.exists() and (foreign or path.is_dir() != folder)


def _entries(folder: Path) -> Iterator[Path]:
    """Yield the entries of a folder that is no symbolic link, in order; none if it is missing."""
    if folder.is_dir() and not (folder.name == CHECKPOINTS and folder.is_symlink()):
        yield from sorted(folder.iterdir())


def _read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; {} if there is none, or through a symbolic link."""
    try:
        content = {} if path.is_symlink() else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
