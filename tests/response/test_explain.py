"""`explain` reproduces the known responses of known rules."""

from functools import cache

import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import lstm_optax as lo
from lstm_optax import explain, presets
from lstm_optax.response import Response, ScaleRange

CASES = {
    "sgd": lo.sgd,
    "momentum": lo.momentum_sgd,
    "momentum .99": lambda rate: lo.momentum_sgd(rate, momentum=0.99),
    "torch momentum": lambda rate: presets.torch.SGD(rate, momentum=0.9),
    "keras momentum": lambda rate: presets.keras.SGD(rate, momentum=0.9),
    "corrected momentum": lambda rate: optax.chain(
        lo.scale_by_learning_rate(rate), lo.corrected_momentum(0.9, rate)
    ),
    "torch ASGD": presets.torch.ASGD,
    "nadam": lo.nadam,
    "torch NAdam": presets.torch.NAdam,
    "keras Nadam": presets.keras.Nadam,
    "optax nadam": optax.nadam,
    "rmsprop": lo.rmsprop,
    "keras Adam": presets.keras.Adam,
    "lion": optax.lion,
    "adagrad": optax.adagrad,
    "adafactor": optax.adafactor,
    "muon": optax.contrib.muon,
    "adam": lo.adam,
    "adam, clip": lambda rate: optax.chain(lo.adam(rate), optax.clip_by_global_norm(1.0)),
    "clip, adam": lambda rate: optax.chain(optax.clip_by_global_norm(1.0), lo.adam(rate)),
    "clip, momentum": lambda rate: optax.chain(
        optax.clip_by_global_norm(1.0), lo.momentum_sgd(rate)
    ),
    "momentum, clip": lambda rate: optax.chain(lo.momentum_sgd(rate), optax.clip(50e-3)),
}
LATE_CLIP = "Clipping the steps comes too late"


@cache
def response_of(name: str) -> Response:
    return explain(CASES[name], name=name)


def notes_with(response: Response, words: str) -> list[str]:
    return [note for note in response.notes if words in note]


# Constant gradient and impulse


@pytest.mark.parametrize(
    "name, steps",
    [
        ("nadam", [1.900, 1.426, 1.269, 1.054]),
        ("torch NAdam", [1.056, 0.784, 0.732, 0.843]),
        ("keras Nadam", [1.063, 0.774, 0.711, 0.800]),
        ("optax nadam", [1.474, 1.157, 1.078, 1.008]),
    ],
)
def test_nadam_variants_have_different_steps(name, steps):
    np.testing.assert_allclose(response_of(name).constant[[0, 1, 2, 9]], steps, atol=6e-4)
    assert response_of(name).steady_gain == pytest.approx(1, abs=1e-3) and response_of(name).settled


def test_sgd_returns_its_input():
    sgd = response_of("sgd")
    np.testing.assert_allclose(sgd.constant, np.ones(20_000), rtol=1e-6)
    np.testing.assert_allclose(sgd.impulse, np.eye(1, 100)[0], rtol=1e-6)
    assert (sgd.name, sgd.learning_rate, sgd.pull) == ("sgd", 1e-3, 0)
    assert sgd.state_bytes < 1e-5  # only the rate, whatever the size of the parameters
    assert sgd.notes == ()


def test_momentum_impulse_response_decays():
    momentum = response_of("momentum")
    decay = 0.9 ** np.arange(100)
    np.testing.assert_allclose(momentum.impulse, decay, rtol=1e-4)
    np.testing.assert_allclose(momentum.constant[:100], np.cumsum(decay), rtol=1e-5)
    assert momentum.steady_gain == pytest.approx(10, rel=1e-5) and momentum.notes == ()


def test_rmsprop_starts_large():
    assert response_of("rmsprop").constant[0] == pytest.approx(10**0.5, rel=1e-4)


def test_unsettled_steps_are_noted():
    adagrad = response_of("adagrad")
    expected = 1 / np.sqrt(0.1 + np.arange(1, 20_001))
    np.testing.assert_allclose(adagrad.constant, expected, rtol=1e-3)
    (note,) = notes_with(adagrad, "have not settled")
    assert not adagrad.settled and "10,000 are between 0.007071 and 0.009999" in note


def test_link_without_rate_is_noted_uphill():
    link = explain(lo.momentum(0.9))
    assert (link.name, link.learning_rate) == ("transformation", None)
    assert link.constant[0] == -1 and link.steady_gain == pytest.approx(-10, rel=1e-5)
    assert notes_with(link, "up the gradient")
    assert notes_with(explain(optax.scale_by_rprop(1e-3)), "up the gradient")  # its first step is 0


