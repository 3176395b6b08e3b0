"""Each preset of an installed source equals it over 1,000 steps."""

import importlib
import inspect
import os
import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from live import PATHS, keras_path, keras_path_of_apply, torch_path
from preset_cases import CASES, Case, distance, ours, problem

import lstm_optax as lo

pytestmark = pytest.mark.slow

STEPS = 1000
FLOAT32 = 1e-4  # of the largest move of an entry: rounding of parameters that wander


def need(source: str) -> None:
    """Skip where the source is not installed."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module(source)
        except ImportError:
            pytest.skip(f"{source} is not installed: pip install 'lstm_optax[parity]'")


live = pytest.mark.parametrize("case", [c for c in CASES if c.source in PATHS], ids=str)


@live
def test_equals_source_in_double_precision(case, x64):
    need(case.source)
    at = problem(STEPS)
    error = distance(ours(case, at), PATHS[case.source](case, at))
    print(f"{case}: {error:.1e}")
    assert error < 1e-12


@live
def test_equals_source_in_single_precision(case):
    need(case.source)
    at = problem(STEPS).cast(np.float32)
    error = distance(ours(case, at), PATHS[case.source](case, at))
    print(f"{case}: {error:.1e} in float32")
    assert error < FLOAT32


@pytest.mark.parametrize("t0", [10.0, 1e6])
def test_average_of_asgd(t0, x64):
    need("torch")
    case = Case("torch", "ASGD", (("lambd", 0.1), ("t0", t0)))
    mine, theirs, at = [], [], problem(STEPS)
    last = [leaf[-1] for leaf in ours(case, at, mine)]
    torch_path(case, at, theirs)
    average = lo.eval_params(mine[0], last)
    expected = [state["ax"].numpy() for state in theirs]
    for a, b in zip(average, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_average_of_awd_sgd_equals_asgd(x64):
    """From the trigger on they train by a new `torch.optim.ASGD`, with t₀ = λ = 0."""
    need("torch")
    at, theirs = problem(STEPS), []
    at = replace(at, rates=np.full(STEPS, 0.1))
    path = torch_path(Case("torch", "ASGD", (("lambd", 0.0), ("t0", 0))), at, theirs)
    tx = lo.awd_sgd(0.1, clip=np.inf, weight_decay=0.0, nonmonotone=1)
    params = [jnp.asarray(p) for p in at.params]
    state = tx.init(params)
    for loss in (1.0, 2.0, 3.0):
        state = lo.report_validation_loss(state, loss)

    def body(loop, gradient):
        updates, state = tx.update(gradient, loop[1], loop[0])
        return (optax.apply_updates(loop[0], updates), state), None

    (params, state), _ = jax.lax.scan(body, (params, state), [jnp.asarray(g) for g in at.gradients])
    for p, q in zip(params, path, strict=True):
        np.testing.assert_allclose(p, q[-1], rtol=1e-12)
    for a, b in zip(lo.eval_params(state, params), theirs, strict=True):
        np.testing.assert_allclose(a, b["ax"].numpy(), rtol=1e-12)


def test_average_of_keras(x64):
    need("keras")
    options = (("use_ema", True), ("ema_momentum", 0.9))
    case = Case("keras", "Adam", options)
    mine, theirs, at = [], [], problem(STEPS)
    last = [leaf[-1] for leaf in ours(case, at, mine)]
    keras_path(case, at, theirs)
    average = lo.eval_params(mine[0], last)
    expected = [np.asarray(value) for path, value in theirs[0].items() if "average" in path]
    assert len(expected) == len(average)
    for a, b in zip(average, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Nadam", "Adam"])
def test_keras_compiled_equals_eager(name, x64):
    need("keras")
    case, at = Case("keras", name, (("weight_decay", 0.1),)), problem(20)
    assert distance(keras_path(case, at), keras_path_of_apply(case, at)) < 1e-13


LEFT_OUT = {"self", "params", "name", "kwargs", "gradient_accumulation_steps"} | {
    "foreach",
    "fused",
    "capturable",
    "differentiable",
}


@pytest.mark.parametrize(
    "source, name", sorted({(c.source, c.name) for c in CASES if c.source in PATHS})
)
def test_signature_equals_the_source(source, name):
    need(source)
    module = importlib.import_module({"torch": "torch.optim", "keras": "keras.optimizers"}[source])
    theirs = inspect.signature(getattr(module, name).__init__).parameters
    mine = inspect.signature(getattr(importlib.import_module(f"lstm_optax.presets.{source}"), name))
    expected = [(n, p.default) for n, p in theirs.items() if n not in LEFT_OUT]
    assert [(n, p.default) for n, p in mine.parameters.items()] == expected
