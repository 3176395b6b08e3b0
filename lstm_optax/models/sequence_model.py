"""A classifier or forecaster: an LSTM stack and a linear output layer."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from lstm_optax.checks import LENGTH, check_flags
from lstm_optax.lstm._probe import GradientFlow
from lstm_optax.lstm.layer import LSTM, Carry
from lstm_optax.lstm.weights import make_dropout
from lstm_optax.models.layer import check_layer, param_dtype
from lstm_optax.models.promotion import promote_factors


class SequenceModel(nnx.Module):
    """Map a sequence to numbers or logits: LSTM stack, linear output layer.

    Args:
      lstm: the layer, in one or both directions, time-major or batch-major. The output layer has
        its `dtype` and `param_dtype`; outputs are float32 or wider.
      out_features: size of the output: numbers, or logits of classes; at least 1.
      every_step: return an output for every step instead of one after the last step.
      dropout: probability in [0, 1) for the input of the output layer; dropout between the layers
        belongs to the layer, see `LSTM`.
      locked_dropout: use the same dropout mask for a row at all steps of a call.
      rngs: randomness of the output layer and the dropout, see `LSTM`. Pass the `nnx.Rngs` that
        initialised the layer: a second one of the same seed would draw the same numbers again.

    Raises:
      ValueError: `lstm` is no LSTM, out_features below 1, a probability out of range, or
        `locked_dropout` without `dropout`.
    """

    def __init__(
        self,
        lstm: LSTM,
        out_features: int,
        *,
        every_step: bool = False,
        dropout: float = 0.0,
        locked_dropout: bool = False,
        rngs: nnx.Rngs,
    ):
        check_layer(lstm)
        LENGTH.check(out_features=out_features)
        check_flags(every_step=every_step, locked_dropout=locked_dropout)
        self.lstm: LSTM = lstm
        self.every_step = every_step
        self.output: nnx.Linear = nnx.Linear(
            lstm.hidden_features * len(lstm.directions),
            out_features,
            dtype=lstm.dtype,
            param_dtype=param_dtype(lstm),
            promote_dtype=promote_factors,
            rngs=rngs,
        )
        self.time_axis = 0 if lstm.time_major else 1
        self.dropout: nnx.Dropout = make_dropout(
            "dropout", dropout, locked=locked_dropout, time_axis=self.time_axis, rngs=rngs
        )

    def __call__(
        self,
        x: Float[Array, "time batch features"],
        carry: Carry | None = None,
        *,
        seq_lengths: Int[Array, " batch"] | None = None,
        resets: Bool[Array, "time batch"] | None = None,
        probe: Sequence[GradientFlow] | None = None,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "*steps batch outputs"], Carry]:
        """Return the outputs, [time, batch, outputs] or [batch, outputs], and the carry.

        With `seq_lengths` the last step is each row's own last valid step. A bidirectional model
        reads the last state of each direction, so the output depends on the whole sequence.

        Args:
          x, carry, seq_lengths, resets, probe, deterministic, rngs: see `LSTM`.
        """
        options: dict[str, Any] = dict(seq_lengths=seq_lengths, resets=resets, probe=probe)
        x, carry = self.lstm(x, carry, **options, deterministic=deterministic, rngs=rngs)
        if not self.every_step:
            last = carry[-len(self.lstm.directions) :]
            h = jnp.concatenate([state.h for state in last], axis=-1)
            x = jnp.expand_dims(h, self.time_axis)  # the dropout expects a time axis
        x = self.dropout(x, deterministic=deterministic, rngs=rngs)
        outputs = self.output(x if self.every_step else jnp.squeeze(x, self.time_axis))
        return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32)), carry
