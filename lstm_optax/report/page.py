"""The page of a report: one HTML file that loads nothing from anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lstm_optax.records import Record
from lstm_optax.report.elements import (
    cards,
    escape,
    facts,
    figures,
    legend,
    section,
    warning,
)
from lstm_optax.report.looks import Looks
from lstm_optax.report.picture import Picture

# What a browser may do with the page: run what is in it, and load nothing.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"

_SNIPPET = "window.vegaEmbed = vegaEmbed;"  # what the bundle exports
KINDS = {"sweep": "a sweep", "compare": "a comparison"}


@dataclass(frozen=True)
class Content:
    """What a page shows.

    Attributes:
      title: of the page.
      headline: the result, in a sentence or two.
      numbers: short facts about the study, by what they mean.
      warnings: rows without a result, and why.
      table: as HTML.
      looks: of the curves.
      study: the record of the study.
      curves: the metric against steps and seconds.
      tuning: sensitivity and parallel coordinates.
      trajectories: on a surface.
      responses: of the optimizers.
      gradients: heat maps.
      notes: what the responses leave out, and the like.
    """

    title: str
    headline: str
    numbers: dict[str, str]
    warnings: Sequence[str]
    table: str
    looks: Looks
    study: Record
    curves: Sequence[Picture] = ()
    tuning: Sequence[Picture] = ()
    trajectories: Sequence[Picture] = ()
    responses: Sequence[Picture] = ()
    gradients: Sequence[Picture] = ()
    notes: Sequence[str] = field(default=())

    @property
    def pictures(self) -> list[Picture]:
        """All charts, in the order of the page."""
        groups = self.curves, self.trajectories, self.tuning, self.responses, self.gradients
        return [picture for group in groups for picture in group]


def render_page(content: Content) -> str:
    """Return the page as HTML."""
    import vl_convert

    folder = Path(__file__).parent
    css, script = (
        (folder / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")
    )
    sections = _sections(content)
    links = "".join(
        f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title, body in sections if body
    )
    keys = legend(content.looks) if content.pictures else ""
    body = "\n".join([section(*sections[0]), keys, *(section(*part) for part in sections[1:])])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(content.title)}</title>
<style>{css}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the result</a>
<header>
<p class="kicker">lstm_optax, {KINDS[content.study["kind"]]}</p>
<h1>{escape(content.title)}</h1>
<p class="lead" id="headline">{escape(content.headline)}</p>
<nav aria-label="Sections"><ul>{links}</ul><button type="button" id="theme">Colours</button></nav>
</header>
<main id="main">
<noscript><p class="warning">The charts need JavaScript; they are also in the folder plots/.</p>
</noscript>
{body}
</main>
<footer>Written by <code>lstm-optax report</code>. Nothing in this page is loaded from a network.
</footer>
<script>{vl_convert.javascript_bundle(_SNIPPET)}</script>
<script>{script}</script>
</body>
</html>
"""


def _sections(content: Content) -> list[tuple[str, str, str]]:
    """Return name, title and body of each section; an empty body is not shown."""
    result = cards(content.numbers) + warning("Not ranked:", content.warnings) + content.table
    notes = "".join(f"<p>{escape(note)}</p>" for note in content.notes)
    responses = figures(content.responses)
    return [
        ("result", "Result", result),
        ("curves", "Training", figures(content.curves)),
        ("trajectories", "Trajectories", figures(content.trajectories)),
        ("tuning", "Tuning", figures(content.tuning)),
        ("responses", "What each optimizer does", responses + notes if responses else ""),
        ("gradients", "Gradient flow", figures(content.gradients)),
        ("made-by", "How it was made", _made_by(content.study)),
    ]


def _made_by(study: Record) -> str:
    made_by = dict(study["made_by"])
    command, versions = made_by.pop("command", ""), made_by.pop("versions", {})
    return (
        (f"<pre>{escape(command)}</pre>" if command else "")
        + '<div class="facts">'
        + facts("Task", study["task"])
        + facts("Settings", study["settings"])
        + facts("Versions", versions)
        + facts("Machine", made_by)
        + "</div>"
    )
