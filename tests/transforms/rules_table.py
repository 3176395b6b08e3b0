"""The table of all rules: what to build each with, and what it gives. A new rule is a row here."""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax
from plain import plain_for

import lstm_optax as lo
from lstm_optax.optimizers import OPTIMIZERS

RATE = {"learning_rate": 0.1}


POWERS = {"linear": 1, "square": 2, "invariant": 0}


@dataclass(frozen=True)
class Row:
    """A rule: its factory, a value for each of its numbers, what it gives, its other needs."""

    make: Callable[..., optax.GradientTransformation]
    numbers: dict[str, float]
    gives: str = "gradient"  # the gradient's dtype, or the moment's
    ours: bool = True
    options: dict = field(default_factory=dict)
    scale: str = "none: not asked"  # how it answers to c times the gradient: `POWERS`, or why not
    units: dict[str, int] = field(default_factory=dict)  # the power of c that a number goes with
    not_zero: tuple[str, ...] = ()  # numbers that the rule refuses at 0

    @property
    def power(self) -> int:
        """The power of c that the updates, and the parameters they are added to, go with."""
        return POWERS[self.scale]

    def build(self, **numbers) -> optax.GradientTransformation:
        return self.make(**self.options, **(self.numbers | numbers))


LINEAR = {"scale": "linear"}
SQUARE = {"scale": "square", "units": {"initial": 2}}
OUTSIDE = {"scale": "invariant", "units": {"eps": 1}}  # ε outside the root
INSIDE = {"scale": "invariant", "units": {"eps": 2}}  # ε inside the root
CLIP = {"scale": "linear", "units": {"max_norm": 1}}

TRANSFORMS = {
    "momentum": Row(lo.momentum, {"decay": 0.9}, **LINEAR),
    "ema": Row(lo.ema, {"decay": 0.9}, "moment", **LINEAR),
    "damped_momentum": Row(lo.damped_momentum, {"decay": 0.9, "dampening": 0.3}, **LINEAR),
    "corrected_momentum": Row(
        lo.corrected_momentum, {"decay": 0.9, "learning_rate": 0.1}, **LINEAR
    ),
    "mean_square": Row(lo.mean_square, {"decay": 0.9, "initial": 0.1}, "moment", **SQUARE),
    "centered_mean_square": Row(
        lo.centered_mean_square, {"decay": 0.9, "initial": 0.1}, "moment", **SQUARE
    ),
    "centered_mean_square, floor": Row(
        lo.centered_mean_square, {"decay": 0.9, "floor": 0.5}, "moment", **SQUARE
    ),
    "sum_square": Row(lo.sum_square, {"initial": 0.1}, "moment", **SQUARE),
    "running_max": Row(
        lambda decay: lo.running_max(lo.mean_square(decay)), {"decay": 0.5}, "moment", **SQUARE
    ),
    "debias": Row(
        lambda decay: lo.debias(lo.ema(decay), decay), {"decay": 0.9}, "moment", **LINEAR
    ),
    "nesterov": Row(lambda decay: lo.nesterov(lo.momentum(decay)), {"decay": 0.9}, **LINEAR),
    "dozat_momentum": Row(lo.dozat_momentum, {"decay": 0.9, "psi": 0.004}, "moment", **LINEAR),
    "dozat_momentum, scheduled": Row(
        lo.dozat_momentum,
        {"decay": 0.9, "psi": 1.0},
        "moment",
        options={"scheduled_average": True},
        **LINEAR,
    ),
    "precondition": Row(
        lambda decay, eps, eps_root: lo.precondition(
            lo.ema(decay), lo.mean_square(decay), eps=eps, eps_root=eps_root
        ),
        {"decay": 0.9, "eps": 1e-3, "eps_root": 1e-6},
        scale="invariant",
        units={"eps": 1, "eps_root": 2},
    ),
    "clip_by_global_norm": Row(lo.clip_by_global_norm, {"max_norm": 1.0}, **CLIP),
    "clip_by_global_norm, zero": Row(
        lo.clip_by_global_norm, {"max_norm": 1.0}, options={"nonfinite": "zero"}, **CLIP
    ),
    "clip_by_norm_quantile": Row(
        lo.clip_by_norm_quantile, {"quantile": 0.5}, options={"window": 4}, **LINEAR
    ),
    "guard": Row(
        lambda decay, max_consecutive_errors: lo.guard(
            lo.momentum(decay), max_consecutive_errors=max_consecutive_errors + 1
        ),
        {"decay": 0.9, "max_consecutive_errors": 9.0},
        **LINEAR,
    ),
    "polyak_average": Row(
        lambda decay, start: lo.polyak_average(lo.momentum(decay), start=start),
        {"decay": 0.9, "start": 2.0},
        **LINEAR,
    ),
    "ema_average": Row(
        lambda decay: lo.ema_average(lo.momentum(decay), decay), {"decay": 0.9}, **LINEAR
    ),
    "triggered_average": Row(
        lambda decay: lo.triggered_average(lo.momentum(decay)), {"decay": 0.9}, **LINEAR
    ),
    "scale_by_learning_rate": Row(lo.scale_by_learning_rate, RATE, **LINEAR),
    "scale_by_rate_factor": Row(
        lambda learning_rate: optax.chain(
            lo.scale_by_learning_rate(learning_rate), lo.scale_by_rate_factor()
        ),
        RATE,
        **LINEAR,
    ),
    "keep_dtype": Row(
        lambda step_size: lo.keep_dtype(optax.scale(step_size)), {"step_size": 0.5}, **LINEAR
    ),
}

