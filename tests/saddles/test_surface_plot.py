"""Pictures of descents: what is drawn, and what is refused."""

import numpy as np
import pytest
from matplotlib import image

from lstm_optax.saddles import escape_law, saddle_figure, surface_figure
from lstm_optax.studies import StudyError

PATH = np.array([(0.8, 0.01), (0.4, 0.02), (0.2, 0.04)])
RECORDS = [
    {"optimizer": name, "delta": delta, "noise": noise, "steps": [steps]}
    for name, noise, delta, steps in (
        ("sgd", 0.0, 0.01, 233),
        ("sgd", 0.0, 0.1, 117),
        ("sgd", 0.0, 0.0, None),
        ("sgd", 0.5, 0.1, 1),
        ("adam", 0.0, 0.1, 70),
        ("adam", 0.0, 0.01, None),
    )
]


def curves(axes):
    """Return the data of the curves by label."""
    drawn = {line.get_label(): line.get_xydata() for line in axes.get_lines()}
    return {label: data for label, data in drawn.items() if not label.startswith("_")}


@pytest.mark.parametrize("surface", ["saddle", "beale"])
def test_figure_changes_path(surface):
    figure = surface_figure({"a": PATH, "b": PATH[:1]}, surface=surface, title="two paths")
    drawn = curves(figure.axes[0])
    np.testing.assert_array_equal(drawn["a"], PATH)
    np.testing.assert_array_equal(drawn["b"], PATH[:1])
    assert ("the saddle is left" in drawn) == (surface == "saddle")
    assert figure.get_suptitle() == "two paths"


def test_limits_hide_path_or_minimum():
    axes = surface_figure({"a": PATH}, surface="beale").axes[0]
    for x, y in [*PATH, (3, 0.5)]:
        assert axes.get_xlim()[0] < x < axes.get_xlim()[1]
        assert axes.get_ylim()[0] < y < axes.get_ylim()[1]


def test_far_point_widens_saddle():
    far = np.concatenate([PATH, [(0.1, 1e6), (np.inf, np.nan)]])
    axes = surface_figure({"a": far}).axes[0]
    assert axes.get_ylim()[1] < 2 and np.isfinite(axes.get_xlim()).all()


def test_steps_differ_from_records():
    figure = saddle_figure({"sgd": PATH}, RECORDS, learning_rate=0.01, shown=("sgd", "adam"))
    axes = figure.axes[1]
    drawn = curves(axes)
    np.testing.assert_array_equal(drawn["sgd"], [(0.01, 233), (0.1, 117)])
    np.testing.assert_array_equal(drawn["adam"], [(0.1, 70)])
    (theory,) = (line for line in axes.get_lines() if line.get_label().startswith("_"))
    law = escape_law("sgd", learning_rate=0.01)
    np.testing.assert_allclose(theory.get_ydata(), [law.steps(0.01), law.steps(0.1)])


@pytest.mark.slow
def test_picture_is_blank(tmp_path):
    surface_figure({"a": PATH}, every=1).savefig(tmp_path / "a.png")
    picture = image.imread(tmp_path / "a.png")[..., :3]
    blue = np.abs(picture - (0, 0x72 / 255, 0xB2 / 255)).max(axis=-1) < 0.05
    assert picture.shape[:2] == (700, 800) and blue.sum() > 300


@pytest.mark.parametrize("paths", [{}, {"a": [(np.nan, 0.0)]}])
def test_figure_accepts_no_point(paths):
    with pytest.raises(StudyError) as error:
        surface_figure(paths)
    assert str(error.value) == "paths must hold at least one path, each with a finite point"
