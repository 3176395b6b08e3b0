"""Surfaces over a plane: saddles and narrow valleys, where the path of an optimizer is visible."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from lstm_optax.checks import SIZE, Range, check_choice, format_value
from lstm_optax.tasks.task import Task

_TILT = math.pi / 6
_SHARE, _SIGNED, _CONDITION = Range(0, 1, closed=True), Range(-1, 1, closed=True), Range(1)


@dataclass(frozen=True)
class Surface:
    """A function of two numbers, and where its saddle or its minimum is.

    Attributes:
      value: point [2] → value of the function, a scalar.
      center: the saddle or the minimum.
      target: the value at which the saddle is left, or the minimum is reached.
      start: the usual first point; None for a saddle, whose start is set by two distances.
    """

    value: Callable[[Float[Array, "2"]], Float[Array, ""]]
    center: tuple[float, float]
    target: float
    start: tuple[float, float] | None = None

    def loss(
        self, params: Float[Array, "2"], carry: Any, batch: Float[Array, "2"], key: Any
    ) -> tuple[Float[Array, ""], Any]:
        """Return the value plus batch · params, whose gradient is the surface's plus the batch."""
        return self.value(params) + jnp.sum(jnp.asarray(batch) * params), carry

    def evaluate(self, params: Float[Array, "2"]) -> dict[str, Float[Array, ""]]:
        """Return the value as both metrics, the point, and its distance from the center."""
        value = self.value(params)
        away = jnp.linalg.norm(params - jnp.asarray(self.center, params.dtype))
        names = ("validation", "test", "x", "y", "distance")
        return dict(zip(names, (value, value, params[0], params[1], away), strict=True))


def surface(
    *,
    name: str = "saddle",
    start: Sequence[float] | None = None,
    distance: float | None = None,
    delta: float | None = None,
    condition: float | None = None,
    noise: float = 0.0,
    steps: int = 500,
    eval_every: int = 1,
) -> Task:
    """Return the task of a descent on a surface, without a network: the parameters are a point.

        saddle          x² − y²
        monkey_saddle   x³ − 3 x y²
        rosenbrock      (1 − x)² + 100 (y − x²)²
        beale           (1.5 − x + x y)² + (2.25 − x + x y²)² + (2.625 − x + x y³)²
        quadratic       ½ (u² + κ v²), (u, v) is (x, y) turned by 30°

    The saddles start at (distance, δ): on the x axis, which leads down to the saddle, and δ off it.
    For δ = 0 and without noise the point stays on the axis. The saddle is left where the value is
    at most −1, the task's target; such a point is at least 1 away from the saddle. The saddles are
    unbounded below. Here they are level outside the square |x|, |y| ≤ 2, so that a point that has
    left keeps finite values. The other surfaces have one minimum, 0; their target is 0.001.

    With `eval_every=1` the records of a study hold the trajectory: the metrics are the value (as
    "validation" and "test"), x, y, and the distance from the saddle or the minimum.

    Args:
      name: one of the five.
      start: the first point (x, y) of a surface that is not a saddle.
      distance: of a saddle's start from the saddle, in [0, 1]; 0.5 by default.
      delta: δ, of a saddle's start from the axis, in [−1, 1]; 0.001 by default.
      condition: κ ≥ 1, the condition number of the quadratic; 100 by default.
      noise: ≥ 0, standard deviation of the normal noise that is added to each partial derivative.
      steps: default number of training steps.
      eval_every: default number of steps between evaluations.

    Raises:
      ValueError: an unknown name, a number out of range, or an argument of another surface.

    Reference: Dauphin et al., 2014, arXiv:1406.2572, for saddles.
    """
    SIZE.check(noise=noise)
    shape = find_surface(name, condition=condition)
    point = _start_of(name, shape, start, distance, delta)

    def init(key: jax.Array) -> Float[Array, "2"]:
        return jnp.asarray(point, float)

    def batches(position: int, seed: int) -> NDArray[np.float32]:
        drawn = np.random.default_rng((seed, position)).standard_normal(2, np.float32)
        return np.float32(noise) * drawn

    return Task(
        name=name,
        init=init,
        loss=shape.loss,
        batches=batches,
        evaluate=shape.evaluate,
        steps=steps,
        eval_every=eval_every,
        target=shape.target,
        settings={"surface": name, "start": point, "condition": condition, "noise": noise},
    )


def find_surface(name: str, *, condition: float | None = None) -> Surface:
    """Return a surface by name.

    Args:
      name: as for `surface`.
      condition: as for `surface`.

    Raises:
      ValueError: an unknown name, a condition number below 1 or of another surface.
    """
    check_choice("name", name, tuple(SURFACES))
    if condition is None:
        return SURFACES[name]
    if name != "quadratic":
        raise ValueError(f"condition is {condition}, but only 'quadratic' has one, not {name!r}")
    _CONDITION.check(condition=condition)
    return replace(SURFACES[name], value=partial(_quadratic, condition=condition))


def check_point(start: Sequence[float]) -> list[float]:
    """Return a point as a list of two floats; raise ValueError for anything else."""
    if (
        not isinstance(start, Sequence | np.ndarray)
        or len(start) != 2
        or not all(isinstance(number, Real) and math.isfinite(number) for number in start)
    ):
        raise ValueError(f"start is {format_value(start)}, but must be two finite numbers, (x, y)")
    return [float(number) for number in start]


def _start_of(
    name: str,
    shape: Surface,
    start: Sequence[float] | None,
    distance: float | None,
    delta: float | None,
) -> list[float]:
    if shape.start is None:
        if start is not None:
            raise ValueError(
                f"start is {format_value(start)}, but {name!r} starts at (distance, delta): set "
                "these"
            )
        distance, delta = 0.5 if distance is None else distance, 1e-3 if delta is None else delta
        _SHARE.check(distance=distance)
        _SIGNED.check(delta=delta)
        return [float(distance), float(delta)]
    for argument, value in (("distance", distance), ("delta", delta)):
        if value is not None:
            raise ValueError(f"{argument} is {value}, but {name!r} is not a saddle: set start")
    return check_point(shape.start if start is None else start)


def _saddle(point: Float[Array, "2"]) -> Float[Array, ""]:
    x, y = jnp.clip(point, -2, 2)
    return x**2 - y**2


def _monkey_saddle(point: Float[Array, "2"]) -> Float[Array, ""]:
    x, y = jnp.clip(point, -2, 2)
    return x**3 - 3 * x * y**2


def _rosenbrock(point: Float[Array, "2"]) -> Float[Array, ""]:
    x, y = point
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def _beale(point: Float[Array, "2"]) -> Float[Array, ""]:
    x, y = point
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def _quadratic(point: Float[Array, "2"], *, condition: float = 100.0) -> Float[Array, ""]:
    """Return the value; the axes are turned, since a rule for each coordinate would undo κ."""
    x, y = point
    u = math.cos(_TILT) * x + math.sin(_TILT) * y
    v = math.cos(_TILT) * y - math.sin(_TILT) * x
    return (u**2 + condition * v**2) / 2


SURFACES: Mapping[str, Surface] = {
    "saddle": Surface(_saddle, (0, 0), -1.0),
    "monkey_saddle": Surface(_monkey_saddle, (0, 0), -1.0),
    "rosenbrock": Surface(_rosenbrock, (1, 1), 1e-3, (-1.2, 1)),
    "beale": Surface(_beale, (3, 0.5), 1e-3, (1, 1.5)),
    "quadratic": Surface(_quadratic, (0, 0), 1e-3, (2, 1)),
}
"""The surfaces by name."""
