"""The notebooks: what is stored in them is whole and clean, and they run, at small size."""

import ast
import json
import os
import re
import tomllib
from pathlib import Path

import jax
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PROJECT = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]  # the one place for the address
COLAB = REPOSITORY.replace("https://github.com/", "https://colab.research.google.com/github/")
BADGE = (
    "[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    f"({COLAB}/blob/main/notebooks/{{name}})"
)
ADDRESS = re.compile(r"https?://[^\s)\"]*/lstm_optax[^\s)\"]*")
INSTALL = re.compile(r"%pip install -q {source}(.*)")
NEEDS = {"05_port_from_pytorch.ipynb": ["torch"], "06_forecasting.ipynb": ["vega_datasets"]}
LIMIT = 90  # seconds of a whole notebook
NOT_PORTABLE = re.compile(r"(?<![\w.:/])/(tmp|home|root|work|usr|opt|Users|content)/|[A-Z]:\\\\")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


def source(cell) -> str:
    return "".join(cell["source"])


def code_cells(notebook) -> list:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def shows_something(code: str) -> bool:
    """Whether a cell prints outside of its functions, or ends with a value."""
    tree = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.MULTILINE))
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    run_now = [node for node in tree.body if not isinstance(node, definitions)]
    calls = [n for top in run_now for n in ast.walk(top) if isinstance(n, ast.Call)]
    prints = any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls)
    ends_with_a_value = bool(tree.body) and isinstance(tree.body[-1], ast.Expr)
    return prints or (ends_with_a_value and not code.rstrip().endswith(";"))


def check_outputs(notebook) -> None:
    """Every code cell was run, in order; each that shows something did, and nothing else came."""
    cells = code_cells(notebook)
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), f"not run once from top to bottom: {counts}"
    for cell in cells:
        kinds = [(out["output_type"], out.get("name")) for out in cell["outputs"]]
        assert not any(kind == "error" for kind, _ in kinds), source(cell)
        assert not any(name == "stderr" for _, name in kinds), source(cell)
        assert bool(kinds) == shows_something(source(cell)), f"{kinds} after\n{source(cell)}"


def processor_seconds() -> float:
    """Return those of all ended children; other programs on the machine hardly change them."""
    times = os.times()
    return times.children_user + times.children_system


def test_there_are_notebooks():
    assert NOTEBOOKS


@each_notebook
def test_first_cell_has_a_title_and_the_badge(path):
    first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
    assert first["cell_type"] == "markdown"
    assert source(first).startswith("# ")
    assert BADGE.format(name=path.name) in source(first)


@each_notebook
def test_no_other_address(path):
    """The badge alone names the repository, as `[project.urls]` has it."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    addresses = [found for cell in notebook["cells"] for found in ADDRESS.findall(source(cell))]
    assert addresses == [f"{COLAB}/blob/main/notebooks/{path.name}"]


@each_notebook
@pytest.mark.parametrize(("clone", "expected"), [(True, ".."), (False, "lstm_optax")])
def test_install_cell_takes_clone_or_index(path, clone, expected, tmp_path, monkeypatch):
    cell = source(code_cells(json.loads(path.read_text(encoding="utf-8")))[0])
    assert len(INSTALL.findall(cell)) == 1
    (tmp_path / "notebooks").mkdir()
    if clone:
        (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    installed = []
    program = INSTALL.sub(r"installed.extend([source, *'\1'.split()])", cell)
    exec(program, {"installed": installed})
    assert installed == [expected, *NEEDS.get(path.name, [])]


@each_notebook
def test_stored_outputs_are_whole_and_without_error(path):
    check_outputs(json.loads(path.read_text(encoding="utf-8")))


@each_notebook
def test_nothing_stored_belongs_to_one_machine(path):
    """Neither paths nor times nor the name of a kernel."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}
    assert set(notebook["metadata"]["language_info"]) == {"name"}
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}, source(cell)
    found = NOT_PORTABLE.search(json.dumps([cell["outputs"] for cell in code_cells(notebook)]))
    assert not found, found


@pytest.mark.slow
@each_notebook
def test_notebook_runs_at_small_size(path, tmp_path, monkeypatch):
    reason = "needs the extra: pip install 'lstm_optax[notebooks]'"
    nbformat = pytest.importorskip("nbformat", reason=reason)
    nbclient = pytest.importorskip("nbclient", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    for needed in NEEDS.get(path.name, []):
        pytest.importorskip(needed, reason=f"the notebook needs it: pip install {needed}")
    monkeypatch.setenv("NOTEBOOK_STEPS", "16")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        cell["outputs"], cell["execution_count"] = [], None
    place = {"metadata": {"path": str(tmp_path)}}
    before = processor_seconds()
    nbclient.NotebookClient(
        notebook, timeout=LIMIT, kernel_name="python3", resources=place
    ).execute()  # raises at the first cell that does, or that takes longer than the limit
    taken = processor_seconds() - before
    assert 1 < taken < LIMIT, f"{path.name} took {taken:.0f} s of the processor"
    check_outputs(notebook)
    assert not list(tmp_path.iterdir()), "a notebook leaves no files behind"
