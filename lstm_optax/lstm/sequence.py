"""One LSTM layer in one direction over a sequence, as a pure function that picks a backend.

Every backend computes, for t = 0 … T − 1 (with `reverse` for t = T − 1 … 0) and each row:

    h, c = 0 where reset_t, else the state after the step before
    z_t = x_t·W_ih + h·W_hh + b;  i, f, o = σ(z_i), σ(z_f), σ(z_o);  g = tanh(z_g)
    c_t = f ⊙ c + i ⊙ g;  h_t = o ⊙ tanh(c_t);  output_t = h_t
    where not valid_t: h_t, c_t = the state after the step before, output_t = 0

and the gradient of this by back-propagation through time, with d_v = ∂L/∂v along all paths:

    d_h_t += d_output_t;  d_c_t += d_h_t ⊙ ∂h_t/∂c_t;  dz_t = d_c_t ⊙ ∂c_t/∂z + d_h_t ⊙ ∂h_t/∂z
    d_h = dz_t·W_hhᵀ, 0 where detach_t;  d_c = d_c_t ⊙ f;  both 0 where reset_t
    where not valid_t: d_h and d_c of the step after pass unchanged, and dz_t = 0

(∂h_t/∂z at fixed c_t: only the output gate has one.)

`backends/fused.py` writes out each gate. Here arguments are checked and turned into the masks
`reset`, `valid` and `detach` of `Steps`, in the order of time.
"""

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
from lstm_optax.lstm.backends.native import gains_from, native_sequence, reasons_against
from lstm_optax.lstm.backends.reference import reference_sequence
from lstm_optax.lstm.cell import LSTMParams, LSTMState
from lstm_optax.lstm.checks import check_dtypes, check_flow, check_sequence, checked_lengths
from lstm_optax.lstm.cotangents import check_cotangent_clip
from lstm_optax.lstm.lookup import Lookup, check_lookup
from lstm_optax.lstm.steps import Clip, Gradient, Steps

BACKENDS = MappingProxyType(
    {
        "native": native_sequence,
        "fused": fused_sequence,
        "reference": reference_sequence,
        "cudnn": cudnn_sequence,
    }
)
"""Implementations of `lstm_sequence`, all with the same values.

"auto" is "native" on a CPU, where the library is installed and supports the call, else "fused".
"""


