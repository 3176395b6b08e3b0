"""A language model of characters or words: embedding, LSTM stack, output layer."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Num

from lstm_optax.checks import BOUND, LENGTH, Range, check_flags
from lstm_optax.lstm._probe import GradientFlow
from lstm_optax.lstm.checks import check_rows
from lstm_optax.lstm.layer import LSTM, Carry
from lstm_optax.lstm.lookup import Lookup
from lstm_optax.lstm.weights import make_dropout
from lstm_optax.models.adaptive_softmax import AdaptiveSoftmax
from lstm_optax.models.chunked_losses import chunked_losses
from lstm_optax.models.ids import read_ids
from lstm_optax.models.layer import check_language_layer, param_dtype
from lstm_optax.models.losses import token_losses
from lstm_optax.models.promotion import promote_factors

MOST_LOGITS = 2**24  # that are computed at once, 64 MiB in float32
CHUNK_LOGITS = 2**22  # of a chunk, where there are more


class LanguageModel(nnx.Module):
    """Predict the next token: embedding, LSTM stack, output layer.

    The embedding has the layer's `in_features` and starts standard normal, as in PyTorch: with
    smaller vectors, such as Flax's default, a character model learns half as fast at first. With
    `tied` it starts 1/√in_features times as large, so that the first logits are not large.

    The dropout of the model acts on the embedding and on the output of the last layer. The dropout
    between the layers and on the recurrent kernels belongs to the layer, see `LSTM`.

    Args:
      vocabulary: number of tokens, at least 1.
      lstm: the layer, in one direction and with time_major=True. Embedding and output layer have
        its `dtype` and `param_dtype`; logits are float32 or wider.
      dropout: probability in [0, 1) for the embedding and for the output of the last layer.
      locked_dropout: use the same dropout mask for a row at all steps of a call.
      embedding_dropout: probability in [0, 1) that the vector of a token is zero for the whole
        call; the other vectors are scaled by 1/(1 − probability). A tied output layer uses all
        vectors.
      tied: use the embedding as the kernel of the output layer, which then has no bias; needs a
        layer with in_features equal to hidden_features.
      cutoffs: use an `AdaptiveSoftmax` with these cutoffs as output layer, whose logits are
        log-probabilities; needs a layer that is not tied, and tokens in the order of frequency.
      rngs: randomness of the embedding, the output layer and the dropout, see `LSTM`. Pass the
        `nnx.Rngs` that initialised the layer: a second one of the same seed would draw the same
        numbers again.

    Raises:
      ValueError: a layer that does not fit, a vocabulary below 1, a probability out of range, or
        `locked_dropout` without `dropout`.

    Reference: Zaremba, Sutskever & Vinyals, 2014, arXiv:1409.2329; tying: Press & Wolf, 2017,
    arXiv:1608.05859; embedding dropout: Gal & Ghahramani, 2016, arXiv:1512.05287.
    """

    def __init__(
        self,
        vocabulary: int,
        lstm: LSTM,
        *,
        dropout: float = 0.0,
        locked_dropout: bool = False,
        embedding_dropout: float = 0.0,
        tied: bool = False,
        cutoffs: tuple[int, ...] = (),
        rngs: nnx.Rngs,
    ):
        LENGTH.check(vocabulary=vocabulary)
        check_flags(locked_dropout=locked_dropout, tied=tied)
        check_language_layer(lstm, tied=tied)
        if tied and cutoffs:
            raise ValueError("tied=True uses the embedding as output layer: leave cutoffs out")
        features = lstm.in_features
        dtypes: dict[str, Any] = dict(dtype=lstm.dtype, param_dtype=param_dtype(lstm))
        self.dtype: Any = lstm.dtype
        self.embedding: nnx.Embed = nnx.Embed(
            vocabulary,
            features,
            embedding_init=nnx.initializers.normal(features**-0.5 if tied else 1.0),
            **dtypes,
            rngs=rngs,
        )
        self.lstm: LSTM = lstm
        self.tied = tied
        sizes = (lstm.hidden_features, vocabulary)
        if cutoffs:
            self.output: Any = AdaptiveSoftmax(*sizes, cutoffs, **dtypes, rngs=rngs)
        elif not tied:
            self.output = nnx.Linear(*sizes, promote_dtype=promote_factors, **dtypes, rngs=rngs)
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
        """Return the logits of each next token and the carry after the last step.

        Args:
          tokens: ids from 0 to below the vocabulary, [time, batch].
          carry: the state of the LSTM before the first token; zero if None.
          seq_lengths: number of valid tokens of each row, see `LSTM`.
          resets: True where the carry is zeroed before a token.
          probe: record the gradient inside the LSTM, see `LSTM`.
          deterministic: if True, disable dropout. None: the module's mode, initially `train()`.
          rngs: randomness of the dropout, instead of the streams that model and layer keep.

        Raises:
          ValueError: a token out of range, or shapes that do not fit. A traced token out of range,
            as under `jit`, is read as NaN.
        """
        options: dict[str, Any] = dict(seq_lengths=seq_lengths, resets=resets, probe=probe)
        options |= dict(deterministic=deterministic, rngs=rngs)
        _, dropped, carry = self.hidden(tokens, carry, **options)
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
        """Return the last layer's outputs before and after dropout, and the carry.

        `logits` maps the second to the model's logits. `temporal_activation_regularizer` takes the
        first, `activation_regularizer` the second. Arguments and errors are those of a call.
        """
        dropping: dict[str, Any] = dict(deterministic=deterministic, rngs=rngs)
        axes = ("time", "batch")
        tokens = read_ids("tokens", tokens, self.embedding.num_embeddings, axes)
        rows: dict[str, Any] = dict(carry=carry, seq_lengths=seq_lengths, resets=resets)
        check_rows("tokens", tokens, axes, self.lstm.hidden_features, len(self.lstm.layers), **rows)
        table = self.embedding.embedding[...].astype(self.dtype)
        if self.embedding_dropout.rate:  # one factor per token, 0 or 1/(1 − rate)
            ones = jnp.ones((self.embedding.num_embeddings, 1), table.dtype)
            table = table * self.embedding_dropout(ones, **dropping)
        x = Lookup(table, tokens)
        if self.dropout.rate:
            x = self.dropout(x.rows(), **dropping)
        raw, carry = self.lstm(
            x, carry, seq_lengths=seq_lengths, resets=resets, probe=probe, **dropping
        )
        return raw, self.dropout(raw, **dropping), carry

    def logits(self, hidden: Float[Array, "*axes hidden"]) -> Float[Array, "*axes vocabulary"]:
        """Return the output layer's logits, float32 or wider."""
        logits = _logits(self._output_layer, hidden)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))

    def losses(
        self, hidden: Float[Array, "*axes hidden"], targets: Int[Array, "*axes"]
    ) -> tuple[Float[Array, ""], Num[Array, ""]]:
        """Return `token_losses(logits(hidden), targets)`, in bounded memory.

        An adaptive softmax computes the clusters of the targets only; the logits of a large
        vocabulary are computed in chunks of tokens, of 16 MiB each. Then the gradient is for
        reverse mode only.
        """
        vocabulary = self.embedding.num_embeddings
        if isinstance(self._output_layer, AdaptiveSoftmax):
            return self._output_layer.losses(hidden, targets), jnp.sum(targets >= 0)
        if targets.size * vocabulary <= MOST_LOGITS:
            return token_losses(self.logits(hidden), targets)
        size = max(CHUNK_LOGITS // vocabulary, 1)
        total = chunked_losses(_logits, self._output_layer, hidden, targets, size)
        return total, jnp.sum(targets >= 0)

    @property
    def _output_layer(self) -> Any:
        """The embedding of a tied model, else the layer of its own."""
        return self.embedding if self.tied else self.output

    def generate(
        self,
        key: jax.Array,
        prompt: Int[Array, " prompt"],
        length: int,
        *,
        temperature: float | jax.Array = 1.0,
    ) -> Int[Array, " length"]:
        """Sample the `length` tokens that follow the prompt, without dropout.

        Args:
          key: random key.
          prompt: at least one token.
          length: number of tokens to sample, at least 0.
          temperature: divides the logits, at least 0; 0 always selects the most likely token.

        Raises:
          ValueError: an empty prompt, a token out of range, or a length or temperature below 0.
        """
        Range(whole=True, static=True).check(length=length)
        BOUND.check(temperature=temperature)
        prompt = read_ids("prompt", prompt, self.embedding.num_embeddings, ("time",))
        if prompt.shape[0] == 0:
            raise ValueError("the prompt is empty; give at least one token")
        logits, carry = self(prompt[:, None], deterministic=True)

        def body(state, key):
            logits, carry = state
            token = _sample_token(key, logits, temperature)
            logits, carry = self(token[None, None], carry, deterministic=True)
            return (logits[-1, 0], carry), token

        return jax.lax.scan(body, (logits[-1, 0], carry), jax.random.split(key, length))[1]


def _logits(layer: Any, hidden: Float[Array, "*axes hidden"]) -> jax.Array:
    return layer.attend(hidden) if isinstance(layer, nnx.Embed) else layer(hidden)


def _sample_token(key: jax.Array, logits: Float[Array, " vocabulary"], temperature) -> jax.Array:
    greedy = jnp.argmax(logits)
    scaled = logits / jnp.where(temperature > 0, temperature, 1)
    return jnp.where(temperature > 0, jax.random.categorical(key, scaled), greedy)
