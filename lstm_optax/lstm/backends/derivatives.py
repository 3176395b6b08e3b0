"""Local derivatives of an LSTM step: the factors of the recursion in `fused_backward.py`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lstm_optax.lstm.backends.hoisted import project
from lstm_optax.lstm.cell import LSTMParams, LSTMState, product


class LocalDerivatives(NamedTuple):
    """Derivatives of the new state (h′, c′) of a step with respect to its inputs."""

    by_z: tuple[Float[Array, "*steps batch hidden"], ...]  # ∂c′/∂z of i, f and g; ∂h′/∂z of o
    h_by_c: Float[Array, "*steps batch hidden"]  # ∂h′/∂c′
    c_by_c: Float[Array, "*steps batch hidden"]  # ∂c′/∂c, the forget gate


class Saved(NamedTuple):
    """Arrays that the backward loop reads, for all steps."""

    h_before: Float[Array, "time batch hidden"]  # h_{t−1}, 0 after a reset
    h_by_c: Float[Array, "time batch hidden"]  # ∂h_t/∂c_t
    c_by_c: Float[Array, "time batch hidden"]  # ∂c_t/∂c_{t−1}, the forget gate
    by_z: Float[Array, "time batch 4*hidden"]  # ∂c_t/∂z of i, f, g, then ∂h_t/∂z of o


def halve_sigmoid_gates(params: LSTMParams) -> LSTMParams:
    """Return parameters that yield ½z for i, f and o, and z for g; halving is exact."""
    hidden = params.kernel_hh.shape[0]
    halves = jnp.repeat(jnp.array([0.5, 0.5, 1.0, 0.5]), hidden)  # [4·hidden]
    return jax.tree.map(
        lambda p: p * halves.astype(p.dtype).reshape((1,) * (p.ndim - 1) + (-1,)), params
    )


def apply_halved_gates(
    z: Float[Array, "*steps batch 4*hidden"], c: Float[Array, "*steps batch hidden"]
) -> tuple[LSTMState, LocalDerivatives]:
    """Return the new state and its derivatives with respect to z, not to the halved z given."""
    i, f, g, o = jnp.split(jnp.tanh(z), 4, axis=-1)  # [*steps, batch, hidden] each
    i, f, o = (0.5 * gate + 0.5 for gate in (i, f, o))  # σ(z) = ½ tanh(½z) + ½
    new_c = f * c + i * g
    tanh_c = jnp.tanh(new_c)
    # σ′ = σ (1 − σ) and tanh′ = 1 − tanh²; the order is i, f, g, o.
    by_z = (g * i * (1 - i), c * f * (1 - f), i * (1 - g * g), tanh_c * o * (1 - o))
    return LSTMState(o * tanh_c, new_c), LocalDerivatives(by_z, o * (1 - tanh_c * tanh_c), f)


def recompute_saved(
    params: LSTMParams, x: Float[Array, "time batch features"], before: LSTMState
) -> Saved:
    """Return the arrays of "stored" from h_{t−1} and c_{t−1}: one product for all steps."""
    params, dtype = halve_sigmoid_gates(params), before.c.dtype
    z = project(params, x, dtype) + product(before.h, params.kernel_hh, dtype)
    _, derivatives = apply_halved_gates(z, before.c)  # z is [time, batch, 4·hidden]
    by_z = jnp.concatenate(derivatives.by_z, axis=-1)  # [time, batch, 4·hidden]
    return Saved(before.h, derivatives.h_by_c, derivatives.c_by_c, by_z)
