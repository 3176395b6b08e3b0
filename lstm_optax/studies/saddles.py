"""How soon an optimizer leaves a saddle, for starts at several distances from its stable line."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from lstm_optax.checks import FACTOR, SIZE, Range, check_integer
from lstm_optax.records import Record, markdown_table
from lstm_optax.studies.study_records import StudyError
from lstm_optax.tasks.surfaces import Surface, find_surface
from lstm_optax.training import TrainState, init_state, make_step

Factory = Callable[[Any], optax.GradientTransformation]
"""A function from a learning rate, a number or a traced scalar, to an optimizer."""

DELTAS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
_SHARE, _SIGNED = Range(0, 1, closed=True), Range(-1, 1, closed=True)


def escape_steps(
    optimizer: Factory,
    *,
    learning_rate: float,
    deltas: Sequence[float] = DELTAS,
    surface: str = "saddle",
    distance: float = 0.5,
    noise: float = 0.0,
    seed: int = 0,
    max_steps: int = 10_000,
) -> list[int | None]:
    """Return the number of steps after which the saddle is left, for each displacement.

    The point starts at (distance, δ): on the stable line of the saddle, and δ off it. The saddle is
    left once the value is at most −1; such a point is at least 1 away from the saddle. One program
    runs all displacements.

    Args:
      optimizer: learning rate → optimizer, such as `nadam`.
      learning_rate: η ≥ 0.
      deltas: displacements δ, each in [−1, 1]. A displacement of 0 is left with noise only.
      surface: "saddle" for x² − y², or "monkey_saddle"; see `tasks.surface`.
      distance: in [0, 1], from the saddle along its stable line.
      noise: ≥ 0, standard deviation of the normal noise of each partial derivative.
      seed: of the noise.
      max_steps: limit of the number of steps.

    Returns:
      A number for each displacement; None where the saddle was not left within `max_steps`, or the
      point was not finite.

    Raises:
      StudyError: no displacement, or a surface without a saddle.
      ValueError: a number out of range, or an unknown surface.
    """
    SIZE.check(learning_rate=learning_rate)
    trials = [(delta, noise, seed) for delta in deltas]
    return _run_trials(optimizer, learning_rate, trials, surface, distance, max_steps)


def saddle_table(
    optimizers: Mapping[str, Factory],
    *,
    learning_rate: float,
    deltas: Sequence[float] = (*DELTAS, 0.0),
    noise: float = 0.01,
    seeds: Sequence[int] = range(5),
    surface: str = "saddle",
    distance: float = 0.5,
    max_steps: int = 10_000,
) -> list[Record]:
    """Return a record of each optimizer and displacement, without noise and with it.

    All optimizers have the same learning rate, since the theory is a function of it; this is not a
    comparison of tuned optimizers.

    Args:
      optimizers: factories by name, as for `escape_steps`.
      learning_rate: η ≥ 0.
      deltas: as for `escape_steps`.
      noise: > 0, of the trials with noise.
      seeds: of the noise, at least one.
      surface: as for `escape_steps`.
      distance: as for `escape_steps`.
      max_steps: as for `escape_steps`.

    Returns:
      Records with "optimizer", "delta", "noise" (0 or `noise`) and "steps", a list with an entry
      for each seed. Without noise it has one entry. None is as for `escape_steps`.

    Raises:
      StudyError: no displacement, no seed, or a surface without a saddle.
      ValueError: a number out of range, or an unknown surface.
    """
    SIZE.check(learning_rate=learning_rate)
    FACTOR.check(noise=noise)
    if not seeds:
        raise StudyError("seeds is empty: name at least one seed")
    cells = [(delta, size) for size in (0.0, noise) for delta in deltas]
    trials = [(*cell, seed) for cell, seed in product(cells, seeds)]
    records = []
    for name, make in optimizers.items():
        steps = _run_trials(make, learning_rate, trials, surface, distance, max_steps)
        for index, (delta, size) in enumerate(cells):
            found = steps[index * len(seeds) : (index + 1) * len(seeds)]
            record = {"optimizer": name, "delta": delta, "noise": size}
            records.append(record | {"steps": found if size else found[:1]})
    return records


def saddle_markdown(records: Sequence[Record]) -> str:
    """Return the records of `saddle_table` as a Markdown table, the median over seeds in a cell.

    The value for a displacement of 0 is shown for the trials with noise only. A dash is shown where
    half of the trials or more did not leave.
    """
    cells = {(r["optimizer"], r["delta"], r["noise"]): r["steps"] for r in records}
    names = list(dict.fromkeys(r["optimizer"] for r in records))
    columns = [c for c in dict.fromkeys((r["delta"], r["noise"]) for r in records) if any(c)]
    header = ["optimizer"] + [f"{d:g}{', noise' if noise else ''}" for d, noise in columns]
    rows = [
        [name] + [_median_text(cells[name, delta, noise]) for delta, noise in columns]
        for name in names
    ]
    return markdown_table(header, rows, align_right=True)


def descent_path(
    optimizer: Factory,
    *,
    learning_rate: float,
    start: Sequence[float],
    steps: int,
    surface: str = "saddle",
    noise: float = 0.0,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Return the points of a descent on a surface, of shape [steps + 1, 2].

    Args:
      optimizer: as for `escape_steps`.
      learning_rate: η ≥ 0.
      start: the first point (x, y).
      steps: number of steps, at least 1.
      surface: a name as for `tasks.surface`.
      noise: as for `escape_steps`.
      seed: of the noise.

    Raises:
      ValueError: a number out of range, or an unknown surface.
    """
    SIZE.check(learning_rate=learning_rate, noise=noise)
    check_integer("steps", steps)
    step, state = _start(optimizer, find_surface(surface), jnp.asarray(start, float), learning_rate)
    key = jax.random.key(seed)

    def body(state: TrainState, _: None) -> tuple[TrainState, jax.Array]:
        state = step(state, _draw(noise, key, state.step))
        return state, state.params

    _, points = jax.jit(lambda state: jax.lax.scan(body, state, length=steps))(state)
    return np.concatenate([state.params[None], points])


