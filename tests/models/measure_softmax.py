"""Measure output layers for many words: a train step with a full and an adaptive softmax.

    python tests/models/measure_softmax.py [VOCABULARY HIDDEN BATCH WINDOW]

The words follow Zipf's law. Each program runs in turn, many times; shown are medians, and their
ratio to that of the full softmax at once.
"""

import sys
import time

import jax
import numpy as np
from flax import nnx

import lstm_optax as lo
from lstm_optax.data import Batch
from lstm_optax.models import language
from lstm_optax.runs.build import make_losses
from lstm_optax.runs.corpus import cutoffs_of

PROGRAMS = {  # options of the model, and the logits that are computed at once
    "full, at once": ({}, 2**40),
    "full, in chunks": ({}, 0),
    "full, tied, at once": (dict(tied=True), 2**40),
    "full, tied, in chunks": (dict(tied=True), 0),
    "adaptive": (dict(adaptive=True), 2**24),
}


def make_program(vocabulary, hidden, batch, window, *, tied=False, adaptive=False):
    """Return a step, its state and its batch."""
    rngs, rng = nnx.Rngs(0), np.random.default_rng(0)
    cutoffs = cutoffs_of(vocabulary) if adaptive else ()
    layer = lo.LSTM(hidden, hidden, rngs=rngs)
    model = lo.LanguageModel(vocabulary, layer, tied=tied, cutoffs=cutoffs, rngs=rngs)
    graphdef, params = nnx.split(model)
    optimizer = lo.sgd(1e-3)
    step = lo.make_step(make_losses(graphdef)[0], optimizer)
    carry = model.lstm.initial_carry(batch)
    weights = 1 / (np.arange(vocabulary) + 2.7)
    words = rng.choice(vocabulary, (2, window, batch), p=weights / weights.sum()).astype(np.int32)
    resets = np.zeros((window, batch), bool)
    state = lo.init_state(params, optimizer, carry, jax.random.key(0))
    stacked = jax.tree.map(lambda a: np.stack([a] * 2), Batch(*words, resets))
    return step, state, stacked


if __name__ == "__main__":
    sizes = [int(word) for word in sys.argv[1:]] or [33_278, 200, 20, 35]
    programs = {}
    for name, (options, at_once) in PROGRAMS.items():
        language.MOST_LOGITS = at_once
        step, state, stacked = make_program(*sizes, **options)
        programs[name] = [step, *lo.run_steps(step, state, stacked, 1)[:1], stacked]
    times = {name: [] for name in programs}
    for _ in range(15):
        for name, program in programs.items():
            step, state, stacked = program
            start = time.perf_counter()
            program[1] = jax.block_until_ready(lo.run_steps(step, state, stacked, 2)[0])
            times[name].append((time.perf_counter() - start) / 2)
    medians = {name: float(np.median(seconds)) for name, seconds in times.items()}
    print(f"JAX {jax.__version__}, {jax.devices()[0].device_kind}; sizes {sizes}")
    for name, median in medians.items():
        ratio = medians["full, at once"] / median
        print(f"{name:24} {1e3 * median:8.1f} ms, {ratio:5.2f} times as fast")
