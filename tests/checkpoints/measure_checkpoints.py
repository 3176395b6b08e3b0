"""Measure what checkpoints cost the default run of `lstm-optax train`, one every 100 steps.

    python tests/checkpoints/measure_checkpoints.py [STEPS] [REPEATS]

Runs with and without checkpoints take turns in one process, from the same program and data. Shown
are the medians of the seconds and of the processor seconds of all threads, and their ratios; and,
for a machine with other work, the processor seconds of a checkpoint alone, relative to 100 steps.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from flax import nnx

import lstm_optax as lo
from lstm_optax.runs.build import make_losses
from lstm_optax.runs.corpus import corpus_of
from lstm_optax.runs.devices import prepare_devices
from lstm_optax.runs.job import prepare

EVERY = 100


def measure(job, repeats: int) -> dict[str, np.ndarray]:
    """Return seconds, processor seconds and seconds inside `save`, for each run of each kind."""
    loss, _ = make_losses(nnx.graphdef(job.model), ar=0.0, tar=0.0)
    step = lo.make_step(loss, job.optimizer)
    found = {"without": [], "with": []}
    for repeat in range(repeats + 1):
        for name in sorted(found, reverse=repeat % 2 == 0):
            with tempfile.TemporaryDirectory() as folder:
                seconds = run(job, step, Path(folder) if name == "with" else None)
            if repeat:  # the first runs compile
                found[name].append(seconds)
    return {name: np.array(rows) for name, rows in found.items()}


def run(job, step, folder: Path | None) -> tuple[float, float, float]:
    saving, config = 0.0, job.config

    def save(history, state):
        nonlocal saving
        began = time.perf_counter()
        if folder:
            checkpoints.save(history[-1]["step"], state)
        saving += time.perf_counter() - began

    state = job.initial_state()
    options = dict(steps=config.steps, eval_every=EVERY, sharding=job.sharding, on_record=save)
    began = time.perf_counter(), sum(os.times()[:2])
    checkpoints = lo.Checkpoints(folder or Path("unused"))
    lo.fit(step, state, job.corpus.train, **options)
    checkpoints.wait()
    return time.perf_counter() - began[0], sum(os.times()[:2]) - began[1], saving


def measure_alone(job, count: int = 10) -> float:
    """Return the processor seconds of one checkpoint, complete, without a training."""
    state = job.initial_state()
    with tempfile.TemporaryDirectory() as folder, lo.Checkpoints(Path(folder)) as checkpoints:
        for step in range(count + 1):
            if step == 1:  # the first save imports more of Orbax
                checkpoints.wait()
                began = sum(os.times()[:2])
            checkpoints.save(step, state)
        checkpoints.wait()
        return (sum(os.times()[:2]) - began) / count


def main(steps: int = 400, repeats: int = 11) -> None:
    config = lo.TrainConfig(steps=steps, eval_every=EVERY)
    prepare_devices(config.batch, config.devices)
    job = prepare(config, corpus_of(config))
    alone = measure_alone(job)
    found = measure(job, repeats)
    medians = {name: np.median(rows, axis=0) for name, rows in found.items()}
    for name, (wall, processor, saving) in medians.items():
        print(f"{name:8}{wall:8.3f} s{processor:8.3f} s of processor{saving:8.4f} s inside save")
    ratios = np.median(found["with"][:, :2] / found["without"][:, :2], axis=0) - 1
    print(f"checkpoints cost {ratios[0]:.2%} of the time, {ratios[1]:.2%} of the processor time")
    share = alone / (medians["without"][1] * EVERY / steps)
    print(f"a checkpoint alone: {alone:.3f} s of processor, {share:.2%} of that of {EVERY} steps")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
