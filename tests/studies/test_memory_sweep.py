"""The study of long memory: the choice of the rate, the end of the trials, resuming."""

from dataclasses import replace

import numpy as np
import pytest

from lstm_optax.runs import OptionError
from lstm_optax.studies import memory_sweep, memory_trainer
from lstm_optax.studies.memory_sweep import LongMemoryConfig
from lstm_optax.studies.memory_trainer import TUNED_OPTIMIZERS, MemoryTrainer

SIZES = LongMemoryConfig(length=10, hidden=2, batch=2, steps=60, check_every=10, held_out=4)
ONE = ["--tasks", "adding", "--optimizers", "nadam", "--starts", "chrono"]


@pytest.fixture
def play(monkeypatch):
    """A trainer with given results: (rate, seed) → step that solves the task, or NaN."""

    def make(plays, config=SIZES):
        trainer = MemoryTrainer("adding", "nadam", config)
        calls = []

        def train(start, pairs, *, steps=None, **options):
            calls.append((pairs, steps))
            checks = iter(range(config.check_every, config.steps + 1, config.check_every))

            def advance(params, state, rates, batches):
                at = next(checks)
                worth = [plays(*pair) for pair in pairs]
                scores = [np.nan if np.isnan(w) else 1e-3 if at >= w else 0.1 + w for w in worth]
                return params, state, np.array(scores)

            monkeypatch.setattr(trainer, "_advance", advance)
            return MemoryTrainer.train(trainer, start, pairs, steps=steps, **options)

        monkeypatch.setattr(trainer, "train", train)
        return trainer, calls

    return make


def tune(trainer, config=SIZES):
    return memory_sweep._run_cell(trainer, "chrono", config, lambda line: None)


@pytest.mark.slow
def test_first_rate_to_solve_all_seeds_wins(play):
    steps = {1e-3: 50, 3e-3: 30, 1e-2: 20, 3e-2: 40}
    trainer, calls = play(lambda rate, seed: steps[rate] + 10 * (seed == 1001))
    record = tune(trainer)
    assert record["rate"] == 1e-2 and not record["on_edge"]
    assert {trial["steps"] for trial in record["tuning"]} == {30}, "it ends with the best rate"
    assert [seed for _, seed in calls[0][0]] == 4 * [1000, 1001]
    assert [pair for pair in calls[-1][0]] == [(1e-2, seed) for seed in range(8)]
    assert [trial["solved_at"] for trial in record["trials"]] == [20] * 8
    assert record["trials"][3] == {
        "rate": 1e-2,
        "seed": 3,
        "solved": True,
        "solved_at": 20,
        "score": 1e-3,
        "steps": 20,
    }


def test_more_solved_seeds_beat_earlier_steps(play):
    steps = {(3e-3, 1000): 50, (3e-3, 1001): 50, (1e-2, 1000): 10}
    trainer, _ = play(lambda rate, seed: steps.get((rate, seed), 99))
    record = tune(trainer)
    assert record["rate"] == 3e-3
    assert [trial["solved_at"] for trial in record["tuning"] if trial["solved"]] == [50, 50, 10]


def test_lowest_score_wins_without_solved_seeds(play):
    trainer, calls = play(lambda rate, seed: 100 + abs(np.log(rate / 3e-3)))
    record = tune(trainer)
    assert record["rate"] == 3e-3 and len(calls) == 2
    assert {trial["steps"] for trial in record["tuning"] + record["trials"]} == {60}
    assert not any(trial["solved"] for trial in record["trials"])
    assert {trial["solved_at"] for trial in record["trials"]} == {None}


def test_grid_grows_while_best_is_at_edge(play):
    trainer, calls = play(lambda rate, seed: 100 + abs(np.log(rate / 1e-1)))
    record = tune(trainer)
    assert record["rate"] == 0.1 and not record["on_edge"]
    assert [pairs for pairs, _ in calls[1:3]] == [
        [(0.1, 1000), (0.1, 1001)],
        [(0.3, 1000), (0.3, 1001)],
    ]


def test_marks_best_rate_at_the_edge(play):
    trainer, calls = play(lambda rate, seed: 100 + abs(np.log(rate / 1e-5)))
    record = tune(trainer)
    assert record["rate"] == 1e-4 and record["on_edge"]
    assert len(calls) == 4, "the grid, two extensions, the report"


def test_new_rates_stop_at_best_steps(play):
    trainer, calls = play(lambda rate, seed: 20 if rate == 3e-2 else 30)
    record = tune(trainer)
    assert record["rate"] == 3e-2 and not record["on_edge"]
    assert [steps for _, steps in calls] == [60, 20, None]


def test_nan_trial_ends_alone(play):
    def plays(rate, seed):
        return np.nan if rate == 3e-2 or seed == 2 else 40

    record = tune(play(plays)[0])
    lost = [trial for trial in record["trials"] + record["tuning"] if trial["score"] is None]
    assert lost and not any(trial["solved"] for trial in lost)
    assert sum(trial["solved"] for trial in record["trials"]) == 7
    assert {trial["steps"] for trial in record["trials"]} == {40}, "it ends with the others"


