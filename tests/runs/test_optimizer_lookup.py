"""Training with optimizers of the presets and of Optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lstm_optax import OPTIMIZERS, TrainConfig, presets
from lstm_optax.runs import OptionError
from lstm_optax.runs.build import abstract_state, make_optimizer, make_schedule
from lstm_optax.runs.optimizer_lookup import find_factory

SIZES = dict(hidden=8, embedding=4, batch=2, window=8, clip=0.0)
PRESETS = [
    f"presets.{source}.{name}"
    for source in ("torch", "keras", "tf1", "graves", "hinton", "dozat", "algoperf", "sutskever")
    for name in getattr(presets, source).__all__
]


def config(**values) -> TrainConfig:
    return TrainConfig(**(SIZES | values))


def optimizer_of(settings: TrainConfig) -> optax.GradientTransformation:
    return make_optimizer(settings, make_schedule(settings))


@pytest.mark.parametrize("name", [*PRESETS, "optax.adam", "optax.lamb", "optax.contrib.prodigy"])
def test_explainable_optimizers_build_state(name):
    """Other names are rejected before anything is built."""
    try:
        find_factory(name)
    except OptionError as error:
        assert "is not an optimizer" in str(error) or "in addition to its learning rate" in str(
            error
        )
        return
    settings = config(optimizer=name)
    state = abstract_state(settings, 5, optimizer_of(settings))
    assert state.params and state.step.shape == ()


def test_preset_follows_schedule():
    settings = config(optimizer="presets.torch.SGD", learning_rate=0.5, schedule="linear", steps=2)
    optimizer, params = optimizer_of(settings), {"w": jnp.ones(3)}
    state = optimizer.init(params)
    for rate in (0.5, 0.25):
        updates, state = optimizer.update(params, state, params)
        np.testing.assert_allclose(updates["w"], -rate * np.ones(3), rtol=1e-6)


@pytest.mark.parametrize(
    "name, message",
    [
        ("optax.lbfgs", "--optimizer: optax.lbfgs cannot be used here .TypeError: "),
        ("optax.rprop", "--optimizer: optax.rprop cannot be used here .TypeError: "),
        ("presets.torch.NAdm", "the nearest is 'presets.torch.NAdam'"),
        ("presets.torch.nope", "there are presets.torch."),
        ("presets.nope.nope", "there are presets.SOURCE.NAME, optax.NAME and optax.contrib.NAME"),
        ("NADAM", "the nearest is 'nadam'"),
        ("optax.trace", "is not an optimizer: it takes no learning rate"),
        ("presets.tf1.MomentumOptimizer", "needs momentum in addition to its learning rate"),
        ("nope", "unknown optimizer 'nope'; there are sgd, "),
    ],
)
def test_untrainable_optimizer_is_option_error(name, message):
    settings = config(optimizer=name)
    with pytest.raises(OptionError, match=message) as error:
        settings.check()
        abstract_state(settings, 5, optimizer_of(settings))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, decays",
    [("presets.torch.AdamW", True), ("optax.lamb", True), ("optax.adam", False), ("sgd", False)],
)
def test_weight_decay_is_passed_or_rejected(name, decays):
    assert ("weight_decay" in find_factory(name).arguments) == decays
    settings = config(optimizer=name, weight_decay=0.1, learning_rate=0.5, schedule="constant")
    if decays:
        optimizer, params = optimizer_of(settings), {"w": jnp.ones(3)}
        plain = optimizer_of(config(optimizer=name, learning_rate=0.5, schedule="constant"))
        one, other = (tx.update(params, tx.init(params), params)[0] for tx in (optimizer, plain))
        assert not np.allclose(one["w"], other["w"]) or name == "optax.lamb"
    else:
        with pytest.raises(OptionError, match=f"--weight-decay: {name} has no weight decay"):
            settings.check()
            optimizer_of(settings)


@pytest.mark.parametrize("name", ["optax.contrib.schedule_free_adamw", "presets.torch.ASGD"])
def test_vary_window_rejects_averages(name):
    try:
        find_factory(name)
    except OptionError:
        pytest.skip(f"there is no {name}")
    settings = config(optimizer=name, vary_window=True)
    with pytest.raises(OptionError, match=f"--vary-window: {name} averages steps"):
        abstract_state(settings, 5, optimizer_of(settings))


def test_find_factory_knows_every_table_name():
    for name, factory in OPTIMIZERS.items():
        assert find_factory(name).make is factory
    assert jax.tree.leaves(abstract_state(config(), 5, optimizer_of(config())))
