"""Clipping of the gradient inside back-propagation through time, at every step.

The backward recursion of an LSTM step, with d_v = ∂L/∂v along all paths, and the places where a
clip acts. Each replaces d_v before anything further is computed from it:

    d_h_t ← clip_h(d_h_t + d_outputs_t)
    d_c_t ← clip_c(d_c_t + d_h_t ⊙ ∂h_t/∂c_t)
    dz_t  ← clip_gates(d_c_t ⊙ ∂c_t/∂z_t + d_h_t ⊙ ∂h_t/∂z_t)
    d_h_{t−1} = dz_t·W_hhᵀ;  d_c_{t−1} = d_c_t ⊙ f

(∂h_t/∂z_t at fixed c_t: only the output gate has one.) `backends/fused.py` has each gate.

A clip is an identity function with its own derivative (`jax.custom_vjp`): `mark` puts it on h_t,
c_t and z_t in the forward pass, and JAX then applies it to their cotangents in the backward pass.
Only the bounds are stored for it.
"""

import math
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lstm_optax.checks import BOUND, TRACED, Range, concrete

Number: TypeAlias = float | jax.Array
Bound: TypeAlias = Number | tuple[Number, Number]


def clip_cotangent(x: Any, low: Number, high: Number) -> Any:
    """Return x, and clip each entry of its gradient.

        value: x;  ∂L/∂x ← min(max(∂L/∂x, low), high)

    At every step of a recurrence it prevents a later overflow. An infinity becomes the bound; a
    NaN stays NaN. It has no forward-mode derivative.

    Args:
      x: an array or a tree; leaves that are not real floating-point are returned unchanged.
      low, high: numbers with low ≤ high, traced or not.

    Raises:
      ValueError: low is above high, or a bound is not a number.

    Reference: Graves, 2013, arXiv:1308.0850, section 2.1.
    """
    Range(-math.inf, closed=True).check(low=low, high=high)
    ends = concrete(low), concrete(high)
    if TRACED not in ends and ends[0] > ends[1]:
        raise ValueError(f"the bounds are {low} and {high}, but low must be at most high")
    return jax.tree.map(lambda leaf: _clip_entries(leaf, low, high) if _is_real(leaf) else leaf, x)


def clip_cotangent_norm(x: Any, max_norm: Number, *, axis: int | None = -1) -> Any:
    """Return x, and scale its gradient down where the norm is above a bound.

        value: x;  ∂L/∂x ← ∂L/∂x · min(1, max_norm / ‖∂L/∂x‖)

    The norm does not overflow. A gradient with infinities is replaced by their signs, scaled to
    the bound, which is the limit of the formula when these entries grow together. A NaN makes its
    row NaN. It has no forward-mode derivative.

    Args:
      x: an array or a tree, each leaf with its own norms; leaves that are not real floating-point
        are returned unchanged.
      max_norm: at least 0, traced or not.
      axis: axis of the norm; by default each row of a batch has its own norm. None: one norm of
        the whole array.

    Raises:
      ValueError: max_norm is negative, NaN, or not a scalar.

    Reference: Pascanu, Mikolov & Bengio, 2013, arXiv:1211.5063, algorithm 1, at every step here.
    """
    BOUND.check(max_norm=max_norm)
    return jax.tree.map(
        lambda leaf: _clip_norm(axis, leaf, max_norm) if _is_real(leaf) else leaf, x
    )


class CotangentClip(NamedTuple):
    """Bounds on each entry of ∂L/∂h_t, ∂L/∂c_t and ∂L/∂z_t, z_t the gates' pre-activations.

    They act at every time step on the whole derivative, like `clip_cotangent`. A bound is
    (low, high), or a number b for (−b, b); None for no bound. Bounds on `gates` or on `h` keep the
    whole recursion finite. Bounds on `c` alone do not, since the gradient of h also flows back
    through the output gate, around c.

    Reference: Graves, 2013, arXiv:1308.0850: gates=10 in an LSTM.
    """

    h: Bound | None = None
    c: Bound | None = None
    gates: Bound | None = None

    def check(self) -> None:
        """Raise ValueError for an invalid bound."""
        for name, bound in self._asdict().items():
            if bound is not None:
                _check_field(name, lambda b=bound: clip_cotangent(None, *_as_pair(b)))

    def mark(self, name: str, x: Float[Array, "batch size"]) -> Float[Array, "batch size"]:
        """Return x, and apply the bound of the field `name` to its gradient."""
        bound = getattr(self, name)
        return x if bound is None else clip_cotangent(x, *_as_pair(bound))


