"""Records as JSON lines, atomic writes, provenance, and Markdown tables; JAX is imported late."""

import json
import math
import os
import platform
import secrets
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

Record = dict[str, Any]

MEASURED = (
    "seconds",
    "steps_per_second",
    "tokens_per_second",
    "host_memory",
    "device_memory",
)
"""The fields of a training record that depend on the machine; all others are reproducible."""

PACKAGES = ("lstm_optax", "jax", "jaxlib", "flax", "optax", "numpy")
PARTIAL = r"\.[0-9a-f]{16}\.partial"  # what `write_atomically` appends to a name


def as_json(value: Any) -> Any:
    """Return a value as JSON stores it: lists for tuples, null for a number that is not finite."""
    if isinstance(value, dict):
        return {name: as_json(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def record_line(record: Record) -> str:
    """Return a record as one line of JSON, with its newline."""
    return json.dumps(as_json(record), allow_nan=False) + "\n"


def append_record(path: Path, record: Record) -> None:
    """Append a record to a file as one line, in one write: other processes may append too.

    A symbolic link is not followed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab", opener=open_no_link) as file:
        file.write(record_line(record).encode())


def read_records(path: Path) -> list[Record | None]:
    """Return the record of each line, None for a line without a JSON object.

    A crash can leave a torn last line, without a newline; it is left out.
    """
    data = path.read_bytes()
    return [_parse(line) for line in data[: _whole_length(data)].splitlines()]


def drop_torn_line(path: Path) -> None:
    """Remove a torn last line from a file, so that the next record starts on a line of its own.

    A last line that does not begin as a record is not one of ours, and is kept.
    """
    if not _ends_torn(path):
        return
    with open(path, "r+b", opener=open_no_link) as file:
        data = file.read()
        whole = data[: _whole_length(data)]
        if not data[len(whole) :].startswith(b"{"):
            whole = data
        file.seek(len(whole))
        if whole and not whole.endswith(b"\n"):
            file.write(b"\n")
        file.truncate()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file completely and to the disk or, on an error, leave it as it was.

    A symbolic link is replaced, not followed.
    """
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def installed_versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of packages, by name."""
    return {"python": platform.python_version()} | {p: version(p) for p in packages}


def provenance(command: str, packages: Sequence[str] = PACKAGES) -> Record:
    """Return what a record depends on: command, versions, commit, device, processor and load."""
    import jax

    device = jax.devices()[0]
    return {
        "command": command,
        "versions": installed_versions(packages),
        "commit": _commit(),
        "device": device.device_kind,
        "platform": device.platform,
        "cpu": _cpu_name(),
        "cores": core_count(),
        "load": load_average(),
    }


def core_count() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def load_average() -> float:
    """Return the load of the machine over the last minute."""
    return round(os.getloadavg()[0], 2)


def markdown_row(cells: Sequence[str]) -> str:
    """Return one row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, align_right: bool = False
) -> str:
    """Return a Markdown table; `align_right` aligns all columns except the first."""
    rule = ["---"] + ["---:" if align_right else "---"] * (len(header) - 1)
    return "\n".join(map(markdown_row, (header, rule, *rows)))


def open_no_link(path: str, flags: int) -> int:
    """Open a file, but not through a symbolic link, where the system can refuse that."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _ends_torn(path: Path) -> bool:
    """Return whether a file ends without a newline."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def _parse(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _whole_length(data: bytes) -> int:
    """Return the length of a file without its torn last line.

    A last line that is a whole JSON object counts as whole, even without a newline.
    """
    end = data.rfind(b"\n") + 1
    return end if _parse(data[end:]) is None else len(data)


def _cpu_name() -> str:
    """Return the processor's model where the system names it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit of this package, with -dirty after local changes; None outside Git."""
    module = Path(__file__)
    package = module.parent
    if not _git(package, "ls-files", str(module)):  # a repository around an installed package
        return None
    changed = _git(package, "status", "--porcelain", "--untracked-files=no", ".")
    return f"{_git(package, 'rev-parse', 'HEAD')}{'-dirty' if changed else ''}"


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except OSError:
        return None
    return (done.stdout.strip() or None) if done.returncode == 0 else None
