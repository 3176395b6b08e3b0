"""One layer in one direction over a sequence: the pure core, and the choice of its backend."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any, get_args

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, auto_axes
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from lstm_optax.lstm._probe import GradientFlow
from lstm_optax.lstm.backends.cudnn import cudnn_sequence
from lstm_optax.lstm.backends.fused import fused_sequence
from lstm_optax.lstm.backends.reference import reference_sequence
from lstm_optax.lstm.cell import LSTMParams, LSTMState
from lstm_optax.lstm.checks import check_dtypes, check_flow, check_sequence, checked_lengths
from lstm_optax.lstm.cotangents import check_cotangent_clip
from lstm_optax.lstm.steps import Clip, Gradient, Steps

BACKENDS = MappingProxyType(
    {"fused": fused_sequence, "reference": reference_sequence, "cudnn": cudnn_sequence}
)
"""The programs that compute a sequence, all to the same values; `auto` takes the first."""


def lstm_sequence(
    params: LSTMParams,
    x: Float[Array, "time batch features"],
    carry: LSTMState | None = None,
    *,
    seq_lengths: Int[Array, " batch"] | None = None,
    resets: Bool[Array, "time batch"] | None = None,
    reverse: bool = False,
    cotangent_clip: Clip = None,
    detach: Bool[Array, "time batch"] | Bool[Array, " time"] | None = None,
    probe: GradientFlow | None = None,
    dtype: Any = None,
    backend: str = "auto",
    gradient: Gradient = "stored",
) -> tuple[Float[Array, "time batch hidden"], LSTMState]:
    """Run one LSTM layer in one direction over time; a pure function, usable without Flax.

    Args:
      params: kernels and bias, blocks in the order i, f, g, o.
      x: inputs, time first; integers count as numbers.
      carry: the state before the sequence; zero if None.
      seq_lengths: how many steps of each row count, from 0 to time. After them (with `reverse`,
        before them) the carry is frozen and the output is zero. Of traced ones, less than 0 count
        as 0, more than time as time.
      resets: True, or not 0, where a new episode starts: the carry is zeroed before that step;
        with `reverse`, on the way out of the episode, that is before the step that precedes it in
        time.
      reverse: run from the last step to the first; outputs stay at their own times.
      cotangent_clip: bounds on the gradient inside back-propagation through time: a `CotangentClip`
        or `CotangentNormClip`. The outputs are the same with it, to the bit, as they are with
        `detach`; with `probe`, to rounding.
      detach: h-detach: True, or not 0, at the steps at which no gradient flows back through the
        product of h and kernel_hh; that through c, and that of the outputs, stays. Draw it anew for
        each training step, `jax.random.bernoulli(key, 0.25, (time,))`.
      probe: record the gradient at every step as the derivative by this, see `probe`.
      dtype: dtype of the products; the parameters' by default. The state and the sums are float32
        or better in any case.
      backend: a name in BACKENDS, or "auto".
      gradient: how the fused backend differentiates: "stored" keeps what its backward loop
        multiplies by, 7 numbers for each hidden unit, row and step; "remat" keeps 2, and computes
        the others anew; "autodiff" leaves it to JAX, slower, for forward mode (`jvp`, `jacfwd`,
        `hessian`). The reference has one way, JAX's, and refuses "remat"; cuDNN has its own, under
        "stored", and refuses the others.

    Returns:
      The outputs, in `dtype`, and the state after the last step; on a mesh of explicit axes they
      lie where x does.

    Raises:
      ValueError: shapes, dtypes, lengths or bounds that do not fit, an unknown backend or gradient,
        or a backend that cannot serve this call.

    Reference: Arpit et al., 2019, arXiv:1810.03023, for h-detach.
    """
    run = find_backend(backend)
    check_gradient(gradient)
    params, x, carry = jax.tree.map(jnp.asarray, (params, x, carry))
    hidden = check_sequence(params, x, carry, seq_lengths, resets)
    check_cotangent_clip(cotangent_clip)
    check_flow(x.shape[0], x.shape[1], detach, probe)
    seq_lengths = checked_lengths(x.shape[0], seq_lengths)
    resets = None if resets is None else jnp.asarray(resets, bool)
    dtype = jnp.dtype(dtype or params.kernel_ih.dtype)
    check_dtypes(params, x, dtype)
    state_dtype = jnp.promote_types(dtype, jnp.float32)
    params = LSTMParams(params.kernel_ih.astype(dtype), params.kernel_hh.astype(dtype), params.bias)
    state = zero_state(x.shape[1], hidden, state_dtype) if carry is None else carry
    state = LSTMState(state.h.astype(state_dtype), state.c.astype(state_dtype))
    steps = _steps(x.shape[0], seq_lengths, resets, reverse)
    if detach is not None:
        rows = jnp.asarray(detach, bool).reshape(x.shape[0], -1)
        steps = steps._replace(detach=jnp.broadcast_to(rows, x.shape[:2]))
    if probe is not None:
        steps = steps._replace(probe=jax.tree.map(lambda s: s.astype(state_dtype), probe))

    def compute(params, x, state, steps):
        if steps.alive is not None:  # so that not even a NaN in the padding reaches a gradient
            x = jnp.where(steps.alive[:, :, None], x, 0)
        params, x, state, steps = _varying_alike((params, x, state, steps))
        with jax.named_scope(f"lstm_{backend}"):
            return run(params, x, state, steps, reverse, cotangent_clip, gradient)

    outputs, state = _with_auto_axes(compute, x)(params, x, state, steps)
    return outputs.astype(dtype), state


def zero_state(batch: int, hidden: int, dtype: Any = jnp.float32) -> LSTMState:
    """Return the state before anything was read."""
    return LSTMState(jnp.zeros((batch, hidden), dtype), jnp.zeros((batch, hidden), dtype))


def find_backend(backend: str) -> Callable:
    """Return the program of that name; ValueError names those there are."""
    if backend == "auto":
        return next(iter(BACKENDS.values()))
    if backend not in BACKENDS:
        raise ValueError(
            f"unknown LSTM backend {backend!r}; there are 'auto', {', '.join(map(repr, BACKENDS))}"
        )
    return BACKENDS[backend]


def check_gradient(gradient: str) -> None:
    """Raise ValueError unless there is such a way to differentiate."""
    if gradient not in get_args(Gradient):
        ways = ", ".join(map(repr, get_args(Gradient)))
        raise ValueError(f"unknown gradient {gradient!r} of an LSTM; there are {ways}")


def _steps(time: int, seq_lengths, resets, reverse: bool) -> Steps:
    fresh, alive = resets, None
    if resets is not None and reverse:  # running back, an episode is left before its first step
        fresh = jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])])
    if seq_lengths is not None:
        t = jnp.arange(time)[:, None]
        alive = t < seq_lengths[None, :]
        if fresh is not None:  # a reset in the padding says nothing
            fresh = fresh & (t + reverse < seq_lengths[None, :])
    return Steps(fresh, alive, detach=None, probe=None)


def _with_auto_axes(compute: Callable, x) -> Callable:
    """On a mesh of explicit axes, let XLA divide the loop; what leaves it lies where x does."""
    sharding = jax.typeof(x).sharding
    if not sharding.mesh.explicit_axes:
        return compute
    time, rows, _ = sharding.spec
    state: Any = NamedSharding(sharding.mesh, P(rows))
    outputs = NamedSharding(sharding.mesh, P(time, rows))
    return auto_axes(compute, out_sharding=(outputs, LSTMState(state, state)))


def _varying_alike(inputs):
    """Inside `shard_map`, where each device has its own rows: all inputs as of one device.

    The gradients by what the devices share are then summed once, after the loop, and not in it.
    """
    over = frozenset().union(
        *(jax.typeof(leaf).manual_axis_type.varying for leaf in jax.tree.leaves(inputs))
    )

    def cast(leaf):
        axes = tuple(over - jax.typeof(leaf).manual_axis_type.varying)
        return jax.lax.pcast(leaf, axes, to="varying") if axes else leaf

    return jax.tree.map(cast, inputs) if over else inputs
