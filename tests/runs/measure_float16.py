"""Measure how far trainings in half precision end from those in float32, and what causes it.

    python tests/runs/measure_float16.py [SEEDS [PART]]

The run of docs/numerics.md, from each seed in each variant, or in those whose names have PART, such
as bfloat16. Shown are differences of the loss from float32 of the same seed in %: the mean over
seeds with its 95 % interval, and the largest. `train` is the mean of the last 50 steps; `rare` is
the validation loss without targets that repeat the character before them, such as the dashes of a
table. The second table has the largest error of a parameter's gradient at the end of a training,
relative to its norm.
"""

import sys
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from flax import nnx

import lstm_optax as lo
from lstm_optax.runs.build import make_losses, make_model, make_optimizer, make_schedule
from lstm_optax.runs.corpus import corpus_of
from lstm_optax.training.evaluation import sum_over_batches

CONFIG = lo.TrainConfig(hidden=64, embedding=16, batch=16, window=32, steps=300, validation=20_000)
CORPUS = corpus_of(CONFIG)
LAST = 50


class Variant(NamedTuple):
    """What differs from the run in float32."""

    dtype: str = "float32"  # of the products
    param_dtype: str = "float32"
    backend: str = "auto"
    scaled: bool = True  # float16 only
    start: str = "exact"
    optimizer: str = "nadam"
    learning_rate: float = CONFIG.learning_rate


SGD = dict(optimizer="sgd", learning_rate=1.0)
SLOW = dict(learning_rate=1e-4)
VARIANTS = {
    "float32, fused backend": Variant(backend="fused"),
    "float32 from shifted parameters": Variant(start="shifted"),
    "float32 from rounded parameters": Variant(start="rounded"),
    "float16": Variant("float16"),
    "float16, fused backend": Variant("float16", backend="fused"),
    "float16 without loss scaling": Variant("float16", scaled=False),
    "float16, parameters too": Variant("float16", "float16"),
    "float16 parameters, float32 products": Variant("float32", "float16"),
    "bfloat16": Variant("bfloat16"),
    "bfloat16, parameters too": Variant("bfloat16", "bfloat16"),
    "sgd 1: float16": Variant("float16", **SGD),
    "sgd 1: float16, parameters too": Variant("float16", "float16", **SGD),
    "nadam 1e-4: float16": Variant("float16", **SLOW),
    "nadam 1e-4: float16, parameters too": Variant("float16", "float16", **SLOW),
}


def stack(batches):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


TRAIN = stack([CORPUS.train(p) for p in range(CONFIG.steps)])
WHOLE = stack(list(CORPUS.validation))
RARE = WHOLE._replace(targets=np.where(WHOLE.inputs == WHOLE.targets, -1, WHOLE.targets))


def start(kind: str, leaf: jax.Array, rng: np.random.Generator) -> jax.Array:
    """Return a parameter as it is, rounded to float16, or shifted by up to half its last digit."""
    if kind == "rounded":
        return leaf.astype(jnp.float16).astype(leaf.dtype)
    shift = np.spacing(np.float16(leaf)) * np.float32(rng.uniform(-0.5, 0.5, leaf.shape))
    return leaf + shift if kind == "shifted" else leaf


def build(variant: Variant, seed: int, rng: np.random.Generator) -> tuple:
    """Return graphdef, parameters, and the carry before the first step."""
    config = replace(CONFIG, seed=seed, dtype=variant.dtype)
    model = make_model(config, len(CORPUS.vocabulary))
    model.lstm.backend = variant.backend
    graphdef, params = nnx.split(model)
    params = jax.tree.map(lambda leaf: start(variant.start, leaf, rng), params)
    params = jax.tree.map(lambda leaf: leaf.astype(variant.param_dtype), params)
    return graphdef, params, model.lstm.initial_carry(CONFIG.batch)


