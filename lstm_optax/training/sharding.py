"""One batch over several devices: each has some of the rows, and all of everything else."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lstm_optax.training.state import TrainState


class BatchSharding:
    """Says where the rows of batches and carries lie, and splits them over devices.

    The rows are split into as many equal parts as there are devices, in order; parameters, the
    optimizer's state, key and sums are whole on each. Step, loss and model stay as they are: XLA
    divides the program by where its arguments lie, and adds up gradients where they meet.

    Args:
      batch_axes: the axis of a batch's rows, as `in_axes` of `jax.vmap`: one for all leaves, or a
        tree of them that is a prefix of the batch; None for what each device gets whole.
      carry_axes: the same of the carry.
      devices: those that share the rows; all that JAX has if None.

    Raises:
      ValueError: no devices.
    """

    def __init__(
        self, batch_axes: Any = 1, *, carry_axes: Any = 0, devices: Sequence[Any] | None = None
    ):
        devices = jax.devices() if devices is None else devices
        if len(devices) == 0:
            raise ValueError("devices is empty; expected at least one, or None for all there are")
        self.batch_axes = batch_axes
        self.carry_axes = carry_axes
        self.mesh: Mesh = Mesh(np.array(devices), ("rows",), axis_types=(AxisType.Auto,))

    def state(self, state: TrainState) -> TrainState:
        """Return the state as the devices have it; the old one may share its memory.

        Raises:
          ValueError: rows of the carry that the devices do not divide, or an axis it has not.
        """
        carry = self.carry(state.carry)
        return self.whole(state._replace(carry=()))._replace(carry=carry)

    def carry(self, carry: Any) -> Any:
        """Return a carry with its rows split; raises as `state` does."""
        return self._split("the carry", carry, self.carry_axes, 0)

    def batches(self, stacked: Any) -> Any:
        """Return batches, stacked along a new first axis, with their rows split; raises as `state`
        does."""
        return self._split("a batch", stacked, self.batch_axes, 1)

    def whole(self, tree: Any) -> Any:
        """Return a tree of arrays of which each device has all."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def _split(self, what: str, tree: Any, axes: Any, leading: int) -> Any:
        axes = jax.tree.broadcast(axes, tree, is_leaf=lambda axis: axis is None)

        def sharding(path: Any, leaf: Any, axis: int | None) -> NamedSharding:
            if axis is None:
                return NamedSharding(self.mesh, PartitionSpec())
            self._check(f"{what}{jax.tree_util.keystr(path)}", np.shape(leaf)[leading:], axis)
            return NamedSharding(self.mesh, PartitionSpec(*[None] * (leading + axis), "rows"))

        return jax.device_put(tree, jax.tree_util.tree_map_with_path(sharding, tree, axes))

    def _check(self, what: str, shape: tuple[int, ...], axis: int) -> None:
        if not 0 <= axis < len(shape):
            raise ValueError(
                f"{what} has shape {shape}, and no axis {axis} for its rows: give the axes, as "
                "in_axes of jax.vmap"
            )
        rows, devices = shape[axis], self.mesh.size
        if rows % devices:
            raise ValueError(
                f"{what} has {rows} rows, in axis {axis} of {shape}, which {devices} devices do "
                f"not divide; these do: {', '.join(map(str, divisors(rows)))}"
            )


def divisors(rows: int) -> list[int]:
    """Return the numbers of devices that can share so many rows."""
    return [n for n in range(1, rows + 1) if rows % n == 0]
