"""The table of what was measured of several transformations, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from rich.table import Table
from rich.text import Text

_Row: TypeAlias = tuple[str, Callable[[Any], str]]

_SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "float64": "f64"}
_STEPS = (1, 2, 3, 10, 100)


def response_table(responses: Sequence[Any]) -> Table:
    """What was measured, a column for each transformation.

    Args:
      responses: records as `explain` returns them.
    """
    table = Table()
    table.add_column("measure", no_wrap=True)
    for response in responses:
        table.add_column(Text(response.name), justify="right", overflow="fold")
    for title, rows in _SECTIONS:
        table.add_section()
        table.add_row(Text(title, style="bold cyan"))
        for what, read in rows:
            cells = (Text(read(response)) for response in responses)
            table.add_row(Text(f"  {what}"), *cells)
    return table


def response_notes(responses: Iterable[Any]) -> list[str]:
    """The notes of the records, each after the name of what it is on."""
    return [f"{response.name}: {note}" for response in responses for note in response.notes]


def _number(value: float) -> str:
    """A number with three digits or more, in powers of ten where it is very large or small."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    if not 5e-4 <= abs(value) < 1e5:
        return _power(value, 2)
    if abs(value) < 0.1:
        return f"{value:#.3g}"
    return f"{value:,.{3 if abs(value) < 10 else 2 if abs(value) < 100 else 1}f}"


def _power(value: float, digits: int = 0) -> str:
    """A number in powers of ten, as 3e-10."""
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _unit(response: Any) -> str:
    rate = response.learning_rate
    return "as they come" if rate is None else f"rate {rate:g}"


def _at(field: str, step: int) -> Callable[[Any], str]:
    return lambda response: _number(getattr(response, field)[step - 1])


def _steady(response: Any) -> str:
    return _number(response.steady_gain) + ("" if response.settled else ", moving")


def _of_rate(read: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda response: "not measured" if response.rate is None else read(response.rate)


def _settled(rate: Any) -> str:
    if rate.settled_after is None:
        return f"not by step {len(rate.relative):,}"
    return f"step {rate.settled_after:,}"


def _steps(count: int | None, longest: int) -> str:
    if count is None:
        return f"over {longest:,} steps"
    return f"{count:,} step" + ("" if count == 1 else "s")


def _range(kind: str) -> Callable[[Any], str]:
    def read(response: Any) -> str:
        first, last = response.scale.inputs[0], response.scale.inputs[-1]
        found = [_between(r, first, last) for r in response.scale.ranges if r.kind == kind]
        return ", ".join(found) or "nowhere"

    return read


def _between(there: Any, first: float, last: float) -> str:
    if there.low == first:
        return "everywhere" if there.high == last else f"to {_gradient(there.high)}"
    if there.high == last:
        return f"from {_gradient(there.low)}"
    return f"{_gradient(there.low)} to {_gradient(there.high)}"


def _gradient(value: float) -> str:
    return f"{value:.1g}" if 1e-3 <= value < 1e3 else _power(value)


def _knee(response: Any) -> str:
    knee = response.scale.knee
    return "none" if math.isnan(knee) else _number(knee)


def _dtypes(place: int) -> _Row:
    def read(response: Any) -> str:
        mix = response.dtypes[place]
        state = _names(mix.state)
        if mix.changes:
            state += f" → {_names(mix.state_after)}"
        return f"{_SHORT.get(mix.update, mix.update)}; {state}"

    parameter, gradient = (("f32", "bf16")[bit] for bit in divmod(place, 2))
    return f"{parameter} params, {gradient} grads", read


def _names(dtypes: Sequence[str]) -> str:
    return " ".join(_SHORT.get(name, name) for name in dtypes) or "none"


_SECTIONS: tuple[tuple[str, tuple[_Row, ...]], ...] = (
    (
        "constant gradient 1",
        (
            ("in units of", _unit),
            *((f"step {step}", _at("constant", step)) for step in _STEPS),
            ("step 20,000", _steady),
        ),
    ),
    (
        "impulse: 1, then 0",
        tuple((f"step {step}", _at("impulse", step)) for step in _STEPS),
    ),
    (
        "learning rate × 0.1",
        (
            ("next step, × usual", _of_rate(lambda rate: _number(rate.next_step))),
            ("within 10 % from", _of_rate(_settled)),
        ),
    ),
    (
        "spike: 1,000 among ones",
        (
            ("step at it, × usual", lambda r: _number(r.spike.at_spike)),
            ("smallest after", lambda r: _number(r.spike.smallest_after)),
            ("largest after", lambda r: _number(r.spike.largest_after)),
            ("off by more than 2 ×", lambda r: _steps(r.spike.disturbed, 0)),
            (
                "within 10 % after",
                lambda r: _steps(r.spike.recovered_after, len(r.spike.relative) - 1),
            ),
            ("state grew by ×", lambda r: _number(r.spike.state_growth)),
        ),
    ),
    (
        "spike: −1,000 among ones",
        (
            ("step at it, × usual", lambda r: _number(r.counter_spike.at_spike)),
            ("smallest after", lambda r: _number(r.counter_spike.smallest_after)),
            ("off by more than 2 ×", lambda r: _steps(r.counter_spike.disturbed, 0)),
        ),
    ),
    (
        "first step by gradient",
        (
            ("proportional", _range("proportional")),
            ("flat", _range("flat")),
            ("knee", _knee),
        ),
    ),
    (
        "parameter 1 in place of 0",
        (
            ("first step", lambda r: _number(r.at_one)),
            ("with gradient 0", lambda r: _number(r.pull)),
        ),
    ),
    (
        "update; state",
        (
            ("bytes per parameter", lambda r: f"{round(r.state_bytes, 3):.3g}"),
            *(_dtypes(place) for place in range(4)),
        ),
    ),
)
