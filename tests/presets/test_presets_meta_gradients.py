"""Derivatives of the presets through several steps, as of every rule."""

import jax.numpy as jnp
import pytest
import test_meta_gradients as meta
from plain import plain_for
from presets_table import PRESETS

from lstm_optax.presets import algoperf, keras


@pytest.mark.parametrize("name", ["hinton.rmsprop"])
def test_derivatives_of_a_few_presets(name, x64):
    meta.check_row(PRESETS[name], 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("steps", plain_for([2, 20], [20], pytest.mark.soak))
def test_derivatives_of_every_preset(name, steps, x64):
    meta.check_row(PRESETS[name], steps)


@pytest.mark.slow
@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm", "clipvalue", "grad_clip"])
def test_derivatives_of_clips_at_a_zero_gradient(clip, x64):
    params, gradients = meta.problem(4)
    make = algoperf.clip_gradients if clip == "grad_clip" else keras.SGD
    meta.check(make, {clip: 0.4}, 0 * params, gradients.at[jnp.array([0, 2])].set(0))
