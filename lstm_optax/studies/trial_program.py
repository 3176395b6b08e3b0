"""The compiled training of several trials: one program, whatever their number and their numbers."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lstm_optax.checks import check_choice
from lstm_optax.tasks import Task
from lstm_optax.training import TrainState, init_state, make_step
from lstm_optax.training.metrics import zero_sums
from lstm_optax.training.step import should_continue, take_steps
from lstm_optax.transforms import (
    ScaleByLearningRateState,
    eval_params,
    find_states,
    report_validation_loss,
)

Factory = Callable[..., optax.GradientTransformation]
"""Keyword arguments → optimizer; `learning_rate` is one of them."""

Layout = Literal["auto", "map", "vmap"]
"""How trials share the devices: one after another on each, or stacked on each."""

STACKED = 32
"""Largest number of trials stacked on one device."""


class Interval(NamedTuple):
    """The results of each slot after some steps, [slots]."""

    step: jax.Array  # int32: number of steps taken since the trial began
    finite: jax.Array  # bool: every loss and gradient was finite
    loss: jax.Array  # float: mean over the steps since the last evaluation
    grad_norm: jax.Array  # float: the same of the gradient's norm
    learning_rate: jax.Array  # float: of the last step; NaN if there is none or more than one
    metrics: dict[str, jax.Array]  # float; without an evaluation, all floats but the rate are NaN


def start_trial(task: Task, optimizer: optax.GradientTransformation, seed: Any) -> TrainState:
    """Return the state before the first step; the seed may be traced."""
    init_key, step_key = jax.random.split(jax.random.key(seed))
    return init_state(task.init(init_key), optimizer, task.initial_carry(), step_key)


class TrialProgram:
    """The training of one trial in each of several slots, compiled once.

    Hyper-parameters are traced, and the length of the loop over steps is an argument, so trials,
    numbers and lengths change without another compilation. On CPUs every device has one slot; on
    other devices the slots of a device are stacked by `vmap`.

    Args:
      task: what is trained.
      factory: hyper-parameters by keyword → optimizer; no Python branch on their values.
      traced: names of the hyper-parameters that change between trials.
      trials: number of trials that are expected, an upper bound of the slots.
      layout: "map" for one slot per device, "vmap" for stacked slots; "auto" is "map" on a CPU.
      devices: the devices; by default all.

    Attributes:
      slots: number of slots.
      per_device: number of slots of each device.
      traces: number of times that the step was traced.

    Raises:
      ValueError: an unknown layout.
    """

    def __init__(
        self,
        task: Task,
        factory: Factory,
        *,
        traced: Sequence[str] = ("learning_rate",),
        trials: int,
        layout: Layout = "auto",
        devices: Sequence[Any] | None = None,
    ):
        check_choice("layout", layout, get_args(Layout))
        devices = list(devices or jax.devices())
        stacked = layout == "vmap" or (layout == "auto" and devices[0].platform != "cpu")
        per_device = min(STACKED, -(-trials // len(devices))) if stacked else 1
        devices = devices[: max(1, min(len(devices), trials))]
        self.task = task
        self.factory = factory
        self.traced: tuple[str, ...] = tuple(traced)
        self.layout: str = "vmap" if stacked else "map"
        self.per_device: int = per_device
        self.slots: int = len(devices) * per_device
        self.traces: int = 0
        mesh = Mesh(np.asarray(devices), ("trials",))
        by_slot = PartitionSpec("trials")
        self._by_slot: NamedSharding = NamedSharding(mesh, by_slot)
        over_slots = jax.vmap if per_device > 1 else _over_one_slot
        shard = partial(jax.shard_map, mesh=mesh, in_specs=by_slot, out_specs=by_slot)
        advance, start = over_slots(self._advance_one), over_slots(self._start_one)
        self._advance = jax.jit(shard(advance, check_vma=False), donate_argnums=0)
        self._start = jax.jit(shard(start, check_vma=False), donate_argnums=0)
        self._put = jax.jit(_put_state, donate_argnums=0, out_shardings=self._by_slot)
        self._fresh = jax.jit(shard(over_slots(self._init_one), check_vma=False))

    def start(
        self,
        states: Any,
        hyper: Sequence[Mapping[str, Any]],
        seeds: Sequence[int],
        fresh: Sequence[bool],
    ) -> Any:
        """Return states in which the slots marked `fresh` hold a new trial.

        Args:
          states: of all slots; None before the first trial. They are donated.
          hyper: hyper-parameters of the trial of each slot.
          seeds: seed of the trial of each slot.
          fresh: for each slot.
        """
        numbers, keys = self._numbers(hyper), np.asarray(seeds, np.uint32)
        if states is None:
            return self._fresh(numbers, keys)
        return self._start(states, numbers, keys, np.asarray(fresh))

    def take(self, states: Any, slot: int) -> TrainState:
        """Return a copy of the state of one slot, on the host."""
        return jax.device_get(jax.tree.map(lambda x: x[slot], states))

    def put(self, states: Any, slot: int, state: TrainState) -> Any:
        """Return the states with that of one slot replaced; they are donated."""
        return self._put(states, slot, state)

    def abstract_state(self) -> TrainState:
        """Return the shapes and dtypes of one trial's state, without computing it.

        Raises:
          ValueError: the factory or a rule does not accept the hyper-parameters.
        """
        seed = jax.ShapeDtypeStruct((), np.uint32)
        return jax.eval_shape(self._init_one, self._abstract_numbers(), seed)

    def trace(self) -> None:
        """Trace the start of a trial and a step, without computing them; raise their errors."""
        batch = jax.tree.map(lambda leaf: np.asarray(leaf)[None], self.task.batches(0, 0))
        flags = jax.ShapeDtypeStruct((), np.int32), jax.ShapeDtypeStruct((), np.bool_)
        state, numbers = self.abstract_state(), self._abstract_numbers()
        jax.eval_shape(self._advance_one, state, numbers, batch, *flags)

    def advance(
        self,
        states: Any,
        hyper: Sequence[Mapping[str, Any]],
        batches: Sequence[Any],
        counts: Sequence[int],
        evaluate: Sequence[bool],
    ) -> tuple[Any, Interval]:
        """Take up to `counts` steps in each slot; the result is not waited for.

        Args:
          states: of all slots; they are donated.
          hyper: hyper-parameters of the trial of each slot.
          batches: for each slot, the batches of its steps, stacked along a first axis.
          counts: steps of each slot; 0 leaves the slot unchanged and costs nothing with "map".
          evaluate: for each slot, whether to evaluate it after its steps, and begin new means.
        """
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
        stacked = jax.device_put(stacked, self._by_slot)
        flags = np.asarray(counts, np.int32), np.asarray(evaluate)
        return self._advance(states, self._numbers(hyper), stacked, *flags)

    def _numbers(self, hyper: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        return {n: np.asarray([h[n] for h in hyper], jnp.result_type(float)) for n in self.traced}

    def _abstract_numbers(self) -> dict[str, jax.ShapeDtypeStruct]:
        return dict.fromkeys(self.traced, jax.ShapeDtypeStruct((), jnp.result_type(float)))

    def _init_one(self, hyper: dict[str, jax.Array], seed: jax.Array) -> TrainState:
        optimizer = self.factory(**_like_python_floats(hyper))
        return start_trial(self.task, optimizer, seed)

    def _start_one(
        self, old: TrainState, hyper: dict[str, jax.Array], seed: jax.Array, fresh: jax.Array
    ) -> TrainState:
        def init(old):
            new = self._init_one(hyper, seed)
            return jax.tree.map(lambda a, b: a.astype(b.dtype), new, old)

        return jax.lax.cond(fresh, init, lambda old: old, old)

    def _advance_one(
        self, state: TrainState, hyper: Any, batches: Any, count: jax.Array, evaluate: jax.Array
    ) -> tuple[TrainState, Interval]:
        self.traces += 1
        step = make_step(self.task.loss, self.factory(**_like_python_floats(hyper)))
        state, last = take_steps(step, state, batches, count)
        finite = should_continue(last)
        measured = jax.eval_shape(self._evaluate, state)[1]
        nothing = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), measured)
        state, (loss, grad_norm, metrics) = jax.lax.cond(
            evaluate & finite & (count > 0), self._evaluate, lambda s: (s, nothing), state
        )
        rate = _learning_rate(state)
        taken = state.step + (~finite & ~last.skipped)  # a failed step is not in the state
        return state, Interval(taken, finite, loss, grad_norm, rate, metrics)

    def _evaluate(self, state: TrainState) -> tuple[TrainState, tuple[Any, Any, Any]]:
        metrics = self.task.evaluate(eval_params(state.opt_state, state.params))
        metrics = {n: jnp.asarray(value, jnp.float32) for n, value in metrics.items()}
        value = metrics[self.task.metric]
        # a trigger of an average waits for a fall
        loss = -value if self.task.larger_is_better else value
        opt_state = report_validation_loss(state.opt_state, loss)
        steps, sums = state.sums.steps.astype(jnp.float32), state.sums
        loss_mean, norm_mean = (
            (total.value + total.rest) / steps for total in (sums.loss, sums.grad_norm)
        )
        new = state._replace(opt_state=opt_state, sums=zero_sums())
        new = jax.tree.map(lambda a, b: a.astype(b.dtype), new, state)
        return new, (loss_mean, norm_mean, metrics)


def _over_one_slot(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of arrays with one slot in front, without the overhead of `vmap`."""

    def run(*arguments: Any) -> Any:
        result = function(*(jax.tree.map(lambda x: x[0], a) for a in arguments))
        return jax.tree.map(lambda x: x[None], result)

    return run


def _like_python_floats(hyper: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Return weakly typed numbers: as with Python floats, what is bfloat16 stays bfloat16."""
    return {name: jnp.full((), 0.0).at[()].set(number) for name, number in hyper.items()}


def _learning_rate(state: TrainState) -> jax.Array:
    """Return the learning rate of the last step; NaN if there is none or more than one."""
    found = find_states(state.opt_state, ScaleByLearningRateState)
    rate = found[0].rate if len(found) == 1 else jnp.nan
    return jnp.asarray(rate if jnp.ndim(rate) == 0 else jnp.nan, jnp.float32)


def _put_state(states: Any, slot: jax.Array, state: TrainState) -> Any:
    return jax.tree.map(lambda old, new: old.at[slot].set(new), states, state)
