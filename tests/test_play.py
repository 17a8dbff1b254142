"""The page that draws, in a real browser: a typed word becomes the picture that Python draws.

Models that do not ship yet are tried with MINIDIFF_PLAY=glyph128=DIR.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import minidiff
from browser import chromium
from helpers import load_script
from minidiff.glyphs import glyph_images, load_glyphs
from minidiff.plots import to_uint8
from playing import AXE, INSTEAD, built_site, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
WORDS = (
    "gold", "water", "dragon", "to speak loudly", "happy", "insect; a worm", "fish", "bird",
    "old woman", "fire", "tree", "heart", "moon", "to run", "a kind of jade", "rain", "mountain",
    "silk", "sword", "mouth, hand radical",
)  # fmt: skip
LONG = 280_000  # milliseconds, for a loaded machine


@pytest.fixture(scope="module")
def site() -> Path:
    return built_site()


@pytest.fixture(scope="module")
def there(site: Path) -> Iterator[Any]:
    """A browser, and the addresses of the page: served, and on the disk."""
    with chromium() as opened, served(site) as address:
        disk = (site / "_static" / "play" / "index.html").as_uri()
        yield SimpleNamespace(browser=opened, address=address, disk=disk)


@contextlib.contextmanager
def opened(there: Any, address: str = "", script: str = "", **how: Any) -> Iterator[Any]:
    """The page in a browser that knows nothing yet; what it complains of fails the test."""
    context = there.browser.new_context(**how)
    page, complaints = context.new_page(), list[str]()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.add_init_script(script)
    try:
        page.goto(address or there.address)
        yield page
        assert not complaints
    finally:
        context.close()


@pytest.fixture(scope="module")
def page(there: Any) -> Iterator[Any]:
    """A page for all tests that leave it as it was: everything is loaded once."""
    with opened(there) as page:
        yield page


def status(page: Any, text: str | re.Pattern[str] = "done") -> None:
    from playwright.sync_api import expect

    expect(page.get_by_role("status")).to_have_text(text, timeout=LONG)


def draw(page: Any, word: str, **settings: Any) -> np.ndarray:
    """Type a word, and what is drawn: (pictures, H, W), uint8."""
    for name, value in settings.items():
        control = page.locator(f"#{name}")
        if not control.is_visible():
            page.locator("#more summary").click()
        if name in ("sampler", "radical"):
            control.select_option(value)
        elif name == "four":
            control.set_checked(value)
        else:
            control.fill(str(value))
    page.get_by_label("Word", exact=True).fill(word)
    status(page)
    return drawn(page)


def drawn(page: Any) -> np.ndarray:
    read = """(all) => all.map((canvas) => Array.from(
        canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
    ).filter((_, i) => i % 4 === 0))"""
    flat = np.array(page.get_by_label("drawn glyph").evaluate_all(read), dtype=np.uint8)
    side = int(flat.shape[1] ** 0.5)
    return flat.reshape(-1, side, side)


def choose(page: Any, network: str) -> None:
    page.evaluate("() => { document.getElementById('more').open = true; }")
    page.locator(f"input[value='{network}']").check()


def fresh(page: Any) -> None:
    """The page as it is at first, with the word emptied; what is loaded stays."""
    choose(page, first(page))
    page.locator("#four").set_checked(False)
    page.locator("#negative").evaluate("(field) => { field.value = ''; }")  # a student has none
    for name, value in {"word": "", "seed": "0"}.items():
        page.locator(f"#{name}").fill(value)
    page.locator("#radical").select_option("")
    status(page, "ready")


def models(page: Any) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate("() => PLAY.models")
    return found


def first(page: Any) -> str:
    return "glyph64-fast" if "glyph64-fast" in models(page) else "glyph64"


def pipeline(name: str) -> minidiff.Pipeline:
    return minidiff.load(Path(INSTEAD[name]) if name in INSTEAD else name, device="cpu")


def difference(ours: np.ndarray, theirs: Any) -> float:
    """Mean, as a share of the range from black to white."""
    wanted = to_uint8(theirs)[:, 0].numpy()
    assert ours.shape == wanted.shape
    return float(np.abs(ours.astype(int) - wanted.astype(int)).mean() / 255)


# ------------------------------------------------------------------- the same as in Python


def test_a_typed_word_gives_the_picture_that_python_gives(page: Any) -> None:
    name = first(page)
    python = pipeline(name)
    choose(page, name)
    for word in WORDS if name == "glyph64-fast" else WORDS[:8]:
        assert difference(draw(page, word), python(word, seed=0)) <= 0.02, word
    assert difference(draw(page, "gold", seed=7), python("gold", seed=7)) <= 0.02
    four = draw(page, "gold", seed=1, four=True)
    assert difference(four, python("gold", seed=1, num_images_per_prompt=4)) <= 0.02
    fresh(page)


def test_the_whole_way_is_that_of_python_and_can_be_gone_back(page: Any) -> None:
    python = pipeline("glyph64")
    choose(page, "glyph64")
    assert difference(draw(page, "gold"), python("gold", seed=0)) <= 0.02
    how: dict[str, Any] = {"sampler": "ddim", "num_inference_steps": 8, "guidance_scale": 5.0}
    found = draw(page, "water", sampler="ddim", steps=8, guidance=5, negative="fire", seed=3)
    frames = list(python.steps("water", seed=3, negative_prompt="fire", **how))
    assert difference(found, frames[-1].images) <= 0.02
    for _ in range(5):
        page.get_by_role("button", name="Back").click()
    assert page.locator("#moment").inner_text() == f"3 of 8, t = {frames[2].t}"
    assert difference(drawn(page), frames[2].images) <= 0.02
    page.get_by_role("button", name="Forth").click()
    assert difference(drawn(page), frames[3].images) <= 0.02
    page.get_by_role("button", name="Play").click()
    assert page.get_by_label("what the network takes it for").count() == 1
    fresh(page)


def test_the_second_stage_sharpens_as_python_does(page: Any) -> None:
    if "glyph128" not in models(page):
        pytest.skip("glyph128 does not ship yet")
    choose(page, "glyph64")
    draw(page, "fish", seed=2)
    page.get_by_role("button", name="Sharpen").click()
    status(page, re.compile("loading|drawing"))
    status(page)
    assert difference(drawn(page), pipeline("glyph128")("fish", seed=2)) <= 0.02
    fresh(page)


def test_only_a_whole_picture_is_sharpened_and_typing_goes_before(page: Any) -> None:
    from playwright.sync_api import expect

    if "glyph128" not in models(page):
        pytest.skip("glyph128 does not ship yet")
    small = draw(page, "fish", seed=2)
    # A letter typed just before the click is not drawn over what is sharpened.
    page.evaluate("""() => {
        const field = document.getElementById("word");
        field.value = "gold";
        field.dispatchEvent(new Event("input", { bubbles: true }));
        document.getElementById("sharpen").click();
    }""")
    status(page)
    large = drawn(page)
    assert large.shape == (1, 128, 128)
    halved = large.reshape(64, 2, 64, 2).mean((1, 3))
    assert np.abs(halved - small[0]).mean() / 255 < 0.1
    # One that is broken off swallows nothing of what comes after it.
    draw(page, "fish")
    page.get_by_role("button", name="Sharpen").click()
    page.wait_for_timeout(300)
    assert draw(page, "\N{CJK UNIFIED IDEOGRAPH-9280}").shape == (1, 64, 64)
    assert "reads English" in page.locator("#notice").inner_text()
    choose(page, "glyph64")
    page.locator("#steps").fill("200")
    expect(page.locator("#moment")).to_have_text(re.compile("of 200"), timeout=LONG)
    expect(page.locator("#after")).to_be_hidden()
    fresh(page)


def test_a_saved_file_holds_what_is_drawn(page: Any) -> None:
    found = draw(page, "moon", seed=5)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save").click()
    assert download.value.suggested_filename == "moon-5.png"
    with Image.open(io.BytesIO(Path(download.value.path()).read_bytes())) as picture:
        small = np.asarray(picture.convert("L"))[2::4, 2::4]
    assert (small == found[0]).all()
    fresh(page)


def test_nearest_glyphs_have_their_meaning(page: Any) -> None:
    draw(page, "water")
    page.locator("#real summary").click()
    lines = page.locator("#list li")
    lines.nth(4).wait_for(timeout=LONG)
    assert all(re.fullmatch(r"(?s).\s*\S.*\(0\.\d\d\)", line) for line in lines.all_inner_texts())
    # A real glyph is nearest to itself.
    grey = (glyph_images(64)[8000].float() / 127.5 - 1).flatten().tolist()
    char = load_glyphs()[8000].char
    near = page.evaluate("(x) => NEAREST.to(Float32Array.from(x))[0]", grey)
    assert near["char"] == char and near["distance"] < 0.05
    page.locator("#real summary").click()
    fresh(page)


# --------------------------------------------------------------------- what may be typed


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("   ", "Type an English word"),
        ("x" * 10_000, ""),
        ("river " * 1_700, "longer than 32 tokens"),
        ("\N{GRINNING FACE}", "knows no word"),
        ("黄金", "reads English"),
        ("<script>document.title = 'caught'</script><img src=x onerror=alert(1)>", ""),
        ("half \ud83d", ""),
    ],
)
def test_whatever_is_typed_ends_with_a_plain_word(page: Any, word: str, said: str) -> None:
    title, images = page.title(), page.locator("img").count()
    page.locator("#word").focus()
    # Set as a value: half a letter cannot be typed.
    raw = word.encode("utf-16-le", "surrogatepass")
    codes = [int.from_bytes(raw[i : i + 2], "little") for i in range(0, len(raw), 2)]
    page.locator("#word").evaluate(
        """(field, codes) => {
            field.value = codes.map((code) => String.fromCharCode(code)).join("");
            field.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        codes,
    )
    status(page, "ready" if not word.strip() else "done")
    assert said in page.locator("#notice").inner_text()
    assert page.title() == title and page.locator("img").count() == images
    fresh(page)


