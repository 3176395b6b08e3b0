"""One training step, and several steps in one dispatch."""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, ref

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import check_callable, check_transformations
from lstm_optax.training.carry_rows import zero_bad_rows
from lstm_optax.training.metrics import StepMetrics, add_step, can_mend
from lstm_optax.training.scaled_loss import loss_scale, scaled_loss
from lstm_optax.training.sharding import BatchSharding
from lstm_optax.training.state import TrainState
from lstm_optax.training.update import update_and_check, update_if_finite
from lstm_optax.transforms import GuardState, find_states
from lstm_optax.transforms._finite import new_if
from lstm_optax.trees import check_same_tree

Loss = Callable[[Any, Any, Any, jax.Array], tuple[jax.Array, Any]]
"""(params, carry, batch, key) → (mean loss, new carry)."""

Step = Callable[[TrainState, Any], tuple[TrainState, StepMetrics]]
"""(state, batch) → (new state, metrics of the step); pure."""

CARRY_REMEDY = "return a carry like the argument, or pass `init_state` one like the result"


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    *,
    extra_args: Callable[[Any], dict[str, Any]] = lambda batch: {},
    carry_axes: Any = 0,
) -> Step:
    """Return one step of truncated back-propagation through time.

    Forward, loss, backward, update. The carry crosses from window to window, its gradient does
    not: the carry is an argument of the loss, and the loss is differentiated with respect to the
    parameters only. If a `guard` in the optimizer skips the step, the carry does not change either.
    With a guard, rows of the carry with a non-finite entry are set to zero before the step. A step
    that fails, see `run_steps`, returns the state that it received.

    The loss is multiplied by the scale of `loss_scaling`, if that is the optimizer.

    Args:
      loss: (params, carry, batch, key) → (mean loss, new carry).
      optimizer: any Optax transformation that ends with the learning rate.
      extra_args: batch → extra keyword arguments for the optimizer's `update`, such as the
        `rate_factor` of `scale_by_rate_factor`. The loss is always passed, as `value`.
      carry_axes: the axis of the carry's rows, as in `BatchSharding`.

    Raises:
      ValueError: an optimizer without `init` and `update`; when the step is traced, a carry that
        differs from the state's in structure, shape or dtype, with a guard a carry without these
        axes, or a `loss_scaling` inside another transformation.

    Reference: Williams & Peng, 1990, doi:10.1162/neco.1990.2.4.490.
    """
    check_callable("loss", loss, "a function (params, carry, batch, key) → (mean loss, new carry)")
    check_transformations(optimizer=optimizer)
    optimizer = optax.with_extra_args_support(optimizer)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        # the key is a function of the step's number, so a resumed run draws the same numbers
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        scale, resets = loss_scale(state.opt_state), jnp.int32(0)
        if find_states(state.opt_state, GuardState):
            carry, resets = zero_bad_rows(state.carry, carry_axes)
            state = state._replace(carry=carry)
        with jax.named_scope("loss"):
            (_, (value, carry)), grads = jax.value_and_grad(scaled_loss(loss, scale), has_aux=True)(
                state.params, state.carry, batch, key
            )
        check_same_tree("the carry that the loss returns", carry, state.carry, CARRY_REMEDY)
        update = update_and_check if can_mend(state.opt_state) else update_if_finite
        extras = {"value": value, **extra_args(batch)}
        with jax.named_scope("optimizer"):
            params, opt_state, metrics = update(optimizer, value, grads, state, extras)
        metrics = metrics._replace(carry_resets=resets)
        metrics = metrics if scale is None else metrics.divided_by(scale)
        taken = metrics.skipped | _is_finite(metrics)
        new_state = TrainState(
            step=state.step + taken,
            position=state.position + taken,
            params=params,
            opt_state=opt_state,
            # the carry of a skipped step may hold NaN, which would spoil every later window
            carry=new_if(taken & ~metrics.skipped, carry, state.carry),
            key=state.key,
            sums=new_if(taken, add_step(state.sums, metrics), state.sums),
        )
        return new_state, metrics

    return step


