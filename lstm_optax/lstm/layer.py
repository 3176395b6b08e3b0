"""LSTM as a Flax NNX module: a stack in one or two directions, with dropout."""

from collections.abc import Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from lstm_optax.checks import ANY, LENGTH, check_flags
from lstm_optax.lstm._probe import GradientFlow
from lstm_optax.lstm.cell import LSTMParams, LSTMState
from lstm_optax.lstm.checks import check_features, check_floats, check_probe, check_rows
from lstm_optax.lstm.cotangents import check_cotangent_clip
from lstm_optax.lstm.lookup import Lookup, swap_time_and_batch
from lstm_optax.lstm.sequence import check_backend, check_gradient, lstm_sequence, zero_state
from lstm_optax.lstm.steps import Clip, Gradient, before_step
from lstm_optax.lstm.weights import LSTMWeights, keep_stream, make_dropout

Carry = tuple[LSTMState, ...]
"""One state for each layer and direction: layer 0 forward, layer 0 backward, layer 1 forward, …"""


class LSTM(nnx.Module):
    """A stack of LSTM layers.

    Args:
      in_features: features of the input, at least 1.
      hidden_features: hidden units of each layer and direction, at least 1.
      num_layers: layers, at least 1.
      bidirectional: also run backwards in time. The features of both directions are concatenated,
        forward first, so a layer has 2 · hidden_features outputs.
      dropout: probability in [0, 1) of dropping an output of a layer, except the last layer; needs
        two layers or more.
      locked_dropout: drop the same outputs of a row at all steps of a call (variational dropout).
      weight_dropout: probability in [0, 1) of dropping a weight of kernel_hh, for all rows and
        steps of a call; the others are scaled by 1/(1 − probability).
      forget_bias: initial bias of the forget gate.
      cotangent_clip: bounds on the gradient inside back-propagation through time, the same in every
        layer, see `CotangentClip`. Python numbers only; `lstm_sequence` also takes traced ones.
      dtype: dtype of the products and outputs; the parameters' by default. The state is always
        float32 or wider.
      param_dtype: dtype of the parameters.
      backend: "auto" or a name in `lstm_optax.BACKENDS`.
      gradient: "stored", "remat" for less memory, or "autodiff", see `lstm_sequence`.
      time_major: inputs, outputs and resets are [time, batch, …]; else [batch, time, …].
      rngs: random streams for the parameters. If a dropout rate is above 0, the layer also stores a
        stream for it, like `nnx.Dropout`. `nnx.Rngs(params=0)` has no such stream: the layer then
        has no random state, and each call needs its own `rngs`.

    Raises:
      ValueError: a size below 1, a dropout rate out of range, dropout with a single layer, or an
        unknown backend or gradient.

    Reference: Hochreiter & Schmidhuber, 1997, doi:10.1162/neco.1997.9.8.1735; Jozefowicz et al.,
    2015, ICML, for the forget bias of 1; Gal & Ghahramani, 2016, arXiv:1512.05287, for locked
    dropout; Merity, Keskar & Socher, 2018, arXiv:1708.02182, for dropped weights.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        locked_dropout: bool = False,
        weight_dropout: float = 0.0,
        forget_bias: float = 1.0,
        cotangent_clip: Clip = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        backend: str = "auto",
        gradient: Gradient = "stored",
        time_major: bool = True,
        rngs: nnx.Rngs,
    ):
        LENGTH.check(
            in_features=in_features, hidden_features=hidden_features, num_layers=num_layers
        )
        ANY.check(forget_bias=forget_bias)
        check_flags(
            bidirectional=bidirectional, locked_dropout=locked_dropout, time_major=time_major
        )
        for name, kind in (("dtype", dtype), ("param_dtype", param_dtype)):
            if kind is not None:
                check_floats(name, kind)
        check_backend(backend)
        check_gradient(gradient)
        check_cotangent_clip(cotangent_clip)
        self.in_features = in_features
        self.hidden_features = hidden_features
        both = ("forward", "backward")
        self.directions: tuple[str, ...] = both if bidirectional else both[:1]
        self.dtype: Any = dtype or param_dtype
        self.backend = backend
        self.gradient: Gradient = gradient
        self.cotangent_clip = cotangent_clip
        self.time_major = time_major
        self.layers: nnx.List[Any] = nnx.List()
        for layer in range(num_layers):
            features = in_features if layer == 0 else hidden_features * len(self.directions)
            weights = {
                direction: LSTMWeights(
                    features,
                    hidden_features,
                    forget_bias=forget_bias,
                    param_dtype=param_dtype,
                    rngs=rngs,
                )
                for direction in self.directions
            }
            self.layers.append(nnx.Dict(weights))
        self.dropout: nnx.Dropout = make_dropout(
            "dropout", dropout, locked=locked_dropout, rngs=rngs
        )
        if dropout and num_layers == 1:
            raise ValueError(
                f"dropout is {dropout}, but it acts between layers and num_layers is 1: use two "
                f"layers or more, or drop the outputs of this layer with nnx.Dropout"
            )
        self.weight_dropout: nnx.Dropout = make_dropout("weight_dropout", weight_dropout, rngs=rngs)

    @classmethod
    def from_params(
        cls,
        params: Sequence[LSTMParams],
        *,
        bidirectional: bool = False,
        rngs: nnx.Rngs | None = None,
        **options: Any,
    ) -> Self:
        """Return a stack with these parameters; works under `jit` and `grad`.

        Args:
          params: one LSTMParams for each layer and direction, in the order of the carry.
          bidirectional: whether the parameters alternate between forward and backward directions.
          rngs: random streams for the dropout, as above.
          options: `dropout`, `weight_dropout`, `dtype`, `backend`, …, as above.

        Raises:
          ValueError: shapes that do not form a stack, or an option that the parameters determine.
        """
        for name in ("forget_bias", "param_dtype", "num_layers"):
            if name in options:
                raise ValueError(
                    f"{name} is {options[name]}, but the parameters determine it: leave it out"
                )
        params = jax.tree.map(jnp.asarray, tuple(params))
        directions = 2 if bidirectional else 1
        if not params or len(params) % directions:
            raise ValueError(f"got {len(params)} LSTMParams; expected {directions} for each layer")
        features, hidden = params[0].kernel_ih.shape[0], params[0].kernel_hh.shape[0]
        sizes = dict(num_layers=len(params) // directions, bidirectional=bidirectional)
        options |= dict(param_dtype=params[0].kernel_ih.dtype)
        # Only the structure: initial weights would be computed in vain.
        lstm = nnx.eval_shape(
            lambda: cls(features, hidden, **sizes, **options, rngs=nnx.Rngs(params=0))
        )
        for i, (weights, new) in enumerate(zip(lstm._weights(), params, strict=True)):
            for name, value in new._asdict().items():
                expected = getattr(weights, name).shape
                if value.shape != expected:
                    raise ValueError(
                        f"{name} of params[{i}] has shape {value.shape}; expected {expected}"
                    )
                setattr(weights, name, nnx.Param(value))
        for dropout in (lstm.dropout, lstm.weight_dropout):
            keep_stream(dropout, rngs)
        return lstm

    def params(self) -> tuple[LSTMParams, ...]:
        """Return the parameters of each layer and direction, in the order of the carry."""
        return tuple(weights.params() for weights in self._weights())

    def initial_carry(self, batch: int) -> Carry:
        """Return the carry before the first step, all zero."""
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        count = len(self.layers) * len(self.directions)
        return tuple(zero_state(batch, self.hidden_features, dtype) for _ in range(count))

    def __call__(
        self,
        x: Float[Array, "time batch features"] | Lookup,
        carry: Carry | None = None,
        *,
        seq_lengths: Int[Array, " batch"] | None = None,
        resets: Bool[Array, "time batch"] | None = None,
        detach: Bool[Array, "time batch"] | Bool[Array, " time"] | None = None,
        probe: Sequence[GradientFlow] | None = None,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> tuple[Float[Array, "time batch hidden"], Carry]:
        """Run over a sequence.

        Args:
          x: inputs, [time, batch, features] or, with time_major=False, [batch, time, features]. Or
            a `Lookup`, whose ids have the first two axes.
          carry: the state of each layer and direction before the sequence; zero if None.
          seq_lengths: valid steps of each row; after them the carry is frozen and outputs are zero.
          resets: True at the first step of an episode: the carry is zeroed before it. The axes are
            in the order of those of x.
          detach: h-detach in every layer and direction, see `lstm_sequence`. The axes are in the
            order of those of x.
          probe: one `GradientFlow` for each layer and direction, in the order of the carry, always
            time first; the derivative with respect to it is the record, see `probe`.
          deterministic: if True, disable dropout. None: the mode of the module, see `train` and
            `eval`; initially dropout is enabled.
          rngs: random streams for the dropout, instead of the stored stream.

        Returns:
          The outputs of the last layer, with the axes of x, and the carry after the sequence.

        Raises:
          ValueError: a wrong shape, a carry that does not have one state for each layer and
            direction, or dropout without `rngs`.
        """
        inputs: Any = x if isinstance(x, Lookup) else jnp.asarray(x)
        axes = ("time", "batch") if self.time_major else ("batch", "time")
        carry = self._check_call(
            inputs, axes, carry, seq_lengths=seq_lengths, resets=resets, detach=detach
        )
        flows = check_probe(probe, len(carry))
        if not self.time_major:
            inputs = swap_time_and_batch(inputs)
            resets = None if resets is None else jnp.swapaxes(jnp.asarray(resets), 0, 1)
            if detach is not None and jnp.ndim(detach) == 2:
                detach = jnp.swapaxes(jnp.asarray(detach), 0, 1)
        new_carry = []
        # From here on, the inputs are [time, batch, features of the layer].
        for layer, weights in enumerate(self.layers):
            if layer > 0:
                inputs = self.dropout(inputs, deterministic=deterministic, rngs=rngs)
            outputs = []
            for direction in self.directions:
                params = weights[direction].params()
                kernel = self.weight_dropout(
                    params.kernel_hh, deterministic=deterministic, rngs=rngs
                )
                out, state = lstm_sequence(
                    params._replace(kernel_hh=kernel),
                    inputs,
                    carry[len(new_carry)],
                    seq_lengths=seq_lengths,
                    resets=resets,
                    reverse=direction == "backward",
                    cotangent_clip=self.cotangent_clip,
                    detach=detach,
                    probe=flows[len(new_carry)],
                    dtype=self.dtype,
                    backend=self.backend,
                    gradient=self.gradient,
                )
                outputs.append(out)
                new_carry.append(state)
            inputs = jnp.concatenate(outputs, axis=-1)
        return (inputs if self.time_major else swap_time_and_batch(inputs)), tuple(new_carry)

    def step(
        self,
        x: Float[Array, "batch features"],
        carry: Carry | None = None,
        *,
        resets: Bool[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, "batch hidden"], Carry]:
        """Run one time step without dropout, for a control loop or a sampler.

        Args:
          x: inputs of the step.
          carry: the state of each layer before the step; zero if None.
          resets: True, or not 0, for rows that start a new episode: their carry is zeroed before
            the step.

        Raises:
          ValueError: the stack is bidirectional, which needs the whole sequence, or a wrong shape.
        """
        if len(self.directions) == 2:
            raise ValueError("a bidirectional LSTM has no single step: it needs the whole sequence")
        x = jnp.asarray(x)
        carry = self._check_call(x, ("batch",), carry, resets=resets)
        if resets is not None:
            reset = jnp.asarray(resets, bool)  # [batch]
            carry = tuple(before_step(state, reset) for state in carry)
        axis = 0 if self.time_major else 1
        outputs, carry = self(jnp.expand_dims(x, axis), carry, deterministic=True)
        return jnp.squeeze(outputs, axis), carry

    def _check_call(self, x: Any, axes: Sequence[str], carry: Carry | None, **rows) -> Carry:
        """Return the carry, zero if None; ValueError unless all arguments fit this layer."""
        check_features(x, (*axes, "features"), self.in_features)
        states = len(self.layers) * len(self.directions)
        check_rows("x", x, axes, self.hidden_features, states, carry=carry, **rows)
        return self.initial_carry(x.shape[axes.index("batch")]) if carry is None else carry

    def _weights(self) -> list[LSTMWeights]:
        return [layer[direction] for layer in self.layers for direction in self.directions]
