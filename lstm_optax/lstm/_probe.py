"""Record of the gradient inside back-propagation through time, at every step."""

import math
from collections.abc import Callable
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lstm_optax.checks import LENGTH
from lstm_optax.gates import GATES
from lstm_optax.lstm.cotangents import norm

SATURATED = 0.05
"""A gate this close to an end of its range, as a share of the range, is saturated."""


class GradientFlow(NamedTuple):
    """Gradient norms and gate saturation of one layer and direction, for each time step and row.

    Norms are over the hidden units, and of the gradient before `cotangent_clip` acts on it at that
    step; clips of later steps have acted already. Gates are in the order i, f, g, o. `low` and
    `high` are shares of the hidden units: a forget gate at its low end has no memory, one at its
    high end keeps all of it, and a gate at either end hardly learns. At steps after the
    `seq_lengths` of a row, norms are 0 and shares are those of a zero input: exclude these steps.
    """

    h: Float[Array, "time batch"]  # ‖∂L/∂h_t‖, along all paths
    c: Float[Array, "time batch"]  # ‖∂L/∂c_t‖, along all paths
    gates: Float[Array, "time batch 4"]  # ‖∂L/∂z_t‖ of each gate's pre-activations
    low: Float[Array, "time batch 4"]  # share of the gate at the low end: σ ≤ .05, tanh ≤ −.9
    high: Float[Array, "time batch 4"]  # share of the gate at the high end: σ ≥ .95, tanh ≥ .9

    @classmethod
    def zeros(cls, time: int, batch: int) -> Self:
        """Return zeros, to pass as the argument `probe` of a layer and differentiate by."""
        rows, gates = jnp.zeros((time, batch)), jnp.zeros((time, batch, len(GATES)))
        return cls(rows, rows, gates, gates, gates)

    def over_batch(self) -> "GradientFlow":
        """Return the norms over the batch and the mean shares, [time] and [time, 4]."""
        h, c, gates = (norm(x, 1) for x in (self.h, self.c, self.gates))
        return GradientFlow(h, c, gates, jnp.mean(self.low, 1), jnp.mean(self.high, 1))


def probe(
    loss: Callable[[tuple[GradientFlow, ...]], jax.Array], time: int, batch: int, *, layers: int = 1
) -> tuple[GradientFlow, ...]:
    """Return the gradient norms at every step of each layer and direction.

    The loss gets a tuple with one `GradientFlow` for each layer and direction and passes it to the
    layer, `LSTM(...)(x, probe=flows)`, or one of them to `lstm_sequence(..., probe=flow)`. A flow
    that is not passed on stays zero. The record is the derivative of the loss with respect to the
    flows; they change the loss by rounding only. To get it together with the gradient of the
    parameters, in one pass, use `jax.grad(loss, argnums=(0, 1))(params, flows)` with
    `GradientFlow.zeros`.

    Flax's counterpart is `nnx.Module.perturb` with `nnx.Perturbation`: adding a zero array to a
    value makes its derivative the gradient of that value. Here an identity function, `tap`, takes
    the place of the sum: its derivative is the norms, so the full gradients are not stored.

    Cost: one gradient of the loss, 14 more numbers for each time step and row, and one pass over
    the gradients and the pre-activations. With truncated back-propagation, the record covers the
    gradient within the window.

    Args:
      loss: function of the flows; it passes each flow to one call of a layer only.
      time, batch: sizes of the sequence, at least 1.
      layers: number of layers, directions counted separately: `len(lstm.params())`.

    Raises:
      ValueError: a count below 1.
    """
    LENGTH.check(time=time, batch=batch, layers=layers)
    return jax.grad(loss)(tuple(GradientFlow.zeros(time, batch) for _ in range(layers)))


def tap(name: str, x: Float[Array, "batch size"], flow: GradientFlow) -> Float[Array, "batch size"]:
    """Return x; the derivative with respect to `flow` is the record of the gradient of x.

    Args:
      name: "h", "c" or "gates".
      x: h, c or the pre-activations of the gates.
      flow: the flow of this time step, [batch] and [batch, 4].
    """
    if name == "gates":
        return _tap_gates(x, flow.gates, flow.low, flow.high)
    return _tap_norm(x, getattr(flow, name))


@jax.custom_vjp
def _tap_norm(x: Float[Array, "batch size"], slot: Float[Array, " batch"]) -> jax.Array:
    del slot
    return x


# d passes unchanged; the cotangent of the slot is the norm of d, [batch].
_tap_norm.defvjp(lambda x, slot: (x, None), lambda _, d: (d, norm(d)))


@jax.custom_vjp
def _tap_gates(z: Float[Array, "batch columns"], norms, low, high) -> jax.Array:
    del norms, low, high
    return z


def _tap_gates_forward(z: Float[Array, "batch columns"], *slots):
    del slots
    logit = math.log((1 - SATURATED) / SATURATED)  # σ(logit) = 1 − SATURATED
    ends = [logit / 2 if gate == "cell" else logit for gate in GATES]  # tanh z = 2 σ(2z) − 1
    ends, blocks = jnp.asarray(ends, z.dtype)[None, :, None], _split_gates(z)
    low, high = (jnp.mean(at, -1, dtype=z.dtype) for at in (blocks <= -ends, blocks >= ends))
    return z, (low, high)  # shares [batch, 4], the cotangents of the slots `low` and `high`


_tap_gates.defvjp(_tap_gates_forward, lambda shares, d: (d, norm(_split_gates(d)), *shares))


def _split_gates(z: Float[Array, "batch columns"]) -> Float[Array, "batch 4 hidden"]:
    return z.reshape(z.shape[0], len(GATES), -1)
