"""Columns of CSV files and data frames: values, missing values, and each error."""

import re

import numpy as np
import pytest

from lstm_optax.data import TextError, read_columns

NAN = np.nan


class Frame:
    """What pandas and polars data frames have in common."""

    def __init__(self, columns):
        self.columns = [name for name, _ in columns]
        self.cells = dict(columns)

    def __getitem__(self, name):
        return self.cells[name]


@pytest.fixture
def csv(tmp_path):
    """A function that writes a CSV file."""

    def write(text):
        path = tmp_path / "series.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    "text, expected",
    [
        ("t,y\na,1\nb,-2.5e3\n", [1, -2500]),
        ("y\n1\n2\n", [1, 2]),
        ("\ufefft;y\r\na;1\r\nb;2\r\n", [1, 2]),
        ("t\ty\na\t1\nb\t\n", [1, NAN]),
        ("t | y\na | 1\nb | 2\n", [1, 2]),
        ('"t; u, v";"y"\n"a\nb";"1"\nc;2\n', [1, 2]),
        ("\n\nt,y\na,1\nb,2\n\n\n", [1, 2]),
        ("y\n1\n\n3\n", [1, NAN, 3]),
        ("y,t\n,a\nNA,b\nnan,c\n?,d\nNULL,e\nn/a,f\nNone,g\n7,h\n", [NAN] * 7 + [7]),
    ],
)
def test_csv_values_are_read(csv, text, expected):
    columns = read_columns(["y"], csv=csv(text))
    assert list(columns) == ["y"] and columns["y"].dtype == np.float64
    np.testing.assert_array_equal(columns["y"], expected)


def test_csv_columns_keep_requested_order(csv):
    columns = read_columns(["b", "a", "b"], csv=str(csv("a,b\n1,2\n")))
    assert list(columns.items()) == [("b", [2]), ("a", [1])]


def test_csv_encoding_is_used(csv):
    path = csv("größe\n1\n".encode("cp1252"))
    assert read_columns(["größe"], csv=path, encoding="cp1252")["größe"] == [1]


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "date,temprature\n1,2\n",
            "FILE has no column 'temperature'; the nearest is 'temprature'; there are 'date', "
            "'temprature'",
        ),
        ("x,z\n1,2\n", "FILE has no column 'temperature'; there are 'x', 'z'"),
        (
            ",".join(map(str, range(23))) + "\n",
            "FILE has no column 'temperature'; there are "
            + ", ".join(repr(str(i)) for i in range(20))
            + " and 3 more",
        ),
        (
            "temperature\n1\nwarm\n",
            "column 'temperature' of FILE has 'warm' at line 3, but must hold numbers: leave "
            "missing values empty",
        ),
        (
            "d;temperature\n1;2,5\n",
            "column 'temperature' of FILE has '2,5' at line 2, but must hold numbers: write "
            "decimals with a point",
        ),
        (
            "a,temperature\n1,2\n3\n",
            "line 3 of FILE has 1 field, but its header has 2 (separated by ','): give every line "
            "one field for each column",
        ),
        (
            "a;temperature\n1;2;3\n",
            "line 2 of FILE has 3 fields, but its header has 2 (separated by ';'): give every line "
            "one field for each column",
        ),
        ("temperature,a,temperature\n1,2,3\n", "FILE has 2 columns 'temperature': rename them"),
        ("temperature\n", "FILE has no rows: it needs one row for each time step"),
        ("", "FILE is empty: name a file with some text"),
        (",,\n", "FILE has no column 'temperature'; there are '', '', ''"),
        ('a,temperature\n"1,2\n', "line 2 of FILE is not CSV: unexpected end of data"),
    ],
)
def test_csv_error_names_the_remedy(csv, text, message):
    path = csv(text)
    with pytest.raises(ValueError, match=re.escape(message.replace("FILE", str(path))) + "$"):
        read_columns(["temperature"], csv=path)


def test_missing_file_is_named(tmp_path):
    path = tmp_path / "none.csv"
    with pytest.raises(TextError, match=f"{path} does not exist: check the name and the folder"):
        read_columns(["y"], csv=path)


@pytest.mark.parametrize("make", [dict, Frame])
@pytest.mark.parametrize(
    "column, expected",
    [
        ([1, None, 3], [1, NAN, 3]),
        (np.array([1, 2], np.int8), [1, 2]),
        (np.array([1.5, NAN], np.float32), [1.5, NAN]),
        (np.array([True, False]), [1, 0]),
        (np.array([True, None], object), [1, NAN]),
        (np.array(["1.5", "<NA>"]), [1.5, NAN]),
        (np.ma.masked_array([1.0, 2.0], [True, False]), [NAN, 2]),
        ((0.1, 0.2), [0.1, 0.2]),
    ],
)
def test_frame_values_are_read(make, column, expected):
    frame = make([("text", ["a"] * len(column)), ("y", column)])
    values = read_columns(["y"], frame=frame)["y"]
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize(
    "frame, message",
    [
        ({"x": [1]}, "frame has no column 'y'; there are 'x'"),
        (Frame([("y", [1]), ("y", [2])]), "frame has 2 columns 'y': rename them"),
        (np.zeros((3, 2)), "frame is an array of shape (3, 2) and dtype float64, but must be a"),
        ({"y": np.zeros((3, 2))}, "column 'y' of frame has shape (3, 2), not [rows]"),
        ({"y": [1.0, "b"]}, "column 'y' of frame has 'b' at row 2, but must hold numbers"),
        (
            {"y": np.array(["2020"], "M8[Y]")},
            "column 'y' of frame holds datetime64[Y], but must hold",
        ),
        ({"y": []}, "frame has no rows: it needs one row for each time step"),
        ({"y": [1, 2], "z": [1]}, "the columns of frame have different lengths: 'y' 2, 'z' 1"),
    ],
)
def test_frame_error_names_the_column(frame, message):
    names = ["y", "z"] if isinstance(frame, dict) and "z" in frame else ["y"]
    with pytest.raises(ValueError, match=re.escape(message)):
        read_columns(names, frame=frame)


@pytest.mark.parametrize(
    "source, message",
    [
        ({}, "neither csv nor frame is given: pass a CSV file or a data frame"),
        ({"csv": "a.csv", "frame": {}}, "csv and frame are both given: pass one of them"),
        ({"csv": 3}, "csv is 3, but must be the name of a file"),
    ],
)
def test_source_must_be_one(source, message):
    with pytest.raises(ValueError, match=message):
        read_columns(["y"], **source)
