"""Clipping by the norm of all gradients, which no finite gradient can overflow."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import BOUND, LENGTH, SHARE, check_choice
from lstm_optax.transforms.derivatives import root
from lstm_optax.transforms.dtypes import real_only
from lstm_optax.transforms.scalars import Scalar, increment, scalar

NonFinite = Literal["pass", "zero"]

_SMALL = 2**14
"""Leaves of at most so many entries are measured together: a copy costs less than a call each."""


class ClipByGlobalNormState(NamedTuple):
    """State of `clip_by_global_norm`: what the last step did, and how often."""

    norm: jax.Array  # of the finite entries that came last; float []
    factor: jax.Array  # in [0, 1], what they were multiplied with, or 0 if too small; float []
    clipped: jax.Array  # steps whose factor was below 1; int32 []
    nonfinite: jax.Array  # steps with an entry that was not finite; int32 []


@real_only
def clip_by_global_norm(
    max_norm: Scalar, *, nonfinite: NonFinite = "pass"
) -> optax.GradientTransformation:
    """Scale the updates down where their norm, of all leaves together, exceeds a bound.

        gives g · min(1, c / ‖g‖)

    Where the sum of squares overflows or vanishes, the norm is taken of g / max|g| instead, so
    [1e20, 1, 0] in float32 and [300, 1] in float16 are scaled like any other gradient
    (`optax.clip_by_global_norm` makes them zero). Entries that are not finite do not count in the
    norm. Refusing a step is the work of `guard`.

    Args:
      max_norm: c ≥ 0; ∞ only measures.
      nonfinite: what becomes of infinities and NaN: they "pass" as they are, or become "zero".

    Raises:
      ValueError: c is a negative number, or `nonfinite` is neither.

    Reference: Pascanu, Mikolov & Bengio, 2013, arXiv:1211.5063, algorithm 1.
    """
    BOUND.check(max_norm=max_norm)
    check_choice("nonfinite", nonfinite, get_args(NonFinite))

    def init(params):
        del params
        return _no_clips()

    @jax.named_scope("clip_by_global_norm")
    def update(updates, state, params=None):
        del params
        return _clip(updates, _measure(updates), max_norm, state, nonfinite)

    return optax.GradientTransformation(init, update)


class ClipByNormQuantileState(NamedTuple):
    """State of `clip_by_norm_quantile`."""

    count: jax.Array  # norms seen; int32 []
    recent: jax.Array  # the last of them, in a ring; float [window]
    clip: ClipByGlobalNormState


@real_only
def clip_by_norm_quantile(
    quantile: Scalar = 0.9, *, window: int = 100, nonfinite: NonFinite = "pass"
) -> optax.GradientTransformation:
    """Clip by a bound that follows the norms of the recent gradients.

        gives g · min(1, c / ‖g‖),  c the quantile of the last norms, this one among them

    The bound is one of the norms, the next lower one where the quantile falls between two, so that
    an outlier moves it by a rank, not by its size. The norms are those before the clip, so the
    bound can rise again. Norms of 0 are not remembered. The first gradient is never clipped: chain
    it with `clip_by_global_norm` where that one may explode.

    Args:
      quantile: in [0, 1]; where the norms neither rise nor fall, about so large a share of the
        steps is not clipped.
      window: how many norms to remember, ≥ 1; a Python integer, since the shape of the state
        depends on it.
      nonfinite: as in `clip_by_global_norm`.

    Raises:
      ValueError: a number out of range, or `nonfinite` is neither.

    Reference: Seetharaman et al., 2020, arXiv:2007.14469, "AutoClip", over a window here.
    """
    SHARE.check(quantile=quantile)
    LENGTH.check(window=window)
    check_choice("nonfinite", nonfinite, get_args(NonFinite))

    def init(params):
        del params
        recent = jnp.zeros(window, scalar(0).dtype)
        return ClipByNormQuantileState(jnp.zeros([], jnp.int32), recent, _no_clips())

    @jax.named_scope("clip_by_norm_quantile")
    def update(updates, state, params=None):
        del params
        size = _measure(updates)
        norm = scalar(size.norm())
        seen = norm > 0
        recent = jnp.where(seen, state.recent.at[state.count % window].set(norm), state.recent)
        count = jnp.where(seen, increment(state.count), state.count)
        filled = jnp.where(jnp.arange(window) < count, recent, jnp.nan)
        lower = jnp.nanquantile(filled, quantile, method="lower")
        bound = jnp.where(count > 0, lower, jnp.inf)
        updates, clip = _clip(updates, size, bound, state.clip, nonfinite)
        return updates, ClipByNormQuantileState(count, recent, clip)

    return optax.GradientTransformation(init, update)


def global_norm(tree: Any) -> jax.Array:
    """Return the norm √Σ |x|² over all entries of a tree, finite where they are.

    It neither overflows nor vanishes where the squares do: it is the largest number of its dtype
    (float32 or better) where the norm itself is beyond that. 0 for an empty tree; not finite where
    an entry is not. It is made to be looked at, not to be differentiated.
    """
    size = _measure(jax.tree.map(_real_parts, tree))
    return jnp.where(size.finite, size.norm(), size.plain)


def _real_parts(x: Any) -> Any:
    return (jnp.real(x), jnp.imag(x)) if jnp.iscomplexobj(x) else x


class _Size(NamedTuple):
    """The norm of a tree's finite entries, as root / scale, whose parts are never extreme."""

    root: jax.Array
    scale: jax.Array
    finite: jax.Array  # whether every entry is finite
    plain: jax.Array  # the root of the plain sum of squares

    def norm(self) -> jax.Array:
        return jnp.minimum(self.root / self.scale, jnp.finfo(self.root.dtype).max)


