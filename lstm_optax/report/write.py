"""`write_report`: read a study's folder, and write its report next to the records."""

from os import PathLike
from pathlib import Path

from lstm_optax.records import write_atomically
from lstm_optax.report.curves import curve_pictures
from lstm_optax.report.headline import (
    make_headline,
    make_numbers,
    make_title,
    make_warnings,
)
from lstm_optax.report.heat_maps import heat_map_pictures
from lstm_optax.report.looks import Looks
from lstm_optax.report.page import KINDS, Content, render_page
from lstm_optax.report.parallel import parallel_pictures
from lstm_optax.report.rates import rate_pictures
from lstm_optax.report.responses import measure_responses, response_pictures
from lstm_optax.report.series import make_series, task_facts
from lstm_optax.report.tables import markdown_tables, result_tables
from lstm_optax.report.trajectories import trajectory_pictures
from lstm_optax.studies.comparison import summarize
from lstm_optax.studies.outcomes import Metric
from lstm_optax.studies.study_records import StudyError, StudyRecords, read_study

PAGE, PLOTS, TABLE = "report.html", "plots", "table.md"


def write_report(folder: str | PathLike[str], *, responses: bool = True) -> Path:
    """Write the report of a study: report.html, plots/*.png, plots/*.svg and table.md.

    The page is one file that loads nothing. A report that is there is replaced.

    Args:
      folder: of a sweep or a comparison; an unfinished one too.
      responses: measure the optimizers by `explain`, if the library knows their names.

    Returns:
      The path of the page.

    Raises:
      StudyError: the folder holds no study, a damaged one, one of another kind, or records of
        several versions.
    """
    folder = Path(folder)
    study = read_study(folder)
    if study.study["kind"] not in KINDS:
        raise StudyError(
            f"{folder} holds a study of the kind {study.study['kind']}, but a report needs a sweep "
            "or a compare: the command that wrote it prints its table"
        )
    content = make_content(study, folder, responses=responses)
    plots = folder / PLOTS
    plots.mkdir(exist_ok=True)
    for picture in content.pictures:
        picture.write_files(plots)
    table = markdown_tables(study)
    write_atomically(folder / TABLE, f"# {content.title}\n\n{content.headline}\n\n{table}")
    write_atomically(folder / PAGE, render_page(content))
    return folder / PAGE


def make_content(study: StudyRecords, folder: Path, *, responses: bool = True) -> Content:
    """Return what the page of a study shows; see `write_report`."""
    task, summaries = task_facts(study), summarize(study)
    metric = Metric(task.metric, task.larger_is_better)
    series = make_series(study)
    names = [row.optimizer for row in summaries]
    looks = Looks(names)
    curve_looks = looks if series.keys() <= set(names) else Looks(list(series))
    measured, others = measure_responses(study) if responses else ([], [])
    note = f"Not measured, since the library has no such name: {', '.join(others)}."
    return Content(
        title=make_title(study, task),
        headline=make_headline(study, summaries, task),
        numbers=make_numbers(study, summaries),
        warnings=make_warnings(study, summaries),
        table=result_tables(study),
        looks=curve_looks,
        study=study.study,
        curves=curve_pictures(series, task, curve_looks),
        tuning=[
            *rate_pictures(study, summaries, metric, looks),
            *parallel_pictures(study, metric),
        ],
        trajectories=trajectory_pictures(study, series, curve_looks),
        responses=response_pictures(measured, looks),
        gradients=heat_map_pictures(folder),
        notes=[note] if others else [],
    )