MOMENTS = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}
OWN_NUMBERS = {
    "sgd": ({}, LINEAR),
    "momentum_sgd": ({"momentum": 0.9}, LINEAR),
    "nesterov_sgd": ({"momentum": 0.9}, LINEAR),
    "rmsprop": ({"decay": 0.9, "eps": 1e-8}, INSIDE),
    "rmsprop_momentum": ({"momentum": 0.9, "decay": 0.9, "eps": 1e-8}, INSIDE),
    "adam": (MOMENTS, OUTSIDE),
    "nadam": (MOMENTS, OUTSIDE),
    "nadamw": (MOMENTS | {"weight_decay": 0.1}, OUTSIDE),
    "awd_sgd": ({"clip": 0.25, "weight_decay": 0.1}, {"scale": "linear", "units": {"clip": 1}}),
}

OWN = {
    name: Row(OPTIMIZERS[name], RATE | numbers, **scale)
    for name, (numbers, scale) in OWN_NUMBERS.items()
}
OPTAX = {n: Row(f, RATE, ours=False) for n, f in OPTIMIZERS.items() if n.startswith("optax.")}
NEED_LSTM = {"by_gate", "gate_muon"}  # in test_by_gate_contract.py, on a tree that has one
RULES = TRANSFORMS | OWN
EVERYTHING = RULES | OPTAX


SAMPLE = ("momentum", "precondition", "clip_by_global_norm", "guard", "nadam")


def each(rules: dict[str, Row]) -> list:
    """The names of the rules; variants of a rule, and averages, wait for the slow tests."""
    later = {"polyak_average", "ema_average", "triggered_average"}
    return plain_for(rules, [name for name in rules if "," not in name and name not in later])


def params_of(dtype=jnp.float32) -> dict:
    """A small tree: a matrix, a vector, a scalar."""
    values = np.random.default_rng(0).normal(size=9)
    tree = {"matrix": values[:6].reshape(3, 2), "vector": values[6:8], "scalar": values[8]}
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def gradients_of(steps: int, dtype=jnp.float32) -> dict:
    """Gradients for that tree with a leading axis of steps, an outlier and a zero among them."""
    rng = np.random.default_rng(1)
    tree = {"matrix": (steps, 3, 2), "vector": (steps, 2), "scalar": (steps,)}

    def draw(shape):
        values = rng.normal(size=shape)
        values[steps // 2] *= 100
        values[steps // 3] = 0
        return jnp.asarray(values, dtype)

    return {name: draw(shape) for name, shape in tree.items()}


def trajectory(tx: optax.GradientTransformation, params, gradients):
    """Run a rule over gradients; return the updates of all steps and the last state."""
    tx = optax.with_extra_args_support(tx)

    def body(loop, g):
        params, state = loop
        updates, state = tx.update(g, state, params)
        return (optax.apply_updates(params, updates), state), updates

    (_, state), updates = jax.lax.scan(body, (params, tx.init(params)), gradients)
    return updates, state
