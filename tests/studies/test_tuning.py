"""The choice of hyper-parameters: widening, void marks, ties, successive halving."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from lstm_optax.studies import StudyError
from lstm_optax.studies.contender import Budget
from lstm_optax.studies.study_log import StudyLog
from lstm_optax.studies.trial import check_grid, make_trials
from lstm_optax.studies.tuning import Tuning, _rate_past_edge, rungs, tune

RATES = (1e-3, 3e-3, 1e-2)


@dataclass
class MadeTask:
    metric: str = "validation"
    larger_is_better: bool = False


@dataclass
class MadeContender:
    """Trials whose metric is a function: (hyper, seed, step) → value; NaN is a divergence."""

    value: callable
    task: MadeTask = field(default_factory=MadeTask)
    budget: Budget = Budget(steps=8, eval_every=1)
    name: str = "made"

    def __post_init__(self):
        self.log, self.reached, self.ran = StudyLog(None, "sweep", {}, {}), {}, []

    def run(self, trials, until=None):
        for trial in self.log.unfinished(trials):
            self.log.begin(trial)
            end = until or self.budget.steps
            for step in range(self.reached.get(trial.name, 0) + 1, end + 1):
                self.ran.append((trial.hyper["learning_rate"], step))
                value = float(self.value(trial.hyper, trial.seed, step))
                facts = dict(trial=trial.name, step=step, seconds=float(step))
                self.log.add({"record": "evaluation", **facts, "validation": value})
                if step == self.budget.steps or not math.isfinite(value):
                    status = "finished" if math.isfinite(value) else "diverged"
                    self.log.add({"record": "end", **facts, "status": status})
                    break
            self.reached[trial.name] = end


def best_at(rate):
    """Return results that are better the closer the learning rate is to a given one."""
    return lambda hyper, seed, step: abs(math.log10(hyper["learning_rate"] / rate)) + 1 / step


def choose(value, rates=RATES, seeds=(1000,), extensions=2, halving=0, grid=None, **changes):
    contender = MadeContender(value, **changes)
    grid = check_grid({"learning_rate": rates} | (grid or {}), {})
    return tune(contender, grid, Tuning(seeds, extensions, halving)), contender


def tried(contender):
    return [trial.hyper["learning_rate"] for trial in contender.log.read().trials.values()]


CASES = {  # best rate → chosen, edge, rates past the grid; with 2 extensions
    "inside": (3e-3, 3e-3, None, []),
    "low": (3e-4, 3e-4, None, [3e-4, 1e-4]),
    "high": (3e-2, 3e-2, None, [3e-2, 1e-1]),
    "edge itself": (1e-2, 1e-2, None, [3e-2]),
    "far low": (1e-6, 1e-4, "low", [3e-4, 1e-4]),
    "far high": (1e3, 1e-1, "high", [3e-2, 1e-1]),
}


@pytest.mark.parametrize("name", CASES)
def test_grid_widens_wrongly(name):
    best, chosen, edge, more = CASES[name]
    choice, contender = choose(best_at(best))
    assert choice["hyper"] == {"learning_rate": chosen}
    assert (choice["edge"], choice["void"]) == (edge, edge is not None)
    assert tried(contender) == [*RATES, *more] and choice["trials"] == 3 + len(more)
    assert choice["value"] == pytest.approx(best_at(best)({"learning_rate": chosen}, 0, 8))


@pytest.mark.parametrize("best, edge", [(1e-3, "low"), (1e-2, "high"), (3e-3, None)])
def test_no_extensions_is_not_void(best, edge):
    choice, contender = choose(best_at(best), extensions=0)
    assert (choice["edge"], choice["void"]) == (edge, edge is not None)
    assert tried(contender) == list(RATES)


def test_both_edges_are_not_tried():
    values = {1e-3: 1.0, 3e-3: 5.0, 1e-2: 2.0, 3e-4: 3.0}
    choice, contender = choose(lambda hyper, seed, step: values[hyper["learning_rate"]])
    assert tried(contender) == [*RATES, 3e-4] and choice["hyper"] == {"learning_rate": 1e-3}
    # one rate is both edges
    choice, contender = choose(best_at(1e-3), rates=(1e-3,))
    assert tried(contender) == [1e-3, 3e-4, 3e-3] and not choice["void"]
    choice, contender = choose(best_at(1e-3), rates=(1e-3,), extensions=0)
    assert choice["void"] and choice["edge"] == "low"


def test_divergence_widens_upwards():
    choice, contender = choose(lambda hyper, seed, step: math.nan)
    assert tried(contender) == [*RATES, 3e-4, 1e-4]
    facts = {"hyper": {}, "value": None, "edge": "low", "void": True, "trials": 5}
    assert choice == {"record": "choice", "optimizer": "made", **facts}
    # the second rate past the edge is the first that does not diverge
    choice, _ = choose(lambda hyper, seed, step: math.nan if hyper["learning_rate"] > 2e-4 else 1.0)
    assert choice["hyper"] == {"learning_rate": 1e-4} and choice["void"]


def test_one_diverged_seed_wins():
    def value(hyper, seed, step):
        if hyper["learning_rate"] == 3e-3:
            return math.nan if seed == 1001 and step > 3 else 0.0
        return 1.0 if hyper["learning_rate"] == 1e-2 else 2.0

    choice, _ = choose(value, seeds=(1000, 1001), extensions=0)
    assert choice["hyper"] == {"learning_rate": 1e-2} and choice["value"] == 1.0


def test_mean_over_seeds_is_not_compared():
    values = {(1e-3, 1000): 3.0, (1e-3, 1001): 3.0, (3e-3, 1000): 0.0, (3e-3, 1001): 5.0}
    choice, _ = choose(
        lambda hyper, seed, step: values.get((hyper["learning_rate"], seed), 9.0),
        seeds=(1000, 1001),
    )
    assert choice["hyper"] == {"learning_rate": 3e-3} and choice["value"] == 2.5


def test_ties_choose_the_last():
    choice, _ = choose(lambda hyper, seed, step: float(hyper["learning_rate"] == 1e-3))
    assert choice["hyper"] == {"learning_rate": 3e-3}


def test_larger_is_better_is_ignored():
    choice, contender = choose(
        lambda *arguments: -best_at(3e-2)(*arguments), task=MadeTask(larger_is_better=True)
    )
    assert choice["hyper"] == {"learning_rate": 3e-2} and choice["value"] == -1 / 8
    assert tried(contender) == [*RATES, 3e-2, 1e-1]


def test_widening_varies_other_hyper_parameters():
    def value(hyper, seed, step):
        return best_at(1e-1)(hyper, seed, step) + (hyper["b"] != 0.9) + (not hyper["c"])

    choice, contender = choose(value, grid={"b": (0.5, 0.9), "c": (False, True)}, extensions=3)
    assert choice["hyper"] == {"learning_rate": 1e-1, "b": 0.9, "c": True} and not choice["void"]
    more = list(contender.log.read().trials.values())[12:]
    assert [t.hyper for t in more] == [
        {"learning_rate": rate, "b": 0.9, "c": True} for rate in (3e-2, 1e-1, 3e-1)
    ]


def test_second_call_trains_or_records_again():
    _, contender = choose(best_at(3e-2))
    count, ran = len(contender.log._records), len(contender.ran)
    grid = {"learning_rate": RATES}
    choice = tune(contender, grid, Tuning((1000,), 2, 0))
    assert len(contender.log._records) == count and len(contender.ran) == ran
    assert choice["hyper"] == {"learning_rate": 3e-2}
    tune(contender, grid, Tuning((1000, 1001), 2, 0))
    assert {seed.seed for seed in contender.log.read().trials.values()} == {1000, 1001}
    assert len(contender.ran) == 2 * ran


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ((8, 1, 2), [1, 2, 4, 8]),
        ((8, 2, 2), [2, 4, 8]),
        ((8, 1, 3), [2, 8]),
        ((1000, 100, 3), [100, 300, 1000]),
        ((12, 4, 2), [4, 12]),
        ((12, 12, 2), [12]),
        ((8, 1, 0), [8]),
    ],
)
def test_rungs_are_not_powers(arguments, expected):
    assert rungs(*arguments) == expected


def test_halving_stops_the_wrong_settings():
    rates = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    values = best_at(1e-3)
    choice, contender = choose(values, rates=rates, halving=2, seeds=(1000, 1001))
    ends = {}
    for trial in contender.log.read().trials.values():
        ends.setdefault(trial.hyper["learning_rate"], set()).add(
            (trial.end["status"], trial.end["step"], trial.end["seconds"])
        )
    # 5 settings at step 1, 3 at step 2, 2 at step 4, 1 to the end
    assert ends[1e-4] == ends[1e-2] == {("stopped", 1, 1.0)}
    assert sorted(end for r in (3e-4, 3e-3) for end in ends[r]) == [
        ("stopped", 2, 2.0),
        ("stopped", 4, 4.0),
    ]
    assert ends[1e-3] == {("finished", 8, 8.0)}
    assert choice["hyper"] == {"learning_rate": 1e-3} and not choice["void"]
    assert len(contender.ran) == len(set(contender.ran)) * 2, "no step is taken twice"


def test_halving_keeps_diverged_settings():
    def value(hyper, seed, step):
        return math.nan if hyper["learning_rate"] > 2e-3 else hyper["learning_rate"]

    choice, contender = choose(value, rates=(1e-3, 3e-3, 1e-2, 3e-2), halving=4, extensions=0)
    statuses = [trial.end["status"] for trial in contender.log.read().trials.values()]
    assert statuses == ["finished", "diverged", "diverged", "diverged"]
    assert choice["hyper"] == {"learning_rate": 1e-3}


def test_halving_of_diverged_trials_fails():
    choice, contender = choose(lambda *arguments: math.nan, halving=2)
    assert choice["hyper"] == {} and choice["void"]
    assert {trial.end["status"] for trial in contender.log.read().trials.values()} == {"diverged"}


PAST = {
    ((1e-3, 3e-3), "high"): 1e-2,
    ((3e-3, 1e-2), "high"): 3e-2,
    ((1e-3, 3e-3), "low"): 3e-4,
    ((3e-4, 1e-3), "low"): 1e-4,
    ((1e-3,), "high"): 3e-3,
    ((1e-3,), "low"): 3e-4,
    ((1.0, 3.0), "high"): 10.0,
    ((1e-3, 1e-2), "high"): 1e-1,
    ((1e-3, 1e-2), "low"): 1e-4,
    ((1e-3, 2e-3, 4e-3), "high"): 8e-3,
    ((2e-3, 6e-3), "high"): 1.8e-2,
    ((2e-3, 6e-3), "low"): 0.000666667,
    ((2e-3,), "high"): 0.00632456,
    ((1e-2, 1e-3, 3e-3), "high"): 3e-2,
}


@pytest.mark.parametrize("rates, edge", PAST)
def test_rate_past_the_edge_is_wrong(rates, edge):
    assert _rate_past_edge(rates, edge) == pytest.approx(PAST[rates, edge], rel=1e-12)


BAD_GRIDS = {
    "no rate": ({"b1": (0.9,)}, "the grid has no learning_rate: add its values"),
    "empty": ({"learning_rate": ()}, r"the grid of learning_rate is \(\), but must be a list"),
    "text": ({"learning_rate": "0.1"}, "the grid of learning_rate is '0.1', but must be a list"),
    "number": ({"learning_rate": 0.1}, "the grid of learning_rate is 0.1, but must be a list"),
    "zero": ({"learning_rate": (0.1, 0)}, "a learning_rate of the grid is 0.0, but must be above"),
    "negative": ({"learning_rate": (-1,)}, "a learning_rate of the grid is -1, but must be above"),
    "flag": ({"learning_rate": (True,)}, "a learning_rate of the grid is True, but must be above"),
    "nan": ({"learning_rate": (math.nan,)}, "a learning_rate of the grid is nan, but must be fin"),
    "inf": ({"learning_rate": (math.inf,)}, "a learning_rate of the grid is inf, but must be fin"),
    "text rate": ({"learning_rate": ("a",)}, "a learning_rate of the grid is 'a', but must be abo"),
    "clip": ({"learning_rate": (1,), "clip": (0.0, 1.0)}, "a clip of the grid is 0.0, but must be"),
    "twice": ({"learning_rate": (0.1, 0.1)}, "the grid of learning_rate has a value twice"),
    "both": ({"learning_rate": (1,), "c": (2,)}, "c has a grid and is in settings: leave one of"),
    "list": ({"learning_rate": (1,), "b": ((1, 2),)}, r"a b of the grid is \(1, 2\), but must be"),
    "function": (
        {"learning_rate": (1,), "b": (len,)},
        "a b of the grid is <built-in function len>",
    ),
}


@pytest.mark.parametrize("name", BAD_GRIDS)
def test_bad_grid_is_accepted(name):
    grid, message = BAD_GRIDS[name]
    with pytest.raises(StudyError, match=f"^{message}"):
        check_grid(grid, {"c": 1})


def test_grid_keeps_other_types():
    grid = {"learning_rate": np.geomspace(1e-3, 1e-1, 3), "b": [0, 0.5], "n": (1, 2), "f": (True,)}
    found = check_grid(grid | {"g": (None, "text"), "h": (np.float32(0.5), np.True_)}, {})
    assert found["learning_rate"] == (1e-3, 1e-2, 1e-1)
    assert all(type(value) is float for name in ("learning_rate", "b") for value in found[name])
    assert found["n"] == (1, 2) and type(found["n"][0]) is int
    assert found["f"] == (True,) and found["g"] == (None, "text")
    assert found["h"] == (0.5, True) and type(found["h"][1]) is bool


def test_trial_names_are_equal():
    grid = {"learning_rate": (0.1, 0.2), "f": (True, False)}
    trials = make_trials("a", grid, (1000, 1001))
    assert len({trial.name for trial in trials}) == 8
    assert trials[0].name == "a learning_rate=0.1 f=True seed=1000"
