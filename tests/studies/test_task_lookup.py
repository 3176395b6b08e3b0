"""Tasks by name and from files, with arguments as texts."""

import re
import sys

import pytest
from plain import plain_for

from lstm_optax import Task
from lstm_optax.studies import StudyError
from lstm_optax.studies.task_lookup import NAMED_TASKS, check_task_name, find_task

NAMES = sorted(set(NAMED_TASKS) - {"forecast", "digits"})

FILE = """
import jax.numpy as jnp
import numpy as np
from lstm_optax import Task

def task(*, scale: float = 1.0, label: str = "own", flag: bool = False) -> Task:
    return Task(
        name=label,
        init=lambda key: jnp.zeros(2),
        loss=lambda params, carry, batch, key: (scale * jnp.sum((params - batch) ** 2), carry),
        batches=lambda position, seed: np.ones(2, np.float32),
        evaluate=lambda params: {"validation": params[0], "test": params[1]},
        settings={"scale": scale, "flag": flag},
    )
"""


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "own.py"
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize("name", plain_for(NAMES, ("adding", "saddle")))
def test_each_named_task_passes_its_check(name):
    task = find_task(name, quick=True)
    task.check()
    assert task.name == name


def test_settings_override_quick_sizes():
    task = find_task("adding", ["hidden=3", "biases=chrono"], quick=True)
    assert task.settings["hidden"] == 3 and task.settings["biases"] == "chrono"
    assert task.steps == 40


def test_file_defines_function_with_arguments(file):
    task = find_task(file(FILE), ["scale=2", "label=mine", "flag=true"])
    assert task.name == "mine" and task.settings == {"scale": 2.0, "flag": True}
    assert isinstance(find_task(file(FILE + "\ntask = task()\n")), Task)


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("addin", [], "--task addin is not known; the nearest is adding; there are characters"),
        ("none.py", [], "--task none.py: there is no such file"),
        ("adding", ["hiden=3"], "--task-set hiden=3: adding has no such argument; the nearest is"),
        ("adding", ["name=copy"], "--task-set name=copy: adding has no such argument"),
        ("adding", ["hidden=x"], "--task-set hidden=x: must be a whole number"),
        ("adding", ["hidden=0"], "--task adding: hidden is 0, but must be"),
        ("adding", ["hidden"], "--task-set 'hidden' is not a name and a value"),
        ("forecast", [], "--task forecast needs --task-set target=…"),
    ],
)
def test_wrong_name_or_setting_has_one_error(name, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        find_task(name, settings)


@pytest.mark.parametrize(
    "text, message",
    [
        ("x = 1", "defines nothing as `task`, but must define `task = lstm_optax.Task(…)`"),
        ("task = 3", "defines an object of type int as `task`"),
        (
            "from lstm_optax import Task\ntask = Task('a')",
            "missing 4 required positional arguments",
        ),
        ("import math\nvalue = math.sqrt(-1)", "value = math.sqrt(-1)"),
    ],
)
def test_wrong_file_says_what_is_missing(file, text, message):
    with pytest.raises(StudyError, match=re.escape(message)):
        find_task(file(text))


def test_failure_in_file_shows_its_traceback(file):
    path = file("def helper():\n    return {}['absent']\n\ntask = helper()\n")
    with pytest.raises(StudyError) as error:
        find_task(path)
    text = str(error.value)
    assert text.startswith(f"{path} failed:\nTraceback")
    assert f'File "{path}", line 2, in helper' in text and text.endswith("KeyError: 'absent'")


def test_names_are_checked_without_jax():
    check_task_name("adding")
    with pytest.raises(StudyError, match="FILE.py that defines `task`"):
        check_task_name("nothing")


def test_file_imports_its_neighbour(file, tmp_path):
    (tmp_path / "neighbour.py").write_text(FILE)
    path = file("from neighbour import task")
    assert find_task(path, ["label=near"]).name == "near"
    assert str(tmp_path) not in sys.path


def test_argument_without_annotation_has_default_kind(file):
    text = FILE.replace("scale: float = 1.0", "scale=1.0").replace("-> Task", "")
    task = find_task(file(text.replace("flag: bool = False", "flag=False, **more")), ["scale=3"])
    assert task.settings == {"scale": 3.0, "flag": False}
