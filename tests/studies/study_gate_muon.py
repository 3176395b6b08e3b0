"""Per-gate Muon against whole kernels and other optimizers: one comparison per task and size.

    python tests/studies/study_gate_muon.py [CELL …] [--out docs/records]

Each cell, such as `characters_32`, is a comparison in the folder gate_muon_CELL, which continues
where it stopped; without names all run. In `characters_32_seconds` Nadam and Adam have the number
of steps in which Nadam takes the seconds of `gate_muon`, by the records of `measure_gate_muon.py`.
In `characters_32_fine` the rates of `gate_muon` and of Muon on whole kernels are closer together.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from lstm_optax import adam, by_gate, clip_by_global_norm, gate_muon, momentum_sgd, nadam
from lstm_optax.gates import GATES
from lstm_optax.names import ADAM_RATES, SLOW_RATES
from lstm_optax.optimizers import rmsprop_momentum
from lstm_optax.optimizers.classic import nadam_direction
from lstm_optax.records import Record, read_records
from lstm_optax.runs.build import named_schedule
from lstm_optax.studies import compare
from lstm_optax.tasks import Task, characters, digits, sequences
from lstm_optax.transforms.muon import muon_direction

RMS, MOMENTUM = 0.2, 0.95
"""Defaults of `gate_muon`."""

NADAM = dict(b1=0.9, b2=0.999, eps=1e-8)
CLIP, SEEDS, TUNING_SEEDS = 1.0, 5, 2

MOMENTUM_RATES = (0.03, 0.1, 0.3, 1.0, 3.0)

TASKS: dict[str, Callable[[int], Task]] = {
    "characters": lambda hidden: characters(hidden=hidden, steps=300, eval_every=50),
    "digits": lambda hidden: digits(hidden=hidden, steps=400, eval_every=50),
    "adding": lambda hidden: sequences(length=30, hidden=hidden, steps=400, eval_every=50),
}
SIZES = 32, 128
CELLS = tuple(f"{task}_{hidden}" for task in TASKS for hidden in SIZES)

OURS, BASE = "gate_muon", "nadam"
SECONDS, FINE = "_seconds", "_fine"
"""Ends of the names of cells at equal seconds, and with a finer grid."""
IN_SECONDS, IN_FINE = (BASE, "adam"), (OURS, "muon")
FINE_RATES = (0.0125, 0.02, 0.03, 0.045, 0.07)
MORE_CELLS = (
    *(f"{cell}{SECONDS}" for cell in CELLS),
    *(f"characters_{hidden}{FINE}" for hidden in SIZES),
)
TIMES = Path(__file__).parents[2] / "docs/records/gate_muon_steps.jsonl"

Rule = Callable[[Any], optax.GradientTransformation]
"""A schedule of the learning rate → optimizer."""


class JordanState(NamedTuple):
    """State of `jordan_momentum`."""

    mu: Any


def jordan_momentum(b: float) -> optax.GradientTransformation:
    """Return the look-ahead of Jordan's code, which corrects no bias: m ← b m + (1−b) g.

    returns (1−b) g + b m
    """

    def init(params):
        return JordanState(jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None):
        del params
        mu = jax.tree.map(lambda m, g: b * m + (1 - b) * g, state.mu, updates)
        return jax.tree.map(lambda m, g: (1 - b) * g + b * m, mu, updates), JordanState(mu)

    return optax.GradientTransformation(init, update)


def muon_on(*keys: Any, jordan: bool = False) -> Rule:
    """Return `gate_muon` on some blocks only, named as in `by_gate`; the others have Nadam."""
    inner = muon_direction(MOMENTUM, RMS)
    if jordan:
        inner = optax.chain(jordan_momentum(MOMENTUM), muon_direction(0.0, RMS))
    return lambda rate: optax.chain(
        by_gate(dict.fromkeys(keys, inner), others=nadam_direction(**NADAM)),
        optax.scale_by_learning_rate(rate),
    )


def on_each(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return a transformation for single arrays, such as Optax's Muon, for the leaves of a tree."""

    def init(params):
        return tuple(tx.init(leaf) for leaf in jax.tree.leaves(params))

    def update(updates, state, params=None):
        del params
        leaves, tree = jax.tree.flatten(updates)
        pairs = [tx.update(leaf, of) for leaf, of in zip(leaves, state, strict=True)]
        return tree.unflatten([u for u, _ in pairs]), tuple(new for _, new in pairs)

    return optax.GradientTransformation(init, update)


