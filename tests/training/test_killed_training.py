"""Trainings that are killed while they save: nothing is lost but the newest steps."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import chex
import jax
import numpy as np
import toy

import lstm_optax as lo
from lstm_optax.records import PARTIAL

EVERY = 5  # steps between two checkpoints
PROGRAM = f"""
import os
import sys
import toy
import lstm_optax as lo
from lstm_optax.checkpoints import orbax_io  # what a child needs is imported once

def train():
    checkpoints = lo.Checkpoints(sys.argv[1])
    state = toy.start()[1]
    if checkpoints.steps():
        state = checkpoints.restore(state)[1]

    def save(history, state):
        print(int(state.step), flush=True)
        checkpoints.save(int(state.step), state)

    lo.fit(toy.STEP, state, toy.batches, steps=10**6, eval_every={EVERY}, on_record=save)

for line in sys.stdin:
    if (child := os.fork()) == 0:
        print(os.getpid(), flush=True)
        train()
    print("ended by", os.waitpid(child, 0)[1], flush=True)
"""


@contextmanager
def killed_at_end(process):
    """Kill a process and its children at the end, or after two minutes."""

    def kill():
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(120, kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        kill()


def test_six_kills_lose_no_checkpoint(tmp_path):
    """Each of six trainings continues from the last one and is killed; the end is unchanged."""
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(jax.config.jax_num_cpu_devices),
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    options = dict(env=environment, cwd=Path(toy.__file__).parent, start_new_session=True)
    options |= dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    random, checkpoints, newest = np.random.default_rng(0), lo.Checkpoints(tmp_path), 0
    with subprocess.Popen(command, **options) as own, killed_at_end(own):
        for _ in range(6):
            own.stdin.write("train\n")
            own.stdin.flush()
            child, *begun = (int(own.stdout.readline()) for _ in range(4))
            assert begun[0] == newest + EVERY  # it has continued from the newest checkpoint
            time.sleep(random.uniform(0, 0.2))
            os.kill(child, signal.SIGKILL)
            while (line := own.stdout.readline()).rstrip().isdecimal():
                begun.append(int(line))
            assert line == f"ended by {signal.SIGKILL:d}\n"
            newest, state, damaged = checkpoints.restore(toy.start()[1])
            # a save waits for the one before it: only the last two may not be complete
            assert damaged == [] and newest in begun[-3:] and newest == state.step
            known = {f"{step}{end}" for step in checkpoints.steps() for end in ("", ".sha256")}
            others = {path.name for path in tmp_path.iterdir()} - known
            leftover = re.compile(rf"(\d+)(\.orbax-checkpoint-tmp|\.sha256{PARTIAL})?")
            assert all(leftover.fullmatch(name) for name in others), others
    options = dict(steps=newest + EVERY, eval_every=EVERY)
    resumed = lo.fit(toy.STEP, state, toy.batches, **options)
    unbroken = lo.fit(toy.STEP, toy.start()[1], toy.batches, **options)
    chex.assert_trees_all_equal(resumed.state, unbroken.state)