def _measure(tree: Any) -> _Size:
    leaves = jax.tree.leaves(tree)
    dtype = jnp.result_type(jnp.float32, *leaves)
    leaves, limits = _small_as_one(leaves, dtype), jnp.finfo(dtype)
    squares = _sum_of_squares(leaves, dtype)
    # squares below the smallest number are lost; beneath this sum they could have mattered
    lowest = sum(jnp.size(x) for x in leaves) * limits.tiny / limits.eps
    usual = jnp.isfinite(squares) & (squares > lowest)
    one = jnp.ones([], dtype)

    def plain(leaves):
        del leaves
        # 1 and True, but as of one device inside `shard_map` if the leaves are
        return root(squares), jnp.where(usual, one, squares), usual

    def scaled(leaves):
        kept = [jnp.where(jnp.isfinite(x), jnp.asarray(x, dtype), 0) for x in leaves]
        largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0) for x in kept] or [one]))
        scale = 1 / jnp.clip(largest, 4 * limits.tiny, limits.max / 4)
        scale = jax.lax.stop_gradient(scale)  # the norm is the same for any scale
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves] or [one > 0]))
        return root(_sum_of_squares([scale * x for x in kept], dtype)), scale, finite

    length, scale, finite = jax.lax.cond(usual, plain, scaled, leaves)
    return _Size(length, scale, finite, jnp.sqrt(squares))


def _small_as_one(leaves: list, dtype: Any) -> list:
    """Return leaves of the same entries, the small ones as one: each leaf has its price."""

    def is_small(x: Any) -> bool:
        whole = jax.typeof(x).sharding.is_fully_replicated  # else each device has its part
        size = jnp.size(x)  # symbolic under `jax.export`, perhaps
        return isinstance(size, int) and size <= _SMALL and whole

    small = [jnp.ravel(jnp.asarray(x, dtype)) for x in leaves if is_small(x)]
    others = [x for x in leaves if not is_small(x)]
    return [*others, jnp.concatenate(small)] if small else others


def _sum_of_squares(leaves: list, dtype: Any) -> jax.Array:
    sums = (jnp.sum(jnp.square(jnp.asarray(x, dtype))) for x in leaves)
    return sum(sums, start=jnp.zeros([], dtype))


def _clip(
    updates: Any, size: _Size, max_norm: Scalar, state: ClipByGlobalNormState, nonfinite: NonFinite
) -> tuple[Any, ClipByGlobalNormState]:
    norm = size.norm()
    beyond = norm > max_norm
    scale = jnp.where(beyond, size.scale, 1)
    factor = jnp.where(beyond, max_norm / jnp.where(beyond, size.root, 1), 1)

    def leaf(g):
        wide = jnp.asarray(g, jnp.promote_types(jnp.result_type(g), jnp.float32))
        small = wide * scale.astype(wide.dtype) * factor.astype(wide.dtype)
        if nonfinite == "zero":
            small = jnp.where(jnp.isfinite(wide), small, 0)
        return small.astype(jnp.result_type(g))

    new_state = ClipByGlobalNormState(
        norm=scalar(norm),
        factor=scalar(scale * factor),
        clipped=jnp.where(beyond, increment(state.clipped), state.clipped),
        nonfinite=jnp.where(size.finite, state.nonfinite, increment(state.nonfinite)),
    )
    return jax.tree.map(leaf, updates), new_state


def _no_clips() -> ClipByGlobalNormState:
    return ClipByGlobalNormState(  # no array twice: each may be donated
        norm=scalar(0),
        factor=scalar(1),
        clipped=jnp.zeros([], jnp.int32),
        nonfinite=jnp.zeros([], jnp.int32),
    )