def _run_trials(
    make: Factory,
    learning_rate: float,
    trials: Sequence[tuple[float, float, int]],
    surface: str,
    distance: float,
    max_steps: int,
) -> list[int | None]:
    """Return the steps of the trials (δ, noise, seed), all in one program."""
    if not trials:
        raise StudyError("deltas is empty: name at least one displacement")
    shape = find_surface(surface)
    if shape.start is not None:
        raise StudyError(f"{surface!r} has no saddle: name 'saddle' or 'monkey_saddle'")
    _SHARE.check(distance=distance)
    check_integer("max_steps", max_steps)
    for delta, noise, _ in trials:
        _SIGNED.check(deltas=delta)
        SIZE.check(noise=noise)
    deltas, noises, seeds = zip(*trials, strict=True)
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    leave = partial(_leave, make, shape, rate=learning_rate, limit=max_steps)
    starts = jnp.stack([jnp.full(len(deltas), distance), jnp.asarray(deltas)], axis=1)
    steps = jax.jit(jax.vmap(leave))(starts, jnp.asarray(noises), keys)
    return [int(count) if count >= 0 else None for count in steps]


def _leave(
    make: Factory,
    shape: Surface,
    start: jax.Array,
    noise: jax.Array,
    key: jax.Array,
    *,
    rate: float,
    limit: int,
) -> jax.Array:
    """Return the number of steps until the saddle is left, −1 if it is not left."""
    step, state = _start(make, shape, start, rate)

    def stays(state: TrainState) -> jax.Array:
        value = shape.value(state.params)
        return (state.step < limit) & (value > shape.target)  # NaN ends the loop too

    last = jax.lax.while_loop(stays, lambda s: step(s, _draw(noise, key, s.step)), state)
    return jnp.where(shape.value(last.params) <= shape.target, last.step, -1)


def _start(
    make: Factory, shape: Surface, start: jax.Array, rate: float
) -> tuple[Callable[[TrainState, Any], TrainState], TrainState]:
    optimizer = make(rate)
    step = make_step(shape.loss, optimizer)
    state = init_state(start, optimizer, (), jax.random.key(0))
    return lambda state, noise: step(state, noise)[0], state


def _draw(noise: Any, key: jax.Array, step: jax.Array) -> jax.Array:
    return noise * jax.random.normal(jax.random.fold_in(key, step), (2,))


def _median_text(steps: Sequence[int | None]) -> str:
    """Return the median, in which a trial that did not leave counts as infinite."""
    middle = median(float("inf") if count is None else count for count in steps)
    return "–" if middle == float("inf") else f"{middle:,.0f}"
