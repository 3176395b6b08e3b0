"""How soon an optimizer leaves a saddle, for starts at several distances from its stable line."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from statistics import median

import jax
import jax.numpy as jnp

from lstm_optax.checks import FACTOR, SIZE, Range, check_callable, check_integer
from lstm_optax.records import Record, markdown_table
from lstm_optax.saddles.descents import FACTORY, Descent, Factory, descent_step
from lstm_optax.studies.study_records import StudyError
from lstm_optax.tasks.surfaces import find_surface

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
      ValueError: a number out of range, an unknown surface, or an optimizer that is not a function.
    """
    SIZE.check(learning_rate=learning_rate)
    check_callable("optimizer", optimizer, FACTORY)
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
      ValueError: a number out of range, an unknown surface, or an optimizer that is not a function.
    """
    SIZE.check(learning_rate=learning_rate)
    FACTOR.check(noise=noise)
    if len(seeds) == 0:
        raise StudyError("seeds is empty: name at least one seed")
    cells = [(delta, size) for size in (0.0, noise) for delta in deltas]
    trials = [(*cell, seed) for cell in cells for seed in (seeds if cell[1] else seeds[:1])]
    records = []
    for name, make in optimizers.items():
        check_callable(f"optimizers[{name!r}]", make, FACTORY)
        steps = iter(_run_trials(make, learning_rate, trials, surface, distance, max_steps))
        for delta, size in cells:
            found = list(islice(steps, len(seeds) if size else 1))
            records.append({"optimizer": name, "delta": delta, "noise": size, "steps": found})
    return records


def saddle_markdown(records: Sequence[Record]) -> str:
    """Return the records of `saddle_table` as Markdown tables, one for each size of the noise.

    A cell is the median over the seeds. A dash is shown where half of the trials or more did not
    leave. A displacement of 0 is left out without noise, since no trial leaves.
    """
    parts = []
    for noise in dict.fromkeys(record["noise"] for record in records):
        rows = [r for r in records if r["noise"] == noise and (noise or r["delta"])]
        cells = {(r["optimizer"], r["delta"]): _median_text(r["steps"]) for r in rows}
        names = list(dict.fromkeys(r["optimizer"] for r in rows))
        deltas = list(dict.fromkeys(r["delta"] for r in rows))
        seeds = len(rows[0]["steps"])
        caption = f"With noise of size {noise:g}, median of {seeds} seeds" if noise else "No noise"
        table = markdown_table(
            ["optimizer", *(f"δ = {delta:g}" for delta in deltas)],
            [[name, *(cells[name, delta] for delta in deltas)] for name in names],
            align_right=True,
        )
        parts.append(f"{caption}:\n\n{table}")
    return "\n\n".join(parts)


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
    if find_surface(surface).start is not None:
        raise StudyError(f"{surface!r} has no saddle: name 'saddle' or 'monkey_saddle'")
    _SHARE.check(distance=distance)
    check_integer("max_steps", max_steps)
    for delta, noise, seed in trials:
        check_integer("seed", seed, 0)
        _SIGNED.check(delta=delta)
        SIZE.check(noise=noise)
    starts = jnp.array([(distance, delta) for delta, _, _ in trials], float)
    noises = jnp.array([noise for _, noise, _ in trials], float)
    seeds = jnp.array([seed for *_, seed in trials])
    steps = _leave(make, surface, starts, noises, seeds, float(learning_rate), max_steps)
    return [int(count) if count >= 0 else None for count in steps]


@partial(jax.jit, static_argnames=("make", "surface"))
def _leave(
    make: Factory,
    surface: str,
    starts: jax.Array,
    noises: jax.Array,
    seeds: jax.Array,
    rate: jax.Array,
    limit: jax.Array,
) -> jax.Array:
    """Return for each trial the number of steps until the saddle is left, −1 if it is not left."""
    shape, optimizer = find_surface(surface), make(rate)

    def stays(state: Descent) -> jax.Array:
        return (state.count < limit) & (shape.value(state.point) > shape.target)  # False for NaN

    def leave(start: jax.Array, noise: jax.Array, seed: jax.Array) -> jax.Array:
        step = descent_step(shape, optimizer, noise, jax.random.key(seed))
        first = Descent(jnp.int32(0), start, optimizer.init(start))
        last = jax.lax.while_loop(stays, step, first)
        return jnp.where(shape.value(last.point) <= shape.target, last.count, -1)

    return jax.vmap(leave)(starts, noises, seeds)


def _median_text(steps: Sequence[int | None]) -> str:
    """Return the median, in which a trial that did not leave counts as infinite."""
    middle = median(float("inf") if count is None else count for count in steps)
    return "–" if middle == float("inf") else f"{middle:,.0f}"
