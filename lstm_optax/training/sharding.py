"""Data parallelism: the rows of a batch are split over devices, everything else is replicated."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lstm_optax.training.state import TrainState


class BatchSharding:
    """The split of batches and carries over devices, row by row.

    The rows are split into equal parts, one for each device, in order. Parameters, optimizer state,
    key and sums are replicated. Step, loss and model need no change: XLA partitions the program
    from the argument shardings and inserts the gradient all-reduce.

    Args:
      batch_axes: the axis of a batch's rows, like `in_axes` of `jax.vmap`: one for all leaves, or a
        tree of axes that is a prefix of the batch; None for leaves that are replicated.
      carry_axes: the same for the carry.
      devices: the devices that share the rows; None for all devices of JAX.

    Raises:
      ValueError: no devices.
    """

    def __init__(
        self, batch_axes: Any = 1, *, carry_axes: Any = 0, devices: Sequence[Any] | None = None
    ):
        devices = jax.devices() if devices is None else devices
        if len(devices) == 0:
            raise ValueError("devices is empty; expected at least one, or None for all devices")
        self.batch_axes = batch_axes
        self.carry_axes = carry_axes
        self.mesh: Mesh = Mesh(np.array(devices), ("rows",), axis_types=(AxisType.Auto,))

    def state(self, state: TrainState) -> TrainState:
        """Return the state placed on the devices; it may share memory with the old one.

        Raises:
          ValueError: the devices do not divide the rows of the carry, or it has no such axis.
        """
        carry = self.carry(state.carry)
        return self.whole(state._replace(carry=()))._replace(carry=carry)

    def carry(self, carry: Any) -> Any:
        """Return a carry with its rows split; raises like `state`."""
        return self._split("the carry", carry, self.carry_axes, 0)

    def batches(self, stacked: Any) -> Any:
        """Return batches stacked along a first axis with their rows split; raises like `state`."""
        return self._split("a batch", stacked, self.batch_axes, 1)

    def whole(self, tree: Any) -> Any:
        """Return a tree of arrays replicated on every device."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def _split(self, name: str, tree: Any, axes: Any, leading: int) -> Any:
        axes = jax.tree.broadcast(axes, tree, is_leaf=lambda axis: axis is None)

        def sharding(path: Any, leaf: Any, axis: int | None) -> NamedSharding:
            if axis is None:
                return NamedSharding(self.mesh, PartitionSpec())
            self._check_rows(f"{name}{jax.tree_util.keystr(path)}", np.shape(leaf)[leading:], axis)
            return NamedSharding(self.mesh, PartitionSpec(*[None] * (leading + axis), "rows"))

        return jax.device_put(tree, jax.tree_util.tree_map_with_path(sharding, tree, axes))

    def _check_rows(self, name: str, shape: tuple[int, ...], axis: int) -> None:
        if not 0 <= axis < len(shape):
            raise ValueError(
                f"{name} has shape {shape}, and no axis {axis} for its rows: give the axes, like "
                "in_axes of jax.vmap"
            )
        rows, devices = shape[axis], self.mesh.size
        if rows % devices:
            counts = [n for n in range(1, rows + 1) if rows % n == 0]
            raise ValueError(
                f"{name} has {rows} rows, in axis {axis} of {shape}, which {devices} devices do "
                f"not divide; these numbers do: {', '.join(map(str, counts))}"
            )
