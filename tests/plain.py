"""Mark the cases of a large matrix that the plain test command leaves out."""

from collections.abc import Collection, Iterable

import pytest


def plain_for(values: Iterable, plain: Collection, others=pytest.mark.slow) -> list:
    """Return the values of a parameter; those that are not in `plain` get the mark `others`."""
    return [v if v in plain else pytest.param(v, marks=others) for v in values]
