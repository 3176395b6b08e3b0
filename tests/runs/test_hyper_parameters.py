"""Hyper-parameters by name: listing, parsing, grids, and their effect on the updates."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from lstm_optax import OPTIMIZERS, LSTMParams, adam, momentum_sgd, presets
from lstm_optax.runs import OptionError
from lstm_optax.runs.hyper_parameters import (
    check_settings,
    hyper_parameters_of,
    parse_grid,
    parse_settings,
    split_settings,
)
from lstm_optax.runs.optimizer_lookup import find_factory, find_optimizer

PRESETS = [
    f"presets.{source}.{name}"
    for source in ("torch", "keras", "tf1", "graves", "hinton", "dozat", "algoperf")
    for name in getattr(presets, source).__all__
    if name != "clip_gradients"
] + ["presets.sutskever.classical_momentum", "presets.sutskever.nesterov_momentum"]
NOT_SETTABLE = {
    "mask",
    "weight_decay_mask",
    "mu_dtype",
    "state_dtype",
    "dtype_momentum",
    "gates",
    "muon_weight_dimension_numbers",
}
REQUIRED = {"presets.tf1.MomentumOptimizer": ["momentum=0.9"]}


@pytest.mark.parametrize("name", [*OPTIMIZERS, *PRESETS])
def test_every_argument_is_listed(name):
    optimizer = find_optimizer(name)
    arguments = set(inspect.signature(optimizer.make).parameters)
    listed = {parameter.partition(".")[0] for parameter in hyper_parameters_of(name)}
    assert listed == arguments - {optimizer.rate} - NOT_SETTABLE


@pytest.mark.parametrize("name", [*OPTIMIZERS, *PRESETS])
def test_every_number_can_be_traced(name):
    settings = parse_settings(name, REQUIRED.get(name, []))
    numbers = settings | {
        key: parameter.default
        for key, parameter in hyper_parameters_of(name).items()
        if parameter.kind == "number" and not (parameter.optional or parameter.required)
    }
    params = LSTMParams(jnp.ones((1, 4)), jnp.ones((1, 4)), jnp.ones(4))

    def update(rate, numbers):
        tx = find_factory(name, given=settings)(rate, **numbers)
        return tx.update(params, tx.init(params), params)[0]

    traced = jax.tree.map(lambda number: jax.ShapeDtypeStruct((), jnp.float32), (0.0, numbers))
    assert jax.eval_shape(update, *traced).kernel_ih.shape == (1, 4)


def test_kinds_and_defaults():
    found = hyper_parameters_of("optax.contrib.muon")
    summary = {
        name: (found[name].kind, found[name].default, found[name].optional)
        for name in ("beta", "ns_steps", "nesterov", "preconditioning", "consistent_rms")
    }
    assert summary == {
        "beta": ("number", 0.95, False),
        "ns_steps": ("whole number", 5, False),
        "nesterov": ("flag", True, False),
        "preconditioning": ("choice", "frobenius", False),
        "consistent_rms": ("number", None, True),
    }
    assert found["ns_coeffs.1"].default == -4.775
    assert found["preconditioning"].choices == ("frobenius", "spectral", "aol", "schatten")
    assert hyper_parameters_of("presets.torch.SGD")["momentum"].kind == "number"  # its default is 0
    assert hyper_parameters_of("awd_sgd")["nonmonotone"].kind == "whole number"
    assert hyper_parameters_of("presets.tf1.MomentumOptimizer")["momentum"].required
    assert hyper_parameters_of("optax.noisy_sgd").keys() == {"eta", "gamma", "seed"}  # no key
    assert hyper_parameters_of("sgd") == {}


def updates(tx: optax.GradientTransformation) -> np.ndarray:
    """Return the updates of three steps with moving gradients."""
    state, found = tx.init(jnp.ones(2)), []
    for gradient in np.random.default_rng(0).normal(size=(3, 2)):
        step, state = tx.update(jnp.asarray(gradient, jnp.float32), state, jnp.ones(2))
        found.append(step)
    return np.stack(found)


@pytest.mark.parametrize(
    "name, texts, values, direct",
    [
        ("momentum_sgd", ["momentum=0"], {"momentum": 0.0}, lambda: momentum_sgd(0.1, momentum=0)),
        (
            "adam",
            ["b2=.9", " eps = 1e-2 "],
            {"b2": 0.9, "eps": 0.01},
            lambda: adam(0.1, b2=0.9, eps=0.01),
        ),
        (
            "presets.torch.Adam",
            ["betas.1=0.9"],
            {"betas.1": 0.9},
            lambda: presets.torch.Adam(0.1, betas=(0.9, 0.9)),
        ),
        (
            "presets.torch.SGD",
            ["momentum=0.5", "nesterov=True"],
            {"momentum": 0.5, "nesterov": True},
            lambda: presets.torch.SGD(0.1, momentum=0.5, nesterov=True),
        ),
        (
            "optax.rmsprop",
            ["momentum=none", "centered=true"],
            {"momentum": None, "centered": True},
            lambda: optax.rmsprop(0.1, centered=True),
        ),
        (
            "presets.keras.SGD",
            ["clipvalue=0.01"],
            {"clipvalue": 0.01},
            lambda: presets.keras.SGD(0.1, clipvalue=0.01),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_reach_the_rule(name, texts, values, direct):
    parsed = parse_settings(name, texts)
    assert parsed == values and [*map(type, parsed.values())] == [*map(type, values.values())]
    ours = updates(find_factory(name)(0.1, **parsed))
    np.testing.assert_array_equal(ours, updates(direct()))
    assert not np.allclose(ours, updates(find_factory(name)(0.1)), rtol=1e-3)


def test_required_argument_can_be_set():
    settings = parse_settings("presets.tf1.MomentumOptimizer", ["momentum=0.5"])
    tx = find_factory("presets.tf1.MomentumOptimizer", given=settings)(0.1, **settings)
    np.testing.assert_array_equal(
        updates(tx), updates(presets.tf1.MomentumOptimizer(0.1, momentum=0.5))
    )


def test_infinity_is_a_number():
    assert parse_settings("awd_sgd", ["clip=inf"]) == {"clip": math.inf}


BAD = [
    ("adam", "b1", "--set 'b1' is not a name and a value: write --set NAME=VALUE, such as mom"),
    ("adam", "b1=", "--set 'b1=' is not a name and a value"),
    ("adam", "=0.9", "--set '=0.9' is not a name and a value"),
    ("adam", "b1=a", "--set b1=a: b1 is a, but must be a number"),
    ("adam", "b1=none", "--set b1=none: b1 is none, but must be a number"),
    ("adam", "b1=nan", "--set b1=nan: b1 is nan, but must be a number"),
    ("adam", "b1=0.9=1", "--set b1=0.9=1: b1 is 0.9=1, but must be a number"),
    ("adam", "eps=1e39", "--set eps=1e39: eps is 1e+39, which does not fit in float32"),
    ("adam", "eps=1e-60", "--set eps=1e-60: eps is 1e-60, but the smallest normal number in"),
    ("adam", "b1=1.5", "--set b1=1.5: b1 is 1.5, but must be a number in [0, 1)"),
    (
        "adam",
        "beta1=.5",
        "adam has no hyper-parameter 'beta1'; there are b1, b2, eps",
    ),
    (
        "adam",
        "gamma=.5",
        "--set gamma=.5: adam has no hyper-parameter 'gamma'; there are b1, b2, eps",
    ),
    (
        "adam",
        "learning_rate=1",
        "--set learning_rate=1: the learning rate has an option of its own, --",
    ),
    ("adam", "lr=1", "--set lr=1: the learning rate has an option of its own, --learning-rate"),
    (
        "rmsprop_momentum",
        "momentun=0",
        "has no hyper-parameter 'momentun'; the nearest is 'momentum'; there are momentum, ",
    ),
    ("sgd", "momentum=1", "sgd has no hyper-parameter except the learning rate"),
    (
        "nadamw",
        "mask=true",
        "--set mask=true: mask is neither a number nor a flag nor a choice; pass",
    ),
    ("awd_sgd", "nonmonotone=5.5", "nonmonotone is 5.5, but must be a whole number"),
    (
        "awd_sgd",
        "nonmonotone=4294967296",
        "nonmonotone is 4294967296, but must be a whole number from -2",
    ),
    ("awd_sgd", "nonmonotone=0", "--set nonmonotone=0: nonmonotone is 0, but must be"),
    ("optax.adam", "nesterov=1", "nesterov is 1, but must be true or false"),
    ("optax.sgd", "momentum=x", "momentum is x, but must be a number, or none"),
    (
        "optax.contrib.muon",
        "preconditioning=no",
        "preconditioning is no, but must be frobenius or spectral or aol or schatten",
    ),
    (
        "presets.torch.Adam",
        "betas=0.9",
        "betas has several values; set each alone: betas.0, betas.1",
    ),
    ("presets.torch.Adam", "betas.1=2", "--set betas.1=2: "),
    ("presets.torch.SGD", "nesterov=true", "--set nesterov=true: "),
    (
        "presets.tf1.MomentumOptimizer",
        "use_nesterov=true",
        "needs momentum in addition to its learning rate; pass --set momentum=…, or call it in",
    ),
    ("nadm", "b1=1", "unknown optimizer 'nadm'"),
    ("optax.trace", "decay=1", "optax.trace is not an optimizer"),
]


@pytest.mark.parametrize("name, text, message", BAD, ids=lambda text: text[:20])
def test_bad_setting_is_one_line(name, text, message):
    with pytest.raises(OptionError) as error:
        parse_settings(name, [text])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_setting_given_twice_is_rejected():
    with pytest.raises(OptionError, match=r"^--set b1 is given twice, as 0\.8 and as 0\.9$"):
        split_settings(["b1=0.8", "b2=0.9", "b1=0.9"])


def test_error_names_only_its_setting():
    with pytest.raises(OptionError, match=r"^--set b1=1\.5: b1 is 1\.5, but must be a number in"):
        parse_settings("adam", ["eps=1e-3", "b1=1.5"])


def test_grid_values_in_order():
    grid = parse_grid("optax.adam", ["b1=0.9, 0,.95", "nesterov=false,true"])
    assert grid == {"b1": (0.9, 0.0, 0.95), "nesterov": (False, True)}
    assert parse_grid("sgd", []) == {}


def test_grid_is_checked_with_settings():
    grid = parse_grid("presets.torch.SGD", ["nesterov=true,false"], settings={"momentum": 0.9})
    assert grid == {"nesterov": (True, False)}
    with pytest.raises(OptionError, match="^--grid nesterov=true: "):
        parse_grid("presets.torch.SGD", ["nesterov=false,true"])
    with pytest.raises(OptionError, match="^momentum is set to one value and has a grid: pass"):
        parse_grid("presets.torch.SGD", ["momentum=0,1"], settings={"momentum": 0.9})


@pytest.mark.parametrize(
    "text, message",
    [
        ("b1=", "--grid 'b1=' is not a name and a value: write --grid NAME=VALUE,VALUE, such as"),
        ("b1=0.9,", "--grid b1=0.9,: a value is missing next to a comma"),
        ("b1=,", "--grid b1=,: a value is missing next to a comma"),
        ("b1=0.9,0.90", "--grid b1=0.9,0.90: 0.90 is given twice"),
        ("b1=0.9,x", "--grid b1=x: b1 is x, but must be a number"),
        ("b1=0.9,1.5", "--grid b1=1.5: b1 is 1.5, but must be a number in [0, 1)"),
        ("b3=0.9", "--grid b3=0.9: adam has no hyper-parameter 'b3'; there are b1, b2, eps"),
        ("learning_rate=1,2", "an option of its own, --learning-rate or, in a sweep, --rates"),
    ],
)
def test_bad_grid_is_one_line(text, message):
    with pytest.raises(OptionError) as error:
        parse_grid("adam", [text])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_settings_of_no_optimizer_pass():
    check_settings("adam", {})
    assert parse_settings("adam", []) == {}
