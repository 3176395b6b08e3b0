"""The objects of a run are freed with it."""

import gc
import weakref
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax import nnx

import lstm_optax as lo

ROWS = 2


def train_with_weakrefs() -> dict[str, weakref.ref]:
    """Train and evaluate a language model; return weak references to the arguments of the run."""
    rngs = nnx.Rngs(0)
    model = lo.LanguageModel(5, lo.LSTM(2, 3, rngs=rngs), rngs=rngs)
    graphdef, params = nnx.split(model)
    windows = lo.data.Windows.of(np.arange(64) % 5, ROWS, 4)
    carry, large = model.lstm.initial_carry(ROWS), jnp.ones((300, 300))

    def sums(params, carry, batch):
        logits, carry = nnx.merge(graphdef, params)(batch.inputs, carry)
        return lo.token_losses(logits, batch.targets), carry

    def loss(params, carry, batch, key):
        (total, count), carry = sums(params, carry, batch)
        return total / count + 0 * jnp.sum(large), carry

    def measure(params, carry, batch):
        return sums(params, carry, batch)

    def batches(position):
        return windows(position)

    optimizer = lo.polyak_average(lo.nadam(1e-3))
    held_out = [windows(0), windows(1)]
    evaluate = lo.make_evaluate(measure, carry, held_out)
    step = lo.make_step(loss, optimizer)
    state = lo.init_state(params, optimizer, carry, jax.random.key(0))
    state = lo.fit(step, state, batches, steps=3, eval_every=2, evaluate=evaluate).state
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *held_out)
    lo.run_steps(step, state, stacked, np.int32(2))
    held = dict(step=step, loss=loss, large=large, measure=measure, evaluate=evaluate)
    held |= dict(batches=batches, batch=held_out[0].inputs, stacked=stacked.inputs)
    return {name: weakref.ref(value) for name, value in held.items()}


@pytest.mark.slow
def test_dropped_run_is_freed():
    references = train_with_weakrefs()
    gc.collect()
    assert not [name for name, value in references.items() if value() is not None]


def test_step_function_is_compiled_once():
    traces = []

    def loss(params, carry, batch, key):
        traces.append(1)
        return toy.loss(params, carry, batch, key)

    step = lo.make_step(loss, toy.OPTIMIZER)
    state = lo.fit(step, toy.start()[1], toy.batches, steps=4).state
    first = len(traces)
    state = lo.fit(step, state, toy.batches, steps=6).state
    stacked = jax.tree.map(lambda *xs: np.stack(xs), *map(toy.batches, range(8)))
    lo.run_steps(step, state, stacked, np.int32(2))
    assert len(traces) == first


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_memory_does_not_grow_over_fits():
    sizes = []
    for _ in range(40):
        train_with_weakrefs()
        gc.collect()
        sizes.append(resident_bytes())
    growth = (np.mean(sizes[-10:]) - np.mean(sizes[10:20])) / 20
    assert growth < 0.5e6, f"{growth / 1e6:.2f} MB a fit"
