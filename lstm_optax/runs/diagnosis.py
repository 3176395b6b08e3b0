"""What flows back through the LSTM of a language model, measured beside the training."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from lstm_optax.gates import GATES
from lstm_optax.lstm._probe import GradientFlow, probe
from lstm_optax.models import token_losses

Diagnosis = tuple[dict[str, float], dict[str, Any]]
"""Numbers for the record, and the arrays of gradients.jsonl."""


def make_diagnose(
    graphdef: nnx.GraphDef[Any], carry: Any, batch: Any
) -> Callable[[Any], Diagnosis]:
    """Return the function params → what flows back in the gradient of the mean loss of a batch.

    The numbers are, for each layer and gate, "layer0.forget.grad_norm" and so on: the norm of the
    gradient by the gate's pre-activations over all steps, rows and units, and "saturated_low" and
    "saturated_high", the mean shares of `GradientFlow`. The arrays hold the norm over rows and
    units at each step, in five digits: "h", "c" [layer][time] and "gates", "low", "high"
    [layer][time][gate]; and as "reach" the same as "h", of the loss at the last step alone, which
    shows how far back it is felt.

    Args:
      graphdef: of the language model; nothing is dropped in it.
      carry: the carry before the batch.
      batch: always the same, so that diagnoses of one training can be compared.
    """
    if batch.lengths is not None:  # all rows are as long: leave the padding out
        end = int(batch.lengths[0])
        batch = batch._replace(
            inputs=batch.inputs[:end],
            targets=batch.targets[:end],
            resets=batch.resets[:end],
            lengths=None,
        )
    time, rows = np.shape(batch.inputs)

    @jax.jit
    def flows(params: Any, targets: Any) -> tuple[GradientFlow, ...]:
        def loss(flows):
            model = nnx.merge(graphdef, params)
            options = dict(resets=batch.resets, probe=flows, deterministic=True)
            total, count = token_losses(model(batch.inputs, carry, **options)[0], targets)
            return total / count

        found = probe(loss, time, rows, layers=len(carry))
        return tuple(flow.over_batch() for flow in found)

    last = np.full_like(batch.targets, -1)  # nothing to predict
    last[-1] = batch.targets[-1]

    def diagnose(params: Any) -> Diagnosis:
        layers, of_last = jax.device_get((flows(params, batch.targets), flows(params, last)))
        numbers, arrays = {}, {}
        for i, flow in enumerate(layers):
            numbers |= _numbers(f"layer{i}", flow)
        for name in GradientFlow._fields:
            arrays[name] = [_digits(getattr(flow, name)) for flow in layers]
        arrays["reach"] = [_digits(flow.h) for flow in of_last]
        return numbers, arrays

    return diagnose


def _digits(values: np.ndarray) -> list:
    return np.char.mod("%.5g", values).astype(float).tolist()


def _numbers(layer: str, flow: GradientFlow) -> dict[str, float]:
    found = {}
    for k, gate in enumerate(GATES):
        found[f"{layer}.{gate}.grad_norm"] = float(np.linalg.norm(np.float64(flow.gates[:, k])))
        found[f"{layer}.{gate}.saturated_low"] = float(np.mean(flow.low[:, k]))
        found[f"{layer}.{gate}.saturated_high"] = float(np.mean(flow.high[:, k]))
    return found
