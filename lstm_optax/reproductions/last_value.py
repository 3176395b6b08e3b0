"""A metric of a trial after its last step."""

import math

from lstm_optax.studies.study_records import TrialRecords


def last_value(trial: TrialRecords, metric: str) -> float:
    """Return a metric after the last step; NaN if the trial diverged."""
    value = None if trial.diverged else trial.evaluations[-1][metric]
    return math.nan if value is None else value
