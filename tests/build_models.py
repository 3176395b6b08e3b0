"""Build a model and its layer from the options of both."""

import inspect
from typing import Any

from flax import nnx

import lstm_optax as lo

OF_BOTH = ("dropout", "locked_dropout")
OF_LAYER = set(inspect.signature(lo.LSTM.__init__).parameters) - {"self", "rngs"}


def language_model(vocabulary: Any, *, rngs: nnx.Rngs, **options: Any) -> lo.LanguageModel:
    """Return a language model; `dropout` also acts between the layers, if there are several."""
    lstm, options = _build_layer(options, rngs)
    return lo.LanguageModel(vocabulary, lstm, **options, rngs=rngs)


def sequence_model(out_features: Any, *, rngs: nnx.Rngs, **options: Any) -> lo.SequenceModel:
    """Return a sequence model; `dropout` also acts between the layers, if there are several."""
    lstm, options = _build_layer(options, rngs)
    return lo.SequenceModel(lstm, out_features, **options, rngs=rngs)


def _build_layer(options: dict[str, Any], rngs: nnx.Rngs) -> tuple[lo.LSTM, dict[str, Any]]:
    """Return the layer, and the options that belong to the model."""
    of_layer = {n: v for n, v in options.items() if n in OF_LAYER and n not in OF_BOTH}
    of_model = {n: v for n, v in options.items() if n not in of_layer}
    if of_layer.get("num_layers", 1) > 1:
        of_layer |= {n: v for n, v in of_model.items() if n in OF_BOTH}
    return lo.LSTM(**of_layer, rngs=rngs), of_model
