"""The notebooks as pages: a build copies them from `notebooks/` of the repository to the docs.

The pages link to the originals, so that the links also work where the repository is read.
"""

import re
import shutil
from pathlib import Path

BADGE = re.compile(r"\[!\[Open In Colab\]\(https?://[^)\s]+\)\]")


def copy_notebooks(app):
    """Copy the notebooks; a link in words replaces the badge, whose picture needs the network."""
    target = Path(app.srcdir) / "notebooks"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for notebook in sorted((Path(app.srcdir).parent / "notebooks").glob("*.ipynb")):
        text = notebook.read_text(encoding="utf-8")
        copy = target / notebook.name
        copy.write_text(BADGE.sub("[Open in Colab]", text), encoding="utf-8")
        shutil.copystat(notebook, copy)  # an unchanged notebook is not rendered again


def link_copies(app, name, content):
    """Let the links of a page to notebooks of the repository point to their copies."""
    content[0] = content[0].replace("](../notebooks/", "](notebooks/")


def setup(app):
    app.connect("builder-inited", copy_notebooks)
    app.connect("source-read", link_copies)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
