"""Measure 16 trials by the engine of `sweep` on two CPU devices against the same ones by `fit`.

Both are warm: compiled before, with the same batches, evaluations and steps; `fit` trains one trial
after another on one device. They alternate, and the median of three ratios counts.

    python tests/studies/measure_sweep.py [UNITS…]
"""

import sys
import time

import jax
import numpy as np

jax.config.update("jax_num_cpu_devices", 2)

import lstm_optax as lo  # noqa: E402
from lstm_optax.studies.contender import Budget, Contender  # noqa: E402
from lstm_optax.studies.study_log import StudyLog  # noqa: E402
from lstm_optax.studies.trial import make_trials  # noqa: E402
from lstm_optax.tasks import characters  # noqa: E402

TRIALS, RATE, ROUNDS = 16, 1e-3, 3
STEPS = {16: 48, 64: 32, 128: 16, 256: 8}


def fit_all(task, seeds, step, optimizer, evaluate):
    """Train one seed after another, and return the last losses."""
    losses = []
    for seed in seeds:
        init_key, step_key = jax.random.split(jax.random.key(seed))
        params = init(task)(init_key)
        state = lo.init_state(params, optimizer, task.initial_carry(), step_key)
        result = lo.fit(
            step,
            state,
            lambda position, seed=seed: task.batches(position, seed),
            steps=task.steps,
            evaluate=lambda params: dict(evaluate(params)),
            metric="validation",
            eval_every=task.eval_every,
            steps_per_dispatch=task.eval_every,
        )
        losses.append(result.history[-1]["val_validation"])
    return losses


def init(task, compiled={}):  # noqa: B006
    """Return the compiled initialisation of a task."""
    return compiled.setdefault(task.settings["hidden"], jax.jit(task.init))


def sweep_all(contender, seeds):
    """Train the seeds by the engine, and return the last losses."""
    contender.log = StudyLog(None, "sweep", {}, {})
    for runner in contender._runners.values():
        runner.log = contender.log
    contender.run(make_trials("nadam", {"learning_rate": (RATE,)}, seeds))
    trials = contender.log.read().trials.values()
    return [trial.evaluations[-1]["validation"] for trial in trials]


def clocks():
    return np.array([time.perf_counter(), time.process_time()])


def measure(units):
    """Return the seconds of `fit` and of the engine, for each round: of the wall, of the cores."""
    steps = STEPS[units]
    task = characters(hidden=units, held_out=0.01, steps=steps, eval_every=steps // 2)
    optimizer = lo.nadam(RATE)
    step, evaluate = lo.make_step(task.loss, optimizer), jax.jit(task.evaluate)
    budget = Budget(task.steps, task.eval_every)
    contender = Contender("nadam", lo.nadam, task, budget, StudyLog(None, "sweep", {}, {}))
    seeds, rounds = range(TRIALS), []
    sweep_all(contender, range(TRIALS))
    fit_all(task, seeds[:1], step, optimizer, evaluate)
    for _ in range(ROUNDS):
        began = clocks()
        found = fit_all(task, seeds, step, optimizer, evaluate)
        middle = clocks()
        other = sweep_all(contender, seeds)
        rounds.append((middle - began, clocks() - middle))
        worst = max(abs(a - b) for a, b in zip(found, other, strict=True))
        assert worst < 1e-3, worst
    return rounds


if __name__ == "__main__":
    for units in map(int, sys.argv[1:] or ("64", "16", "128", "256")):
        rounds = measure(units)
        shown = ", ".join(f"{fit[0]:.2f} s → {ours[0]:.2f} s" for fit, ours in rounds)
        wall, cores = np.median([ours / fit for fit, ours in rounds], 0)
        print(f"{units} units: wall {wall:.2f} of fit ({shown}), cores {cores:.2f}", flush=True)