@pytest.mark.parametrize(
    "tx, rate, step",
    [(lo.sgd, 7.0, 1.0), (lo.sgd(0.5), None, 0.5), (lo.sgd(0.5), 0.5, 1.0)],
    ids=["made with it", "unscaled", "in units of it"],
)
def test_steps_are_in_learning_rates(tx, rate, step):
    measured = explain(tx, learning_rate=rate)
    assert measured.learning_rate == rate
    np.testing.assert_allclose([measured.constant[0], measured.scale.outputs[24]], step, rtol=1e-6)


def test_nonfinite_steps_are_reported():
    broken = explain(optax.stateless(lambda g, _: jnp.where(abs(g) < 1e6, -g / 0, -g)))
    assert np.isposinf(broken.constant).all()
    assert np.isnan(broken.pull) and np.isnan(broken.spike.at_spike)
    assert [r.kind for r in broken.scale.ranges] == ["not finite", "proportional"]
    assert broken.notes[0].startswith("Some steps are not finite: under a constant gradient, an ")
    assert not broken.settled and not notes_with(broken, "have not settled")


def test_double_precision_gives_same_response(x64):
    measured = explain(lo.nadam)
    np.testing.assert_allclose(
        measured.constant[:100], response_of("nadam").constant[:100], rtol=1e-5
    )


# The learning rate


@pytest.mark.parametrize(
    "name, next_step, settled_after",
    [
        ("torch momentum", 0.1, 1),
        ("keras momentum", 0.91, 43),
        ("momentum .99", 0.991, 448),
        ("corrected momentum", 0.1, 1),
        ("torch ASGD", 1.0, 2),
        ("adagrad", 0.1, 1),
        ("nadam", 0.1, 1),
    ],
)
def test_rate_response_of_known_rules(name, next_step, settled_after):
    rate = response_of(name).rate
    assert rate is not None
    assert rate.next_step == rate.relative[0] == pytest.approx(next_step, rel=1e-4)
    assert rate.settled_after == settled_after


def test_rate_inside_velocity_fades_in():
    rate = response_of("keras momentum").rate
    assert rate is not None
    expected = 0.1 + 0.9 * 0.9 ** np.arange(1, 2001)
    np.testing.assert_allclose(rate.relative, expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["learning_rate", "lr"])
def test_injected_rate_is_cut(name):
    make = optax.sgd if name == "learning_rate" else presets.torch.SGD
    chain = optax.chain(
        optax.clip(10.0), optax.inject_hyperparams(make)(**{name: 50.0}, momentum=0.9)
    )
    measured = explain(chain)
    rate = measured.rate
    assert rate is not None and (rate.next_step, rate.settled_after) == (pytest.approx(0.1), 1)
    assert measured.spike.state_growth == pytest.approx(1.9, rel=1e-4)  # the rate is not counted
    assert len(measured.dtypes[3].state) == 1  # nor is its dtype


@pytest.mark.parametrize(
    "tx, why",
    [
        (optax.adam(1e-3), "no constant learning_rate from optax.inject_hyperparams"),
        (optax.inject_hyperparams(optax.sgd)(lambda t: 0.1), "no constant learning_rate"),
        (
            lambda rate: optax.sgd(1 * rate),
            "does not accept a schedule (TypeError: unsupported",
        ),
    ],
    ids=["made with a number", "injected schedule", "no schedule"],
)
def test_unmeasurable_rate_is_noted(tx, why):
    measured = explain(tx)
    assert measured.rate is None and len(notes_with(measured, why)) == 1


# The spike


def test_sgd_passes_spike():
    spike = response_of("sgd").spike
    assert spike.at_spike == pytest.approx(1000) and not spike.bounded
    assert (spike.disturbed, spike.recovered_after, np.isnan(spike.state_growth)) == (0, 0, True)
    np.testing.assert_allclose(spike.relative[1:], 1)


def test_momentum_spike_fades():
    spike = response_of("momentum").spike
    expected = 1 + 99.9 * 0.9 ** np.arange(10_000)
    np.testing.assert_allclose(spike.relative, expected, rtol=1e-4)
    assert (spike.disturbed, spike.recovered_after, spike.bounded) == (43, 65, False)
    assert spike.state_growth == pytest.approx(100.9, rel=1e-4)


def test_adam_spike_stays_in_state():
    spike = response_of("adam").spike
    t = np.arange(10_000)
    expected = (1 + 99.9 * 0.9**t) / np.sqrt(1 + 999.999 * 0.999**t)
    np.testing.assert_allclose(spike.relative, expected, rtol=2e-3)
    assert spike.at_spike == pytest.approx(100.9 / 1000.999**0.5, rel=1e-3)
    assert spike.smallest_after == pytest.approx(expected[1:].min(), rel=1e-3)
    assert spike.largest_after == pytest.approx(expected[1], rel=1e-3)
    assert spike.disturbed == pytest.approx(np.sum((expected < 0.5) | (expected > 2)) - 1, abs=9)
    assert spike.recovered_after == pytest.approx(np.max(t[expected < 0.9]), abs=20)
    assert spike.state_growth == pytest.approx(1001, rel=1e-3)


