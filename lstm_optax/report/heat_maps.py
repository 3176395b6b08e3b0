"""Heat maps of the gradient inside an LSTM, if the study's folder has a gradients.jsonl."""

import math
from collections.abc import Sequence
from pathlib import Path

import altair as alt
import numpy as np
from numpy.typing import NDArray

from lstm_optax.records import Record, read_records
from lstm_optax.report.looks import SHADES
from lstm_optax.report.picture import Drawing, Picture, rounded
from lstm_optax.studies.study_records import StudyError

GRADIENTS_FILE = "gradients.jsonl"
MOST_CELLS = 60  # of a heat map in each direction
DECADES = 12  # range of the colours, below the largest norm
_TITLES = {
    "h": ("Gradient with respect to the hidden state", "the norm of ∂L/∂h at each time step"),
    "reach": (
        "How far back the gradient of the last loss reaches",
        "the norm of ∂L/∂h for the loss at the last time step only",
    ),
}


def heat_map_pictures(folder: Path) -> list[Picture]:
    """Return two charts for each layer; none without a file of gradients.

    Raises:
      StudyError: a line of the file is not a record of gradients.
    """
    path = folder / GRADIENTS_FILE
    if not path.is_file():
        return []
    records: list[Record] = []
    for number, record in enumerate(read_records(path), 1):
        if record is None or not {"step", "h", "reach"} <= record.keys():
            raise StudyError(f"line {number} of {path} is not a record of gradients: remove it")
        records.append(record)
    records.sort(key=lambda record: record["step"])
    layers = len(records[0]["h"]) if records else 0
    return [_picture(records, layer, name) for layer in range(layers) for name in _TITLES]


def _picture(records: Sequence[Record], layer: int, name: str) -> Picture:
    steps = np.array([record["step"] for record in records])
    norms = np.array([record[name][layer] for record in records], np.float64)  # [record, time]
    rows = [
        {"step": f"{steps[i]:,}", "time": int(j), **_shade(float(norms[i, j]))}
        for i in _places(norms.shape[0])
        for j in _places(norms.shape[1])
    ]
    title, meaning = _TITLES[name]
    lost = int(np.sum(~np.isfinite(norms)))
    return Picture(
        name=f"gradients_{name}_{layer}",
        title=f"{title}, layer {layer}",
        caption=(
            f"Colour: the power of ten of {meaning} of the window, the latest training step on "
            f"top. Grey: a norm of 0. Not finite: {lost} of {norms.size} values."
        ),
        description=f"Heat map of {meaning}. {_words(norms)}",
        chart=_chart(rows),
        rows={"cells": rows},
    )


def _chart(rows: Sequence[Record]) -> Drawing:
    powers = [row["power"] for row in rows if row["power"] is not None]
    high = max(powers, default=0.0)
    low = max(min(powers, default=-1.0), high - DECADES)
    steps = list(dict.fromkeys(row["step"] for row in rows))
    times = list(dict.fromkeys(row["time"] for row in rows))
    shown = {s for i, s in enumerate(reversed(steps)) if i % -(-len(steps) // 8) == 0}
    labels = [t for i, t in enumerate(times) if i % -(-len(times) // 8) == 0]
    base = alt.Chart(alt.NamedData("cells")).encode(
        x=alt.X(
            "time:O", title="time step in the window", axis=alt.Axis(values=labels, labelAngle=0)
        ),
        y=alt.Y(
            "step:N",
            sort=steps[::-1],
            title="training step",
            axis=alt.Axis(values=[step for step in steps if step in shown]),
        ),
        tooltip=["step:N", "time:O", alt.Tooltip("norm:Q", format=".3~g")],
    )
    scale = alt.Scale(scheme=SHADES, domain=[low, high], clamp=True)
    legend = alt.Legend(orient="bottom", gradientLength=200, tickCount=5)
    cells = base.mark_rect().encode(
        color=alt.condition(
            "isValid(datum.power)",
            alt.Color("power:Q", title="log₁₀ of the norm", scale=scale, legend=legend),
            alt.value("#bbbbbb"),
        )
    )
    lost = base.transform_filter("!isValid(datum.norm)").mark_rect(color="#D00000")
    return alt.layer(cells, lost)


def _shade(norm: float) -> Record:
    if not math.isfinite(norm):
        return {"norm": None, "power": None}
    power = rounded(math.log10(norm)) if norm > 0 else None
    return {"norm": rounded(norm), "power": power}


def _places(count: int) -> list[int]:
    """Return at most MOST_CELLS places, evenly spread, with the first and the last."""
    if count <= MOST_CELLS:
        return list(range(count))
    return [round(i * (count - 1) / (MOST_CELLS - 1)) for i in range(MOST_CELLS)]


def _words(norms: NDArray[np.float64]) -> str:
    first, last = norms[-1, 0], norms[-1, -1]
    return (
        f"At the last training step it is {first:.3g} at the first time step and {last:.3g} at the "
        "last."
    )
