"""Photograph the pages to play with, for readers without JavaScript, and for GitHub.

    python tools/book/frames.py

Writes a picture of each page that a chapter has in a frame into book/_static/dials/. Needs
Playwright for Python (pip install playwright) and Chromium: the one of the system, or the one that
playwright install chromium fetches.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from minidiff import plots

STATIC = Path(__file__).resolve().parents[2] / "book" / "_static"
#: Name of the still: page, and what of it is shown.
PAGES = {
    "weights": ("players/weights.html", "#map"),
    "slice": ("players/slice.html", "#map"),
    "atlas": ("atlas/index.html", "#stage"),
    "laboratory": ("laboratory/index.html#count=1000&walkers=200", "#exact"),
    "laboratory_noising": ("laboratory/index.html#view=noising", "#exact"),
    "laboratory_sampling": ("laboratory/index.html#view=sampling", "#exact"),
    "laboratory_score": ("laboratory/index.html#view=score", "#exact"),
    "laboratory_guidance": ("laboratory/index.html#view=guidance", "#exact"),
    "laboratory_flow": ("laboratory/index.html#view=flow", "#exact"),
}


def main() -> None:
    with sync_playwright() as playwright:
        # The sandbox wants rights that a container does not give; only our own pages are opened.
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, (page, part) in PAGES.items():
            tab = browser.new_page(viewport={"width": 720, "height": 560}, reduced_motion="reduce")
            tab.goto((STATIC / page.split("#")[0]).as_uri() + "#" + page.partition("#")[2])
            tab.wait_for_timeout(1500)  # walks are computed a little in every frame
            photograph = Image.open(io.BytesIO(tab.locator(part).screenshot())).convert("RGB")
            few = photograph.quantize(48, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            plots.save_picture(STATIC / "dials" / f"{name}.png", few)
            tab.close()
        browser.close()


if __name__ == "__main__":
    main()
