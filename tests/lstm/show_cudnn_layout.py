"""Show that JAX's cuDNN LSTM returns wrong values next to a transposition; needs an NVIDIA GPU.

python tests/lstm/show_cudnn_layout.py
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import rnn

TIME, BATCH, FEATURES, HIDDEN = 5, 3, 4, 6
SIZES = (FEATURES, HIDDEN, 1, 0.0, False)  # one layer, no dropout, one direction


def main() -> None:
    """Print the largest error of outputs and input gradients for three equal programs."""
    numbers = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES))
    x = jnp.asarray(numbers, jnp.float32)
    weights = rnn.init_lstm_weight(jax.random.key(0), FEATURES, HIDDEN, 1, False)
    state, lengths = jnp.zeros((1, BATCH, HIDDEN)), jnp.full(BATCH, TIME, jnp.int32)

    def reference(x):
        parts = rnn.unpack_lstm_weights(weights, FEATURES, HIDDEN, 1, False)
        return rnn.lstm_ref(x, state, state, *parts, lengths, *SIZES)[0]

    def call(x):
        highest = jax.lax.Precision.HIGHEST
        return rnn.lstm(x, state, state, weights, lengths, *SIZES, highest)[0]

    def swap(x):
        return jnp.swapaxes(x, 0, 1)

    def unchanged(x):
        return x

    expected = reference(x), jax.grad(lambda x: jnp.sum(jnp.sin(reference(x))))(x)
    for name, before, after in (
        ("no transposition", unchanged, unchanged),
        ("inputs transposed in the program", swap, unchanged),
        ("outputs transposed in the program", unchanged, swap),
    ):

        def run(x, before=before, after=after):
            return after(call(before(x)))

        given = before(x)  # outside the program, so that the program transposes it back
        outputs = after(jax.jit(run)(given))
        gradient = jax.jit(jax.grad(lambda x, run=run: jnp.sum(jnp.sin(run(x)))))(given)
        errors = (
            float(jnp.max(jnp.abs(found - exact)))
            for found, exact in zip((outputs, before(gradient)), expected, strict=True)
        )
        print(f"{name}: outputs {next(errors):.1e}, gradient {next(errors):.1e}")


if __name__ == "__main__":
    main()
