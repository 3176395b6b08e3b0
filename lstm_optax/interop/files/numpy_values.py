"""Conversion of loaded tensors to NumPy arrays and built-in Python types."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from lstm_optax.interop.files.pickle_records import ADVICE, Held, NotRead
from lstm_optax.interop.files.torch_globals import HARMLESS

_ATOMS = (bool, int, float, complex, str, bytes, bytearray)


def as_numpy(x: Any) -> Any:
    """Return a PyTorch tensor as a NumPy array; return any other object unchanged.

    The array is a copy: PyTorch changes its tensors in place, and JAX may share an array's memory.
    """
    if not hasattr(x, "detach"):
        return x
    x = x.detach()
    if str(x.dtype) == "torch.bfloat16":  # PyTorch has no NumPy view of it
        return x.float().numpy(force=True).astype(jnp.bfloat16)
    return x.numpy(force=True).copy()


class Plain:
    """Conversion of the content of one file; an object that occurs twice is converted once.

    Args:
      torch: the module.
      max_bytes: limit on the total size of the arrays.
    """

    def __init__(self, torch: Any, max_bytes: int):
        self._torch, self._max_bytes, self._made_bytes = torch, max_bytes, 0
        self._done: dict[Any, tuple[Any, Any]] = {}  # keeping x keeps its id unique

    def __call__(self, x: Any, where: str) -> Any:
        """Return the object as plain data; `where` names it in error messages.

        Raises:
          NotRead: a tensor type that NumPy lacks, tensors that are too large, or another object.
        """
        if id(x) not in self._done:
            self._done[id(x)] = self._convert(x, where), x
        return self._done[id(x)][0]

    def _convert(self, x: Any, where: str) -> Any:
        if x is None or type(x) in _ATOMS:
            return x
        if isinstance(x, self._torch.Tensor):
            return self._convert_tensor(self._torch.Tensor.detach(x), where)
        if isinstance(x, dict):  # a file may have replaced x.items
            return {key: self(value, f"{where}[{key!r}]") for key, value in dict.items(x)}
        if isinstance(x, (list, tuple)):
            kind = list if isinstance(x, list) else tuple
            return kind(self(value, f"{where}[{i}]") for i, value in enumerate(x))
        if isinstance(x, set):
            return self._call(set, [[self(v, f"an item of {where}") for v in x]], where)
        if isinstance(x, (self._torch.dtype, self._torch.device)):
            return str(x)
        if isinstance(x, Held):
            args = [arg if isinstance(arg, type) else self(arg, where) for arg in x.args]
            state = x.state
            if isinstance(state, tuple):
                state = tuple(self(part, where) for part in state)
            else:
                state = self(state, where)
            return self._call(HARMLESS[x.name], [args, state], where)
        if isinstance(x, type) and issubclass(x, Held):
            raise NotRead(f"{where} is {x.name}, a class or function; {ADVICE}")
        kind = f"{type(x).__module__}.{type(x).__qualname__}"
        raise NotRead(f"{where} is an object of {kind}; {ADVICE}")

    def _call(self, make: Callable[..., Any], args: list[Any], where: str) -> Any:
        try:
            return make(*args)
        except Exception as error:  # the arguments come from the file
            raise NotRead(f"{where} cannot be made: {error}") from error

    def _convert_tensor(self, x: Any, where: str) -> Any:
        kind = f"a tensor of {x.dtype}, {x.layout}"
        if x.layout is not self._torch.strided or x.device.type != "cpu":
            raise NotRead(f"{where} is {kind} on the device {x.device}; expected a dense tensor")
        view = x.data_ptr(), x.dtype, x.shape, x.stride(), x.is_conj(), x.is_neg()
        if view in self._done:  # tied weights
            return self._done[view][0]
        size = x.numel() * x.element_size()
        self._made_bytes += size
        if self._made_bytes > self._max_bytes:
            raise NotRead(
                f"{where} is {kind} of shape {tuple(x.shape)}, a view that has {size:,} bytes when "
                f"it is copied and {x.untyped_storage().nbytes():,} in the file; this file may "
                f"have {self._max_bytes:,} in all: save copies (`tensor.clone()`), not views"
            )
        try:
            array = as_numpy(x)
        except (TypeError, RuntimeError) as error:
            raise NotRead(f"{where} is {kind}, which NumPy does not have") from error
        self._done[view] = array, x
        return array
