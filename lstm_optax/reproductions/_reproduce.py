"""`reproduce`: train what a published result needs, and record it."""

from importlib import import_module
from os import PathLike
from pathlib import Path

from lstm_optax.checks import check_integer
from lstm_optax.reproductions.plan import Options, Plan
from lstm_optax.reproductions.published import find_reproduction
from lstm_optax.studies.study_records import StudyRecords
from lstm_optax.studies.trial_runner import OnEvaluation


def reproduce(
    name: str,
    *,
    data: str | PathLike[str] | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    quick: bool = False,
    out: str | PathLike[str] | None = None,
    command: str = "",
    on_evaluation: OnEvaluation = lambda trial, record: None,
) -> StudyRecords:
    """Train what a published result needs, and return the records.

    `compare_with_published` compares them with the published numbers.

    Args:
      name: of `REPRODUCTIONS`.
      data: the file, if the reproduction needs one.
      seeds: number of seeds; by default that of the reproduction.
      epochs: passes over the data; by default those of the reproduction.
      quick: use very small sizes; the results mean nothing.
      out: folder of the records, in which an interrupted reproduction continues; None for none.
      command: for the records.
      on_evaluation: called with the trial and its record after each evaluation.

    Raises:
      StudyError: an unknown name, a missing or another data file, an argument that the reproduction
        does not have, or a folder with another study.
      OptionError: another process uses the folder.
    """
    plan = make_plan(name, data=data, seeds=seeds, epochs=epochs, quick=quick)
    return plan.run(Path(out) if out is not None else None, command, on_evaluation)


def make_plan(
    name: str,
    *,
    data: str | PathLike[str] | None = None,
    seeds: int | None = None,
    epochs: int | None = None,
    quick: bool = False,
) -> Plan:
    """Return all trials of a reproduction; arguments and errors are those of `reproduce`."""
    found = find_reproduction(name)
    found.check_arguments(data, epochs)
    count = check_integer("seeds", found.seeds if seeds is None else seeds, 2)
    options = Options(
        found,
        data=found.data.read(None if data is None else Path(data)) if found.data else None,
        seeds=count,
        epochs=found.epochs if epochs is None else check_integer("epochs", epochs, 1),
        quick=quick,
    )
    module = import_module(f"lstm_optax.reproductions.{found.module}")
    return module.make_plan(options)
