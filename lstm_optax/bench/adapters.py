"""The LSTM layers of JAX libraries as pure functions, each used as its documentation shows."""

import os
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from lstm_optax.bench.layer_data import LayerData, State
from lstm_optax.bench.programs import Unavailable
from lstm_optax.lstm import LSTMParams, LSTMState, lstm_sequence


class JaxLayer(NamedTuple):
    """A stack of layers as a pure function.

    Attributes:
      weights: one entry per layer, in the library's own layout.
      apply: (weights, x, states, resets) → (outputs, last states), time first.
      params: converts weights, or their gradient, to one LSTMParams per layer.
      batch_major: whether x, resets and outputs are batch first.
    """

    weights: tuple[Any, ...]
    apply: Callable[..., tuple[jax.Array, tuple[State, ...]]]
    params: Callable[[tuple[Any, ...]], tuple[LSTMParams, ...]]
    batch_major: bool = False


def lstm_optax_layer(data: LayerData, backend: str = "auto") -> JaxLayer:
    """Return this library's layer, `lstm_sequence`."""

    def layer(params, x, state, resets):
        x, state = lstm_sequence(params, x, LSTMState(*state), resets=resets, backend=backend)
        return x, tuple(state)

    return JaxLayer(data.leaves.weights, _stack(layer), lambda weights: weights)


def flax_nnx(data: LayerData, unroll: int = 1) -> JaxLayer:
    """Return Flax NNX's `nnx.RNN`, time first; with resets, a scan of its cell."""
    made = [_nnx_cell(params) for params in data.leaves.weights]
    graphs, weights = zip(*made, strict=True)

    def layer(graph_and_weights, x, state, resets):
        cell, carry = nnx.merge(*graph_and_weights), state[::-1]
        if resets is None:
            rnn = nnx.RNN(cell, time_major=True, return_carry=True, unroll=unroll)
            carry, outputs = rnn(x, initial_carry=carry)
        else:
            carry, outputs = _scan(cell, carry, x, resets, unroll)
        return outputs, carry[::-1]

    def apply(weights, x, states, resets):
        return _stack(layer)(tuple(zip(graphs, weights, strict=True)), x, states, resets)

    return JaxLayer(weights, apply, lambda weights: tuple(map(_nnx_params, weights)))


def flax_linen(data: LayerData, unroll: int = 1) -> JaxLayer:
    """Return Flax Linen's `nn.RNN`, time first; with resets, a scan of its cell."""
    weights = tuple(_linen_weights(params) for params in data.leaves.weights)

    def layer(weights, x, state, resets):
        cell, carry = linen.OptimizedLSTMCell(state[0].shape[-1]), state[::-1]
        if resets is None:
            rnn = linen.RNN(cell, time_major=True, return_carry=True, unroll=unroll)
            carry, outputs = rnn.apply({"params": {"cell": weights}}, x, initial_carry=carry)
        else:
            bound = lambda carry, x: cell.apply({"params": weights}, carry, x)  # noqa: E731
            carry, outputs = _scan(bound, carry, x, resets, unroll)
        return outputs, carry[::-1]

    return JaxLayer(weights, _stack(layer), lambda weights: tuple(map(_linen_params, weights)))


def equinox(data: LayerData, unroll: int = 1) -> JaxLayer:
    """Return a `lax.scan` of Equinox's `nn.LSTMCell`, mapped over the batch."""
    eqx = import_module("equinox")

    def cell_of(params: LSTMParams):
        features, hidden = params.kernel_ih.shape[0], params.kernel_hh.shape[0]
        cell = eqx.nn.LSTMCell(features, hidden, key=jax.random.key(0))
        new = params.kernel_ih.T, params.kernel_hh.T, params.bias
        where = lambda cell: (cell.weight_ih, cell.weight_hh, cell.bias)  # noqa: E731
        return eqx.tree_at(where, cell, tuple(map(jnp.asarray, new)))

    def layer(cell, x, state, resets):
        def step(state, x):
            state = jax.vmap(cell)(x, state)
            return state, state[0]

        state, outputs = _scan(step, state, x, resets, unroll)
        return outputs, state

    def params(cells):
        return tuple(LSTMParams(c.weight_ih.T, c.weight_hh.T, c.bias) for c in cells)

    return JaxLayer(tuple(map(cell_of, data.leaves.weights)), _stack(layer), params)


