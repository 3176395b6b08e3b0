"""Measure the gradient inside the LSTM of a language model during training."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from lstm_optax.gates import GATES
from lstm_optax.lstm import GradientFlow, probe
from lstm_optax.models import token_losses

Diagnosis = tuple[dict[str, float], dict[str, Any]]
"""Scalars for metrics.jsonl, and arrays for gradients.jsonl."""


def make_diagnose(
    graphdef: nnx.GraphDef[Any], carry: Any, batch: Any
) -> Callable[[Any], Diagnosis]:
    """Return a function from params to measurements of the gradient inside the LSTM.

    The scalars are, for each layer and gate, "layer0.forget.grad_norm" and so on, the norm of
    the gradient with respect to the gate's pre-activations over all steps, rows and units; and
    "saturated_low" and "saturated_high", the mean shares of `GradientFlow`. The arrays hold norms
    over rows and units, rounded to five digits: "h" and "c" [layer][time]; "gates", "low" and
    "high" [layer][time][gate]; and "reach" [layer][time], the same as "h" for the loss at the last
    step only, which shows how far back its gradient reaches.

    Args:
      graphdef: of the language model; dropout is disabled.
      carry: the carry before the batch.
      batch: the same for all diagnoses of a run, so that they can be compared.
    """
    batch = _without_padding(batch)
    time, rows = np.shape(batch.inputs)

    @jax.jit
    def measure(params: Any, targets: Any) -> tuple[GradientFlow, ...]:
        def loss(probes):
            model = nnx.merge(graphdef, params)
            options = dict(resets=batch.resets, probe=probes, deterministic=True)
            total, count = token_losses(model(batch.inputs, carry, **options)[0], targets)
            return total / count

        flows = probe(loss, time, rows, layers=len(carry))
        return tuple(flow.over_batch() for flow in flows)

    last_targets = np.full_like(batch.targets, -1)  # -1: excluded from the loss
    last_targets[-1] = batch.targets[-1]

    def diagnose(params: Any) -> Diagnosis:
        layers, last = jax.device_get(
            (measure(params, batch.targets), measure(params, last_targets))
        )
        scalars, arrays = {}, {}
        for i, flow in enumerate(layers):
            scalars |= _gate_scalars(f"layer{i}", flow)
        for name in GradientFlow._fields:
            arrays[name] = [_rounded(getattr(flow, name)) for flow in layers]
        arrays["reach"] = [_rounded(flow.h) for flow in last]
        return scalars, arrays

    return diagnose


def _without_padding(batch: Any) -> Any:
    """Return a batch cut to its length, which is the same for all rows."""
    if batch.lengths is None:
        return batch
    end = int(batch.lengths[0])
    inputs, targets, resets = (x[:end] for x in (batch.inputs, batch.targets, batch.resets))
    return batch._replace(inputs=inputs, targets=targets, resets=resets, lengths=None)


def _rounded(values: np.ndarray) -> list:
    return np.char.mod("%.5g", values).astype(float).tolist()


def _gate_scalars(layer: str, flow: GradientFlow) -> dict[str, float]:
    found = {}
    for k, gate in enumerate(GATES):
        found[f"{layer}.{gate}.grad_norm"] = float(np.linalg.norm(np.float64(flow.gates[:, k])))
        found[f"{layer}.{gate}.saturated_low"] = float(np.mean(flow.low[:, k]))
        found[f"{layer}.{gate}.saturated_high"] = float(np.mean(flow.high[:, k]))
    return found
