"""A task without an LSTM that compiles fast, and its training by `fit`."""

import jax
import jax.numpy as jnp
import numpy as np

import lstm_optax as lo
from lstm_optax.records import as_json
from lstm_optax.studies.study_log import StudyLog
from lstm_optax.studies.trial import make_trials
from lstm_optax.studies.trial_program import TrialProgram
from lstm_optax.studies.trial_runner import TrialRunner
from lstm_optax.tasks import Task

STEPS, EVERY = 12, 4


def init(key):
    return {"x": jax.random.normal(key, (2,))}


def loss(params, carry, batch, key):
    """Return a quadratic about a moving target, with noise from the key, and the target."""
    carry = 0.9 * carry + batch.mean(0)
    noise = jax.random.normal(key, ())
    return jnp.mean(jnp.square(params["x"] - carry)) + 0.1 * noise * params["x"][0], carry


def batches(position, seed):
    return np.random.default_rng([seed, position]).normal(size=(3, 2)).astype(np.float32)


def evaluate(params):
    value = jnp.sum(jnp.square(params["x"] - 1))
    return {"validation": value, "test": value + 1}


def make_task(**changes):
    """Return the task with some of its fields replaced."""
    fields = dict(name="quadratic", init=init, loss=loss, batches=batches, evaluate=evaluate)
    fields |= dict(initial_carry=lambda: jnp.zeros(2), steps=STEPS, eval_every=EVERY)
    return Task(**fields | changes)


def run_trials(factory, trials, task=None, *, until=None, folder=None, **options):
    """Run trials, and return their records and the runner."""
    task, log = task or make_task(), StudyLog(folder, "sweep", {}, {})
    traced = [name for name, value in trials[0].hyper.items() if isinstance(value, float)]
    program = TrialProgram(task, factory, traced=traced, trials=len(trials), **options)
    runner = TrialRunner(program, log, steps=task.steps, eval_every=task.eval_every)
    runner.run(trials, until)
    return log.read().trials, runner


def rate_trials(rates, seeds=(1000,)):
    return make_trials("a", {"learning_rate": tuple(rates)}, seeds)


def fit_records(optimizer, seed, task=None):
    """Return what a trial of one seed must record, from `fit`."""
    task = task or make_task()
    init_key, step_key = jax.random.split(jax.random.key(seed))
    carry = task.initial_carry()
    state = lo.init_state(task.init(init_key), optimizer, carry, step_key)
    result = lo.fit(
        lo.make_step(task.loss, optimizer),
        state,
        lambda position: task.batches(position, seed),
        steps=task.steps,
        evaluate=lambda params: dict(task.evaluate(params)),
        metric=task.metric,
        larger_is_better=task.larger_is_better,
        eval_every=task.eval_every,
    )
    names = {"train_loss": "loss", "val_validation": "validation", "val_test": "test"}
    kept = ("step", "loss", "grad_norm", "learning_rate", "validation", "test")
    rows = [{names.get(n, n): value for n, value in row.items()} for row in result.history]
    return [as_json({name: row[name] for name in kept}) for row in rows]


def assert_same_rows(found, expected, rtol=1e-5):
    """Compare evaluations without their seconds."""
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        for name, value in other.items():
            if name in ("record", "trial", "seconds"):
                continue
            if value is None:
                assert row[name] is None, (name, row)
            else:
                np.testing.assert_allclose(row[name], value, rtol, 1e-7, err_msg=name)


def without_seconds(record):
    """Return records as text of everything except measured times."""
    if isinstance(record, dict):
        dropped = ("seconds", "compile_seconds", "load")
        return {n: without_seconds(v) for n, v in record.items() if n not in dropped}
    return [without_seconds(r) for r in record] if isinstance(record, list) else record
