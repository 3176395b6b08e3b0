"""Clipping by the global norm, computed so that finite gradients cannot overflow it."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from lstm_optax.checks import BOUND, LENGTH, SHARE, check_choice
from lstm_optax.transforms.derivatives import safe_sqrt
from lstm_optax.transforms.dtypes import real_only
from lstm_optax.transforms.scalars import Scalar, increment, scalar

NonFinite = Literal["pass", "zero"]

_SMALL_SIZE = 2**14
"""Leaves with at most this many entries are concatenated before the norm is computed."""


class ClipByGlobalNormState(NamedTuple):
    """State of `clip_by_global_norm`."""

    norm: jax.Array  # float []; norm of the last updates, without non-finite entries
    factor: jax.Array  # float []; scale of the last updates, in [0, 1]; 0 if it underflows
    clipped: jax.Array  # int32 []; number of steps with a factor below 1
    nonfinite: jax.Array  # int32 []; number of steps with a non-finite entry
    zeroed: Any  # int32 []; the same count with nonfinite="zero", otherwise None


@real_only
def clip_by_global_norm(
    max_norm: Scalar, *, nonfinite: NonFinite = "pass"
) -> optax.GradientTransformation:
    """Scale the updates down if the norm of all leaves together exceeds a bound.

        g ← g · min(1, c / ‖g‖)

    If the sum of squares overflows or underflows, the norm is computed from g / max|g|. So
    [1e20, 1, 0] in float32 and [300, 1] in float16 are scaled like any other gradient
    (`optax.clip_by_global_norm` returns zeros for them). Non-finite entries are excluded from the
    norm. To skip a step with non-finite entries, use `guard`.

    Args:
      max_norm: c ≥ 0; with ∞ the norm is recorded, but nothing is clipped.
      nonfinite: how to treat infinities and NaN: "pass" leaves them unchanged, "zero" replaces them
        by 0, and `fit` continues if the updates and the optimizer's state are finite then.

    Raises:
      ValueError: c is a negative number, or `nonfinite` is another value.

    Reference: Pascanu, Mikolov & Bengio, 2013, arXiv:1211.5063, algorithm 1.
    """
    BOUND.check(max_norm=max_norm)
    check_choice("nonfinite", nonfinite, get_args(NonFinite))

    def init(params):
        del params
        return _initial_clip_state(nonfinite)

    @jax.named_scope("clip_by_global_norm")
    def update(updates, state, params=None):
        del params
        return _clip(updates, _scaled_norm(updates), max_norm, state, nonfinite)

    return optax.GradientTransformation(init, update)


class ClipByNormQuantileState(NamedTuple):
    """State of `clip_by_norm_quantile`."""

    count: jax.Array  # int32 []; number of norms recorded
    recent: jax.Array  # float [window]; ring buffer of the most recent norms
    clip: ClipByGlobalNormState


@real_only
def clip_by_norm_quantile(
    quantile: Scalar = 0.9, *, window: int = 100, nonfinite: NonFinite = "pass"
) -> optax.GradientTransformation:
    """Clip by a quantile of the norms of recent gradients.

        g ← g · min(1, c / ‖g‖),  c the quantile of the recent norms, including this one

    If the quantile is between two norms, c is the lower one, so an outlier changes c by one rank
    and not by its size. The norms are those before clipping, so c can increase again. Norms of 0
    are not recorded. The first gradient is never clipped: if it may be very large, chain this link
    with `clip_by_global_norm`.

    Args:
      quantile: in [0, 1]; for stationary norms, about the fraction of steps that are not clipped.
      window: the number of norms to store, ≥ 1; a Python integer, because the shape of the state
        depends on it.
      nonfinite: as in `clip_by_global_norm`.

    Raises:
      ValueError: a number is out of range, or `nonfinite` is another value.

    Reference: Seetharaman et al., 2020, arXiv:2007.14469, "AutoClip", with a window of norms here.
    """
    SHARE.check(quantile=quantile)
    LENGTH.check(window=window)
    check_choice("nonfinite", nonfinite, get_args(NonFinite))

    def init(params):
        del params
        recent = jnp.zeros(window, scalar(0).dtype)
        return ClipByNormQuantileState(
            jnp.zeros([], jnp.int32), recent, _initial_clip_state(nonfinite)
        )

    @jax.named_scope("clip_by_norm_quantile")
    def update(updates, state, params=None):
        del params
        scaled_norm = _scaled_norm(updates)
        norm = scalar(scaled_norm.norm())
        nonzero = norm > 0
        recent = jnp.where(nonzero, state.recent.at[state.count % window].set(norm), state.recent)
        count = jnp.where(nonzero, increment(state.count), state.count)
        filled = jnp.where(jnp.arange(window) < count, recent, jnp.nan)  # [window]
        lower = jnp.nanquantile(filled, quantile, method="lower")
        bound = jnp.where(count > 0, lower, jnp.inf)
        updates, clip = _clip(updates, scaled_norm, bound, state.clip, nonfinite)
        return updates, ClipByNormQuantileState(count, recent, clip)

    return optax.GradientTransformation(init, update)


def global_norm(tree: Any) -> jax.Array:
    """Return the norm √Σ |x|² over all entries of a tree; finite exactly if all entries are.

    Squares that overflow or underflow do not change the result. A norm above the range of its dtype
    (float32 or wider) is returned as the largest finite number. With an infinite or NaN entry, the
    norm is infinite or NaN. An empty tree has norm 0. Do not differentiate through it.
    """
    scaled_norm = _scaled_norm(jax.tree.map(_real_parts, tree))
    return jnp.where(scaled_norm.finite, scaled_norm.norm(), scaled_norm.plain)


def _real_parts(x: Any) -> Any:
    return (jnp.real(x), jnp.imag(x)) if jnp.iscomplexobj(x) else x


class _ScaledNorm(NamedTuple):
    """The norm of the finite entries of a tree, as root / scale.

    The quotient itself may overflow or underflow; the two numbers do not.
    """

    root: jax.Array  # float []; norm of scale · x
    scale: jax.Array  # float []; 1, or about 1 / max|x| if squares overflow or underflow
    finite: jax.Array  # bool []; all entries are finite
    plain: jax.Array  # float []; √Σ x² without scaling

    def norm(self) -> jax.Array:
        return jnp.minimum(self.root / self.scale, jnp.finfo(self.root.dtype).max)


def _scaled_norm(tree: Any) -> _ScaledNorm:
    leaves = jax.tree.leaves(tree)
    dtype = jnp.result_type(jnp.float32, *leaves)
    leaves, limits = _concatenate_small(leaves, dtype), jnp.finfo(dtype)
    squares = _sum_of_squares(leaves, dtype)  # []
    # A square below `tiny` becomes 0. All such squares together are below size · tiny, which
    # rounding hides unless the sum itself is below this bound.
    lowest = sum(jnp.size(x) for x in leaves) * limits.tiny / limits.eps
    in_range = jnp.isfinite(squares) & (squares > lowest)
    one = jnp.ones([], dtype)

    def plain(leaves):
        del leaves
        # The scale is 1 and `finite` True. Computed from the leaves, because inside `shard_map`
        # both branches must vary over the same mesh axes.
        return safe_sqrt(squares), jnp.where(in_range, one, squares), in_range

    def scaled(leaves):
        kept = [jnp.where(jnp.isfinite(x), jnp.asarray(x, dtype), 0) for x in leaves]
        largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0) for x in kept] or [one]))
        scale = 1 / jnp.clip(largest, 4 * limits.tiny, limits.max / 4)
        scale = jax.lax.stop_gradient(scale)  # the norm does not depend on the scale
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves] or [one > 0]))
        return safe_sqrt(_sum_of_squares([scale * x for x in kept], dtype)), scale, finite

    scaled_root, scale, finite = jax.lax.cond(in_range, plain, scaled, leaves)
    return _ScaledNorm(scaled_root, scale, finite, jnp.sqrt(squares))


def _concatenate_small(leaves: list[Any], dtype: Any) -> list[Any]:
    """Concatenate small leaves into one array, because every leaf costs a kernel call."""

    def is_small(x: Any) -> bool:
        replicated = jax.typeof(x).sharding.is_fully_replicated  # else it would be gathered
        size = jnp.size(x)  # may be symbolic under `jax.export`
        return isinstance(size, int) and size <= _SMALL_SIZE and replicated

    small = [jnp.ravel(jnp.asarray(x, dtype)) for x in leaves if is_small(x)]
    others = [x for x in leaves if not is_small(x)]
    return [*others, jnp.concatenate(small)] if small else others


def _sum_of_squares(leaves: list, dtype: Any) -> jax.Array:
    sums = (jnp.sum(jnp.square(jnp.asarray(x, dtype))) for x in leaves)
    return sum(sums, start=jnp.zeros([], dtype))


def _clip(
    updates: Any,
    scaled_norm: _ScaledNorm,
    max_norm: Scalar,
    state: ClipByGlobalNormState,
    nonfinite: NonFinite,
) -> tuple[Any, ClipByGlobalNormState]:
    norm = scaled_norm.norm()
    clips = norm > max_norm
    # g · c / ‖g‖ = g · scale · (c / root), in two factors, since c / ‖g‖ alone may underflow
    scale = jnp.where(clips, scaled_norm.scale, 1)
    factor = jnp.where(clips, max_norm / jnp.where(clips, scaled_norm.root, 1), 1)

    def leaf(g):
        wide = jnp.asarray(g, jnp.promote_types(jnp.result_type(g), jnp.float32))
        clipped = wide * scale.astype(wide.dtype) * factor.astype(wide.dtype)
        if nonfinite == "zero":
            clipped = jnp.where(jnp.isfinite(wide), clipped, 0)
        return clipped.astype(jnp.result_type(g))

    def count_nonfinite(count):
        return jnp.where(scaled_norm.finite, count, increment(count))

    new_state = ClipByGlobalNormState(
        norm=scalar(norm),
        factor=scalar(scale * factor),
        clipped=jnp.where(clips, increment(state.clipped), state.clipped),
        nonfinite=count_nonfinite(state.nonfinite),
        zeroed=count_nonfinite(state.zeroed) if nonfinite == "zero" else None,
    )
    return jax.tree.map(leaf, updates), new_state


def _initial_clip_state(nonfinite: NonFinite) -> ClipByGlobalNormState:
    return ClipByGlobalNormState(  # distinct arrays, because the state may be donated
        norm=scalar(0),
        factor=scalar(1),
        clipped=jnp.zeros([], jnp.int32),
        nonfinite=jnp.zeros([], jnp.int32),
        zeroed=jnp.zeros([], jnp.int32) if nonfinite == "zero" else None,
    )
