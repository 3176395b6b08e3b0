"""Shares of the data for validation and test."""

from typing import Any

from lstm_optax.checks import concrete, format_value


def check_shares(validation: Any, test: Any) -> None:
    """Raise ValueError unless both are between 0 and 1 and leave something for training."""
    for name, share in (("validation", validation), ("test", test)):
        number = concrete(share)
        if not (isinstance(number, float) and 0 < number < 1):
            raise ValueError(
                f"{name} is {format_value(share)}, but must be a share between 0 and 1"
            )
    if validation + test >= 1:
        raise ValueError(
            f"validation {validation:g} and test {test:g} leave nothing for training: their sum "
            "must be below 1"
        )
