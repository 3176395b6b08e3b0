"""Every preset is in the table, and its docstring says what the preset does."""

import inspect
import re
from importlib import import_module

import jax.numpy as jnp
import numpy as np
import pytest
from presets_table import PRESETS
from rows import Row

from lstm_optax import presets

NOT_SOURCES = {"links"}
NOT_RULES = {"sutskever.eval_params", "sutskever.momentum_schedule"}
EPSILONS = {"eps", "epsilon", "eps_root"}
RATES, MOMENTA = {"learning_rate", "lr"}, {"momentum", "mu_max"}
WITH_EPSILON = [(name, n) for name, row in PRESETS.items() for n in row.numbers if n in EPSILONS]
WITH_VELOCITY = [
    name for name, row in PRESETS.items() if all(row.numbers.keys() & s for s in (RATES, MOMENTA))
]
SIDE = "(inside|outside)"


def docstring(name: str) -> str:
    """Return the docstring of a preset in one line; the name of a row may add a variant."""
    source, _, rule = name.split(",")[0].partition(".")
    doc = inspect.getdoc(getattr(import_module(f"lstm_optax.presets.{source}"), rule))
    return " ".join((doc or "").split())


def said_in(text: str, pattern: str) -> str:
    """Return `inside` or `outside` from the first sentence that matches the pattern."""
    found = re.search(pattern, text)
    assert found, f"no sentence says {pattern}"
    return found[1]


def first_steps(row: Row, **numbers) -> list[float]:
    """Return the first two updates of a parameter that is 0, for a gradient of 1."""
    tx, params = row.build(**numbers), jnp.zeros([])
    state, steps = tx.init(params), []
    for _ in range(2):
        update, state = tx.update(jnp.ones([]), state, params)
        steps.append(float(update))
    return steps


def test_table_holds_every_preset():
    rules = {
        f"{source}.{rule}"
        for source in set(presets.__all__) - NOT_SOURCES
        for rule in import_module(f"lstm_optax.presets.{source}").__all__
    }
    assert {name.split(",")[0] for name in PRESETS} == rules - NOT_RULES


def test_docstrings_have_references():
    assert not [name for name in PRESETS if "Reference:" not in docstring(name)]


@pytest.mark.parametrize("name, epsilon", WITH_EPSILON)
def test_docstring_places_epsilon(name, epsilon, x64):
    """With ε far above the gradient, a step is 1/ε outside the square root, 1/√ε inside."""
    steps = [first_steps(PRESETS[name], **{epsilon: eps})[0] for eps in (1e12, 4e12)]
    side = {4.0: "outside", 2.0: "inside"}[float(np.round(steps[0] / steps[1], 4))]
    symbol = "ε_root" if epsilon == "eps_root" else "ε(?!_)"
    pattern = rf"{symbol}[^.;]*? {SIDE}(?: it| the (?:square )?root|,)"
    assert said_in(docstring(name), pattern) == side


@pytest.mark.parametrize("name", WITH_VELOCITY)
def test_docstring_places_the_rate(name, x64):
    """A rate that falls to 0 stops the parameter at once outside the velocity, not inside."""
    row = PRESETS[name]
    (rate,) = row.numbers.keys() & RATES
    first, second = first_steps(row, **{rate: lambda count: jnp.where(count < 1, 0.1, 0.0)})
    assert first
    side = "inside" if second else "outside"
    assert said_in(docstring(name), rf"(?:rate|η)[^.;]*? {SIDE} the velocity") == side
