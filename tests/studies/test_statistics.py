"""Intervals, paired tests, Holm's correction, ranks and ties, against SciPy and by hand."""

import math
import re
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.stats import bootstrap, norm, t, ttest_rel

from lstm_optax.studies import (
    PairedTest,
    StudyError,
    bootstrap_interval,
    paired_tests,
    rank_with_ties,
    tie_groups,
)
from lstm_optax.studies.statistics import estimate, holm

FIVE = (1.3, 1.1, 1.7, 1.2, 1.25)


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape)


def made_test(first, second, difference, corrected):
    return PairedTest(first, second, difference, difference, difference, corrected, corrected)


def test_interval_is_scipys_at_expanded_level():
    level = 1 - 2 * norm.cdf(-math.sqrt(5 / 4) * t.ppf(0.95, 4))
    expected = bootstrap(
        (np.sort(FIVE),),
        np.mean,
        confidence_level=float(level),
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert bootstrap_interval(FIVE, level=0.9, seed=3) == (expected.low, expected.high)


def test_interval_covers_the_mean():
    intervals = [bootstrap_interval(values) for values in draw(250, 5)]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    assert 0.88 < covered < 0.97  # the plain percentile interval: 0.83


@pytest.mark.parametrize("count", [2, 3])
def test_interval_of_few_values_is_their_range(count):
    low, high = bootstrap_interval(FIVE[:count])
    assert (low, high) == pytest.approx((min(FIVE[:count]), max(FIVE[:count])))


def test_order_of_seeds_does_not_matter():
    orders = [*permutations(FIVE)][::20]
    assert len({bootstrap_interval(values, level=0.8) for values in orders}) == 1


def test_interval_scales_and_shifts():
    low, high = bootstrap_interval(FIVE)
    scaled = bootstrap_interval([100 * value - 3 for value in FIVE])
    assert scaled == pytest.approx((100 * low - 3, 100 * high - 3))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2.0], (math.nan, math.nan)),
        ([0.1, 0.1, 0.1], (0.1, 0.1)),
        ([1.0, math.inf, 2.0], (math.nan, math.nan)),
        ([1.0, math.nan], (math.nan, math.nan)),
    ],
)
def test_degenerate_interval(values, expected):
    assert np.array_equal(bootstrap_interval(values), expected, equal_nan=True)


@pytest.mark.parametrize(
    ("values", "level", "message"),
    [
        ([], 0.95, "got no values: an interval needs the results of at least one seed"),
        ([1.0, 2.0], 95, "level is 95, but must be between 0 and 1, such as 0.95"),
        ([1.0, 2.0], 0, "level is 0, but must be between 0 and 1, such as 0.95"),
    ],
)
def test_interval_rejects_bad_input(values, level, message):
    with pytest.raises(StudyError) as error:
        bootstrap_interval(values, level=level)
    assert str(error.value) == message


def test_estimate_has_mean_and_interval():
    found = estimate(FIVE)
    assert found.values == FIVE and found.mean == pytest.approx(1.31)
    assert (found.low, found.high) == bootstrap_interval(FIVE)


def test_paired_test_by_hand():
    (found,) = paired_tests({"a": [2.0, 4.0, 6.0], "b": [1.0, 2.0, 3.0]})
    statistic = 2 * math.sqrt(3)  # the differences are 1, 2, 3, with standard deviation 1
    assert (found.first, found.second, found.difference) == ("a", "b", 2.0)
    # Student's distribution with 2 degrees of freedom is known in closed form
    assert found.p == pytest.approx(1 - statistic / math.sqrt(2 + statistic**2))
    quantile = math.sqrt(2 * 0.95**2 / (1 - 0.95**2))
    half = quantile / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))


def test_paired_tests_are_scipys():
    results = dict(zip("abc", draw(3, 5) + [[0.0], [1.0], [5.0]], strict=True))
    tests = paired_tests(results, level=0.8)
    assert [(test.first, test.second) for test in tests] == [*combinations("abc", 2)]
    for test in tests:
        expected = ttest_rel(results[test.first], results[test.second])
        interval = expected.confidence_interval(0.8)
        assert (test.p, test.low, test.high) == (expected.pvalue, interval.low, interval.high)
    assert [test.corrected for test in tests] == holm([test.p for test in tests])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_many_pairs_need_smaller_p_values():
    values = draw(5)
    shifted = values + 0.5 + 0.3 * np.random.default_rng(1).normal(size=5)
    pair = {"a": values, "b": shifted}
    same = {f"c{i}": values for i in range(8)}
    alone, crowded = paired_tests(pair)[0], paired_tests(pair | same)[0]
    assert alone.p == crowded.p and alone.beyond_noise and not crowded.beyond_noise


