"""`BatchSharding`: equal to one device up to rounding, and resumed runs equal to the bit."""

import socket
import subprocess
import sys
from pathlib import Path

import chex
import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax import nnx
from many_devices import needs_devices
from reproducible import reproducible

import lstm_optax as lo
from lstm_optax.training.step import program_of

pytestmark = needs_devices(toy.ROWS)
CARRY = np.zeros(toy.ROWS, np.float32)
DEVICES = jax.devices()[: toy.ROWS]
SHARDING = lo.BatchSharding(devices=DEVICES)


def fit_toy(sharding=SHARDING, state=None, **options):
    evaluate = lo.make_evaluate(toy.measure, CARRY, [toy.batches(99)], sharding=sharding)
    options = dict(steps=12, eval_every=4, steps_per_dispatch=3, evaluate=evaluate) | options
    return lo.fit(toy.STEP, state or toy.start()[1], toy.batches, sharding=sharding, **options)


@pytest.fixture(scope="module")
def uninterrupted():
    """An uninterrupted run on two devices."""
    return fit_toy()


def placements(tree):
    """Return the distinct pairs (number of devices, fully replicated?) of the leaves."""
    return {(len(x.sharding.device_set), x.is_fully_replicated) for x in jax.tree.leaves(tree)}


def test_sharded_run_equals_one_device_run(uninterrupted):
    one = fit_toy(sharding=None)
    assert placements(one.state) == {(1, True)}
    assert placements(uninterrupted.state.carry) == {(2, False)}
    assert placements(uninterrupted.state._replace(carry=())) == {(2, True)}
    for a, b in zip(reproducible(uninterrupted.history), reproducible(one.history), strict=True):
        assert a == pytest.approx(b, rel=2e-6)  # the devices add in another order
    state, other = jax.device_get((uninterrupted.state, one.state))
    chex.assert_trees_all_close(state, other, rtol=1e-5, atol=1e-6)


def test_sharded_fit_compiles_once():
    """Dispatches after a record or a checkpoint do not compile again."""
    step = lo.make_step(toy.loss, toy.OPTIMIZER)
    options = dict(steps=12, eval_every=4, steps_per_dispatch=3, sharding=SHARDING)
    with compiled.compilations() as names:
        lo.fit(step, toy.start()[1], toy.batches, **options)
    assert names.count("jit(program)") == 1


@pytest.mark.parametrize("dispatches", [1, 2, 4])
def test_resumed_sharded_run_equals_uninterrupted(uninterrupted, tmp_path, dispatches):
    stops = iter([False] * dispatches + [True])
    first = fit_toy(should_stop=lambda: next(stops))
    checkpoints = lo.Checkpoints(tmp_path)
    checkpoints.save(int(first.state.step), first.state)
    step, state, _ = checkpoints.restore(SHARDING.state(toy.start()[1]))
    assert step < 12 and placements(state.carry) == {(2, False)}
    second = fit_toy(state=state, history=first.history)
    chex.assert_trees_all_equal(second.state, uninterrupted.state)
    assert reproducible(second.history) == reproducible(uninterrupted.history)


@pytest.mark.parametrize("before, after", [(2, 1), (1, 2)])
def test_restore_changes_number_of_devices(uninterrupted, tmp_path, before, after):
    shardings = {1: lo.BatchSharding(devices=DEVICES[:1]), 2: SHARDING}
    checkpoints = lo.Checkpoints(tmp_path)
    first = fit_toy(shardings[before], steps=8)
    checkpoints.save(8, first.state)
    _, state, _ = checkpoints.restore(shardings[after].state(toy.start()[1]))
    chex.assert_trees_all_equal(jax.device_get(state), jax.device_get(first.state))
    second = fit_toy(shardings[after], state, history=first.history)
    assert len(second.state.carry.sharding.device_set) == after
    chex.assert_trees_all_close(
        jax.device_get(second.state), jax.device_get(uninterrupted.state), rtol=1e-5, atol=1e-6
    )


