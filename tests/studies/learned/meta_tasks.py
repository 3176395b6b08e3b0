"""The tasks that the learned rule is trained and selected on: tiny, synthetic, and endless."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from learned.small_models import (
    apply_lstm,
    apply_perceptron,
    cross_entropy,
    init_lstm,
    init_perceptron,
    squared_error,
)

BATCH = 16


class Family(NamedTuple):
    """Tasks of one kind; an instance is a tree of arrays, so that tasks are vectorised.

    Attributes:
      draw: key → instance.
      init: (key, instance) → parameters.
      loss: (parameters, instance, key) → mean loss on a new batch.
    """

    draw: Callable[[jax.Array], Any]
    init: Callable[[jax.Array, Any], Any]
    loss: Callable[[Any, Any, jax.Array], jax.Array]


def reparametrised(family: Family, share: float = 0.7) -> Family:
    """Return the same tasks in other units: x₀/s instead of x₀, f(s · x) instead of f(x).

    The scales s are products of one factor for all, one for each tensor, and one for each entry,
    up to e, 2 and 1.6; a share of the instances has them, the others have s = 1.
    """

    def draw(key):
        own, shapes_key, coin, whole = jax.random.split(key, 4)
        instance = family.draw(own)
        shapes = jax.eval_shape(family.init, key, instance)
        leaves, tree = jax.tree.flatten(shapes)
        on = jax.random.bernoulli(coin, share)
        shared = jax.random.uniform(whole, (), minval=-1.0, maxval=1.0)
        scales = []
        for k, leaf in zip(jax.random.split(shapes_key, len(leaves)), leaves, strict=True):
            one, each = jax.random.split(k)
            log = shared + jax.random.uniform(one, (), minval=-0.7, maxval=0.7)
            log = log + jax.random.uniform(each, leaf.shape, minval=-0.5, maxval=0.5)
            scales.append(jnp.exp(jnp.where(on, log, 0.0)))
        return instance, jax.tree.unflatten(tree, scales)

    def init(key, instance):
        return jax.tree.map(jnp.divide, family.init(key, instance[0]), instance[1])

    def loss(params, instance, key):
        return family.loss(jax.tree.map(jnp.multiply, params, instance[1]), instance[0], key)

    return Family(draw, init, loss)


def quadratics(size: int = 20) -> Family:
    """Noisy least squares with condition numbers of 1 … 10⁴, in a random basis."""

    def draw(key):
        basis, spread, target, noise = jax.random.split(key, 4)
        logs = jnp.linspace(0, -1, size) * jax.random.uniform(spread, (), maxval=2.0)
        mixing = jax.random.normal(basis, (size, size)) / jnp.sqrt(size)
        matrix = mixing * jnp.power(10.0, logs)[None]
        noise = jnp.power(10.0, jax.random.uniform(noise, (), minval=-2.0, maxval=0.0))
        return matrix, jax.random.normal(target, (size,)), noise

    def init(key, instance):
        x = jax.random.normal(key, (size,))
        return {"a": x[:16].reshape(4, 4), "b": x[16:]}

    def loss(params, instance, key):
        matrix, target, noise = instance
        x = jnp.concatenate([params["a"].reshape(-1), params["b"]])
        shift = noise * jax.random.normal(key, (size,))
        return jnp.mean(jnp.square(matrix @ (x - target) + shift))

    return Family(draw, init, loss)


def classifiers(hidden: int | None, inputs: int = 16, classes: int = 6) -> Family:
    """Classes of several normal clusters, for a perceptron, or a softmax without hidden units."""

    def draw(key):
        centre_key, spread, bent = jax.random.split(key, 3)
        centres = jax.random.normal(centre_key, (2 * classes, inputs))
        spread = jax.random.uniform(spread, (), minval=0.3, maxval=1.5)
        return centres, spread, jax.random.bernoulli(bent).astype(jnp.float32)

    sizes = (inputs, classes) if hidden is None else (inputs, hidden, hidden, classes)

    def loss(params, instance, key):
        centres, spread, bent = instance
        which, noise = jax.random.split(key)
        cluster = jax.random.randint(which, (BATCH,), 0, 2 * classes)
        x = centres[cluster] + spread * jax.random.normal(noise, (BATCH, inputs))
        return cross_entropy(apply_perceptron(params, x, bent), cluster % classes)

    return Family(draw, lambda key, instance: init_perceptron(key, sizes), loss)


def additions(hidden: int = 12, length: int = 10) -> Family:
    """The adding problem."""

    def loss(params, instance, key):
        numbers_key, first, second = jax.random.split(key, 3)
        numbers = jax.random.uniform(numbers_key, (length, BATCH))
        half = length // 2
        marks = jax.nn.one_hot(jax.random.randint(first, (BATCH,), 0, half), length)
        marks += jax.nn.one_hot(jax.random.randint(second, (BATCH,), half, length), length)
        inputs = jnp.stack([numbers, marks.T], axis=-1)
        answers = apply_lstm(params, inputs)
        return squared_error(answers, jnp.sum(numbers * marks.T, axis=0)[:, None])

    return Family(_no_facts, lambda key, instance: init_lstm(key, 2, hidden, 1), loss)


def sines(hidden: int = 8, length: int = 12) -> Family:
    """The next value of noisy sine waves, whose frequencies and noise differ between instances."""

    def draw(key):
        low, noise = jax.random.split(key)
        return jax.random.uniform(low, (), minval=0.1, maxval=1.0), 0.3 * jax.random.uniform(noise)

    def loss(params, instance, key):
        frequency, noise = instance
        phase, spread, noise_key = jax.random.split(key, 3)
        phases = 6.3 * jax.random.uniform(phase, (1, BATCH))
        speeds = frequency * jax.random.uniform(spread, (1, BATCH), minval=1.0, maxval=2.0)
        waves = jnp.sin(speeds * jnp.arange(length + 1.0)[:, None] + phases)
        waves = waves + noise * jax.random.normal(noise_key, waves.shape)
        answers = apply_lstm(params, waves[:-1, :, None], every_step=True)
        return squared_error(answers, waves[1:, :, None])

    return Family(draw, lambda key, instance: init_lstm(key, 1, hidden, 1), loss)


def orders(hidden: int = 12, length: int = 12) -> Family:
    """The order of two symbols among others."""

    def loss(params, instance, key):
        noise, answer, place, later = jax.random.split(key, 4)
        symbols = jax.random.randint(noise, (length, BATCH), 0, 4)
        which = jax.random.randint(answer, (2, BATCH), 0, 2)
        half, rows = length // 2, jnp.arange(BATCH)
        symbols = symbols.at[jax.random.randint(place, (BATCH,), 0, half), rows].set(4 + which[0])
        places = jax.random.randint(later, (BATCH,), half, length)
        symbols = symbols.at[places, rows].set(4 + which[1])
        answers = apply_lstm(params, jax.nn.one_hot(symbols, 6))
        return cross_entropy(answers, 2 * which[0] + which[1])

    return Family(_no_facts, lambda key, instance: init_lstm(key, 6, hidden, 4), loss)


def chains(hidden: int = 16, length: int = 12, symbols: int = 8) -> Family:
    """The next symbol of a Markov chain of order 2, whose table is the instance."""

    def draw(key):
        table, sharp = jax.random.split(key)
        sharpness = jax.random.uniform(sharp, (), minval=1.0, maxval=4.0)
        return sharpness * jax.random.normal(table, (symbols, symbols, symbols))

    def loss(params, instance, key):
        start, steps = jax.random.split(key)
        noise = jax.random.gumbel(steps, (length, BATCH, symbols))
        first = jax.random.randint(start, (2, BATCH), 0, symbols)

        def step(pair, noise):
            new = jnp.argmax(instance[pair[0], pair[1]] + noise, axis=-1)
            return (pair[1], new), new

        _, drawn = jax.lax.scan(step, (first[0], first[1]), noise)
        text = jnp.concatenate([first[1][None], drawn])
        answers = apply_lstm(params, jax.nn.one_hot(text[:-1], symbols), every_step=True)
        return cross_entropy(answers, text[1:])

    return Family(draw, lambda key, instance: init_lstm(key, symbols, hidden, symbols), loss)


def recalls(hidden: int = 16, length: int = 12, symbols: int = 6) -> Family:
    """The first symbol, after others of the same alphabet. For the selection only."""

    def loss(params, instance, key):
        text = jax.random.randint(key, (length, BATCH), 0, symbols)
        answers = apply_lstm(params, jax.nn.one_hot(text, symbols))
        return cross_entropy(answers, text[0])

    return Family(_no_facts, lambda key, instance: init_lstm(key, symbols, hidden, symbols), loss)


def swings(hidden: int = 16, length: int = 16) -> Family:
    """The next value of damped random oscillators. For the selection only."""

    def draw(key):
        return jax.random.uniform(key, (), minval=0.2, maxval=1.2)

    def loss(params, instance, key):
        start, shocks = jax.random.split(key)
        pair = jax.random.normal(start, (2, BATCH))
        noise = 0.2 * jax.random.normal(shocks, (length + 1, BATCH))
        first, second = 2 * 0.95 * jnp.cos(instance), -(0.95**2)

        def step(pair, shock):
            new = first * pair[1] + second * pair[0] + shock
            return jnp.stack([pair[1], new]), new

        _, series = jax.lax.scan(step, pair, noise)
        answers = apply_lstm(params, series[:-1, :, None], every_step=True)
        return squared_error(answers, series[1:, :, None])

    return Family(draw, lambda key, instance: init_lstm(key, 1, hidden, 1), loss)


def _no_facts(key: jax.Array) -> tuple:
    del key
    return ()


TRAINING: dict[str, Family] = {
    "quadratics": quadratics(),
    "softmax": classifiers(None),
    "perceptrons": classifiers(16),
    "additions": additions(),
    "sines": sines(),
    "orders": orders(),
    "chains": chains(),
}

SELECTION: dict[str, Family] = {
    "recalls": recalls(),
    "swings": swings(),
    "wide perceptrons": classifiers(32, inputs=8, classes=4),
}
"""Kinds that the training does not contain, except the third, which is a wider one of it."""