def test_adagrad_never_recovers_from_spike():
    assert response_of("adagrad").spike.recovered_after is None


@pytest.mark.parametrize(
    "name", ["adam", "adam, clip", "nadam", "rmsprop", "adagrad", "momentum, clip", "lion", "muon"]
)
def test_late_clip_is_noted(name):
    spikes = (response_of(name).spike, response_of(name).counter_spike)
    spike = max(spikes, key=lambda s: s.disturbed if s.bounded else 0)
    (note,) = notes_with(response_of(name), LATE_CLIP)
    assert f"{spike.disturbed:,} of the next 9,999 steps" in note
    assert ("down to" in note) == (spike.smallest_after < 0.5)
    assert ("up to" in note) == (spike.largest_after > 2)


@pytest.mark.parametrize(
    "name", ["sgd", "momentum", "momentum .99", "clip, adam", "clip, momentum"]
)
def test_no_late_clip_note_without_need(name):
    assert not notes_with(response_of(name), LATE_CLIP)


@pytest.mark.parametrize("name, steps", [("lion", 219), ("muon", 75)])
def test_sign_rules_respond_to_opposite_spike(name, steps):
    same, against = response_of(name).spike, response_of(name).counter_spike
    assert (same.disturbed, against.disturbed) == (0, pytest.approx(steps, abs=3))
    assert against.smallest_after == pytest.approx(-1, rel=1e-3)
    np.testing.assert_allclose(against.relative[: steps - 5], -1, rtol=1e-3)


def test_opposite_spike_reverses_momentum():
    spike = response_of("momentum").counter_spike
    np.testing.assert_allclose(spike.relative, 1 - 100.1 * 0.9 ** np.arange(10_000), rtol=2e-4)
    assert not spike.bounded


def test_zero_steps_are_no_disturbance():
    """Zero steps from gradient accumulation, and from a schedule that has ended."""
    several = explain(optax.MultiSteps(lo.sgd(1.0), 4).gradient_transformation())
    assert several.spike.disturbed == 1 and several.spike.relative.max() == pytest.approx(250.75)
    assert notes_with(several, "7,500 of the last 10,000 steps are 0")
    ended = explain(lo.adam(optax.cosine_decay_schedule(0.1, 1000)))
    assert ended.spike.disturbed == 0 and ended.spike.recovered_after == 0
    assert notes_with(ended, "10,000 of the last 10,000 steps are 0")


def test_oscillating_steps_have_not_settled():
    rate = lambda count: 1 + 0.5 * jnp.sin(2 * jnp.pi * count / 1000)  # noqa: E731
    swinging = explain(lo.sgd(rate))
    assert not swinging.settled and notes_with(swinging, "are between 0.5 and 1.5")


def test_dependence_on_parameter_is_noted():
    chain = explain(optax.chain(optax.adaptive_grad_clip(0.01), lo.sgd(1.0)))
    assert chain.at_one == pytest.approx(0.01) and notes_with(chain, "and 0.01 at 1. All other")
    decayed = explain(lo.nadamw(0.1, weight_decay=0.5), learning_rate=0.1)
    assert decayed.at_one == pytest.approx(2.4, rel=1e-4)  # which includes its pull
    assert not notes_with(decayed, "depends on the parameter")


def test_clip_before_adam_stops_spike():
    spike = response_of("clip, adam").spike
    np.testing.assert_allclose(spike.relative, 1, rtol=1e-4)
    assert spike.state_growth == pytest.approx(1, rel=1e-4)


# The size of the gradient


def test_sgd_is_proportional_everywhere():
    scale = response_of("sgd").scale
    np.testing.assert_allclose(scale.outputs, scale.inputs, rtol=1e-5)
    np.testing.assert_allclose(scale.slopes, 1, atol=1e-4)
    assert scale.ranges == (ScaleRange("proportional", 1e-12, 1e12),) and np.isnan(scale.knee)


@pytest.mark.parametrize("limit", [2.5e-6, 2.5, 7e5])
@pytest.mark.parametrize("clip", [optax.clip, optax.clip_by_global_norm])
def test_clip_threshold_is_the_knee(clip, limit):
    scale = explain(optax.chain(clip(limit), lo.sgd(1e-3))).scale
    assert [r.kind for r in scale.ranges] == ["proportional", "between", "flat"]
    assert scale.ranges[0].high < limit < scale.ranges[2].low < 10 * scale.ranges[0].high
    assert scale.knee == pytest.approx(limit, rel=1e-5)


