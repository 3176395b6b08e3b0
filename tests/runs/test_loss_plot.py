"""Picture of the loss curves: content of the figure and of the PNG file."""

import math

import numpy as np
import pytest
from matplotlib import image
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from lstm_optax.runs import loss_figure

UNIT = "nats per character"
BASELINES = {"uniform": 4.543, "1-gram": 3.236, "4-gram": 1.403, "5-gram": 1.319, "6-gram": 1.338}


def records(steps=300, every=10):
    """Return records of a loss from 4 to about 1.2, with a validation loss in every fifth."""
    rows = []
    for index, step in enumerate(range(every, steps + 1, every)):
        loss = 1.2 + 3 * math.exp(-step / 40)
        validation = loss + 0.1 if index % 5 == 4 else None
        rows.append({"step": step, "train_loss": loss, "val_loss": validation, "grad_norm": 1.0})
    return rows


def curves(figure):
    """Return the data of the curves by label; baselines have no label."""
    lines = figure.axes[0].get_lines()
    return {
        line.get_label().split(",")[0]: line.get_xydata()
        for line in lines
        if not line.get_label().startswith("_")
    }


def drawn_baselines(figure):
    lines = figure.axes[0].get_lines()
    return sorted(line.get_ydata()[0] for line in lines if line.get_label().startswith("_"))


def notes(figure):
    return [note.get_text() for note in figure.axes[0].texts]


def test_curves_show_records():
    rows = records()
    drawn = curves(loss_figure(rows, BASELINES))
    assert list(drawn) == ["training", "validation"]
    np.testing.assert_allclose(
        drawn["training"], [(row["step"], row["train_loss"]) for row in rows]
    )
    validated = [row for row in rows if row["val_loss"] is not None]
    np.testing.assert_allclose(
        drawn["validation"], [(row["step"], row["val_loss"]) for row in validated]
    )


def test_legend_shows_lowest_validation_loss():
    rows = [{"step": s, "val_loss": loss} for s, loss in ((1, 2.0), (2, 1.25), (3, 1.5))]
    legend = loss_figure(rows, BASELINES).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["validation, lowest 1.250"]


def test_missing_none_and_unsorted_records():
    rows = [
        {"step": 3, "train_loss": 1.0},
        {"step": 1, "train_loss": 3.0, "val_loss": 2.0},
        {"train_loss": 9.0},
        {"step": None, "train_loss": 9.0},
        {"step": 2, "train_loss": None, "val_loss": None},
    ]
    drawn = curves(loss_figure(rows, {}))
    np.testing.assert_array_equal(drawn["training"], [(1, 3.0), (3, 1.0)])
    np.testing.assert_array_equal(drawn["validation"], [(1, 2.0)])


def test_nonfinite_loss_is_gap():
    losses = [2.0, math.inf, math.nan, 1.0]
    rows = [{"step": step, "train_loss": loss} for step, loss in enumerate(losses)]
    figure = loss_figure(rows, {})
    np.testing.assert_array_equal(curves(figure)["training"][:, 1], [2, np.nan, np.nan, 1])
    assert np.isfinite(figure.axes[0].get_ylim()).all()


def test_long_curve_is_averaged():
    rows = [{"step": step, "train_loss": step % 2 + 1.0} for step in range(5000)]
    steps, losses = curves(loss_figure(rows, {}))["training"].T
    assert len(steps) == 500
    np.testing.assert_allclose(losses, 1.5)
    np.testing.assert_allclose(steps, np.arange(500) * 10 + 4.5)


def test_visible_baselines_are_labelled():
    figure = loss_figure(records(), BASELINES)
    assert drawn_baselines(figure) == [1.319, 1.338, 1.403, 3.236]
    named = ["5-gram 1.319", "6-gram 1.338", "4-gram 1.403", "1-gram 3.236"]
    assert notes(figure) == named


def test_lowest_baseline_is_visible():
    for loss in (0.5, 4.0):
        figure = loss_figure([{"step": 1, "val_loss": loss}], BASELINES)
        low, high = figure.axes[0].get_ylim()
        assert low < 1.319 < high and low < loss < high
        assert 1.319 in drawn_baselines(figure)


def test_baseline_labels_do_not_overlap():
    figure = loss_figure(records(), {f"model {i}": 1.3 + i / 1000 for i in range(6)})
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(note) for note in figure.axes[0].texts]
    assert all(low.y1 <= high.y0 + 1 for low, high in zip(boxes, boxes[1:], strict=False))
    assert all(box.x1 <= 1000 for box in boxes), "a name leaves the picture"


def test_first_losses_do_not_set_scale():
    rows = [{"step": 1, "train_loss": 90.0}, *records(1000)[1:]]
    figure = loss_figure(rows, BASELINES)
    assert figure.axes[0].get_ylim()[1] < 5
    assert curves(figure)["training"][0].tolist() == [1, 90]


def test_bits_axis_is_nats_over_log2():
    figure = loss_figure(records(), BASELINES, unit=UNIT)
    figure.draw_without_rendering()
    (bits,) = figure.axes[0].child_axes
    np.testing.assert_allclose(
        np.array(bits.get_ylim()) * math.log(2), figure.axes[0].get_ylim(), rtol=1e-9
    )


@pytest.mark.parametrize("unit, label", [("", "loss"), ("MSE, m²/s²", "loss, MSE, m²/s²")])
def test_axis_label_shows_unit(unit, label):
    axes = loss_figure(records(), {}, unit=unit).axes[0]
    assert axes.get_ylabel() == label and not axes.child_axes  # no axis in bits


def test_axes_and_title_are_labelled():
    figure = loss_figure(records(), BASELINES, title="a run", unit=UNIT)
    assert figure.get_suptitle() == "a run"
    assert figure.axes[0].get_xlabel() == "step"
    assert figure.axes[0].get_ylabel() == "loss, nats per character"


@pytest.mark.parametrize("rows", [[], [{"step": 1}], [{"step": 1, "train_loss": math.nan}]])
def test_empty_records_show_message(rows, tmp_path):
    figure = loss_figure(rows, BASELINES)
    assert curves(figure) == {} and notes(figure) == ["no losses recorded"]
    figure.savefig(tmp_path / "loss.png")
    assert image.imread(tmp_path / "loss.png").shape[:2] == (600, 1000)


def test_single_record_is_visible(tmp_path):
    loss_figure([{"step": 0, "train_loss": 2.0}], {}).savefig(tmp_path / "loss.png")
    assert pixels_like(image.imread(tmp_path / "loss.png"), "#E69F00") > 20


def test_picture_size_and_curves(tmp_path):
    loss_figure(records(), BASELINES, title="a run").savefig(tmp_path / "loss.png")
    picture = image.imread(tmp_path / "loss.png")
    assert picture.shape[:2] == (600, 1000)
    assert pixels_like(picture, "#E69F00") > 300
    assert pixels_like(picture, "#0072B2") > 500


def pixels_like(picture, color):
    return int((np.abs(picture[..., :3] - to_rgb(color)).max(axis=-1) < 0.05).sum())
