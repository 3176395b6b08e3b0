"""The gradient inside back-propagation through time, seen at every step."""

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
"""So near to an end of its range, as a share of the range, a gate is saturated."""


class GradientFlow(NamedTuple):
    """What flowed back through one layer and direction, at each time step and for each row.

    Norms are over the hidden units, of the gradient as it arrives: before `cotangent_clip` acts on
    it at that step, after it has acted at all steps run later. Gates are in the order i, f, g, o.
    `low` and `high` are shares of the hidden units: a forget gate at its low end has no memory, one
    at its high end keeps all of it, and at either end no gate learns. After a row's end, where
    `seq_lengths` has one, norms are 0, and shares are those of an input of 0: leave them out.
    """

    h: Float[Array, "time batch"]  # ‖∂L/∂h_t‖, of the whole derivative
    c: Float[Array, "time batch"]  # ‖∂L/∂c_t‖, of the whole derivative
    gates: Float[Array, "time batch 4"]  # ‖∂L/∂z_t‖ of each gate's pre-activations
    low: Float[Array, "time batch 4"]  # share of the gate at the low end: σ ≤ .05, tanh ≤ −.9
    high: Float[Array, "time batch 4"]  # share of the gate at the high end: σ ≥ .95, tanh ≥ .9

    @classmethod
    def zeros(cls, time: int, batch: int) -> Self:
        """Return what a layer's argument `probe` takes, to be differentiated by."""
        rows, gates = jnp.zeros((time, batch)), jnp.zeros((time, batch, len(GATES)))
        return cls(rows, rows, gates, gates, gates)

    def over_batch(self) -> "GradientFlow":
        """Return the norms over the whole batch, and the mean shares: [time] and [time, 4]."""
        h, c, gates = (norm(x, 1) for x in (self.h, self.c, self.gates))
        return GradientFlow(h, c, gates, jnp.mean(self.low, 1), jnp.mean(self.high, 1))


def probe(
    loss: Callable[[tuple[GradientFlow, ...]], jax.Array], time: int, batch: int, *, layers: int = 1
) -> tuple[GradientFlow, ...]:
    """Return what flows back through each layer and direction in the gradient of a loss.

    The loss gets one `GradientFlow` for each, and must hand them to the layer, as
    `LSTM(...)(x, probe=flows)`, or one of them as `lstm_sequence(..., probe=flow)`: what is not
    handed on stays zero. They change the loss by rounding at most; the record is the derivative by
    them. To have it beside the gradient by the parameters, in one pass, differentiate by both:
    `jax.grad(loss, argnums=(0, 1))(params, flows)`, with `GradientFlow.zeros` for the flows.

    Cost: one gradient of the loss. Beside it, 14 numbers for each time step and row, and one pass
    over the gradients and the pre-activations. Inside a window of truncated back-propagation it
    sees what flows within the window.

    Args:
      loss: flows → the loss; uses each flow in one call of a layer alone.
      time, batch: of the sequence that the layer runs over, at least 1.
      layers: how many there are, each direction counted: `len(lstm.params())`.

    Raises:
      ValueError: a count below 1.
    """
    LENGTH.check(time=time, batch=batch, layers=layers)
    return jax.grad(loss)(tuple(GradientFlow.zeros(time, batch) for _ in range(layers)))


def tap(name: str, x: Float[Array, "batch size"], flow: GradientFlow) -> Float[Array, "batch size"]:
    """Return x; the derivative by the fields of `flow` is the record of the gradient by x.

    Args:
      name: "h", "c" or "gates".
      x: what it is the gradient by.
      flow: of this time step, [batch] and [batch, 4].
    """
    if name == "gates":
        return _tap_gates(x, flow.gates, flow.low, flow.high)
    return _tap(x, getattr(flow, name))


@jax.custom_vjp
def _tap(x, slot):
    del slot
    return x


_tap.defvjp(lambda x, slot: (x, None), lambda _, g: (g, norm(g)))


@jax.custom_vjp
def _tap_gates(z, norms, low, high):
    del norms, low, high
    return z


def _tap_gates_forward(z, *slots):
    del slots
    odds = math.log((1 - SATURATED) / SATURATED)
    ends = [odds / 2 if gate == "cell" else odds for gate in GATES]  # tanh z = 2 σ(2z) − 1
    ends, blocks = jnp.asarray(ends, z.dtype)[None, :, None], _blocks(z)
    low, high = (jnp.mean(at, -1, dtype=z.dtype) for at in (blocks <= -ends, blocks >= ends))
    return z, (low, high)


_tap_gates.defvjp(_tap_gates_forward, lambda share, g: (g, norm(_blocks(g)), *share))


def _blocks(z: Float[Array, "batch columns"]) -> Float[Array, "batch 4 hidden"]:
    return z.reshape(z.shape[0], len(GATES), -1)
