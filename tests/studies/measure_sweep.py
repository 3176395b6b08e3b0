"""Measure 16 trials by the engine of `sweep` on two CPU devices against the same ones by `fit`.

All are warm: compiled before, with the same batches, evaluations and steps; `fit` trains one trial
after another on one device, by the native and by the fused backend: the calls of both use part of
the second core, too. They alternate, and the medians of the ratios count.

    python tests/studies/measure_sweep.py [UNITS…]
"""

import sys
import time
from unittest import mock

import jax
import numpy as np

jax.config.update("jax_num_cpu_devices", 2)

import lstm_optax as lo  # noqa: E402
from lstm_optax.lstm.native import library  # noqa: E402
from lstm_optax.studies.contender import Budget, Contender  # noqa: E402
from lstm_optax.studies.study_log import StudyLog  # noqa: E402
from lstm_optax.studies.trial import make_trials  # noqa: E402
from lstm_optax.tasks import characters  # noqa: E402

TRIALS, RATE, ROUNDS = 16, 1e-3, 5
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


def fit_program(task, optimizer):
    """Return a step and an evaluation, with compiled functions of their own."""
    return lo.make_step(task.loss, optimizer), jax.jit(lambda params: task.evaluate(params))


def measure(units):
    """Return the seconds of each way, for each round: of the wall, and of the cores."""
    steps = STEPS[units]
    task = characters(hidden=units, held_out=0.01, steps=steps, eval_every=steps // 2)
    optimizer = lo.nadam(RATE)
    native, fused = fit_program(task, optimizer), fit_program(task, optimizer)
    budget = Budget(task.steps, task.eval_every)
    contender = Contender("nadam", lo.nadam, task, budget, StudyLog(None, "sweep", {}, {}))
    seeds = range(TRIALS)
    ways = {
        "sweep": lambda: sweep_all(contender, seeds),
        "fit": lambda: fit_all(task, seeds, native[0], optimizer, native[1]),
        "fit, fused": lambda: fit_all(task, seeds, fused[0], optimizer, fused[1]),
    }
    ways["sweep"]()
    fit_all(task, seeds[:1], native[0], optimizer, native[1])
    with mock.patch.object(library, "missing", lambda: "left out"):
        fit_all(task, seeds[:1], fused[0], optimizer, fused[1])
    found = {name: [] for name in ways}
    for _ in range(ROUNDS):
        losses = []
        for name, run in ways.items():
            began = clocks()
            losses.append(run())
            found[name].append(clocks() - began)
        worst = np.abs(np.diff(losses, axis=0)).max()
        assert worst < 1e-3, worst
    return {name: np.array(rounds) for name, rounds in found.items()}


if __name__ == "__main__":
    for units in map(int, sys.argv[1:] or ("64", "16", "128", "256")):
        found = measure(units)
        for name, rounds in found.items():
            wall, cores = np.median(rounds[:, 0]), np.median(rounds[:, 1] / rounds[:, 0])
            ratio = np.median(found["sweep"][:, 0] / rounds[:, 0])
            shown = f"{wall:.2f} s, {cores:.2f} cores"
            print(f"{units} units: {name} {shown}, sweep takes {ratio:.2f} of it", flush=True)
