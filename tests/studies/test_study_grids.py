"""The tables of a comparison and of a sweep: cells, marks, sentences, and their widths."""

import io
import math
import re

import pytest
from made_records import (
    choice_record,
    made_study,
    optimizer_record,
    read_made,
    study_record,
    trial_records,
)
from rich.console import Console

from lstm_optax.studies import (
    StudyError,
    comparison_grid,
    comparison_sentences,
    comparison_table,
    grid_table,
    paired_differences,
    summarize,
    sweep_grid,
    sweep_table,
)
from lstm_optax.studies.comparison_tables import DETAILED
from lstm_optax.studies.study_grid import format_interval, format_number


def shown(grid, width=80):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(grid_table(grid))
    return console.file.getvalue().splitlines()


def sentences(study):
    rows = summarize(study)
    return comparison_sentences(rows, paired_differences(rows), False)


def test_comparison_in_markdown(tmp_path):
    text = comparison_table(read_made(tmp_path, made_study()))
    lines = text.splitlines()
    assert lines[0].startswith(
        "| optimizer | rank | hyper-parameters | test after 100 steps, 95 % "
    )
    assert lines[2] == (
        "| sgd | 1 | 0.1 | 0.416 (0.408–0.424) | 0.416 (0.408–0.424) | 40 | 0.4 | 5 of 5 | 0.20 | "
        "0.7502 | 13 % | 0 | 10 |"
    )
    assert lines[5] == "| mean (baseline) |  |  | 0.9 |  |  |  |  |  |  |  |  |  |"
    assert len({line.count("|") for line in lines[:6]}) == 1
    assert lines[7].startswith(
        "Differences beyond seed noise: sgd is better than adam by a factor of 1.047 "
        "(1.043–1.051), p = 5.6e-06; than nadam by a factor of "
    )
    assert lines[9] == "Ties: none."


def test_terminal_table_fits_80_columns(tmp_path):
    optimizers = {"rmsprop_momentum": 1e-2, "schedule_free": 1e-3, "adam": 1.0}
    study = read_made(tmp_path, made_study(optimizers=optimizers, noise=0.2))
    lines = shown(comparison_grid(study))
    assert max(map(len, lines)) <= 80
    cells = [line.split() for line in lines[2:5]]
    assert [row[0] for row in cells] == ["rmsprop_momentum", "schedule_free", "adam"]
    assert [row[1] for row in cells] == ["1", "1", "void"]
    assert all("(" in line and "–" in line for line in lines[2:5]), "a rank without interval"


def test_ties_are_called_ties(tmp_path):
    found = sentences(read_made(tmp_path, made_study(spacing=0.0002)))
    assert found == ["Differences beyond seed noise: none.", "Ties: adam = sgd = nadam."]


def test_better_is_named_first(tmp_path):
    rows = summarize(read_made(tmp_path, made_study()))
    tests = paired_differences(rows[::-1])
    assert tests[0].first == "nadam"
    assert comparison_sentences(rows, tests, False)[0].startswith(
        "Differences beyond seed noise: sgd is better than nadam by a factor of 1.09"
    )


def test_only_names_fold(tmp_path):
    study = read_made(tmp_path, made_study(optimizers={"rmsprop_momentum": 1e-2, "b": 1e-2}))
    lines = shown(comparison_grid(study), width=70)[:6]
    assert max(map(len, lines)) <= 70 and not any("rmsprop_momentum" in line for line in lines)
    whole = [line for line in lines if re.search(r"0\.\d{3} \(0\.\d{3}–0\.\d{3}\)", line)]
    assert len(whole) == 2, "an interval is folded"


def test_many_tied_optimizers(tmp_path):
    optimizers = {f"o{i}": 1e-2 for i in range(DETAILED + 1)}
    found = sentences(read_made(tmp_path, made_study(optimizers=optimizers, spacing=0.0)))
    first, *others = (
        found[1].removeprefix("Ties with ").removesuffix(".").replace(": ", ", ").split(", ")
    )
    assert found[0] == f"{first}, with the best mean, is better beyond seed noise than none."
    assert sorted([first, *others]) == sorted(optimizers)


def test_markdown_escapes_pipes(tmp_path):
    study = read_made(tmp_path, made_study(baselines={"p(x|y)": 1.0}))
    assert "\n| p(x\\|y) (baseline) |" in comparison_table(study)


def test_many_differences_are_with_best(tmp_path):
    optimizers = {f"o{i}": 1e-2 for i in range(6)}
    found = sentences(read_made(tmp_path, made_study(optimizers=optimizers)))
    assert 6 * 5 / 2 > DETAILED
    assert found == [
        "o0, with the best mean, is better beyond seed noise than o1, o2, o3, o4, o5.",
        "Ties with o0: none.",
        "Of all 15 pairs 15 differ beyond seed noise.",
    ]


def test_larger_metric_is_the_better(tmp_path):
    study = read_made(tmp_path, made_study(larger_is_better=True, target=None))
    text = comparison_table(study)
    assert "sgd is better than adam by a factor of 1.03" in text and "Larger is better." in text
    assert text.splitlines()[2].split(" | ")[5:8] == ["—", "—", "—"]


def test_untested_differences_are_said(tmp_path):
    text = comparison_table(read_made(tmp_path, made_study(report_seeds=(0,))))
    assert "No differences were tested: that needs two seeds that every optimizer" in text
    assert re.search(r"\| sgd \| — \| 0.1 \| 0.4\d+ \(no interval\) \|", text)


