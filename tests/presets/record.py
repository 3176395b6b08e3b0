"""Record the trajectories of the installed sources, so that parity is proven without them.

Run from this folder, where PyTorch and Keras are installed: `python record.py`. It writes
recorded.npz: the problem, the parameters after each step for each case, and
the versions that made them.
"""

import os
from importlib.metadata import version
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import jax
import numpy as np
from live import PATHS
from preset_cases import CASES, joined, problem

RECORDED = Path(__file__).parent / "recorded.npz"
STEPS, SHAPES = 50, ((2, 1), (2,))


def record() -> None:
    """Run every case of an installed source, and write its parameters."""
    at = problem(STEPS, SHAPES)
    arrays = {
        "params": joined([p[None] for p in at.params])[0],
        "gradients": joined(at.gradients),
        "rates": at.rates,
        "versions": np.array([f"{n} {version(n)}" for n in ("numpy", "torch", "keras", "jax")]),
    }
    for case in CASES:
        if case.source in PATHS:
            arrays[str(case)] = joined(PATHS[case.source](case, at))[1:]
    np.savez_compressed(RECORDED, **arrays)
    print(f"{len(arrays)} arrays, {RECORDED.stat().st_size:,} bytes in {RECORDED}")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    record()
