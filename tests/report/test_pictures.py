"""The numbers that the charts of a report draw."""

import json
import math

import numpy as np
import pytest
from made_records import choice_record, made_study, read_made, study_record, trial_records

from lstm_optax.report.curves import curve_pictures
from lstm_optax.report.heat_maps import heat_map_pictures
from lstm_optax.report.looks import Looks, number_axis
from lstm_optax.report.parallel import Axis, parallel_pictures
from lstm_optax.report.rates import rate_pictures
from lstm_optax.report.responses import measure_responses
from lstm_optax.report.series import curve_rows, make_series, task_facts, varying_names
from lstm_optax.report.tables import sort_value
from lstm_optax.report.trajectories import trajectory_pictures
from lstm_optax.studies import Metric, StudyError, summarize

RATE = {"learning_rate": 1e-2}


def test_curves_are_means_over_seeds(tmp_path):
    values = np.random.default_rng(0).uniform(size=(3, 4))
    records = [study_record()]
    for seed, row in enumerate(values):
        records += trial_records("sgd", RATE, seed, row.tolist(), seconds=[1, 2, 3, 4 + seed])
    rows = curve_rows(make_series(read_made(tmp_path, records)), "validation")
    found = {key: [row[key] for row in rows] for key in ("mean", "low", "high", "seconds")}
    assert found["mean"] == pytest.approx(values.mean(0))
    assert found["low"] == values.min(0).tolist() and found["high"] == values.max(0).tolist()
    assert found["seconds"] == [1, 2, 3, 5]


def test_curve_ends_where_seed_diverges(tmp_path):
    records = [study_record(), *trial_records("sgd", RATE, 0, [3.0, 2.0, 1.0])]
    records += trial_records("sgd", RATE, 1, [3.0, math.nan], status="diverged")
    rows = curve_rows(make_series(read_made(tmp_path, records)), "validation")
    assert [row["step"] for row in rows] == [10]


def test_long_curve_is_thinned(tmp_path):
    records = [study_record(), *trial_records("sgd", RATE, 0, [1.0] * 1000)]
    rows = curve_rows(make_series(read_made(tmp_path, records)), "validation")
    assert len(rows) == 200 and rows[0]["step"] == 10 and rows[-1]["step"] == 10_000


def test_blown_up_points_are_left_out(tmp_path):
    records = [study_record(), *trial_records("sgd", RATE, 0, [2.0, 1e9, 1.0])]
    study = read_made(tmp_path, records)
    picture = curve_pictures(make_series(study), task_facts(study), Looks(["sgd"]))[0]
    assert [row["mean"] for row in picture.rows["curves"]] == [2.0, 1.0]
    assert picture.caption.endswith("1 points are too far off to be drawn.")


def test_sweep_has_curve_per_setting(tmp_path):
    study = read_made(tmp_path, made_study("sweep", optimizers={"nadam": 1e-2}))
    series = make_series(study)
    rates = ["0.0001", "0.001", "0.01", "0.1", "1"]
    assert list(series) == [f"learning_rate={rate}" for rate in rates]
    assert all(len(trials) == 2 for trials in series.values())


def test_many_settings_keep_the_best(tmp_path):
    other = {"b1": (0.9, 0.8, 0.7)}
    study = read_made(tmp_path, made_study("sweep", optimizers={"nadam": 1e-2}, other=other))
    series = make_series(study)
    assert len(series) == 10
    assert "learning_rate=0.01 b1=0.9" in series and "learning_rate=1 b1=0.7" not in series


def test_looks_differ(tmp_path):
    looks = Looks([str(number) for number in range(140)])
    assert len({looks.of(name) for name in looks.names}) == 140


def test_log_axis_has_powers_of_ten():
    assert number_axis(3e-4, 2.0).to_dict()["values"] == [0.001, 0.01, 0.1, 1.0]
    assert number_axis(0.9, 6.0).to_dict()["values"] == [1.0, 2.0, 5.0]


@pytest.fixture
def rates(tmp_path):
    records = made_study(optimizers={"sgd": 1e-1, "adam": 1e-2}, noise=0.0)
    study = read_made(tmp_path, records)
    return rate_pictures(study, summarize(study), Metric("validation"), Looks(["sgd", "adam"]))[0]


def test_rates_mark_diverged_trials(rates):
    lost = [(row["series"], row["rate"], row["diverged"]) for row in rates.rows["lost"]]
    assert lost == [("sgd", 1.0, 2), ("adam", 0.1, 2), ("adam", 1.0, 2)]
    places = {row["series"]: row["place"] for row in rates.rows["lost"]}
    assert places["sgd"] < places["adam"] < 90
    assert "adam best at 0.01, diverged at 0.1, 1" in rates.description


def test_rates_show_final_values(rates):
    lines = {(row["series"], row["rate"]): row["value"] for row in rates.rows["lines"]}
    assert lines[("sgd", 1e-1)] == pytest.approx(0.4, abs=2e-3)
    assert lines[("adam", 1e-3)] == pytest.approx(0.42 + 0.1, abs=2e-3)
    assert len(rates.rows["trials"]) == 2 * len(lines)


def test_one_rate_has_no_chart(tmp_path):
    study = read_made(tmp_path, made_study(optimizers={"sgd": 1e-2}, rates=(1e-2,)))
    assert rate_pictures(study, summarize(study), Metric("validation"), Looks(["sgd"])) == []


