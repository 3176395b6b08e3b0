"""The program lstm-optax: heed signals from the first instruction, then run the command line."""

from collections.abc import Sequence

from lstm_optax.commands.signals import STOP


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status.

    It is 0, 2 for a user error, or 130 if a signal stopped a training. A signal at another time
    ends the process with status 130.
    """
    with STOP:
        # after the handlers: an import that Ctrl-C interrupts may swallow the exception
        from lstm_optax.commands.program import run_program

        return run_program(argv)
