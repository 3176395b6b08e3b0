"""Descents on a surface, and their paths."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from lstm_optax.checks import SIZE, check_callable, check_integer
from lstm_optax.tasks.surfaces import Surface, check_point, find_surface

Factory = Callable[[Any], optax.GradientTransformation]
"""A function from a learning rate, a number or a traced scalar, to an optimizer."""

FACTORY = "a function of the learning rate, such as nadam"


class Descent(NamedTuple):
    """The state of a descent on a surface."""

    count: jax.Array  # int32 [], number of steps
    point: jax.Array  # [2]
    opt_state: Any


def descent_step(
    shape: Surface, optimizer: optax.GradientTransformation, noise: Any, key: jax.Array
) -> Callable[[Descent], Descent]:
    """Return one step on a surface, with normal noise of size `noise` in the gradient.

    The noise is a function of the key and of the number of the step.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def step(state: Descent) -> Descent:
        drawn = jax.random.normal(jax.random.fold_in(key, state.count), (2,))
        value, grad = jax.value_and_grad(shape.value)(state.point)
        updates, opt_state = optimizer.update(
            grad + noise * drawn, state.opt_state, state.point, value=value
        )
        point = optax.apply_updates(state.point, updates)
        return Descent(state.count + 1, jnp.asarray(point), opt_state)

    return step


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
      ValueError: a number out of range, an unknown surface, a start that is not a point, or an
        optimizer that is not a function.
    """
    SIZE.check(learning_rate=learning_rate, noise=noise)
    check_integer("steps", steps)
    check_callable("optimizer", optimizer, FACTORY)
    point, shape, made = check_point(start), find_surface(surface), optimizer(learning_rate)
    advance = descent_step(shape, made, noise, jax.random.key(seed))

    def body(state: Descent, _: None) -> tuple[Descent, jax.Array]:
        state = advance(state)
        return state, state.point

    def run(point: jax.Array) -> jax.Array:
        state = Descent(jnp.int32(0), point, made.init(point))
        return jax.lax.scan(body, state, length=steps)[1]

    first = jnp.asarray(point)
    return np.concatenate([first[None], jax.jit(run)(first)])
