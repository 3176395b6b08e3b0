"""Schedules: a constant one is the number, a moving one is the number injected step by step."""

import jax
import jax.numpy as jnp
import optax
import pytest
from rules_table import RULES, gradients_of, params_of, trajectory
from test_contract import STATIC, STEPS, close, usual

DECAYS = {"momentum": "decay", "ema": "decay", "momentum_sgd": "momentum"}
AHEAD = {"nesterov_sgd": "momentum"}  # read one count ahead in the second push: not moved here
LATE = {"torch.ASGD"}  # reads its rate one step late, save the first, as PyTorch does


def scheduled_numbers(name: str) -> list[str]:
    """The numbers of a rule that may be schedules: its rate, and the decay of a few."""
    rates = [n for n in ("learning_rate", "lr") if n in RULES[name].numbers]
    return rates + [table[name] for table in (DECAYS, AHEAD) if name in table]


def path(name: str, schedules: dict, injected: bool):
    """The updates of a rule with these schedules, read by its links or by Optax."""
    row = RULES[name]
    if not injected:
        return trajectory(row.build(**schedules), params_of(), gradients_of(STEPS))[0]
    make = optax.inject_hyperparams(row.make, static_args=STATIC.get(name, ()))
    tx = make(**row.numbers | schedules, **row.options)
    return trajectory(tx, params_of(), gradients_of(STEPS))[0]


def schedules_of(name: str, speed: jax.Array, late: bool = False) -> dict:
    """For each number of a rule that may be one, a schedule that moves with `speed`."""

    def schedule(number):
        pace = 0.0 if AHEAD.get(name) == number else speed
        value = RULES[name].numbers[number]
        return lambda count: value * (0.75 + 0.25 * jnp.cos(pace * jnp.maximum(count - late, 0)))

    return {number: schedule(number) for number in scheduled_numbers(name)}


SCHEDULED = [name for name in RULES if scheduled_numbers(name)]


@pytest.mark.parametrize("name", SCHEDULED)
def test_a_schedule_is_its_numbers_step_by_step(name):
    own = jax.jit(lambda speed: path(name, schedules_of(name, speed), injected=False))
    close(own(jnp.float32(0)), usual(name), rtol=1e-4)
    late = name in LATE
    fed = jax.jit(lambda speed: path(name, schedules_of(name, speed, late), injected=True))
    moved, expected = own(jnp.float32(1)), fed(jnp.float32(1))
    close(moved, expected, rtol=1e-4)
    with pytest.raises(AssertionError):
        close(moved, usual(name), rtol=1e-4)