def whole_muon(rate: Any) -> optax.GradientTransformation:
    """Return Optax's Muon on the whole kernels of the layer, with Nadam for the rest.

    The same directions as in `gate_muon`, so that only the four gates' coupling differs.
    """

    def label(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "muon" if "kernel_" in jax.tree_util.keystr(path) else "others", params
        )

    rules: dict[Any, optax.GradientTransformation] = {
        "muon": on_each(muon_direction(MOMENTUM, RMS)),
        "others": nadam_direction(**NADAM),
    }
    return optax.chain(optax.partition(rules, label), optax.scale_by_learning_rate(rate))


KERNELS = "kernel_ih", "kernel_hh"
RULES: dict[str, tuple[Rule, tuple[float, ...]]] = {
    "gate_muon": (gate_muon, SLOW_RATES),
    "muon": (whole_muon, SLOW_RATES),
    "nadam": (nadam, ADAM_RATES),
    "adam": (adam, ADAM_RATES),
    "rmsprop_momentum": (rmsprop_momentum, SLOW_RATES),
    "momentum_sgd": (momentum_sgd, MOMENTUM_RATES),
    "gate_muon, Jordan's mixing": (muon_on(*KERNELS, jordan=True), SLOW_RATES),
    "gate_muon, input kernels only": (muon_on("kernel_ih"), SLOW_RATES),
    "gate_muon, recurrent kernels only": (muon_on("kernel_hh"), SLOW_RATES),
}
RULES |= {
    f"gate_muon, {gate} gate only": (
        muon_on(*((kernel, gate) for kernel in KERNELS)),
        SLOW_RATES,
    )
    for gate in GATES
}


def make_optimizer(rule: Rule, steps: int, learning_rate: Any) -> optax.GradientTransformation:
    """Return a rule with a clip and a cosine schedule, as `compare` gives them to a name."""
    rate = named_schedule("cosine", learning_rate, steps)
    return optax.chain(clip_by_global_norm(CLIP), rule(rate))


def cell_task(cell: str) -> Task:
    """Return the task of a cell, with its number of units."""
    name, hidden = cell.split("_")[:2]
    return TASKS[name](int(hidden))


def cell_rates(cell: str) -> dict[str, tuple[float, ...]]:
    """Return the learning rates of each contender of a cell."""
    if cell.endswith(FINE):
        return dict.fromkeys(IN_FINE, FINE_RATES)
    names = IN_SECONDS if cell.endswith(SECONDS) else RULES
    return {name: RULES[name][1] for name in names}


def read_times(path: Path = TIMES) -> dict[str, Record]:
    """Return the last record of `measure_gate_muon.py` for each cell, in the order of `CELLS`."""
    found = {record["cell"]: record for record in read_records(path) if record}
    return {cell: found[cell] for cell in CELLS if cell in found}


def time_ratio(found: Record, name: str) -> float:
    """Return the median over the rounds of a step's seconds divided by those of Nadam's step."""
    return float(np.median(np.divide(found["seconds"][name], found["seconds"][BASE])))


def length(cell: str) -> tuple[int, int]:
    """Return the steps of a cell, and those between evaluations.

    At equal seconds both grow by the same factor, rounded to whole steps between evaluations.
    """
    task = cell_task(cell)
    if not cell.endswith(SECONDS):
        return task.steps, task.eval_every
    found = read_times()[cell.removesuffix(SECONDS)]
    eval_every = round(task.eval_every * time_ratio(found, OURS))
    return task.steps // task.eval_every * eval_every, eval_every


def run(cell: str, out: str) -> None:
    """Run what is missing in a cell."""
    (steps, eval_every), grids = length(cell), cell_rates(cell)
    compare(
        cell_task(cell),
        {name: partial(make_optimizer, RULES[name][0], steps) for name in grids},
        grids={name: {"learning_rate": rates} for name, rates in grids.items()},
        steps=steps,
        eval_every=eval_every,
        seeds=SEEDS,
        tuning_seeds=TUNING_SEEDS,
        extensions=3,
        out=f"{out}/gate_muon_{cell}",
        command=f"python tests/studies/study_gate_muon.py {cell}",
        on_evaluation=lambda trial, record: print(trial.name, record["step"], flush=True),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", nargs="*", metavar="CELL", help=", ".join(CELLS + MORE_CELLS))
    parser.add_argument("--out", default="docs/records")
    given = parser.parse_args()
    for cell in given.cells or (*CELLS, *MORE_CELLS):
        run(cell, given.out)
