"""Take a picture of the top of a report, for the docs.

    python tests/report/take_picture.py studies/DIR/report.html docs/report.png

The folder is that of a comparison that really ran. The picture has at most 256 colours, for a small
file.
"""

import argparse
from io import BytesIO
from pathlib import Path

from chromium import draw_all, open_page
from PIL import Image

SIZE = {"width": 1240, "height": 1500}
COLORS = 256


def main() -> None:
    parser = argparse.ArgumentParser(description="Take a picture of the top of a report.")
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    with open_page(given.report, viewport=SIZE) as page:
        draw_all(page)
        page.evaluate("scrollTo({top: 0, behavior: 'instant'})")
        image = Image.open(BytesIO(page.screenshot())).convert("RGB")
    image.quantize(COLORS).save(given.picture, optimize=True)
    print(f"{given.picture}: {given.picture.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
