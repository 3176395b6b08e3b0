"""Dtype rules: real floats only, moments in float32 or wider, updates in the incoming dtype."""

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

SPLIT_REMEDY = (
    "for complex parameters wrap the whole optimizer in optax.contrib.split_real_and_imaginary, "
    "which updates real and imaginary parts separately, as PyTorch does"
)
_REAL = ("float16", "bfloat16", "float32", "float64")  # JAX does not promote smaller floats
_REMEDIES = {
    "parameter": "convert it to float16 or wider, or exclude it with optax.masked or "
    "optax.partition",
    "gradient": "convert it to float16 or wider",
}


def check_real(tree: Any, noun: Literal["parameter", "gradient"], complex_remedy: str) -> None:
    """Raise ValueError unless all leaves are real floats of 16 bits or more.

    The rules are defined for real numbers: for a complex leaf g² is not |g|². Updates of an integer
    leaf would be rounded to 0. JAX does not promote floats of 8 bits or less.

    Args:
      tree: the parameters or the gradient.
      noun: the word for a leaf in the error.
      complex_remedy: the advice for a complex leaf.
    """
    if all(_dtype_name(leaf) in _REAL for leaf in jax.tree.leaves(tree)):
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype, where = _dtype_name(leaf), f"the {noun} {jax.tree_util.keystr(path)}".rstrip()
        if dtype.startswith("complex"):
            remedy = (
                complex_remedy
                if noun == "parameter"
                else f"take its real part, or {complex_remedy}"
            )
            raise ValueError(f"{where} is {dtype}; expected real floats: {remedy}")
        if dtype not in _REAL:
            raise ValueError(f"{where} is {dtype}; expected real floats: {_REMEDIES[noun]}")


def real_only(factory: Callable[Args, Transformation]) -> Callable[Args, Transformation]:
    """Decorate a factory so that `init` and `update` of its result call `check_real`."""

    @wraps(factory)
    def make(*args: Args.args, **kwargs: Args.kwargs) -> Transformation:
        tx = factory(*args, **kwargs)

        def init(params):
            check_real(params, "parameter", SPLIT_REMEDY)
            return tx.init(params)

        def update(updates, state, params=None, **extra_args):
            check_real(updates, "gradient", SPLIT_REMEDY)
            return tx.update(updates, state, params, **extra_args)

        return tx._replace(init=init, update=update)

    return make


def _dtype_name(leaf: Any) -> str:
    """Return the name of the dtype of an array or a number, or of the type of another object."""
    is_number = hasattr(leaf, "dtype") or isinstance(leaf, int | float | complex)
    return str(_dtype(leaf)) if is_number else type(leaf).__name__


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)


def moments_like(params: optax.Params, initial: Scalar = 0.0) -> optax.Params:
    """Return moments with the parameters' tree and shapes, in promote_types(parameter, float32)."""

    def moment(p: Any) -> jax.Array:
        return jnp.full_like(p, initial, dtype=jnp.promote_types(_dtype(p), jnp.float32))

    return jax.tree.map(moment, params)


def accumulate(
    fn: Callable[..., jax.Array], updates: optax.Updates, moments: Any, *others: Any
) -> Any:
    """Return fn(g, m, *others) for each leaf, computed in the dtype of the moment m."""

    def leaf(g: Any, m: jax.Array, *rest: jax.Array) -> jax.Array:
        return fn(jnp.asarray(g, m.dtype), m, *rest).astype(m.dtype)

    return jax.tree.map(leaf, updates, moments, *others)


def cast_like(tree: Any, like: Any) -> Any:
    """Return `tree` with each leaf cast to the dtype of the corresponding leaf of `like`."""
    return jax.tree.map(lambda x, y: jnp.asarray(x, jnp.result_type(y)), tree, like)


@real_only
def keep_dtype(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Cast the updates of `inner` to the dtype of the incoming updates.

    Optax's links promote dtypes: a traced float32 learning rate turns a bfloat16 update into
    float32, and so does weight decay of float32 parameters. Wrapped in `keep_dtype`, a link does
    not change the dtypes in a chain.

    Args:
      inner: any gradient transformation.

    Raises:
      ValueError: `inner` is not a gradient transformation.
    """
    check_transformations(inner=inner)
    inner = optax.with_extra_args_support(inner)

    def update(updates, state, params=None, **extra_args):
        new_updates, state = inner.update(updates, state, params, **extra_args)
        return cast_like(new_updates, updates), state

    return optax.GradientTransformationExtraArgs(inner.init, update)
