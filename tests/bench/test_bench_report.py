"""The tables, the page and the picture of a benchmark, from invented records."""

import io

import pytest
from rich.console import Console

from lstm_optax.bench import (
    BenchScreen,
    bench_figure,
    bench_markdown,
    bench_means,
    bench_tables,
    fill_bench_page,
)
from lstm_optax.bench.tables import bench_rows, row_grids, summary_grids

FACTS = dict(
    time="2030-01-01T00:00:00+00:00",
    command="lstm-optax bench",
    versions={"jax": "1.2.3"},
    settings={"XLA_FLAGS": "--some=flag"},
    device="cpu",
    platform="cpu",
    cpu="A Processor",
    cores=2,
    steps=8,
    load=0.1,
    quick=False,
    rounds=20,
    seed=0,
)


def result(run, row, measure, contender, median, ratio, **more):
    if ratio is None:
        return dict(
            record="result", run=run, row=row, measure=measure, contender=contender, status=median
        )
    return dict(
        record="result",
        run=run,
        row=row,
        measure=measure,
        contender=contender,
        status="measured",
        steps=8 if measure == "steps" else 1,
        seconds=[0.9 * median, median, 1.1 * median],
        ratio=[ratio - 0.1, ratio, ratio + 0.1],
        lower_bound=[0.4, 0.5, 0.6],
        compile_seconds=1.234,
        temp_bytes=2_500_000,
        **more,
    )


def run_of(run, scale=1.0, platform="cpu", ended=True):
    """Two layer rows and a train row; one contender cannot run the second layer row."""
    records = [dict(FACTS, record="run", run=run, platform=platform)]
    for row, time, ratio in (("small", 10, 2.0), ("large", 20, 8.0)):
        shape = f"{time}×3, 4-5"
        sizes = dict(time=time, batch=3, features=4, hidden=[5])
        facts = dict(row=row, kind="layer", shape=shape, about="one", **sizes)
        records.append(dict(record="row", run=run, **facts))
        for measure, factor in (("step", 1), ("steps", 0.5), ("double", 1.5), ("forward", 0.25)):
            ours = 0.004 * factor * scale
            records += [
                result(run, row, measure, "lstm_optax", ours, 1.0),
                result(run, row, measure, "flax-nnx", ours * ratio, ratio, unroll=4),
                result(run, row, measure, "haiku", "not installed", None),
                result(run, row, measure, "lower_bound", ours / 2, 0.5),
            ]
        if row == "small":
            records.append(result(run, row, "step", "torch", 0.002, 0.5))
        else:
            records.append(result(run, row, "step", "torch", "has no resets", None))
        if ended:
            records.append(dict(record="end", run=run, row=row, seconds=1.0))
    records.append(
        dict(record="row", run=run, row="model", kind="train", shape="s", about="two", time=9)
    )
    records.append(result(run, "model", "used", "lstm_optax", 0.5, 1.0))
    records.append(result(run, "model", "used", "torch", 0.6, 1.2))
    records.append(dict(record="end", run=run, row="model", seconds=1.0))
    return records


RECORDS = run_of("1")


def test_summary_shows_ratios_and_means():
    first, *others = summary_grids(RECORDS)
    assert first.title == "LSTM layer, forward and backward, one step per dispatch"
    head = ["row", "shape", "ours, ms", "GFLOP/s", "lower bound ÷ time"]
    assert first.header == [*head, "flax-nnx", "haiku", "torch"]
    assert first.lines == [
        ["small", "10×3, 4-5", "4.00", "0.008", "50 %", "2.00 (1.90–2.10)", "not installed"]
        + ["0.50 (0.40–0.60)"],
        [
            "large",
            "20×3, 4-5",
            "4.00",
            "0.016",
            "50 %",
            "8.00 (7.90–8.10)",
            "not installed",
            "cannot",
        ],
        ["geometric mean", "", "", "", "", "4.00", "—", "0.50"],
    ]
    assert [grid.title for grid in others] == [
        "LSTM layer, forward and backward, 8 steps per dispatch",
        "Whole train step, 8 steps as each is used: ours in one dispatch, the others one per call",
    ]
    assert bench_means(RECORDS) == {
        ("layer", "step", "flax-nnx"): pytest.approx(4.0),
        ("layer", "step", "torch"): pytest.approx(0.5),
        ("layer", "steps", "flax-nnx"): pytest.approx(4.0),
        ("train", "used", "torch"): pytest.approx(1.2),
    }


