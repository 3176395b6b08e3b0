"""Why momentum ends an epoch of DeepOBS's `tolstoi_char_rnn` above the published loss.

    python tests/studies/study_deepobs_momentum.py --data war_and_peace.txt [--out DIR] [--quick]

One epoch with three seeds of variants that the source leaves open; a stopped study continues.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.optimizers import nesterov_sgd
from lstm_optax.reproductions.char_rnn import QUICK, char_rnn
from lstm_optax.reproductions.plan import Group, Plan
from lstm_optax.reproductions.published import WAR_AND_PEACE
from lstm_optax.studies.trial import REPORT, make_trials

RATE, MOMENTUM, SEEDS = 0.0398, 0.99, 3


class LazyState(NamedTuple):
    """State of `lazy_momentum`."""

    velocity: Any


def lazy_momentum(learning_rate: Any) -> optax.GradientTransformation:
    """Return momentum that leaves embedding rows without a gradient alone, as TensorFlow 1 does.

    v ← m v + g, returns −α v, for the rows of the characters in the batch
    """

    def init(params):
        return LazyState(jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None):
        del params

        def present(path, g):
            is_table = "embedding" in jax.tree_util.keystr(path)
            return jnp.any(g != 0, axis=-1, keepdims=True) if is_table else jnp.bool_(True)

        seen = jax.tree_util.tree_map_with_path(present, updates)
        velocity = jax.tree.map(
            lambda s, v, g: jnp.where(s, MOMENTUM * v + g, v), seen, state.velocity, updates
        )
        steps = jax.tree.map(lambda s, v: jnp.where(s, -learning_rate * v, 0), seen, velocity)
        return steps, LazyState(velocity)

    return optax.GradientTransformation(init, update)


VARIANTS = {
    "Nesterov": lambda learning_rate: nesterov_sgd(learning_rate, momentum=MOMENTUM),
    "lazy embedding rows": lazy_momentum,
}


def make_plan(text: str, *, quick: bool = False) -> Plan:
    """Return the trials of all variants."""
    sizes: dict[str, int] = QUICK if quick else {}
    task = char_rnn(text, epochs=1, **sizes)
    grid = {"learning_rate": (RATE,)}
    groups = [
        Group(name, task, factory, make_trials(name, grid, range(SEEDS), REPORT))
        for name, factory in VARIANTS.items()
    ]
    return Plan("deepobs-momentum", groups, {"momentum": MOMENTUM})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", default="docs/records/deepobs_momentum", type=Path)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    plan = make_plan(WAR_AND_PEACE.read(given.data).decode("utf-8"), quick=given.quick)
    command = f"python tests/studies/study_deepobs_momentum.py --data {given.data}"
    records = plan.run(given.out, command)
    for trial in records.trials.values():
        print(trial.name, f"test {trial.evaluations[-1]['test']:.3f}")
