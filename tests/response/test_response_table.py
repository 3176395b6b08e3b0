"""The table and the picture, from responses made by hand."""

import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import image
from matplotlib.colors import to_hex
from rich.console import Console

from lstm_optax.response import (
    DtypeResponse,
    RateResponse,
    Response,
    ScaleRange,
    ScaleResponse,
    SpikeResponse,
    response_figure,
    response_notes,
    response_table,
)

SIZES = 10.0 ** np.linspace(-12, 12, 49)
F32, BF16 = ("float32",), ("bfloat16",)
PANELS = ("constant", "impulse", "spike", "first step", "learning rate")


def response(name: str = "rule", **changes) -> Response:
    """Return the response of an invented rule; each field has a number of its own."""
    spike = SpikeResponse(
        relative=np.concatenate([[50.5], np.full(9_999, 1.01)]),
        at_spike=50.5,
        bounded=False,
        smallest_after=0.0333,
        largest_after=12345.6,
        disturbed=1,
        recovered_after=None,
        state_growth=float("nan"),
    )
    scale = ScaleResponse(
        inputs=SIZES,
        outputs=np.minimum(SIZES, 1.0),
        slopes=np.zeros(48),
        ranges=(ScaleRange("proportional", 1e-12, 1.0), ScaleRange("flat", 1.0, 1e12)),
        knee=1.0,
    )
    whole = Response(
        name=name,
        learning_rate=1e-3,
        constant=np.arange(1, 20_001) / 2,
        impulse=np.linspace(2, 0, 100),
        steady_gain=10_000.0,
        settled=False,
        rate=RateResponse(np.geomspace(0.91, 0.1, 2000), 0.91, 43),
        spike=spike,
        counter_spike=replace(spike, at_spike=-3.5, smallest_after=-2.25, disturbed=77),
        scale=scale,
        at_one=0.75,
        pull=0.25,
        state_bytes=4.000004,
        dtypes=(
            DtypeResponse("float32", "float32", "float32", F32, F32, False),
            DtypeResponse("float32", "bfloat16", "bfloat16", F32, F32, False),
            DtypeResponse("bfloat16", "float32", "float32", BF16, F32, True),
            DtypeResponse("bfloat16", "bfloat16", "TypeError", (), (), False),
        ),
        notes=(),
    )
    return replace(whole, **changes)


def rows(table, column: int = 1) -> list[tuple[str, str]]:
    """Return the cells of a column, each with its label."""
    names, cells = (table.columns[i].cells for i in (0, column))
    pairs = ((str(name), str(cell)) for name, cell in zip(names, cells, strict=True))
    return [(name.strip(), cell) for name, cell in pairs if cell]


