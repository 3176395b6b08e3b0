"""Every option of every model and layer acts or is rejected."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from build_models import OF_LAYER, language_model, sequence_model
from flax import nnx

import lstm_optax as lo

T, B, F, H, V = 5, 3, 4, 4, 6
X = np.random.default_rng(0).normal(size=(T, B, F)).astype(np.float32)
TOKENS = np.random.default_rng(0).integers(0, V, (T, B)).astype(np.int32)


def lstm(**options):
    return lo.LSTM(options.pop("in_features", F), options.pop("hidden_features", H), **options)


def language(**options):
    sizes = dict(in_features=F, hidden_features=H)
    return language_model(options.pop("vocabulary", V), **(sizes | options))


def sequence(**options):
    sizes = dict(in_features=F, hidden_features=H)
    return sequence_model(options.pop("out_features", 2), **(sizes | options))


MODELS = {lo.LSTM: lstm, lo.LanguageModel: language, lo.SequenceModel: sequence}
DROPPED = dict(dropout=0.5)
LAYER = [  # option, value, options that it needs
    ("num_layers", 2, {}),
    ("bidirectional", True, {}),
    ("dropout", 0.5, dict(num_layers=2)),
    ("dropout", 0.5, {}),
    ("locked_dropout", True, dict(num_layers=2, **DROPPED)),
    ("locked_dropout", True, {}),
    ("weight_dropout", 0.5, {}),
    ("forget_bias", 3.0, {}),
    ("cotangent_clip", lo.CotangentClip(gates=1e-3), {}),
    ("dtype", jnp.bfloat16, {}),
    ("param_dtype", jnp.bfloat16, {}),
    ("backend", "reference", {}),
    ("gradient", "remat", {}),
    ("gradient", "remat", dict(backend="reference")),
    ("gradient", "autodiff", {}),
    ("time_major", False, {}),
    ("in_features", 3, {}),
    ("hidden_features", 5, {}),
]
ROWS = [
    *[(lo.LSTM, *row) for row in LAYER],
    *[(lo.LanguageModel, *row) for row in LAYER],
    *[(lo.SequenceModel, *row) for row in LAYER],
    (lo.LanguageModel, "vocabulary", 7, {}),
    (lo.LanguageModel, "embedding_dropout", 0.5, {}),
    (lo.LanguageModel, "tied", True, {}),
    (lo.LanguageModel, "cutoffs", (2, 4), {}),
    (lo.SequenceModel, "out_features", 3, {}),
    (lo.SequenceModel, "every_step", True, {}),
    (lo.SequenceModel, "locked_dropout", True, dict(every_step=True, **DROPPED)),
    (lo.SequenceModel, "locked_dropout", True, dict(every_step=True, time_major=False, **DROPPED)),
]
REJECTED = {
    (lo.LSTM, "dropout", 0),
    (lo.LSTM, "locked_dropout", 0),
    (lo.LanguageModel, "locked_dropout", 0),
    (lo.LanguageModel, "bidirectional", 0),
    (lo.LanguageModel, "time_major", 0),
    (lo.SequenceModel, "locked_dropout", 0),
} | {(kind, "gradient", 1) for kind in MODELS}


def program(kind, options) -> str:
    """Return the program of outputs and gradients as text, with the initial parameters."""
    model = MODELS[kind](**options, rngs=nnx.Rngs(params=0))
    graphdef, params = nnx.split(model)
    x = TOKENS if kind is lo.LanguageModel else X[..., : options.get("in_features", F)]

    def run(params, key):
        outputs, carry = nnx.merge(graphdef, params)(x, rngs=nnx.Rngs(dropout=key))
        return jnp.sum(jnp.square(outputs.astype(jnp.float32))), (outputs, carry)

    jaxpr = jax.make_jaxpr(jax.value_and_grad(run, has_aux=True))(params, jax.random.key(0))
    values = [np.asarray(leaf, np.float32).tobytes().hex() for leaf in jax.tree.leaves(params)]
    return str(jaxpr) + "".join(values)


@pytest.mark.parametrize(
    "kind, name, value, others",
    ROWS,
    ids=[f"{kind.__name__}-{name}-{len(others)}" for kind, name, _, others in ROWS],
)
def test_option_acts_or_is_rejected(kind, name, value, others):
    options = others | {name: value}
    if (kind, name, len(others)) in REJECTED:
        with pytest.raises(ValueError, match=name):
            program(kind, options)
    else:
        assert program(kind, options) != program(kind, others)


@pytest.mark.parametrize("kind", MODELS)
def test_every_option_has_a_row(kind):
    """The options of the layer act in a model as well."""
    named = {name for other, name, *_ in ROWS if other is kind}
    signature = set(inspect.signature(kind.__init__).parameters) - {"self", "rngs", "lstm"}
    assert signature | OF_LAYER == named
