"""Measure what watching costs, at the default size of `lstm-optax train`.

python tests/training/measure_watching.py [ROUNDS]

The variants alternate in one process. Each line is the median of a variant, and the median of its
ratio to the first variant of the same round.
"""

import statistics
import sys
import tempfile
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lstm_optax import TrainConfig, fit, make_step, run_steps
from lstm_optax.runs.build import make_losses
from lstm_optax.runs.corpus import corpus_of
from lstm_optax.runs.job import prepare
from lstm_optax.runs.memory import memory_in_use
from lstm_optax.training import TensorBoardLogger
from lstm_optax.training.metrics import OptimizerEvents, StepMetrics

STEPS = 8  # of a dispatch
INTERVAL = 50  # the default of --eval-every


def bare_step(loss, optimizer):
    """Return a step that measures the loss only."""

    def step(state, batch):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        (value, carry), grads = jax.value_and_grad(loss, has_aux=True)(
            state.params, state.carry, batch, key
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, value=value)
        params = optax.apply_updates(state.params, updates)
        new = state._replace(step=state.step + 1, position=state.position + 1, params=params)
        no = OptimizerEvents(*[jnp.bool_(False)] * len(OptimizerEvents._fields))
        metrics = StepMetrics(value, jnp.zeros([]), (), *no)
        return new._replace(opt_state=opt_state, carry=carry), metrics

    return step


class Runner:
    """Run dispatches of one step function on the batches of a job."""

    def __init__(self, job, step):
        self.job, self.step, self.state = job, step, job.initial_state()
        self.position = 0

    def dispatch(self):
        batches = [self.job.corpus.train(self.position + i) for i in range(STEPS)]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
        if self.job.sharding:
            stacked = self.job.sharding.batches(stacked)
        self.position += STEPS
        self.state, metrics = run_steps(self.step, self.state, stacked, STEPS)
        return metrics

    def at_once(self, count=1):
        for _ in range(count):
            float(jax.device_get(self.dispatch()).loss)

    def one_late(self, count=1):
        before = self.dispatch()
        for _ in range(count - 1):
            now = self.dispatch()
            float(jax.device_get(before).loss)
            before = now
        float(jax.device_get(before).loss)


def compare(title, variants, rounds):
    """Print the time of each variant, run in turn."""
    times = {name: [] for name in variants}
    for run in variants.values():
        run()
    for turn in range(rounds):
        names = list(variants) if turn % 2 else list(variants)[::-1]
        for name in names:
            begun = time.perf_counter()
            variants[name]()
            times[name].append(time.perf_counter() - begun)
    first = next(iter(times.values()))
    print(title)
    for name, found in times.items():
        ratios = [a / b for a, b in zip(found, first, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        median = 1e3 * statistics.median(found)
        print(f"  {name:28} {median:8.1f} ms   {middle:6.3f} (quartiles {low:.3f}, {high:.3f})")


def main(rounds):
    config = TrainConfig()
    job = prepare(config, corpus_of(config))
    loss, _ = make_losses(nnx.graphdef(job.model))
    usual = make_step(loss, job.optimizer)
    runners = {
        "loss only": Runner(job, bare_step(loss, job.optimizer)),
        "all metrics": Runner(job, usual),
    }
    print(f"{config.batch} × {config.window} characters, {len(job.devices)} devices")
    steps = {name: runner.at_once for name, runner in runners.items()}
    compare(f"a dispatch of {STEPS} steps", steps, rounds)
    runner = runners["all metrics"]
    reading = {
        "metrics read at once": partial(runner.at_once, 4),
        "read one dispatch late": partial(runner.one_late, 4),
    }
    compare(f"4 dispatches of {STEPS} steps", reading, rounds)
    options = dict(steps=INTERVAL, eval_every=INTERVAL, sharding=job.sharding)
    with tempfile.TemporaryDirectory() as folder, TensorBoardLogger(folder) as log:
        offset = iter(range(0, 10**9, INTERVAL))

        def watch(history, state):
            at = next(offset)
            shown = [record | memory_in_use(job.devices) for record in history]
            log([record | {"step": record["step"] + at} for record in shown])

        def run(on_record):
            fit(usual, job.initial_state(), job.corpus.train, on_record=on_record, **options)

        records = {
            "no callback": lambda: run(lambda history, state: None),
            "memory and TensorBoard": lambda: run(watch),
        }
        compare(f"a fit of {INTERVAL} steps and one record", records, rounds)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