def train(variant: Variant, seeds) -> tuple[np.ndarray, list]:
    """Return the losses `train`, validation and `rare` of each seed, [3, seeds], and parameters."""
    rng = np.random.default_rng(0)
    starts = [build(variant, seed, rng) for seed in seeds]
    graphdef, _, carry = starts[0]
    dtype = variant.dtype if variant.scaled else "float32"
    options = dict(optimizer=variant.optimizer, learning_rate=variant.learning_rate, dtype=dtype)
    config = replace(CONFIG, **options)
    optimizer = make_optimizer(config, make_schedule(config))
    loss, measure = make_losses(graphdef)
    step = lo.make_step(loss, optimizer)

    def mean(params, batches):
        (totals, counts), _ = sum_over_batches(measure, params, carry, batches)
        return jnp.sum(totals) / jnp.sum(counts)

    def run(params):
        state = lo.init_state(params, optimizer, carry, jax.random.key(0))
        state, metrics = jax.lax.scan(step, state, TRAIN)
        ends = mean(state.params, WHOLE), mean(state.params, RARE)
        return jnp.stack([jnp.mean(metrics.loss[-LAST:]), *ends]), state.params

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[params for _, params, _ in starts])
    losses, params = jax.jit(lambda p: jax.lax.map(run, p))(stacked)
    return np.asarray(losses, np.float64).T, params


def describe(losses: np.ndarray, exact: np.ndarray) -> str:
    percent = 100 * (losses / exact - 1)  # [3, seeds]
    count = percent.shape[1]
    half = scipy.stats.t.ppf(0.975, count - 1) * percent.std(1, ddof=1) / count**0.5
    rows = zip(percent.mean(1), half, abs(percent).max(1), strict=True)
    return "".join(f"{f'{m:+.3f} ± {h:.3f} ({most:.3f})':>26}" for m, h, most in rows)


def gradients(params, variant: Variant, batch: int, window: int, scale: float) -> list:
    config = replace(CONFIG, batch=batch, window=window)
    graphdef, _, _ = build(variant, 0, np.random.default_rng(0))
    carry = make_model(config, len(CORPUS.vocabulary)).lstm.initial_carry(batch)
    loss, _ = make_losses(graphdef)
    batch = corpus_of(config).train(0)
    of = jax.jit(jax.grad(lambda p: loss(p, carry, batch, jax.random.key(0))[0] * scale))
    return [np.float64(leaf) / scale for leaf in jax.tree.leaves(of(params))]


def largest_error(params, dtype: str, batch: int, window: int, scale: float) -> float:
    exact = gradients(params, Variant(), batch, window, 1.0)
    found = gradients(params, Variant(dtype), batch, window, scale)
    norms = [(np.linalg.norm(f - e), np.linalg.norm(e)) for f, e in zip(found, exact, strict=True)]
    return max(error / norm for error, norm in norms)


if __name__ == "__main__":
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 32)
    print(f"Python {sys.version.split()[0]}, JAX {jax.__version__}, {len(seeds)} seeds")
    print(f"{'':40}" + "".join(f"{name:>26}" for name in ("train", "validation", "rare")))
    exact, params = train(Variant(), seeds)
    spread = 100 * exact.std(1, ddof=1) / exact.mean(1)
    print(f"{'deviation between seeds':40}" + "".join(f"{s:26.2f}" for s in spread))
    references = {Variant(): exact}
    part = sys.argv[2] if len(sys.argv) > 2 else ""
    for name, variant in ((n, v) for n, v in VARIANTS.items() if part in n):
        own = Variant(optimizer=variant.optimizer, learning_rate=variant.learning_rate)
        if own not in references:
            references[own] = train(own, seeds)[0]
        print(f"{name:40}" + describe(train(variant, seeds)[0], references[own]), flush=True)
    trained = jax.tree.map(lambda leaf: leaf[0], params)
    for batch, window in ((16, 32), (32, 64), (128, 128)):
        sizes = [("float16", 2.0**15), ("float16", 1.0), ("bfloat16", 1.0)]
        errors = {f"{d} · {s:g}": largest_error(trained, d, batch, window, s) for d, s in sizes}
        print(batch * window, "tokens:", {name: f"{error:.4f}" for name, error in errors.items()})