@pytest.mark.parametrize("name, knee", [("adam", 1e-8), ("keras Adam", 1e-7 / 0.001**0.5)])
def test_epsilon_is_the_knee(name, knee):
    scale = response_of(name).scale
    assert scale.knee == pytest.approx(knee, rel=2e-4)
    first, _, last = scale.ranges
    assert (first.kind, first.low, last.kind, last.high) == ("proportional", 1e-12, "flat", 1e12)


def test_sign_rule_is_flat():
    assert response_of("lion").scale.ranges == (ScaleRange("flat", 1e-12, 1e12),)


def test_zero_steps_are_one_range():
    dead = explain(optax.set_to_zero())
    assert dead.scale.ranges == (ScaleRange("zero", 1e-12, 1e12),)
    assert (dead.spike.at_spike, dead.spike.recovered_after) == (1, 0)
    assert dead.settled and len(dead.notes) == 2  # one on the zero steps, one on the rate


# The state


@pytest.mark.parametrize(
    "name, size", [("sgd", 0), ("momentum", 4), ("adam", 8), ("rmsprop", 4), ("muon", 4)]
)
def test_state_bytes_of_known_rules(name, size):
    assert response_of(name).state_bytes == pytest.approx(size, abs=1e-3)


def test_factored_moments_are_small():
    assert 0.005 < response_of("adafactor").state_bytes < 0.01


def test_stable_dtypes_are_reported():
    mixes = [
        (d.parameter, d.gradient, d.update, d.state, d.changes) for d in response_of("nadam").dtypes
    ]
    f32, bf16 = "float32", "bfloat16"
    assert mixes == [
        (f32, f32, f32, (f32,), False),
        (f32, bf16, bf16, (f32,), False),
        (bf16, f32, f32, (f32,), False),
        (bf16, bf16, bf16, (f32,), False),
    ]
    assert not notes_with(response_of("nadam"), "dtype")


def test_changed_dtypes_are_noted():
    trace = explain(optax.trace(0.9))
    assert [d.changes for d in trace.dtypes] == [False, False, True, False]
    mix = trace.dtypes[2]
    assert (mix.state, mix.state_after) == (("bfloat16",), ("float32",))
    (note,) = notes_with(trace, "changes the dtype")
    assert "for bfloat16 parameters with float32 gradients: " in note


def test_rejected_dtype_mix_shows_error():
    def update(updates, state, params=None):
        if updates.dtype != jnp.float32:
            raise NotImplementedError
        return updates, state

    picky = explain(optax.GradientTransformation(lambda _: (), update))
    assert [d.update for d in picky.dtypes] == ["float32", "NotImplementedError"] * 2


@pytest.mark.parametrize(
    "tx, pull",
    [
        (lambda rate: lo.nadamw(rate, weight_decay=0.25), 0.25),
        (lambda rate: presets.torch.SGD(rate, weight_decay=0.5), 0.5),
        (lambda rate: presets.torch.Adam(rate, weight_decay=0.5), 1.0),
    ],
    ids=["decoupled", "of the gradient", "normalised"],
)
def test_weight_decay_is_the_pull(tx, pull):
    measured = explain(tx)
    assert measured.pull == pytest.approx(pull, rel=1e-4)
    assert measured.constant[0] == explain(tx).constant[0]


# Errors


def changing(state_dtype):
    """Return a rule whose state has `state_dtype` after the first update, and float32 before."""
    return optax.GradientTransformation(
        lambda params: jnp.zeros((), jnp.float32),
        lambda updates, state, params=None: (updates, state.astype(state_dtype)),
    )


@pytest.mark.parametrize(
    "tx, message",
    [
        (optax.polyak_sgd(), r"transformation cannot be measured: TypeError: .*'value' \(tried in"),
        (optax.polyak_sgd, r"polyak_sgd cannot .*'value' \(tried polyak_sgd\(0.001\), then init"),
        (changing(jnp.int32), r"cannot be measured: TypeError: .* \(tried init\(params\) and upd"),
        (lambda rate: 3, r"<lambda> cannot be measured: AttributeError: .*pass a transformation"),
        (3, r"expected a transformation, or a function .* learning rate, but got 3"),
    ],
    ids=["needs a loss", "so does this", "changes its state", "makes none", "is none"],
)
def test_explain_rejects_unmeasurable_transformation(tx, message):
    with pytest.raises(ValueError, match=message) as error:
        explain(tx)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rate", [0, -1, np.inf, np.nan])
def test_explain_rejects_invalid_rate(rate):
    with pytest.raises(ValueError, match="must be above 0 and finite"):
        explain(lo.sgd, learning_rate=rate)
