"""The study of averaging: the iterates of SGD, their average, the choice of the rates."""

import gc
import weakref
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lstm_optax import clip_by_global_norm, sgd
from lstm_optax.runs.build import make_losses
from lstm_optax.runs.corpus import load_corpus
from lstm_optax.studies import char_lm_sweep
from lstm_optax.studies.char_lm_sweep import AveragingStudyConfig
from lstm_optax.studies.char_lm_trainer import CharLMTrainer

TEXT = "".join(f"{word} and " for word in ("cat", "dog", "pig", "hen") * 30)
SIZES = AveragingStudyConfig(
    embedding=3, hidden=4, batch=2, window=8, steps=10, eval_every=1, nonmonotone=1, seeds=2
)


@pytest.fixture
def trainer(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return CharLMTrainer(load_corpus(path, SIZES.batch, SIZES.window), SIZES)


@pytest.mark.slow
def test_iterate_is_sgd_and_average_its_mean(trainer):
    (trial, _) = trainer.train("constant", [(30.0, 0), (30.0, 1)])
    model = trainer._model(0)
    graphdef, params = nnx.split(model)
    loss, measure = make_losses(graphdef)
    optimizer = optax.chain(clip_by_global_norm(SIZES.clip), sgd(30.0))
    state, carry = optimizer.init(params), model.lstm.initial_carry(SIZES.batch)

    @jax.jit
    def step(params, state, carry, batch):
        grads, carry = jax.grad(loss, has_aux=True)(params, carry, batch, jax.random.key(0))
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, carry

    def validate(params):
        total, count, carried = 0.0, 0, model.lstm.initial_carry(SIZES.batch)
        for batch in trainer.corpus.validation:
            (t, c), carried = measure(params, carried, batch)
            total, count = total + t, count + c
        return float(total / count)

    iterates, last = [], []
    for position in range(SIZES.steps):
        params, state, carry = step(params, state, carry, trainer.corpus.train(position))
        iterates.append(params)
        last.append(validate(params))
    np.testing.assert_allclose(
        trial["last"], last, rtol=1e-3
    )  # a rate of 30 amplifies rounding errors
    begun = trial["averaging_from"]
    assert begun is not None and begun < SIZES.steps, "the trigger did not fire"
    mean = jax.tree.map(lambda *x: jnp.mean(jnp.stack(x), 0), *iterates[begun - 2 :])
    assert trial["averaged"][-1] == pytest.approx(validate(mean), rel=1e-3)
    assert trial["averaged"][: begun - 1] == trial["last"][: begun - 1]
    assert trial["steps"] == list(range(1, 11))


@pytest.mark.slow
def test_cosine_ends_near_zero(trainer):
    (trial,) = trainer.train("cosine", [(3.0, 0)])
    moves = np.abs(np.diff(trial["last"]))
    assert moves[-1] < moves[:3].max() / 10


class FakeTrainer:
    """A trainer with given final losses: (course, rate, seed) → (last, averaged)."""

    def __init__(self, losses):
        self.losses, self.calls = losses, []

    def train(self, course, pairs, *, on_progress):
        self.calls.append((course, pairs))
        ends = [self.losses(course, *pair) for pair in pairs]
        return [
            dict(rate=r, seed=s, last=[9.0, last], averaged=[9.0, mean], averaging_from=None)
            for (r, s), (last, mean) in zip(pairs, ends, strict=True)
        ]


@pytest.fixture
def study(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    config = replace(SIZES, out=tmp_path / "r.jsonl", text=path)

    def go(losses):
        trainer = FakeTrainer(losses)
        monkeypatch.setattr(char_lm_sweep, "CharLMTrainer", lambda *_: trainer)
        return char_lm_sweep.run(config), trainer.calls

    return go


def test_seeds_run_at_both_best_rates(study):
    def losses(course, rate, seed):
        if course == "cosine":
            return abs(np.log(rate / 100)), 1.0
        return abs(np.log(rate / 3)), abs(np.log(rate / 10))

    records, calls = study(losses)
    assert [(*r["cell"].values(), r["rate"]) for r in records] == [
        ("constant", "tuning", 3),
        ("constant", "seeds_averaged", 10),
        ("constant", "seeds", 3),
        ("cosine", "tuning", 100),
        ("cosine", "seeds", 100),
    ]
    assert [r.get("on_edge") for r in records] == [False, None, None, False, None]
    grid = [(3, 1000), (10, 1000), (30, 1000)]
    assert [pairs for _, pairs in calls] == [
        *(grid, [(1, 1000)], [(10, 0), (10, 1)], [(3, 0), (3, 1)]),
        *(grid, [(100, 1000)], [(300, 1000)], [(100, 0), (100, 1)]),
    ]


def test_common_best_rate_runs_once(study):
    records, calls = study(lambda course, rate, seed: 2 * (abs(np.log(rate / 10)),))
    assert [r["cell"]["part"] for r in records] == 2 * ["tuning", "seeds"]
    assert len(calls) == 4


def test_grid_grows_for_the_average(study):
    records, calls = study(lambda course, rate, seed: (abs(np.log(rate / 10)), 1 / rate))
    assert [pairs for course, pairs in calls if course == "constant"][1:3] == [
        [(100, 1000)],
        [(300, 1000)],
    ]
    assert records[1]["rate"] == 300


def test_marks_edge_and_ignores_nan_losses(study):
    def losses(course, rate, seed):
        return (float("nan"), 1.0) if rate > 3 else (rate, 1.0)

    records, _ = study(lambda *at: tuple(None if x != x else x for x in losses(*at)))
    assert records[0]["rate"] == 0.3 and records[0]["on_edge"]


def test_resumes_from_its_file(study, monkeypatch):
    first, calls = study(lambda course, rate, seed: (abs(rate - 10), 1.0))
    again, none = study(lambda *_: pytest.fail("it was run again"))
    assert first == again and calls and not none
    assert first[0]["settings"]["sha256"] and "out" not in first[1]["settings"]


@pytest.mark.slow
def test_quick_study_runs_to_the_end(tmp_path, capsys):
    out = tmp_path / "records.jsonl"
    assert char_lm_sweep.main(["--quick", "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) in (4, 5)
    assert capsys.readouterr().out.startswith("constant, tuning: rate ")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--clip", "0"], "--clip is 0.0, but must be a finite number above 0"),
        (["--hidden", "0"], "--hidden is 0, but must be a whole number from 1 to 2,147,483,647"),
        (["--steps", "150"], "--steps is 150, but must be a multiple of --eval-every 100"),
        (
            ["--extensions", "-1"],
            "--extensions is -1, but must be a whole number from 0 to 2,147,483,647",
        ),
        (["--text", "there/is/none.txt"], "there/is/none.txt"),
    ],
)
def test_invalid_option_is_one_line(flags, message, tmp_path, capsys):
    assert char_lm_sweep.main([*flags, "--out", str(tmp_path / "r.jsonl")]) == 2
    shown = capsys.readouterr().err
    assert message in shown and len(shown.splitlines()) == 1
    assert not (tmp_path / "r.jsonl").exists()


@pytest.mark.slow
def test_deleted_trainer_is_freed(tmp_path, monkeypatch):
    path, watched = tmp_path / "text.txt", []
    path.write_text(TEXT)

    def watch(graphdef):
        losses = make_losses(graphdef)
        watched.extend(map(weakref.ref, losses))
        return losses

    monkeypatch.setattr("lstm_optax.studies.char_lm_trainer.make_losses", watch)
    corpus = load_corpus(path, SIZES.batch, SIZES.window)
    trainer = CharLMTrainer(corpus, replace(SIZES, steps=1))
    trainer.train("constant", [(1.0, 0)])
    watched.append(weakref.ref(trainer))
    del trainer
    gc.collect()
    assert len(watched) == 3 and not any(reference() for reference in watched)
