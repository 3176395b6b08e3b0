"""The dtypes of a rule: real floats, moments at least float32, updates as they came."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import check_transformations
from lstm_optax.transforms.scalars import Scalar

Args = ParamSpec("Args")
Transformation = TypeVar("Transformation", bound=optax.GradientTransformation)

SPLIT = (
    "for complex parameters wrap the whole optimizer in optax.contrib.split_real_and_imaginary, "
    "which updates real and imaginary parts apart, as PyTorch does"
)
_REAL = ("float16", "bfloat16", "float32", "float64")  # JAX promotes no smaller floats
_REMEDIES = {
    "parameter": "convert it to float16 or wider, or leave it out with optax.masked or "
    "optax.partition",
    "gradient": "convert it to float16 or wider",
}


def check_real(tree: Any, what: Literal["parameter", "gradient"], complex_remedy: str) -> None:
    """Raise ValueError unless all leaves are real floats.

    The rules square real numbers, so a complex leaf would follow another rule than its name says,
    and an integer leaf would not move. Floats of 8 bits or less have no sum with others in JAX.
    """
    if all(_kind(leaf) in _REAL for leaf in jax.tree.leaves(tree)):
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        kind, where = _kind(leaf), f"the {what} {jax.tree_util.keystr(path)}".rstrip()
        if kind.startswith("complex"):
            remedy = (
                complex_remedy
                if what == "parameter"
                else f"take its real part, or {complex_remedy}"
            )
            raise ValueError(f"{where} is {kind}; expected real floats: {remedy}")
        if kind not in _REAL:
            raise ValueError(f"{where} is {kind}; expected real floats: {_REMEDIES[what]}")


def real_only(factory: Callable[Args, Transformation]) -> Callable[Args, Transformation]:
    """Return the factory of rules whose `init` and `update` refuse what `check_real` does."""

    @wraps(factory)
    def make(*args: Args.args, **kwargs: Args.kwargs) -> Transformation:
        tx = factory(*args, **kwargs)

        def init(params):
            check_real(params, "parameter", SPLIT)
            return tx.init(params)

        def update(updates, state, params=None, **extra_args):
            check_real(updates, "gradient", SPLIT)
            return tx.update(updates, state, params, **extra_args)

        return tx._replace(init=init, update=update)

    return make


def _kind(leaf: Any) -> str:
    """The dtype of an array or a number, else the type."""
    is_number = hasattr(leaf, "dtype") or isinstance(leaf, int | float | complex)
    return str(_dtype(leaf)) if is_number else type(leaf).__name__


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)


def moments_like(params: optax.Params, initial: Scalar = 0.0) -> optax.Params:
    """Return moments of the parameters' shapes, in promote_types(parameter, float32)."""

    def moment(p: Any) -> jax.Array:
        return jnp.full_like(p, initial, dtype=jnp.promote_types(_dtype(p), jnp.float32))

    return jax.tree.map(moment, params)


def accumulate(
    fn: Callable[..., jax.Array], updates: optax.Updates, moments: Any, *others: Any
) -> Any:
    """Return fn(g, m, *others) leaf by leaf, computed and kept in the dtype of the moment m."""

    def leaf(g: Any, m: jax.Array, *rest: jax.Array) -> jax.Array:
        return fn(jnp.asarray(g, m.dtype), m, *rest).astype(m.dtype)

    return jax.tree.map(leaf, updates, moments, *others)


def cast_like(tree: Any, like: Any) -> Any:
    """Return `tree` with each leaf in the dtype of the leaf of `like` at its place."""
    return jax.tree.map(lambda x, y: jnp.asarray(x, jnp.result_type(y)), tree, like)


@real_only
def keep_dtype(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Give what `inner` gives, in the dtype of the incoming updates.

    Optax's links promote: a traced float32 learning rate makes a bfloat16 update float32, and so
    does decay of float32 weights. Wrapped, they leave the dtypes of a chain as they were.

    Raises:
      ValueError: `inner` is no transformation.
    """
    check_transformations(inner=inner)
    inner = optax.with_extra_args_support(inner)

    def update(updates, state, params=None, **extra_args):
        new_updates, state = inner.update(updates, state, params, **extra_args)
        return cast_like(new_updates, updates), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
