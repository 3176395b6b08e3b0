"""The documentation site: `python -m sphinx -W --keep-going -b html docs docs/_build/html`."""

import ast
import inspect
import os
import re
import sys
import textwrap
from importlib.metadata import version as version_of
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "lstm_optax"
author = "the lstm_optax authors"
version = release = version_of("lstm_optax")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "mathml",
    "notebook_pages",
]
exclude_patterns = ["_build", "jupyter_execute"]

# The pages' Python blocks are run by tests/test_docs.py, so nothing is executed here.
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

html_math_renderer = "mathml"

# Links to other documentations need the network, so only a host of the docs makes them.
intersphinx_mapping = {
    "jax": ("https://docs.jax.dev/en/latest/", None),
    "optax": ("https://optax.readthedocs.io/en/latest/", None),
    "flax": ("https://flax.readthedocs.io/en/latest/", None),
}
if "READTHEDOCS" not in os.environ:
    intersphinx_mapping = {}

html_theme = "furo"
html_title = f"{project} {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "monokai"

default_role = "py:obj"  # `name` in a docstring links to the object of that name, if there is one
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True


def sign_as_written(app, what, name, obj, options, signature, returns):
    """Show a signature as written in the source, with type aliases not expanded."""
    node = _source_node(obj)
    if isinstance(node, ast.ClassDef):
        if _is_exception(obj):
            return ("", None) if signature else None
        inits = [n for n in node.body if getattr(n, "name", "") == "__init__"]
        if not inits:
            return ("", None) if _documents_fields(node) else (_fields(node), None)
        node = inits[0]
    if not isinstance(node, ast.FunctionDef):
        return None
    arguments = node.args
    if arguments.args and arguments.args[0].arg in ("self", "cls"):
        arguments.args.pop(0)
    returned = ast.unparse(node.returns) if node.returns and what != "class" else None
    return f"({ast.unparse(arguments)})".replace("[Array, ' ", "[Array, '"), returned


def format_docstring(app, what, name, obj, options, lines):
    """Show indented formulas of a docstring as blocks, and list the fields of a named tuple."""
    if name == "lstm_optax.transforms":  # its docstring does not introduce the states
        lines.clear()
    shown, section = [], False
    for before, line in zip(["", *lines], lines, strict=False):
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent == 0:
            section = line in ("Args:", "Attributes:", "Raises:", "Returns:")
        in_block = bool(shown) and shown[-1].startswith("    ")
        if not section and indent >= 4 and not before.strip() and not in_block:
            shown += [".. code-block:: text", ""]
            in_block = True
        shown.append(line if in_block else re.sub(r"\|(\w+)\|", r"\|\1\|", line))
    if what == "class" and hasattr(obj, "_fields"):
        comments = re.findall(r"^ +(\w+): [^#\n]+  # (.+)$", inspect.getsource(obj), re.MULTILINE)
        shown += [f":ivar {field}: {comment}" for field, comment in comments]
    lines[:] = shown


def skip_members(app, what, name, obj, skip, options):
    """List only the states of `lstm_optax.transforms`, whose functions have entries in groups.

    The fields of a named tuple are skipped too: `format_docstring` lists them with their comments.
    """
    of_transforms = str(getattr(obj, "__module__", "")).startswith("lstm_optax.transforms.")
    is_field = str(obj.__doc__).startswith("Alias for field number")
    return skip or is_field or (what == "module" and of_transforms and not name.endswith("State"))


def setup(app):
    app.connect("autodoc-skip-member", skip_members)
    app.connect("autodoc-process-signature", sign_as_written)
    app.connect("autodoc-process-docstring", format_docstring, priority=400)  # before napoleon


def _source_node(obj):
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(obj))).body[0]
    except (OSError, TypeError):
        return None


def _is_exception(obj):
    return isinstance(obj, type) and issubclass(obj, BaseException)


def _documents_fields(node):
    """Whether the fields have their own docstrings, so that Sphinx lists them below the class."""
    return any(
        isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr)
        for field, after in pairwise(node.body)
    )


def _fields(node):
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]
    return f"({', '.join(map(ast.unparse, fields))})".replace("[Array, ' ", "[Array, '")