def should_continue(metrics: StepMetrics) -> jax.Array:
    """Return whether training may continue: the step is finite, or a guard skipped it."""
    return jnp.where(metrics.skipped, ~metrics.gave_up, _is_finite(metrics))


def _is_finite(metrics: StepMetrics) -> jax.Array:
    return jnp.isfinite(metrics.loss) & jnp.isfinite(metrics.grad_norm)


def run_steps(
    step: Step,
    state: TrainState,
    batches: Any,
    count: Any,
    *,
    sharding: BatchSharding | None = None,
) -> tuple[TrainState, StepMetrics]:
    """Run `count` steps in one dispatch; stop early after a failed step or the last batch.

    A step fails if its loss or gradient is not finite, unless a `guard` in the optimizer skips it,
    or a clip with `nonfinite="zero"` mends the gradient; a skipped step fails if it is one of too
    many in a row.

    Several steps in one program save the overhead of a dispatch for each. The loop's length is an
    argument of the program, so the same program runs every grouping of the steps, and the results
    are equal to the bit.

    Args:
      step: the function that `make_step` returns. The program is compiled once for each step
        function and is freed with it, so keep the function in a variable between two calls.
      state: is donated: its buffers are reused, and it must not be used again.
      batches: the steps' batches, stacked along a first axis.
      count: the number of steps, at least 1.
      sharding: the split of state and batches, needed if it splits the state (`shard_state`).

    Returns:
      The state after the last step, and the metrics of that step. If it failed, and no guard
      skipped it, the state is the one before it.
    """
    return program_of(step, sharding)(state, batches, jnp.int32(count))


_programs: WeakKeyDictionary[Step, dict[Any, Any]] = WeakKeyDictionary()


def program_of(step: Step, sharding: BatchSharding | None = None) -> Any:
    """Return the jitted function (state, batches, count) → (state, metrics) of a step function.

    The program refers to the step weakly, so both are freed when the caller drops the step. With
    the step as a static argument of one module-level `jax.jit`, each step, and everything that its
    loss closes over, would live as long as the process.
    """
    split = sharding if sharding and sharding.shard_state else None
    programs = _programs.setdefault(step, {})
    key = split and split.mesh
    if key not in programs:
        weak = ref(step)

        def program(state: TrainState, batches: Any, count: jax.Array):
            alive = weak()
            assert alive is not None  # the caller of the program holds the step
            if split:
                alive = _split_step(alive, split)
            return take_steps(alive, state, batches, count)

        # donation: the new state is written into the buffers of the old one, so that parameters
        # and moments are in memory once
        programs[key] = jax.jit(program, donate_argnums=0)
    return programs[key]


def _split_step(step: Step, sharding: BatchSharding) -> Step:
    """Return the step for a state whose arrays are split over devices before and after it."""

    def split_step(state: TrainState, batch: Any) -> tuple[TrainState, StepMetrics]:
        state, metrics = step(sharding.gather_params(state), batch)
        return sharding.split_state(state), metrics

    return split_step


def take_steps(
    step: Step, state: TrainState, batches: Any, count: jax.Array
) -> tuple[TrainState, StepMetrics]:
    """Take `count` steps, as `run_steps` does, inside a program of the caller."""
    count = jnp.minimum(count, jax.tree.leaves(batches)[0].shape[0])

    def keep_running(loop):
        i, _, metrics = loop
        return (i < count) & should_continue(metrics)

    def body(loop):
        i, state, _ = loop
        return i + 1, *step(state, jax.tree.map(lambda b: b[i], batches))

    # the loop carries the metrics of the last step; zeros before the first one pass as finite
    shapes = jax.eval_shape(step, state, jax.tree.map(lambda b: b[0], batches))[1]
    zeros = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)
    _, state, metrics = jax.lax.while_loop(keep_running, body, (jnp.int32(0), state, zeros))
    return state, metrics
