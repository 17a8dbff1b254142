"""The page that draws, and the laboratory: how long a reader waits, in headless Chromium.

    make book
    python benchmarks/play.py

Times are the clock's, from the last key or click to the word "done" on the page; where there are
several, their median. The built book is served from this machine or, where that is said, opened
from disk.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

from machine import described, machine, write

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
WORDS = ("gold", "water", "fish", "to speak", "happy", "rain", "a kind of jade", "old woman")
LONG = 300_000  # milliseconds
# Moves the laboratory's slider of t in each of sixty frames; how long that took, in seconds.
FRAMES = """() => new Promise((done) => {
  const t = document.getElementById("t");
  const start = performance.now();
  let n = 0;
  function go() {
    t.value = 20 + ((37 * n) % 960);
    t.dispatchEvent(new Event("input"));
    if (++n <= 60) requestAnimationFrame(go);
    else done((performance.now() - start) / 1000);
  }
  requestAnimationFrame(go);
})"""


def section(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    seconds = {name: f"{value:.2f} s" for name, value in result["seconds"].items()}
    bytes_ = {name: f"{value / 1e6:.1f} MB" for name, value in result["bytes"].items()}
    rows = [
        ("loaded before anyone types, beside the page around it", bytes_["before"], "1.0 MB"),
        ("said before the first word, and loaded with it", bytes_["first word"], "45 MB"),
        ("a recorded word, after the page shows", seconds["recorded"], "0.5 s"),
        ("the first word: all is loaded and opened, then it is drawn", seconds["first word"], ""),
        ("the same from what the browser has kept", seconds["kept"], ""),
        ("the same from disk", seconds["disk"], ""),
        (f"a word as one types: {result['typing']}", seconds["typing"], "0.7 s"),
        ("`glyph64`, guidance, 20 steps: the first frame", seconds["first frame"], "0.5 s"),
        ("all of them", seconds["whole way"], "5 s"),
        ("four of `glyph64` at once", seconds["four"], ""),
    ]
    if "sharpened" in seconds:
        rows.append(("`glyph128` sharpens one", seconds["sharpened"], ""))
    moved = f"{result['laboratory']:.0f} frames a second"
    rows.append(("the laboratory, 2,000 points, $t$ moved in every frame", moved, "at least 30"))
    lines = [
        f"The built book in headless Chromium {result['chromium']}, one thread "
        f"({described(result['machine'])}; {result['load']}). Served from the same machine, so "
        "what a network adds is not in it. Repeat it with `python benchmarks/play.py`.",
        "",
        "| | | wanted at most |",
        "|---|---|---|",
        *(f"| {what} | {is_} | {wanted} |" for what, is_, wanted in rows),
    ]
    return "\n".join(lines) + "\n"


def measure(site: Path, load: str) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    sys.path.insert(0, str(ROOT / "tools" / "play"))
    from serve import Quiet, server

    # Without the headers of `make serve`: one thread, as from any host of pages.
    with sync_playwright() as playwright, server(site, 0, Quiet) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        here = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=here, args=["--no-sandbox"])
        address = f"http://127.0.0.1:{served.server_port}/_static/play/index.html"
        disk = (site / "_static" / "play" / "index.html").as_uri()
        result = {"chromium": browser.version, **timed(browser, address, disk)}
        result["laboratory"] = frames_a_second(browser, site)
        served.shutdown()
    return {**result, "load": load, "machine": machine()}


def timed(browser: Any, address: str, disk: str) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    context = browser.new_context()
    page, answers = context.new_page(), list[Any]()
    page.on("response", lambda answer: answers.extend([answer]))
    page.goto(address, wait_until="networkidle")
    before = sum(len(answer.body()) for answer in answers)
    seconds["recorded"] = wait(page, lambda: page.get_by_role("button", name="dragon").click())
    files = page.evaluate("() => PLAY.files")
    models = page.evaluate("() => PLAY.models")
    first = next(name for name in ("glyph64-fast", "glyph64") if name in models)
    wanted = ("runtime", "vocabulary", "encoder", first)
    loaded = sum(part["bytes"] for name in wanted for part in files[name])
    word = page.get_by_label("Word", exact=True)
    seconds["first word"] = wait(page, lambda: word.fill("dragon"))
    all_words = [wait(page, lambda text=text: word.fill(text)) for text in WORDS]
    seconds["typing"] = statistics.median(all_words)
    other = context.new_page()
    other.goto(address)
    seconds["kept"] = wait(other, lambda: other.get_by_label("Word", exact=True).fill("dragon"))
    other.close()
    page.evaluate("() => { document.getElementById('more').open = true; }")
    page.locator("input[value='glyph64']").check()
    done(page)
    frames, ways = [], []
    for text in WORDS[:3]:
        ways.append(wait(page, lambda text=text: word.fill(text), frames))
    seconds["first frame"], seconds["whole way"] = map(statistics.median, (frames, ways))
    seconds["four"] = wait(page, lambda: page.locator("#four").check())
    page.locator("#four").uncheck()
    done(page)
    if "glyph128" in models:
        sharpen = page.get_by_role("button", name="Sharpen")
        wait(page, sharpen.click)  # it is loaded
        wait(page, lambda: word.fill("horse"))
        seconds["sharpened"] = wait(page, sharpen.click)
    context.close()
    context = browser.new_context()
    page = context.new_page()
    page.goto(disk)
    seconds["disk"] = wait(page, lambda: page.get_by_label("Word", exact=True).fill("dragon"))
    context.close()
    student = models[first].get("student")
    typing = f"`{first}`, {4 if student else 20} steps"
    return {"typing": typing, "seconds": seconds, "bytes": {"before": before, "first word": loaded}}


def frames_a_second(browser: Any, site: Path) -> float:
    """Of the laboratory with 2,000 points; a screen that shows 60 sets the bound."""
    page = browser.new_page()
    laboratory = site / "_static" / "laboratory" / "index.html"
    page.goto(f"{laboratory.as_uri()}#count=2000")
    page.evaluate(FRAMES)  # the first time is slower
    return float(60 / page.evaluate(FRAMES))


# When each text was first seen, in seconds since 1970. It is the page that looks, at every change:
# asking it from outside, again and again, would add up to half a second.
LISTEN = """() => {
  window.seen = {};
  window.listener?.disconnect();
  const texts = { done: "[role=status]", "1 of 20": "#moment" };
  const now = () => (performance.timeOrigin + performance.now()) / 1000;
  window.listener = new MutationObserver(() => {
    for (const [text, where] of Object.entries(texts))
      if (document.querySelector(where).textContent.startsWith(text)) window.seen[text] ??= now();
  });
  window.listener.observe(document.body, { childList: true, characterData: true, subtree: true });
}"""


def wait(page: Any, act: Any, frames: list[float] | None = None) -> float:
    """Seconds from an action to "done"; those to its first frame are added to frames."""
    page.evaluate(LISTEN)
    start = time.time()
    act()
    page.wait_for_function("() => window.seen.done", timeout=LONG)
    seen = page.evaluate("() => window.seen")
    if frames is not None:
        frames.append(seen["1 of 20"] - start)
    return float(seen["done"] - start)


def done(page: Any) -> None:
    page.get_by_role("status").filter(has_text="done").wait_for(timeout=LONG)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--site", type=Path, default=SITE, help="the built book")
    parser.add_argument("--load", default="nothing else ran", help="what ran beside it, in words")
    arguments = parser.parse_args()
    if not (arguments.site / "_static" / "play" / "data" / "stamp").is_file():
        sys.exit("the page that draws is not built: make book, then python benchmarks/play.py")
    write("play", measure(arguments.site, arguments.load))


if __name__ == "__main__":
    main()
