"""Every preset with every option on and off, and the problem that each is run on."""

from dataclasses import dataclass
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import optax

SHAPES = ((5, 4), (7,), (2, 3, 2), ())


@dataclass(frozen=True)
class Problem:
    """Parameters to start from, a gradient for every step, and a rate that moves at every step."""

    params: list[np.ndarray]  # one array per leaf
    gradients: list[np.ndarray]  # [steps, *shape] per leaf
    rates: np.ndarray  # [steps]

    def cast(self, dtype) -> "Problem":
        def each(xs):
            return [np.asarray(x, dtype) for x in xs]

        return Problem(each(self.params), each(self.gradients), self.rates)


def problem(steps: int, shapes=SHAPES, seed: int = 3) -> Problem:
    """Random gradients of all sizes with outliers, a stretch of zeros, and an entry always zero."""
    rng = np.random.default_rng(seed)
    params = [np.asarray(rng.normal(size=shape)) for shape in shapes]
    size = 10.0 ** rng.uniform(-3, 1, size=steps)
    gradients = []
    for shape in shapes:
        g = rng.normal(size=(steps, *shape)) * size.reshape(-1, *(1 for _ in shape))
        g[rng.uniform(size=g.shape) < 0.02] *= 1000
        g[rng.uniform(size=g.shape) < 0.05] = 0
        g[steps // 3 : steps // 3 + 5] = 0
        gradients.append(g)
    gradients[0][:, 0, 0] = 0
    rates = 0.01 * (1.2 + np.cos(np.arange(steps)) + 0.5 * np.sin(0.01 * np.arange(steps)))
    return Problem(params, gradients, rates)


@dataclass(frozen=True)
class Case:
    """A preset with options, which its source understands as well."""

    source: str
    name: str
    options: tuple[tuple[str, object], ...]

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self.options)
        return f"{self.source}.{self.name}({options})"

    def build(self, rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
        preset = getattr(import_module(f"lstm_optax.presets.{self.source}"), self.name)
        return preset(rate, **dict(self.options))


def ours(case: Case, at: Problem, states: list | None = None) -> list[np.ndarray]:
    """Return the parameters of the preset before the first step and after each, per leaf.

    The last state is appended to `states`. Without `states` and without a clip, the leaves are one
    vector, which compiles in half the time.
    """
    if states is not None or any("clip" in name for name, _ in case.options):
        return _path(case, at, states)
    vector = Problem([joined([p[None] for p in at.params])[0]], [joined(at.gradients)], at.rates)
    return parted(_path(case, vector, None)[0], [p.shape for p in at.params])


def _path(case: Case, at: Problem, states: list | None) -> list[np.ndarray]:
    rates = jnp.asarray(at.rates)
    tx = case.build(lambda count: rates[count])

    def body(loop, g):
        params, state = loop
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    params = [jnp.asarray(p) for p in at.params]
    gradients = [jnp.asarray(g) for g in at.gradients]
    run = jax.jit(lambda p, g: jax.lax.scan(body, (p, tx.init(p)), g))
    (_, state), path = run(params, gradients)
    if states is not None:
        states.append(state)
    return [
        np.concatenate([start[None], np.asarray(leaf)])
        for start, leaf in zip(at.params, path, strict=True)
    ]


def distance(path: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest |θ − θ'| of any entry at any step, over the largest |θ' − θ'₀| of that entry.

    θ' is the source's. Where an entry moves less than a tenth of its size, over a tenth of its
    largest |θ'|, since θ itself is rounded. An entry that never moves there may not move here.
    """
    worst = 0.0
    for a, b in zip(path, expected, strict=True):
        assert a.shape == b.shape and np.isfinite(b).all()
        move = np.abs(b - b[0]).max(axis=0)
        error = np.abs(a - b).max(axis=0)
        assert not np.any(error[move == 0]), "an entry moved that should not"
        worst = max(worst, float(np.max(error / np.maximum(move, np.abs(b).max(axis=0) / 10))))
    return worst


def joined(leaves: list[np.ndarray]) -> np.ndarray:
    """Return leaves [steps, *shape] as columns [steps, columns]."""
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def parted(columns: np.ndarray, shapes) -> list[np.ndarray]:
    """Return the leaves [steps, *shape] of columns [steps, columns]."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    parts = np.split(columns, ends, axis=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]


def _cases(source: str, table: dict[str, list[dict]]) -> list[Case]:
    return [Case(source, n, tuple(o.items())) for n, options in table.items() for o in options]


ADAM = [
    {},
    {"betas": (0.8, 0.95), "eps": 1e-3},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "decoupled_weight_decay": True},
    {"maximize": True, "weight_decay": 0.1, "decoupled_weight_decay": True},
]
TORCH = {
    "SGD": [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3},
        {"dampening": 0.3},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True},
    ],
    "RMSprop": [
        {},
        {"alpha": 0.9, "eps": 1e-3},
        {"momentum": 0.9},
        {"centered": True},
        {"centered": True, "momentum": 0.9, "weight_decay": 0.1},
        {"momentum": 0.9, "weight_decay": 0.1, "maximize": True},
    ],
    "NAdam": [*ADAM, {"momentum_decay": 0.1}, {"momentum_decay": 0.0}],
    "Adam": [*ADAM, {"amsgrad": True}, {"amsgrad": True, "betas": (0.9, 0.95)}],
    "AdamW": [{}, {"weight_decay": 0.1, "amsgrad": True}, {"maximize": True}],
    "ASGD": [
        {},
        {"lambd": 0.1, "alpha": 0.5, "t0": 10.0},
        {"lambd": 0.0, "weight_decay": 0.1, "maximize": True},
    ],
}
AROUND = [
    {"weight_decay": 0.1},
    {"clipnorm": 0.5},
    {"clipvalue": 0.01},
    {"global_clipnorm": 1.0},
    {"use_ema": True, "ema_momentum": 0.9},
    {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 7, "weight_decay": 0.1},
    {"loss_scale_factor": 1024.0, "global_clipnorm": 0.01},
]
BETAS = {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3}
KERAS = {
    "SGD": [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        *({"momentum": 0.9, "nesterov": True} | around for around in AROUND),
    ],
    "RMSprop": [
        {},
        {"rho": 0.99, "epsilon": 1e-3},
        {"momentum": 0.9},
        {"centered": True},
        {"centered": True, "momentum": 0.9, "weight_decay": 0.1, "clipvalue": 0.1},
        {"momentum": 0.9, "global_clipnorm": 1.0, "use_ema": True, "ema_overwrite_frequency": 5},
    ],
    "Nadam": [{}, BETAS, {"weight_decay": 0.1, "clipnorm": 0.5}],
    "Adam": [{}, BETAS, {"amsgrad": True}, BETAS | {"amsgrad": True, "weight_decay": 0.1}],
}
PAPERS = {
    "tf1": {
        "RMSPropOptimizer": [
            {},
            {"decay": 0.99, "momentum": 0.9, "epsilon": 1e-3},
            {"centered": True},
            {"centered": True, "momentum": 0.9, "epsilon": 1e-3},
        ],
        "MomentumOptimizer": [{"momentum": 0.9}, {"momentum": 0.9, "use_nesterov": True}],
        "AdamOptimizer": [{}, {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3}],
    },
    "graves": {"rmsprop": [{}, {"decay": 0.9, "momentum": 0.0, "eps": 1e-3}]},
    "hinton": {"rmsprop": [{}, {"decay": 0.99}]},
    "dozat": {
        "nadam_2015": [{}, {"mu": 0.8, "nu": 0.95, "eps": 1e-3}],
        "nadam_2016": [{}, {"mu": 0.8, "nu": 0.95, "eps": 1e-3}],
    },
    "algoperf": {
        "nadamw": [
            {},
            {"b1": 0.8, "b2": 0.95, "eps": 1e-3, "weight_decay": 0.1},
            {"debias": False, "eps_root": 1e-3},
        ]
    },
    "sutskever": {
        "classical_momentum": [{}, {"mu_max": 0.6}],
        "nesterov_momentum": [{}, {"mu_max": 0.6}],
    },
}
CASES = [
    case
    for source, table in ({"torch": TORCH, "keras": KERAS} | PAPERS).items()
    for case in _cases(source, table)
]
