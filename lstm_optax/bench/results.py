"""The records of a benchmark as lines of JSON, and the facts of the machine; no JAX until asked."""

import json
import math
import os
import platform
import resource
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lstm_optax.bench.config import CONTENDERS, STEPS, BenchConfig
from lstm_optax.runs.options import OptionError

__all__ = ["read_bench"]

Record = dict[str, Any]

PACKAGES = ("lstm_optax", "jax", "jaxlib", "optax", "flax", "numpy")
SETTINGS = (
    "XLA_FLAGS",
    "GLIBC_TUNABLES",
    "OMP_NUM_THREADS",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "MALLOC_ARENA_MAX",
)
SAME = ("versions", "settings", "device", "cpu", "cores", "quick", "rounds", "seed", "against")
"""What two runs must agree in for one to go on with the other."""


def read_bench(path: str | os.PathLike[str]) -> list[Record]:
    """Return the records that `lstm-optax bench` wrote, without lines that a crash broke.

    A run begins with a record "run", the facts of the machine; a row with a record "row" and, when
    it is done, "end"; between them is a record "result" for each measure and contender.

    Raises:
      OptionError: the file cannot be read, or holds no such records.
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}; name another file") from None
    records = [record for line in lines if (record := _object(line))]
    if lines and not records:
        raise OptionError(f"{path} holds no records of a benchmark; name another file")
    return records


class Writer:
    """Appends records to a file as they come, and keeps them."""

    def __init__(self, path: Path | None, run: str):
        self.path: Path | None = path
        self.run: str = run
        self.records: list[Record] = []
        if path and path.exists() and not path.read_bytes().endswith(b"\n"):
            path.write_bytes(path.read_bytes() + b"\n" * bool(path.stat().st_size))

    def write(self, kind: str, values: Mapping[str, Any]) -> Record:
        """Add a record of this run, and return it."""
        record = {"record": kind, "run": self.run, **values}
        self.records.append(record)
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_finite(record)) + "\n")
        return record


def machine_facts(config: BenchConfig, argv: Sequence[str]) -> Record:
    """Return what the numbers of a run depend on: versions, flags, device, load, command."""
    import jax

    device = jax.devices()[0]
    packages = {name: version(name) for name in PACKAGES}
    for contender in CONTENDERS.values():
        packages |= {contender.package: contender.version() or "not installed"}
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["lstm-optax", *argv[1:]]),  # not where it is installed
        "versions": {"python": platform.python_version(), **packages},
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
        "device": device.device_kind if device.platform != "cpu" else "cpu",
        "platform": device.platform,
        "cpu": cpu_name(),
        "cores": cores(),
        "steps": STEPS,
        "load": load(),
        **asdict(config),
        "against": sorted(config.against),
    }


def finished_rows(records: Sequence[Record], facts: Record) -> set[str]:
    """Return the rows that runs with the same facts have done."""
    alike = {
        record["run"]
        for record in records
        if record["record"] == "run" and all(record.get(n) == _plain(facts[n]) for n in SAME)
    }
    return {r["row"] for r in records if r["record"] == "end" and r["run"] in alike}


def load() -> float:
    """Return the machine's load over the last minute."""
    return round(os.getloadavg()[0], 2)


def peak_rss() -> int:
    """Return the most memory that this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def cores() -> int:
    """Return the cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def cpu_name() -> str:
    """Return the processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _object(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    kinds = ("run", "row", "result", "end")
    return record if isinstance(record, dict) and record.get("record") in kinds else None


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _finite(value: Any) -> Any:
    """Return what JSON has words for: null for a number that is not finite."""
    if isinstance(value, dict):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
