"""What a loader of tensors returned, as NumPy arrays and Python's own types."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from lstm_optax.interop.files.pickle_records import ADVICE, Held, NotRead
from lstm_optax.interop.files.torch_globals import HARMLESS

_ATOMS = (bool, int, float, complex, str, bytes, bytearray)


def as_numpy(x: Any) -> Any:
    """Return a tensor of PyTorch as a NumPy array, and anything else as it is.

    The array is a copy: PyTorch changes its tensors in place, and JAX may share an array's memory.
    """
    if not hasattr(x, "detach"):
        return x
    x = x.detach()
    if str(x.dtype) == "torch.bfloat16":  # which PyTorch cannot give to NumPy; float32 holds it
        return x.float().numpy(force=True).astype(jnp.bfloat16)
    return x.numpy(force=True).copy()


class Plain:
    """The conversion of one file's content; each object is converted once, wherever it recurs.

    Args:
      torch: the module.
      most: how many bytes the arrays may have together.
    """

    def __init__(self, torch: Any, most: int):
        self._torch, self._most, self._made = torch, most, 0
        self._done: dict[Any, tuple[Any, Any]] = {}  # the object too, so that its id stays its own

    def __call__(self, x: Any, where: str) -> Any:
        """Return the object as plain data; `where` names it in the error.

        Raises:
          NotRead: a tensor that NumPy has not, tensors that are too large, or another object.
        """
        if id(x) not in self._done:
            self._done[id(x)] = self._converted(x, where), x
        return self._done[id(x)][0]

    def _converted(self, x: Any, where: str) -> Any:
        if x is None or type(x) in _ATOMS:
            return x
        if isinstance(x, self._torch.Tensor):
            return self._array(self._torch.Tensor.detach(x), where)
        if isinstance(x, dict):  # its own `items`, whatever attribute a file gave it
            return {key: self(value, f"{where}[{key!r}]") for key, value in dict.items(x)}
        if isinstance(x, (list, tuple)):
            kind = list if isinstance(x, list) else tuple
            return kind(self(value, f"{where}[{i}]") for i, value in enumerate(x))
        if isinstance(x, set):
            return self._made_by(set, [[self(v, f"an item of {where}") for v in x]], where)
        if isinstance(x, (self._torch.dtype, self._torch.device)):
            return str(x)
        if isinstance(x, Held):
            args = [arg if isinstance(arg, type) else self(arg, where) for arg in x.args]
            state = x.state
            if isinstance(state, tuple):
                state = tuple(self(part, where) for part in state)
            else:
                state = self(state, where)
            return self._made_by(HARMLESS[x.name], [args, state], where)
        if isinstance(x, type) and issubclass(x, Held):
            raise NotRead(f"{where} is {x.name}, a class or function; {ADVICE}")
        kind = f"{type(x).__module__}.{type(x).__qualname__}"
        raise NotRead(f"{where} is an object of {kind}; {ADVICE}")

    def _made_by(self, make: Callable[..., Any], args: list[Any], where: str) -> Any:
        try:
            return make(*args)
        except Exception as error:  # of arguments that a file may have
            raise NotRead(f"{where} cannot be made: {error}") from error

    def _array(self, x: Any, where: str) -> Any:
        kind = f"a tensor of {x.dtype}, {x.layout}"
        if x.layout is not self._torch.strided or x.device.type != "cpu":
            raise NotRead(f"{where} is {kind} on the device {x.device}; expected a dense tensor")
        view = x.data_ptr(), x.dtype, x.shape, x.stride(), x.is_conj(), x.is_neg()
        if view in self._done:  # as tied weights are
            return self._done[view][0]
        size = x.numel() * x.element_size()
        self._made += size
        if self._made > self._most:
            raise NotRead(
                f"{where} is {kind} of shape {tuple(x.shape)}, a view that has {size:,} bytes when "
                f"it is copied and {x.untyped_storage().nbytes():,} in the file; this file may "
                f"have {self._most:,} in all: save copies (`tensor.clone()`), not views"
            )
        try:
            array = as_numpy(x)
        except (TypeError, RuntimeError) as error:
            raise NotRead(f"{where} is {kind}, which NumPy does not have") from error
        self._done[view] = array, x
        return array
