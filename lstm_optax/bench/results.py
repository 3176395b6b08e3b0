"""The records of a benchmark: how they are written, read, and matched for --resume."""

import os
import resource
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lstm_optax.bench.config import CONTENDERS, STEPS, BenchConfig, Contender
from lstm_optax.records import (
    Record,
    append_record,
    as_json,
    drop_torn_line,
    provenance,
    read_records,
)
from lstm_optax.runs.constraints import OptionError

__all__ = ["read_bench"]

KINDS = ("run", "row", "result", "end")
SETTINGS = (
    "XLA_FLAGS",
    "GLIBC_TUNABLES",
    "OMP_NUM_THREADS",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "MALLOC_ARENA_MAX",
)
RESUME_FIELDS = (
    *("versions", "settings", "device", "cpu", "cores", "instructions"),
    *("quick", "rounds", "seed", "against"),
)
"""Fields of a run's record that must match for `--resume`."""


def read_bench(path: str | os.PathLike[str]) -> list[Record]:
    """Return the records that `lstm-optax bench` wrote, without lines that a crash damaged.

    A run starts with a record "run", its provenance. A row starts with a record "row", has a record
    "result" for each measure and contender, and finishes with a record "end".

    Raises:
      OptionError: the file cannot be read, or holds no such records.
    """
    try:
        lines = read_records(Path(path))
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}; name another file") from None
    records = [record for record in lines if record and record.get("record") in KINDS]
    if not records and Path(path).stat().st_size:
        raise OptionError(f"{path} holds no records of a benchmark; name another file")
    return records


class Writer:
    """The records of one run, each appended to a file at once."""

    def __init__(self, path: Path | None, run: str):
        self.path: Path | None = path and path.resolve()  # records follow no symbolic link
        self.run: str = run
        self.records: list[Record] = []
        if path:
            drop_torn_line(path)

    def write(self, kind: str, values: Mapping[str, Any]) -> Record:
        """Append a record of this run, and return it."""
        record = {"record": kind, "run": self.run, **values}
        self.records.append(record)
        if self.path:
            append_record(self.path, record)
        return record


def run_facts(
    config: BenchConfig,
    argv: Sequence[str],
    contenders: Mapping[str, Contender] = CONTENDERS,
) -> Record:
    """Return the provenance of a run, its options, and the versions of all contenders."""
    from lstm_optax.lstm.native import library  # imports JAX

    facts = provenance(shlex.join(["lstm-optax", *argv[1:]]))  # without the path of the script
    for contender in contenders.values():
        facts["versions"] |= {contender.package: contender.version() or "not installed"}
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
        "instructions": library.instructions() if library.missing() is None else None,
        "steps": STEPS,
        **asdict(config),
        "against": sorted(config.against),
    }


def finished_rows(records: Sequence[Record], facts: Record) -> set[str]:
    """Return the rows that earlier runs with the same facts have finished."""
    wanted = as_json({name: facts[name] for name in RESUME_FIELDS})
    matching = {
        record["run"]
        for record in records
        if record["record"] == "run" and all(record.get(n) == v for n, v in wanted.items())
    }
    return {r["row"] for r in records if r["record"] == "end" and r["run"] in matching}


def peak_rss() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
