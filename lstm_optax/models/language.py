"""A language model of characters or words."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from lstm_optax.checks import BOUND, LENGTH, Range, check_flags
from lstm_optax.lstm._probe import GradientFlow
from lstm_optax.lstm.checks import check_rows
from lstm_optax.lstm.layer import LSTM, Carry
from lstm_optax.lstm.steps import Clip, Gradient
from lstm_optax.lstm.weights import make_dropout
from lstm_optax.models.ids import read_ids


class LanguageModel(nnx.Module):
    """Predict the next token: embedding, LSTM stack, output layer.

    The embedding starts as standard normal, as PyTorch's does: smaller vectors, such as Flax's
    default, cost a character model half of its early speed. With `tied` it starts 1/√features
    times as large, so that the logits do not start large.

    Dropout acts on the non-recurrent connections: on the embedding, between the layers, and on
    the output of the last. `weight_dropout` acts on the recurrent ones, `embedding_dropout` on
    whole tokens.

    Args:
      vocabulary: number of tokens, at least 1.
      embedding_features: size of a token's vector.
      hidden_features: hidden units of each LSTM layer.
      num_layers: LSTM layers.
      dropout: probability in [0, 1).
      locked_dropout: each row's dropout is the same at all steps of a call, see `LSTM`.
      embedding_dropout: probability in [0, 1) that a token's vector is zero for the whole call;
        the others are scaled by 1/(1 − probability). A tied output layer keeps them all.
      weight_dropout: probability in [0, 1) for the recurrent kernels, see `LSTM`.
      tied: use the embedding as the output layer's kernel; needs embedding_features equal to
        hidden_features.
      cotangent_clip: bounds on the gradient inside back-propagation through time, see `LSTM`.
      dtype: dtype of the products; logits are float32 or better in any case.
      param_dtype: dtype of the parameters.
      backend, gradient: what computes and differentiates an LSTM layer, see `LSTM`.
      rngs: where the parameters' randomness comes from; the model keeps streams of it for its
        dropout, see `LSTM`.

    Raises:
      ValueError: a size below 1, a probability or bound that cannot be, or `tied` with sizes that
        differ.

    Reference: Zaremba, Sutskever & Vinyals, 2014, arXiv:1409.2329; tying: Press & Wolf, 2017,
    arXiv:1608.05859; embedding dropout: Gal & Ghahramani, 2016, arXiv:1512.05287.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        embedding_features: int = 64,
        hidden_features: int = 256,
        num_layers: int = 1,
        dropout: float = 0.0,
        locked_dropout: bool = False,
        embedding_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        tied: bool = False,
        cotangent_clip: Clip = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        backend: str = "auto",
        gradient: Gradient = "stored",
        rngs: nnx.Rngs,
    ):
        sizes = dict(embedding_features=embedding_features, num_layers=num_layers)
        LENGTH.check(vocabulary=vocabulary, **sizes)
        check_flags(tied=tied)
        if tied and embedding_features != hidden_features:
            raise ValueError(
                f"a tied embedding needs embedding_features equal to hidden_features, "
                f"but they are {embedding_features} and {hidden_features}"
            )
        self.dtype: Any = dtype or param_dtype
        self.embedding: nnx.Embed = nnx.Embed(
            vocabulary,
            embedding_features,
            embedding_init=nnx.initializers.normal(embedding_features**-0.5 if tied else 1.0),
            dtype=self.dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        between: dict[str, Any] = {}
        if num_layers > 1:
            between = dict(dropout=dropout, locked_dropout=locked_dropout)
        self.lstm: LSTM = LSTM(
            embedding_features,
            hidden_features,
            num_layers=num_layers,
            **between,
            weight_dropout=weight_dropout,
            cotangent_clip=cotangent_clip,
            dtype=self.dtype,
            param_dtype=param_dtype,
            backend=backend,
            gradient=gradient,
            rngs=rngs,
        )
        self.tied = tied
        if not tied:
            self.output: nnx.Linear = nnx.Linear(
                hidden_features, vocabulary, dtype=self.dtype, param_dtype=param_dtype, rngs=rngs
            )
        self.embedding_dropout: nnx.Dropout = make_dropout(
            "embedding_dropout", embedding_dropout, rngs=rngs
        )
        self.dropout: nnx.Dropout = make_dropout(
            "dropout", dropout, locked=locked_dropout, rngs=rngs
        )

    def __call__(
        self,
        tokens: Int[Array, "time batch"],
        carry: Carry | None = None,
        *,
        seq_lengths: Int[Array, " batch"] | None = None,
        resets: Bool[Array, "time batch"] | None = None,
        probe: Sequence[GradientFlow] | None = None,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "time batch vocabulary"], Carry]:
        """Return the logits of each next token, and the carry after the last.

        Args:
          tokens: codes from 0 to below the vocabulary, time first.
          carry: the state of the LSTM before the first token; zero if None.
          seq_lengths: how many tokens of each row count, see `LSTM`.
          resets: True where the carry is zeroed before a token.
          probe: record the gradient inside the LSTM, see `LSTM`.
          deterministic: drop nothing; None for the module's mode, see `train` and `eval`, which
            is at first to drop.
          rngs: randomness of the dropout, instead of the streams that the model keeps.

        Raises:
          ValueError: a token out of range, or shapes that do not fit. A token out of range that is
            traced, as under `jit`, is read as NaN.
        """
        options: dict[str, Any] = dict(seq_lengths=seq_lengths, resets=resets, probe=probe)
        _, dropped, carry = self.hidden(
            tokens, carry, **options, deterministic=deterministic, rngs=rngs
        )
        return self.logits(dropped), carry

    def hidden(
        self,
        tokens: Int[Array, "time batch"],
        carry: Carry | None = None,
        *,
        seq_lengths: Int[Array, " batch"] | None = None,
        resets: Bool[Array, "time batch"] | None = None,
        probe: Sequence[GradientFlow] | None = None,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "time batch hidden"], Float[Array, "time batch hidden"], Carry]:
        """Return the last layer's outputs before and after their dropout, and the carry.

        `logits` of the second are those that the model gives; the two are what
        `temporal_activation_regularizer` and `activation_regularizer` take.
        """
        dropping: dict[str, Any] = dict(deterministic=deterministic, rngs=rngs)
        axes = ("time", "batch")
        tokens = read_ids("tokens", tokens, self.embedding.num_embeddings, axes)
        rows: dict[str, Any] = dict(carry=carry, seq_lengths=seq_lengths, resets=resets)
        check_rows("tokens", tokens, axes, self.lstm.hidden_features, len(self.lstm.layers), **rows)
        x = self.embedding(tokens)
        if self.embedding_dropout.rate:  # each token's vector times 0 or 1/(1 − rate)
            ones = jnp.ones((self.embedding.num_embeddings, 1), x.dtype)
            x = x * jnp.take(self.embedding_dropout(ones, **dropping), tokens, axis=0)
        x = self.dropout(x, **dropping)
        raw, carry = self.lstm(
            x, carry, seq_lengths=seq_lengths, resets=resets, probe=probe, **dropping
        )
        return raw, self.dropout(raw, **dropping), carry

    def logits(self, hidden: Float[Array, "*axes hidden"]) -> Float[Array, "*axes vocabulary"]:
        """Return the output layer's logits, float32 or better."""
        logits = self.embedding.attend(hidden) if self.tied else self.output(hidden)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))

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
          ValueError: the prompt is empty, or has a token out of range; a length or a temperature
            below 0.
        """
        Range(whole=True, static=True).check(length=length)
        BOUND.check(temperature=temperature)
        prompt = read_ids("prompt", prompt, self.embedding.num_embeddings, ("time",))
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