def test_settings_that_cannot_be_are_replaced_and_said(page: Any) -> None:
    draw(page, "gold", steps=3)
    notice = page.locator("#notice").inner_text()
    assert "steps" in notice or first(page) == "glyph64"
    draw(page, "gold", guidance=77)
    assert "Guidance must be" in page.locator("#notice").inner_text()
    draw(page, "gold", seed="-4")
    assert "Seed must be" in page.locator("#notice").inner_text()
    fresh(page)


@pytest.mark.parametrize("seed", ["abc", "-1", "1e9", "<b>", "9" * 400, ""])
def test_a_link_with_a_damaged_seed_draws_seed_nought_and_says_so(page: Any, seed: str) -> None:
    wanted = draw(page, "gold")
    fresh(page)
    page.evaluate(
        "(seed) => { location.hash = `word=gold&seed=${encodeURIComponent(seed)}`; }", seed
    )
    status(page, re.compile("drawing|done"))
    status(page)
    assert "0 is taken" in page.locator("#notice").inner_text()
    assert (drawn(page) == wanted).all()
    fresh(page)
    page.evaluate("() => { location.hash = ''; }")


def test_a_link_leads_to_the_same_drawing(there: Any, page: Any) -> None:
    wanted = draw(page, "sword", seed=4, radical="water")
    link = page.get_by_role("link", name="Link").get_attribute("href")
    with opened(there, link) as other:
        status(other)
        assert other.get_by_label("Word", exact=True).input_value() == "sword"
        assert (drawn(other) == wanted).all()
    fresh(page)


