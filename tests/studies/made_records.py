"""Records of studies that never ran, with known numbers, for the tests of tables and reports."""

import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np

from lstm_optax.records import Record, as_json, record_line
from lstm_optax.studies.study_records import RECORDS_FILE, StudyRecords, read_study

RATES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
OPTIMIZERS = {"sgd": 1e-1, "adam": 1e-2, "nadam": 1e-2}
"""The best rate of each made optimizer; ten times that rate diverges."""


def study_record(kind="compare", settings=None, made_by=None, **task) -> Record:
    """The record of a study; further arguments replace facts of the task."""
    facts = dict(name="made", steps=100, eval_every=10, metric="validation", test_metric="test")
    facts |= dict(larger_is_better=False, target=0.5, baselines={"mean": 0.9}, settings={})
    command = f"lstm-optax {kind} --task made"
    versions = {"python": "3.11.0", "lstm_optax": "0", "jax": "0", "numpy": "0"}
    source = dict(command=command, versions=versions, commit="0" * 40, device="cpu")
    source |= dict(platform="cpu", cpu="a processor", cores=2, load=0.0)
    parts = dict(kind=kind, task=facts | task, settings=settings or {}, made_by=made_by or source)
    return {"record": "study"} | parts


def optimizer_record(optimizer: str, state_bytes=8.0) -> Record:
    parts = dict(optimizer=optimizer, parameters=1000, state_bytes_per_parameter=state_bytes)
    return {"record": "optimizer"} | parts | {"compile_seconds": 1.5}


def choice_record(
    optimizer: str, hyper: Mapping, value=0.4, edge: str | None = None, void=False, trials=10
) -> Record:
    parts = dict(optimizer=optimizer, hyper=dict(hyper), value=value, edge=edge, void=void)
    return {"record": "choice"} | parts | {"trials": trials}


def trial_name(optimizer: str, hyper: Mapping, seed: int) -> str:
    settings = " ".join(f"{name}={value}" for name, value in hyper.items())
    return f"{optimizer} {settings} seed={seed}"


def trial_records(
    optimizer: str,
    hyper: Mapping,
    seed: int,
    values: Sequence[float],
    *,
    part="report",
    status: str | None = "finished",
    steps: Sequence[int] | None = None,
    seconds: Sequence[float] | None = None,
    test: Sequence[float] | None = None,
    loss: Sequence[float] | None = None,
) -> list[Record]:
    """The records of one trial with the given metrics.

    Args:
      optimizer: name of the optimizer.
      hyper: hyper-parameters, with the learning rate.
      seed: of the trial.
      values: the validation metric of each evaluation.
      part: "tuning" or "report".
      status: of the end; None for a trial that was interrupted.
      steps: of the evaluations; 10, 20, … by default.
      seconds: of the evaluations; a hundredth of the steps by default.
      test: the test metric of each evaluation; equal to `values` by default.
      loss: the loss of each evaluation; equal to `values` by default.
    """
    name = trial_name(optimizer, hyper, seed)
    steps = steps or [10 * (i + 1) for i in range(len(values))]
    seconds = seconds or [step / 100 for step in steps]
    head = dict(trial=name, optimizer=optimizer, hyper=dict(hyper), seed=seed, part=part)
    records: list[Record] = [{"record": "trial"} | head]
    rows = zip(steps, seconds, values, test or values, loss or values, strict=True)
    for step, second, value, tested, mean_loss in rows:
        parts = dict(trial=name, step=step, seconds=second, loss=mean_loss, grad_norm=1.0)
        parts |= dict(learning_rate=hyper["learning_rate"], validation=value, test=tested)
        records.append({"record": "evaluation"} | parts)
    if status:
        end = dict(trial=name, status=status, step=steps[-1], seconds=seconds[-1])
        records.append({"record": "end"} | end)
    return records