def printed_lines(table, width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue().splitlines()


# The table


def test_table_has_a_row_per_number():
    assert rows(response_table([response()])) == [
        ("in units of", "rate 0.001"),
        ("step 1", "0.500"),
        ("step 2", "1.000"),
        ("step 3", "1.500"),
        ("step 10", "5.000"),
        ("step 100", "50.00"),
        ("step 20,000", "10,000.0, moving"),
        ("step 1", "2.000"),
        ("step 2", "1.980"),
        ("step 3", "1.960"),
        ("step 10", "1.818"),
        ("step 100", "0"),
        ("next step, × usual", "0.910"),
        ("within 10 % from", "step 43"),
        ("step at it, × usual", "50.50"),
        ("smallest after", "0.0333"),
        ("largest after", "12,345.6"),
        ("off by more than 2 ×", "1 step"),
        ("within 10 % after", "over 9,999 steps"),
        ("state grew by ×", "nan"),
        ("step at it, × usual", "-3.500"),
        ("smallest after", "-2.250"),
        ("off by more than 2 ×", "77 steps"),
        ("proportional", "to 1"),
        ("flat", "from 1"),
        ("knee", "1.000"),
        ("first step", "0.750"),
        ("with gradient 0", "0.250"),
        ("bytes per parameter", "4"),
        ("f32 params, f32 grads", "f32; f32"),
        ("f32 params, bf16 grads", "bf16; f32"),
        ("bf16 params, f32 grads", "f32; bf16 → f32"),
        ("bf16 params, bf16 grads", "TypeError; none"),
    ]


def test_table_shows_missing_measurements():
    scale = replace(response().scale, ranges=(), knee=float("nan"))
    bare = response(learning_rate=None, rate=None, scale=scale, settled=True, pull=float("inf"))
    cells = rows(response_table([bare]))
    for row in [
        ("in units of", "unscaled"),
        ("step 20,000", "10,000.0"),
        ("next step, × usual", "not measured"),
        ("within 10 % from", "not measured"),
        ("proportional", "nowhere"),
        ("knee", "none"),
        ("with gradient 0", "inf"),
    ]:
        assert row in cells
    slow = response(rate=RateResponse(np.ones(2000), 1.0, None))
    assert ("within 10 % from", "not by step 2,000") in rows(response_table([slow]))


@pytest.mark.parametrize(
    "value, text",
    [
        (0.0, "0"),
        (3e-10, "3.00e-10"),
        (-0.0012345, "-0.00123"),
        (0.09999999, "0.100"),
        (0.1, "0.100"),
        (-1.05645, "-1.056"),
        (99.51, "99.51"),
        (1000.99, "1,001.0"),
        (336100.0, "3.36e5"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert ("with gradient 0", text) in rows(response_table([response(pull=value)]))


@pytest.mark.parametrize(
    "ranges, text",
    [
        ([(1e-12, 1e12)], "everywhere"),
        ([(1e-12, 3.2e-10)], "to 3e-10"),
        ([(1e-7, 1e12)], "from 1e-7"),
        ([(0.0316, 316.2), (1e5, 1e12)], "0.03 to 3e+02, from 1e5"),
    ],
)
def test_ranges_omit_outer_ends(ranges, text):
    found = tuple(ScaleRange("flat", low, high) for low, high in ranges)
    table = response_table([response(scale=replace(response().scale, ranges=found))])
    assert ("flat", text) in rows(table)


def test_table_of_three_fits_80_columns():
    names = ["presets.torch.NAdam", "optax.contrib.muon", "[red]nadam[/]"]
    table = response_table([response(name) for name in names])
    for width in (80, 100, 120):
        lines = printed_lines(table, width)
        assert max(map(len, lines)) <= width
        header = ["", "", ""]
        for line in lines[1 : next(i for i, x in enumerate(lines) if x.startswith("┡"))]:
            header = [
                h + cell.strip() for h, cell in zip(header, line.split("┃")[2:5], strict=True)
            ]
        assert header == names
        assert "not measured" not in "".join(lines) and "…" not in "".join(lines)


def test_notes_start_with_the_name():
    several = [
        response("a", notes=("One.", "Two.")),
        response("b"),
        response("c", notes=("Three.",)),
    ]
    assert response_notes(several) == ["a: One.", "a: Two.", "c: Three."]


# The picture


def panels(figure) -> dict:
    """Return the panels by the first words of their titles."""
    found = {}
    for axes in figure.axes:
        title = axes.get_title(loc="left")
        name = next((name for name in PANELS if title.startswith(name)), None)
        if name:
            found[name] = axes
    return found


def lines_of(axes) -> list:
    return [line for line in axes.get_lines() if not line.get_label().startswith("_")]


def test_panels_draw_their_measurement():
    drawn = panels(response_figure([response()]))
    assert list(drawn) == list(PANELS)
    measured = response()
    expected = {
        "constant": (np.arange(1, 20_001), measured.constant),
        "impulse": (np.arange(1, 101), measured.impulse),
        "spike": (np.arange(1, 10_001), measured.spike.relative),
        "first step": (SIZES, measured.scale.outputs),
        "learning rate": (np.arange(1, 2001), measured.rate.relative),
    }
    for name, (x, y) in expected.items():
        (line,) = lines_of(drawn[name])
        shown_x, shown_y = line.get_data()
        assert (shown_x[0], shown_x[-1]) == (x[0], x[-1]) and len(shown_x) <= 300
        np.testing.assert_allclose(shown_y, np.interp(shown_x, x, y), rtol=1e-12)


def test_axes_have_labels_and_scales():
    drawn = panels(response_figure([response()]))
    for axes in drawn.values():
        assert axes.get_xscale() == "log" and axes.get_xlabel() and axes.get_ylabel()
    assert [drawn[name].get_yscale() for name in PANELS] == ["linear"] * 2 + ["log"] * 3
    assert drawn["constant"].get_ylabel() == "step, in learning rates"
    assert drawn["first step"].get_ylabel() == "|first step|, in learning rates"
    mixed = panels(response_figure([response(), response(learning_rate=None)]))
    assert mixed["constant"].get_ylabel() == "step"


def test_lines_differ_and_legend_is_apart():
    names = [f"rule {i}" for i in range(10)]
    figure = response_figure([response(name) for name in names])
    for axes in panels(figure).values():
        looks = {
            (to_hex(x.get_color()), x._dash_pattern[1] and tuple(x._dash_pattern[1]))
            for x in lines_of(axes)
        }
        assert len(looks) == len(names) and axes.get_legend() is None
    legend = figure.axes[-1].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == names
    assert not lines_of(figure.axes[-1])
    figure.draw_without_rendering()
    assert figure.axes[-1].get_window_extent().contains(*legend.get_window_extent().min)


def test_many_names_do_not_collapse_panels():
    figure = response_figure([response(f"optax.contrib.optimizer_{i}") for i in range(60)])
    figure.draw_without_rendering()  # warns if a panel collapses
    assert all(axes.get_window_extent().width > 200 for axes in panels(figure).values())


def test_nonfinite_steps_are_gaps():
    steps = np.array([1.0, np.inf, np.nan, -1.0, 0.0])
    spike = replace(response().spike, relative=steps)
    drawn = panels(response_figure([response(constant=steps, spike=spike, rate=None)]))
    np.testing.assert_array_equal(
        lines_of(drawn["constant"])[0].get_ydata(), [1, np.nan, np.nan, -1, 0]
    )
    np.testing.assert_array_equal(
        lines_of(drawn["spike"])[0].get_ydata(), [1, np.nan, np.nan, 1, np.nan]
    )
    assert [text.get_text() for text in drawn["learning rate"].texts] == ["not measured"]
    assert not panels(response_figure([response(rate=None), response()]))["learning rate"].texts


def test_flat_lines_do_not_magnify_rounding():
    flat = response(
        constant=1 + 1e-7 * np.arange(20_000) / 20_000,
        impulse=1 + 1e-7 * np.arange(100) / 100,
        rate=RateResponse(np.full(2000, 0.1), 0.1, 1),
        spike=replace(response().spike, relative=np.ones(10_000)),
        scale=replace(response().scale, outputs=np.ones(49)),
    )
    figure = response_figure([flat])
    figure.draw_without_rendering()
    heights = [panels(figure)[name].get_ylim() for name in PANELS]
    assert all(high - low > 0.9 for low, high in heights)


def test_picture_has_size_and_suffix_format(tmp_path):
    response_figure([response(), response("other")]).savefig(tmp_path / "x.png")
    assert image.imread(tmp_path / "x.png").shape[:2] == (720, 1250)
    response_figure([response()]).savefig(tmp_path / "x.svg")
    assert "<svg" in (tmp_path / "x.svg").read_text()[:2000]
