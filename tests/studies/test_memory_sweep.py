"""The study of long memory: how a rate is chosen, when it ends, what is not run again."""

from dataclasses import replace

import numpy as np
import pytest

from lstm_optax.runs import OptionError
from lstm_optax.studies import memory_sweep as long_memory
from lstm_optax.studies import memory_trainer as remembering
from lstm_optax.studies.memory_sweep import LongMemoryConfig
from lstm_optax.studies.memory_trainer import OPTIMIZERS, Program

SIZES = LongMemoryConfig(length=10, hidden=2, batch=2, steps=60, check_every=10, held_out=4)
ONE = ["--tasks", "adding", "--optimizers", "nadam", "--starts", "chrono"]


@pytest.fixture
def play(monkeypatch):
    """A program whose lanes score as told: (rate, seed) → step at which it is solved, or NaN."""

    def make(plays, config=SIZES):
        program = Program("adding", "nadam", config)
        calls = []

        def train(start, pairs, *, steps=None, alike=None, tell=print):
            calls.append((pairs, steps))
            looks = iter(range(config.check_every, config.steps + 1, config.check_every))

            def advance(params, state, rates, batches):
                at = next(looks)
                worth = [plays(*pair) for pair in pairs]
                scores = [np.nan if np.isnan(w) else 1e-3 if at >= w else 0.1 + w for w in worth]
                return params, state, np.array(scores)

            monkeypatch.setattr(program, "_advance", advance)
            return Program.train(program, start, pairs, steps=steps, alike=alike, tell=tell)

        monkeypatch.setattr(program, "train", train)
        return program, calls

    return make


def tune(program, config=SIZES):
    return long_memory._run_cell(program, "chrono", config, lambda line: None)


@pytest.mark.slow
def test_the_rate_whose_seeds_are_all_solved_first_is_taken(play):
    steps = {1e-3: 50, 3e-3: 30, 1e-2: 20, 3e-2: 40}
    program, calls = play(lambda rate, seed: steps[rate] + 10 * (seed == 1001))
    record = tune(program)
    assert record["rate"] == 1e-2 and not record["on_edge"]
    assert {lane["steps"] for lane in record["tuning"]} == {30}, "ended with the best"
    assert [seed for _, seed in calls[0][0]] == 4 * [1000, 1001]
    assert [pair for pair in calls[-1][0]] == [(1e-2, seed) for seed in range(8)]
    assert [lane["solved_at"] for lane in record["lanes"]] == [20] * 8
    assert record["lanes"][3] == {
        "rate": 1e-2,
        "seed": 3,
        "solved": True,
        "solved_at": 20,
        "score": 1e-3,
        "steps": 20,
    }


def test_a_rate_that_solves_more_seeds_is_better_than_an_earlier_one(play):
    steps = {(3e-3, 1000): 50, (3e-3, 1001): 50, (1e-2, 1000): 10}
    program, _ = play(lambda rate, seed: steps.get((rate, seed), 99))
    record = tune(program)
    assert record["rate"] == 3e-3
    assert [lane["solved_at"] for lane in record["tuning"] if lane["solved"]] == [50, 50, 10]


def test_without_a_solved_seed_the_lowest_score_decides(play):
    program, calls = play(lambda rate, seed: 100 + abs(np.log(rate / 3e-3)))
    record = tune(program)
    assert record["rate"] == 3e-3 and len(calls) == 2
    assert {lane["steps"] for lane in record["tuning"] + record["lanes"]} == {60}
    assert not any(lane["solved"] for lane in record["lanes"])
    assert {lane["solved_at"] for lane in record["lanes"]} == {None}


def test_the_grid_grows_while_the_best_is_on_its_edge(play):
    program, calls = play(lambda rate, seed: 100 + abs(np.log(rate / 1e-1)))
    record = tune(program)
    assert record["rate"] == 0.1 and not record["on_edge"]
    assert [pairs for pairs, _ in calls[1:3]] == [
        [(0.1, 1000), (0.1, 1001)],
        [(0.3, 1000), (0.3, 1001)],
    ]


def test_a_best_rate_that_stays_on_the_edge_is_marked(play):
    program, calls = play(lambda rate, seed: 100 + abs(np.log(rate / 1e-5)))
    record = tune(program)
    assert record["rate"] == 1e-4 and record["on_edge"]
    assert len(calls) == 4, "the grid, two extensions, the report"


def test_past_the_edge_no_rate_runs_longer_than_the_best(play):
    program, calls = play(lambda rate, seed: 20 if rate == 3e-2 else 30)
    record = tune(program)
    assert record["rate"] == 3e-2 and not record["on_edge"]
    assert [steps for _, steps in calls] == [60, 20, None]


