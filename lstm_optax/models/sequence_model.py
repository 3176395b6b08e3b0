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


class SequenceModel(nnx.Module):
    """Answer with numbers or logits: LSTM stack, linear output layer.

    Args:
      in_features: features of the input.
      out_features: numbers, or logits of classes, to answer with; at least 1.
      hidden_features: hidden units of each LSTM layer and direction.
      every_step: answer at every step; else once, after the last.
      num_layers: LSTM layers.
      dropout: probability in [0, 1) that an output of a layer is dropped, the last included; the
        inputs stay whole.
      locked_dropout: each row's dropout is the same at all steps of a call, see `LSTM`.
      options: as `LSTM` takes them, such as `bidirectional`, `weight_dropout`, `dtype`.
      rngs: where the parameters' randomness comes from; the model keeps streams of it for its
        dropout, see `LSTM`.

    Raises:
      ValueError: a size below 1, or what `LSTM` refuses.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden_features: int = 128,
        every_step: bool = False,
        num_layers: int = 1,
        dropout: float = 0.0,
        locked_dropout: bool = False,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        LENGTH.check(out_features=out_features, num_layers=num_layers)
        check_flags(every_step=every_step)
        options |= dict(dropout=dropout, locked_dropout=locked_dropout) if num_layers > 1 else {}
        self.lstm: LSTM = LSTM(
            in_features, hidden_features, num_layers=num_layers, **options, rngs=rngs
        )
        self.every_step = every_step
        self.output: nnx.Linear = nnx.Linear(
            hidden_features * len(self.lstm.directions),
            out_features,
            dtype=self.lstm.dtype,
            param_dtype=options.get("param_dtype", jnp.float32),
            rngs=rngs,
        )
        self.time_axis = 0 if self.lstm.time_major else 1
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
        """Return the answers, [time, batch, outputs] or [batch, outputs], and the carry.

        The answer after the last step is one to each row's own last step where `seq_lengths` gives
        it; of both directions it reads the state after the whole sequence.

        Args:
          x, carry, seq_lengths, resets, probe, deterministic, rngs: as `LSTM` takes them.
        """
        options: dict[str, Any] = dict(seq_lengths=seq_lengths, resets=resets, probe=probe)
        x, carry = self.lstm(x, carry, **options, deterministic=deterministic, rngs=rngs)
        if not self.every_step:
            last = carry[-len(self.lstm.directions) :]
            h = jnp.concatenate([state.h for state in last], axis=-1)
            x = jnp.expand_dims(h, self.time_axis)  # one step
        x = self.dropout(x, deterministic=deterministic, rngs=rngs)
        answers = self.output(x if self.every_step else jnp.squeeze(x, self.time_axis))
        return answers.astype(jnp.promote_types(answers.dtype, jnp.float32)), carry
