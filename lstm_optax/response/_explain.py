"""`explain`: measure a transformation from outside."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lstm_optax.response.notes import first_line, notes_on
from lstm_optax.response.probing import Probe, Run
from lstm_optax.response.reading import near, over, read_rate, read_scale, read_spike
from lstm_optax.response.responses import RateResponse, Response, ScaleResponse, SpikeResponse
from lstm_optax.response.shapes import dtype_responses, state_bytes

Factory = Callable[[Any], optax.GradientTransformation]

LATE = 10_000  # the step before which a run is taken to have settled
SPIKE = 1000.0
RATE_STEPS = 2000  # watched after a cut of the rate
SIZES = 10.0 ** np.linspace(-12, 12, 49)


def explain(
    tx_or_factory: optax.GradientTransformation | Factory,
    *,
    learning_rate: float | None = None,
    name: str | None = None,
) -> Response:
    """Measure what a transformation does, from outside, as one would measure a filter.

        steps under a constant gradient, an impulse, a spike; under a cut of the learning rate;
        the first step against the size of the gradient; bytes and dtypes of the state

    Measured on a parameter of shape [1, 1], float32, that stays at 0: its entry, its RMS and its
    norm are the same number, 1 for the usual gradient. A rule that needs an LSTM in the parameters
    is measured at one entry of an LSTM of one unit, and a note says so. Nothing is claimed about
    the structure: a rate that acts at once need not stand outside a velocity.

    Args:
      tx_or_factory: a transformation, or a function that makes one of a learning rate, which is
        a number or a schedule. What a change of the rate does is measured with a function, or with
        a transformation whose state has a `learning_rate` by `optax.inject_hyperparams`.
      learning_rate: above 0, the number that the function is called with (default 1e-3) and the
        unit of the steps. For a transformation, the rate that it was made with; without it steps
        are as they come.
      name: what it is called in tables and pictures; by default the function's name.

    Returns:
      Numbers, arrays, and notes on what is easily missed, such as that clipping the steps comes
      too late.

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
                f"expected a transformation, or a function that makes one of a learning rate, but "
                f"got {tx_or_factory!r}"
            )
        factory = tx_or_factory
        learning_rate = 1e-3 if learning_rate is None else learning_rate
    name = name or str(getattr(factory, "__name__", "transformation"))
    probe, early = _first_run(tx_or_factory, factory, learning_rate, name)
    late = probe.run(early.state, np.ones(LATE))
    rate, why_not = _rate(probe, early.state, late.steps, factory)
    steady = late.steps[-1]
    measured = Response(
        name=name,
        learning_rate=learning_rate,
        constant=np.concatenate([early.steps, late.steps]),
        impulse=probe.run(probe.start, np.eye(1, 100)[0]).steps,
        steady_gain=float(steady),
        settled=near(late.steps, steady, 0.01),
        rate=rate,
        spike=_spike(probe, early, late, SPIKE),
        counter_spike=_spike(probe, early, late, -SPIKE),
        scale=_scale(probe),
        at_one=_first_at_one(probe, 1.0),
        pull=_first_at_one(probe, 0.0),
        state_bytes=state_bytes(probe.tx, probe.specimen),
        dtypes=dtype_responses(probe.tx, probe.specimen),
        notes=(),
    )
    return replace(measured, notes=notes_on(measured, why_not, probe.specimen.note))


def _first_run(
    tx: Any, factory: Factory | None, learning_rate: float | None, name: str
) -> tuple[Probe, Run]:
    """Build the transformation and run it under a gradient of 1: what cannot be is said here."""
    tried = "init(params) and update(gradient, state, params) under jax.jit and lax.scan"
    try:
        if factory:
            tx = factory(learning_rate)
        probe = Probe(tx, learning_rate or 1.0)
        return probe, probe.run(probe.start, np.ones(LATE))
    except Exception as error:  # whatever a rule may raise
        call = f"{name}({learning_rate:g}), then " if factory else ""
        raise ValueError(
            f"{name} cannot be measured: {type(error).__name__}: {first_line(error)} "
            f"(tried {call}{tried}, with a parameter of shape [1, 1] or an LSTM of one "
            "unit); give a transformation that needs nothing else, or a function that makes one of "
            "a learning rate"
        ) from error


def _first_at_one(probe: Probe, gradient: float) -> float:
    """The first step of a parameter at 1."""
    return float(probe.run(probe.start_at(1.0), np.array([gradient]), parameter=1.0).steps[0])


def _spike(probe: Probe, early: Run, late: Run, size: float) -> SpikeResponse:
    gradients = np.ones(LATE)
    gradients[0] = size
    run = probe.run(early.state, gradients)
    larger = probe.run(early.state, np.array([1000 * size]))
    relative, at_larger = (over(r.steps, late.steps[: len(r.steps)]) for r in (run, larger))
    return read_spike(relative, float(at_larger[0]), early.sizes[-1], run.sizes[0])


def _scale(probe: Probe) -> ScaleResponse:
    firsts = [probe.run(probe.start, np.array([size])).steps[0] for size in SIZES]
    return read_scale(SIZES, np.array(firsts))


def _rate(
    probe: Probe,
    state: optax.OptState,
    usual: np.ndarray,
    factory: Factory | None,
) -> tuple[RateResponse | None, str]:
    """Cut the rate to a tenth after the settled `state`; None, and why, if that cannot be."""
    if factory:

        def schedule(count):
            return probe.unit * jnp.where(count < LATE, 1.0, 0.1)

        try:
            cut = Probe(factory(schedule), probe.unit)
            steps = cut.run(cut.start, np.ones(LATE + RATE_STEPS)).steps[LATE:]
        except Exception as error:  # a factory that takes numbers only may refuse in any way
            said = f"{type(error).__name__}: {first_line(error)}"
            return None, f"the function takes no schedule ({said})"
    else:
        after, found = _cut_injected(state)
        if not found:
            return None, (
                "its state has no learning_rate by optax.inject_hyperparams that could be changed; "
                "give a function that makes it of a learning rate"
            )
        steps = probe.run(after, np.ones(RATE_STEPS)).steps
    return read_rate(over(steps, usual[:RATE_STEPS])), ""


def _cut_injected(state: optax.OptState) -> tuple[optax.OptState, bool]:
    """The state with each injected learning rate at a tenth, and whether there is any."""
    found = False

    def cut(node):
        nonlocal found
        rates = {"learning_rate", "lr"} & set(getattr(node, "hyperparams", ()))
        rates -= set(getattr(node, "hyperparams_states", ()))  # schedules set these anew
        if not rates:
            return node
        found = True
        tenth = {name: 0.1 * node.hyperparams[name] for name in rates}
        return node._replace(hyperparams={**node.hyperparams, **tenth})

    after = jax.tree.map(cut, state, is_leaf=lambda node: hasattr(node, "hyperparams"))
    return after, found
