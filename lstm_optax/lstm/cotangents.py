"""Clipping the gradient inside back-propagation through time, at every step."""

import math
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lstm_optax.checks import BOUND, TRACED, Range, concrete

Number: TypeAlias = float | jax.Array
Bound: TypeAlias = Number | tuple[Number, Number]


def clip_cotangent(x: Any, low: Number, high: Number) -> Any:
    """Return x as it is, and clip what is propagated back to it, entry by entry.

        gives x;  ∂L/∂x ← min(max(∂L/∂x, low), high)

    At every step of a recurrence it keeps finite what would overflow later: an infinity becomes
    the bound, while a NaN stays one. It has no forward-mode derivative.

    Args:
      x: an array, or a tree of them; leaves that are not real floating-point pass untouched.
      low, high: numbers with low ≤ high, traced or not.

    Raises:
      ValueError: low is above high, or one of them is no number.

    Reference: Graves, 2013, arXiv:1308.0850, section 2.1.
    """
    Range(-math.inf, closed=True).check(low=low, high=high)
    ends = concrete(low), concrete(high)
    if TRACED not in ends and ends[0] > ends[1]:
        raise ValueError(f"the bounds are {low} and {high}, but low must be at most high")
    return jax.tree.map(lambda leaf: _by_value(leaf, low, high) if _is_real(leaf) else leaf, x)


def clip_cotangent_norm(x: Any, max_norm: Number, *, axis: int | None = -1) -> Any:
    """Return x as it is, and scale down what is propagated back to it where its norm is too large.

        gives x;  ∂L/∂x ← ∂L/∂x · min(1, max_norm / ‖∂L/∂x‖)

    The norm does not overflow. Of a gradient with infinities only their signs remain, the limit
    of the formula where these entries grow together; a NaN makes its row NaN. It has no
    forward-mode derivative.

    Args:
      x: an array, or a tree of them, each with its own norms; leaves that are not real
        floating-point pass untouched.
      max_norm: 0 or more, traced or not.
      axis: along which the norm is taken, so that by default each row of a batch has its own;
        None for one norm of the whole array.

    Raises:
      ValueError: max_norm is negative, NaN, or no single number.

    Reference: Pascanu, Mikolov & Bengio, 2013, arXiv:1211.5063, algorithm 1, at every step here.
    """
    BOUND.check(max_norm=max_norm)
    return jax.tree.map(lambda leaf: _by_norm(axis, leaf, max_norm) if _is_real(leaf) else leaf, x)


class CotangentClip(NamedTuple):
    """Bounds on the entries of the gradient by h_t, by c_t and by the gates' pre-activations z_t.

    They act at every time step on the whole derivative of the loss by each, as `clip_cotangent`
    does. A bound is (low, high), or a number b for (−b, b); None for no bound. Bounds on `gates`
    or on `h` keep the whole recursion finite; on `c` alone they do not, since the output gate
    gives h a path around c.

    Reference: Graves, 2013, arXiv:1308.0850: gates=10 in an LSTM.
    """

    h: Bound | None = None
    c: Bound | None = None
    gates: Bound | None = None

    def check(self) -> None:
        """Raise ValueError for a bound that cannot be."""
        for name, bound in self._asdict().items():
            if bound is not None:
                _check(name, lambda b=bound: clip_cotangent(None, *_pair(b)))

    def mark(self, name: str, x: Float[Array, "batch size"]) -> Float[Array, "batch size"]:
        """Return x, with the gradient by it bounded as the field `name` says."""
        bound = getattr(self, name)
        return x if bound is None else clip_cotangent(x, *_pair(bound))


