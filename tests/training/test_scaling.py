"""The scale on paper against arrays on devices, a compiled program, and a simulated ring."""

import re

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from build_models import language_model
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from many_devices import first_devices

import lstm_optax as lo
from lstm_optax.training import bytes_moved, bytes_per_device, seconds_to_move
from lstm_optax.training.step import program_of

SHAPES = {  # of each dtype size, and with and without an axis that 2, 4 and 8 devices divide
    "kernel": jax.ShapeDtypeStruct((6, 16), jnp.float32),
    "half": jax.ShapeDtypeStruct((8, 3), jnp.bfloat16),
    "odd": jax.ShapeDtypeStruct((5, 3), jnp.float32),
    "scale": jax.ShapeDtypeStruct((), jnp.float32),
}
PARAM_BYTES = 4 * 96 + 2 * 24 + 4 * 15 + 4


def small_model():
    """Return a language model with two layers, in the program of a GPU or TPU."""
    sizes = dict(in_features=4, hidden_features=8, num_layers=2, backend="fused")
    return nnx.split(language_model(6, **sizes, rngs=nnx.Rngs(0)))


def nbytes(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def params():
    return small_model()[1]


@pytest.mark.parametrize("name", lo.OPTIMIZERS)
def test_bytes_equal_those_of_init(name, params):
    optimizer = lo.OPTIMIZERS[name](1e-2)
    found = bytes_per_device(params, optimizer, 1)
    state = jax.jit(optimizer.init)(params)
    assert found == (nbytes(params), nbytes(params), nbytes(state))
    assert found.total == 2 * nbytes(params) + nbytes(state)


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_divided_bytes_equal_those_of_shards(devices):
    """The arrays are divided by `NamedSharding`, along the first axis that allows it."""
    mesh = Mesh(np.array(first_devices(devices)), ("data",))

    def place(leaf):
        axes = [axis for axis, length in enumerate(leaf.shape) if length % devices == 0]
        spec = PartitionSpec(*[None] * axes[0], "data") if axes else PartitionSpec()
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    def shard_bytes(tree):
        placed = jax.tree.leaves(jax.tree.map(place, tree))
        return sum(leaf.addressable_shards[0].data.nbytes for leaf in placed)

    optimizer = lo.nadam(1e-2)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), SHAPES)
    state = optimizer.init(params)
    whole = nbytes(params), nbytes(params), nbytes(state)
    parts = shard_bytes(params), shard_bytes(params), shard_bytes(state)
    assert whole[0] == PARAM_BYTES and parts[0] < whole[0] and parts[2] < whole[2]
    for stage in range(4):
        expected = (
            parts[0] if stage == 3 else whole[0],
            parts[1] if stage >= 2 else whole[1],
            parts[2] if stage >= 1 else whole[2],
        )
        assert bytes_per_device(SHAPES, optimizer, devices, stage=stage) == expected


def ring_sends(devices, length, phases):
    """Return the result of each device of a ring, and the numbers that each of them sent.

    The phases are "reduce" (reduce-scatter) and "gather" (all-gather), on equal chunks.
    """
    values = np.random.default_rng(0).normal(size=(devices, length))
    chunks = values.reshape(devices, devices, -1).copy()  # [device, chunk, number]
    sent = np.zeros(devices, int)
    for phase, name in enumerate(phases):
        for turn in range(devices - 1):
            before = chunks.copy()
            for device in range(devices):
                chunk = (device - turn + phase) % devices
                to = (device + 1) % devices
                sent[device] += before[device, chunk].size
                if name == "reduce":
                    chunks[to, chunk] += before[device, chunk]
                else:
                    chunks[to, chunk] = before[device, chunk]
    return values.sum(0), chunks.reshape(devices, length), sent


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_moved_bytes_equal_those_of_ring(devices):
    length = 24
    params = jax.ShapeDtypeStruct((length,), jnp.float32)
    total, results, sent = ring_sends(devices, length, ("reduce", "gather"))
    np.testing.assert_allclose(results, np.broadcast_to(total, results.shape))
    assert set(4 * sent) == {bytes_moved(params, devices)}
    assert bytes_moved(params, devices, stage=2) == bytes_moved(params, devices)
    _, _, one_phase = ring_sends(devices, length, ("reduce",))
    assert bytes_moved(params, devices, stage=3) == 4 * (sent + one_phase)[0]


SIZES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1, "bf16": 2}


def all_reduced_bytes(text):
    """Return the bytes of all results of the all-reduces in a compiled program."""
    total = 0
    for line in re.findall(r"^.* = (.*) all-reduce(?:-start)?\(", text, re.M):
        for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", line):
            total += SIZES[dtype] * int(np.prod([int(n) for n in shape.split(",") if n] or [1]))
    return total


@compiled.cpu_program
@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 8])
def test_compiled_step_reduces_gradient_once(devices):
    """Replicated: the all-reduces of a step carry the gradient, and a few scalars."""
    graphdef, params = small_model()

    def loss(params, carry, batch, key):
        logits, carry = nnx.merge(graphdef, params)(batch, carry)
        return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - logits[..., 0]), carry

    optimizer = lo.nadam(1e-2)
    carry = nnx.merge(graphdef, params).lstm.initial_carry(8)
    state = lo.init_state(params, optimizer, carry, jax.random.key(0))
    sharding = lo.BatchSharding(devices=first_devices(devices))
    placed = sharding.state(state), sharding.batches(np.zeros((2, 5, 8), np.int32))
    step = lo.make_step(loss, optimizer)
    text = compiled.optimized(program_of(step).lower(*placed, np.int32(2))).as_text()
    extra = all_reduced_bytes(text) - nbytes(params)
    assert 0 <= extra <= 64


def test_time_adds_latency_and_bandwidth():
    params = jax.ShapeDtypeStruct((2**20,), jnp.float32)
    times = dict(bandwidth=2.0**22, latency=1e-3)
    assert seconds_to_move(params, 1, **times) == 0
    assert seconds_to_move(params, 4, **times) == pytest.approx(1.5 + 6e-3)
    assert seconds_to_move(params, 4, stage=3, **times) == pytest.approx(2.25 + 9e-3)


def test_shapes_of_large_model_are_enough():
    params = jax.ShapeDtypeStruct((2**20, 10_000), jnp.float32)  # 42 GB
    found = bytes_per_device(params, lo.adam(1e-2), 4096, stage=3)
    size = 4 * 2**20 * 10_000 // 4096
    assert found[:2] == (size, size) and 0 < found.opt_state - 2 * size <= 16  # and counts


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: bytes_moved(SHAPES, 0), "devices is 0, but must be a whole number of at least 1"),
        (lambda: bytes_moved(SHAPES, 2, stage=4), "stage is 4; expected one of ZeRO's, 0, 1, 2 or"),
        (
            lambda: bytes_per_device(SHAPES, lo.sgd(1.0), 2.5),
            "devices is 2.5, but must be a whole number of at least 1",
        ),
        (
            lambda: seconds_to_move(SHAPES, 2, bandwidth=0.0),
            "bandwidth is 0.0, but must be a number above 0",
        ),
        (
            lambda: seconds_to_move(SHAPES, 2, bandwidth=1.0, latency=-1.0),
            "latency is -1.0, but must be a number of at least 0",
        ),
    ],
)
def test_scaling_rejects_bad_numbers(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call()
