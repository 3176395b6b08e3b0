"""The LSTM that a model receives: whether it fits, and the dtype of its parameters."""

from typing import Any

from lstm_optax.lstm.layer import LSTM


def check_layer(lstm: Any) -> None:
    """Raise ValueError unless the argument `lstm` is an LSTM."""
    if not isinstance(lstm, LSTM):
        is_class = isinstance(lstm, type)
        found = f"the class {lstm.__name__}" if is_class else f"of type {type(lstm).__name__}"
        raise ValueError(f"lstm is {found}; expected a layer, such as LSTM(64, 256, rngs=rngs)")


def check_language_layer(lstm: Any, *, tied: bool) -> None:
    """Raise ValueError unless a language model can use the layer."""
    check_layer(lstm)
    if len(lstm.directions) > 1:
        raise ValueError(
            "lstm is bidirectional; expected one direction, since a language model predicts each "
            "token from the tokens before it: build the layer with bidirectional=False"
        )
    if not lstm.time_major:
        raise ValueError(
            "lstm has time_major=False; expected True, since a language model reads tokens as "
            "[time, batch]: build the layer with time_major=True, and transpose the tokens"
        )
    features, hidden = lstm.in_features, lstm.hidden_features
    if tied and features != hidden:
        raise ValueError(
            f"lstm has in_features {features} and hidden_features {hidden}; expected equal sizes, "
            f"since tied=True uses the embedding as the output layer's kernel: build "
            f"LSTM({hidden}, {hidden}), or leave tied=False"
        )


def param_dtype(lstm: LSTM) -> Any:
    """Return the dtype of the layer's parameters."""
    return lstm.layers[0]["forward"].kernel_ih.dtype