class CotangentNormClip(NamedTuple):
    """Bounds on the norms of ∂L/∂h_t, ∂L/∂c_t and ∂L/∂z_t, for each row of the batch.

    They act at every time step on the whole derivative, like `clip_cotangent_norm`. z_t is one
    vector of all four gates. None for no bound.

    Reference: Pascanu, Mikolov & Bengio, 2013, arXiv:1211.5063, algorithm 1, at every step here.
    """

    h: Number | None = None
    c: Number | None = None
    gates: Number | None = None

    def check(self) -> None:
        """Raise ValueError for an invalid bound."""
        for name, bound in self._asdict().items():
            if bound is not None:
                _check_field(name, lambda b=bound: clip_cotangent_norm(None, b))

    def mark(self, name: str, x: Float[Array, "batch size"]) -> Float[Array, "batch size"]:
        """Return x, and apply the bound of the field `name` to its gradient."""
        bound = getattr(self, name)
        return x if bound is None else clip_cotangent_norm(x, bound)


def bounds_of(clip: CotangentClip | CotangentNormClip, name: str) -> tuple[Number, Number]:
    """Return the low and the high bound of a field; infinite for none."""
    bound = getattr(clip, name)
    return (-math.inf, math.inf) if bound is None else _as_pair(bound)


def check_cotangent_clip(clip: Any) -> None:
    """Raise ValueError unless `clip` is None, or a clip of this module with valid bounds."""
    if clip is None:
        return
    if not isinstance(clip, CotangentClip | CotangentNormClip):
        raise ValueError(
            f"cotangent_clip is {clip!r}; expected a CotangentClip or a CotangentNormClip, "
            f"such as CotangentClip(gates=10.0)"
        )
    clip.check()


def norm(x: Float[Array, "..."], axis: int | None = -1) -> Float[Array, "..."]:
    """Return the norm along an axis, without overflow or underflow of the squares."""
    x = jnp.asarray(x)
    scale = _scale_for_norm(x, axis)  # shape of x, 1 at the axis
    root = jnp.sqrt(jnp.sum(jnp.square(x / scale), axis, keepdims=True))
    return jnp.squeeze(scale * root, axis)


def _scale_for_norm(x: jax.Array, axis: int | None) -> jax.Array:
    """Return the largest absolute entry, clipped so that 1 / scale does not over- or underflow."""
    limits = jnp.finfo(x.dtype)
    largest = jnp.max(jnp.abs(x), axis, keepdims=True, initial=0)
    return jnp.clip(largest, 4 * limits.tiny, limits.max / 4)


# An identity with a clipped cotangent; its residuals are the bounds, which may be traced.
@jax.custom_vjp
def _clip_entries(x: jax.Array, low: Number, high: Number) -> jax.Array:
    del low, high
    return x


def _clip_entries_backward(bounds: tuple[Number, Number], d: jax.Array):
    low, high = (jnp.asarray(bound, d.dtype) for bound in bounds)
    return jnp.clip(d, low, high), None, None  # d has any shape; bounds have no gradient


_clip_entries.defvjp(lambda x, low, high: (x, (low, high)), _clip_entries_backward)


@jax.custom_vjp
def _clip_row_norms(x: Float[Array, "*rows size"], max_norm: Number) -> Float[Array, "*rows size"]:
    del max_norm
    return x


def _clip_row_norms_backward(max_norm: Number, d: Float[Array, "*rows size"]):
    bound = jnp.asarray(max_norm, d.dtype)  # []
    infinite = jnp.isinf(d)  # [*rows, size]
    signs = jnp.where(infinite, jnp.sign(d), 0)  # replaces a row with infinities
    scale = _scale_for_norm(d, -1)  # [*rows, 1]
    # Entries of at most about 1, so that their squares do not overflow.
    scaled = jnp.where(jnp.any(infinite, -1, keepdims=True), signs, d / scale)  # [*rows, size]
    root = jnp.sqrt(jnp.sum(jnp.square(scaled), -1, keepdims=True))  # [*rows, 1]
    beyond = scale * root > bound  # [*rows, 1]
    # Rows within the bound keep d itself, bit for bit.
    return jnp.where(beyond, scaled * (bound / jnp.where(root > 0, root, 1)), d), None


_clip_row_norms.defvjp(lambda x, max_norm: (x, max_norm), _clip_row_norms_backward)


def _clip_norm(axis: int | None, x: Any, max_norm: Number) -> jax.Array:
    """Apply `_clip_row_norms` along any axis; None: to the flattened array."""
    x = jnp.asarray(x)
    if axis is None:
        return _clip_row_norms(x.reshape(-1), max_norm).reshape(x.shape)
    return jnp.moveaxis(_clip_row_norms(jnp.moveaxis(x, axis, -1), max_norm), -1, axis)


def _is_real(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def _as_pair(bound: Bound) -> tuple[Number, Number]:
    match bound:
        case (low, high) if isinstance(bound, tuple):
            return low, high
        case tuple() | list() | str():
            raise ValueError(f"the bound is {bound!r}; expected a number or a pair (low, high)")
    return -bound, bound


def _check_field(name: str, clip: Any) -> None:
    """Run a check of a bound; name the field in its error."""
    try:
        clip()
    except (ValueError, TypeError) as error:
        raise ValueError(f"cotangent_clip.{name}: {error}") from None
