"""Rules that need an LSTM are measured at one entry of an LSTM."""

from functools import partial

import numpy as np
import optax
import pytest

import lstm_optax as lo
from lstm_optax import explain, presets
from lstm_optax.commands.main import main
from lstm_optax.gates._find_gates import LAYOUTS
from lstm_optax.response.measured_params import CANDIDATES, MATRIX
from lstm_optax.runs.explain_by_name import explain_optimizers
from lstm_optax.transforms.muon import muon_direction

PRESETS = [
    f"presets.{source}.{name}"
    for source in ("algoperf", "dozat", "graves", "hinton", "keras", "sutskever", "tf1", "torch")
    for name in getattr(presets, source).__all__
    if name not in ("clip_gradients", "eval_params", "momentum_schedule", "MomentumOptimizer")
]  # all that need a learning rate and nothing else


def assert_close(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


def assert_finite(response: lo.response.Response):
    for values in (response.constant, response.impulse, response.scale.outputs):
        assert np.isfinite(values).all()
    for spike in (response.spike, response.counter_spike):
        assert np.isfinite([spike.at_spike, spike.smallest_after, spike.largest_after]).all()
    assert np.isfinite([response.at_one, response.pull, response.state_bytes]).all()
    assert response.constant[0] > 0 and response.rate is not None
    assert not any("Error" in mix.update for mix in response.dtypes)


def test_command_explains_gate_muon(capsys):
    assert main(["explain", "gate_muon"]) == 0
    out = capsys.readouterr().out
    assert "gate_muon: Measured on an LSTM of one unit" in out
    assert "bytes per parameter" in out and "nan" not in out


def test_gate_muon_equals_muon_on_gate():
    ours = explain(lo.gate_muon)
    alone = explain(
        lambda rate: optax.chain(muon_direction(0.95, 0.2), lo.scale_by_learning_rate(rate))
    )
    assert_close(ours.constant, alone.constant)
    assert_close(ours.impulse, alone.impulse)
    assert_close(ours.scale.outputs, alone.scale.outputs)
    assert ours.state_bytes == pytest.approx(4, abs=0.01)
    assert ours.dtypes == alone.dtypes


@pytest.mark.slow
@pytest.mark.parametrize("layout", [None, *LAYOUTS])
def test_by_gate_equals_its_rule(layout):
    """For the parameter names of every library."""
    find = partial(lo.find_gates, layout=layout)
    ours, alone = explain(lambda rate: lo.by_gate(lo.nadam(rate), gates=find)), explain(lo.nadam)
    assert_close(ours.constant, alone.constant)
    assert_close(ours.spike.relative, alone.spike.relative)
    assert_close(ours.scale.outputs, alone.scale.outputs)
    assert ours.state_bytes == pytest.approx(8, abs=0.01)
    assert "Measured on an LSTM" in ours.notes[-1] and "Measured on" not in alone.notes[-1]


@pytest.mark.slow
@pytest.mark.parametrize("clip", [lambda: lo.by_gate(lo.clip_by_global_norm(2.5)), None])
def test_gradient_norm_is_measured_entry(clip):
    """The threshold of a clip is measured, for a clip by gate and for a global one."""
    link = clip() if clip else lo.clip_by_global_norm(2.5)
    measured = explain(lambda rate: optax.chain(link, lo.by_gate(lo.sgd(rate))))
    assert measured.scale.knee == pytest.approx(2.5, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "tx",
    [
        lo.by_gate({"forget": lo.clip_by_global_norm(1.0)}, others=lo.nadam(1.0)),
        lo.guard(optax.chain(lo.clip_by_global_norm(1.0), lo.gate_muon(1.0))),
        lo.polyak_average(lo.gate_muon(1.0)),
        optax.MultiSteps(lo.gate_muon(1.0), 2).gradient_transformation(),
    ],
)
def test_chain_with_gate_rules_is_measured(tx):
    measured = explain(tx)
    assert np.isfinite(measured.constant).all() and measured.constant.max() > 0


@pytest.mark.slow
def test_command_explains_all_optimizers(capsys):
    assert main(["explain", *lo.OPTIMIZERS]) == 0
    assert "gate_muon" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", [*lo.OPTIMIZERS, *PRESETS])
def test_every_optimizer_is_explained(name):
    (response,) = explain_optimizers([name])
    assert_finite(response)


def test_rejected_candidates_raise_first_error():
    def init(params):
        raise ValueError(f"no {params}")

    tx = optax.GradientTransformation(init, lambda updates, state, params=None: (updates, state))
    with pytest.raises(ValueError, match=r"cannot be measured: ValueError: no \[\[0.\]\] "):
        explain(tx)


def test_candidates_cover_every_layout():
    for params in CANDIDATES:
        gradient = params.gradient(3.0)
        assert lo.global_norm(gradient) == params.entry(gradient) == 3
        if params is not MATRIX:
            blocks = lo.find_gates(gradient).blocks
            assert {(block.kind, block.gate) for block in blocks} == {
                (kind, gate) for kind in lo.gates.KINDS for gate in lo.gates.GATES
            }
    found = 0
    for layout in LAYOUTS:
        for params in CANDIDATES[1:]:
            try:
                found += bool(lo.find_gates(params.full(0.0), layout=layout).blocks)
            except ValueError:
                continue
    assert found == len(LAYOUTS) == len(CANDIDATES) - 1
