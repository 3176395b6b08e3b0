"""First and later steps of the presets under a constant gradient, in units of the learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lstm_optax.presets import algoperf, dozat, graves, hinton, keras, tf1, torch

AT = [1, 2, 3, 5, 10, 20]
NADAMS = {
    "torch": (torch.NAdam, [1.056, 0.784, 0.732, 0.746, 0.843, 0.945]),
    "keras": (keras.Nadam, [1.063, 0.774, 0.711, 0.710, 0.800, 0.922]),
    "dozat 2015": (dozat.nadam_2015, [1.056, 0.784, 0.732, 0.746, 0.843, 0.945]),
    "dozat 2016": (
        lambda rate: dozat.nadam_2016(rate * np.sqrt(0.999)),  # the paper's extra ν aside
        [1.310, 1.085, 1.032, 1.006, 1.000, 1.000],
    ),
    "algoperf": (algoperf.nadamw, [1.900, 1.426, 1.269, 1.144, 1.054, 1.014]),
}


def steps_of(tx, steps: int, gradient: float = 1.0) -> np.ndarray:
    """Return the steps of a parameter that is 0, downhill positive, for a constant gradient."""
    params = jnp.asarray(0.0)

    def body(state, g):
        update, state = tx.update(g, state, params)
        return state, -update

    return np.asarray(jax.lax.scan(body, tx.init(params), jnp.full(steps, gradient))[1])


@pytest.mark.parametrize("source", NADAMS)
def test_first_steps_of_preset_nadams(source, x64):
    make, expected = NADAMS[source]
    np.testing.assert_allclose(steps_of(make(1.0), 20)[np.array(AT) - 1], expected, atol=6e-4)


def test_nadam_2016_has_an_extra_factor(x64):
    now, after = (0.9 * (1 - 0.5 * 0.96 ** (t / 250)) for t in (1, 2))
    first = (1 + after * (1 - now) / (1 - now * after)) / np.sqrt(0.999)
    np.testing.assert_allclose(steps_of(dozat.nadam_2016(1.0), 1), first, rtol=1e-7)


@pytest.mark.parametrize(
    "tx, first",
    [
        (torch.RMSprop(1.0), 10.0),
        (keras.RMSprop(1.0), 3.162),
        (hinton.rmsprop(1.0), 3.162),
        (tf1.RMSPropOptimizer(1.0), 1.0),
        (graves.rmsprop(1.0), 1 / np.sqrt(0.95 * 0.05 + 1e-4)),
        (torch.Adam(1.0), 1.0),
        (keras.Adam(1.0), 1.0),
        (tf1.AdamOptimizer(1.0), 1.0),
    ],
)
def test_first_step(tx, first, x64):
    np.testing.assert_allclose(steps_of(tx, 1), first, rtol=2e-4)


def test_tf1_rmsprop_starts_small(x64):
    small = [steps_of(make(1.0), 1, 1e-3)[0] for make in (tf1.RMSPropOptimizer, keras.RMSprop)]
    np.testing.assert_allclose(small, [1e-3 / np.sqrt(0.9), 1e-3 / np.sqrt(2e-7)], rtol=1e-4)


@pytest.mark.parametrize("make", [torch.RMSprop, keras.RMSprop, tf1.RMSPropOptimizer])
def test_steady_step_of_rmsprop_momentum(make, x64):
    np.testing.assert_allclose(steps_of(make(1.0, momentum=0.9), 1500)[-1], 10, rtol=1e-3)


def test_epsilon_of_tf1_adam_is_uncorrected(x64):
    ours = [steps_of(make(1.0), 1, 1e-5)[0] for make in (torch.Adam, tf1.AdamOptimizer)]
    expected = [1 / (1 + 1e-3), 1 / (1 + 1e-3 / np.sqrt(0.001))]
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


@pytest.mark.parametrize("make, ratio", [(torch.SGD, 0.1), (keras.SGD, 0.91)])
def test_rate_cut_inside_and_outside_velocity(make, ratio, x64):
    """A rate cut to a tenth acts at once outside the velocity, slowly inside."""
    schedule = lambda count: jnp.where(count < 300, 1.0, 0.1)  # noqa: E731
    steps = steps_of(make(schedule, momentum=0.9), 301)
    np.testing.assert_allclose(steps[300] / steps[299], ratio, rtol=1e-6)
