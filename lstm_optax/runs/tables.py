"""Tables for the terminal: a loss among those of other models, and what a run will do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from rich.table import Table
from rich.text import Text


def loss_table(
    model_loss: float,
    baselines: Mapping[str, float],
    *,
    name: str = "LSTM",
    unit: str = "",
    caption: str = "",
) -> Table:
    """Return the model among others, from the worst to the best, its own row in bold.

    Args:
      model_loss: its loss; NaN (a model that diverged) is put with the worst.
      baselines: losses of other models by name, such as those of `ngram_losses`.
      name: how the model is called.
      unit: of the losses. One that begins with "nats", such as "nats per character", has a column
        in bits next to it.
      caption: the text below the table.
    """
    rows = [(other, loss, "") for other, loss in baselines.items()]
    rows.append((name, model_loss, "bold"))
    table = Table(caption=Text(caption) if caption else None, caption_justify="left")
    table.add_column("model")
    table.add_column(unit or "loss", justify="right")
    bits = in_bits(unit)
    if bits:
        table.add_column(bits, justify="right")
    for model, loss, style in sorted(rows, key=lambda row: _badness(row[1]), reverse=True):
        more = [f"{loss / math.log(2):.3f}"] if bits else []
        table.add_row(Text(model), f"{loss:.3f}", *more, style=style)
    return table


def in_bits(unit: str) -> str:
    """Return the unit in bits of one in nats, or nothing for another unit."""
    return "bits" + unit.removeprefix("nats") if unit.split(" ")[0] == "nats" else ""


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