def test_void_and_diverged_rows_have_notes(tmp_path):
    records = made_study(optimizers={"sgd": 1e-1, "adam": 1e-4})
    hyper = {"learning_rate": 0.1}
    records += trial_records("sgd", hyper, 9, [1.0, math.nan], status="diverged")
    grid = comparison_grid(read_made(tmp_path, records))
    assert grid.rows[1][:3] == ["adam", "void", "0.0001"]
    assert grid.rows[1][6].startswith("≥")
    first = [
        record["test"]
        for record in records
        if record.get("step") == 10 and "test" in record and "seed=100" not in record["trial"]
    ]
    worst = format_number(max(value for value in first if value != 1.0))
    note = f"sgd: 1 of 6 seeds diverged, counted as {worst}, the worst first or last value of"
    assert any(found.startswith(note) for found in grid.notes)
    reason = (
        "Void, without a rank: adam. Reason: its best learning rate is at the low edge of the tr"
    )
    assert any(note.startswith(reason) for note in grid.notes)


def test_comparison_without_trials(tmp_path):
    text = comparison_table(read_made(tmp_path, [study_record(), optimizer_record("sgd")]))
    assert "| sgd | void | — | — | — |" in text
    assert "Void, without a rank: sgd. Reason: its tuning has not ended." in text
    grid = comparison_grid(read_made(tmp_path / "empty", [study_record()]))
    assert [row[0] for row in grid.rows] == ["mean (baseline)"]


def test_sweep_is_sorted_and_marked(tmp_path):
    other = {"nesterov": (True, False)}
    records = made_study(
        "sweep", optimizers={"sgd": 1e-2}, rates=(10.0, 0.01, 2.0, 1e-3), other=other
    )
    grid = sweep_grid(read_made(tmp_path, records))
    assert grid.header == ["learning_rate", "nesterov", "validation", "over seeds", "seeds", "note"]
    assert [row[0] for row in grid.rows] == ["0.001"] * 2 + ["0.01"] * 2 + ["2"] * 2 + ["10"] * 2
    assert [row[1] for row in grid.rows] == ["False", "True"] * 4
    assert [row[-1] for row in grid.rows] == ["", "", "", "best"] + ["2 of 2 diverged"] * 4
    assert grid.rows[4][2:5] == ["—", "—", "2"]
    choice = next(r for r in records if r["record"] == "choice")
    assert grid.rows[3][2] == format_number(choice["value"])
    assert grid.notes == [
        "The best setting of sgd is learning_rate=0.01, nesterov=True, with "
        f"{format_number(choice['value'])}."
    ]
    assert max(map(len, shown(grid))) <= 80


def test_sweep_shows_mean_and_range(tmp_path):
    records = [study_record("sweep"), optimizer_record("sgd")]
    for seed, value in ((1000, 1.0), (1001, 1.5)):
        records += trial_records("sgd", {"learning_rate": 0.1}, seed, [value], part="tuning")
    hyper = {"learning_rate": 0.2}
    records += trial_records("sgd", hyper, 1000, [3.0], part="tuning", status="stopped")
    records += trial_records("sgd", {"learning_rate": 0.3}, 1000, [3.0], part="tuning", status=None)
    text = sweep_table(read_made(tmp_path, records))
    assert text.splitlines()[2:] == [
        "| 0.1 | 1.25 | 1 to 1.5 | 2 |  |",
        "| 0.2 | 3 | — | 1 | stopped after 10 steps |",
        "| 0.3 | — | — | 1 | not finished |",
        "",
        "The tuning of sgd has not ended.",
    ]


@pytest.mark.parametrize(
    ("choice", "note"),
    [
        (
            choice_record("sgd", {"learning_rate": 0.1}, 0.5, "high", True),
            "The choice for sgd is void: learning_rate=0.1 is best with 0.5, but at the high edge "
            "of the tried values of learning_rate. Try values past that edge.",
        ),
        (
            choice_record("sgd", {}, None, "low", True),
            "The choice for sgd is void: no setting finished without a diverged trial.",
        ),
    ],
)
def test_void_sweep_says_why(tmp_path, choice, note):
    records = [study_record("sweep"), optimizer_record("sgd"), choice]
    assert sweep_grid(read_made(tmp_path, records)).notes == [note]


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (None, "the study has 3 optimizers: name one of sgd, adam, nadam"),
        ("lion", "the study has no optimizer 'lion': name one of sgd, adam, nadam"),
    ],
)
def test_sweep_of_unknown_optimizer(tmp_path, optimizer, message):
    study = read_made(tmp_path, made_study())
    with pytest.raises(StudyError) as error:
        sweep_table(study, optimizer)
    assert str(error.value) == message
    rows = sweep_grid(study, "adam").rows
    assert [row[0] for row in rows] == ["0.0001", "0.001", "0.01", "0.1", "1"]
    assert {row[3] for row in rows} == {"2"}, "reported seeds are in the sweep"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((1.7423, 1.7391, 1.746), "1.742 (1.739–1.746)"),
        ((0.98, 0.951, 1.0), "0.98 (0.95–1.00)"),
        ((-0.5, -0.61, -0.4), "-0.50 (-0.61 to -0.40)"),
        ((1.234567, 1.234567, 1.234567), "1.2346 (1.2346–1.2346)"),
        ((1.23e-6, 1.2e-6, 1.25e-6), "1.23e-06 (1.2e-06 to 1.25e-06)"),
        ((-0.001, -0.31, 0.3), "0.0 (-0.3 to 0.3)"),
        ((5321.0, 5000.0, 5600.0), "5321 (5000–5600)"),
        ((2.0, math.nan, math.nan), "2 (no interval)"),
        ((math.inf, math.nan, math.nan), "inf (no interval)"),
    ],
)
def test_interval_shows_what_it_resolves(numbers, text):
    assert format_interval(*numbers) == text
