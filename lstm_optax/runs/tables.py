"""Tables for the terminal: a loss next to baselines, and pairs of a name and a value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from rich.table import Table
from rich.text import Text

PERPLEXITY_UNITS = ("nats per word", "nats per subword")
MOST_NATS = 700  # e to this power is a float


def loss_table(
    model_loss: float,
    baselines: Mapping[str, float],
    *,
    name: str = "LSTM",
    unit: str = "",
    caption: str = "",
) -> Table:
    """Return a table of a model and baselines, from the worst to the best, the model in bold.

    Args:
      model_loss: loss of the model; NaN, of a model that diverged, counts as worst.
      baselines: losses of other models by name, such as those of `ngram_losses`.
      name: name of the model.
      unit: unit of the losses. A unit that begins with "nats", such as "nats per character", adds
        a column in bits; "nats per word" adds a column with the perplexity instead.
      caption: text below the table.
    """
    rows = [(other, loss, "") for other, loss in baselines.items()]
    rows.append((name, model_loss, "bold"))
    table = Table(caption=Text(caption) if caption else None, caption_justify="left")
    table.add_column("model")
    table.add_column(unit or "loss", justify="right")
    words, bits = unit in PERPLEXITY_UNITS, in_bits(unit)
    if words or bits:
        table.add_column("perplexity" if words else bits, justify="right")
    for model, loss, style in sorted(rows, key=lambda row: _nan_as_inf(row[1]), reverse=True):
        more = [f"{perplexity(loss):,.1f}" if words else f"{loss / math.log(2):.3f}"]
        more = more if words or bits else []
        table.add_row(Text(model), f"{loss:.3f}", *more, style=style)
    return table


def perplexity(loss: float) -> float:
    """Return e to the power of a loss in nats; inf where that is too large for a float."""
    return math.exp(loss) if loss < MOST_NATS else loss * math.inf


def in_bits(unit: str) -> str:
    """Return the unit in bits for a unit in nats, and an empty string for any other unit."""
    return "bits" + unit.removeprefix("nats") if unit.split(" ")[0] == "nats" else ""


def plan_table(pairs: Iterable[tuple[str, object]]) -> Table:
    """Return a table without lines of (name, value) pairs, in the given order."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(name), Text(str(value)))
    return table


def _nan_as_inf(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss
