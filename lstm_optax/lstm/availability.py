"""The backends of this installation, and why others cannot run here."""

from lstm_optax.lstm.backends import cudnn, native
from lstm_optax.lstm.native import library
from lstm_optax.lstm.sequence import BACKENDS


def unavailable_backends() -> dict[str, str]:
    """Return the backends of `BACKENDS` that this process cannot run, each with the reason.

    The others run here; what a single call may ask of each is in the docs, under Backends.
    """
    reasons = {"native": native.missing(), "cudnn": cudnn.missing()}
    return {name: reason for name in BACKENDS if (reason := reasons.get(name))}


def describe_backends() -> str:
    """Return one line: the backends that run here, and each other one with the reason."""
    missing = unavailable_backends()
    names = {name: name for name in BACKENDS if name not in missing}
    if "native" in names:
        names["native"] = f"native ({library.instructions()})"
    others = [f"not {name}: {reason}" for name, reason in missing.items()]
    return "; ".join([", ".join(names.values()), *others])