def test_a_lane_that_is_lost_ends_nothing_but_itself(play):
    def plays(rate, seed):
        return np.nan if rate == 3e-2 or seed == 2 else 40

    record = tune(play(plays)[0])
    lost = [lane for lane in record["lanes"] + record["tuning"] if lane["score"] is None]
    assert lost and not any(lane["solved"] for lane in lost)
    assert sum(lane["solved"] for lane in record["lanes"]) == 7
    assert {lane["steps"] for lane in record["lanes"]} == {40}, "nothing is left to wait for"


@pytest.mark.slow
def test_a_lane_does_not_depend_on_the_others():
    program = Program("temporal_order", "nadam", replace(SIZES, steps=10))
    alone = program.train("chrono", [(1e-2, 5)])
    beside = program.train("chrono", [(1e-1, 4), (1e-2, 5), (1e-2, 6)])
    assert alone[0]["score"] == pytest.approx(beside[1]["score"], rel=1e-5)
    assert len({lane["score"] for lane in beside}) == 3


def test_a_seed_reads_its_own_batches_at_every_rate():
    program = Program("adding", "sgd", SIZES)
    batches = program._batches(3, 2, [7, 8, 7])
    assert batches.inputs.shape == (2, 3, 10, 2, 2)
    np.testing.assert_array_equal(batches.inputs[:, 0], batches.inputs[:, 2])
    np.testing.assert_array_equal(batches.targets[1, 1], program.task(4, batch=2, seed=8).targets)
    assert not np.array_equal(batches.inputs[0, 0], batches.inputs[0, 1])


def test_the_starts_differ_in_the_biases_alone():
    program = Program("adding", "sgd", SIZES)
    (zero, _), (one, _), (chrono, _) = (
        program._initial(start, 0.1, 3) for start in ("forget_bias_0", "forget_bias_1", "chrono")
    )
    bias = [p["lstm"]["layers"][0]["forward"]["bias"][...][2:4] for p in (zero, one, chrono)]
    np.testing.assert_array_equal(bias[:2], [[0, 0], [1, 1]])
    assert (bias[2] > 0).all() and (bias[2] <= np.log(9)).all()
    kernels = [p["lstm"]["layers"][0]["forward"]["kernel_hh"][...] for p in (zero, one, chrono)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    np.testing.assert_array_equal(kernels[0], kernels[2])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("task", list(remembering.TASKS))
def test_every_optimizer_learns_every_task_where_it_is_short(task, optimizer):
    sizes = replace(SIZES, hidden=8, batch=16, steps=300, check_every=300, held_out=64)
    program = Program(task, optimizer, sizes)
    (lane,) = program.train("chrono", [(OPTIMIZERS[optimizer].rates[1], 0)])
    assert lane["score"] < program.task.baseline / 5


@pytest.mark.slow
def test_the_quick_study_runs_and_goes_on_from_its_file(tmp_path, monkeypatch, capsys):
    out = ["--out", str(tmp_path / "records.jsonl"), "--quick"]
    assert long_memory.main([*ONE, *out]) == 0
    shown = capsys.readouterr().out
    assert "adding, chrono, nadam: rate " in shown and "of 2 solved" in shown
    config = LongMemoryConfig(
        out=tmp_path / "records.jsonl", quick=True, tasks=("adding",), optimizers=("nadam",)
    )
    monkeypatch.setattr(Program, "train", lambda *_, **__: pytest.fail("it was run again"))
    (record,) = long_memory.run(replace(config, starts=("chrono",)))
    assert record["made_by"]["command"].startswith("python -m lstm_optax.studies.memory_sweep")
    assert record["settings"]["optimizers"]["nadam"]["rates"] == [1e-3, 3e-3, 1e-2, 3e-2]
    assert [lane["seed"] for lane in record["lanes"]] == [0, 1]
    assert record["baseline"] == pytest.approx(1 / 6)
    with pytest.raises(pytest.fail.Exception, match="it was run again"):
        long_memory.run(replace(config, starts=("chrono", "forget_bias_0")))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--length", "9"], "--length is 9, but must be at least 10"),
        (["--seeds", "0"], "--seeds is 0, but must be at least 1"),
        (["--steps", "150"], "--steps is 150, but must be a multiple of --check-every 100"),
        (["--extensions", "-1"], "--extensions is -1, but must be 0 or more"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(flags, message, tmp_path, capsys):
    assert long_memory.main([*flags, "--out", str(tmp_path / "r.jsonl")]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (tmp_path / "r.jsonl").exists()


def test_a_file_of_other_settings_is_one_line(tmp_path, capsys):
    path = tmp_path / "r.jsonl"
    path.write_text('{"study": "long_memory", "settings": {"batch": 1}, "cell": {}}\n')
    with pytest.raises(OptionError, match="batch 1 and not 32"):
        long_memory.run(LongMemoryConfig(out=path))
    assert long_memory.main(["--out", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
