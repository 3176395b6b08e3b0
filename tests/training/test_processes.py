"""Several real processes: each passes its rows, all agree on when to stop, none prints more."""

import json

import jax
import pytest
from processes import CONNECT, run_processes

PROBLEM = """
import json
import sys
import warnings
import jax.numpy as jnp
import numpy as np
import toy
import lstm_optax as lo

ROWS = 4

def loss(params, carry, batch, key):
    means = {name: value.mean() for name, value in params.items()}
    return toy.loss(means, carry, batch, key)

def batches(position):
    x = np.random.default_rng(position).normal(size=(4, ROWS)).astype(np.float32)
    return x, np.cumsum(x, axis=0)

OPTIMIZER = lo.nadam(0.01)
STEP = lo.make_step(loss, OPTIMIZER)

def measure(params, carry, batch):
    value, carry = loss(params, carry, batch, jax.random.key(0))
    return (value, jnp.int32(1)), carry

def fit(batches=batches, rows=ROWS, sharding=None, **options):
    params = {"leak": jnp.full(8, 0.1), "gain": jnp.full((2, 4), 0.2)}
    state = lo.init_state(params, OPTIMIZER, jnp.zeros(rows), jax.random.key(1))
    options = dict(steps=8, eval_every=4, steps_per_dispatch=2) | options
    return lo.fit(STEP, state, batches, sharding=sharding, **options)

def fit_and_evaluate(batches=batches, rows=ROWS, sharding=None):
    carry = np.zeros(rows, np.float32)
    evaluate = lo.make_evaluate(measure, carry, [batches(99)], sharding=sharding)
    return losses(fit(batches, rows, sharding, evaluate=evaluate))

def losses(result):
    return [record[name] for record in result.history for name in ("train_loss", "val_loss")]
"""

AGREE = (
    CONNECT
    + PROBLEM
    + """
rank, count = jax.process_index(), jax.process_count()
mine = slice(rank * ROWS // count, (rank + 1) * ROWS // count)

def own(position):
    return tuple(part[:, mine] for part in batches(position))

def with_nan(position):  # in the rows of the last process
    x, y = own(position)
    return (x * np.nan if position == 5 and rank == count - 1 else x), y

local = lo.BatchSharding(local_rows=True, shard_state=True)
found, rows = {}, ROWS // count
found["losses"] = fit_and_evaluate(own, rows, local)
calls = iter(range(9))
stopped = fit(own, rows, local, should_stop=lambda: rank == count - 1 and next(calls) == 2)
found["stopped"] = [stopped.reason, int(stopped.state.step)]
try:
    fit(with_nan, rows, local)
except lo.NonFiniteError as error:
    found["not finite"] = error.step
try:
    fit(own, rows + rank, local)
except ValueError as error:
    found["unequal"] = str(error)

def first(length):  # the last process has fewer batches
    return (own(p) for p in range(length if rank == count - 1 else 99))

def absent(position):
    if position == 3 and rank == count - 1:
        raise OSError("no such file")
    return own(position)

with warnings.catch_warnings(action="ignore"):  # a generator cannot be restored
    for length in (4, 5):
        ended = fit(first(length), rows, local)
        found[f"ended {length}"] = [ended.reason, int(ended.state.step), ended.detail]
try:
    fit(absent, rows, local)
except (OSError, RuntimeError) as error:
    found["failed"] = str(error)
print(json.dumps(found))
"""
)


def expected_losses():
    space = {"jax": jax}
    exec(PROBLEM, space)
    return space["fit_and_evaluate"]()


def check_agreement(count):
    results = run_processes(AGREE, count, timeout=100)
    expected = expected_losses()
    for rank, result in enumerate(results):
        assert result.returncode == 0, result.stdout
        found = json.loads(result.stdout.splitlines()[-1])
        assert found["losses"] == pytest.approx(expected, rel=3e-7)
        assert found["stopped"] == ["interrupted", 4]
        assert found["not finite"] == 6
        assert found["unequal"] == (
            "the carries of the processes differ in size; expected equally many rows in each "
            "process"
        )
        last = f"process {count - 1}"
        for length in (4, 5):
            detail = f"{last} has no batch of position {length}, others do"
            assert found[f"ended {length}"] == ["data", length, detail]
        failed = f"{last} could not read a batch of positions 2 to 3: the reason is in the output"
        expected_error = "no such file" if rank == count - 1 else f"{failed} there"
        assert found["failed"] == expected_error


@pytest.mark.slow
def test_two_processes_agree():
    check_agreement(2)


@pytest.mark.slow
def test_four_processes_agree():
    check_agreement(4)
