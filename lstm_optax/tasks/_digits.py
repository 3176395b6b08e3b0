"""Sequential digits: an image is read pixel by pixel or row by row, then classified."""

import math
from importlib import import_module
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from lstm_optax.checks import check_choice, check_integer
from lstm_optax.data import Sequences
from lstm_optax.data.shares import check_shares
from lstm_optax.tasks.lstm_model import make_model, mean_loss
from lstm_optax.tasks.task import Task

CLASSES = 10
SIDE = 8  # pixels

Order = Literal["pixels", "rows"]


def digits(
    *,
    order: Order = "pixels",
    hidden: int = 32,
    batch: int = 32,
    validation: float = 0.1,
    test: float = 0.1,
    steps: int = 3000,
    eval_every: int = 150,
) -> Task:
    """Classify handwritten digits of 8 × 8 pixels, read one pixel or one row at each step.

    The 1,797 images of `sklearn.datasets.load_digits`, in a fixed random order. The loss and the
    metrics "validation" and "test" are cross-entropies in nats; "validation_accuracy" and
    "test_accuracy" are shares of correct answers. The baselines are the cross-entropies on the test
    images of a uniform guess, ln 10, and of the frequencies of the classes in training. The target
    is our own choice, a tenth of ln 10.

    Args:
      order: "pixels" for 64 steps with a pixel each, "rows" for 8 steps with 8 pixels each.
      hidden: number of hidden units.
      batch: number of images in a batch, drawn at random from the training images.
      validation, test: shares of the images.
      steps, eval_every: defaults of the task.

    Raises:
      ImportError: scikit-learn is not installed.
      ValueError: a number is out of its range, or an unknown order.

    Reference: Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998,
    doi:10.24432/C50P49; pixel by pixel: Le et al., 2015, arXiv:1504.00941.
    """
    check_choice("order", order, get_args(Order))
    features = 1 if order == "pixels" else SIDE
    images, labels = _load_digits()
    train, *held = _split_images(len(images), validation, test)
    held_out = {
        part: Sequences(_as_sequences(images[rows], features), labels[rows])
        for part, rows in zip(("validation", "test"), held, strict=True)
    }
    model = make_model(features, hidden, CLASSES)
    check_integer("batch", batch)

    def batches(position: int, seed: int) -> Sequences:
        rows = np.random.default_rng([seed, position]).choice(train, batch)
        return Sequences(_as_sequences(images[rows], features), labels[rows])

    def loss(params: Any, carry: Any, batch: Sequences, key: jax.Array):
        return mean_loss(model.apply(params, batch.inputs), batch.targets), carry

    def evaluate(params: Any) -> dict[str, jax.Array]:
        metrics = {}
        for part, (inputs, targets) in held_out.items():
            logits = model.apply(params, inputs)
            metrics[part] = mean_loss(logits, targets)
            metrics[f"{part}_accuracy"] = jnp.mean(jnp.argmax(logits, axis=-1) == targets)
        return metrics

    frequencies = np.bincount(labels[train], minlength=CLASSES) / len(train)
    return Task(
        name="digits",
        init=model.init,
        loss=loss,
        batches=batches,
        evaluate=evaluate,
        steps=steps,
        eval_every=eval_every,
        target=math.log(CLASSES) / 10,
        baselines={
            "uniform": math.log(CLASSES),
            "class frequencies": float(-np.log(frequencies[held_out["test"].targets]).mean()),
        },
        settings=dict(order=order, hidden=hidden, batch=batch, validation=validation, test=test),
    )


def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return pixels [1797, 64] in 0 … 1 and classes [1797]."""
    try:
        load: Any = import_module("sklearn.datasets").load_digits
    except ImportError as error:
        raise ImportError(
            "scikit-learn is needed for its digits: pip install 'lstm_optax[digits]'"
        ) from error
    pixels, classes = load(return_X_y=True)
    return (pixels / 16).astype(np.float32), classes.astype(np.int32)


def _split_images(count: int, validation: float, test: float) -> tuple[np.ndarray, ...]:
    """Return the rows of the images for training, validation and test."""
    check_shares(validation, test)
    sizes = round(validation * count), round(test * count)
    if min(*sizes, count - sum(sizes)) < 1:
        raise ValueError(
            f"validation {validation:g} and test {test:g} of {count} images leave "
            f"{count - sum(sizes)} for training, {sizes[0]} for validation and {sizes[1]} for the "
            "test: each part needs at least 1"
        )
    order = np.random.default_rng(0).permutation(count)
    held, test_rows, train = np.split(order, np.cumsum(sizes))
    return train, held, test_rows


def _as_sequences(images: np.ndarray, features: int) -> np.ndarray:
    """Return images [B, 64] as inputs [64/features, B, features]."""
    return images.reshape(len(images), -1, features).swapaxes(0, 1)
