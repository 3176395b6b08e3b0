"""The findings of `advise` as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from lstm_optax.runs.advice.finding import Finding

STYLES = {"high": "bold red", "medium": "bold yellow", "low": "bold cyan"}


def findings_table(findings: Sequence[Finding]) -> Group:
    """Return the findings for `rich.console.Console.print`, each with its evidence and remedy."""
    if not findings:
        return Group(Text("advice: nothing found in the records"))
    title = Text(f"advice: {len(findings)} finding{'s' if len(findings) > 1 else ''}", style="bold")
    parts = (part for finding in findings for part in ("", _heading(finding), _evidence(finding)))
    return Group(title, *parts)


def _heading(finding: Finding) -> Text:
    confidence = Text(f"confidence {finding.confidence}", style=STYLES[finding.confidence])
    return Text(f"{finding.rule}, ", style="bold").append_text(confidence)


def _evidence(finding: Finding) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    table.add_row(Text("  found"), Text(finding.message))
    table.add_row(Text("  remedy"), Text(finding.remedy, style="bold"))
    table.add_row(Text("  threshold"), Text(finding.threshold))
    table.add_row(Text("  source"), Text(finding.source))
    return table
