"""The weights of the learned rule in a file, with a hash of the features that they expect."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from learned.tensor_features import FEATURES
from learned.tensor_lstm import AHEAD_RANGE, HEADS, RATE_RANGE, Theta, init_theta

LARGEST = 100_000  # bytes
ARRAYS = ("kernel_ih", "kernel_hh", "bias", "head", "head_bias")


class WeightsError(ValueError):
    """A file whose weights cannot be used."""


def features_hash() -> str:
    """Return the hash of the features, the heads and their ranges, in their order."""
    facts = json.dumps([FEATURES, HEADS, RATE_RANGE, AHEAD_RANGE])
    return hashlib.sha256(facts.encode()).hexdigest()


def theta_hash(theta: Theta) -> str:
    """Return a short hash of the weights, by which records name them."""
    digest = hashlib.sha256()
    for name in ARRAYS:
        digest.update(np.asarray(theta[name], np.float32).tobytes())
    return digest.hexdigest()[:12]


def save_theta(path: Path, theta: Theta, about: dict[str, Any]) -> None:
    """Write the weights as NPZ without pickle, with the hash and a description as JSON.

    Raises:
      WeightsError: the file would be larger than 100 kB.
    """
    arrays = {name: np.asarray(theta[name], np.float32) for name in ARRAYS}
    text = json.dumps(about | {"features": features_hash()})
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, about=np.array(text), **arrays)
    if path.stat().st_size > LARGEST:
        raise WeightsError(f"{path} has {path.stat().st_size} bytes; at most {LARGEST} are allowed")


def load_theta(path: Path) -> tuple[Theta, dict[str, Any]]:
    """Return the weights of a file and their description.

    Raises:
      WeightsError: the file is not one of `save_theta`, or its weights expect other features.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            arrays = {name: file[name] for name in ARRAYS}
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path} is not a file of weights: {error}") from error
    if about.get("features") != features_hash():
        raise WeightsError(
            f"the weights in {path} expect features with hash {about.get('features')}, but this "
            f"code computes those with hash {features_hash()}: train the weights again, or use "
            "the code of their commit"
        )
    theta = {name: jnp.asarray(array) for name, array in arrays.items()}
    _check_shapes(path, theta)
    return theta, about


def _check_shapes(path: Path, theta: Theta) -> None:
    units = theta["kernel_hh"].shape[0] if theta["kernel_hh"].ndim else 0
    expected = jax.eval_shape(lambda: init_theta(jax.random.key(0), units))
    for name in ARRAYS:
        if theta[name].shape != expected[name].shape:
            raise WeightsError(
                f"{name} in {path} is {theta[name].shape}, but must be {expected[name].shape}"
            )
