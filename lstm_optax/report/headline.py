"""What a study found, in a title, a sentence or two, and a few numbers."""

from collections.abc import Sequence

from lstm_optax.report.series import TaskFacts
from lstm_optax.studies.comparison import OptimizerSummary
from lstm_optax.studies.study_grid import format_hyper, format_interval, format_number
from lstm_optax.studies.study_records import StudyRecords


def make_title(study: StudyRecords, task: TaskFacts) -> str:
    """Return the title of a report."""
    names = list(study.optimizers)
    if study.study["kind"] == "compare":
        return f"{len(names)} optimizers on the task {task.name}"
    return f"{', '.join(names)} on the task {task.name}"


def make_headline(
    study: StudyRecords, summaries: Sequence[OptimizerSummary], task: TaskFacts
) -> str:
    """Return which optimizers are best, or which setting of the only one is."""
    if study.study["kind"] == "compare":
        return _comparison(summaries, task)
    sentences = []
    for name in study.optimizers:
        choice = study.choices.get(name)
        if choice is None:
            sentences.append(f"The tuning of {name} has not ended.")
        elif choice["void"]:
            sentences.append(f"The tuning of {name} is void: it has no valid best setting.")
        else:
            value = format_number(choice["value"])
            best = format_hyper(choice["hyper"])
            sentences.append(f"The best setting of {name} is {best}: {task.metric} {value}.")
    return " ".join(sentences)


def make_numbers(study: StudyRecords, summaries: Sequence[OptimizerSummary]) -> dict[str, str]:
    """Return short facts about a study, by what they mean."""
    trials = list(study.trials.values())
    seconds = sum(trial.end["seconds"] for trial in trials if trial.end)
    numbers = {"trials": f"{len(trials):,}", "diverged": str(sum(t.diverged for t in trials))}
    unfinished = sum(trial.end is None for trial in trials)
    if unfinished:
        numbers["not finished"] = str(unfinished)
    steps = max((row.steps or 0 for row in summaries), default=0)
    if steps:
        numbers["steps of a reported trial"] = f"{steps:,}"
    seeds = max((len(row.seeds) for row in summaries), default=0)
    if seeds:
        numbers["seeds of each optimizer"] = str(seeds)
    return numbers | {"of training in all": _duration(seconds)}


def make_warnings(study: StudyRecords, summaries: Sequence[OptimizerSummary]) -> list[str]:
    """Return why optimizers of a comparison have no rank."""
    if study.study["kind"] != "compare":
        return []
    return [f"{row.optimizer}: {row.void}." for row in summaries if row.void is not None]


def _comparison(summaries: Sequence[OptimizerSummary], task: TaskFacts) -> str:
    ranked = [row for row in summaries if row.rank is not None]
    best = [row for row in ranked if row.rank == 1]
    if not best:
        return "No optimizer has a rank: that needs two seeds that every optimizer finished."
    results = ", ".join(f"{row.optimizer} {_interval(row)}" for row in best)
    measure = f"{task.test_metric} at equal steps"
    if len(ranked) == 1:
        return f"{results} ({measure}); no other optimizer has a rank."
    if len(best) == 1:
        return f"{best[0].optimizer} is best beyond seed noise: {_interval(best[0])} ({measure})."
    if len(best) == len(ranked):
        return f"No optimizer is better than another beyond seed noise: {results} ({measure})."
    return f"There is no single best optimizer: none is better than {results} ({measure})."


def _interval(row: OptimizerSummary) -> str:
    found = row.at_equal_steps
    return format_interval(found.mean, found.low, found.high) if found else "unknown"


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