def made_study(
    kind="compare",
    *,
    optimizers: Mapping[str, float] = OPTIMIZERS,
    rates: Sequence[float] = RATES,
    other: Mapping[str, Sequence] | None = None,
    tuning_seeds: Sequence[int] = (1000, 1001),
    report_seeds: Sequence[int] = (0, 1, 2, 3, 4),
    evaluations=10,
    noise=0.01,
    spacing=0.02,
    **task,
) -> list[Record]:
    """The records of a whole study: a loss that falls towards a parabola in the log rate.

    With `larger_is_better=True` the metrics are 1 minus the loss.

    The optimizers differ in their final losses by `spacing`, in their seconds by a factor from 1 to
    2, and a rate of ten times the best diverges at half of the steps. The seeds are paired: the
    noise of a seed is the same for all optimizers except for a tenth of it.

    Args:
      kind: "compare", or "sweep" for tuning trials only.
      optimizers: the best rate of each by name; it must be one of `rates`.
      rates: learning rates of the grid.
      other: values of further hyper-parameters by name, the best first; each next adds 0.05.
      tuning_seeds: of the tuning trials.
      report_seeds: of the trials at the chosen hyper-parameters; none in a sweep.
      evaluations: of each trial.
      noise: standard deviation of the final loss over seeds.
      spacing: difference of the final losses of two optimizers that follow each other.
      task: facts that replace those of `study_record`.
    """
    rng = np.random.default_rng(0)
    seeds = [*tuning_seeds, *(report_seeds if kind == "compare" else ())]
    shared = {seed: noise * rng.standard_normal() for seed in seeds}
    other = dict(other or {})
    larger = task.get("larger_is_better", False)
    records = [study_record(kind, **({"steps": 10 * evaluations} | task))]
    for place, (name, best) in enumerate(optimizers.items()):
        pace = 1 + place / max(len(optimizers) - 1, 1)

        def run(hyper, seed, part, place=place, name=name, best=best, pace=pace):
            decades = math.log10(hyper["learning_rate"] / best)
            final = 0.4 + spacing * place + 0.1 * decades**2
            final += 0.05 * sum(list(other[key]).index(hyper[key]) for key in other)
            final += shared[seed] + 0.1 * noise * rng.standard_normal()
            course = _course(final, evaluations, decades > 0.5, pace, larger)
            return trial_records(name, hyper, seed, part=part, **course)

        settings = [
            dict(zip(("learning_rate", *other), values, strict=True))
            for values in product(rates, *other.values())
        ]
        records.append(optimizer_record(name, 4.0 * place))
        for setting in settings:
            for seed in tuning_seeds:
                records += run(setting, seed, "tuning")
        chosen = {"learning_rate": best} | {key: values[0] for key, values in other.items()}
        edge = "low" if best == min(rates) else "high" if best == max(rates) else None
        value, count = _mean_at_end(records, name, chosen), len(settings) * len(tuning_seeds)
        records.append(choice_record(name, chosen, value, edge, edge is not None, count))
        if kind == "compare":
            for seed in report_seeds:
                records += run(chosen, seed, "report")
    return [as_json(record) for record in records]


def write_study(folder: Path, records: Sequence[Record]) -> Path:
    """Write records as a study's folder, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(map(record_line, records))
    (folder / RECORDS_FILE).write_text(text, encoding="utf-8")
    return folder


def read_made(folder: Path, records: Sequence[Record]) -> StudyRecords:
    """Write records as a study's folder, and read them."""
    return read_study(write_study(folder, records))


def _mean_at_end(records, optimizer: str, hyper: Mapping) -> float:
    """The mean over the seeds of the last validation metric of a setting."""
    start = trial_name(optimizer, hyper, 0).removesuffix("0")
    last = {r["trial"]: r for r in records if r["record"] == "evaluation"}
    return fmean(row["validation"] for name, row in last.items() if name.startswith(start))


def _course(final, evaluations, diverges, pace, larger) -> dict:
    """What `trial_records` needs for a loss that falls from 1 towards its final value."""
    steps = [10 * (i + 1) for i in range(evaluations)]
    loss = [final + (1 - final) * math.exp(-6 * step / steps[-1]) for step in steps]
    status = "finished"
    if diverges:
        half = max(evaluations // 2, 1)
        steps, loss, status = steps[:half], [*loss[: half - 1], math.nan], "diverged"
    values = [1 - value for value in loss] if larger else loss
    test = [value + 0.01 for value in values]
    seconds = [pace * step / 100 for step in steps]
    parts = dict(values=values, test=test, loss=loss, steps=steps, seconds=seconds)
    return parts | {"status": status}
