"""Means over seeds with intervals, paired tests with Holm's correction, ranks with ties."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import bootstrap, norm, t, ttest_rel

from lstm_optax.studies.study_records import StudyError

SIGNIFICANCE = 0.05
"""A corrected p-value below it is a difference beyond seed noise."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its bootstrap interval.

    Attributes:
      values: one for each seed.
      mean: of the values.
      low: end of the interval; NaN if there is none, see `bootstrap_interval`.
      high: the other end.
    """

    values: tuple[float, ...]
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """The difference of two optimizers over the same seeds.

    Attributes:
      first: name of an optimizer.
      second: name of the other.
      difference: mean over the seeds of the result of the first minus that of the second; of their
        natural logarithms if `relative`.
      low: end of the confidence interval of the difference, for this pair alone.
      high: the other end.
      p: of the paired t test, two-sided.
      corrected: the p-value after Holm's correction for all pairs.
      relative: whether the logarithms were compared, and with them the ratio of the results.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float
    corrected: float
    relative: bool = False

    @property
    def beyond_noise(self) -> bool:
        """Whether the difference is beyond seed noise; if it is not, the two are tied."""
        return self.corrected < SIGNIFICANCE


def estimate(values: Sequence[float], *, level: float = 0.95, seed: int = 0) -> Estimate:
    """Return mean and interval of the results of several seeds, as `bootstrap_interval` does."""
    low, high = bootstrap_interval(values, level=level, seed=seed)
    return Estimate(tuple(values), math.fsum(values) / len(values), low, high)


def bootstrap_interval(
    values: Sequence[float], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return a bootstrap interval of the mean: SciPy's percentile bootstrap at an expanded level.

    The percentile and BCa intervals of n values are too short by a factor of √((n−1)/n) and by the
    ratio of a normal to a t quantile; Hesterberg's level Φ(−√(n/(n−1)) t_{n−1}) on each side
    corrects both. The interval never leaves the range of the values: with 3, 4 and 5 normal values
    95 % intervals contain the mean in 75, 87 and 93 % of the cases (percentile: 75, 79, 85 %).

    Args:
      values: one for each seed, in any order. Equal values make an interval without width. One
        value, or a value that is not finite, makes (NaN, NaN): the interval is unknown.
      level: of the interval, between 0 and 1.
      seed: of the resampling.

    Raises:
      StudyError: no values, or a level outside its range.

    Source: Hesterberg 2015, "What Teachers Should Know About the Bootstrap",
    doi:10.1080/00031305.2015.1089789.
    """
    if not 0 < level < 1:
        raise StudyError(f"level is {level}, but must be between 0 and 1, such as 0.95")
    if not len(values):
        raise StudyError("got no values: an interval needs the results of at least one seed")
    sample = np.sort(np.asarray(values, float))
    count = len(sample)
    if count == 1 or not np.isfinite(sample).all():
        return math.nan, math.nan
    if sample[0] == sample[-1]:
        return float(sample[0]), float(sample[0])
    quantile = t.ppf((1 + level) / 2, count - 1)
    expanded = 1 - 2 * float(norm.cdf(-math.sqrt(count / (count - 1)) * quantile))
    interval = bootstrap(
        (sample,),
        np.mean,
        confidence_level=expanded,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def paired_tests(
    results: Mapping[str, Sequence[float]], *, level: float = 0.95, relative: bool = False
) -> list[PairedTest]:
    """Return a paired t test of each pair of optimizers, corrected for their number.

    Pairing over seeds removes what the seed does to both (initial parameters, order of the data).
    A permutation test of the signs would assume less, but with 5 seeds its smallest two-sided
    p-value is 2/2⁵ = 1/16: it could never find a difference. The t test assumes that differences
    are roughly normal, which 3 to 5 seeds cannot show. Differences that are equal in every seed
    leave no noise: they are beyond it unless they are 0.

    Args:
      results: the results of each optimizer, for the same seeds in the same order.
      level: of the intervals, which are not corrected for the number of pairs.
      relative: compare the logarithms of the results. This suits noise that is proportional to the
        result: losses of 0.001 ± 0.0005 and 0.04 ± 0.02 differ clearly by their ratio, while the
        noise of the second hides the difference.

    Raises:
      StudyError: fewer than two seeds, different numbers of seeds, a value that is not finite, or
        with `relative` one that is not positive.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    _check_results(results, relative)
    values = {name: np.log(found) if relative else found for name, found in results.items()}
    tests = [_paired_test(*pair, values, level, relative) for pair in combinations(results, 2)]
    corrected = holm([test.p for test in tests])
    return [replace(test, corrected=p) for test, p in zip(tests, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's corrected p-values: p₍ᵢ₎ → max over j ≤ i of min(1, (m − j + 1) p₍ⱼ₎)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = largest
    return corrected


def rank_with_ties(
    names: Sequence[str], tests: Sequence[PairedTest], *, larger_is_better: bool = False
) -> dict[str, int]:
    """Return the rank of each optimizer: 1 + the number of those that are better beyond noise."""
    ranks = dict.fromkeys(names, 1)
    for test in tests:
        if test.beyond_noise:
            first_is_better = (test.difference > 0) == larger_is_better
            ranks[test.second if first_is_better else test.first] += 1
    return ranks


def tie_groups(names: Sequence[str], tests: Sequence[PairedTest]) -> list[tuple[str, ...]]:
    """Return the largest groups of at least two optimizers in which all pairs are tied.

    An optimizer can belong to several groups: being tied is not transitive.

    Source: the insert-and-absorb algorithm of Piepho 2004, doi:10.1198/1061860043515.
    """
    groups = [frozenset(names)]
    for test in tests:
        if test.beyond_noise:
            pair = {test.first, test.second}
            parts = [
                part for g in groups for part in ([g - {x} for x in pair] if pair <= g else [g])
            ]
            groups = [g for g in dict.fromkeys(parts) if not any(g < other for other in parts)]
    ordered = [tuple(name for name in names if name in group) for group in groups]
    return sorted((g for g in ordered if len(g) > 1), key=lambda g: [*map(names.index, g)])


def _check_results(results: Mapping[str, Sequence[float]], relative: bool) -> None:
    counts = {name: len(values) for name, values in results.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise StudyError(f"the numbers of seeds differ ({shown}): pass results of the same seeds")
    for name, values in results.items():
        if len(values) < 2:
            raise StudyError(f"{name} has {len(values)} seeds, but a paired test needs at least 2")
        if not np.isfinite(values).all():
            raise StudyError(
                f"a result of {name} is not finite: replace that of a diverged seed by the worst "
                "value of the comparison"
            )
        if relative and min(values) <= 0:
            raise StudyError(
                f"a result of {name} is {min(values):g}, but only positive results have a ratio: "
                "leave out `relative`"
            )


def _paired_test(
    first: str, second: str, results: Mapping[str, Any], level: float, relative: bool
) -> PairedTest:
    differences = np.subtract(results[first], results[second])
    mean = float(differences.mean())
    if np.ptp(differences) == 0:
        low, high, p = mean, mean, float(mean == 0)
    else:
        with warnings.catch_warnings():  # SciPy's, where the differences are almost equal
            warnings.simplefilter("ignore", RuntimeWarning)
            result = ttest_rel(results[first], results[second])
        low, high = map(float, result.confidence_interval(level))
        p = float(result.pvalue)
    return PairedTest(first, second, mean, low, high, p, p, relative)
