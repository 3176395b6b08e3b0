"""`explain`: measure a transformation from outside; the package docstring explains the terms."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lstm_optax.response.analysis import (
    all_near,
    analyse_rate,
    analyse_scale,
    analyse_spike,
    relative_steps,
)
from lstm_optax.response.bytes_and_dtypes import dtype_responses, state_bytes
from lstm_optax.response.notes import make_notes
from lstm_optax.response.responses import RateResponse, Response, ScaleResponse, SpikeResponse
from lstm_optax.response.runner import OptimizerRunner, RunResult

Factory = Callable[[Any], optax.GradientTransformation]

SETTLING_STEPS = 10_000  # after which a run counts as settled
SPIKE = 1000.0
RATE_STEPS = 2000  # steps measured after a cut of the rate
GRADIENT_SIZES = 10.0 ** np.linspace(-12, 12, 49)


def explain(
    tx_or_factory: optax.GradientTransformation | Factory,
    *,
    learning_rate: float | None = None,
    name: str | None = None,
) -> Response:
    """Measure the responses of a transformation from outside, as for a filter.

        steps under a constant gradient, an impulse, a spike; under a cut of the learning rate;
        the first step against the size of the gradient; bytes and dtypes of the state

    The parameter has shape [1, 1] and dtype float32, and stays at 0: its entry, its RMS and its
    norm are the same number, 1 for the usual gradient. A rule that needs an LSTM in the parameters
    is measured at one entry of an LSTM of one unit, and a note says so. The responses do not prove
    a structure: a rate that acts at once may still be applied inside a velocity.

    Args:
      tx_or_factory: a transformation, or a function that makes one from a learning rate, which is a
        number or a schedule. A cut of the learning rate is measured only for a function, or for a
        transformation whose state has a `learning_rate` from `optax.inject_hyperparams`.
      learning_rate: above 0; the argument of the function (default 1e-3) and the unit of the steps.
        For a transformation, the rate that it was made with; if it is not given, steps are not
        scaled.
      name: the name in tables and pictures; by default the function's name.

    Returns:
      Numbers, arrays, and notes on findings that are easily missed, such as that clipping the steps
      comes too late.

    Raises:
      ValueError: the transformation cannot be built or run, for instance because its `update` needs
        more than gradient, state and parameters.
    """
    if learning_rate is not None and not 0 < learning_rate < np.inf:
        raise ValueError(f"learning_rate is {learning_rate}, but must be above 0 and finite")
    factory = None
    if not hasattr(tx_or_factory, "update"):
        if not callable(tx_or_factory):
            raise ValueError(
                f"expected a transformation, or a function that makes one from a learning rate, "
                f"but got {tx_or_factory!r}"
            )
        factory = tx_or_factory
        learning_rate = 1e-3 if learning_rate is None else learning_rate
    name = name or str(getattr(factory, "__name__", "transformation"))
    runner, early = _measure_first_run(tx_or_factory, factory, learning_rate, name)
    late = runner.run(early.state, np.ones(SETTLING_STEPS))
    rate, why_not = _measure_rate(runner, early.state, late.steps, factory)
    steady = late.steps[-1]
    measured = Response(
        name=name,
        learning_rate=learning_rate,
        constant=np.concatenate([early.steps, late.steps]),
        impulse=runner.run(runner.initial_state, np.eye(1, 100)[0]).steps,
        steady_gain=float(steady),
        settled=all_near(late.steps, steady, 0.01),
        rate=rate,
        spike=_measure_spike(runner, early, late, SPIKE),
        counter_spike=_measure_spike(runner, early, late, -SPIKE),
        scale=_measure_scale(runner),
        at_one=_first_step_at_one(runner, 1.0),
        pull=_first_step_at_one(runner, 0.0),
        state_bytes=state_bytes(runner.tx, runner.params),
        dtypes=dtype_responses(runner.tx, runner.params),
        notes=(),
    )
    return replace(measured, notes=make_notes(measured, why_not, runner.params.note))


def _measure_first_run(
    tx: Any, factory: Factory | None, learning_rate: float | None, name: str
) -> tuple[OptimizerRunner, RunResult]:
    """Build the transformation and run it under a gradient of 1.

    Raises:
      ValueError: it cannot be built or run.
    """
    tried = "init(params) and update(gradient, state, params) under jax.jit and lax.scan"
    try:
        if factory:
            tx = factory(learning_rate)
        runner = OptimizerRunner(tx, learning_rate or 1.0)
        return runner, runner.run(runner.initial_state, np.ones(SETTLING_STEPS))
    except Exception as error:  # a rule may raise anything
        call = f"{name}({learning_rate:g}), then " if factory else ""
        raise ValueError(
            f"{name} cannot be measured: {type(error).__name__}: {_first_line(error)} "
            f"(tried {call}{tried}, with a parameter of shape [1, 1] or an LSTM of one "
            "unit); pass a transformation that needs no other arguments, or a function that makes "
            "one from a learning rate"
        ) from error


def _first_step_at_one(runner: OptimizerRunner, gradient: float) -> float:
    """Return the first step of a parameter at 1."""
    return float(runner.run(runner.init(1.0), np.array([gradient]), parameter=1.0).steps[0])


def _measure_spike(
    runner: OptimizerRunner, early: RunResult, late: RunResult, size: float
) -> SpikeResponse:
    gradients = np.ones(SETTLING_STEPS)
    gradients[0] = size
    run = runner.run(early.state, gradients)
    larger = runner.run(early.state, np.array([1000 * size]))
    relative, at_larger = (
        relative_steps(r.steps, late.steps[: len(r.steps)]) for r in (run, larger)
    )
    return analyse_spike(relative, float(at_larger[0]), early.sizes[-1], run.sizes[0])


def _measure_scale(runner: OptimizerRunner) -> ScaleResponse:
    firsts = [
        runner.run(runner.initial_state, np.array([size])).steps[0] for size in GRADIENT_SIZES
    ]
    return analyse_scale(GRADIENT_SIZES, np.array(firsts))


def _measure_rate(
    runner: OptimizerRunner,
    state: optax.OptState,
    usual: np.ndarray,
    factory: Factory | None,
) -> tuple[RateResponse | None, str]:
    """Cut the rate to a tenth after the settled `state`; return None and why if that fails."""
    if factory:

        def schedule(count):
            return runner.unit * jnp.where(count < SETTLING_STEPS, 1.0, 0.1)

        try:
            cut = OptimizerRunner(factory(schedule), runner.unit)
            run = cut.run(cut.initial_state, np.ones(SETTLING_STEPS + RATE_STEPS))
            steps = run.steps[SETTLING_STEPS:]
        except Exception as error:  # a factory that only takes numbers may raise anything
            text = f"{type(error).__name__}: {_first_line(error)}"
            return None, f"the function does not accept a schedule ({text})"
    else:
        after, found = _cut_injected(state)
        if not found:
            return None, (
                "the state has no constant learning_rate from optax.inject_hyperparams; pass a "
                "function that makes the transformation from a learning rate"
            )
        steps = runner.run(after, np.ones(RATE_STEPS)).steps
    return analyse_rate(relative_steps(steps, usual[:RATE_STEPS])), ""


def _cut_injected(state: optax.OptState) -> tuple[optax.OptState, bool]:
    """Return the state with all injected learning rates cut to a tenth, and whether it has any."""
    found = False

    def cut(node):
        nonlocal found
        rates = {"learning_rate", "lr"} & set(getattr(node, "hyperparams", ()))
        rates -= set(getattr(node, "hyperparams_states", ()))  # a schedule would overwrite these
        if not rates:
            return node
        found = True
        tenth = {name: 0.1 * node.hyperparams[name] for name in rates}
        return node._replace(hyperparams={**node.hyperparams, **tenth})

    after = jax.tree.map(cut, state, is_leaf=lambda node: hasattr(node, "hyperparams"))
    return after, found


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