class CotangentNormClip(NamedTuple):
    """Bounds on the norm of the gradient by h_t, by c_t and by z_t, for each row of the batch.

    They act at every time step on the whole derivative of the loss by each, as
    `clip_cotangent_norm` does; z_t is one vector of all four gates. None for no bound.

    Reference: Pascanu, Mikolov & Bengio, 2013, arXiv:1211.5063, algorithm 1, at every step here.
    """

    h: Number | None = None
    c: Number | None = None
    gates: Number | None = None

    def check(self) -> None:
        """Raise ValueError for a bound that cannot be."""
        for name, bound in self._asdict().items():
            if bound is not None:
                _check(name, lambda b=bound: clip_cotangent_norm(None, b))

    def mark(self, name: str, x: Float[Array, "batch size"]) -> Float[Array, "batch size"]:
        """Return x, with the gradient by it bounded as the field `name` says."""
        bound = getattr(self, name)
        return x if bound is None else clip_cotangent_norm(x, bound)


def check_cotangent_clip(clip: Any) -> None:
    """Raise ValueError unless `clip` is None or one of the two above, with bounds that can be."""
    if clip is None:
        return
    if not isinstance(clip, CotangentClip | CotangentNormClip):
        raise ValueError(
            f"cotangent_clip is {clip!r}; expected a CotangentClip or a CotangentNormClip, "
            f"such as CotangentClip(gates=10.0)"
        )
    clip.check()


def norm(x: Float[Array, "..."], axis: int | None = -1) -> Float[Array, "..."]:
    """Return the norm along an axis, finite where it can be: neither overflows nor vanishes."""
    x = jnp.asarray(x)
    scale = _scale(x, axis)
    root = jnp.sqrt(jnp.sum(jnp.square(x / scale), axis, keepdims=True))
    return jnp.squeeze(scale * root, axis)


def _scale(x: jax.Array, axis: int | None) -> jax.Array:
    """Return about the largest entry, so that 1 / scale neither overflows nor vanishes."""
    limits = jnp.finfo(x.dtype)
    largest = jnp.max(jnp.abs(x), axis, keepdims=True, initial=0)
    return jnp.clip(largest, 4 * limits.tiny, limits.max / 4)


@jax.custom_vjp
def _by_value(x, low, high):
    del low, high
    return x


def _by_value_backward(bounds, g):
    low, high = (jnp.asarray(bound, g.dtype) for bound in bounds)
    return jnp.clip(g, low, high), None, None


_by_value.defvjp(lambda x, low, high: (x, (low, high)), _by_value_backward)


@jax.custom_vjp
def _by_norm_of_rows(x, max_norm):
    del max_norm
    return x


def _by_norm_backward(max_norm, g):
    bound = jnp.asarray(max_norm, g.dtype)
    infinite = jnp.isinf(g)
    signs = jnp.where(infinite, jnp.sign(g), 0)  # what is left of a row with infinities
    scale = _scale(g, -1)
    scaled = jnp.where(jnp.any(infinite, -1, keepdims=True), signs, g / scale)
    root = jnp.sqrt(jnp.sum(jnp.square(scaled), -1, keepdims=True))
    beyond = scale * root > bound
    return jnp.where(beyond, scaled * (bound / jnp.where(root > 0, root, 1)), g), None


_by_norm_of_rows.defvjp(lambda x, max_norm: (x, max_norm), _by_norm_backward)


def _by_norm(axis, x, max_norm):
    x = jnp.asarray(x)
    if axis is None:
        return _by_norm_of_rows(x.reshape(-1), max_norm).reshape(x.shape)
    return jnp.moveaxis(_by_norm_of_rows(jnp.moveaxis(x, axis, -1), max_norm), -1, axis)


def _is_real(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _pair(bound: Bound) -> tuple[Number, Number]:
    match bound:
        case (low, high) if isinstance(bound, tuple):
            return low, high
        case tuple() | list() | str():
            raise ValueError(f"{bound!r} is no bound; expected a number or a pair (low, high)")
    return -bound, bound


def _check(name: str, clip: Any) -> None:
    try:
        clip()
    except (ValueError, TypeError) as error:
        raise ValueError(f"cotangent_clip.{name}: {error}") from None