# ------------------------------------------------------------------- in what surroundings


def test_a_drawing_part_that_fails_begins_anew(there: Any) -> None:
    break_once = """
        const Whole = Worker;
        globalThis.Worker = function () {
            globalThis.Worker = Whole;
            return new Whole(URL.createObjectURL(new Blob(["throw new Error('torn')"])));
        };
    """
    with opened(there, script=break_once) as page:
        page.get_by_label("Word", exact=True).fill("gold")
        status(page, "stopped")
        assert "torn" in page.locator("#notice").inner_text()
        page.get_by_role("button", name="Try again").click()
        status(page)
        assert drawn(page).std() > 50


def test_a_port_that_is_taken_is_said(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve = load_script("tools/play/serve.py")
    monkeypatch.setattr(serve, "BOOK", site / "_static" / "play")
    with serve.server(site) as taken:
        port = taken.server_port
        monkeypatch.setattr("sys.argv", ["serve.py", "--port", str(port)])
        with pytest.raises(SystemExit, match=rf"port {port}: .* --port {port + 1}$"):
            serve.main()


def test_from_disk_it_draws_the_same(there: Any, page: Any) -> None:
    wanted = draw(page, "horse")
    fresh(page)
    with opened(there, there.disk) as other:
        assert (draw(other, "horse") == wanted).all()


def test_little_is_loaded_before_the_first_word_and_nothing_a_second_time(there: Any) -> None:
    context = there.browser.new_context()
    page, answers, asked = context.new_page(), list[Any](), list[str]()
    context.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda answer: answers.extend([answer]))
    page.goto(there.address, wait_until="networkidle")
    assert 0 < sum(len(answer.body()) for answer in answers) <= 1_000_000
    cost = page.locator("#cost").inner_text()
    said = re.search(r"loads (\d+) MB", cost)
    assert said and int(said[1]) <= 45 and "keeps" in cost
    draw(page, "gold")
    large = [url for url in asked if url.endswith(".bin")]
    assert len(large) == len(set(large)) > 10
    asked.clear()
    other = context.new_page()  # a second tab, while the first stays
    other.goto(there.address)
    draw(other, "fish")
    draw(page, "bird")
    assert not [url for url in asked if url.endswith(".bin")]
    home = there.address.split("/_static")[0]
    assert all(url.startswith((home, "blob:", "data:")) for url in [*large, *asked])
    other.locator("#word").fill("silk")
    other.reload()  # in the middle
    draw(other, "tree")
    context.set_offline(True)
    draw(other, "rain")
    context.close()


