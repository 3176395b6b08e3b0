"""`Lookup`: the inputs of a layer as rows of a table."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lstm_optax.lstm.checks import check_axes


class Lookup(NamedTuple):
    """The inputs `table[ids]` of an LSTM layer, such as the vectors of tokens.

    Where a layer takes x, it takes this too, with the same values and gradients as for `rows()`. It
    is faster on a CPU with the native backend if ids are repeated: table·W_ih is then computed
    once, instead of x·W_ih for each row and step.

    Attributes:
      table: the vectors, [entries, features].
      ids: integers from 0 to below entries, [time, batch]. Others are read as NaN.
    """

    table: Float[Array, "entries features"]
    ids: Int[Array, "time batch"]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the inputs."""
        return (*self.ids.shape, *self.table.shape[1:])

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the inputs."""
        return self.table.dtype

    def rows(self) -> Float[Array, "time batch features"]:
        """Return the inputs."""
        # The gradient of the table is a sum over all ids, in the dtype of what is read.
        wide = self.table.astype(jnp.promote_types(self.dtype, jnp.float32))
        rows = jnp.take(wide, self.entries(), axis=0, mode="fill", fill_value=jnp.nan)
        return rows.astype(self.dtype)

    def entries(self) -> Int[Array, "time batch"]:
        """Return the ids as int32, each that is out of range as the number of entries."""
        count = self.table.shape[0]
        ids = self.ids.astype(jnp.promote_types(self.ids.dtype, jnp.int32))
        return jnp.where((ids >= 0) & (ids < count), ids, count).astype(jnp.int32)


def swap_time_and_batch(x: Any) -> Any:
    """Return inputs with their first two axes exchanged."""
    if isinstance(x, Lookup):
        return x._replace(ids=jnp.swapaxes(x.ids, 0, 1))
    return jnp.swapaxes(x, 0, 1)


def check_lookup(x: Lookup) -> None:
    """Raise ValueError unless the table has two axes and the ids are integers."""
    check_axes("table", x.table.shape, ("entries", "features"))
    if not jnp.issubdtype(x.ids.dtype, jnp.integer):
        raise ValueError(f"ids is {x.ids.dtype}; expected integers")
