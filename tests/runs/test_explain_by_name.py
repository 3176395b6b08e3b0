"""Optimizers by name: lookup and error messages."""

import inspect

import numpy as np
import optax
import optax.contrib
import pytest

from lstm_optax import OPTIMIZERS, explain, presets
from lstm_optax.runs import OptionError, explain_optimizers
from lstm_optax.runs.optimizer_lookup import find_factory


def test_explain_optimizers_by_name():
    names = ["sgd", "presets.torch.SGD", "optax.lion"]
    measured = explain_optimizers(names, learning_rate=0.5)
    assert [(m.name, m.learning_rate) for m in measured] == [(name, 0.5) for name in names]
    for response, make in zip(
        measured, (OPTIMIZERS["sgd"], presets.torch.SGD, optax.lion), strict=True
    ):
        np.testing.assert_array_equal(response.constant, explain(make, learning_rate=0.5).constant)
        assert response.rate is not None


SOURCES = {f"presets.{source}": getattr(presets, source) for source in presets.__all__}
FOUND = [
    f"{path}.{name}"
    for path, source in SOURCES.items()
    for name in source.__all__
    if path.removeprefix("presets.") not in ("averages", "links", "sutskever", "torch_state")
    and name not in ("MomentumOptimizer", "clip_gradients")
]


@pytest.mark.parametrize("name", [*FOUND, "optax.nadam", "optax.contrib.prodigy"])
def test_find_factory_knows_every_preset(name):
    path, _, last = name.rpartition(".")
    there = SOURCES | {"optax": optax, "optax.contrib": optax.contrib}
    make = getattr(there[path], last)
    rate = "lr" if "lr" in inspect.signature(make).parameters else "learning_rate"
    ours, theirs = find_factory(name)(0.1), make(**{rate: 0.1})
    params = np.ones((1, 1), np.float32)
    assert ours.init(params) == theirs.init(params)


BAD = [
    ("nadm", "unknown optimizer 'nadm'; the nearest is 'nadam'; there are sgd, "),
    (
        "nadm",
        "optax.contrib.schedule_free_adamw, and presets.SOURCE.NAME, optax.NAME and ",
    ),
    ("torch.NAdam", "unknown optimizer 'torch.NAdam'; there are sgd, "),
    ("nope", "unknown optimizer 'nope'; there are sgd, "),
    ("presets.torch.nope", "unknown optimizer 'presets.torch.nope'; there are presets.torch."),
    (
        "presets.torch.NAdm",
        "unknown optimizer 'presets.torch.NAdm'; the nearest is 'presets.torch.NAdam'",
    ),
    ("presets.keras.nadam", "the nearest is 'presets.keras.Nadam'"),
    ("presets.torch", "unknown optimizer 'presets.torch'; there are presets.torch."),
    ("optax.contrib.mu0n", "the nearest is 'optax.contrib.muon'"),
    ("optax.contrib", "unknown optimizer 'optax.contrib'; there are optax."),
    ("optax.__doc__", "unknown optimizer 'optax.__doc__'"),
    ("optax.trace", "optax.trace is not an optimizer: it takes no learning rate; if it is a link"),
    ("presets.sutskever.eval_params", "is not an optimizer: it takes no learning rate"),
    (
        "presets.tf1.MomentumOptimizer",
        "needs momentum in addition to its learning rate; pass --set momentum=…, or call it in "
        "Python: presets.tf1.MomentumOptimizer(learning_rate=…, momentum=…)",
    ),
    ("optax.lbfgs", "optax.lbfgs cannot be measured: TypeError: "),
]


@pytest.mark.parametrize("name, message", BAD, ids=lambda x: x.split()[0])
def test_explain_rejects_unknown_names(name, message):
    with pytest.raises(OptionError) as error:
        explain_optimizers(["sgd", name])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_explain_rejects_empty_names_and_rates():
    with pytest.raises(OptionError, match="name at least one optimizer: sgd, "):
        explain_optimizers([])
    for rate in (0.0, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="--learning-rate is .*, but must be a fin"):
            explain_optimizers(["sgd"], learning_rate=rate)


def test_names_are_checked_before_measuring(monkeypatch):
    monkeypatch.setattr("lstm_optax.response.explain", lambda *_, **__: 1 / 0)
    with pytest.raises(OptionError, match="unknown"):
        explain_optimizers(["sgd", "presets.torch.NAdm"])
