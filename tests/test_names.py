"""Names of optimizers and their default learning rates."""

import math

import pytest

from lstm_optax.names import OPTIMIZER_TABLE, default_rates

OTHERS = {
    "presets.torch.NAdam": 1e-2,
    "presets.keras.Nadam": 1e-2,
    "presets.dozat.nadam_2016": 1e-2,
    "presets.algoperf.nadamw": 1e-2,
    "presets.graves.rmsprop": 1e-2,
    "presets.torch.SGD": 3.0,
    "presets.torch.ASGD": 3.0,
    "optax.sgd": 3.0,
    "optax.optimistic_gradient_descent": 3.0,
    "presets.tf1.MomentumOptimizer": 1.0,
    "presets.sutskever.nesterov_momentum": 1.0,
    "optax.sign_sgd": 3e-3,
    "optax.signum": 3e-3,
    "optax.contrib.schedule_free_sgd": 3.0,
}


@pytest.mark.parametrize("name", [*(info.name for info in OPTIMIZER_TABLE), *OTHERS])
def test_default_rates_are_half_decades(name):
    rates = default_rates(name)
    assert len(rates) == 5
    for rate, following in zip(rates, (*rates[1:], None), strict=True):
        exponent = math.floor(math.log10(rate) + 1e-9)
        first = rate / 10.0**exponent
        assert first == pytest.approx(1) or first == pytest.approx(3)
        if following:
            assert following / rate == pytest.approx(3 if first < 2 else 10 / 3)


def test_table_rates_come_first():
    """`momentum` in a name of the table does not decide."""
    assert default_rates("rmsprop_momentum") == (3e-3, 1e-2, 3e-2, 0.1, 0.3)
    for info in OPTIMIZER_TABLE:
        assert default_rates(info.name) is info.rates


@pytest.mark.parametrize("name, middle", OTHERS.items())
def test_default_rates_by_kind(name, middle):
    assert default_rates(name)[2] == middle
