"""Find tasks by name or in a user's file; JAX is imported on demand."""

import inspect
import runpy
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from lstm_optax.runs.hyper_parameters import split_settings
from lstm_optax.studies.study_records import StudyError

if TYPE_CHECKING:
    from lstm_optax.tasks import Task

FLAG = "--task-set"


@dataclass(frozen=True)
class NamedTask:
    """A ready-made task.

    Attributes:
      factory: its name in `lstm_optax.tasks`.
      preset: arguments that the name implies.
      quick: smaller sizes for --quick.
    """

    factory: str
    preset: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)


_SMALL = dict(length=10, hidden=8, batch=8, held_out=32, steps=40, eval_every=10)
_TEXT = dict(embedding=8, hidden=16, batch=16, window=16, steps=20, eval_every=10)
_SURFACES = ("saddle", "monkey_saddle", "rosenbrock", "beale", "quadratic")

NAMED_TASKS: Mapping[str, NamedTask] = {
    "characters": NamedTask("characters", quick=_TEXT),
    **{
        name: NamedTask("sequences", {"name": name}, _SMALL)
        for name in ("adding", "copy", "temporal_order", "delayed_xor")
    },
    "digits": NamedTask("digits", quick=dict(hidden=8, steps=20, eval_every=10)),
    "forecast": NamedTask("forecast", quick=dict(hidden=8, steps=20, eval_every=10)),
    **{name: NamedTask("surface", {"name": name}, dict(steps=40)) for name in _SURFACES},
}


def check_task_name(name: str) -> None:
    """Raise StudyError unless a name is that of a task or of an existing Python file."""
    if name in NAMED_TASKS:
        return
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise StudyError(f"--task {name}: there is no such file")
        return
    near = get_close_matches(name, NAMED_TASKS, n=1, cutoff=0.6)
    hint = f"the nearest is {near[0]}; " if near else ""
    raise StudyError(
        f"--task {name} is not known; {hint}there are {', '.join(NAMED_TASKS)}, and FILE.py that "
        "defines `task`"
    )


def find_task(name: str, settings: Sequence[str] = (), *, quick: bool = False) -> "Task":
    """Return a task by name, or the one that a file defines.

    Args:
      name: of NAMED_TASKS, or a Python file that defines `task`, a `Task` or a function that
        returns one.
      settings: texts NAME=VALUE, arguments of the task's function.
      quick: use small sizes where the settings do not say otherwise; files are unchanged.

    Raises:
      StudyError: an unknown name or argument, a value of another kind, a value that the task
        refuses, or a file that fails or defines no task; the message holds the file's traceback.
    """
    check_task_name(name)
    if name.endswith(".py"):
        return _task_of_file(Path(name), settings)
    import lstm_optax.tasks as tasks

    known = NAMED_TASKS[name]
    factory = getattr(tasks, known.factory)
    options = _parse_options(name, factory, settings, hidden=known.preset)
    if quick:
        options = {**known.quick, **options}
    try:
        return factory(**known.preset, **options)
    except (ValueError, OSError, ImportError, TypeError) as error:
        raise StudyError(f"--task {name}: {error}") from error


def _task_of_file(path: Path, settings: Sequence[str]) -> "Task":
    from lstm_optax.tasks import Task

    sys.path.insert(0, str(path.parent.resolve()))  # as for a script
    try:
        found = runpy.run_path(str(path)).get("task")
        if found is not None and not isinstance(found, Task) and callable(found):
            found = found(**_parse_options(path.name, found, settings))
        elif settings:
            raise StudyError(
                f"{FLAG} {settings[0]}: `task` in {path} is no function, so it takes no arguments"
            )
    except StudyError:
        raise
    except Exception as error:
        shown = "".join(traceback.format_exception(error)).rstrip()
        raise StudyError(f"{path} failed:\n{shown}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(found, Task):
        kind = "nothing" if found is None else f"an object of type {type(found).__name__}"
        raise StudyError(
            f"{path} defines {kind} as `task`, but must define `task = lstm_optax.Task(…)`, or a "
            "function that returns one"
        )
    return found


def _parse_options(
    name: str,
    factory: Callable[..., Any],
    settings: Sequence[str],
    hidden: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    hints = get_type_hints(factory)
    parameters = {
        key: p
        for key, p in inspect.signature(factory).parameters.items()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    known = [key for key in parameters if key not in (hidden or {})]
    options = {}
    for key, text in split_settings(settings, flag=FLAG).items():
        if key not in known:
            near = get_close_matches(key, known, n=1, cutoff=0.6)
            hint = f"; the nearest is {near[0]}" if near else ""
            raise StudyError(
                f"{FLAG} {key}={text}: {name} has no such argument{hint}; it has {', '.join(known)}"
            )
        options[key] = _parse(key, text, hints.get(key) or type(parameters[key].default))
    required = [k for k in known if parameters[k].default is parameters[k].empty]
    if missing := [key for key in required if key not in options]:
        raise StudyError(f"--task {name} needs {FLAG} {missing[0]}=…")
    return options


def _parse(key: str, text: str, kind: Any) -> Any:
    """Return a text as a value of an annotated kind; a list is separated by commas."""
    if get_origin(kind) in (Union, UnionType):
        kinds = [k for k in get_args(kind) if k is not NoneType]
        if text == "none" and len(kinds) < len(get_args(kind)):
            return None
        order = [k for k in (int, float, str) if k in kinds] or kinds
        for candidate in order[:-1]:
            try:
                return _parse(key, text, candidate)
            except StudyError:
                continue
        return _parse(key, text, order[-1])
    if get_origin(kind) in (tuple, list, Sequence):
        return tuple(_parse(key, part.strip(), get_args(kind)[0]) for part in text.split(","))
    if get_origin(kind) is Literal or kind not in (int, float, bool):
        return text
    flags = {"true": True, "false": False}
    try:
        return flags[text] if kind is bool else kind(text)
    except (ValueError, TypeError, KeyError):
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, kind)
        raise StudyError(f"{FLAG} {key}={text}: must be {wanted}") from None
