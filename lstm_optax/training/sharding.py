"""Data parallelism: the rows of a batch, and on request the state, are split over devices."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lstm_optax.training.state import TrainState


class BatchSharding:
    """The split of batches and carries over devices, row by row, in one process or in several.

    The rows are split into equal parts, one for each device, in order. Parameters, optimizer state,
    key and sums are replicated. Step, loss and model need no change: XLA partitions the program
    from the argument shardings and inserts the gradient all-reduce.

    With `shard_state`, each array of the parameters and of the optimizer state is split along its
    first axis that the number of devices divides; the other arrays are replicated. Each device then
    stores and updates its part, and the parameters are gathered once at the beginning of a step
    (ZeRO).

    With several processes, connected by `jax.distributed.initialize`, each of them passes the same
    batches and the same state, and its devices take their rows; or only the rows of its own
    devices, with `local_rows`.

    Args:
      batch_axes: the axis of a batch's rows, like `in_axes` of `jax.vmap`: one for all leaves, or a
        tree of axes that is a prefix of the batch; None for leaves that are replicated.
      carry_axes: the same for the carry.
      devices: the devices that share the rows; None for all devices of JAX.
      shard_state: split the parameters and the optimizer state over the devices as well.
      local_rows: each process passes only its own rows of batches and carries, equally many in all
        processes, in place of all rows.

    Raises:
      ValueError: no devices, or none of this process.

    Reference: Rajbhandari et al., 2020, arXiv:1910.02054.
    """

    def __init__(
        self,
        batch_axes: Any = 1,
        *,
        carry_axes: Any = 0,
        devices: Sequence[Any] | None = None,
        shard_state: bool = False,
        local_rows: bool = False,
    ):
        devices = jax.devices() if devices is None else devices
        if len(devices) == 0:
            raise ValueError("devices is empty; expected at least one, or None for all devices")
        self.batch_axes = batch_axes
        self.carry_axes = carry_axes
        self.shard_state: bool = shard_state
        self.local_rows: bool = local_rows
        self.mesh: Mesh = Mesh(np.array(devices), ("rows",), axis_types=(AxisType.Auto,))
        processes = {device.process_index for device in devices}
        if jax.process_index() not in processes:
            raise ValueError(
                f"devices holds none of process {jax.process_index()}, which calls this; expected "
                "at least one of each process, such as jax.devices()"
            )
        self.process_count: int = len(processes)

    def state(self, state: TrainState) -> TrainState:
        """Return the state placed on the devices; it may share memory with the old one.

        Raises:
          ValueError: the devices do not divide the rows of the carry, or it has no such axis.
        """
        carry = self.carry(state.carry)
        rest = state._replace(carry=())
        layout = jax.tree.map(lambda leaf: self._whole, rest)._replace(
            params=jax.tree.map(self._layout_of, rest.params),
            opt_state=jax.tree.map(self._layout_of, rest.opt_state),
        )
        return self._place(rest, layout)._replace(carry=carry)

    def carry(self, carry: Any) -> Any:
        """Return a carry with its rows split; raises like `state`."""
        placed = self._split("the carry", carry, self.carry_axes, 0)
        if self.local_rows and self.process_count > 1:
            sizes = self._gathered(sum(leaf.size for leaf in jax.tree.leaves(placed)))
            if len(set(sizes)) > 1:
                raise ValueError(
                    "the carries of the processes differ in size; expected equally many rows in "
                    "each process"
                )
        return placed

    def batches(self, stacked: Any) -> Any:
        """Return batches stacked along a first axis with their rows split; raises like `state`."""
        return self._split("a batch", stacked, self.batch_axes, 1)

    def whole(self, tree: Any) -> Any:
        """Return a tree of arrays replicated on every device."""
        return self._place(tree, jax.tree.map(lambda leaf: self._whole, tree))

    def in_each_process(self, number: int) -> dict[int, int]:
        """Return the number of each process, at least 0, by its rank; each must call it."""
        if self.process_count == 1:
            return {jax.process_index(): number}
        ranks = [device.process_index for device in self.mesh.devices]
        return dict(zip(ranks, self._gathered(number), strict=True))

    def gather_params(self, state: TrainState) -> TrainState:
        """Return the state with whole parameters, inside a compiled program."""
        whole = jax.lax.with_sharding_constraint(
            state.params, jax.tree.map(lambda leaf: self._whole, state.params)
        )
        return state._replace(params=whole)

    def split_state(self, state: TrainState) -> TrainState:
        """Return the state with its parts pinned to the devices, inside a compiled program."""
        split = state.params, state.opt_state
        layout = jax.tree.map(self._layout_of, split)
        params, opt_state = jax.lax.with_sharding_constraint(split, layout)
        return state._replace(params=params, opt_state=opt_state)

    @property
    def _whole(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    def _gathered(self, number: int) -> list[int]:
        """Return a number from every device, each with that of its process."""
        local = np.full(len(self.mesh.local_devices), number % 2**31, np.int32)
        rows = NamedSharding(self.mesh, PartitionSpec("rows"))
        return self.whole(jax.make_array_from_process_local_data(rows, local)).tolist()

    def _layout_of(self, leaf: Any) -> NamedSharding:
        """Return the sharding of an array of the parameters or of the optimizer state."""
        if self.shard_state:
            for axis, length in enumerate(np.shape(leaf)):
                if length and length % self.mesh.size == 0:
                    return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, "rows"))
        return self._whole

    def _split(self, name: str, tree: Any, axes: Any, leading: int) -> Any:
        axes = jax.tree.broadcast(axes, tree, is_leaf=lambda axis: axis is None)

        def sharding(path: Any, leaf: Any, axis: int | None) -> NamedSharding:
            if axis is None:
                return self._whole
            self._check_rows(f"{name}{jax.tree_util.keystr(path)}", np.shape(leaf)[leading:], axis)
            return NamedSharding(self.mesh, PartitionSpec(*[None] * (leading + axis), "rows"))

        layout = jax.tree_util.tree_map_with_path(sharding, tree, axes)
        return self._place(tree, layout, local_rows=self.local_rows)

    def _place(self, tree: Any, layout: Any, *, local_rows: bool = False) -> Any:
        if self.process_count == 1:
            return jax.device_put(tree, layout)

        def place(leaf: Any, sharding: NamedSharding) -> jax.Array:
            if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
                return jax.device_put(leaf, sharding)
            # `device_put` would send every array to all processes, to compare it
            value = np.asarray(leaf)
            if local_rows:
                return jax.make_array_from_process_local_data(sharding, value)
            return jax.make_array_from_callback(value.shape, sharding, value.__getitem__)

        return jax.tree.map(place, tree, layout)

    def _check_rows(self, name: str, shape: tuple[int, ...], axis: int) -> None:
        if not 0 <= axis < len(shape):
            raise ValueError(
                f"{name} has shape {shape}, and no axis {axis} for its rows: give the axes, like "
                "in_axes of jax.vmap"
            )
        rows = shape[axis]
        devices = len(self.mesh.local_devices) if self.local_rows else self.mesh.size
        if rows % devices:
            counts = [n for n in range(1, rows + 1) if rows % n == 0]
            owner = " of this process" if self.local_rows else ""
            raise ValueError(
                f"{name} has {rows} rows, in axis {axis} of {shape}, which {devices} devices"
                f"{owner} do not divide; these numbers do: {', '.join(map(str, counts))}"
            )
