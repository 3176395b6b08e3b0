"""Which share of the variance of results each hyper-parameter explains, by functional ANOVA."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optax

from lstm_optax.optimizers import nesterov_sgd
from lstm_optax.reproductions.plan import Group, Options, Plan
from lstm_optax.reproductions.published import Reproduction
from lstm_optax.studies.optuna_study import quiet_optuna
from lstm_optax.studies.study_records import StudyRecords, TrialRecords
from lstm_optax.studies.trial import REPORT, Trial
from lstm_optax.tasks import Task, digits

SETTINGS, STEPS, BATCH = 100, 600, 32
"""Random settings of each search, and the length of their trials."""

HIDDEN = (20, 36, 63, 112, 200)
"""Sizes of the layer, from 20 to 200 on a log scale; each is compiled once."""

RATES = (1e-3, 10.0)
LARGEST_MOMENTUM = 0.99

SCALES: dict[str, tuple[str, Callable[[float], float], tuple[float, float]]] = {
    "learning rate": ("learning_rate", math.log10, (-3.0, 1.0)),
    "hidden size": ("hidden", math.log10, (math.log10(HIDDEN[0]), math.log10(HIDDEN[-1]))),
    "input noise": ("noise", float, (0.0, 1.0)),
    "momentum": ("momentum", lambda value: math.log10(1 - value), (-2.0, 0.0)),
}
"""By row: the hyper-parameter, and the scale and range on which it is uniform."""

AT = "share of variance"


def make_plan(options: Options) -> Plan:
    """Return the trials of the searches; search s has the seeds from s · settings on."""
    count, steps, sizes = (4, 2, (4,)) if options.quick else (SETTINGS, STEPS, HIDDEN)
    drawn = {seed: draw_setting(seed, sizes) for seed in range(options.seeds * count)}
    groups = []
    for hidden in sizes:
        seeds = [seed for seed, setting in drawn.items() if setting["hidden"] == hidden]
        name = f"hidden {hidden}"
        trials = [Trial(name, drawn[seed], seed, REPORT) for seed in seeds]
        if trials:
            groups.append(Group(name, noisy_digits(hidden, steps), make_optimizer, trials))
    facts = dict(settings=count, hidden=sizes, rates=RATES, largest_momentum=LARGEST_MOMENTUM)
    return Plan(options.reproduction.name, groups, facts)


def measure(study: StudyRecords, reproduction: Reproduction) -> dict[tuple[str, str], list[float]]:
    """Return the share of each hyper-parameter in each search whose trials have all ended."""
    size = study.study["settings"]["settings"]
    searches: dict[int, list[TrialRecords]] = {}
    for trial in study.trials.values():
        if trial.end:
            searches.setdefault(trial.seed // size, []).append(trial)
    whole = [trials for _, trials in sorted(searches.items()) if len(trials) == size]
    shares = [explained_shares(trials) for trials in whole]
    return {(row, AT): [found[row] for found in shares] for row in SCALES if shares}


def draw_setting(seed: int, sizes: Sequence[int] = HIDDEN) -> dict[str, Any]:
    """Return the random setting of a trial; its seed determines everything about it."""
    hidden, rate, momentum, noise = np.random.default_rng([seed, 1]).random(4)
    low, high = map(math.log10, RATES)
    return {
        "hidden": sizes[int(hidden * len(sizes))],
        "learning_rate": float(f"{10 ** (low + (high - low) * rate):.6g}"),
        "momentum": float(f"{1 - 10 ** (momentum * math.log10(1 - LARGEST_MOMENTUM)):.6g}"),
        "noise": float(f"{noise:.6g}"),
    }


def make_optimizer(
    learning_rate: Any, *, momentum: Any, hidden: int, noise: Any
) -> optax.GradientTransformation:
    """Return Nesterov's momentum with the rate times 1 − momentum; the task has the rest."""
    return nesterov_sgd(learning_rate * (1 - momentum), momentum=momentum)


def noisy_digits(hidden: int, steps: int) -> Task:
    """Return the digits read row by row, with normal noise on the training images.

    The standard deviation of the noise is that of the setting that belongs to the seed.
    """
    task = digits(order="rows", hidden=hidden, batch=BATCH, steps=steps, eval_every=steps)

    def batches(position: int, seed: int) -> Any:
        batch = task.batches(position, seed)
        size = np.float32(draw_setting(seed)["noise"])
        rng = np.random.default_rng([seed, position, 1])
        normal = rng.standard_normal(batch.inputs.shape, np.float32)
        return batch._replace(inputs=batch.inputs + size * normal)

    return replace(task, name="noisy_digits", batches=batches, target=None)


def explained_shares(trials: Sequence[TrialRecords]) -> dict[str, float]:
    """Return by row the share of the variance of the test error that one hyper-parameter explains.

    These are the main effects of a functional ANOVA (Hutter, Hoos & Leyton-Brown, 2014) on the
    random forest of Optuna. A trial that diverged has the error of a guess, 0.9.
    """
    with quiet_optuna():
        import optuna
        from optuna.distributions import FloatDistribution
        from optuna.importance import FanovaImportanceEvaluator

        study = optuna.create_study()
        ranges = {row: FloatDistribution(*ends) for row, (_, _, ends) in SCALES.items()}
        for trial in trials:
            study.add_trial(
                optuna.trial.create_trial(
                    params=_on_scales(trial.hyper), distributions=dict(ranges), value=_error(trial)
                )
            )
        return FanovaImportanceEvaluator(seed=0).evaluate(study)


def _on_scales(hyper: Mapping[str, Any]) -> dict[str, float]:
    """Return the hyper-parameters by row on their scales, within the ranges."""
    found = {}
    for row, (name, scale, (low, high)) in SCALES.items():
        found[row] = min(max(scale(hyper[name]), low), high)
    return found


def _error(trial: TrialRecords) -> float:
    accuracy = trial.evaluations[-1]["test_accuracy"] if trial.evaluations else None
    return 0.9 if trial.diverged or accuracy is None else 1 - accuracy
