"""Models around an LSTM layer, and their losses."""

from lstm_optax.models.language import LanguageModel
from lstm_optax.models.losses import (
    activation_regularizer,
    sequence_losses,
    temporal_activation_regularizer,
    token_losses,
)
from lstm_optax.models.sequence_model import SequenceModel

__all__ = [
    "LanguageModel",
    "SequenceModel",
    "activation_regularizer",
    "sequence_losses",
    "temporal_activation_regularizer",
    "token_losses",
]