@pytest.mark.parametrize(
    ("shift", "p", "beyond"), [(0.0, 1.0, False), (0.5, 0.0, True), (-0.5, 0.0, True)]
)
def test_equal_differences_leave_no_noise(shift, p, beyond):
    values = [1.0, 2.0, 4.0]
    (found,) = paired_tests({"a": [value + shift for value in values], "b": values})
    assert (found.low, found.high, found.p) == (shift, shift, p)
    assert found.beyond_noise == beyond


def test_almost_equal_differences_do_not_warn():
    (found,) = paired_tests({"a": [1.0, 1.0 + 4e-16, 1.0], "b": [0.0, 0.0, 0.0]})
    assert found.p < 1e-20 and found.difference == pytest.approx(1)


def test_relative_tests_see_proportional_noise():
    noise = np.array([0.5, 0.8, 1.0, 1.3, 2.0])
    results = {"a": 0.001 * noise, "b": 0.04 * noise[::-1]}
    (plain,), (relative,) = paired_tests(results), paired_tests(results, relative=True)
    assert (plain.relative, relative.relative) == (False, True)
    assert relative.p < plain.p / 10 and relative.difference == pytest.approx(-np.log(40))
    expected = ttest_rel(np.log(results["a"]), np.log(results["b"])).pvalue
    assert relative.p == pytest.approx(expected)


def test_relative_tests_need_positive_results():
    message = "a result of b is 0, but only positive results have a ratio: leave out `relative`"
    with pytest.raises(StudyError, match=re.escape(message)):
        paired_tests({"a": [1.0, 2.0], "b": [0.0, 2.0]}, relative=True)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (
            {"a": [1.0, 2.0], "b": [1.0]},
            "the numbers of seeds differ (a 2, b 1): pass results of the same seeds",
        ),
        ({"a": [1.0], "b": [1.0]}, "a has 1 seeds, but a paired test needs at least 2"),
        (
            {"a": [1.0, 2.0], "b": [1.0, math.inf]},
            "a result of b is not finite: replace that of a diverged seed by the worst value of "
            "the comparison",
        ),
    ],
)
def test_paired_tests_reject_bad_input(results, message):
    with pytest.raises(StudyError) as error:
        paired_tests(results)
    assert str(error.value) == message


def test_order_of_optimizers_does_not_matter():
    results = dict(zip("abcd", draw(4, 5) / 9 + [[0.0], [0.0], [3.0], [3.0]], strict=True))
    names = "cadb"
    other = {name: results[name][[3, 0, 4, 1, 2]] for name in names}
    tests, again = paired_tests(results), paired_tests(other)
    known = {frozenset((test.first, test.second)): test for test in tests}
    for test in again:
        before = known[frozenset((test.first, test.second))]
        sign = 1 if before.first == test.first else -1
        assert test.difference == pytest.approx(sign * before.difference)
        assert test.corrected == pytest.approx(before.corrected)
    assert rank_with_ties("abcd", tests) == rank_with_ties(names, again)
    groups = tie_groups("abcd", tests), tie_groups(names, again)
    assert [set(map(frozenset, found)) for found in groups] == [{*map(frozenset, ("ab", "cd"))}] * 2


def test_ties_are_not_transitive():
    tests = [
        made_test("a", "b", -1, 0.2),
        made_test("b", "c", -1, 0.2),
        made_test("a", "c", -2, 0.04),
    ]
    assert rank_with_ties("abc", tests) == {"a": 1, "b": 1, "c": 2}
    assert rank_with_ties("abc", tests, larger_is_better=True) == {"a": 2, "b": 1, "c": 1}
    assert tie_groups("abc", tests) == [("a", "b"), ("b", "c")]


def test_p_of_five_percent_is_a_tie():
    assert not made_test("a", "b", 1, 0.05).beyond_noise
    assert made_test("a", "b", 1, 0.0499).beyond_noise


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_tie_groups_are_the_largest(share):
    names, rng = "abcdef", np.random.default_rng(1)
    tests = [
        made_test(*pair, 1.0, 0.01 if rng.random() < share else 0.5)
        for pair in combinations(names, 2)
    ]
    tied = {(test.first, test.second) for test in tests if not test.beyond_noise}
    cliques = [
        set(group)
        for size in range(2, 7)
        for group in combinations(names, size)
        if all(pair in tied for pair in combinations(group, 2))
    ]
    largest = [clique for clique in cliques if not any(clique < other for other in cliques)]
    found = [set(group) for group in tie_groups(names, tests)]
    assert sorted(map(sorted, found)) == sorted(map(sorted, largest))


def test_five_permutations_could_never_differ():
    """The reason for a t test: the smallest p-value of a permutation test of five signs."""
    differences = np.ones(5)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1)
    means = np.abs((signs.T * differences).mean(1))
    assert np.mean(means >= 1) == 1 / 16