def lstm_sequence(
    params: LSTMParams,
    x: Float[Array, "time batch features"] | Lookup,
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
      params: kernels and bias, gates in the order i, f, g, o.
      x: inputs, time first; integers are converted to floats. Or a `Lookup`.
      carry: the state before the sequence; zero if None.
      seq_lengths: valid steps of each row, from 0 to time. After them (with `reverse`, before
        them) the carry is frozen and the output is zero. Traced lengths are clipped to [0, time].
      resets: True, or not 0, at the first step of an episode: the carry is zeroed before that step;
        with `reverse`, between that step and the one before it in time.
      reverse: run from the last step to the first; each output stays at its own time.
      cotangent_clip: bounds on the gradient inside back-propagation through time: a `CotangentClip`
        or `CotangentNormClip`. Neither it nor `detach` changes a bit of the outputs; `probe`
        changes them by rounding.
      detach: h-detach: True, or not 0, at the steps where no gradient flows back through the
        product of h and kernel_hh; the paths through c and from the outputs stay. Draw a new mask
        for each training step, `jax.random.bernoulli(key, 0.25, (time,))`.
      probe: record the gradient of every step as the derivative with respect to this, see `probe`.
      dtype: dtype of the products; the parameters' by default. The state and the sums are always
        float32 or wider.
      backend: a name in BACKENDS, or "auto".
      gradient: how to differentiate. "stored" keeps what the backward loop reads, 7 numbers for
        each hidden unit, row and step in the fused backend and 5 in the native one; "remat" keeps 2
        or none, and recomputes the others; "autodiff" leaves it to JAX, which is slower but
        supports forward mode (`jvp`, `jacfwd`, `hessian`), and which the native backend rejects.
        The reference always uses JAX's and rejects "remat"; cuDNN has its own, under "stored", and
        rejects the others.

    Returns:
      The outputs, in `dtype`, and the state after the last step. On a mesh with explicit axes both
      have the sharding of x.

    Raises:
      ValueError: a wrong shape, dtype, length or bound, an unknown backend or gradient, or a
        backend that cannot run this call.

    Reference: Arpit et al., 2019, arXiv:1810.03023, for h-detach.
    """
    check_backend(backend)
    check_gradient(gradient)
    params, x, carry = jax.tree.map(jnp.asarray, (params, x, carry))
    if isinstance(x, Lookup):
        check_lookup(x)
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
    state = LSTMState(state.h.astype(state_dtype), state.c.astype(state_dtype))  # [batch, hidden]
    steps = _reset_and_valid_masks(x.shape[0], seq_lengths, resets, reverse)
    if detach is not None:
        mask = jnp.asarray(detach, bool).reshape(x.shape[0], -1)  # [time, batch or 1]
        steps = steps._replace(detach=jnp.broadcast_to(mask, x.shape[:2]))  # [time, batch]
    if probe is not None:
        steps = steps._replace(probe=jax.tree.map(lambda s: s.astype(state_dtype), probe))

    def compute(params, x, state, steps):
        name = backend
        if backend == "auto":
            name = "fused" if reasons_against(params, x, steps, gradient) else "native"
        if isinstance(x, Lookup) and not (name == "native" and gains_from(x)):
            x = x.rows()
        if steps.valid is not None and not isinstance(x, Lookup):  # no id of the padding is read
            # 0 · NaN is NaN: without this, a NaN in the padding would reach the gradients.
            x = jnp.where(steps.valid[:, :, None], x, 0)  # [time, batch, features]
        params, x, state, steps = _vary_over_same_axes((params, x, state, steps))
        with jax.named_scope(f"lstm_{name}"):
            return BACKENDS[name](params, x, state, steps, reverse, cotangent_clip, gradient)

    leading = x.ids if isinstance(x, Lookup) else x
    compute = _with_auto_axes(compute, leading)
    outputs, state = compute(params, x, state, steps)  # outputs: [time, batch, hidden]
    return outputs.astype(dtype), state


def zero_state(batch: int, hidden: int, dtype: Any = jnp.float32) -> LSTMState:
    """Return the state before the first step, h = c = 0."""
    return LSTMState(jnp.zeros((batch, hidden), dtype), jnp.zeros((batch, hidden), dtype))


def check_backend(backend: str) -> None:
    """Raise ValueError unless this is "auto" or a name in `BACKENDS`."""
    if backend not in ("auto", *BACKENDS):
        raise ValueError(
            f"unknown LSTM backend {backend!r}; expected 'auto', {', '.join(map(repr, BACKENDS))}"
        )


def check_gradient(gradient: str) -> None:
    """Raise ValueError unless this is a name in `Gradient`."""
    if gradient not in get_args(Gradient):
        ways = ", ".join(map(repr, get_args(Gradient)))
        raise ValueError(f"unknown gradient {gradient!r} of an LSTM; expected {ways}")


def _reset_and_valid_masks(
    time: int,
    seq_lengths: Int[Array, " batch"] | None,
    resets: Bool[Array, "time batch"] | None,
    reverse: bool,
) -> Steps:
    """Return the masks of a sequence, without `detach` and `probe`."""
    reset, valid = resets, None  # [time, batch] each
    if resets is not None and reverse:
        # Backwards, the boundary of step t is crossed on the way from t to t − 1.
        reset = jnp.concatenate([resets[1:], jnp.zeros_like(resets[:1])])
    if seq_lengths is not None:
        t = jnp.arange(time)[:, None]  # [time, 1]
        valid = t < seq_lengths[None, :]  # [time, batch]
        if reset is not None:
            # A reset in the padding has no effect; with `reverse` it was moved by one step.
            reset = reset & (t + reverse < seq_lengths[None, :])
    return Steps(reset, valid, detach=None, probe=None)


def _with_auto_axes(compute: Callable, x: Array) -> Callable:
    """On a mesh with explicit axes, let XLA partition the loop; the results are sharded like x."""
    sharding = jax.typeof(x).sharding
    if not sharding.mesh.explicit_axes:
        return compute
    time, rows = sharding.spec[:2]
    state: Any = NamedSharding(sharding.mesh, P(rows))
    outputs = NamedSharding(sharding.mesh, P(time, rows))
    return auto_axes(compute, out_sharding=(outputs, LSTMState(state, state)))


def _vary_over_same_axes(inputs: Any) -> Any:
    """Inside `shard_map`, mark all inputs as varying over the mesh axes that one of them has.

    The gradient of a shared input, such as the parameters, is then summed over the devices once
    after the loop. Otherwise the sum would be inside the loop.
    """
    mesh_axes = frozenset().union(
        *(jax.typeof(leaf).manual_axis_type.varying for leaf in jax.tree.leaves(inputs))
    )

    def cast(leaf):
        missing = tuple(mesh_axes - jax.typeof(leaf).manual_axis_type.varying)
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, inputs) if mesh_axes else inputs
