"""`advise`: read the records of a run, and say what they show and what to change."""

from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from lstm_optax.runs.advice import gate_rules, loss_rules, nonfinite_rules, step_rules
from lstm_optax.runs.advice.facts import RunFacts, read_facts
from lstm_optax.runs.advice.finding import CONFIDENCES, Finding
from lstm_optax.runs.advice.late_clip import measure_late_clip

if TYPE_CHECKING:
    from lstm_optax.runs.advice.late_clip import Optimizer

__all__ = ["advise"]

Rule: TypeAlias = Callable[[RunFacts], Finding | None]

RULES: tuple[Rule, ...] = (
    nonfinite_rules.nonfinite_steps,
    step_rules.clip_in_every_step,
    step_rules.update_size,
    step_rules.late_clip,
    loss_rules.loss_spikes,
    loss_rules.overfitting,
    loss_rules.still_falling,
    loss_rules.idle_average,
    gate_rules.vanishing_gradient,
    gate_rules.forget_gate_shut,
    gate_rules.gate_without_gradient,
    step_rules.cold_moments,
)


def advise(run: str | PathLike[str], optimizer: "Optimizer | None" = None) -> list[Finding]:
    """Return what the records of a run show, and what to change, the most certain first.

    A rule finds nothing where the records that it needs are missing: the rules about gates and
    about the size of updates need `train --diagnose`.

    Args:
      run: run folder of `train_language_model` or `lstm-optax train`.
      optimizer: a chain to measure with `explain` for a clip that acts too late: a transformation,
        or a function that makes one from a learning rate, here that of the run. By default nothing
        is measured: `lstm-optax train` clips the gradient in front of its optimizers.

    Raises:
      OptionError: the folder contains no run, its configuration is damaged, or it has no records.
      ValueError: `explain` cannot measure the optimizer.
    """
    facts = read_facts(Path(run))
    if optimizer is not None:
        measured = measure_late_clip(optimizer, facts.config.learning_rate)
        facts = replace(facts, late_clip=measured)
    found = [finding for rule in RULES if (finding := rule(facts))]
    return sorted(found, key=lambda finding: CONFIDENCES.index(finding.confidence))
