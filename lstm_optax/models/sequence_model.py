"""A classifier or forecaster: an LSTM stack and a linear output layer."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from lstm_optax.checks import LENGTH, check_flags
from lstm_optax.lstm.flow import GradientFlow
from lstm_optax.lstm.layer import LSTM, Carry


class SequenceModel(nnx.Module):
    """Answer with numbers or logits: LSTM stack, linear output layer.

    Args:
      in_features: features of the input.
      out_features: numbers, or logits of classes, to answer with; at least 1.
      hidden_features: hidden units of each LSTM layer and direction.
      every_step: answer at every step; else once, after the last.
      options: as `LSTM` takes them, such as `num_layers`, `bidirectional`, `dropout`.
      rngs: where the parameters' randomness comes from.

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
        rngs: nnx.Rngs,
        **options: Any,
    ):
        LENGTH.check(out_features=out_features)
        check_flags(every_step=every_step)
        self.lstm = LSTM(in_features, hidden_features, **options, rngs=rngs)
        self.every_step = every_step
        self.output = nnx.Linear(
            hidden_features * len(self.lstm.directions),
            out_features,
            dtype=self.lstm.dtype,
            param_dtype=options.get("param_dtype", jnp.float32),
            rngs=rngs,
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
            x = jnp.concatenate([state.h for state in last], axis=-1)
        answers = self.output(x)
        return answers.astype(jnp.promote_types(answers.dtype, jnp.float32)), carry
