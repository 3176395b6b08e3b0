"""Models with an LSTM in them: a language model of characters or words."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from lstm_optax.lstm.flow import GradientFlow
from lstm_optax.lstm.layer import LSTM, Carry

__all__ = ["LanguageModel", "token_losses"]


class LanguageModel(nnx.Module):
    """Predict the next token: embedding, LSTM stack, output layer.

    The embedding starts as standard normal, as PyTorch's does: smaller vectors, such as Flax's
    default, cost a character model half of its early speed. With `tied` it starts 1/√features
    times as large, so that the logits do not start large.

    Dropout acts on the non-recurrent connections: on the embedding, between the layers, and on
    the output of the last.

    Args:
      vocabulary: number of tokens, at least 1.
      embedding_features: size of a token's vector.
      hidden_features: hidden units of each LSTM layer.
      num_layers: LSTM layers.
      dropout: probability in [0, 1).
      tied: use the embedding as the output layer's kernel; needs embedding_features equal to
        hidden_features.
      dtype: dtype of the products; logits are float32 or better in any case.
      param_dtype: dtype of the parameters.
      backend: what computes an LSTM layer, see `LSTM`.
      rngs: where the parameters' randomness comes from.

    Raises:
      ValueError: a size below 1, or `tied` with sizes that differ.

    Reference: Zaremba, Sutskever & Vinyals, 2014, arXiv:1409.2329; tying: Press & Wolf, 2017,
    arXiv:1608.05859.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        embedding_features: int = 64,
        hidden_features: int = 256,
        num_layers: int = 1,
        dropout: float = 0.0,
        tied: bool = False,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        backend: str = "auto",
        rngs: nnx.Rngs,
    ):
        if vocabulary < 1:
            raise ValueError(f"vocabulary is {vocabulary}, but must be at least 1")
        if tied and embedding_features != hidden_features:
            raise ValueError(
                f"a tied embedding needs embedding_features equal to hidden_features, "
                f"but they are {embedding_features} and {hidden_features}"
            )
        self.dtype = dtype or param_dtype
        self.embedding = nnx.Embed(
            vocabulary,
            embedding_features,
            embedding_init=nnx.initializers.normal(embedding_features**-0.5 if tied else 1.0),
            dtype=self.dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.dropout = nnx.Dropout(dropout)
        self.lstm = LSTM(
            embedding_features,
            hidden_features,
            num_layers=num_layers,
            dropout=dropout,
            dtype=self.dtype,
            param_dtype=param_dtype,
            backend=backend,
            rngs=rngs,
        )
        self.tied = tied
        if not tied:
            self.output = nnx.Linear(
                hidden_features, vocabulary, dtype=self.dtype, param_dtype=param_dtype, rngs=rngs
            )

    def __call__(
        self,
        tokens: Int[Array, "time batch"],
        carry: Carry | None = None,
        *,
        resets: Bool[Array, "time batch"] | None = None,
        probe: Sequence[GradientFlow] | None = None,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "time batch vocabulary"], Carry]:
        """Return the logits of each next token, and the carry after the last.

        Args:
          tokens: codes below the vocabulary, time first.
          carry: the state of the LSTM before the first token; zero if None.
          resets: True where the carry is zeroed before a token.
          probe: record the gradient inside the LSTM, see `LSTM`.
          deterministic: drop nothing; None for the module's mode, see `train` and `eval`, which
            is at first to drop.
          rngs: randomness of the dropout; needed where something is dropped.
        """
        x = self.dropout(self.embedding(tokens), deterministic=deterministic, rngs=rngs)
        x, carry = self.lstm(
            x, carry, resets=resets, probe=probe, deterministic=deterministic, rngs=rngs
        )
        x = self.dropout(x, deterministic=deterministic, rngs=rngs)
        logits = self.embedding.attend(x) if self.tied else self.output(x)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), carry

    def generate(
        self,
        key: jax.Array,
        prompt: Int[Array, " prompt"],
        length: int,
        *,
        temperature: float | jax.Array = 1.0,
    ) -> Int[Array, " length"]:
        """Sample `length` tokens that follow the prompt.

        Args:
          key: random key.
          prompt: at least one token.
          length: how many tokens to sample.
          temperature: logits are divided by it; 0 takes the likeliest token each time.

        Raises:
          ValueError: the prompt is empty.
        """
        prompt = jnp.asarray(prompt)
        if prompt.shape[0] == 0:
            raise ValueError("the prompt is empty; give at least one token")
        logits, carry = self(prompt[:, None], deterministic=True)

        def body(state, key):
            logits, carry = state
            token = _draw(key, logits, temperature)
            logits, carry = self(token[None, None], carry, deterministic=True)
            return (logits[-1, 0], carry), token

        return jax.lax.scan(body, (logits[-1, 0], carry), jax.random.split(key, length))[1]


def _draw(key: jax.Array, logits: Float[Array, " vocabulary"], temperature) -> jax.Array:
    greedy = jnp.argmax(logits)
    scaled = logits / jnp.where(temperature > 0, temperature, 1)
    return jnp.where(temperature > 0, jax.random.categorical(key, scaled), greedy)


def token_losses(
    logits: Float[Array, "time batch vocabulary"], targets: Int[Array, "time batch"]
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Return the summed cross-entropy in nats, and over how many tokens.

    A target below 0 stands for nothing to predict, and does not count.
    """
    counted = targets >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(counted, targets, 0))
    return jnp.sum(jnp.where(counted, losses, 0)), jnp.sum(counted)
