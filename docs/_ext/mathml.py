"""Formulas as MathML in the pages: browsers draw it without a script or a network."""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

UNKNOWN = re.compile(r"\\|&(?!#)|newline")  # what the converter leaves of what it does not know


def to_mathml(node, display):
    """Convert a formula; what the converter does not know is a warning."""
    formula = convert(node.astext().replace("{aligned}", "{split}"), display=display)
    if UNKNOWN.search(formula):
        warn = logging.getLogger(__name__).warning
        warn("not known to latex2mathml: %s", node.astext(), location=node)
    return formula


def show_inline(writer, node):
    writer.body.append(f'<span class="math">{to_mathml(node, "inline")}</span>')
    raise nodes.SkipNode


def show_block(writer, node):
    writer.body.append(f'<div class="math">{to_mathml(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (show_inline, None), (show_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
