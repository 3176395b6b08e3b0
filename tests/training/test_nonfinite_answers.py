"""The table "What happens when" of docs/numerics.md: each cell is the outcome of a run."""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from plain import plain_for

import lstm_optax as lo

PAGE = Path(__file__).parents[2] / "docs" / "numerics.md"
HEADING = "## What happens when\n"
VALUES = {"NaN": np.nan, "infinity": np.inf}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}
BAD_STEP, STEPS, GIVES_UP = 3, 30, 4


class Cell(NamedTuple):
    """A cell of the table."""

    place: str
    value: str
    dtype: str
    guarded: bool
    answer: str

    def __str__(self) -> str:
        return f"{self.value} in {self.place}, {self.dtype}{', guard' * self.guarded}"


def cells_of(page: str) -> list[Cell]:
    """Return the cells of the table; a column may be of several dtypes."""
    lines = page.split(HEADING)[1].split("\n## ")[0].splitlines()
    table = [[c.strip() for c in line[1:-1].split("|")] for line in lines if line.startswith("|")]
    (_, *columns), _, *rows = table
    cells = []
    for head, *answers in rows:
        value, place = re.fullmatch(r"(\w+) in the (.+)", head).groups()
        for column, answer in zip(columns, answers, strict=True):
            for dtype in re.findall(r"(?:b?float\d+)", column):
                cells.append(Cell(place, value, dtype, "guard" in column, answer))
    return cells


CELLS = cells_of(PAGE.read_text(encoding="utf-8"))


@jax.custom_vjp
def with_fault(params, fault):
    return params


def _backward(fault, d_params):
    d_kernel = d_params.kernel_hh.at[0, 0].add(fault)
    return d_params._replace(kernel_hh=d_kernel), jnp.zeros_like(fault)


with_fault.defvjp(lambda params, fault: (params, fault), _backward)


@cache
def make(dtype: str, guarded: bool):
    """Return a step of an LSTM with two units, and its optimizer."""

    def loss(params, carry, batch, key):
        params = with_fault(params, batch["gradient"])
        outputs, carry = lo.lstm_sequence(params, batch["x"], carry, dtype=DTYPES[dtype])
        value = jnp.mean(jnp.square(outputs.astype(jnp.float32) - 1)) + batch["loss"]
        return value, carry._replace(c=carry.c.at[0, 0].add(batch["carry"]))

    optimizer = optax.chain(lo.clip_by_global_norm(1.0), lo.sgd(0.01))
    if guarded:
        optimizer = lo.guard(optimizer, max_consecutive_errors=GIVES_UP)
    optimizer = lo.loss_scaling(optimizer) if dtype == "float16" else optimizer
    return lo.make_step(loss, optimizer), optimizer


def outcome(cell: Cell) -> str:
    """Return in words what happens to a run with one bad value."""
    step, optimizer = make(cell.dtype, cell.guarded)
    rng, value = np.random.default_rng(0), VALUES[cell.value]
    shapes = lo.LSTMParams((1, 8), (2, 8), (8,))
    params = lo.LSTMParams(*(np.float32(rng.normal(size=shape)) for shape in shapes))
    carry = lo.LSTMState(jnp.zeros((2, 2)), jnp.zeros((2, 2)))

    def batches(position):
        x = np.random.default_rng(position).normal(size=(2, 2, 1)).astype(np.float32)
        faults = dict.fromkeys(("gradient", "loss", "carry"), np.float32(0))
        if position == BAD_STEP - 1 and cell.place in faults:
            faults |= {cell.place: np.float32(value)}
        if position == BAD_STEP - 1 and cell.place == "data":
            x[0, 0, 0] = value
        return {"x": x} | faults

    def spoil(history, state):
        if cell.place == "parameters" and int(state.step) == BAD_STEP - 1:
            kernel = state.params.kernel_hh.at[0, 0].set(value)
            return state._replace(params=state.params._replace(kernel_hh=kernel))

    state = lo.init_state(params, optimizer, carry, jax.random.key(0))
    try:
        end = lo.fit(step, state, batches, steps=STEPS, eval_every=2, on_record=spoil)
    except lo.NonFiniteError as error:
        return in_words(error.state, error.step)
    return in_words(end.state, int(end.state.step) if end.reason == "gave_up" else None, end)


def in_words(state, stopped: int | None, end=None) -> str:
    """Return the outcome in the words of the table."""
    history = end.history if end else []
    skipped, resets = (sum(r[name] for r in history) for name in ("skipped", "carry_resets"))
    halved = sum(int(s.skipped) for s in lo.find_states(state, lo.transforms.LossScalingState))
    halves = f"halves the scale {halved} times, then "
    if end and end.reason == "gave_up":
        assert stopped == BAD_STEP + halved + GIVES_UP - 1
        return f"{halves if halved else ''}skips until the guard gives up"
    if stopped is not None:
        late = stopped - BAD_STEP - halved
        return f"{halves if halved else ''}stops{' at the next step' * late}"
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state.params))
    assert np.isfinite(end.history[-1]["train_loss"])
    assert (skipped + halved, resets) in {(1, 0), (0, 1)}
    if resets:
        return "zeroes the row, and continues"
    return f"skips the step{' and halves the scale' * halved}, and continues"


PLAIN = [cell for cell in CELLS if cell.dtype == "float32"]


@pytest.mark.parametrize("cell", plain_for(CELLS, PLAIN), ids=str)
def test_cell_is_what_happens(cell):
    assert outcome(cell) == cell.answer


def test_table_has_every_cell():
    places = ("gradient", "loss", "data", "carry", "parameters")
    expected = {
        (place, value, dtype, guarded)
        for place in places
        for value in VALUES
        for dtype in DTYPES
        for guarded in (False, True)
    }
    assert {cell[:4] for cell in CELLS} == expected and len(CELLS) == len(expected)