def test_row_table_shows_all_measures():
    grid = row_grids(RECORDS)[0]
    assert grid.title == "small: one, 10×3, 4-5"
    lines = {line[0]: dict(zip(grid.header, line, strict=True)) for line in grid.lines}
    flax = lines["flax-nnx"]
    assert flax["one step, ms"] == "8.00" and flax["8 steps, each, ms"] == "4.00"
    assert flax["µs per time step"] == "400", "(12 − 8) ms over 10 steps"
    assert flax["forward, ms"] == "2.00" and flax["unroll"] == "4"
    assert flax["compile, s"] == "1.23" and flax["temporary, MB"] == "2.50"
    assert (
        lines["lower_bound"]["lower bound ÷ time"] == "—" and lines["haiku"]["one step, ms"] == "—"
    )


def test_newest_finished_run_counts():
    twice = RECORDS + run_of("2", scale=2.0)
    assert summary_grids(twice)[0].lines[0][2] == "8.00"
    broken_off = RECORDS + run_of("2", scale=2.0, ended=False)
    assert summary_grids(broken_off)[0].lines[0][2] == "4.00"
    alone = run_of("2", scale=2.0, ended=False)
    assert summary_grids(alone)[0].lines[0][2] == "8.00"
    assert [row.name for row in bench_rows(twice)] == ["small", "large", "model"]


def test_markdown_names_machine_and_missing_results():
    text = bench_markdown(RECORDS)
    assert "| small | 10×3, 4-5 | 4.00 | 0.008 | 50 % | 2.00 (1.90–2.10) | not installed |" in text
    assert "haiku: not installed." in text and "torch in large: has no resets." in text
    assert text.endswith("## GPU\n\nNot measured.\n")
    assert "A Processor, 2 cores, load 0.1 before, at most 20 rounds, seed 0; jax 1.2.3" in text
    assert "--some=flag" in text and "a full run" in text and "busy" not in text
    busy = [record | {"load": 1.0} for record in RECORDS]
    assert "**The machine was busy: these numbers are provisional" in bench_markdown(busy)
    both = bench_markdown(RECORDS + run_of("2", scale=0.1, platform="gpu"))
    assert "Not measured." not in both and "| small | 10×3, 4-5 | 0.400 |" in both


def test_page_is_filled_between_marks():
    page = "before\n<!-- begin: written by lstm-optax bench -->\nold\n<!-- end -->\nafter\n"
    filled = fill_bench_page(page, RECORDS)
    assert filled.startswith("before\n") and filled.endswith("<!-- end -->\nafter\n")
    assert bench_markdown(RECORDS) in filled and "old" not in filled
    assert fill_bench_page(filled, RECORDS) == filled
    with pytest.raises(ValueError, match="has no place for the tables: put <!-- begin"):
        fill_bench_page("none", RECORDS)


def test_terminal_shows_rows_and_ratios():
    console = Console(file=io.StringIO(), width=400)
    for table in bench_tables(RECORDS):
        console.print(table)
    text = console.file.getvalue()
    assert "large: one, 20×3, 4-5" in text and "8.00 (7.90–8.10)" in text
    assert "geometric mean" in text and "haiku: not installed." in text


def test_picture_has_a_bar_per_ratio(tmp_path):
    figure = bench_figure(RECORDS, title="a title")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0] == "one step per dispatch" and len(titles) == 3
    widths = sorted(1 + bar.get_width() for bar in figure.axes[0].patches)
    assert widths == pytest.approx([0.5, 2.0, 8.0])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["small", "large", "model"]  # the last has bars in another panel
    places = [{bar.get_y() for bar in axes.patches} for axes in figure.axes]
    assert len(places[0]) == 3 and places[1] < places[0] and not places[2] & places[0]
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    bench_figure(RECORDS).savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert bench_figure([]).texts


def test_screen_prints_a_line_per_result():
    stream = io.StringIO()
    with BenchScreen(Console(file=stream, width=60), 20) as screen:
        screen.progress("small", "step", "timing", 3)
        for record in RECORDS[:5]:
            screen.record(record)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "small: one, 10×3, 4-5"
    assert lines[1].split() == "step lstm_optax 4.000 ms (3.600–4.400) 1.00 × ours".split()
    assert lines[3].split() == "step haiku not installed".split()


def test_progress_bar_fits_the_terminal():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, color_system=None)
    with BenchScreen(console, 20) as screen:
        screen.progress("hydrology-256", "forward", "compiling flax-linen", 0)
        screen.bar.refresh()
    assert "hydrology-256, forward: compiling" in stream.getvalue()
