"""Measure intervals of few values: the share of them, at 95 %, that contain the true mean.

    python tests/studies/measure_intervals.py [SAMPLES]

It prints the tables of docs/compare.md. Samples are normal and log-normal with σ = 0.5; the BCa
interval, which takes longest, has a third of them. The second table has the standard deviations by
which a mean difference must differ from 0 for the smallest p-value of all pairs to count.
"""

import math
import sys
import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats

from lstm_optax.records import markdown_table
from lstm_optax.studies import bootstrap_interval
from lstm_optax.studies.statistics import SIGNIFICANCE

SIGMA = 0.5
COLUMNS = ("seeds", "percentile", "BCa", "used here", "*t* interval", "used here, log-normal")


def scipy_interval(values: np.ndarray, method: str) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a BCa interval of equal values
        rng = np.random.default_rng(0)
        result = stats.bootstrap((values,), np.mean, method=method, rng=rng)
    return result.confidence_interval


def t_interval(values: np.ndarray) -> tuple[float, float]:
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    return float(low), float(high)


def coverage(interval: Callable, samples: np.ndarray, mean: float) -> str:
    """Return the share of the samples whose interval contains the mean."""
    bounds = np.array([interval(values) for values in samples])
    return f"{np.mean((bounds[:, 0] <= mean) & (mean <= bounds[:, 1])):.0%}".replace("%", " %")


def coverage_row(seeds: int, count: int) -> list[str]:
    rng = np.random.default_rng(seeds)
    normal, skewed = rng.normal(size=(count, seeds)), rng.lognormal(0, SIGMA, (count, seeds))
    return [
        str(seeds),
        coverage(lambda values: scipy_interval(values, "percentile"), normal, 0),
        coverage(lambda values: scipy_interval(values, "BCa"), normal[: count // 3], 0),
        coverage(bootstrap_interval, normal, 0),
        coverage(t_interval, normal, 0),
        coverage(bootstrap_interval, skewed, math.exp(SIGMA**2 / 2)),
    ]


def smallest_difference(seeds: int, optimizers: int) -> str:
    """Return the mean difference, in standard deviations, at which its corrected p-value counts."""
    pairs = math.comb(optimizers, 2)
    bound = stats.t.ppf(1 - SIGNIFICANCE / (2 * pairs), seeds - 1) / math.sqrt(seeds)
    return f"{bound:.2g}"


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    rows = [coverage_row(seeds, count) for seeds in (3, 4, 5, 8)]
    print(markdown_table(COLUMNS, rows), end="\n\n")
    many = (2, 3, 4, 16)
    rows = [[str(n), *(smallest_difference(n, k) for k in many)] for n in (3, 5, 10)]
    print(markdown_table(["seeds", *(f"{k} optimizers" for k in many)], rows))


if __name__ == "__main__":
    main()