@pytest.mark.slow
def test_trials_are_independent():
    trainer = MemoryTrainer("temporal_order", "nadam", replace(SIZES, steps=10))
    alone = trainer.train("chrono", [(1e-2, 5)])
    together = trainer.train("chrono", [(1e-1, 4), (1e-2, 5), (1e-2, 6)])
    assert alone[0]["score"] == pytest.approx(together[1]["score"], rel=1e-5)
    assert len({trial["score"] for trial in together}) == 3


def test_each_seed_has_its_own_batches():
    trainer = MemoryTrainer("adding", "sgd", SIZES)
    batches = trainer._batches(3, 2, [7, 8, 7])
    assert batches.inputs.shape == (2, 3, 10, 2, 2)
    np.testing.assert_array_equal(batches.inputs[:, 0], batches.inputs[:, 2])
    np.testing.assert_array_equal(batches.targets[1, 1], trainer.task(4, batch=2, seed=8).targets)
    assert not np.array_equal(batches.inputs[0, 0], batches.inputs[0, 1])


def test_starts_differ_only_in_biases():
    trainer = MemoryTrainer("adding", "sgd", SIZES)
    (zero, _), (one, _), (chrono, _) = (
        trainer._initial(start, 0.1, 3) for start in ("forget_bias_0", "forget_bias_1", "chrono")
    )
    bias = [p["lstm"]["layers"][0]["forward"]["bias"][...][2:4] for p in (zero, one, chrono)]
    np.testing.assert_array_equal(bias[:2], [[0, 0], [1, 1]])
    assert (bias[2] > 0).all() and (bias[2] <= np.log(9)).all()
    kernels = [p["lstm"]["layers"][0]["forward"]["kernel_hh"][...] for p in (zero, one, chrono)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    np.testing.assert_array_equal(kernels[0], kernels[2])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", list(TUNED_OPTIMIZERS))
@pytest.mark.parametrize("task", list(memory_trainer.TASKS))
def test_every_optimizer_learns_short_tasks(task, optimizer):
    sizes = replace(SIZES, hidden=8, batch=16, steps=300, check_every=300, held_out=64)
    trainer = MemoryTrainer(task, optimizer, sizes)
    (trial,) = trainer.train("chrono", [(TUNED_OPTIMIZERS[optimizer].rates[1], 0)])
    assert trial["score"] < trainer.task.baseline / 5


@pytest.mark.slow
def test_quick_study_resumes_from_its_file(tmp_path, monkeypatch, capsys):
    out = ["--out", str(tmp_path / "records.jsonl"), "--quick"]
    assert memory_sweep.main([*ONE, *out]) == 0
    shown = capsys.readouterr().out
    assert "adding, chrono, nadam: rate " in shown and "of 2 solved" in shown
    config = LongMemoryConfig(
        out=tmp_path / "records.jsonl", quick=True, tasks=("adding",), optimizers=("nadam",)
    )
    monkeypatch.setattr(MemoryTrainer, "train", lambda *_, **__: pytest.fail("it was run again"))
    (record,) = memory_sweep.run(replace(config, starts=("chrono",)))
    assert record["made_by"]["command"].startswith("python -m lstm_optax.studies.memory_sweep")
    assert record["settings"]["optimizers"]["nadam"]["rates"] == [1e-3, 3e-3, 1e-2, 3e-2]
    assert [trial["seed"] for trial in record["trials"]] == [0, 1]
    assert record["baseline"] == pytest.approx(1 / 6)
    with pytest.raises(pytest.fail.Exception, match="it was run again"):
        memory_sweep.run(replace(config, starts=("chrono", "forget_bias_0")))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--length", "9"], "--length is 9, but must be a whole number from 10 to 2,147,483,647"),
        (["--seeds", "0"], "--seeds is 0, but must be a whole number from 1 to 2,147,483,647"),
        (["--steps", "150"], "--steps is 150, but must be a multiple of --check-every 100"),
        (
            ["--extensions", "-1"],
            "--extensions is -1, but must be a whole number from 0 to 2,147,483,647",
        ),
    ],
)
def test_invalid_option_is_one_line(flags, message, tmp_path, capsys):
    assert memory_sweep.main([*flags, "--out", str(tmp_path / "r.jsonl")]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (tmp_path / "r.jsonl").exists()


def test_rejects_file_of_other_settings(tmp_path, capsys):
    path = tmp_path / "r.jsonl"
    path.write_text('{"study": "long_memory", "settings": {"batch": 1}, "cell": {}}\n')
    with pytest.raises(OptionError, match="batch 1 and not 32"):
        memory_sweep.run(LongMemoryConfig(out=path))
    assert memory_sweep.main(["--out", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
