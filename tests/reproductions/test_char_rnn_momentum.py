"""`deepobs-momentum`: the rows of an embedding that TensorFlow 1 leaves alone, and the trials."""

import jax.numpy as jnp
import numpy as np
from small_data import use_small_data

from lstm_optax.reproductions import reproduce
from lstm_optax.reproductions.char_rnn_momentum import MOMENTUM, READINGS, lazy_momentum


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


def test_every_reading_is_trained(tmp_path, monkeypatch):
    use_small_data(tmp_path / "text.txt", monkeypatch, "deepobs-momentum")
    records = reproduce("deepobs-momentum", data=tmp_path / "text.txt", seeds=2, quick=True)
    ended = [trial.optimizer for trial in records.trials.values() if trial.end]
    assert sorted(ended) == sorted([*READINGS] * 2)
