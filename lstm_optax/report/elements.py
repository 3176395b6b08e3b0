"""Pieces of HTML; every text that is not ours is escaped."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lstm_optax.report.looks import Looks
from lstm_optax.report.picture import Picture

_SHAPES = {
    "circle": '<circle cx="17" cy="8" r="4.5"/>',
    "square": '<path d="M13 4h8v8h-8z"/>',
    "triangle-up": '<path d="M17 2.5l5 9.5h-10z"/>',
    "diamond": '<path d="M17 2l5 6-5 6-5-6z"/>',
    "cross": '<path d="M15.3 3h3.4v3.3H22v3.4h-3.3V13h-3.4V9.7H12V6.3h3.3z"/>',
}


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what it shows, and the value by which its column is sorted."""

    text: str
    value: float | str | None = None


def escape(value: Any) -> str:
    """Return a value as text that HTML shows as it is, in an attribute too."""
    return html.escape(str(value), quote=True)


def section(name: str, title: str, *parts: str) -> str:
    """Return a section with its heading; empty if it has no parts."""
    body = "\n".join(part for part in parts if part)
    if not body:
        return ""
    return (
        f'<section aria-labelledby="{name}">\n<h2 id="{name}">{escape(title)}</h2>\n{body}\n'
        "</section>"
    )


def figures(pictures: Sequence[Picture]) -> str:
    """Return the charts with their captions; the specification of each is JSON in a script."""
    parts = []
    for picture in pictures:
        spec = json.dumps(picture.spec(), separators=(",", ":"), allow_nan=False)
        spec = spec.replace("<", "\\u003c")  # so that no text can end the script
        parts.append(
            f"<figure>\n<h3>{escape(picture.title)}</h3>\n"
            f'<div class="chart" id="{picture.name}" data-spec="{picture.name}-spec" '
            f'style="min-height:{picture.height}px"></div>\n'
            f"<figcaption>{escape(picture.caption)}</figcaption>\n"
            f'<script type="application/json" id="{picture.name}-spec">{spec}</script>\n</figure>'
        )
    return f'<div class="charts">\n{"".join(parts)}\n</div>' if parts else ""


def legend(looks: Looks) -> str:
    """Return a button for each curve, which shows or hides it, and two for all curves."""
    keys = []
    for name in looks.names:
        color, dashes, marker = looks.of(name)
        dash = "" if dashes == (1, 0) else f' stroke-dasharray="{" ".join(map(str, dashes))}"'
        swatch = (
            f'<svg width="34" height="16" aria-hidden="true" fill="{color}" stroke="{color}">'
            f'<path d="M1 8h32" stroke-width="2"{dash}/>'
            f'<g stroke="none">{_SHAPES[marker]}</g></svg>'
        )
        keys.append(
            f'<button type="button" aria-pressed="true" data-series="{escape(name)}">{swatch}'
            f"{escape(name)}</button>"
        )
    if len(keys) > 2:
        keys.append('<button type="button" data-all="show">Show all</button>')
        keys.append('<button type="button" data-all="hide">Hide all</button>')
    label = "Curves: press to show or hide"
    return f'<div id="legend" role="group" aria-label="{label}">{"".join(keys)}</div>'


def sortable_table(
    caption: str, header: Sequence[str], rows: Sequence[Sequence[Cell]], name: str
) -> str:
    """Return a table whose header has a button for each column; the first column names the row."""
    heads = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(title)} '
        '<span aria-hidden="true">↕</span></button></th>'
        for title in header
    )
    body = "\n".join(f"<tr>{''.join(_cell(i, c) for i, c in enumerate(row))}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f'<table class="sorts" id="{name}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def facts(title: str, values: Mapping[str, Any]) -> str:
    """Return a list of names and values; a mapping in it becomes lines of its own."""
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in _flat(values).items()
    )
    return f"<div><h3>{escape(title)}</h3><dl>{rows}</dl></div>" if rows else ""


def warning(title: str, lines: Sequence[str]) -> str:
    """Return a box with a title and a list; empty without lines."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="warning"><p>{escape(title)}</p><ul>{items}</ul></div>' if items else ""


def cards(values: Mapping[str, str]) -> str:
    """Return a row of short facts, by what they mean."""
    items = "".join(
        f"<li><strong>{escape(text)}</strong><span>{escape(name)}</span></li>"
        for name, text in values.items()
    )
    return f'<ul class="cards">{items}</ul>'


def _cell(place: int, cell: Cell) -> str:
    value = "" if cell.value is None else f' data-value="{escape(cell.value)}"'
    if place == 0:
        return f'<th scope="row"{value}>{escape(cell.text)}</th>'
    return f"<td{value}>{escape(cell.text)}</td>"


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{before}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            found[before + name] = text
    return found
