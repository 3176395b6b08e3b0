"""The table of a comparison: a row for each optimizer and baseline, differences and ties."""

import math
from collections.abc import Sequence

from lstm_optax.studies.comparison import OptimizerSummary, paired_differences, summarize
from lstm_optax.studies.statistics import PairedTest, tie_groups
from lstm_optax.studies.study_grid import (
    NONE,
    StudyGrid,
    format_hyper,
    format_interval,
    format_number,
    format_value,
    grid_markdown,
)
from lstm_optax.studies.study_records import Record, StudyRecords

DETAILED = 10
"""Largest number of optimizers, and of differences between them, that are listed in full."""

_WIDTH = (
    "to target: median of the steps, and how many seeds reached it; width: decades of learning "
    "rates within 5 % of the best, ≥ where the range may reach further; ms: per step."
)


VOID_NOTE = "Void, without a rank: "
"""The beginning of the note on optimizers that are not ranked."""


def comparison_table(study: StudyRecords, *, target: float | None = None) -> str:
    """Return the comparison in Markdown; see `full_comparison_grid`."""
    return grid_markdown(full_comparison_grid(study, target=target))


def full_comparison_grid(study: StudyRecords, *, target: float | None = None) -> StudyGrid:
    """Return all that `summarize` finds, with the differences and ties as notes.

    Args:
      study: from `read_study`.
      target: value of the validation metric that counts as solved; by default the task's.
    """
    summaries, task = summarize(study, target=target), study.study["task"]
    first = summaries[0] if summaries else None
    header = [
        "optimizer",
        "rank",
        "hyper-parameters",
        f"{task['test_metric']}{_after(first)}, 95 %",
        f"at {format_number(first and first.seconds, 3)} s, 95 %",
        "steps to target",
        "seconds to target",
        "reached",
        "decades of rates near the best",
        "area",
        "diverged",
        "state, bytes per parameter",
        "ms per step",
    ]
    rows = [[row.optimizer, *_wide_cells(row)] for row in summaries]
    return StudyGrid(header, rows + _baselines(task, header), _notes(summaries, task))


def comparison_grid(study: StudyRecords, *, target: float | None = None) -> StudyGrid:
    """Return the comparison with the columns that fit a terminal of 80 characters.

    Args:
      study: from `read_study`.
      target: value of the validation metric that counts as solved; by default the task's.
    """
    summaries, task = summarize(study, target=target), study.study["task"]
    seconds = summaries[0].seconds if summaries else None
    header = ["optimizer", "#", "rate", f"{task['test_metric']}, 95 %"]
    header += [f"at {format_number(seconds, 3)} s", "to target", "width", "ms"]
    rows = [[row.optimizer, *_narrow_cells(row)] for row in summaries]
    notes = [*_notes(summaries, task), _WIDTH]
    return StudyGrid(header, rows + _baselines(task, header), notes)


def comparison_sentences(
    summaries: Sequence[OptimizerSummary], tests: Sequence[PairedTest], larger_is_better: bool
) -> list[str]:
    """Return the differences beyond seed noise and the ties, a sentence each.

    With more than `DETAILED` optimizers or differences, they are those of the best mean alone.

    Args:
      summaries: from `summarize`.
      tests: from `paired_differences`.
      larger_is_better: direction of the metric.
    """
    names = [row.optimizer for row in summaries if row.void is None]
    if len(names) < 2:
        return []
    if not tests:
        return ["No differences were tested: that needs two seeds that every optimizer finished."]
    different = [test for test in tests if test.beyond_noise]
    if max(len(names), len(different)) > DETAILED:
        return _compared_with_best(names, tests, len(different))
    found: dict[str, list[str]] = {name: [] for name in names}
    for test in different:
        better, worse = _in_order(test, larger_is_better)
        details = f" by {_size(test)}, p = {test.corrected:.2g}"
        found[better].append(f"than {worse}{details}")
    parts = [f"{name} is better {'; '.join(found[name])}" for name in names if found[name]]
    ties = [" = ".join(group) for group in tie_groups(names, tests)]
    return [
        f"Differences beyond seed noise: {'. '.join(parts) or 'none'}.",
        f"Ties: {'; '.join(ties) or 'none'}.",
    ]


