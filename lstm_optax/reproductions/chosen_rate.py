"""The learning rate that validation chooses."""

import math
from collections.abc import Callable

from lstm_optax.studies.study_records import StudyRecords, TrialRecords


def chosen_rate(
    study: StudyRecords, row: str, validation: Callable[[TrialRecords], float]
) -> tuple[float, list[TrialRecords]] | None:
    """Return the rate with the lowest mean validation loss, and its trials in the order of seeds.

    Only rates count at which the trials of all seeds have ended; None without one.

    Args:
      study: the records.
      row: the name of the trials' group.
      validation: of a trial that has ended; infinite for one that diverged.
    """
    seeds = {trial.seed for trial in study.trials.values()}
    by_rate: dict[float, list[TrialRecords]] = {}
    for trial in study.trials.values():
        if trial.optimizer == row and trial.end:
            by_rate.setdefault(trial.hyper["learning_rate"], []).append(trial)
    whole = {rate: trials for rate, trials in by_rate.items() if len(trials) == len(seeds)}
    if not whole:
        return None
    rate = min(whole, key=lambda rate: math.fsum(map(validation, whole[rate])))
    return rate, sorted(whole[rate], key=lambda trial: trial.seed)
