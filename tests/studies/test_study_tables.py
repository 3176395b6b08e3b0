"""The tables of the studies, and that the page on evidence shows them."""

import math
import re
from pathlib import Path

import pytest

from lstm_optax.studies import study_table
from lstm_optax.studies.__main__ import main
from lstm_optax.studies.tables import read_study, wilson_interval

DOCS = Path(__file__).parents[2] / "docs"
STUDIES = ("averaging_study", "long_memory")
RECORDS = [DOCS / "records" / f"{study}.jsonl" for study in STUDIES]
PAGE = (DOCS / "evidence.md").read_text(encoding="utf-8")
SHOWN = re.compile(r"<!-- made of (\S+) -->\n(.*?)\n<!-- end -->", re.S)


def test_page_shows_current_tables():
    shown = {name: text.strip() for name, text in SHOWN.findall(PAGE)}
    made = {f"records/{path.name}": study_table(read_study(path)) for path in RECORDS}
    assert shown == made


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name)
def test_every_record_has_provenance(path):
    records = read_study(path)
    cells = [tuple(record["cell"].items()) for record in records]
    assert records and len(set(cells)) == len(cells)
    for record in records:
        made_by = record["made_by"]
        command = "python -m lstm_optax."
        assert record["study"] == path.stem and made_by["command"].startswith(command)
        assert {"python", "jax", "flax", "optax", "lstm_optax"} <= made_by["versions"].keys()
        assert re.fullmatch("[0-9a-f]{40}", made_by["commit"]), "the working tree was not clean"
        assert made_by["device"] and record["settings"] == records[0]["settings"]
        assert {trial["rate"] for trial in record["trials"]} >= {record["rate"]}
        assert all(isinstance(trial["seed"], int) for trial in record["trials"])


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(8, 8, 0.6756, 1.0), (0, 8, 0.0, 0.3244), (4, 8, 0.2152, 0.7848), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_bounds_solve_their_equation():
    k, n, z = 3, 11, 1.5
    for p in wilson_interval(k, n, math.erf(z / 2**0.5)):
        assert (k / n - p) ** 2 == pytest.approx(z**2 * p * (1 - p) / n)


def memory(
    start="chrono",
    optimizer="sgd",
    solved=(200, None, 100),
    on_edge=False,
    scores=None,
    tuned=True,
):
    scores = scores or [0.001 if at else 0.2 for at in solved]
    trials = [
        dict(rate=0.3, seed=seed, solved=at is not None, solved_at=at, score=score, steps=300)
        for seed, (at, score) in enumerate(zip(solved, scores, strict=True))
    ]
    return {
        "study": "long_memory",
        "cell": {"task": "adding", "start": start, "optimizer": optimizer},
        "rate": 0.3,
        "on_edge": on_edge,
        "baseline": 1 / 6,
        "solved_below": 1 / 120,
        "trials": trials,
        "tuning": [{"solved": False}, {"solved": tuned}],
    }


def test_rows_are_sorted():
    table = study_table([memory(), memory("forget_bias_1", "nadam"), memory("forget_bias_1")])
    rows = [line.split(" | ")[:2] for line in table.splitlines()[4:]]
    assert rows == [
        ["| forget bias 1", "SGD"],
        ["| forget bias 1", "Nadam"],
        ["| chrono", "SGD"],
    ]
    assert table.splitlines()[0] == (
        "Adding: the baseline has a score of 0.1667; a score below 0.0083 counts as solved."
    )
    low, high = wilson_interval(2, 3)
    expected = f"| chrono | SGD | 0.3 | 2 of 3 | {low:.2f}–{high:.2f} | 150 (100–200) | 0.0010 |"
    assert table.splitlines()[-1] == expected


def test_footnotes_for_edge_and_unsolved_rates():
    lost = memory(solved=(None, None), on_edge=True, scores=[None, None], tuned=False)
    row, *notes = study_table([lost]).splitlines()[4::2]
    assert row == "| chrono | SGD | 0.3\\*† | 0 of 2 | 0.00–0.66 | – | not finite |"
    assert notes == [
        "\\* The best rate is at the edge of the tried rates, so it is not tuned.",
        "† No rate solved the task with a tuning seed, so the choice of the rate means little.",
    ]


