"""What Orbax and TensorStore write to the screen about a failed save, besides its error."""

import logging
import sys
from typing import Any


def hide_repeated_errors() -> None:
    """Let a failed save show one error, the one that it raises.

    Orbax logs it with a traceback. After it has ended its event loop, TensorStore reports every
    other array whose write fails to that loop, and Python prints a traceback of the refusal.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    show = sys.unraisablehook

    def hook(unraisable: Any) -> None:  # Python has no name for its type
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            show(unraisable)

    sys.unraisablehook = hook