def _compared_with_best(
    names: Sequence[str], tests: Sequence[PairedTest], different: int
) -> list[str]:
    """Return how the first name compares with the others; all pairs would fill a page."""
    best, *others = names
    beyond = {
        test.second if test.first == best else test.first: test.beyond_noise
        for test in tests
        if best in (test.first, test.second)
    }
    worse = ", ".join(name for name in others if beyond[name])
    tied = ", ".join(name for name in others if not beyond[name])
    return [
        f"{best}, with the best mean, is better beyond seed noise than {worse or 'none'}.",
        f"Ties with {best}: {tied or 'none'}.",
        f"Of all {len(tests)} pairs {different} differ beyond seed noise.",
    ]


def _in_order(test: PairedTest, larger_is_better: bool) -> tuple[str, str]:
    """Return the better optimizer of a pair, then the worse one."""
    first_is_better = (test.difference > 0) == larger_is_better
    return (test.first, test.second) if first_is_better else (test.second, test.first)


def _size(test: PairedTest) -> str:
    """Return the size of a difference with its interval; as a factor if it is relative."""
    low, high = sorted((abs(test.low), abs(test.high)))
    size = abs(test.difference), low, high
    if test.relative:
        return f"a factor of {format_interval(*map(math.exp, size))}"
    return format_interval(*size)


def _notes(summaries: Sequence[OptimizerSummary], task: Record) -> list[str]:
    tests = paired_differences(summaries)
    notes = comparison_sentences(summaries, tests, task["larger_is_better"])
    reasons: dict[str, list[str]] = {}
    for row in summaries:
        if row.void is not None:
            reasons.setdefault(row.void, []).append(row.optimizer)
    notes += [f"{VOID_NOTE}{', '.join(n)}. Reason: {r}." for r, n in reasons.items()]
    for row in summaries:
        if any(row.diverged):
            notes.append(
                f"{row.optimizer}: {sum(row.diverged)} of {len(row.seeds)} seeds diverged, counted "
                f"as {format_number(row.worst)}, the worst first or last value of the others."
            )
    if tests:
        logarithms = " of the logarithms" if tests[0].relative else ""
        notes.append(
            f"{'Larger' if task['larger_is_better'] else 'Smaller'} is better. Bootstrap intervals "
            f"over seeds; p-values of paired t tests{logarithms}, with Holm's "
            f"correction for {len(tests)} {'pair' if len(tests) == 1 else 'pairs'}."
        )
    return notes


def _wide_cells(row: OptimizerSummary) -> list[str]:
    target, sensitivity = row.target, row.sensitivity
    return [
        _rank(row),
        format_hyper(row.hyper) if row.hyper else NONE,
        _interval(row.at_equal_steps),
        _interval(row.at_equal_seconds),
        format_number(target and target.median_steps),
        format_number(target and target.median_seconds, 3),
        f"{target.reached} of {len(row.seeds)}" if target else NONE,
        _decades(row),
        format_number(sensitivity and sensitivity.area),
        f"{100 * row.diverged_share:.0f} %",
        format_number(row.state_bytes_per_parameter, 3),
        format_number(row.milliseconds_per_step, 3),
    ]


def _narrow_cells(row: OptimizerSummary) -> list[str]:
    target, seconds = row.target, row.at_equal_seconds
    steps = format_number(target and target.median_steps, 6)
    return [
        _rank(row),
        format_value(row.hyper["learning_rate"]) if row.hyper else NONE,
        _interval(row.at_equal_steps),
        format_number(seconds and seconds.mean),
        f"{steps} {target.reached}/{len(row.seeds)}" if target else NONE,
        _decades(row),
        format_number(row.milliseconds_per_step, 3),
    ]


def _baselines(task: Record, header: Sequence[str]) -> list[list[str]]:
    """Return a row for each simple prediction, with its score in the column of the test metric."""
    column = next(i for i, name in enumerate(header) if name.startswith(task["test_metric"]))
    rows = []
    for name, value in task["baselines"].items():
        cells = ["" for _ in header]
        cells[0], cells[column] = f"{name} (baseline)", format_number(value)
        rows.append(cells)
    return rows


def _rank(row: OptimizerSummary) -> str:
    return "void" if row.void is not None else NONE if row.rank is None else str(row.rank)


def _interval(found) -> str:
    return NONE if found is None else format_interval(found.mean, found.low, found.high)


def _decades(row: OptimizerSummary) -> str:
    found = row.sensitivity
    if found is None or found.width is None:
        return NONE
    return f"{'≥' if found.open_low or found.open_high else ''}{found.width:.2f}"


def _after(row: OptimizerSummary | None) -> str:
    return f" after {row.steps} steps" if row and row.steps else ""
