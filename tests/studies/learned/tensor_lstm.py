"""The network of the learned rule: one LSTM cell that every tensor shares, with three heads."""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from learned.tensor_features import FEATURES
from lstm_optax.lstm import LSTMParams, LSTMState, lstm_cell

HEADS = ("rate", "look-ahead", "clip")

RATE_RANGE = 30.0  # the rate is within this factor of the base rate, up or down
AHEAD_RANGE = 10.0  # the look-ahead is within this factor of Nadam's

Theta: TypeAlias = dict[str, jax.Array]
"""The weights by name, see `init_theta`."""


class Controls(NamedTuple):
    """What the heads set for each tensor; each array is [tensors]."""

    rate: jax.Array  # factor of the base rate
    ahead: jax.Array  # factor of Nadam's look-ahead: near 0 is Adam, 1/(1 − b1) no momentum
    clip: jax.Array  # share of the direction that is replaced by its clip to ±1; < 0 enlarges


def init_theta(key: jax.Array, units: int = 16) -> Theta:
    """Return random weights with a head of zeros, for which the rule is Nadam."""
    first, second = jax.random.split(key)
    inputs = len(FEATURES) + units
    forget = jnp.zeros(4 * units).at[units : 2 * units].set(1)
    return {
        "kernel_ih": jax.random.normal(first, (inputs, 4 * units)) / jnp.sqrt(inputs),
        "kernel_hh": jax.random.normal(second, (units, 4 * units)) / jnp.sqrt(units),
        "bias": forget,
        "head": jnp.zeros((units, len(HEADS))),
        "head_bias": jnp.zeros(len(HEADS)),
    }


def zero_state(theta: Theta, tensors: int) -> LSTMState:
    """Return the state before the first step, [tensors, units] each."""
    shape = (tensors, theta["kernel_hh"].shape[0])
    return LSTMState(jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32))


def run_cell(
    theta: Theta, features: Float[Array, "tensors features"], state: LSTMState
) -> LSTMState:
    """Return the state after one step; each tensor also reads the mean of all h."""
    mean = jnp.broadcast_to(jnp.mean(state.h, axis=0, keepdims=True), state.h.shape)
    params = LSTMParams(theta["kernel_ih"], theta["kernel_hh"], theta["bias"])
    return lstm_cell(params, jnp.concatenate([features, mean], axis=1), state)


def read_heads(theta: Theta, state: LSTMState) -> Controls:
    """Return the controls of each tensor; zeros in the heads are factors of 1 and no clip."""
    rate, ahead, clip = (state.h @ theta["head"] + theta["head_bias"][None]).T
    return Controls(_factor(rate, RATE_RANGE), _factor(ahead, AHEAD_RANGE), jnp.tanh(clip))


def _factor(x: jax.Array, bound: float) -> jax.Array:
    """Return a number within [1/bound, bound]; eˣ near 0."""
    log_bound = jnp.log(jnp.float32(bound))
    return jnp.exp(log_bound * jnp.tanh(x / log_bound))
