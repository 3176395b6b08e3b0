"""The benchmark: equal values of all contenders, numbers of steps, turns, records.

No test depends on a time.
"""

import contextlib
import importlib.util
import itertools
import json
from dataclasses import replace
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_optax import lstm_sequence
from lstm_optax.bench import BenchConfig, adapters, benchmark, read_bench, runner, timing
from lstm_optax.bench.config import CONTENDERS, Contender
from lstm_optax.bench.layer_data import RATE, make_data, named
from lstm_optax.bench.layer_programs import layer_program
from lstm_optax.bench.optimizer_programs import optimizer_program
from lstm_optax.bench.programs import Program, Unavailable, deviation
from lstm_optax.bench.results import Writer, finished_rows
from lstm_optax.bench.train_programs import train_program
from lstm_optax.bench.workloads import (
    QUICK_ROWS,
    WORKLOADS,
    LayerRow,
    OptimizerRow,
    TrainRow,
)
from lstm_optax.lstm import LSTMState
from lstm_optax.runs import OptionError

TOY = MappingProxyType(
    {
        "layer": LayerRow(4, 3, 2, (3,), "a toy"),
        "reset": LayerRow(4, 3, 2, (3,), "a toy with resets", resets=0.3),
        "stack": LayerRow(5, 3, 2, (3, 4), "a toy of two layers, with resets", resets=0.3),
        "train": TrainRow(4, 2, 3, 4, 7, "a toy model"),
        "update": OptimizerRow(((3, 2), (4,)), "adam", "a toy of two leaves"),
        "nadam": OptimizerRow(((3, 2),), "nadam", "a toy of one leaf"),
    }
)
STEPS = 3
CLOSE = 2e-5


