"""Meta-train the learned rule, and store the weights that are best on the selection's tasks.

    PYTHONPATH=tests/studies python -m learned.meta_train --minutes 8 [--evolution 0.9]

The first part of the time is truncated back-propagation; the rest is evolution on whole runs, from
the best weights so far. The rates follow a cosine of the elapsed time, so two runs do not give
equal weights.
"""

import argparse
import math
import random
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from learned import evolution, tbptt
from learned.meta_tasks import SELECTION, TRAINING, reparametrised
from learned.tensor_lstm import Theta, init_theta
from learned.weights import save_theta, theta_hash
from lstm_optax import records

ROOT = Path(__file__).parents[3]
LOG = ROOT / "docs/records/learned/meta_training.jsonl"
WEIGHTS = Path(__file__).with_name("weights.npz")
LONGEST = (100, 200, 500)  # of episodes, by the share of the first stage that is over
EVOLVED = ("perceptrons", "additions", "sines", "orders", "chains")
EVOLVED_STEPS, SELECTION_STEPS = 300, (300, 1000)
JUDGE_EVERY = 25  # seconds
FIRST_RATE, HEAD_RATE = 5e-4, 5e-3
LARGEST_ADVANTAGE = 0.3  # in a log loss of the selection


class Selection:
    """Keep the weights that are best against untrained ones, which are judged first."""

    def __init__(self, log: Path):
        self._score = evolution.make_score(SELECTION, SELECTION_STEPS)
        self._log, self._untrained = log, {}
        self.best, self.value = {}, math.inf

    def judge(self, theta: Theta, **facts: Any) -> None:
        scores = self._score(theta)
        self._untrained = self._untrained or scores
        value = mean_advantage(scores, self._untrained)
        if value < self.value:
            self.best, self.value = theta, value
        record = facts | {"selection": value, "scores": scores, "weights": theta_hash(theta)}
        records.append_record(self._log, record)
        print({name: x for name, x in record.items() if name != "scores"}, flush=True)


def mean_advantage(scores: dict[str, float], untrained: dict[str, float]) -> float:
    """Return the mean difference of log losses, each within ±LARGEST_ADVANTAGE; < 0 is better.

    Without the bound, a task whose loss is nearly 0 would decide alone.
    """
    differences = [scores[name] - untrained[name] for name in scores]
    return float(np.mean(np.clip(differences, -LARGEST_ADVANTAGE, LARGEST_ADVANTAGE)))


def cosine(share: float) -> float:
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(share, 1)))


def first_stage(theta: Theta, key: jax.Array, seconds: float, selection: Selection) -> Theta:
    """Return the weights after truncated back-propagation on the families in random turns."""
    begun = time.monotonic()
    families = {name: reparametrised(family) for name, family in TRAINING.items()}
    windows = {name: tbptt.make_window(family) for name, family in families.items()}
    keys = jax.random.split(key, len(families))
    episodes = {
        name: tbptt.start_episodes(families[name], theta, k, LONGEST[0])
        for name, k in zip(families, keys, strict=True)
    }
    optimizer = evolution.adam(1.0)
    state = optimizer.init(theta)
    update, judged, order = 0, begun, random.Random(0)
    step = jax.jit(lambda d, s, t, r: _outer_step(optimizer, d, s, t, r))
    while (share := (time.monotonic() - begun) / seconds) < 1:
        longest = LONGEST[min(int(share * len(LONGEST)), len(LONGEST) - 1)]
        for name in order.sample(list(families), len(families)):
            found, episodes[name], _ = windows[name](theta, episodes[name], longest)
            theta, state = step(found, state, theta, FIRST_RATE * cosine(share))
            update += 1
        if time.monotonic() - judged > JUDGE_EVERY:
            selection.judge(theta, stage="tbptt", updates=update, seconds=_since(begun))
            judged = time.monotonic()
    selection.judge(theta, stage="tbptt", updates=update, seconds=_since(begun))
    return theta


def second_stage(theta: Theta, key: jax.Array, seconds: float, selection: Selection) -> Theta:
    """Return the weights after evolution of the heads."""
    begun = time.monotonic()
    programs = [
        evolution.make_evolution(reparametrised(TRAINING[name]), EVOLVED_STEPS) for name in EVOLVED
    ]
    optimizer = evolution.adam(1.0)
    heads = {name: theta[name] for name in evolution.HEADS}
    state = optimizer.init(heads)
    update, judged = 0, begun
    while (share := (time.monotonic() - begun) / seconds) < 1:
        key, own = jax.random.split(key)
        slopes, _ = programs[update % len(programs)](theta, own)
        heads, state = _outer_step(optimizer, slopes, state, heads, HEAD_RATE * cosine(share))
        theta, update = theta | heads, update + 1
        if time.monotonic() - judged > 2 * JUDGE_EVERY:
            selection.judge(theta, stage="evolution", updates=update, seconds=_since(begun))
            judged = time.monotonic()
    selection.judge(theta, stage="evolution", updates=update, seconds=_since(begun))
    return theta


def _outer_step(optimizer: Any, derivative: Any, state: Any, weights: Any, rate: Any) -> Any:
    updates, state = optimizer.update(derivative, state, weights)
    updates = jax.tree.map(lambda u: rate * u, updates)
    return optax.apply_updates(weights, updates), state


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--evolution", type=float, default=0.9, help="share of the time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--log", type=Path, default=LOG)
    options = parser.parse_args()
    begun, seconds = time.monotonic(), 60 * options.minutes
    key, first, second = jax.random.split(jax.random.key(options.seed), 3)
    theta, selection = init_theta(key), Selection(options.log)
    given = {name: vars(options)[name] for name in ("minutes", "evolution", "seed")}
    facts = records.provenance("python -m learned.meta_train") | given
    records.append_record(options.log, facts)
    selection.judge(theta, stage="Nadam at the base rate", updates=0, seconds=0)
    left = max(1.0, seconds - (time.monotonic() - begun))
    first_stage(theta, first, (1 - options.evolution) * left, selection)
    left = max(1.0, seconds - (time.monotonic() - begun))
    second_stage(selection.best, second, left, selection)
    about = facts | {"selection": selection.value, "seconds": _since(begun)}
    about |= {"license": "Apache-2.0", "training": list(TRAINING), "selection tasks": [*SELECTION]}
    save_theta(options.out, selection.best, about)
    records.append_record(
        options.log, {"stored": theta_hash(selection.best), "seconds": _since(begun)}
    )


if __name__ == "__main__":
    main()
