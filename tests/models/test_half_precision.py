"""Models with products in half precision: their gradients against those of float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from build_models import language_model, sequence_model
from flax import nnx

import lstm_optax as lo

T, B, V, H = 64, 64, 12, 8  # 4,096 tokens
DTYPES = [jnp.bfloat16, jnp.float16]


def gradients(build, inputs, targets, dtype, scale=1.0):
    """Return the gradient of the mean loss, by parameter, in float64."""
    model = build(dtype=dtype, rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model)

    def loss(params):
        outputs, _ = nnx.merge(graphdef, params)(inputs)
        total, count = lo.sequence_losses(outputs, targets)
        return total / count * scale

    found = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params))
    return {jax.tree_util.keystr(path): np.float64(leaf) / scale for path, leaf in found}


def errors(build, inputs, targets, dtype, scale):
    """Return the error of the gradient of each parameter, relative to its norm."""
    exact = gradients(build, inputs, targets, jnp.float32)
    found = gradients(build, inputs, targets, dtype, scale)
    distances = {name: np.linalg.norm(found[name] - exact[name]) for name in exact}
    return {name: distances[name] / np.linalg.norm(exact[name]) for name in exact}


def language(**own):
    sizes = dict(in_features=H, hidden_features=H)
    return lambda **options: language_model(V, **sizes, **own, **options)


def sequence(**options):
    return sequence_model(V, in_features=3, hidden_features=H, every_step=True, **options)


def draw(kind):
    """Return inputs and targets: tokens and the next ones, or numbers and classes or numbers."""
    rng = np.random.default_rng(0)
    tokens = np.minimum(rng.geometric(0.3, (2, T, B)) - 1, V - 1)
    if kind == "tokens":
        return tokens[0], tokens[1]
    inputs = np.float32(rng.normal(size=(T, B, 3)))
    return inputs, tokens[1] if kind == "classes" else 1 + np.float32(rng.normal(size=(T, B, V)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "build, kind",
    [
        (language(), "tokens"),
        (language(backend="fused"), "tokens"),
        (language(tied=True), "tokens"),
        (sequence, "classes"),
        (sequence, "numbers"),
    ],
    ids=["language", "fused", "tied", "classes", "numbers"],
)
def test_sums_over_tokens_are_float32(build, kind, dtype):
    """The gradients of bias and embedding, which are no products of matrices."""
    scale = 2.0**10 if dtype == jnp.float16 else 1.0
    found = errors(build, *draw(kind), dtype, scale)
    sums = {name: error for name, error in found.items() if "bias" in name or "embed" in name}
    assert len(sums) >= 2 and max(sums.values()) < 1.5 * jnp.finfo(dtype).eps, found
