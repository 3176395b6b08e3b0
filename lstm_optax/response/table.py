"""The table of responses, with a column for each transformation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from rich.table import Table
from rich.text import Text

from lstm_optax.response.responses import RateResponse, Response, ScaleRange

_Row: TypeAlias = tuple[str, Callable[[Response], str]]

_SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "float64": "f64"}
_STEPS = (1, 2, 3, 10, 100)


def response_table(responses: Sequence[Response]) -> Table:
    """Return a table with a row for each number and a column for each transformation.

    Args:
      responses: the results of `explain`.
    """
    table = Table()
    table.add_column("measurement", no_wrap=True)
    for response in responses:
        table.add_column(Text(response.name), justify="right", overflow="fold")
    for title, rows in _SECTIONS:
        table.add_section()
        table.add_row(Text(title, style="bold cyan"))
        for label, read in rows:
            cells = (Text(read(response)) for response in responses)
            table.add_row(Text(f"  {label}"), *cells)
    return table


def response_notes(responses: Iterable[Response]) -> list[str]:
    """Return the notes of the responses, each with the name of its transformation."""
    return [f"{response.name}: {note}" for response in responses for note in response.notes]


def _format_number(value: float) -> str:
    """Return a number with at least three digits, in powers of ten if it is very large or small."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if not 5e-4 <= abs(value) < 1e5:
        return _format_power(value, 2)
    if abs(value) < 0.1:
        return f"{value:#.3g}"
    return f"{value:,.{3 if abs(value) < 10 else 2 if abs(value) < 100 else 1}f}"


def _format_power(value: float, digits: int = 0) -> str:
    """Return a number in powers of ten, such as 3e-10."""
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _unit_cell(response: Response) -> str:
    rate = response.learning_rate
    return "unscaled" if rate is None else f"rate {rate:g}"


def _step_cell(field: str, step: int) -> Callable[[Response], str]:
    return lambda response: _format_number(getattr(response, field)[step - 1])


def _steady_cell(response: Response) -> str:
    return _format_number(response.steady_gain) + ("" if response.settled else ", moving")


def _rate_cell(read: Callable[[RateResponse], str]) -> Callable[[Response], str]:
    return lambda response: "not measured" if response.rate is None else read(response.rate)


def _format_settled(rate: RateResponse) -> str:
    if rate.settled_after is None:
        return f"not by step {len(rate.relative):,}"
    return f"step {rate.settled_after:,}"


def _format_steps(count: int | None, longest: int) -> str:
    if count is None:
        return f"over {longest:,} steps"
    return f"{count:,} step" + ("" if count == 1 else "s")


def _range_cell(kind: str) -> Callable[[Response], str]:
    def read(response: Response) -> str:
        first, last = response.scale.inputs[0], response.scale.inputs[-1]
        texts = [_format_range(r, first, last) for r in response.scale.ranges if r.kind == kind]
        return ", ".join(texts) or "nowhere"

    return read


def _format_range(part: ScaleRange, first: float, last: float) -> str:
    if part.low == first:
        return "everywhere" if part.high == last else f"to {_format_gradient(part.high)}"
    if part.high == last:
        return f"from {_format_gradient(part.low)}"
    return f"{_format_gradient(part.low)} to {_format_gradient(part.high)}"


def _format_gradient(value: float) -> str:
    return f"{value:.1g}" if 1e-3 <= value < 1e3 else _format_power(value)


def _knee_cell(response: Response) -> str:
    knee = response.scale.knee
    return "none" if math.isnan(knee) else _format_number(knee)


def _dtype_row(place: int) -> _Row:
    def read(response: Response) -> str:
        mix = response.dtypes[place]
        state = _short_names(mix.state)
        if mix.changes:
            state += f" → {_short_names(mix.state_after)}"
        return f"{_SHORT.get(mix.update, mix.update)}; {state}"

    parameter, gradient = (("f32", "bf16")[bit] for bit in divmod(place, 2))
    return f"{parameter} params, {gradient} grads", read


def _short_names(dtypes: Sequence[str]) -> str:
    return " ".join(_SHORT.get(name, name) for name in dtypes) or "none"


_SECTIONS: tuple[tuple[str, tuple[_Row, ...]], ...] = (
    (
        "constant gradient 1",
        (
            ("in units of", _unit_cell),
            *((f"step {step}", _step_cell("constant", step)) for step in _STEPS),
            ("step 20,000", _steady_cell),
        ),
    ),
    (
        "impulse: 1, then 0",
        tuple((f"step {step}", _step_cell("impulse", step)) for step in _STEPS),
    ),
    (
        "learning rate × 0.1",
        (
            ("next step, × usual", _rate_cell(lambda rate: _format_number(rate.next_step))),
            ("within 10 % from", _rate_cell(_format_settled)),
        ),
    ),
    (
        "spike: 1,000 among ones",
        (
            ("step at it, × usual", lambda r: _format_number(r.spike.at_spike)),
            ("smallest after", lambda r: _format_number(r.spike.smallest_after)),
            ("largest after", lambda r: _format_number(r.spike.largest_after)),
            ("off by more than 2 ×", lambda r: _format_steps(r.spike.disturbed, 0)),
            (
                "within 10 % after",
                lambda r: _format_steps(r.spike.recovered_after, len(r.spike.relative) - 1),
            ),
            ("state grew by ×", lambda r: _format_number(r.spike.state_growth)),
        ),
    ),
    (
        "spike: −1,000 among ones",
        (
            ("step at it, × usual", lambda r: _format_number(r.counter_spike.at_spike)),
            ("smallest after", lambda r: _format_number(r.counter_spike.smallest_after)),
            ("off by more than 2 ×", lambda r: _format_steps(r.counter_spike.disturbed, 0)),
        ),
    ),
    (
        "first step by gradient",
        (
            ("proportional", _range_cell("proportional")),
            ("flat", _range_cell("flat")),
            ("knee", _knee_cell),
        ),
    ),
    (
        "parameter 1 instead of 0",
        (
            ("first step", lambda r: _format_number(r.at_one)),
            ("with gradient 0", lambda r: _format_number(r.pull)),
        ),
    ),
    (
        "update; state",
        (
            ("bytes per parameter", lambda r: f"{round(r.state_bytes, 3):.3g}"),
            *(_dtype_row(place) for place in range(4)),
        ),
    ),
)
