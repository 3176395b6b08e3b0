"""The documentation site: `python -m sphinx -W --keep-going -b html docs docs/_build/html`."""

from importlib.metadata import version as version_of

project = "lstm_optax"
author = "the lstm_optax authors"
version = release = version_of("lstm_optax")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["_build", "jupyter_execute"]

# The pages' Python blocks are run by tests/test_docs.py, so nothing is executed here.
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"{project} {version}"
html_show_sphinx = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "monokai"

default_role = "py:obj"  # `name` in a docstring links to what bears that name, if anything does
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
add_module_names = False
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False


def show_formulas(app, what, name, obj, options, lines):
    """Turn the indented lines between two paragraphs of a docstring, formulas, into a block."""
    section = 0  # the indent of what belongs to "Args:" and the like
    shown = []
    for before, line in zip(["", *lines], lines, strict=False):
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent == 0:
            section = 2 if line in ("Args:", "Attributes:", "Raises:", "Returns:") else 0
        in_block = bool(shown) and shown[-1].startswith(" " * 4)
        if section == 0 and indent >= 4 and not before.strip() and not in_block:
            shown += [".. code-block:: text", ""]
        shown.append(line)
    lines[:] = shown


def setup(app):
    app.connect("autodoc-process-docstring", show_formulas, priority=400)  # before napoleon
