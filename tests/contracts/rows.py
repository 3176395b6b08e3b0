"""A row of the table of rules, and the trees of parameters that the contracts run it on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

import lstm_optax as lo

POWERS = {"linear": 1, "square": 2, "invariant": 0}
N, H = 3, 5  # inputs and hidden units of the LSTM


def params_of(dtype=jnp.float32) -> dict:
    """Return a small tree: a matrix, a vector, a scalar."""
    values = np.random.default_rng(0).normal(size=9)
    tree = {"matrix": values[:6].reshape(3, 2), "vector": values[6:8], "scalar": values[8]}
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def gradients_of(steps: int, dtype=jnp.float32) -> dict:
    """Return gradients of that tree, [steps, *shape]; one step is an outlier and one is zero."""
    rng = np.random.default_rng(1)
    tree = {"matrix": (steps, 3, 2), "vector": (steps, 2), "scalar": (steps,)}

    def draw(shape):
        values = rng.normal(size=shape)
        values[steps // 2] *= 100
        values[steps // 3] = 0
        return jnp.asarray(values, dtype)

    return {name: draw(shape) for name, shape in tree.items()}


def lstm_params_of(dtype=jnp.float32) -> dict:
    """Return an LSTM of this library and a dense layer."""
    rng = np.random.default_rng(0)
    shapes = {
        "lstm": lo.LSTMParams((N, 4 * H), (H, 4 * H), (4 * H,)),
        "head": {"kernel": (H, 2), "bias": (2,)},
    }
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), dtype),
        shapes,
        is_leaf=lambda node: type(node) is tuple,
    )


def lstm_gradients_of(steps: int, dtype=jnp.float32) -> dict:
    """Return gradients whose size differs from gate to gate and leaf to leaf; one step is zero."""
    rng = np.random.default_rng(1)

    def draw(p):
        values = rng.normal(size=(steps, *p.shape)) * rng.choice([0.1, 1, 10], size=p.shape[-1])
        values[steps // 2] = 0
        return jnp.asarray(values, dtype)

    return jax.tree.map(draw, lstm_params_of())


ENTRIES = 6
NEVER, LATE, AT_ZERO = 2, 3, 4  # no gradient at any step; none at first; a parameter that is 0


def smooth_problem(steps: int, scale: float = 1.0):
    """Return parameters and gradients with an entry without gradient, and one that has it late.

    All numbers are in general position: no clip is exactly at its bound, no two sizes are equal.
    """
    rng = np.random.default_rng(0)
    params, gradients = rng.normal(size=ENTRIES), scale * rng.normal(size=(steps, ENTRIES))
    params[AT_ZERO] = 0
    gradients[:, NEVER] = 0
    gradients[: max(1, steps // 2), LATE] = 0
    return jnp.asarray(params), jnp.asarray(gradients)


def _smooth_small(steps: int):
    params, gradients = smooth_problem(steps)
    return (
        {"a": params[:4], "b": params[4:]},
        {"a": gradients[:, :4], "b": gradients[:, 4:]},
    )


def _smooth_lstm(steps: int):
    """The kernel of the inputs has no gradient at any step."""
    gradients = jax.tree_util.tree_map_with_path(
        lambda path, g: 0 * g if "ih" in str(path) else g, lstm_gradients_of(steps, float)
    )
    return lstm_params_of(float), gradients


def _lstm_of_16(x) -> dict:
    """An LSTM of two inputs and one unit from 16 entries [..., 16], and a layer of four."""
    lead = x.shape[:-1]
    kernels = x[..., :8].reshape(*lead, 2, 4), x[..., 8:12].reshape(*lead, 1, 4)
    lstm = lo.LSTMParams(*map(jnp.float32, kernels), jnp.float32(x[..., 12:]))
    return {"lstm": lstm, "half": jnp.bfloat16(x[..., :4])}


@dataclass(frozen=True)
class Tree:
    """The parameters that a contract runs a rule on, and their gradients."""

    params: Callable[..., dict]  # of a dtype
    gradients: Callable[..., dict]  # of a number of steps and a dtype
    smooth: Callable[[int], tuple]  # parameters and gradients in general position, float64
    of_16: Callable[[Any], dict]  # leaves of float32 and bfloat16 from 16 entries
    kept: str  # the branch that a mask keeps
    smallest: Any  # shapes of the smallest tree that the rule takes
    edges: tuple  # trees with None, scalars and empty nodes
    sharded: tuple  # trees of arrays, and how their leaves are divided over eight devices
    around: Callable  # a tree that the rule takes, of any tree and a function of a shape to a leaf


def _two_leaves(draw: Callable[..., dict]) -> Callable[..., dict]:
    """Return the function without the vector, since compiling a rule takes time for each leaf."""
    return lambda *args: {n: leaf for n, leaf in draw(*args).items() if n != "vector"}


SMALL = Tree(
    _two_leaves(params_of),
    _two_leaves(gradients_of),
    smooth=_smooth_small,
    of_16=lambda x: {"single": jnp.float32(x), "half": jnp.bfloat16(x[..., :4])},
    kept="matrix",
    smallest=(2,),
    edges=({}, (), {"a": None, "b": jnp.ones(2)}, jnp.float32(1.0)),
    sharded=(({"w": jnp.ones((16, 2))}, PartitionSpec("data")),),
    around=lambda tree, leaf: tree,
)
LSTM = Tree(
    lstm_params_of,
    lstm_gradients_of,
    smooth=_smooth_lstm,
    of_16=_lstm_of_16,
    kept="lstm",
    smallest=lo.LSTMParams((2, 8), (2, 8), (8,)),
    edges=tuple(
        {"lstm": lo.LSTMParams(*map(jnp.ones, ((1, 4), (1, 4), (4,)))), "rest": rest}
        for rest in ((), {"a": None, "b": jnp.ones(2)}, jnp.float32(1.0))
    ),
    sharded=(  # on the axis without gates
        (
            {"kernel_ih": jnp.ones((8, 32)), "kernel_hh": jnp.ones((8, 32))},
            PartitionSpec("data"),
        ),
        (
            {"weight_ih": jnp.ones((32, 8)), "weight_hh": jnp.ones((32, 8))},
            PartitionSpec(None, "data"),
        ),
    ),
    around=lambda tree, leaf: {
        "lstm": lo.LSTMParams(leaf((1, 4)), leaf((1, 4)), leaf((4,))),
        "rest": tree,
    },
)


@dataclass(frozen=True, eq=False, repr=False)  # equal only to itself, so that results can be cached
class Row:
    """A rule: its factory, a value for each of its numbers, its dtypes, its units and its tree."""

    make: Callable[..., optax.GradientTransformation]
    numbers: dict[str, float]
    dtype: str = "gradient"  # of the updates: the gradient's, or the moment's
    ours: bool = True
    options: dict = field(default_factory=dict)
    scale: str = "none: not asked"  # the response to c times the gradient: `POWERS`, or why none
    units: dict[str, int] = field(default_factory=dict)  # the power of c that scales a number
    not_zero: tuple[str, ...] = ()  # numbers that the rule refuses at 0
    static: str | None = None  # an argument that cannot be traced
    schedules: tuple[str, ...] = ()  # numbers that may be schedules, besides the rate
    read_ahead: tuple[str, ...] = ()  # those of them that are read one count ahead
    rate_is_late: bool = False  # whether the rate is read one step late
    descent_rate: float | None = None  # a rate that reaches minima, if not the usual of its scale
    centered: bool = False  # whether it divides by a variance, which needs an ε > 0
    by_leaf: bool = False  # whether updates depend on how the entries are split into leaves
    tree: Tree = SMALL

    def __repr__(self) -> str:
        return f"Row({self.make.__name__}, {self.numbers}, options={self.options})"

    @property
    def power(self) -> int:
        """The power of c that scales the updates, and the parameters they are added to."""
        return POWERS[self.scale]

    @property
    def static_args(self) -> tuple[str, ...]:
        return () if self.static is None else (self.static,)

    def build(self, **numbers) -> optax.GradientTransformationExtraArgs:
        tx = self.make(**self.options, **(self.numbers | numbers))
        return optax.with_extra_args_support(tx)


RATE = {"learning_rate": 0.1}
LINEAR = {"scale": "linear"}
OUTSIDE = {"scale": "invariant", "units": {"eps": 1}}  # ε outside the square root
INSIDE = {"scale": "invariant", "units": {"eps": 2}}  # ε inside the square root


def trajectory(tx: optax.GradientTransformation, params, gradients):
    """Run a rule over gradients; return the updates of all steps and the last state."""
    tx = optax.with_extra_args_support(tx)

    def body(loop, g):
        params, state = loop
        updates, state = tx.update(g, state, params)
        return (optax.apply_updates(params, updates), state), updates

    (_, state), updates = jax.lax.scan(body, (params, tx.init(params)), gradients)
    return updates, state


def close(actual, expected, rtol=1e-5, atol=1e-6):
    chex.assert_trees_all_close(actual, expected, rtol=rtol, atol=atol)


def member(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def signature(tree):
    """Return the structure of a tree, and the shape and dtype of each leaf."""
    leaves = [(jnp.shape(x), jnp.result_type(x)) for x in jax.tree.leaves(tree)]
    return jax.tree.structure(tree), leaves
