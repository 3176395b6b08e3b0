"""Picture of the gradients: colours, lines and degenerate input."""

import numpy as np
import pytest
from matplotlib import image
from matplotlib.colors import to_rgb

from lstm_optax.runs import gradient_figure

TIME = 12


def rows(layers=1, steps=(5, 10, 15), **changes):
    """Return gradients that shrink tenfold per step back; the forget gate has the largest."""
    back = 10.0 ** np.arange(-TIME + 1, 1)
    gates = back[:, None] * np.array([1.0, 8.0, 2.0, 4.0])
    found = []
    for step in steps:
        row = {"h": step * back, "reach": back, "gates": gates, "low": 0 * gates, "high": gates / 8}
        found.append({"step": step} | {k: [v.tolist()] * layers for k, v in row.items()})
    for name, value in changes.items():
        found[1][name] = value
    return found


def heat(figure, place=0):
    return figure.axes[place].images[0]


def test_heat_map_shows_log_norms():
    shown = heat(gradient_figure(rows()[::-1]))
    data = shown.get_array()
    assert data.shape == (3, TIME) and shown.origin == "lower"
    np.testing.assert_allclose(data[2], np.log10(15) + np.arange(-TIME + 1, 1))
    assert [t.get_text() for t in gradient_figure(rows()).axes[0].get_yticklabels()] == [
        "5",
        "10",
        "15",
    ]
    np.testing.assert_allclose(
        heat(gradient_figure(rows()), 1).get_array()[0], np.arange(-TIME + 1, 1)
    )


def test_colors_of_nonfinite_and_zero():
    h = [None, 0.0, *[1.0] * (TIME - 2)]
    shown = heat(gradient_figure(rows(h=[h])))
    colors = shown.cmap(shown.norm(shown.get_array()))[1, :3, :3]
    np.testing.assert_allclose(colors[0], to_rgb("#D00000"), atol=0.01)
    np.testing.assert_allclose(colors[1], to_rgb("#cccccc"), atol=0.01)
    assert np.abs(colors[2] - colors[1]).max() > 0.1


def test_color_scale_is_limited():
    shown = heat(gradient_figure(rows(h=[[1e-30] + [1.0] * (TIME - 1)])))
    assert shown.norm.vmax - shown.norm.vmin <= 12.01


def test_lines_show_gate_norms_and_saturation():
    figure = gradient_figure(rows(gates=[[[None] * 4] * TIME]))
    gates, saturated = figure.axes[2], figure.axes[3]
    names = [text.get_text() for text in gates.get_legend().get_texts()]
    assert names == ["input", "forget", "cell", "output", "not finite"]
    forget = gates.get_lines()[1].get_ydata()
    expected = 8 * np.linalg.norm(10.0 ** np.arange(-TIME + 1, 1))
    np.testing.assert_allclose(forget, [expected, np.nan, expected])
    high, low = saturated.get_lines()[2:4]
    np.testing.assert_allclose(high.get_ydata(), (10.0 ** np.arange(-TIME + 1, 1)).mean())
    np.testing.assert_array_equal(low.get_ydata(), 0)


@pytest.mark.parametrize("layers", [1, 3])
def test_one_row_of_panels_per_layer(layers):
    figure = gradient_figure(rows(layers), title="a run")
    assert figure.get_suptitle() == "a run"
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert sum("of the last step's loss" in title for title in titles) == layers
    assert any(title.startswith("layer 2: ") for title in titles) == (layers == 3)


@pytest.mark.parametrize(
    "given",
    [
        [],
        rows(steps=(5, 6), h=[[None] * TIME], reach=[[None] * TIME], gates=[[[None] * 4] * TIME]),
        rows(steps=(5, 6), h=[[0.0] * TIME], reach=[[0.0] * TIME], gates=[[[0.0] * 4] * TIME])[1:],
        [row | {"h": [[None] * TIME], "gates": [[[None] * 4] * TIME]} for row in rows()],
        rows(steps=(1, 2))[:1],
    ],
    ids=["none", "one lost", "nothing flows", "all lost", "one"],
)
def test_draws_degenerate_rows(given, tmp_path):
    gradient_figure(given).savefig(tmp_path / "gradients.png")
    assert image.imread(tmp_path / "gradients.png").shape[1] == 1800
