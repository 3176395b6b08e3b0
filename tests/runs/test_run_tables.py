"""Tables, cell by cell and as printed."""

import io
import math

import pytest
from rich.console import Console

from lstm_optax.runs import loss_table, plan_table

UNIT = "nats per character"
BASELINES = {"uniform": 4.6, "5-gram": 1.32, "6-gram": 1.34}


def cells(table, column):
    return [str(cell) for cell in table.columns[column].cells]


def shown(table, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("loss", "order"),
    [
        (1.2, ["uniform", "6-gram", "5-gram", "LSTM"]),
        (1.33, ["uniform", "6-gram", "LSTM", "5-gram"]),
        (5.0, ["LSTM", "uniform", "6-gram", "5-gram"]),
        (math.nan, ["LSTM", "uniform", "6-gram", "5-gram"]),
        (math.inf, ["LSTM", "uniform", "6-gram", "5-gram"]),
    ],
)
def test_loss_table_order_and_bold_row(loss, order):
    table = loss_table(loss, BASELINES)
    assert cells(table, 0) == order
    bold = [row.style == "bold" for row in table.rows]
    assert bold == [name == "LSTM" for name in order]


def test_bits_are_nats_over_log2():
    table = loss_table(2 * math.log(2), {"uniform": math.log(64), "5-gram": 1.32}, unit=UNIT)
    assert cells(table, 1) == ["4.159", "1.386", "1.320"]
    assert cells(table, 2) == ["6.000", "2.000", "1.904"]


@pytest.mark.parametrize("loss", [2.0, 8.5, 701.0, math.inf, math.nan])
def test_words_have_perplexities(loss):
    table = loss_table(loss, {}, unit="nats per word")
    assert [column.header for column in table.columns] == ["model", "nats per word", "perplexity"]
    expected = {2.0: "7.4", 8.5: "4,914.8", 701.0: "inf", math.inf: "inf"}
    assert cells(table, 2) == [expected.get(loss, "nan")]


def test_loss_table_without_baselines():
    assert cells(loss_table(1.25, {}, name="GRU"), 0) == ["GRU"]


@pytest.mark.parametrize("unit, heads", [("", ["loss"]), ("(m³/s)²", ["(m³/s)²"])])
def test_loss_table_units_and_caption(unit, heads):
    table = loss_table(1.2, BASELINES, unit=unit, caption="of 5 days")
    assert [column.header for column in table.columns] == ["model", *heads]
    assert "of 5 days" in shown(table)


def test_loss_table_as_printed():
    text = shown(loss_table(1.2, BASELINES, name="[b]LSTM[/b]", unit=UNIT))
    assert "nats per character" in text and "bits per character" in text
    assert "[b]LSTM[/b]" in text, "a name is text, not markup"
    assert "1.200" in text and "1.731" in text


def test_plan_table_as_printed():
    pairs = [("text", "[tmp]/a.txt"), ("characters", 465048), ("learning rate", 4e-3)]
    lines = [line.rstrip() for line in shown(plan_table(pairs)).splitlines()]
    assert lines == [
        "text           [tmp]/a.txt",
        "characters     465048",
        "learning rate  0.004",
    ]


def test_empty_plan_table():
    assert shown(plan_table([])).strip() == ""


def test_long_plan_value_is_folded():
    path = "/".join(["folder"] * 20)
    lines = shown(plan_table([("run", path)]), width=40).splitlines()
    assert "".join(line[5:].strip() for line in lines) == path
