"""`deepobs-momentum`: the steps of an embedding's rows, and the trials."""

import jax.numpy as jnp
import numpy as np
from small_data import use_small_data

from lstm_optax.reproductions import REPRODUCTIONS
from lstm_optax.reproductions._reproduce import make_plan
from lstm_optax.reproductions.char_rnn_momentum import MOMENTUM, lazy_momentum

NAME = "deepobs-momentum"


def test_rows_without_gradient_keep_their_velocity():
    params = {"embedding": jnp.zeros((2, 2)), "kernel": jnp.zeros((2, 2))}
    first, second = np.float32([[1, 0], [2, 3]]), np.float32([[0, 0], [1, 0]])
    tx, rate = lazy_momentum(0.5), 0.5
    state = tx.init(params)
    _, state = tx.update({"embedding": first, "kernel": first}, state)
    found, state = tx.update({"embedding": second, "kernel": second}, state)
    velocity = MOMENTUM * first + second
    np.testing.assert_allclose(found["kernel"], -rate * velocity, rtol=1e-6)
    np.testing.assert_allclose(found["embedding"], [[0, 0], -rate * velocity[1]], rtol=1e-6)
    np.testing.assert_allclose(state.velocity["embedding"], [first[0], velocity[1]], rtol=1e-6)


def test_row_steps_once_per_occurrence():
    times, rate = np.array([400, 7, 0.1]), 0.5
    gradients = np.random.default_rng(0).normal(size=(5, 3, 2))
    tx = lazy_momentum(rate, times)
    state = tx.init({"embedding": jnp.zeros((3, 2))})
    position, velocity, found = np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2))
    for gradient in gradients:
        steps, state = tx.update({"embedding": jnp.asarray(gradient, jnp.float32)}, state)
        found += steps["embedding"]
        for row, count in enumerate([400, 7, 1]):
            for _ in range(count):
                velocity[row] = MOMENTUM * velocity[row] + gradient[row] / count
                position[row] -= rate * velocity[row]
    np.testing.assert_allclose(found, position, rtol=1e-4)
    np.testing.assert_allclose(state.velocity["embedding"], velocity, rtol=1e-4)


def test_every_reading_is_planned(tmp_path, monkeypatch):
    use_small_data(tmp_path / "text.txt", monkeypatch, NAME)
    groups = make_plan(NAME, data=tmp_path / "text.txt", seeds=2, quick=True).groups
    rows = dict.fromkeys(number.row for number in REPRODUCTIONS[NAME].published)
    assert [(group.name, len(group.trials)) for group in groups] == [(row, 2) for row in rows]


def test_line_feeds_shorten_text(tmp_path, monkeypatch):
    monkeypatch.setattr("small_data.small_text", lambda: "abcde  \r\n" * 60)
    use_small_data(tmp_path / "text.txt", monkeypatch, NAME)
    groups = make_plan(NAME, data=tmp_path / "text.txt", epochs=1, quick=True).groups
    sizes = {"line feeds" in g.name: (g.task.settings["symbols"], g.task.steps) for g in groups}
    assert sizes == {False: (8, 13), True: (7, 11)}
