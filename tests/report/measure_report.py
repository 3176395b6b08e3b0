"""Measure the report of 20,000 evaluations: seconds to write, bytes, seconds to open.

    PYTHONPATH=.:tests/studies python tests/report/measure_report.py

A page counts as open when its table and the charts in the window are drawn, at 1280 × 900.
"""

import json
import tempfile
import time
from pathlib import Path
from statistics import median

from chromium import draw_all, open_page
from made_records import made_study, write_study

from lstm_optax.names import OPTIMIZER_NAMES
from lstm_optax.report.write import write_report

NAMES = dict.fromkeys(OPTIMIZER_NAMES[:14], 1e-2)
ROUNDS = 5
OPEN = """() => {
  const places = [...document.querySelectorAll(".chart")];
  const seen = places.filter((place) => place.getBoundingClientRect().top < innerHeight);
  return document.querySelector("table") && seen.every((place) => "drawn" in place.dataset);
}"""


def main() -> None:
    records = made_study(optimizers=NAMES, evaluations=110, noise=0.03, spacing=0.01)
    with tempfile.TemporaryDirectory() as name:
        folder = write_study(Path(name), records)
        start = time.perf_counter()
        report = write_report(folder)
        written = time.perf_counter() - start
        opened, drawn = [], []
        for _ in range(ROUNDS):
            size = {"width": 1280, "height": 900}
            with open_page(report, viewport=size) as page:
                page.wait_for_function(OPEN)
                opened.append(page.evaluate("performance.now()"))
                draw_all(page)
                drawn.append(page.evaluate("performance.now()"))
                assert not page.problems, page.problems
        results = {
            "evaluations": sum(record["record"] == "evaluation" for record in records),
            "seconds_to_write": round(written, 1),
            "bytes": report.stat().st_size,
            "seconds_to_open": round(median(opened) / 1000, 2),
            "seconds_to_draw_all_charts": round(median(drawn) / 1000, 2),
        }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