def haiku(data: LayerData, unroll: int = 1) -> JaxLayer:
    """Return Haiku's `dynamic_unroll` of `LSTM`; with resets, of `LSTM` in a `ResetCore`.

    Haiku orders the gate blocks i, g, f, o, and adds 1 to the bias of the forget gate.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hk = import_module("haiku")

    def run(x, state, resets):
        core = hk.LSTM(state[0].shape[-1])
        inputs = x if resets is None else (x, resets)
        core = core if resets is None else hk.ResetCore(core)
        return hk.dynamic_unroll(core, inputs, hk.LSTMState(*state), unroll=unroll)

    network = hk.without_apply_rng(hk.transform(run))

    def weights_of(params: LSTMParams):
        joined = np.concatenate([params.kernel_ih, params.kernel_hh])
        i, f, g, o = np.split(params.bias, 4)
        bias = np.concatenate([i, g, f - 1, o])
        return {"lstm/linear": {"w": _swap_middle_blocks(joined), "b": bias}}

    def layer(weights, x, state, resets):
        outputs, state = network.apply(weights, x, state, resets)
        return outputs, (state.hidden, state.cell)

    def params(weights):
        linear = [w["lstm/linear"] for w in weights]
        features = [n - w["b"].shape[0] // 4 for w in linear for n in w["w"].shape[:1]]
        joined = [(_swap_middle_blocks(w["w"]), _swap_middle_blocks(w["b"])) for w in linear]
        pairs = zip(joined, features, strict=True)
        return tuple(LSTMParams(w[:n], w[n:], b) for (w, b), n in pairs)

    weights = tuple(map(weights_of, data.leaves.weights))
    return JaxLayer(weights, _stack(layer), params)


def keras(data: LayerData) -> JaxLayer:
    """Return Keras's `layers.LSTM` on JAX, batch first, through `stateless_call`."""
    if data.resets is not None:
        raise Unavailable("layers.LSTM has no resets")
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "jax")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library: Any = import_module("keras")
    if library.backend.backend() != "jax":
        raise Unavailable("Keras runs on another backend: set KERAS_BACKEND=jax")

    layers: list[Any] = []
    for params in data.leaves.weights:
        made = library.layers.LSTM(len(params.bias) // 4, return_sequences=True, return_state=True)
        made.build((None, None, params.kernel_ih.shape[0]))
        layers.append(made)

    def apply(weights, x, states, resets):
        last = []
        for made, variables, state in zip(layers, weights, states, strict=True):
            fixed = made.non_trainable_variables
            (x, *state), _ = made.stateless_call(variables, fixed, x, initial_state=list(state))
            last.append(tuple(state))
        return x, tuple(last)

    weights = tuple([jnp.asarray(w) for w in params] for params in data.leaves.weights)
    params = lambda weights: tuple(LSTMParams(*w) for w in weights)  # noqa: E731
    return JaxLayer(weights, apply, params, batch_major=True)


SCANS = {"flax-nnx": flax_nnx, "flax-linen": flax_linen, "equinox": equinox, "haiku": haiku}
"""The libraries with a layer whose scan can be unrolled."""


def _stack(layer: Callable) -> Callable:
    """Apply (weights, x, state, resets) → (outputs, last state) layer after layer."""

    def apply(weights, x, states, resets):
        last = []
        for w, state in zip(weights, states, strict=True):
            x, state = layer(w, x, state, resets)
            last.append(state)
        return x, tuple(last)

    return apply


def _scan(cell: Callable, carry: Any, x: jax.Array, resets: Any, unroll: int) -> Any:
    """Scan (carry, x) → (carry, output), and set the carry to zero before each reset step."""

    def body(carry, inputs):
        x, reset = inputs
        if reset is not None:
            carry = jax.tree.map(lambda s: jnp.where(reset[:, None], 0, s), carry)
        return cell(carry, x)

    return jax.lax.scan(body, carry, (x, resets), unroll=unroll)


def _nnx_cell(params: LSTMParams) -> tuple[Any, Any]:
    features, hidden = params.kernel_ih.shape[0], params.kernel_hh.shape[0]
    cell = nnx.OptimizedLSTMCell(features, hidden, rngs=nnx.Rngs(0))
    cell.dense_i.kernel[...] = jnp.asarray(params.kernel_ih)
    cell.dense_h.kernel[...] = jnp.asarray(params.kernel_hh)
    cell.dense_h.bias[...] = jnp.asarray(params.bias)  # pyright: ignore
    graph, weights = nnx.split(cell, nnx.Param)
    return graph, weights


def _nnx_params(weights: Any) -> LSTMParams:
    inputs, hidden = weights["dense_i"], weights["dense_h"]
    return LSTMParams(inputs["kernel"][...], hidden["kernel"][...], hidden["bias"][...])


def _linen_weights(params: LSTMParams) -> dict[str, dict[str, Any]]:
    blocks = [np.split(array, 4, axis=-1) for array in params]
    weights = {}
    for gate, kernel_ih, kernel_hh, bias in zip("ifgo", *blocks, strict=True):
        weights |= {f"i{gate}": {"kernel": kernel_ih}}
        weights |= {f"h{gate}": {"kernel": kernel_hh, "bias": bias}}
    return weights


def _linen_params(weights: Any) -> LSTMParams:
    joined = [
        jnp.concatenate([weights[f"{side}{gate}"][name] for gate in "ifgo"], axis=-1)
        for side, name in (("i", "kernel"), ("h", "kernel"), ("h", "bias"))
    ]
    return LSTMParams(*joined)


def _swap_middle_blocks(blocks: Any) -> Any:
    """Swap the second and the third of the four gate blocks along the last axis."""
    first, second, third, fourth = np.split(np.asarray(blocks), 4, axis=-1)
    return np.concatenate([first, third, second, fourth], axis=-1)
