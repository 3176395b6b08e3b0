"""Write the tables of published studies into the docs, from their records.

    python tests/studies/write_tables.py

A page marks a place by `<!-- made of records/NAME -->` and `<!-- end -->`; NAME is a folder of
docs/records. The table between them is the one that `lstm-optax compare`, `sweep` or `reproduce`
prints.
"""

import re
from pathlib import Path

from lstm_optax.reproductions import reproduced_grid
from lstm_optax.studies import comparison_grid, read_study, sweep_grid
from lstm_optax.studies.study_grid import grid_markdown

DOCS = Path(__file__).parents[2] / "docs"
GRIDS = {"sweep": sweep_grid, "compare": comparison_grid, "reproduce": reproduced_grid}
PLACE = re.compile(r"(<!-- made of (records/[\w/]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """Return the text of a page with the tables of its records."""

    def table(place: re.Match) -> str:
        study = read_study(DOCS / place[2])
        grid = GRIDS[study.study["kind"]](study)
        return f"{place[1]}\n{grid_markdown(grid)}\n{place[3]}"

    return PLACE.sub(table, text)


def pages() -> list[Path]:
    """Return the pages with such a table."""
    return [page for page in sorted(DOCS.glob("*.md")) if PLACE.search(page.read_text("utf-8"))]


if __name__ == "__main__":
    for page in pages():
        page.write_text(with_tables(page.read_text("utf-8")), "utf-8")
        print(page)
