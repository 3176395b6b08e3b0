"""Replaced by `lstm_optax.names.default_rates`."""


def default_rates(name: str) -> tuple[float, ...]:
    return (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
