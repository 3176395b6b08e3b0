"""Each rule of `advise` finds what it is for in synthetic records, and nothing in healthy ones."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lstm_optax import TrainConfig
from lstm_optax.gates import GATES
from lstm_optax.runs._advise import RULES
from lstm_optax.runs.advice import gate_rules, loss_rules, nonfinite_rules, step_rules
from lstm_optax.runs.advice.facts import RunFacts
from lstm_optax.runs.advice.finding import CONFIDENCES
from lstm_optax.runs.advice.late_clip import LateClip

COUNT, EVERY, WINDOW = 20, 50, 64
STEPS = COUNT * EVERY
NAN = float("nan")
GATE = {"grad_norm": 0.01, "saturated_low": 0.2, "saturated_high": 0.4}
MATRICES = ("embedding", "kernel_ih", "kernel_hh")


def healthy(**columns: Any) -> RunFacts:
    """Return the facts of a run that no rule comments on, with some columns replaced."""
    steps = EVERY * np.arange(1, COUNT + 1)
    table = {
        "step": steps,
        "train_loss": 1.3 + np.exp(-steps / 100),
        "val_loss": 1.4 + np.exp(-steps / 100),
        "grad_norm": np.full(COUNT, 0.2),
        "clipped": np.full(COUNT, 0.05),
        "averaging": [False] * COUNT,
        "learning_rate": np.linspace(0.016, 0, COUNT),
    }
    table |= {f"layer0.{g}.{k}": [v] * COUNT for g in GATES for k, v in GATE.items()} | columns
    records = [{name: values[i] for name, values in table.items()} for i in range(COUNT)]
    reach = 0.9 ** np.arange(WINDOW)[::-1]
    rows = [
        {"step": step, "reach": [reach.tolist()], "update_ratio": dict.fromkeys(MATRICES, 1e-3)}
        for step in steps.tolist()
    ]
    config = TrainConfig(steps=STEPS, eval_every=EVERY, window=WINDOW)
    return RunFacts(config, records, rows, {"b1": 0.9, "b2": 0.999})


def with_gradients(name: str, value: Any) -> RunFacts:
    facts = healthy()
    return replace(facts, gradients=[row | {name: value} for row in facts.gradients])


def curve(*parts: tuple[int, float]) -> np.ndarray:
    """Return a curve of `COUNT` values: each value is repeated, the last one to the end."""
    values = [value for count, value in parts for _ in range(count)]
    return np.array(values + values[-1:] * (COUNT - len(values)))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_healthy_run_has_no_findings(rule):
    assert rule(healthy()) is None


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_missing_records_have_no_findings(rule):
    """A record of a run that diverged at once has only null values."""
    config = TrainConfig(steps=STEPS)
    for record in ({}, {"val_loss": None, "train_loss": NAN, "clipped": None, "grad_norm": None}):
        assert rule(RunFacts(config, [{"step": STEPS, "seconds": 1.0} | record])) is None


SHOWN = {  # rule: facts that show it, a number of the finding, and its confidence
    "nonfinite-steps": (
        nonfinite_rules.nonfinite_steps,
        healthy(skipped=curve((5, 0), (1, 20), (1, 0)), rewinds=np.zeros(COUNT)),
        ("share", 0.02),
        "medium",
        "--learning-rate 0.0053, a smaller --clip, or --clip-gates 10",
    ),
    "clip-every-step": (
        step_rules.clip_in_every_step,
        healthy(clipped=np.full(COUNT, 0.95)),
        ("share", 0.95),
        "medium",
        "--clip 0.4, twice the usual norm",
    ),
    "update-size": (
        step_rules.update_size,
        with_gradients("update_ratio", {"embedding": 1e-3, "kernel_hh": 0.3, "kernel_ih": 0.2}),
        ("ratio", 0.3),
        "medium",
        "the run, 0.016, and 5e-05, at which",
    ),
    "late-clip": (
        step_rules.late_clip,
        replace(healthy(), late_clip=LateClip("−1,000", 4197, 9999, bounded=True)),
        ("disturbed", 4197),
        "high",
        "clip_by_global_norm(1.0), optimizer",
    ),
    "loss-spikes": (
        loss_rules.loss_spikes,
        healthy(
            train_loss=curve((10, 2.0), (1, 2.4), (1, 2.0)),
            grad_norm=curve((9, 0.2), (1, 1), (1, 0.2)),
        ),
        ("rise", 1.2),
        "low",
        "clip_by_norm_quantile",
    ),
    "overfitting": (
        loss_rules.overfitting,
        healthy(val_loss=curve((7, 2.0), (1, 1.5), (1, 1.6)), train_loss=np.linspace(2, 1, COUNT)),
        ("step", 8 * EVERY),
        "high",
        "--dropout 0.3",
    ),
    "still-falling": (
        loss_rules.still_falling,
        healthy(val_loss=np.linspace(3, 1, COUNT)),
        ("fall", 1 - 1 / (3 - 2 * 15 / 19)),
        "medium",
        f"--steps {2 * STEPS}",
    ),
    "idle-average": (
        loss_rules.idle_average,
        replace(healthy(), hyper_parameters={"nonmonotone": 5}),
        ("needed", 7),
        "high",
        "more --steps",
    ),
    "vanishing-gradient": (
        gate_rules.vanishing_gradient,
        with_gradients("reach", [(0.5 ** np.arange(WINDOW)[::-1]).tolist()] * 2),
        ("reach", 13),  # 0.5¹³ = 1.2e-4 ≥ 1e-4 > 0.5¹⁴
        "medium",
        "init_chrono(params, key, max_time=64)",
    ),
    "forget-gate-shut": (
        gate_rules.forget_gate_shut,
        healthy(**{"layer0.forget.saturated_low": curve((10, 0.0), (1, 0.75))}),
        ("share", 0.75),
        "medium",
        "forget_bias=2",
    ),
    "gate-without-gradient": (
        gate_rules.gate_without_gradient,
        healthy(**{"layer0.output.grad_norm": np.zeros(COUNT)}),
        ("ratio", 0.0),
        "high",
        "--clip-gates 10",
    ),
    "cold-moments": (
        step_rules.cold_moments,
        replace(healthy(), hyper_parameters={"betas.0": 0.9, "betas.1": 0.9999}),
        ("weight", 1 - 0.9999**STEPS),
        "low",
        "--set betas.1=0.99",
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_rule_finds_what_it_is_for(name):
    rule, facts, (number, value), confidence, remedy = SHOWN[name]
    finding = rule(facts)
    assert finding is not None and finding.rule == name
    assert finding.numbers[number] == pytest.approx(value)
    assert finding.confidence == confidence and remedy in finding.remedy
    assert finding.threshold and finding.source and finding.message.endswith(".")
    assert "{" not in finding.message + finding.remedy + finding.threshold


def test_one_rewind_is_found():
    finding = nonfinite_rules.nonfinite_steps(healthy(rewinds=curve((5, 0), (1, 1), (1, 0))))
    assert finding is not None and finding.confidence == "high" and finding.numbers["rewinds"] == 1


def test_every_rule_is_shown():
    assert {rule for rule, *_ in SHOWN.values()} == set(RULES)
    assert {confidence for *_, confidence, _ in SHOWN.values()} == set(CONFIDENCES)


NOT_SHOWN = {  # records that are close to those that show a rule
    "few steps are skipped": (
        nonfinite_rules.nonfinite_steps,
        healthy(skipped=curve((5, 0), (1, 9), (1, 0)), overflows=np.full(COUNT, 9)),
    ),
    "some steps are clipped": (
        step_rules.clip_in_every_step,
        healthy(clipped=curve((10, 1.0), (1, 0.75))),
    ),
    "a cosine ends with small updates": (
        step_rules.update_size,
        replace(
            healthy(),
            gradients=[
                row | {"update_ratio": {"kernel_hh": 1e-3 if row["step"] <= 0.4 * STEPS else 0.0}}
                for row in healthy().gradients
            ],
        ),
    ),
    "a spike is clipped": (
        step_rules.late_clip,
        replace(healthy(), late_clip=LateClip("")),
    ),
    "a jump without a large gradient": (
        loss_rules.loss_spikes,
        healthy(train_loss=curve((10, 2.0), (1, 2.4), (1, 2.0))),
    ),
    "a large gradient without a jump": (
        loss_rules.loss_spikes,
        healthy(grad_norm=curve((9, 0.2), (1, 1), (1, 0.2))),
    ),
    "the training loss rises too": (
        loss_rules.overfitting,
        healthy(val_loss=curve((8, 1.5), (1, 1.6)), train_loss=curve((8, 1.5), (1, 1.7))),
    ),
    "one noisy evaluation at the end": (
        loss_rules.overfitting,
        healthy(val_loss=curve((19, 1.5), (1, 1.6)), train_loss=np.linspace(2, 1, COUNT)),
    ),
    "an interrupted run": (
        loss_rules.still_falling,
        replace(healthy(val_loss=np.linspace(3, 1, COUNT)), config=TrainConfig(steps=2 * STEPS)),
    ),
    "a minimum before the end": (
        loss_rules.still_falling,
        healthy(val_loss=curve((17, 3.0), (1, 1.0), (1, 1.5))),
    ),
    "the average has started": (
        loss_rules.idle_average,
        replace(healthy(averaging=[False] * 19 + [True]), hyper_parameters={"nonmonotone": 5}),
    ),
    "one of two layers reaches back": (
        gate_rules.vanishing_gradient,
        with_gradients("reach", [(r ** np.arange(WINDOW)[::-1]).tolist() for r in (0.5, 0.9)]),
    ),
    "a gradient that is not finite": (
        gate_rules.vanishing_gradient,
        with_gradients("reach", [[None, *(0.5 ** np.arange(WINDOW - 1)[::-1])]]),
    ),
    "a gate that was shut at first": (
        gate_rules.forget_gate_shut,
        healthy(**{"layer0.forget.saturated_low": curve((10, 1.0), (1, 0.3))}),
    ),
    "all gates have no gradient": (
        gate_rules.gate_without_gradient,
        healthy(**{f"layer0.{gate}.grad_norm": np.zeros(COUNT) for gate in GATES}),
    ),
    "a moment that has warmed up": (
        step_rules.cold_moments,
        replace(healthy(), hyper_parameters={"decay": 0.999, "eps": 1e-8, "alpha": 5.0}),
    ),
}


@pytest.mark.parametrize("case", NOT_SHOWN)
def test_rule_is_silent_nearby(case):
    rule, facts = NOT_SHOWN[case]
    assert rule(facts) is None


def test_small_updates_ask_for_larger_rate():
    for ratio, rate in ((2e-6, "8"), (0.0, "2e+02")):
        finding = step_rules.update_size(with_gradients("update_ratio", {"kernel_hh": ratio}))
        assert finding and "too small" in finding.message
        assert f"between that of the run, 0.016, and {rate}, at which" in finding.remedy


def test_null_ratios_are_left_out():
    """A matrix that starts at 0 has no ratio."""
    ratios = {"kernel_hh": None, "kernel_ih": 1e-3}
    assert step_rules.update_size(with_gradients("update_ratio", ratios)) is None


def test_missing_clip_is_less_certain():
    found = step_rules.late_clip(replace(healthy(), late_clip=LateClip("1,000", 98, 9999)))
    assert found and found.confidence == "medium" and found.message.startswith("No clip acts")


def test_two_spikes_are_more_certain():
    losses, norms = np.full(COUNT, 2.0), np.full(COUNT, 0.2)
    losses[[6, 12]], norms[[6, 12]] = 2.4, 1.0
    finding = loss_rules.loss_spikes(healthy(train_loss=losses, grad_norm=norms))
    assert finding and finding.confidence == "medium" and "the first of 2" in finding.message


def test_common_large_gradients_are_no_spikes():
    losses, norms = np.full(COUNT, 2.0), np.full(COUNT, 0.2)
    losses[6], norms[4:9] = 2.4, 1.0
    assert loss_rules.loss_spikes(healthy(train_loss=losses, grad_norm=norms)) is None


def test_few_evaluations_cannot_trigger():
    facts = replace(healthy(), hyper_parameters={"nonmonotone": 30})
    finding = loss_rules.idle_average(facts)
    assert finding and "needs 32 evaluations, and the run has 20" in finding.message
    assert finding.remedy == f"--eval-every {STEPS // 128}, or more --steps"


def test_constant_schedule_is_extended():
    config = TrainConfig(steps=STEPS, schedule="constant")
    facts = replace(healthy(val_loss=np.linspace(3, 1, COUNT)), config=config)
    finding = loss_rules.still_falling(facts)
    assert finding and finding.confidence == "high"
    assert finding.remedy == f"--resume --steps {2 * STEPS}"
