"""Measure what watching costs, at the default size of `lstm-optax train`.

python tests/training/measure_watching.py [ROUNDS]

The variants alternate in one process. Each line is the median of a variant, and the median of its
ratio to the first variant of the same round. The metrics of a step cost less than a step varies, so
the update is also timed without the model, and the difference is given as a share of a step.
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
from lstm_optax.training.update import update_if_finite

STEPS = 8  # of a dispatch
UPDATES = 200  # of the parameters alone
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


def many_updates(update, state):
    """Return a function that makes `UPDATES` updates of the parameters, with no model."""
    fixed = jax.tree.map(lambda p: jnp.full_like(p, 1e-3), state.params)

    def one(i, carry):
        params, opt_state, seen = carry
        # they change from step to step, so that nothing can be moved out of the loop
        grads = jax.tree.map(lambda p, g: 1e-3 * p + g * (1.0 + i), params, fixed)
        params, opt_state, metrics = update(params, opt_state, grads)
        return params, opt_state, seen + sum(jnp.sum(m) for m in jax.tree.leaves(metrics))

    @jax.jit
    def many(params, opt_state):
        return jax.lax.fori_loop(0, UPDATES, one, (params, opt_state, jnp.zeros([])))

    return lambda: jax.block_until_ready(many(state.params, state.opt_state))


def updates_alone(optimizer, state):
    """Return the variants of an update, without and with its metrics."""
    optimizer, loss = optax.with_extra_args_support(optimizer), jnp.ones([])

    def bare(params, opt_state, grads):
        updates, opt_state = optimizer.update(grads, opt_state, params, value=loss)
        return optax.apply_updates(params, updates), opt_state, ()

    def usual(params, opt_state, grads):
        old = state._replace(params=params, opt_state=opt_state)
        params, opt_state, metrics = update_if_finite(optimizer, loss, grads, old, {"value": loss})
        return params, opt_state, (metrics.grad_norm, metrics.update_ratio)

    variants = {"update only": bare, "all metrics": usual}
    return {name: many_updates(update, state) for name, update in variants.items()}


def compare(title, variants, rounds):
    """Print the time of each variant, run in turn; return the medians in seconds."""
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
    return [statistics.median(found) for found in times.values()]


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
    step_time = compare(f"a dispatch of {STEPS} steps", steps, rounds)[0] / STEPS
    variants = updates_alone(job.optimizer, job.initial_state())
    bare, watched = compare(f"{UPDATES} updates without a model", variants, rounds)
    extra = (watched - bare) / UPDATES
    print(f"  {1e6 * extra:.0f} µs for each update, {extra / step_time:.2%} of a step")
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
