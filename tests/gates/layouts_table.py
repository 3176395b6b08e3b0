"""LSTM parameters of each library, recorded from it: names and shapes, 3 inputs, 5 hidden."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lstm_optax as lo

N, H = 3, 5


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the parameters in a library, and the cells expected in them."""

    source: str  # library and version
    shapes: Any  # tree of shapes
    arguments: dict = field(default_factory=dict)
    cells: tuple = (("", 0, "forward"),)  # (lstm, layer, direction)
    biases: int = 1  # number of biases in each cell

    def params(self, seed: int = 0) -> Any:
        """Return random parameters, large enough that each gate changes the output."""
        rng = np.random.default_rng(seed)
        return jax.tree.map(
            lambda shape: jnp.asarray(rng.normal(size=shape) / 2, jnp.float32),
            self.shapes,
            is_leaf=lambda node: type(node) is tuple,
        )


FLAX_SEPARATE = {
    **{f"i{gate}": {"kernel": (N, H)} for gate in ("i", "f", "g", "o")},
    **{f"h{gate}": {"kernel": (H, H), "bias": (H,)} for gate in ("i", "f", "g", "o")},
}
FLAX_STACKED = {
    "dense_i": {"kernel": (N, 4 * H)},
    "dense_h": {"kernel": (H, 4 * H), "bias": (4 * H,)},
}
KERAS = {"kernel": (N, 4 * H), "recurrent_kernel": (H, 4 * H), "bias": (4 * H,)}
BOTH = (("lstm", 0, "forward"), ("lstm", 0, "backward"))

LAYOUTS = {
    "LSTMParams": Layout(
        "lstm_optax 0.1",
        lo.LSTMParams((N, 4 * H), (H, 4 * H), (4 * H,)),
        cells=(("", 0, "forward"),),
    ),
    "Flax NNX, LSTMCell": Layout(
        "flax 0.12.8",
        {("if_" if name == "if" else name): module for name, module in FLAX_SEPARATE.items()},
    ),
    "Flax NNX, OptimizedLSTMCell": Layout("flax 0.12.8", FLAX_STACKED),
    "Flax Linen": Layout(
        "flax 0.12.8", {"params": {"cell": FLAX_SEPARATE}}, cells=(("params/cell", 0, "forward"),)
    ),
    "Haiku": Layout(
        "dm-haiku 0.0.17",
        {"lstm/linear": {"w": (N + H, 4 * H), "b": (4 * H,)}},
        cells=(("lstm", 0, "forward"),),
    ),
    "Equinox": Layout(
        "equinox 0.13.8", {"weight_ih": (4 * H, N), "weight_hh": (4 * H, H), "bias": (4 * H,)}
    ),
    "Keras": Layout(
        "keras 3.15.0",
        {"sequential": {"lstm": {"lstm_cell": KERAS}}},
        cells=(("sequential/lstm/lstm_cell", 0, "forward"),),
    ),
    "Keras, variables": Layout(
        "keras 3.15.0",
        list(KERAS.values()),
        {"names": [f"lstm/lstm_cell/{name}" for name in KERAS]},
        cells=(("lstm/lstm_cell", 0, "forward"),),
    ),
    "PyTorch, LSTM": Layout(
        "torch 2.13.0",
        {
            f"lstm.{name}_l0{end}": shape
            for end in ("", "_reverse")
            for name, shape in {
                "weight_ih": (4 * H, N),
                "weight_hh": (4 * H, H),
                "bias_ih": (4 * H,),
                "bias_hh": (4 * H,),
            }.items()
        },
        cells=BOTH,
        biases=2,
    ),
    "PyTorch, LSTMCell": Layout(
        "torch 2.13.0",
        {
            "weight_ih": (4 * H, N),
            "weight_hh": (4 * H, H),
            "bias_ih": (4 * H,),
            "bias_hh": (4 * H,),
        },
        biases=2,
    ),
    "cuDNN": Layout(
        "jax 0.10.2",
        {"lstm": (4 * (2 * (N * H + H * H) + 2 * (2 * H * H + H * H) + 8 * H),)},
        {"layout": lo.gates.CuDNNLayout(N, H, 2, True)},
        cells=(*BOTH, ("lstm", 1, "forward"), ("lstm", 1, "backward")),
        biases=2,
    ),
}


def as_lstm_params(params: Any, found: lo.gates.GateMap) -> dict[tuple, lo.LSTMParams]:
    """Return each cell of a map as parameters of this library, in the order i, f, g, o."""
    leaves = dict(jax.tree_util.tree_flatten_with_path(params)[0])
    cells: dict[tuple, dict] = {}
    for block in found.blocks:
        cell = cells.setdefault((block.lstm, block.layer, block.direction), {})
        cell.setdefault((block.kind, block.gate), []).append(block.take(leaves[block.path]))
        if block.kind == "bias":
            cell[block.kind, block.gate].append(jnp.full(block.shape, block.added))

    def kind(cell, name):
        return jnp.concatenate([sum(cell[name, gate]) for gate in lo.gates.GATES], axis=-1)

    return {
        where: lo.LSTMParams(*(kind(cell, name) for name in lo.gates.KINDS))
        for where, cell in cells.items()
    }


def run(params: lo.LSTMParams, x: jax.Array, *, reverse: bool = False) -> jax.Array:
    """Return the outputs of an LSTM for x [time, batch, features], from a zero state."""
    zero = jnp.zeros((x.shape[1], params.kernel_hh.shape[0]))
    return lo.lstm_sequence(params, x, lo.LSTMState(zero, zero), reverse=reverse)[0]
