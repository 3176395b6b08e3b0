"""Mark the cases of a large matrix that the plain test command leaves out."""

from collections.abc import Callable, Collection, Iterable, Mapping

import pytest


def plain_for(values: Iterable, plain: Collection, others=pytest.mark.slow) -> list:
    """Return the values of a parameter; those that are not in `plain` get the mark `others`."""
    return [v if v in plain else pytest.param(v, marks=others) for v in values]


def cases_of(
    contract: Callable, rows: Mapping, plain: Collection = (), soak: Collection = ()
) -> list:
    """Return a contract with each row; a case is slow unless it is in `plain` or in `soak`."""

    def marks(name):
        if name in plain:
            return ()
        return pytest.mark.soak if name in soak else pytest.mark.slow

    return [
        pytest.param(contract, row, marks=marks(name), id=f"{contract.__name__}-{name}")
        for name, row in rows.items()
    ]
