"""The laboratory in a real browser, opened from disk: what one can do there, and how fast it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from browser import chromium
from helpers import ROOT
from playing import AXE, built_site

PAGE = (ROOT / "book" / "_static" / "laboratory" / "index.html").as_uri()
# Moves the slider of t in each of sixty frames.
FRAMES = """() => new Promise((done) => {
  const t = document.getElementById("t");
  let n = 0;
  function go() {
    t.value = 20 + ((37 * n) % 960);
    t.dispatchEvent(new Event("input"));
    if (++n < 60) requestAnimationFrame(go);
    else requestAnimationFrame(done);
  }
  requestAnimationFrame(go);
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Any) -> Iterator[Any]:
    """Opens the laboratory with what stands behind #; afterwards nothing may have gone wrong."""
    wrong: list[str] = []
    pages = []

    def opened(link: str = "", **settings: Any) -> Any:
        page = browser.new_page(**settings)
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda text: wrong.append(text.text) if text.type == "error" else None)
        page.on(
            "request",
            lambda asked: None if asked.url.startswith("file:") else wrong.append(asked.url),
        )
        page.goto(f"{PAGE}#{link}")
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert not wrong


def becomes(page: Any, condition: str) -> None:
    """Waits for it. (Playwright's own way would need eval, which the page's policy forbids.)"""
    deadline = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


def value(page: Any, name: str) -> str:
    return page.locator(f"#{name}").input_value()


def arrives(page: Any, text: str) -> None:
    page.locator("#status", has_text=text).wait_for()


def test_a_walk_arrives_and_can_be_gone_back(open_page: Any) -> None:
    page = open_page("steps=6&count=200&walkers=20")
    page.get_by_role("button", name="Walk").click()
    arrives(page, "Arrived after 6 steps.")
    assert value(page, "place") == "6" and value(page, "t") == "0"
    page.get_by_role("slider", name="After step").fill("3")
    becomes(page, "document.getElementById('t').value === '500'")


def test_without_motion_a_walk_is_at_its_end_at_once(open_page: Any) -> None:
    page = open_page("steps=200&count=100&walkers=5", reduced_motion="reduce")
    page.get_by_role("button", name="Walk").click()
    arrives(page, "Arrived after 200 steps.")


def test_a_network_learns_beside_the_exact_field_and_walks_too(open_page: Any) -> None:
    page = open_page("shape=groups&count=200&steps=3&walkers=10")
    page.get_by_role("button", name="Train").click()
    becomes(
        page, "parseInt(document.getElementById('learntName').textContent.split('after ')[1]) > 20"
    )
    assert page.locator("#learnt").is_visible() and page.locator("#curve").is_visible()
    page.get_by_role("button", name="Walk").click()
    arrives(page, "Arrived after 3 steps.")
    page.get_by_role("button", name="Forget").click()
    becomes(page, "document.getElementById('beside').hidden")


def test_eps_cannot_be_learnt_where_nothing_of_the_data_is_left(open_page: Any) -> None:
    page = open_page("schedule=straight&predicts=eps")
    page.get_by_role("button", name="Train").click()
    arrives(page, "On the straight line nothing of the data is left")


def test_points_are_drawn_by_mouse_and_taken_away(open_page: Any) -> None:
    page = open_page("count=20&t=0")
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="Walk").click()
    arrives(page, "Draw some points first.")
    box = page.locator("#exact").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.click(x, y)
    page.mouse.move(x, y + 50)
    page.mouse.down()
    page.mouse.move(x + 100, y + 50, steps=10)
    page.mouse.up()
    becomes(page, "Number(document.getElementById('countShown').textContent) > 5")
    assert value(page, "shape") == "own"
    page.get_by_label("Pen").select_option("eraser")
    page.mouse.click(x, y)
    page.mouse.move(x, y + 50)
    page.mouse.down()
    page.mouse.move(x + 100, y + 50, steps=10)
    page.mouse.up()
    becomes(page, "document.getElementById('countShown').textContent === '0'")


def test_the_keyboard_alone_draws_and_walks(open_page: Any) -> None:
    page = open_page("count=20&steps=2&walkers=3")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "exact"
    for key in ("ArrowRight", "ArrowUp", "Space", "ArrowLeft", "Space"):
        page.keyboard.press(key)
    becomes(page, "document.getElementById('countShown').textContent === '22'")
    arrives(page, "22 points")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "walk":
            break
    page.keyboard.press("Enter")
    arrives(page, "Arrived after 2 steps.")


def test_a_class_without_points_is_said(open_page: Any) -> None:
    page = open_page("kind=1&count=20&steps=1")
    page.get_by_role("button", name="Clear").click()
    page.locator("#exact").click()  # one blue point
    page.get_by_role("button", name="Walk").click()
    page.locator("#status", has_text="There are no points of this class").wait_for()


@pytest.mark.parametrize(
    "link",
    ["t=NaN&steps=1e99&count=-5&shape=<script>alert(1)</script>&kind=7", "view=constructor",
     "%E0%A4%A&&&=&t=", "view=noising&schedule=__proto__&t=99999999999999999999"],
)  # fmt: skip
def test_a_damaged_link_opens_all_the_same(open_page: Any, link: str) -> None:
    page = open_page(link)
    becomes(page, "document.getElementById('countShown').textContent !== ''")
    assert value(page, "shape") == "spiral" and 20 <= int(value(page, "count")) <= 2000
    assert 1 <= int(value(page, "steps")) <= 200 and 0 <= int(value(page, "t")) <= 1000


def test_a_link_brings_back_what_was_set(open_page: Any) -> None:
    page = open_page("view=sampling&steps=9&sampler=heun&scale=2.5")
    link = page.get_by_role("link", name="Open the whole laboratory")
    link.focus()
    other = open_page(link.get_attribute("href").partition("#")[2])
    assert (value(other, "steps"), value(other, "sampler")) == ("9", "heun")
    assert value(other, "scale") == "2.5" and other.locator("#train").is_visible()
    assert not page.locator("#train").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("link", ["", "view=flow"])
def test_on_a_phone_nothing_sticks_out(open_page: Any, scheme: str, link: str) -> None:
    page = open_page(link, color_scheme=scheme, viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 18, 18)"}[scheme]


def test_two_thousand_points_can_move_at_thirty_frames_a_second(open_page: Any) -> None:
    """By the work that a frame is for the page's thread: on a busy machine frames have to wait."""
    page = open_page("count=2000")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def worked() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")

    seconds = []
    for _ in range(2):
        before = worked()
        page.evaluate(FRAMES)
        seconds.append((worked() - before) / 60)
    assert min(seconds) < 1 / 30


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page: Any, scheme: str) -> None:
    built_site()  # which fetches axe
    page = open_page("", color_scheme=scheme)
    page.get_by_role("button", name="Train").click()
    becomes(page, "!document.getElementById('losses').hidden")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run({ preload: false })")  # the policy keeps it from that
    assert not found["violations"], found["violations"]
