"""The scale on paper: bytes on each device, bytes moved in each step, and the time of the links.

The formulas are those of data parallelism and of ZeRO (Rajbhandari et al., 2020, arXiv:1910.02054):
stage 0 replicates everything, stage 1 divides the optimizer state over the devices, stage 2 the
gradient as well, and stage 3 the parameters as well. Nothing is computed, so that a model may be
larger than the machine: parameters are shapes, as `jax.eval_shape` returns them.
"""

from typing import Any, NamedTuple

import jax
import optax

from lstm_optax.checks import FACTOR, SIZE, check_integer

STAGES = (0, 1, 2, 3)


class DeviceBytes(NamedTuple):
    """Bytes on each device, without the activations."""

    params: int
    gradient: int
    opt_state: int

    @property
    def total(self) -> int:
        """The sum of the three."""
        return sum(self)


def bytes_per_device(
    params: Any, optimizer: optax.GradientTransformation, devices: int, *, stage: int = 0
) -> DeviceBytes:
    """Return the bytes of parameters, gradient and optimizer state on each device.

    An array is divided along one of its axes whose length the devices divide, as `NamedSharding`
    requires. An array without such an axis, such as a count, is replicated.

    Args:
      params: arrays, or their shapes and dtypes.
      optimizer: its state is that of `init`.
      devices: the number of devices on the data axis, at least 1.
      stage: of ZeRO, from 0 to 3; see the head of this module.

    Raises:
      ValueError: no device, or an unknown stage.

    Reference: Rajbhandari et al., 2020, arXiv:1910.02054, section 5.
    """
    devices = _check_stage(devices, stage)
    opt_state = jax.eval_shape(optimizer.init, params)
    return DeviceBytes(
        params=_divided_bytes(params, devices if stage >= 3 else 1),
        gradient=_divided_bytes(params, devices if stage >= 2 else 1),
        opt_state=_divided_bytes(opt_state, devices if stage >= 1 else 1),
    )


def bytes_moved(params: Any, devices: int, *, stage: int = 0) -> int:
    """Return the bytes that each device sends in a training step; it receives as many.

    With n devices and P bytes of parameters, and as many of their gradient, in rings:

        stage 0: 2 (n − 1)/n · P, an all-reduce of the gradient
        stages 1, 2: the same: a reduce-scatter of the gradient, an all-gather of the parameters
        stage 3: 3 (n − 1)/n · P, an all-gather before the forward and before the backward pass, and
          a reduce-scatter of the gradient

    Not counted: the loss and other scalars, and what an optimizer exchanges that needs whole
    matrices, such as `gate_muon` with a divided state.

    Args:
      params: arrays, or their shapes and dtypes; the gradient has the same.
      devices: the number of devices on the data axis, at least 1.
      stage: of ZeRO, from 0 to 3.

    Raises:
      ValueError: no device, or an unknown stage.

    Reference: Patarasuk & Yuan, 2009, doi:10.1016/j.jpdc.2008.09.002 (the ring); Rajbhandari et
    al., 2020, arXiv:1910.02054, section 7 (the stages).
    """
    devices = _check_stage(devices, stage)
    passes = 3 if stage == 3 else 2
    return -(-passes * (devices - 1) * tree_bytes(params) // devices)


def seconds_to_move(
    params: Any, devices: int, *, stage: int = 0, bandwidth: float, latency: float = 0.0
) -> float:
    """Return the time that the links need for a step: messages · latency + bytes / bandwidth.

    A ring of n devices takes n − 1 messages for each reduce-scatter and each all-gather. This is a
    lower bound for rings whose messages do not overlap with the computation.

    Args:
      params: arrays, or their shapes and dtypes.
      devices: the number of devices on the data axis, at least 1.
      stage: of ZeRO, from 0 to 3.
      bandwidth: bytes per second that one device sends, above 0.
      latency: seconds of a message between neighbours.

    Raises:
      ValueError: no device, an unknown stage, or a number out of range.

    Reference: Thakur, Rabenseifner & Gropp, 2005, doi:10.1177/1094342005051521, section 3.
    """
    FACTOR.check(bandwidth=bandwidth)
    SIZE.check(latency=latency)
    moved = bytes_moved(params, devices, stage=stage)
    messages = (3 if stage == 3 else 2) * (devices - 1)
    return messages * latency + moved / bandwidth


def tree_bytes(tree: Any) -> int:
    """Return the bytes of all arrays of a tree."""
    return sum(map(_leaf_bytes, jax.tree.leaves(tree)))


def _divided_bytes(tree: Any, devices: int) -> int:
    """Return the bytes on each device if each array is divided where one of its axes allows it."""
    return sum(
        _leaf_bytes(leaf) // (devices if any(n % devices == 0 for n in leaf.shape) else 1)
        for leaf in jax.tree.leaves(tree)
    )


def _leaf_bytes(leaf: Any) -> int:
    return leaf.size * leaf.dtype.itemsize


def _check_stage(devices: int, stage: int) -> int:
    devices = check_integer("devices", devices, 1)
    if stage not in STAGES:
        raise ValueError(f"stage is {stage!r}; expected one of ZeRO's, 0, 1, 2 or 3")
    return devices
