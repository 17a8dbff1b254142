"""JavaScript of the book's pages, run in Node.js, or in Chromium by Playwright."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
REMEDY = (
    "needs Playwright for Python and Chromium: pip install playwright, and then "
    "apt install chromium or playwright install chromium"
)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window; skips the test where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason=REMEDY)
    with sync_api.sync_playwright() as playwright:
        try:
            # The sandbox wants rights that containers lack; the pages are our own.
            here = next(filter(None, map(shutil.which, NAMES)), None)
            browser = playwright.chromium.launch(executable_path=here, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"{REMEDY} ({str(error).splitlines()[0]})")
        try:
            yield browser
        finally:
            browser.close()


def run_javascript(files: Sequence[Path], body: str, given: Any = None) -> Any:
    """What `body`, of a function of `given`, returns where the files have been loaded.

    Args:
        given: what JSON can hold; arrays of numbers come back as lists.
    """
    scripts = "\n".join(path.read_text(encoding="utf-8") for path in files)
    plain = "(_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value)"
    call = f"JSON.stringify(((given) => {{ {body} }})({json.dumps(given)}), {plain})"
    if node := shutil.which("node"):
        source = f"{scripts}\nconsole.log({call});"
        result = subprocess.run(
            [node, "-"], input=source, capture_output=True, encoding="utf-8", check=False
        )
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)
    with chromium() as browser:
        return json.loads(browser.new_page().evaluate(f"(() => {{ {scripts}\nreturn {call}; }})()"))
