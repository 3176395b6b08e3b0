"""Constraints in the annotations of a dataclass: range, check and message."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import pytest

from lstm_optax.runs import OptionError
from lstm_optax.runs.constraints import OptionRange, check_fields, check_option, whole_numbers


@dataclass(frozen=True)
class Config:
    units: Annotated[int, whole_numbers(1, 2000)] = 1
    top_rate: Annotated[float, OptionRange(above=True, normal=True)] = 0.1
    share: Annotated[float | None, OptionRange(high=1)] = None
    kind: Literal["a", "b"] = "a"
    free: int = -5


@pytest.mark.parametrize(
    "values",
    [{}, {"units": 2000}, {"units": np.int32(7)}, {"top_rate": 1.2e-38}, {"share": 0.0}],
    ids=str,
)
def test_check_fields_accepts_valid_values(values):
    check_fields(replace(Config(), **values))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"units": 0}, "--units is 0, but must be a whole number from 1 to 2,000"),
        ({"units": 1.0}, "--units is 1.0, but must be a whole number from 1 to 2,000"),
        ({"units": None}, "--units is None, but must be a whole number from 1 to 2,000"),
        ({"top_rate": 0.0}, "--top-rate is 0.0, but must be a finite number above 0"),
        ({"top_rate": math.inf}, "--top-rate is inf, but must be a finite number above 0"),
        ({"top_rate": 1e-39}, "--top-rate is 1e-39, but the smallest normal number in float32 "),
        ({"share": 1.0}, "--share is 1.0, but must be a number in [0, 1)"),
        ({"kind": "c"}, "--kind is 'c', but must be 'a' or 'b'"),
    ],
    ids=str,
)
def test_check_fields_names_flag(values, message):
    with pytest.raises(OptionError) as error:
        check_fields(replace(Config(), **values))
    assert str(error.value).startswith(message)


def test_check_option_names_flag():
    with pytest.raises(OptionError, match="^--a-b is 3, but must be a whole number from 4 to 5$"):
        check_option("a_b", 3, whole_numbers(4, 5))
