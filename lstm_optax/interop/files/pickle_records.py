"""Objects of a pickle as inert records: calls in the file are recorded, not made."""

import pickle
import reprlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

ADVICE = (
    "only tensors, numbers, strings and their containers are read: leave it out, or save only "
    "the `state_dict()` of the model and of the optimizer"
)


class NotRead(ValueError):
    """An intact file holds an object that is not read; the message says which, and where."""


MAX_DEPTH = 100
"""Limit on the nesting of containers; state dicts have five levels or fewer."""


PROTOCOLS = (2, 3)


class Held:
    """Record of an object in a file: the name of its class or function, and its arguments."""

    name = ""
    args: tuple[Any, ...]
    state: Any
    items: list[Any]  # entries, if it is a container

    def __new__(cls, *args: Any) -> "Held":
        self = super().__new__(cls)
        self.args, self.state, self.items = args, None, []
        return self

    def __call__(self, *args: Any) -> "Held":
        return self  # the result of a class method, such as of a time zone

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, item: Any) -> None:
        self.items.append(item)


def held(name: str) -> type[Held]:
    """Return a record class for objects of that name."""
    return type(name, (Held,), {"name": name})


def read_held(file: BinaryIO) -> Any:
    """Return the next object of a pickle, with `Held` in place of other objects."""
    unpickler = _HoldingUnpickler(file)
    content = unpickler.load()
    if unpickler.proto not in PROTOCOLS:
        raise NotRead(
            f"it is a pickle of protocol {unpickler.proto or '0 or 1'}, and PyTorch's loader of "
            "weights reads 2 and 3: save it with `torch.save`, without `pickle_protocol`"
        )
    return content


_Unpickler: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue]


class _HoldingUnpickler(_Unpickler):
    """Read a pickle into dictionaries, lists, numbers and `Held`; nothing is imported or called.

    It uses the unpickler written in Python, since the one in C allocates memory for any memo index.
    Python hashes tuples recursively without a limit, so their depth is checked when they are made.
    """

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="latin1")
        self._classes: dict[str, type[Held]] = {}
        self._tuples: dict[int, tuple[int, tuple[Any, ...]]] = {}  # id → (depth, tuple)

    def find_class(self, module: str, name: str) -> type[Held]:
        if self.proto < 3:  # Python 2's names
            module, name = NAME_MAPPING.get(
                (module, name), (IMPORT_MAPPING.get(module, module), name)
            )
        full = f"{module}.{name}"
        return self._classes.setdefault(full, held(full))

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"extension {code} of a registry")

    def persistent_load(self, pid: Any) -> Any:
        return pid[1] if pid[0] == "module" else pid  # a class with its source, or a storage

    def check_tuple(self) -> None:
        made = self.stack[-1]
        depth = 1 + max((self._tuples[id(x)][0] for x in made if id(x) in self._tuples), default=0)
        if depth > MAX_DEPTH:
            raise NotRead(f"tuples are nested more than {MAX_DEPTH} levels deep")
        self._tuples[id(made)] = depth, made

    dispatch: dict[int, Any] = _Unpickler.dispatch.copy()
    for _code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):

        def _load(self, load=dispatch[_code[0]]):
            load(self)
            self.check_tuple()

        dispatch[_code[0]] = _load


def check_held(x: Any, where: str, accepts: Callable[[type[Held], Any], bool]) -> None:
    """Raise NotRead for the first object in a tree that is not accepted.

    Args:
      x: result of `read_held`.
      where: name of x in error messages.
      accepts: (class of a `Held`, the object or None for the class itself) → True if it may be
        read.
    """
    done: set[int] = set()
    above: list[int] = []

    def check(x: Any, where: str) -> None:
        if isinstance(x, type) and issubclass(x, Held):
            if not accepts(x, None):
                raise NotRead(f"{where} is {x.name}, a class or function; {ADVICE}")
            return
        if id(x) in done or isinstance(x, (str, bytes, int, float)):
            return
        if id(x) in above:
            raise NotRead(f"{where} is an object that contains itself")
        if len(above) == MAX_DEPTH:
            raise NotRead(f"it is nested more than {MAX_DEPTH} levels deep, at {where[:200]}…")
        if isinstance(x, Held) and not accepts(type(x), x):
            raise NotRead(f"{where} is an object of {x.name}; {ADVICE}")
        above.append(id(x))
        for part, at in _children(x, where):
            check(part, at)
        above.pop()
        done.add(id(x))

    check(x, where)


def _children(x: Any, where: str) -> Iterator[tuple[Any, str]]:
    if isinstance(x, dict):
        for key, value in x.items():
            yield key, f"a key of {where}"
            yield value, f"{where}[{reprlib.repr(key)}]"
    elif isinstance(x, (list, tuple)):
        for i, value in enumerate(x):
            yield value, f"{where}[{i}]"
    elif isinstance(x, (set, frozenset)):
        for value in x:
            yield value, f"an item of {where}"
    elif isinstance(x, Held):
        yield from ((part, where) for part in (*x.args, x.items))
        if isinstance(x.state, dict):
            yield from ((value, f"{where}.{name}") for name, value in x.state.items())
        else:
            states = x.state if isinstance(x.state, tuple) else (x.state,)
            yield from ((part, where) for part in states)
