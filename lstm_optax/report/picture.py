"""One chart of a report: its Vega-Lite specification for the page, and its files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import altair as alt

from lstm_optax.records import Record
from lstm_optax.report.looks import HIDDEN, style

FILE_WIDTH = 620  # of a chart in a file, in pixels; in the page it fills its column

Drawing = alt.Chart | alt.LayerChart | alt.FacetChart


@dataclass(frozen=True)
class Picture:
    """A chart with what a reader needs to understand it.

    Attributes:
      name: of its files, without a suffix.
      title: what it shows.
      caption: how to read it, in a sentence or two.
      description: what a reader who cannot see it needs to know.
      chart: whose data are all in `rows`, by name.
      rows: the data sets of the chart.
      height: in pixels.
    """

    name: str
    title: str
    caption: str
    description: str
    chart: Drawing
    rows: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    height: int = 320

    def spec(self) -> dict[str, Any]:
        """Return the specification for the page, which has the legend of the curves."""
        spec = self._full_spec("container")
        _drop_legends(spec)
        spec["autosize"] = {"type": "fit-x", "contains": "padding"}
        spec["background"] = None
        return spec

    def write_files(self, folder: Path) -> None:
        """Write the chart as NAME.png and NAME.svg."""
        import vl_convert

        spec = self._full_spec(FILE_WIDTH)
        spec["title"] = self.title
        spec["padding"] = 12
        svg = vl_convert.vegalite_to_svg(spec)
        (folder / f"{self.name}.svg").write_text(svg, encoding="utf-8")
        (folder / f"{self.name}.png").write_bytes(vl_convert.svg_to_png(svg, scale=2))

    def _full_spec(self, width: int | str) -> dict[str, Any]:
        spec = self.chart.to_dict()
        spec.pop("$schema", None)
        shared = {"config": style(), "width": width, "height": self.height}
        shared["datasets"] = {name: list(rows) for name, rows in self.rows.items()}
        if f"({HIDDEN}, " in json.dumps(spec):
            spec["params"] = [*spec.get("params", []), {"name": HIDDEN, "value": []}]
        return spec | shared | {"description": self.description}


def rounded(value: float) -> float:
    """Return a number with six digits: enough for a chart, and short in the page."""
    return float(f"{value:.6g}")


def only_shown(chart: alt.Chart) -> alt.Chart:
    """Return the chart without the rows whose "series" the reader has hidden."""
    return chart.transform_filter(f"indexof({HIDDEN}, datum.series) < 0")


def _drop_legends(node: Any) -> None:
    """Remove the legends of the curves from a specification, in place."""
    if isinstance(node, dict):
        if node.get("field") == "series" and "legend" in node:
            node["legend"] = None
        for value in node.values():
            _drop_legends(value)
    elif isinstance(node, list):
        for value in node:
            _drop_legends(value)