def averaging(course, part, ends):
    trials = [
        dict(rate=rate, seed=seed, last=[3.0, last], averaged=[3.0, mean], averaging_from=begun)
        for rate, seed, last, mean, begun in ends
    ]
    record = {"study": "averaging_study", "cell": {"course": course, "part": part}}
    return record | {"rate": trials[0]["rate"], "trials": trials}


def averaging_records(average=1.4, cosine=1.3, edge=2.0):
    tried = [(10, 1000, 1.5, 1.4, 900), (3, 1000, 1.4, 1.45, None), (1, 1000, edge, 2.0, None)]
    tried.append((30, 1000, 1.6, 1.7, None))
    return [
        averaging("constant", "tuning", tried),
        averaging("constant", "seeds", [(3, 0, 1.45, 1.45, None), (3, 1, 1.5, 1.49, 1000)]),
        averaging(
            "constant", "seeds_averaged", [(10, 0, 1.5, average, 900), (10, 1, 1.6, 1.5, 80)]
        ),
        averaging(
            "cosine", "tuning", [(r, 1000, 1.3 + (r - 30) ** 2, 1, 1) for r in (10, 30, 100)]
        ),
        averaging("cosine", "seeds", [(30, 0, cosine, 1.0, 1), (30, 1, 1.7, 1.0, 1)]),
    ]


def test_compares_average_with_last_iterate():
    lines = study_table(averaging_records()).splitlines()
    assert lines[0] == (
        "| seed | averaged from step | rate 10, averaged | last iterate of the same run "
        "| rate 3, last iterate | averaged, same run | cosine, rate 30, last iterate |"
    )
    assert lines[2:5] == [
        "| 0 | 900 | 1.4000 | 1.5000 | 1.4500 | 1.4500 | 1.3000 |",
        "| 1 | 80 | 1.5000 | 1.6000 | 1.5000 | 1.4900 | 1.7000 |",
        "| mean |  | 1.4500 | 1.5500 | 1.4750 | 1.4700 | 1.5000 |",
    ]
    assert lines[6] == (
        "At rate 10 the average is better than the last iterate of the same run in 2 of 2 seeds "
        "and than the last iterate at rate 3 in 1 of 2 seeds and than the last iterate under the "
        "cosine schedule in 1 of 2 seeds. At rate 3 the trigger fired in 1 of 2 seeds."
    )
    assert lines[8].split(" | ")[1:] == [
        "constant, averaged",
        "constant, last iterate",
        "cosine, last iterate |",
    ]
    assert lines[10:] == [
        "| 1 | 2.0000 | 2.0000 | – |",
        "| 3 | 1.4500 | 1.4000 | – |",
        "| 10 | 1.4000 | 1.5000 | 401.3000 |",
        "| 30 | 1.7000 | 1.6000 | 1.3000 |",
        "| 100 | – | – | 4901.3000 |",
    ]


def test_table_without_cosine_and_second_rate():
    records = [averaging_records()[0], averaging_records()[1]]
    lines = study_table(records).splitlines()
    assert lines[0] == (
        "| seed | averaged from step | rate 3, averaged | last iterate of the same run |"
    )
    assert lines[6].startswith(
        "At rate 3 the average is better than the last iterate of the same run in 1 of 2 seeds."
    )
    assert "cosine" not in "".join(lines)


def test_nonfinite_loss_is_never_better():
    table = study_table(averaging_records(average=None, edge=1.0))
    assert "| 0 | 900 | not finite | 1.5000 |" in table
    assert "| mean |  | not finite | 1.5500 |" in table and "same run in 1 of 2 seeds and" in table
    assert table.endswith(
        "is at the edge of the tried rates, so it is not tuned: constant, last iterate."
    )


def test_rejects_other_records():
    with pytest.raises(
        ValueError,
        match="got records of no study; expected those of one of long_memory,",
    ):
        study_table([])
    with pytest.raises(ValueError, match="got records of averaging_study, long_memory; expected"):
        study_table([memory(), *averaging_records()])
    with pytest.raises(ValueError, match="the trials at a constant rate are missing"):
        study_table(averaging_records()[:1])


def test_command_prints_tables(capsys, tmp_path):
    assert main([str(RECORDS[0])]) == 0
    assert capsys.readouterr().out == study_table(read_study(RECORDS[0])) + "\n"
    bad = tmp_path / "bad.jsonl"
    bad.write_text("[1]\n")
    for files in ([], [str(bad)], [str(tmp_path / "none.jsonl")]):
        assert main(files) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
