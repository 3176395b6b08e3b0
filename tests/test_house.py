"""The house: its arrows, its public names, and what starts without JAX."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest

import lstm_optax

ROOT = Path(lstm_optax.__file__).parent
REPOSITORY = Path(__file__).parents[1]
TOP = {
    "lstm_optax",
    "tests",
    "notebooks",
    "docs",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CITATION.cff",
}

ARROWS = {  # a room may import the rooms behind its arrow, and what those may import
    "_version": set(),
    "checks": set(),
    "trees": set(),
    "names": set(),
    "os_errors": set(),
    "heap": set(),
    "gates": set(),
    "data": {"checks"},
    "transforms": {"checks", "gates"},
    "optimizers": {"names", "transforms"},
    "presets": {"optimizers"},
    "records": set(),
    "plot_style": set(),
    "response": {"plot_style"},
    "lstm": {"checks", "gates"},
    "interop": {"lstm", "presets"},
    "models": {"lstm"},
    "checkpoints": {"heap", "os_errors", "records", "transforms", "trees"},
    "training": {"heap", "records", "transforms", "trees"},
    "runs": {"checkpoints", "data", "interop", "models", "records", "response", "training"},
    "tasks": {"data", "models", "training"},
    "studies": {"runs", "tasks"},
    "saddles": {"studies"},
    "reproductions": {"studies"},
    "report": {"saddles"},
    "bench": {"runs"},
    "commands": {"_version", "bench", "os_errors", "report", "reproductions"},
    "__main__": {"commands"},
    "__init__": {"*"},
}
LARGEST = 0.15  # of the lines of code


def allowed(room: str) -> set[str]:
    """What a room may import, following the arrows to their ends."""
    near = ARROWS[room]
    return near.union(*(allowed(other) for other in near if other != "*")) | {room}


FACES = set(ARROWS) - {
    "_version",
    "checks",
    "trees",
    "names",
    "os_errors",
    "heap",
    "records",
    "plot_style",
    "commands",
    "__main__",
    "__init__",
}


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """The rooms of this package that a module imports, wherever in the module."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names.append(node.module)
    ours = [name for name in names if name.split(".")[0] == "lstm_optax"]
    assert "lstm_optax" not in ours, f"{path} imports the package root"
    return {name.split(".")[1] for name in ours}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    room = room_of(path)
    assert room in ARROWS, f"{room} is a new room: draw its arrows"
    if ARROWS[room] != {"*"}:
        assert imports_of(path) <= allowed(room)


def test_no_cycles_between_modules():
    names = {".".join(p.relative_to(ROOT.parent).with_suffix("").parts): p for p in modules()}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    graph = {name: set() for name in names}
    for name, path in names.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                parts = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= parts & names.keys() or {node.module} & names.keys()
    done, path = set(), []

    def visit(name):
        assert name not in path, f"cycle: {' → '.join([*path, name])}"
        if name in done:
            return
        path.append(name)
        for other in graph[name]:
            visit(other)
        done.add(path.pop())

    for name in graph:
        if name != "lstm_optax":
            visit(name)


def test_no_module_bears_an_exported_name():
    """A submodule would shadow the name in a lazy package."""
    for name in ("lstm_optax", *(f"lstm_optax.{room}" for room in FACES)):
        package = importlib.import_module(name)
        modules = {info.name for info in pkgutil.iter_modules(package.__path__)}
        shared = modules & set(package.__all__)
        assert all(inspect.ismodule(getattr(package, name)) for name in shared), shared


def test_no_room_is_too_large():
    sizes = Counter()
    for path in modules():
        sizes[room_of(path)] += len(path.read_text().splitlines())
    assert max(sizes.values()) <= LARGEST * sum(sizes.values()), sizes.most_common(3)


def test_files_are_short():
    for path in modules():
        assert len(path.read_text().splitlines()) <= 300, path


PLAIN_WORDS = {  # what the prose of this repository avoids, and what it says instead
    "anew": "again",
    "beside": "next to",
    "ceased": "stopped",
    "goes on": "continues",
    "is told": "receives",
    "lies": "is",
    "of which": "start a new sentence",
    "stands": "is",
    "whom": "that",
}


def test_prose_uses_plain_words():
    """See "Style" in docs/contributing.md."""
    odd = re.compile(rf"\b({'|'.join(PLAIN_WORDS)})\b", re.IGNORECASE)
    texts = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    for folder in (REPOSITORY / "lstm_optax", REPOSITORY / "tests"):
        texts += [path for path in folder.rglob("*.py") if path != Path(__file__)]
    for path in texts:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if match := odd.search(line):
                word = match[0].lower()
                raise AssertionError(f"{path}:{number}: {word!r}; write {PLAIN_WORDS[word]!r}")


def test_sdist_holds_what_its_tests_need():
    """All folders and files of the top level are in the source distribution."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    included = set(settings["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    assert included | {"pyproject.toml"} == TOP


def test_citation_has_the_project_address():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert f'repository-code: "{project["urls"]["Repository"]}"\n' in citation
    assert f"license: {project['license']}\n" in citation


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="needs a git checkout")
def test_nothing_else_stands_at_the_top():
    """No file that a command left where it ran."""
    listing = ["git", "-C", str(REPOSITORY), "ls-files"]
    files = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.splitlines()
    top = {name.split("/")[0] for name in files if not name.startswith(".")}
    assert top == TOP


@pytest.mark.parametrize("room", ["", *sorted(FACES)])
def test_every_public_name_is_documented(room):
    package = importlib.import_module(f"lstm_optax.{room}".rstrip("."))
    for name in package.__all__:
        thing = getattr(package, name)
        if inspect.isclass(thing) or inspect.isfunction(thing) or inspect.ismodule(thing):
            assert inspect.getdoc(thing), f"{name} has no docstring"


def test_root_names_are_exported_by_one_room():
    names = set(lstm_optax.__all__) - FACES - {"__version__"}
    assert len(names) <= 90
    for name in names:
        rooms = [r for r in FACES if name in importlib.import_module(f"lstm_optax.{r}").__all__]
        assert len(rooms) == 1, f"{name}: {rooms}"


def test_version_is_the_installed_one():
    assert lstm_optax.__version__ == version("lstm_optax")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="attribute nadamm"):
        lstm_optax.nadamm  # noqa: B018
    assert "nadam" in dir(lstm_optax)


@pytest.mark.parametrize(
    "module", ["lstm_optax", "lstm_optax.commands.main", "lstm_optax.names", "lstm_optax.gates"]
)
def test_starts_without_jax(module):
    code = f"import sys, {module}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