def kept_page(there: Any, address: str) -> Any:
    """The page in a browser of its own that has drawn a word, and keeps what it needs for more."""
    page = there.browser.new_context().new_page()
    page.goto(f"{address}#word=gold")
    status(page)
    page.wait_for_function("() => navigator.serviceWorker.controller")
    return page


def test_once_it_has_drawn_it_opens_without_a_network(there: Any, page: Any, site: Path) -> None:
    wanted = draw(page, "horse", seed=5)
    fresh(page)
    with served(site) as address:
        kept = kept_page(there, address)
    kept.goto("about:blank")  # nobody answers there any more
    kept.goto(f"{address}?from=elsewhere#word=fish")
    status(kept)
    assert (draw(kept, "horse", seed=5) == wanted).all()
    kept.get_by_role("button", name="dragon").click()
    status(kept)
    kept.context.close()


def test_what_is_kept_never_hides_a_page_that_was_built_anew(
    there: Any, site: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(site, tmp_path / "site")
    index = copy / "_static" / "play" / "index.html"
    with served(copy) as address:
        kept = kept_page(there, address)
        text = index.read_text(encoding="utf-8")
        index.write_text(text.replace("<h1>Type", "<h1>Now type"), encoding="utf-8")
        kept.reload()
        assert kept.locator("h1").inner_text().startswith("Now type")
    kept.context.close()


def test_a_download_that_breaks_off_goes_on_where_it_stopped(there: Any) -> None:
    context = there.browser.new_context()
    page, fetched = context.new_page(), list[str]()
    page.on("requestfinished", lambda request: fetched.append(request.url))
    broken = re.compile(r"encoder-3-.*\.bin")
    page.route(broken, lambda route: route.abort())
    page.goto(there.address)
    page.get_by_label("Word", exact=True).fill("gold")
    status(page, "stopped")
    assert "broke off" in page.locator("#notice").inner_text()
    page.unroute(broken)
    page.get_by_role("button", name="Try again").click()
    status(page)
    large = [url for url in fetched if url.endswith(".bin")]
    assert len(large) == len(set(large)), "what had arrived was fetched again"
    context.close()


def test_without_webassembly_recorded_words_still_play(there: Any) -> None:
    with opened(there, script="delete globalThis.WebAssembly") as page:
        page.get_by_label("Word", exact=True).fill("gold")
        status(page, "stopped")
        assert "no WebAssembly" in page.locator("#notice").inner_text()
        page.get_by_role("button", name="dragon").click()
        status(page)
        assert drawn(page).std() > 20


def test_without_storage_it_draws(there: Any) -> None:
    with opened(there, script="delete globalThis.caches; delete globalThis.localStorage") as page:
        assert draw(page, "gold").std() > 50


def test_recorded_words_end_as_python_draws_them(page: Any) -> None:
    for word in ("dragon", "horse"):
        page.get_by_role("button", name=word).click()
        status(page)
        page.locator("#step").fill("20")
        assert difference(drawn(page), pipeline("glyph64")(word, seed=0)) <= 0.02  # of 16 greys
    fresh(page)


# ------------------------------------------------------------------------ for everybody


def test_by_keyboard_alone(page: Any) -> None:
    """From the field on with Tab, Space, Enter and arrows, as someone without a mouse would."""
    page.evaluate("() => { document.getElementById('more').open = false; }")
    page.get_by_label("Word", exact=True).focus()
    page.keyboard.type("fish")
    page.keyboard.press("Enter")
    status(page)
    here = "() => document.activeElement.id || document.activeElement.textContent"

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate(here) == name:
                return
        raise AssertionError(f"no way to {name} by the Tab key")

    tab_to("horse")
    page.keyboard.press("Enter")
    status(page)
    tab_to("pause")
    tab_to("step")
    page.keyboard.press("Home")
    assert page.locator("#moment").inner_text().startswith("1 of 20")
    page.keyboard.press("ArrowRight")
    assert page.locator("#moment").inner_text().startswith("2 of 20")
    tab_to("save")
    fresh(page)


def test_it_fits_a_phone_and_follows_the_dark(there: Any) -> None:
    size = {"width": 390, "height": 800}
    with opened(there, viewport=size, color_scheme="dark") as page:
        page.evaluate("() => { document.getElementById('more').open = true; }")
        page.get_by_role("button", name="dragon").click()
        status(page)
        widest = "() => document.documentElement.scrollWidth"
        assert page.evaluate(widest) <= 390
        colour = "() => getComputedStyle(document.body).backgroundColor"
        dark = [int(number) for number in re.findall(r"\d+", page.evaluate(colour))]
        assert max(dark) < 60
        page.emulate_media(color_scheme="light")
        # The page is painted anew a moment later: this waits for it, and fails if it never is.
        page.wait_for_function(f"({colour})() === 'rgb(255, 255, 255)'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(there: Any, scheme: str) -> None:
    with opened(there, color_scheme=scheme, bypass_csp=True) as page:
        page.get_by_role("button", name="dragon").click()
        status(page)
        page.evaluate(
            "() => { for (const d of document.querySelectorAll('details')) d.open = true; }"
        )
        page.add_script_tag(content=AXE.read_text(encoding="utf-8"))
        found = page.evaluate("() => axe.run()")["violations"]
        serious = [f["id"] for f in found if f["impact"] in ("serious", "critical")]
        assert not serious, found


def test_fifty_drawings_take_no_more_memory(there: Any) -> None:
    from playwright.sync_api import expect

    psutil = pytest.importorskip("psutil")
    with opened(there) as page:
        session = there.browser.new_browser_cdp_session()

        def memory() -> float:
            """Megabytes of all processes that show pages."""
            processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
            shown = [p["id"] for p in processes if p["type"] == "renderer"]
            return sum(psutil.Process(number).memory_info().rss for number in shown) / 1e6

        draw(page, "gold", steps=1)
        used = []
        for count in range(60):
            page.locator("#another").click()
            drawn_as = re.compile(rf"seed={count + 1}(&|$)")  # the link is set when it is done
            expect(page.locator("#link")).to_have_attribute("href", drawn_as, timeout=LONG)
            if count in (9, 59):
                used.append(memory())
        assert used[1] <= used[0] + 30, used