def test_axis_places_numbers_by_logarithm():
    axis = Axis.of("rate", [1e-1, 1e-3, 1e-2])
    assert axis.places == {1e-3: 0.0, 1e-2: pytest.approx(0.5), 1e-1: 1.0}
    assert Axis.of("b1", [0.8, 0.9, 0.95]).places[0.9] == pytest.approx(2 / 3)
    assert Axis.of("schedule", ["cosine", "constant"]).places == {"cosine": 0, "constant": 1}


def test_axis_of_many_values_labels_its_ends():
    labels = Axis.of("rate", np.geomspace(1e-4, 1e-1, 20).tolist()).labels
    assert list(labels.values()) == ["0.0001", "0.1"]
    assert len(Axis.of("b1", [0.8, 0.9, 0.95]).labels) == 3


def test_parallel_lines_rank_trials(tmp_path):
    other = {"b1": (0.9, 0.8), "nesterov": (True, False)}
    records = made_study("sweep", optimizers={"nadam": 1e-2}, other=other, tuning_seeds=(1000,))
    (picture,) = parallel_pictures(read_made(tmp_path, records), Metric("validation"))
    best = [row for row in picture.rows["lines"] if row["rank"] == 1]
    names = ["learning_rate", "b1", "nesterov", "final validation"]
    assert [row["axis"] for row in best] == names
    assert best[0]["trial"].startswith("nadam learning_rate=0.01 b1=0.9 nesterov=True")
    lost = [row for row in picture.rows["lines"] if row["rank"] is None]
    assert len(lost) == 2 * 4 * 3  # two rates, four settings, and no result


def test_two_hyper_parameters_have_no_parallel_chart(tmp_path):
    study = read_made(tmp_path, made_study("sweep", optimizers={"a": 1e-2}, other={"b1": (1, 2)}))
    assert varying_names(list(study.trials.values())) == ["learning_rate", "b1"]
    assert parallel_pictures(study, Metric("validation")) == []


def test_trajectories_begin_at_the_start(tmp_path):
    settings = {"surface": "saddle", "start": [0.5, 0.001], "condition": None, "noise": 0.0}
    trial = trial_records("sgd", RATE, 0, [0.2, 0.1])
    for row, x in zip(trial[1:3], (0.4, 0.3), strict=True):
        row |= {"x": x, "y": 0.002}
    records = [study_record(settings=None, name="saddle"), *trial]
    records[0]["task"]["settings"] = settings
    study = read_made(tmp_path, [*records, choice_record("sgd", RATE)])
    (picture,) = trajectory_pictures(study, make_series(study), Looks(["sgd"]))
    points = picture.rows["points"]
    assert [point["x"] for point in points] == [0.5, 0.4, 0.3]
    assert [point["start"] for point in points] == [True, False, False]
    values = {}
    for row in picture.rows["contours"]:
        values.setdefault(row["line"], []).append(row["x"] ** 2 - row["y"] ** 2)
    assert len(values) > 10 and all(np.ptp(line) < 2e-3 for line in values.values())


def test_other_tasks_have_no_trajectories(tmp_path):
    study = read_made(tmp_path, made_study())
    assert trajectory_pictures(study, make_series(study), Looks(list(study.optimizers))) == []


def test_heat_maps_show_gradients(tmp_path):
    rows = [{"step": s, "h": [[1.0, 0.1]], "reach": [[0.0, None]]} for s in (20, 10)]
    (tmp_path / "gradients.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole, last = heat_map_pictures(tmp_path)
    assert [(row["step"], row["time"], row["power"]) for row in whole.rows["cells"]] == [
        ("10", 0, 0.0), ("10", 1, -1.0), ("20", 0, 0.0), ("20", 1, -1.0),
    ]  # fmt: skip
    assert [row["norm"] for row in last.rows["cells"]] == [0.0, None, 0.0, None]
    assert "Not finite: 2 of 4 values." in last.caption


def test_heat_maps_reject_other_lines(tmp_path):
    (tmp_path / "gradients.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(StudyError, match=r"line 1 of .*gradients\.jsonl is not a record of grad"):
        heat_map_pictures(tmp_path)


@pytest.mark.slow
def test_responses_use_the_study_settings(tmp_path):
    names = {"momentum_sgd": 1e-2, "nesterov_sgd": 1e-2, "my rule": 1e-2}
    records = made_study(optimizers=names, other={"momentum": (0.5, 0.6)})
    records[0]["settings"] = {"settings": {"nesterov_sgd": {"momentum": 0.75}}}
    records = [
        r for r in records if (r["record"], r.get("optimizer")) != ("choice", "nesterov_sgd")
    ]
    measured, others = measure_responses(read_made(tmp_path, records))
    gains = {response.name: response.steady_gain for response in measured}
    assert gains == {"momentum_sgd": pytest.approx(2), "nesterov_sgd": pytest.approx(4)}
    assert others == ["my rule"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.42 (0.40–0.45)", 0.42), ("≥0.51", 0.51), ("3 of 5", 3), ("-4 (-4 to -4)", -4), ("—", None)]
    + [("", None), ("nadam", "nadam"), ("7.3e-07 (1e-8–2e-6)", 7.3e-07), ("12 %", 12)],
)
def test_cells_sort_by_first_number(text, value):
    assert sort_value(text) == value