def test_evaluate_accepts_params_on_other_device():
    batches = [toy.batches(99), toy.batches(98)]
    evaluate = lo.make_evaluate(toy.measure, CARRY, batches, sharding=SHARDING)
    params = jax.device_put(toy.start()[1].params, jax.devices()[-1])
    expected = lo.make_evaluate(toy.measure, CARRY, batches)(toy.start()[1].params)
    assert evaluate(params) == pytest.approx(expected, rel=1e-6)


def test_axes_follow_vmap_in_axes():
    batch = {"x": np.ones((3, 4)), "more": (np.ones(4), np.ones((2, 4, 2))), "n": 5, "no": None}
    sharding = lo.BatchSharding({"x": 1, "more": (0, 1), "n": None, "no": 0}, devices=DEVICES)
    placed = sharding.batches(jax.tree.map(lambda x: np.stack([x] * 3), batch))
    assert placed["no"] is None
    shards = jax.tree.map(lambda x: x.addressable_shards[0].data.shape, placed)
    assert shards["x"] == (3, 3, 2) and shards["more"] == ((3, 2), (3, 2, 2, 2))
    assert shards["n"] == (3,)
    for axes in (0, (0, None)):
        carry = lo.BatchSharding(carry_axes=axes, devices=DEVICES).carry((CARRY, CARRY))
        assert placements(carry[0]) == {(2, False)}
        assert placements(carry[1]) == {(2, axes != 0)}


@pytest.mark.parametrize(
    "place, message",
    [
        (lambda s: s.carry(np.ones((3, 2))), r"the carry has 3 rows, in axis 0 of \(3, 2\), which"),
        (
            lambda s: s.carry((np.ones(2), np.ones(5))),
            r"carry\[1\] has 5 .* these numbers do: 1, 5$",
        ),
        (
            lambda s: s.batches({"x": np.ones((8, 4, 6 - 3))}),
            r"a batch\['x'\] has 3 rows, in axis 1",
        ),
        (
            lambda s: s.batches(np.ones((8, 4))),
            r"shape \(4,\), and no axis 1 .*in_axes of jax.vmap",
        ),
        (lambda s: lo.BatchSharding(devices=[]), "devices is empty; expected at least one"),
    ],
)
def test_sharding_rejects_indivisible_rows(place, message):
    with pytest.raises(ValueError, match=message):
        place(SHARDING)


@pytest.mark.slow
def test_no_all_reduce_inside_time_loops():
    """In the compiled program, gradients are summed only in the loop over steps."""
    model = lo.LSTM(3, 4, backend="fused", rngs=nnx.Rngs(0))  # `native` has no loop over time
    graphdef, params = nnx.split(model)

    def loss(params, carry, batch, key):
        outputs, carry = nnx.merge(graphdef, params)(batch, carry)
        return jnp.mean(outputs**2), carry

    state = lo.init_state(params, toy.OPTIMIZER, model.initial_carry(2), jax.random.key(0))
    step, batches = lo.make_step(loss, toy.OPTIMIZER), np.ones((4, 5, 2, 3), np.float32)
    placed = SHARDING.state(state), SHARDING.batches(batches)
    text = compiled.optimized(program_of(step).lower(*placed, np.int32(4))).as_text()
    loops = compiled.innermost_loops(text)
    assert len(loops) == 2 and not any("all-reduce" in loop for loop in loops)
    assert "all-reduce" in text


PROCESS = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 1)
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
import numpy as np
import toy
import lstm_optax as lo
from lstm_optax.training.step import program_of
sharding = lo.BatchSharding()
carry = np.zeros(toy.ROWS, np.float32)
evaluate = lo.make_evaluate(toy.measure, carry, [toy.batches(99)], sharding=sharding)
options = dict(steps=12, eval_every=4, steps_per_dispatch=3, evaluate=evaluate)
result = lo.fit(toy.STEP, toy.start()[1], toy.batches, sharding=sharding, **options)
print(*(record[name] for record in result.history for name in ("train_loss", "val_loss")))
"""


@pytest.mark.slow
def test_sharded_run_in_two_processes(uninterrupted):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, address, str(rank)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=100)[0].split("\n")[-2] for process in processes]
    names = ("train_loss", "val_loss")
    expected = [record[name] for record in uninterrupted.history for name in names]
    for line in printed:
        assert [float(number) for number in line.split()] == pytest.approx(expected, rel=2e-6)
