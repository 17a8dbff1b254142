"""A word typed letter by letter into the page that draws, as one picture: book/_static/typed.png.

    make book
    python tools/play/stills.py

Three rows: the page served; opened from disk; and opened anew where nobody serves it any more, from
what the browser has kept. That all of them draw alike is checked.
"""

from __future__ import annotations

import shutil
import sys
import threading
from typing import Any

import torch
from playwright.sync_api import sync_playwright
from serve import BOOK, Quiet, server

from minidiff import plots

WORD = "dragon"
PAGE = BOOK / "_static" / "play" / "index.html"
PICTURE = BOOK.parents[1] / "book" / "_static" / "typed.png"
LONG = 300_000  # milliseconds
READ = """(canvas) => Array.from(
  canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
).filter((_, i) => i % 4 === 0)"""


def typed(page: Any) -> torch.Tensor:
    """(letters, 1, 64, 64), uint8: what is drawn after each letter."""
    field, pictures = page.get_by_label("Word", exact=True), []
    field.focus()
    for letter in WORD:
        page.keyboard.type(letter)
        page.get_by_role("status").filter(has_text="done").wait_for(timeout=LONG)
        values = page.get_by_label("drawn glyph").first.evaluate(READ)
        pictures.append(torch.tensor(values, dtype=torch.uint8).reshape(1, 64, 64))
    return torch.stack(pictures)


def main() -> None:
    if not (PAGE.parent / "data" / "stamp").is_file():
        sys.exit("the page that draws is not built: make book")
    with sync_playwright() as playwright:
        here = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=here, args=["--no-sandbox"])
        page = browser.new_context().new_page()
        with server(BOOK, 0, Quiet) as served:
            threading.Thread(target=served.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{served.server_port}/_static/play/index.html"
            page.goto(address)
            rows = [typed(page)]
            page.wait_for_function("() => navigator.serviceWorker.controller")
            served.shutdown()
        page.goto("about:blank")
        page.goto(address)  # where nobody answers
        rows.append(typed(page))
        disk = browser.new_context().new_page()
        disk.goto(PAGE.as_uri())
        rows.insert(1, typed(disk))
        browser.close()
    if not all(row.equal(rows[0]) for row in rows):
        sys.exit("the three do not draw alike")
    labels = ["served", "from disk", "no network"]
    sheet = plots.grid(torch.cat(rows), columns=len(WORD), labels=labels)
    plots.save_picture(PICTURE, sheet)
    print(f"{PICTURE}: {', '.join(WORD[: n + 1] for n in range(len(WORD)))}")


if __name__ == "__main__":
    main()
