"""The dials of the chapters: what was recorded, how chapters name it, that one can turn them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

import minidiff
from browser import chromium
from helpers import ROOT, load_script

FOLDER = ROOT / "book" / "_static" / "dials"
tool = load_script("tools/book/dials.py")
DIALS = tool.read_record()
every_dial = pytest.mark.parametrize("name", DIALS)


@every_dial
def test_a_strip_holds_what_the_data_say(name: str) -> None:
    dial = DIALS[name]
    values, panels = len(dial["values"]), len(dial["panels"])
    with Image.open(FOLDER / f"{name}.webp") as strip:
        assert strip.size == (panels * dial["size"], values * dial["size"])
    assert 0 <= dial["start"] < values
    assert all(len(row) in (1, panels) for row in dial["says"])
    assert len(dial["says"]) in (0, values)
    assert (FOLDER / f"{name}.png").is_file(), "a still for readers without JavaScript"


def test_all_together_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= tool.LIMIT


def test_glyphs_at_guidance_3_are_those_that_the_shipped_model_draws() -> None:
    dial, size = DIALS["guidance"], tool.SIZE
    drawn = minidiff.load(device="cpu")(dial["panels"][:2], guidance_scale=3.0, seed=3)
    row = dial["values"].index("3") * size
    with Image.open(FOLDER / "guidance.webp") as strip:
        recorded = np.asarray(strip.convert("L"), np.float32)[row : row + size] / 127.5 - 1
    shown = torch.from_numpy(recorded).unflatten(1, (-1, size)).permute(1, 0, 2)[:2, None]
    apart = (shown - drawn).abs().mean().item()
    assert apart < 0.08, "the weights have changed: python tools/book/dials.py"


def test_the_dial_of_noise_follows_the_schedules() -> None:
    """With little noise it is the glyph, at t = T nothing of it is left; in between, as alpha."""
    fresh, dial = tool.noising(), DIALS["noising"]
    for name in ("values", "panels", "says"):
        assert dial[name] == getattr(fresh, name), name
    with Image.open(FOLDER / "noising.webp") as strip:
        recorded = np.asarray(strip.convert("L"), np.float32) / 127.5 - 1
    expected = fresh.pictures.clamp(-1, 1)[:, :, 0].permute(0, 2, 1, 3).reshape(recorded.shape)
    assert np.abs(recorded - expected.numpy()).mean() < 0.05


def dials_of(path: Path) -> list[str]:
    """The opening tags of the dials of a chapter or page."""
    if path.suffix == ".ipynb":
        cells = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = path.read_text(encoding="utf-8")
    return re.findall(
        r'<div class="dial"[^>]*>\n\n!\[[^\]]{30,}\]\([^)]*_static/(?:dials/)?\w+\.png\)', text
    )


@pytest.mark.parametrize(
    "path",
    [*sorted((ROOT / "notebooks").glob("*.ipynb")), *sorted((ROOT / "book").glob("*.md"))],
    ids=lambda path: path.stem,
)
def test_a_chapter_s_dials_exist_and_have_a_still(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    dials = dials_of(path)
    assert len(dials) == len(re.findall(r'<div class=\\?"dial\\?"', text)), "a dial without a still"
    for dial in dials:
        page, recorded = (re.search(rf'data-{name}="([^"#]+)', dial) for name in ("page", "dial"))
        still = re.search(r"\(([^)]+)\)$", dial)
        assert still and (path.parent / still[1]).is_file(), dial
        if page:
            assert (FOLDER.parent / page[1]).is_file() and "data-title=" in dial, dial
        else:
            assert recorded and recorded[1] in DIALS, dial


# ---------------------------------------------------------------------------- in a browser

PAGE = """<!doctype html><html lang="en" data-theme="dark"><head><meta charset="utf-8">
<link rel="stylesheet" href="{folder}/dials.css"></head><body class="bd-content">
<div class="dial" data-dial="steps"><img id="still" src="{folder}/steps.png" alt=""></div>
<div class="dial" data-dial="sort"><img id="unknown" src="{folder}/steps.png" alt=""></div>
<div class="dial" data-page="laboratory/index.html#view=score" data-title="The score"></div>
<script src="{folder}/dials.js?v=1"></script></body></html>"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """A page with dials, opened from disk."""
    (tmp_path / "page.html").write_text(PAGE.format(folder=FOLDER.as_uri()), encoding="utf-8")
    page = browser.new_page(viewport={"width": 720, "height": 900})
    page.set_default_timeout(20_000)
    page.goto((tmp_path / "page.html").as_uri())
    yield page
    page.close()


def test_a_dial_takes_the_place_of_its_still_and_is_turned_by_keys(page: Any) -> None:
    slider, dial = page.get_by_role("slider", name="steps"), DIALS["steps"]
    slider.wait_for()
    assert not page.locator("#still").is_visible() and page.locator("#unknown").is_visible()
    slider.focus()
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext") == dial["values"][0]
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == dial["values"][1]
    names = [f"{panel}, steps: {dial['values'][1]}" for panel in dial["panels"]]
    for name in names:
        assert page.get_by_role("img", name=name, exact=True).is_visible()
    assert page.get_by_text(dial["says"][1][0]).first.is_visible()


def test_a_framed_page_has_its_height_and_the_theme_of_the_page_around(page: Any) -> None:
    inner = page.frame_locator("iframe").locator("html")
    page.locator("iframe").scroll_into_view_if_needed()
    inner.and_(page.frame_locator("iframe").locator('[data-theme="dark"]')).wait_for()
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.frame_locator("iframe").locator('html[data-theme="light"]').wait_for()
    frame = page.frames[1]
    assert frame.evaluate("document.documentElement.scrollHeight <= window.innerHeight")
