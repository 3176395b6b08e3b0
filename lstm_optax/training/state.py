"""The training state: a resumed run equals an uninterrupted one to the bit."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import check_transformations
from lstm_optax.training.metrics import Sums, zero_sums


class TrainState(NamedTuple):
    """The state of training; every checkpoint holds all of it."""

    step: jax.Array  # int32 [], number of updates done
    position: jax.Array  # int32 [], position of the next batch
    params: Any
    opt_state: optax.OptState
    carry: Any  # state of the recurrent layers, carried from window to window
    key: jax.Array  # uint32 [2], never changes; each step folds its own number in
    sums: Sums


def init_state(
    params: Any, optimizer: optax.GradientTransformation, carry: Any, key: jax.Array
) -> TrainState:
    """Return the state before the first step.

    Its arrays are copies: training donates them, and the caller's arrays stay valid.

    Args:
      params: the parameters, any tree of arrays.
      optimizer: the optimizer that `make_step` gets.
      carry: the state of the recurrent layers before the first window.
      key: a random key of JAX's default implementation.

    Raises:
      ValueError: an optimizer without `init` and `update`; a random key in the parameters, such as
        that of a Flax module's dropout; a leaf that is not an array; or a key of another
        implementation, which a checkpoint would not record.
    """
    check_transformations(optimizer=optimizer)
    _check_no_keys(params)
    zero = jnp.zeros([], jnp.int32)
    opt_state = optimizer.init(params)
    state = TrainState(zero, zero, params, opt_state, carry, _key_data(key), zero_sums())
    return jax.tree_util.tree_map_with_path(_copy_leaf, state)


def _key_data(key: jax.Array) -> jax.Array:
    if not hasattr(key, "dtype"):
        raise ValueError(f"key is {key!r}; expected a random key, such as jax.random.key(0)")
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    expected = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    if (key.shape, key.dtype) != (expected.shape, expected.dtype):
        raise ValueError(
            f"the key's data has shape {key.shape} and dtype {key.dtype}, the default "
            f"implementation's {expected.shape} and {expected.dtype}: make it with "
            "jax.random.key(seed) without `impl`"
        )
    return key


def _copy_leaf(path: Any, leaf: Any) -> jax.Array:
    try:
        return jnp.copy(leaf)
    except TypeError:
        name = jax.tree_util.keystr(path).removeprefix(".")
        raise ValueError(f"{name} is of type {type(leaf).__name__}; expected an array") from None


def _check_no_keys(params: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype: Any = getattr(leaf, "dtype", None)
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(
                f"params has a random key at {name}, which no optimizer can train: split it off "
                f"with graphdef, params, rest = nnx.split(model, nnx.Param, ...)"
            )
