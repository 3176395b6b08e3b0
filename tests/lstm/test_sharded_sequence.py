"""With its rows on two devices, the layer has the same values and gradients, summed once."""

from functools import partial

import chex
import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from many_devices import needs_devices

from lstm_optax import CotangentClip, LSTMParams, LSTMState, lstm_sequence

pytestmark = needs_devices(2)
T, B, F, H = 5, 4, 3, 4
AT_ROWS = P(None, "rows")
SPECS = (LSTMParams(P(), P(), P()), AT_ROWS, LSTMState(P("rows"), P("rows")), P("rows"), AT_ROWS)


def mesh_of(axis_type):
    return jax.make_mesh((2,), ("rows",), (axis_type,), devices=jax.devices()[:2])


@pytest.fixture(scope="module")
def mesh():
    return mesh_of(AxisType.Auto)


@pytest.fixture(scope="module")
def arguments():
    """Return parameters, inputs, carry, lengths and resets."""
    rng = np.random.default_rng(0)
    params = [rng.normal(size=shape) for shape in ((F, 4 * H), (H, 4 * H), (4 * H,))]
    carry = LSTMState(*rng.normal(size=(2, B, H)))
    floats = (LSTMParams(*params), rng.normal(size=(T, B, F)), carry)
    floats = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), floats)
    return *floats, np.array([5, 3, 1, 4]), rng.random((T, B)) < 0.3


def loss(params, x, carry, lengths, resets, *, gradient, reverse=False, zero=False):
    carry = None if zero else carry
    options = dict(seq_lengths=lengths, resets=resets, reverse=reverse, gradient=gradient)
    options |= dict(backend="fused")
    options |= dict(cotangent_clip=CotangentClip(h=0.5))
    outputs, last = lstm_sequence(params, x, carry, **options)
    return jnp.sum(outputs**2) + jnp.sum(last.c)


def check(function, arguments, expected, once=True):
    """Equal to rounding; with `once`, the loop over time has no communication."""
    program = compiled.optimized(jax.jit(function).lower(*arguments))
    chex.assert_trees_all_close(program(*arguments), expected, rtol=1e-5, atol=1e-6)
    loops = compiled.innermost_loops(program.as_text())
    assert len(loops) >= 2 and "all-reduce" in program.as_text()
    assert once == (not any("all-reduce" in loop for loop in loops))


@pytest.mark.parametrize(
    "gradient, reverse, once",
    [
        pytest.param("stored", False, True, marks=pytest.mark.slow),
        ("stored", True, True),
        pytest.param("remat", False, True, marks=pytest.mark.slow),
        pytest.param("autodiff", False, False, marks=pytest.mark.slow),  # JAX sums in the loop
    ],
)
def test_sharded_equals_single_under_jit(mesh, arguments, gradient, reverse, once):
    f = partial(loss, gradient=gradient, reverse=reverse)
    f = jax.value_and_grad(f, (0, 1, 2))
    placed = jax.device_put(arguments, jax.tree.map(partial(NamedSharding, mesh), SPECS))
    check(f, placed, jax.jit(f)(*arguments), once)


@pytest.mark.parametrize(
    "gradient, zero",
    [
        ("stored", True),
        pytest.param("stored", False, marks=pytest.mark.slow),
        pytest.param("autodiff", True, marks=pytest.mark.slow),
    ],
)
def test_sharded_equals_single_explicit_axes(arguments, gradient, zero):
    """The default of `jax.make_mesh`: outputs have the sharding of x, XLA partitions the loop."""
    f = partial(loss, gradient=gradient, zero=zero)
    f = jax.value_and_grad(f, (0, 1) if zero else (0, 1, 2))
    shardings = jax.tree.map(partial(NamedSharding, mesh_of(AxisType.Explicit)), SPECS)
    placed = jax.device_put(arguments, shardings)
    check(f, placed, jax.jit(f)(*arguments), once=gradient == "stored")
    outputs, last = jax.eval_shape(lambda p, x: lstm_sequence(p, x), *placed[:2])
    specs = [leaf.sharding.spec for leaf in (outputs, last.h, last.c)]
    assert specs == [P(None, "rows", None), P("rows", None), P("rows", None)]


@pytest.mark.parametrize(
    "gradient, zero, inside",
    [("stored", True, False), ("stored", False, True), ("remat", False, False)]
    + [("autodiff", False, True), ("autodiff", True, False)],
)
@pytest.mark.slow
def test_sharded_equals_single_under_shard_map(mesh, arguments, gradient, zero, inside):
    """With the gradient inside or outside `shard_map`, and with a zero carry on all devices."""
    f = partial(loss, gradient=gradient, zero=zero)
    by = (0, 1) if zero else (0, 1, 2)

    def summed(*arguments):
        return jax.lax.psum(f(*arguments), "rows")

    split = partial(jax.shard_map, mesh=mesh, in_specs=SPECS)
    if inside:
        function = split(
            jax.value_and_grad(summed, by), out_specs=(P(), tuple(SPECS[i] for i in by))
        )
    else:
        function = jax.value_and_grad(split(summed, out_specs=P()), by)
    check(function, arguments, jax.jit(jax.value_and_grad(f, by))(*arguments))
