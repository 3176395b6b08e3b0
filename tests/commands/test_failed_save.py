"""A failed save shows one error."""

import sys

import pytest

from lstm_optax.commands.failed_save import hide_repeated_errors


@pytest.fixture
def shown(monkeypatch):
    """The errors that reach the screen although nobody can catch them."""
    errors = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: errors.append(found.exc_value))
    hide_repeated_errors()
    return errors


def report(error):
    """Report an error where nobody can catch it."""

    class Late:
        def __del__(self):
            raise error

    Late()


def test_late_report_to_an_ended_loop_is_hidden(shown):
    report(RuntimeError("Event loop is closed"))
    assert not shown


def test_all_other_errors_are_shown(shown):
    errors = [RuntimeError("other"), ValueError("Event loop is closed")]
    for error in errors:
        report(error)
    assert shown == errors