@pytest.fixture(autouse=True)
def allow_ranks():
    """Allow rank promotion, which other libraries use."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def cached(monkeypatch):
    """Let the benchmark use the compilation cache of the tests."""
    monkeypatch.setattr(runner, "without_cache", contextlib.nullcontext)


def clock_of_seconds():
    """Return a clock that counts its readings, so that one call makes a sample."""
    readings = itertools.count()
    return lambda: float(next(readings))


def need(name):
    if importlib.util.find_spec(CONTENDERS[name].module) is None:
        pytest.skip(f"{name} is not installed: pip install 'lstm_optax[bench]'")


def values_of(maker, name, row, measure, **options):
    program = maker(name, row, measure, STEPS, 0, **options)
    assert program.steps == (1 if measure in ("step", "double", "forward") else STEPS)
    return program.values(program.call())


def assert_same(maker, name, row, measure, close=CLOSE, **options):
    ours = values_of(maker, "lstm_optax", row, measure)
    theirs = values_of(maker, name, row, measure, **options)
    assert theirs.keys() == ours.keys() and len(ours) > 1
    assert all(np.any(value != 0) for value in ours.values())
    if measure == "steps":  # a difference of nearly equal numbers has fewer digits
        close = max(close, 1e-3)
    for key in ours:
        assert deviation({key: theirs[key]}, {key: ours[key]}) < close, key


# Equal values


@pytest.mark.parametrize(
    "name, unroll", [("flax-nnx", 1), pytest.param("flax-linen", 2, marks=pytest.mark.slow)]
)
def test_flax_layer_equals_ours(name, unroll):
    row = TOY["reset" if unroll == 1 else "layer"]
    assert_same(layer_program, name, row, "step", unroll=unroll)


def test_reference_backend_equals_ours():
    assert_same(layer_program, "backend.reference", TOY["layer"], "step")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "measure, row", [("step", "reset"), ("steps", "layer"), ("forward", "stack")]
)
@pytest.mark.parametrize("name", [n for n in CONTENDERS if "layer" in CONTENDERS[n].kinds])
def test_every_library_equals_ours(name, measure, row):
    need(name)
    options = dict(unroll=2) if name in adapters.SCANS else {}
    if name == "keras" and TOY[row].resets:
        with pytest.raises(Unavailable, match="has no resets"):
            layer_program(name, TOY[row], measure, STEPS, 0)
        row = "layer"
    assert_same(layer_program, name, TOY[row], measure, **options)


@pytest.mark.slow
def test_double_measure_has_twice_the_time():
    need("torch")
    row = replace(TOY["stack"], time=2 * TOY["stack"].time)
    twice = values_of(layer_program, "lstm_optax", row, "step")
    for name in ("lstm_optax", "torch"):
        assert deviation(values_of(layer_program, name, TOY["stack"], "double"), twice) < CLOSE


def test_resets_change_the_values():
    rows = TOY["reset"], TOY["layer"]
    a, b = (values_of(layer_program, "flax-nnx", row, "forward") for row in rows)
    assert deviation(a, b) > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm_optax", "flax-nnx"])
def test_several_steps_equal_a_python_loop(name):
    data = jax.tree.map(jnp.asarray, make_data(TOY["layer"], 0))

    def loss(leaves):
        outputs, states = leaves.x, []
        for params, state in zip(leaves.weights, leaves.states, strict=True):
            outputs, last = lstm_sequence(params, outputs, LSTMState(*state))
            states.append(tuple(last))
        pairs = zip(jax.tree.leaves(states), jax.tree.leaves(data.state_weights), strict=True)
        return jnp.vdot(outputs, data.output_weights) + sum(jnp.vdot(s, w) for s, w in pairs)

    leaves, losses, grad = data.leaves, [], jax.jit(jax.value_and_grad(loss))
    for _ in range(STEPS):
        value, grads = grad(leaves)
        leaves = jax.tree.map(lambda p, g: p - RATE * g, leaves, grads)
        losses.append(value)
    before = named(data.leaves)
    expected = {key: after - before[key] for key, after in named(leaves).items()}
    expected["losses"] = np.array(losses)
    values = values_of(layer_program, name, TOY["layer"], "steps")
    assert values.keys() == expected.keys() and values["losses"].shape == (STEPS,)
    assert deviation(values, expected) < 1e-4


@pytest.mark.slow
def test_flax_and_optax_train_step_equals_ours():
    """In `used`, Flax runs a Python loop of one step per call, ours one dispatch of all steps."""
    assert_same(train_program, "flax-nnx", TOY["train"], "used", close=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, measure",
    [("flax-nnx", "step"), ("flax-nnx", "steps"), ("torch", "step"), ("torch", "used")],
)
def test_other_train_steps_equal_ours(name, measure):
    need(name)
    assert_same(train_program, name, TOY["train"], measure, close=1e-3)


def test_optax_update_equals_ours():
    assert_same(optimizer_program, "optax", TOY["update"], "step", close=1e-3)


@pytest.mark.slow
def test_torch_update_equals_ours():
    need("torch")
    assert_same(optimizer_program, "torch", TOY["update"], "step", close=1e-3)
    assert not TOY["nadam"].comparable  # it differs between libraries


def test_deviation_is_the_largest_of_all_arrays():
    a = {"x": np.array([3.0, 4.0]), "y": np.zeros(2)}
    assert deviation(a, a) == 0
    assert deviation(a | {"x": np.array([3.0, 4.5])}, a) == pytest.approx(0.1)
    assert deviation(a | {"y": np.full(2, np.nan)}, a) == np.inf
    assert deviation({"x": a["x"]}, a) == np.inf
    assert deviation(a | {"x": np.zeros(3)}, a) == np.inf


# Turns


def test_each_round_has_a_random_order():
    called, now = [], [0.0]

    def program(name, steps, seconds):
        def call():
            called.append(name)
            now[0] += seconds
            return name

        return Program(call, lambda r: {}, steps)

    clock = lambda: now[0]  # noqa: E731
    programs = {"a": program("a", 1, 1.0), "b": program("b", 4, 8.0), "c": program("c", 1, 0.002)}
    rounds = []
    samples = timing.time_in_turn(
        programs, 20, np.random.default_rng(0), seconds=1e9, clock=clock, on_round=rounds.append
    )
    assert {n: s.shape for n, s in samples.items()} == {n: (20,) for n in programs}
    np.testing.assert_allclose([s.mean() for s in samples.values()], [1.0, 2.0, 0.002])
    assert rounds == list(range(1, 21))
    orders = {tuple(dict.fromkeys(called[6 + 7 * i : 13 + 7 * i])) for i in range(20)}
    assert len(orders) == 6, "one untimed call where a call is one step, then the timed calls"
    few = timing.time_in_turn(programs, 20, np.random.default_rng(0), seconds=1.0, clock=clock)
    assert len(few["a"]) == timing.MIN_ROUNDS


# Rows and records


@pytest.fixture(scope="module")
def toy_records(tmp_path_factory):
    """A quick run of three rows, with a library that is not installed."""
    path = tmp_path_factory.mktemp("bench") / "bench.jsonl"
    contenders = dict(CONTENDERS) | {
        "nobody": Contender("none", "no_such_module", "no-such", ("layer",))
    }
    config = BenchConfig(
        rows=("layer", "update", "nadam"),
        against=("flax-nnx", "optax", "nobody", "backend.nothing"),
        rounds=2,
        quick=True,
    )
    with pytest.MonkeyPatch.context() as patch, jax.numpy_rank_promotion("allow"):
        patch.setattr(runner, "without_cache", contextlib.nullcontext)
        records = benchmark(
            config,
            path,
            workloads=TOY,
            contenders=contenders,
            argv=["/any/bin/lstm-optax", "bench"],
            clock=clock_of_seconds(),
        )
    assert read_bench(path) == json.loads(json.dumps(records))
    return path, records


def test_run_writes_all_records(toy_records):
    _, records = toy_records
    kinds = [record["record"] for record in records]
    assert kinds[0] == "run" and kinds.count("row") == kinds.count("end") == 3
    facts = records[0]
    assert facts["command"] == "lstm-optax bench" and facts["platform"] == "cpu"
    assert facts["versions"]["jax"] == jax.__version__ and facts["cores"] >= 1 and facts["cpu"]
    assert {"settings", "device", "load", "seed", "rounds", "time"} <= facts.keys()
    rows = [record for record in records if record["record"] == "row"]
    assert [row["row"] for row in rows] == ["layer", "update", "nadam"]
    assert rows[0]["shape"] == "4×3, 2-3" and rows[1]["shape"] == "2 leaves, 0.0 M"
    assert all(r["load"] >= 0 and r["peak_rss"] > 1e6 for r in records if r["record"] == "end")


def test_run_writes_all_results(toy_records):
    results = {
        (r["row"], r["measure"], r["contender"]): r
        for r in toy_records[1]
        if r["record"] == "result"
    }
    layer = ("lstm_optax", "flax-nnx", "nobody", "backend.nothing", "lower_bound")
    expected = {("layer", measure, name) for measure in ("step", "steps") for name in layer}
    updates = ("lstm_optax", "optax", "lower_bound")
    expected |= {(row, "step", name) for row in ("update", "nadam") for name in updates}
    assert results.keys() == expected
    for (row, measure, name), result in results.items():
        if name == "nobody":
            assert result == result | {"status": "not installed"} and "seconds" not in result
        elif name == "backend.nothing":
            assert "unknown backend 'nothing'; there are " in result["status"]
        else:
            assert result["status"] == "measured" and result["rounds"] == 2
            assert result["steps"] == (8 if measure == "steps" else 1)
            for field in ("seconds", "ratio", "lower_bound"):
                low, median, high = result[field]
                assert 0 < low <= median <= high
            assert result["compile_seconds"] > 0 and result["temp_bytes"] >= 0
            compared = name not in ("lstm_optax", "lower_bound") and row != "nadam"
            assert (result["deviation"] is not None) == compared
    assert results["layer", "step", "lstm_optax"]["ratio"] == [1, 1, 1]
    assert results["layer", "step", "flax-nnx"]["unroll"] == 1


def test_skips_contender_with_other_values(cached, monkeypatch):
    right = adapters.SCANS["flax-nnx"]

    def wrong(data, unroll):
        weights = tuple(p._replace(bias=np.roll(p.bias, 3)) for p in data.leaves.weights)
        return right(data._replace(leaves=data.leaves._replace(weights=weights)), unroll)

    monkeypatch.setattr(adapters, "SCANS", adapters.SCANS | {"flax-nnx": wrong})
    config = BenchConfig(rows=("layer",), against=("flax-nnx",), rounds=1, quick=True)
    records = benchmark(config, workloads=TOY, clock=clock_of_seconds())
    results = [r for r in records if r.get("contender") == "flax-nnx"]
    assert results and all(r["status"].startswith("other values than ours") for r in results)
    assert all("seconds" not in r and r["deviation"] > 0.01 for r in results)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_full_run_tries_unroll_factors(tmp_path):
    out = tmp_path / "bench.jsonl"
    contenders = dict(CONTENDERS) | {"nobody": Contender("none", "no_such_module", "no-such")}
    against = ("flax-nnx", "torch", "nobody")
    config = BenchConfig(rows=("layer", "train"), against=against, rounds=1)
    before = jax.config.jax_enable_compilation_cache
    records = benchmark(config, out, workloads=TOY, contenders=contenders, clock=clock_of_seconds())
    assert jax.config.jax_enable_compilation_cache == before
    results = [r for r in records if r["record"] == "result"]
    measures = {"layer": ["step", "steps", "double", "forward"], "train": ["step", "steps", "used"]}
    for row, expected in measures.items():
        taken = [r["measure"] for r in results if r["row"] == row]
        assert list(dict.fromkeys(taken)) == expected
    for result in results:
        name = result["contender"]
        served = contenders[name].installed() if name in contenders else True
        assert (result["status"] == "measured") == served, result
        if name in adapters.SCANS and served:
            assert set(result["tried"]) == {"1", "4"} and result["unroll"] in (1, 4)


# Resuming, and invalid input


def test_benchmark_keeps_file_of_other_content(tmp_path):
    notes = tmp_path / "notes.jsonl"
    notes.write_text('{"my": "notes"}\n{"torn": ')
    config = BenchConfig(rows=("update",), against=("optax",), rounds=1, quick=True)
    with pytest.raises(OptionError, match="holds no records of a benchmark"):
        benchmark(config, notes, workloads=TOY)
    assert notes.read_text() == '{"my": "notes"}\n{"torn": '


def test_resume_keeps_records_of_stopped_run(cached, tmp_path):
    out = tmp_path / "bench.jsonl"
    config = BenchConfig(rows=("update", "nadam"), against=("optax",), rounds=1, quick=True)

    def stop(record):
        if record["record"] == "row" and record["row"] == "nadam":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benchmark(config, out, workloads=TOY, clock=clock_of_seconds(), on_record=stop)
    first = read_bench(out)
    assert [r["row"] for r in first if r["record"] == "end"] == ["update"]
    with out.open("a") as file:
        file.write('{"record": "res')  # as a crash leaves it
    records = benchmark(config, out, resume=True, workloads=TOY, clock=clock_of_seconds())
    assert [r["row"] for r in records if r["record"] == "row"] == ["nadam"]
    assert read_bench(out)[len(first) :] == json.loads(json.dumps(records))
    other = records[0] | {"rounds": 3}
    assert finished_rows(read_bench(out), records[0]) == {"update", "nadam"}
    assert finished_rows(read_bench(out), other) == set()


def test_nonfinite_number_is_written_as_null(tmp_path):
    out = tmp_path / "bench.jsonl"
    Writer(out, "1").write("result", {"deviation": float("inf"), "ratio": [1.0, float("nan")]})
    assert read_bench(out)[0] == {
        "record": "result",
        "run": "1",
        "deviation": None,
        "ratio": [1.0, None],
    }


def test_rejects_file_without_records(tmp_path):
    with pytest.raises(OptionError, match="missing.jsonl cannot be read: No such file"):
        read_bench(tmp_path / "missing.jsonl")
    (tmp_path / "other.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(OptionError, match="other.jsonl holds no records of a benchmark"):
        read_bench(tmp_path / "other.jsonl")


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(rows=("word",)), "--rows: unknown name 'word'; there are word-200, char-128, "),
        (
            dict(against=("flax",)),
            "--against: unknown name 'flax'; there are flax-nnx, .*backend.NAME",
        ),
        (dict(rounds=0), "--rounds is 0, but must be a whole number from 1 to"),
        (dict(seed=-1), "--seed is -1, but must be a whole number from 0 to"),
    ],
)
def test_rejects_invalid_options(options, message):
    with pytest.raises(OptionError, match=message):
        benchmark(BenchConfig(**options))


def test_chosen_rows_keep_table_order():
    assert BenchConfig().chosen_rows() == tuple(WORKLOADS)
    assert BenchConfig(quick=True).chosen_rows() == QUICK_ROWS
    assert BenchConfig(rows=("awd", "char-128")).chosen_rows() == ("char-128", "awd")
    layer, train, update = (WORKLOADS[n] for n in ("awd", "character", "adam-24m"))
    assert BenchConfig().chosen_contenders(update) == ("torch", "optax")
    assert BenchConfig().chosen_contenders(train) == ("flax-nnx", "torch")
    chosen = BenchConfig(against=("backend.reference", "torch", "keras"))
    assert chosen.chosen_contenders(layer) == ("keras", "torch", "backend.reference")
    assert chosen.chosen_contenders(train) == ("torch",)
