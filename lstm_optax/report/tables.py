"""Tables for the terminal: where a loss stands among the n-gram models, and what a run will do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from rich.table import Table
from rich.text import Text


def loss_table(model_loss: float, floors: Mapping[str, float], *, name: str = "LSTM") -> Table:
    """The model among the n-gram models, from the worst to the best, its own row in bold.

    Args:
      model_loss: nats per character; NaN (a model that diverged) stands with the worst.
      floors: nats per character of other models, as from `ngram_losses`.
      name: what the model is called.
    """
    rows = [(other, loss, "") for other, loss in floors.items()]
    rows.append((name, model_loss, "bold"))
    table = Table()
    table.add_column("model")
    table.add_column("nats per character", justify="right")
    table.add_column("bits per character", justify="right")
    for model, loss, style in sorted(rows, key=lambda row: _badness(row[1]), reverse=True):
        table.add_row(Text(model), f"{loss:.3f}", f"{loss / math.log(2):.3f}", style=style)
    return table


def plan_table(pairs: Iterable[tuple[str, object]]) -> Table:
    """What a run will do, as two columns without lines: (what, value) pairs in their order."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for what, value in pairs:
        table.add_row(Text(what), Text(str(value)))
    return table


def _badness(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss
