"""One training step, and several of them in one dispatch."""

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, ref

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import check_transformations
from lstm_optax.training.checks import check_callable, check_same
from lstm_optax.training.metrics import StepMetrics, Watch, add, watch
from lstm_optax.training.state import TrainState
from lstm_optax.transforms import global_norm

Loss = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, Any]]
"""(params, carry, batch, key) → (mean loss, new carry)."""

Step = Callable[[TrainState, Any], tuple[TrainState, StepMetrics]]
"""(state, batch) → (new state, what the step measured); pure."""


CARRY_REMEDY = "return it as it came, or give `init_state` a carry like the one returned"


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    extra_args: Callable[[Any], dict[str, Any]] = lambda batch: {},
) -> Step:
    """Return one step of truncated back-propagation through time.

    Forward, loss, backward, update. The carry crosses from window to window, its gradient does
    not: the carry is an argument that the loss is not differentiated by. Where a `guard` in the
    optimizer refuses the step, the carry stays as it was too: the batch is skipped.

    Args:
      loss: (params, carry, batch, key) → (mean loss, new carry).
      optimizer: any Optax transformation that ends with the learning rate.
      extra_args: batch → what the optimizer's `update` is told beside the loss (`value`), such as
        the `rate_factor` of `scale_by_rate_factor`.

    Raises:
      ValueError: an optimizer without `init` and `update`; when the step is traced, a carry that
        differs from the state's in structure, shape or dtype.

    Reference: Williams & Peng, 1990, doi:10.1162/neco.1990.2.4.490.
    """
    check_callable("loss", loss, "a function (params, carry, batch, key) → (mean loss, new carry)")
    check_transformations(optimizer=optimizer)
    optimizer = optax.with_extra_args_support(optimizer)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        with jax.named_scope("loss"):
            (value, carry), grads = jax.value_and_grad(loss, has_aux=True)(
                state.params, state.carry, batch, key
            )
        check_same("the carry that the loss returns", carry, state.carry, CARRY_REMEDY)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(
                grads, state.opt_state, state.params, value=value, **extra_args(batch)
            )
            params = optax.apply_updates(state.params, updates)
        metrics = _measure(value, grads, updates, watch(state.opt_state, opt_state))
        new_state = TrainState(
            step=state.step + 1,
            position=state.position + 1,
            params=params,
            opt_state=opt_state,
            carry=jax.tree.map(partial(jnp.where, metrics.skipped), state.carry, carry),
            key=state.key,
            sums=add(state.sums, metrics),
        )
        return new_state, metrics

    return step


def should_continue(metrics: StepMetrics) -> jax.Array:
    """Return whether the loss and the gradient are finite, or else a guard dealt with it."""
    finite = jnp.isfinite(metrics.loss) & jnp.isfinite(metrics.grad_norm)
    return jnp.where(metrics.skipped, ~metrics.gave_up, finite)


def run_steps(
    step: Step, state: TrainState, batches: Any, count: Any
) -> tuple[TrainState, StepMetrics]:
    """Run `count` steps in one dispatch; fewer where one goes wrong or the batches end.

    A step goes wrong whose loss or gradient is not finite, unless a `guard` in the optimizer
    skipped it and has not given up.

    Several steps in one program save what each dispatch costs. The loop's length is no constant of
    the program, so however steps are grouped, the same program computes them.

    Args:
      step: what `make_step` returns. The program is compiled once for each step function, and is
        freed with it; so keep the function in a variable between two calls.
      state: is donated: its buffers are reused, and it must not be used again.
      batches: the steps' batches, stacked along a first axis.
      count: how many, at least 1.

    Returns:
      The state after the last step, and what that step measured.
    """
    return program_of(step)(state, batches, jnp.int32(count))


_programs: WeakKeyDictionary[Step, Any] = WeakKeyDictionary()


def program_of(step: Step) -> Any:
    """Return the jitted function (state, batches, count) → (state, metrics) of a step function.

    The program refers to the step weakly, so that the two are freed once the caller drops the step.
    A static argument of one module-level `jax.jit` would keep each step, and all that its loss
    closes over, for the life of the process.
    """
    if step not in _programs:
        weak = ref(step)

        def program(state: TrainState, batches: Any, count: jax.Array):
            alive = weak()
            assert alive is not None  # whoever calls the program holds the step
            return _run(alive, state, batches, count)

        _programs[step] = jax.jit(program, donate_argnums=0)
    return _programs[step]


def _run(
    step: Step, state: TrainState, batches: Any, count: jax.Array
) -> tuple[TrainState, StepMetrics]:
    count = jnp.minimum(count, jax.tree.leaves(batches)[0].shape[0])

    def go_on(loop):
        i, _, metrics = loop
        return (i < count) & should_continue(metrics)

    def body(loop):
        i, state, _ = loop
        return i + 1, *step(state, jax.tree.map(lambda b: b[i], batches))

    shapes = jax.eval_shape(step, state, jax.tree.map(lambda b: b[0], batches))[1]
    nothing = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)
    _, state, metrics = jax.lax.while_loop(go_on, body, (jnp.int32(0), state, nothing))
    return state, metrics


def _measure(loss: jax.Array, grads: Any, updates: Any, watched: Watch) -> StepMetrics:
    norm = global_norm(grads)
    # a guard of a part of the parameters does not answer for what the others do
    skipped = jax.lax.cond(
        watched.skipped, lambda u: jnp.isfinite(global_norm(u)), lambda u: jnp.bool_(False), updates
    )
    largest = jax.lax.cond(
        jnp.isfinite(loss) & jnp.isfinite(norm) & ~skipped,
        lambda g: jax.tree.map(lambda x: jnp.zeros([], x.dtype), g),
        lambda g: jax.tree.map(lambda x: jnp.max(jnp.abs(x)), g),
        grads,
    )
    return StepMetrics(loss, norm, largest, watched.clipped, skipped, watched.gave_up)
