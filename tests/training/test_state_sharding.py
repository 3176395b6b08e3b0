"""`BatchSharding(shard_state=True)`: each device stores a part of the state; the numbers stay."""

import re

import chex
import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from many_devices import first_devices, needs_devices
from plain import plain_for

import lstm_optax as lo
from lstm_optax.lstm.native import library
from lstm_optax.training.step import program_of

ROWS, STEPS, WIDTH = 8, 4, 16
ROUNDING = 2e-6  # the devices add the terms of a mean in another order
pytestmark = needs_devices(8)
SPLIT = lo.BatchSharding(shard_state=True)


def batches(position, width=WIDTH):
    rng = np.random.default_rng(position)
    return rng.normal(size=(5, ROWS, width)).astype(np.float32)


def loss(graphdef):
    def mean_error(params, carry, batch, key):
        outputs, carry = nnx.merge(graphdef, params)(batch, carry)
        return jnp.mean((outputs - jnp.cumsum(batch, axis=0)) ** 2), carry

    return mean_error


def start(optimizer, width=WIDTH):
    """Return a step of an LSTM, and the state before it."""
    model = lo.LSTM(width, width, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)
    state = lo.init_state(params, optimizer, model.initial_carry(ROWS), jax.random.key(0))
    return lo.make_step(loss(graphdef), optimizer), state


def train(optimizer, sharding):
    step, state = start(optimizer)
    options = dict(steps=STEPS, eval_every=1, steps_per_dispatch=2, sharding=sharding)
    return lo.fit(step, state, batches, **options)


def losses(result):
    return [record["train_loss"] for record in result.history]


def test_each_device_stores_one_eighth():
    result = train(lo.nadam(1e-3), SPLIT)
    split = (result.state.params, result.state.opt_state)
    arrays = [leaf for leaf in jax.tree.leaves(split) if leaf.ndim]
    assert len(arrays) == 9  # three parameters, and their two moments
    for leaf in arrays:
        assert leaf.addressable_shards[0].data.size == leaf.size // 8
        assert leaf.sharding.spec[0] == "rows"


@pytest.mark.parametrize(
    "shape, spec",
    [((16, 3), ("rows",)), ((3, 16), (None, "rows")), ((8, 8), ("rows",)), ((3, 5), ()), ((), ())],
)
def test_first_divisible_axis_is_split(shape, spec):
    state = start(lo.sgd(0.1))[1]._replace(params=np.ones(shape))
    assert tuple(SPLIT.state(state).params.sharding.spec) == spec


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    plain_for(lo.OPTIMIZERS, {"nadam", "gate_muon", "awd_sgd"}, pytest.mark.soak),
)
def test_split_state_keeps_the_losses(name):
    factory = lo.OPTIMIZERS[name]
    one, whole, split = (
        train(factory(1e-3), sharding) for sharding in (None, lo.BatchSharding(), SPLIT)
    )
    assert losses(whole) == pytest.approx(losses(one), rel=ROUNDING)
    assert losses(split) == pytest.approx(losses(one), rel=ROUNDING)
    before, after = (SPLIT.state(split.state), split.state)
    assert jax.tree.map(lambda x: x.sharding, before) == jax.tree.map(lambda x: x.sharding, after)


def gathered_entries(text):
    """Return the number of entries in the results of all all-gathers of a program."""
    results = re.findall(r" = (.*?) all-gather(?:-start)?\(", text)
    shapes = re.findall(r"\w+\[([\d,]*)\]", " ".join(results))
    return sum(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)


@pytest.mark.slow
@compiled.cpu_program
def test_only_parameters_are_gathered(monkeypatch):
    """Gradients are summed once a step, parameters gathered once, and no moment is sent."""
    monkeypatch.setattr(library, "missing", lambda: "it has no loop over time to look into")
    step, state = start(lo.nadam(1e-2), width=128)  # the norm joins small gradients in one array
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    stacked = SPLIT.batches(np.stack([batches(p, width=128) for p in range(2)]))
    program = program_of(step, SPLIT).lower(SPLIT.state(state), stacked, np.int32(2))
    text = compiled.optimized(program).as_text()
    assert gathered_entries(text) == count
    assert re.search(r"(all-reduce|reduce-scatter)(-start)?\(", text)
    assert not re.search(r"(all-to-all|collective-permute)(-start)?\(", text)
    loops = compiled.innermost_loops(text)
    assert len(loops) == 2 and not any("all-" in loop for loop in loops)


@pytest.mark.slow
def test_restored_state_is_split_again(tmp_path):
    checkpoints = lo.Checkpoints(tmp_path)
    result = train(lo.nadam(1e-2), SPLIT)
    checkpoints.save(STEPS, result.state)
    for sharding in (SPLIT, lo.BatchSharding(devices=first_devices(2))):
        like = sharding.state(start(lo.nadam(1e-2))[1])
        _, state, _ = checkpoints.restore(like)
        chex.assert_trees_all_equal(jax.device_get(state), jax.device_get(result.state))
        assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda x: x.sharding, like)
