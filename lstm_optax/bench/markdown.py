"""The tables of a benchmark, for the terminal and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lstm_optax.bench.tables import (
    Grid,
    Records,
    bench_rows,
    row_grids,
    summary_grids,
    unserved,
)
from lstm_optax.records import markdown_table

BEGIN, END = "<!-- begin: written by lstm-optax bench -->", "<!-- end -->"


def bench_tables(records: Records) -> list[Table | Text]:
    """Return tables for the terminal: the details of each row, the ratios, the missing results.

    Args:
      records: records from `read_bench`, of any number of runs; the newest run of each row counts.
    """
    shown: list[Table | Text] = []
    for platform in ("cpu", "gpu"):
        for grid in row_grids(records, platform) + summary_grids(records, platform):
            shown.append(_rich_table(grid))
        shown += [Text(line) for line in _missing_results(records, platform)]
    return shown


def bench_markdown(records: Records) -> str:
    """Return the results as Markdown: machine, ratios, missing results, details of each row."""
    parts = []
    for platform, name in (("cpu", "CPU"), ("gpu", "GPU")):
        parts.append(f"## {name}")
        rows = bench_rows(records, platform)
        if not rows:
            parts.append("Not measured.")
            continue
        runs = {row.run["run"]: row.run for row in rows}
        parts += [_describe_run(run) for run in runs.values()]
        for grid in summary_grids(records, platform):
            parts += [f"### {grid.title}", _markdown_of(grid)]
        parts += _missing_results(records, platform)
        parts += [f"### {name}, row by row"]
        for grid in row_grids(records, platform):
            parts += [f"**{grid.title}**", _markdown_of(grid)]
    return "\n\n".join(parts) + "\n"


def fill_bench_page(text: str, records: Records) -> str:
    """Return a page with new tables between its two marks.

    Raises:
      ValueError: the page lacks one of the marks.
    """
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"the page has no place for the tables: put {BEGIN} and {END} into it")
    content = f"{BEGIN}\n\n{bench_markdown(records)}\n{END}"
    return pattern.sub(lambda _: content, text)


def _rich_table(grid: Grid) -> Table:
    title = Text(grid.title, style="cyan")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for i, name in enumerate(grid.header):
        table.add_column(Text(name), justify="left" if i == 0 else "right", overflow="fold")
    for line in grid.lines:
        ours = line[0] in ("lstm_optax", "geometric mean")
        table.add_row(*map(Text, line), style="bold" if ours else "")
    return table


def _markdown_of(grid: Grid) -> str:
    return markdown_table(grid.header, grid.lines, align_right=True)


def _missing_results(records: Records, platform: str) -> list[str]:
    reasons = unserved(bench_rows(records, platform))
    return [f"{', '.join(places)}: {reason}." for reason, places in reasons.items()]


def _describe_run(run: Mapping[str, Any]) -> str:
    """Return a sentence on the machine, the versions and the options of a run."""
    device = run["cpu"] if run["platform"] == "cpu" else f"{run['device']} ({run['cpu']})"
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    settings = ", ".join(f"{name}={value}" for name, value in run["settings"].items())
    kind = "a quick run, provisional" if run["quick"] else "a full run"
    native = f", {run['instructions']}" if run.get("instructions") else ""
    busy = run["load"] > 0.3 * run["cores"]
    warning = " **The machine was busy: these numbers are provisional and prove nothing.**"
    return (
        f"Run of {run['time']}, {kind}: {device}{native}, {run['cores']} cores, "
        f"load {run['load']} before, at most {run['rounds']} rounds, seed {run['seed']}; "
        f"{versions}; "
        f"flags: {settings or 'none'}.{warning if busy else ''}"
    )
