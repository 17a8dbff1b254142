"""The book as a whole: symbols, figures, links and exercises, across chapters and pages."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image

from helpers import ROOT

BOOK = ROOT / "book"
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = sorted(BOOK.glob("*.md"))
every_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
every_text = pytest.mark.parametrize("path", [*CHAPTERS, *PAGES], ids=lambda path: path.stem)


@cache
def cells(path: Path) -> list[Any]:
    return list(nbformat.reads(path.read_text(encoding="utf-8"), as_version=4).cells)


def prose(path: Path) -> str:
    """The Markdown of a page, or of all cells of a chapter, without its code."""
    if path.suffix == ".md":
        text = path.read_text(encoding="utf-8")
    else:
        text = "\n\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")
    return re.sub(r"(`+)[^`\n]*?\1", "", without_code(text))


def without_code(text: str) -> str:
    """Markdown without its blocks of code; what stands in directives ({figure}, ...) is kept."""
    kept, fence, is_code = [], "", False
    for line in text.splitlines():
        mark = re.match(r"\s*(`{3,}|~{3,})(.*)", line)
        if mark and not fence:
            fence, is_code = mark[1], not mark[2].startswith("{")
        elif mark and mark[1] == fence and not mark[2].strip():
            fence = ""
        elif not (fence and is_code):
            kept.append(line)
            continue
        if not is_code:
            kept.append(line)
    return "\n".join(kept)


# ----------------------------------------------------------------- symbols

# Accents and alphabets make another symbol of the letter that follows: \hat x is not x.
ACCENTS = {"bar", "hat", "mathcal", "mathbb", "tilde"}
# What else one finds in formulas and needs no line on the page.
FUNCTIONS = {"log", "exp", "sqrt", "frac", "tfrac", "sum", "prod", "int", "min", "max", "arg"}
OPERATORS = {
    *{"approx", "cdot", "cdots", "dots", "equiv", "ge", "geq", "in", "infty", "ldots", "le"},
    *{"leq", "lVert", "rVert", "lvert", "rvert", "mapsto", "ne", "neq", "odot", "pi", "pm"},
    *{"propto", "times", "to", "Rightarrow", "rightarrow", "Vert", "vert", "top", "quad", "qquad"},
    *{"big", "Big", "bigl", "bigr", "Bigl", "Bigr", "left", "right", "begin", "end", "underbrace"},
    *{
        "xrightarrow",
        "leftarrow",
        "partial",
        "displaystyle",
        "textstyle",
        "mathrm",
        "text",
        "operatorname",
    },
}
COUNTERS = set("ijkNK")  # indices and how many there are, as the page says in a sentence
WORDS = re.compile(r"\\(?:text|mathrm|operatorname|begin|end)\s*\{[^{}]*\}")


def formulas(text: str) -> list[str]:
    """What stands in $…$ and $$…$$."""
    found = re.findall(r"(?s)\$\$(.+?)\$\$", text)
    return found + re.findall(r"(?<![\\$])\$([^$\n]+(?:\n[^$\n]+)?)\$", re.sub(
        r"(?s)\$\$.+?\$\$", "", text))  # fmt: skip


def symbols(formula: str) -> set[str]:
    """The letters of a formula, each with its accent: 'x', 'alpha', 'hat x', 'mathcal N'."""
    tokens = re.findall(r"\\([A-Za-z]+)|([A-Za-z])", WORDS.sub(" ", formula))
    found, accent = set(), ""
    for command, letter in tokens:
        name = command or letter
        if name in ACCENTS:
            accent += f"{name} "
        elif accent or name not in FUNCTIONS | OPERATORS | COUNTERS:
            found.add(accent + name)
            accent = ""
    return found


@cache
def explained() -> set[str]:
    """Symbols in the first column of the tables of the notation page."""
    rows = re.findall(r"(?m)^\| (\$.+?) \|", (BOOK / "notation.md").read_text(encoding="utf-8"))
    return {symbol for row in rows for text in formulas(row) for symbol in symbols(text)}


def test_prose_is_what_is_left_without_code() -> None:
    text = "a\n```sh\nb\n```\nc\n```{figure} d\ne\n```\nf\n  ```py\n  g\n  ```\nh"
    assert without_code(text).split() == ["a", "c", "```{figure}", "d", "e", "```", "f", "h"]


def test_the_tokenizer_reads_formulas() -> None:
    text = (
        r"so $\hat x_0 = x_t / \alpha_t$, $$\sum_i w_i \,\mathcal{N}(\text{mean}, \sigma^2)$$ \$5"
    )
    found = {symbol for formula in formulas(text) for symbol in symbols(formula)}
    assert found == {"hat x", "x", "t", "alpha", "w", "mathcal N", "sigma"}
    assert {"x", "bar alpha", "hat varepsilon", "mathbb E", "nabla"} <= explained()
    assert not {"phi", "hat q"} & explained()


@every_text
def test_every_symbol_is_on_the_notation_page(path: Path) -> None:
    used = {symbol for formula in formulas(prose(path)) for symbol in symbols(formula)}
    if path.name == "notation.md":  # other authors' bold letters are quoted there
        used = explained()
    assert used <= explained(), f"explain in book/notation.md: {sorted(used - explained())}"


# ----------------------------------------------------------------- figures


def figures(path: Path) -> list[str]:
    """The names of a chapter's figures."""
    settings = [cell.metadata.get("mystnb", {}).get("figure", {}) for cell in cells(path)]
    return [figure["name"] for figure in settings if "name" in figure]


def test_figures_have_names_of_their_own() -> None:
    names = [(name, path.name) for path in CHAPTERS for name in figures(path)]
    pages = [
        (name, page.name) for page in PAGES for name in re.findall(r":name: (\S+)", prose(page))
    ]
    seen: dict[str, str] = {}
    for name, where in names + pages:
        assert name.startswith("fig-"), f"{name} in {where}: names of figures start with fig-"
        assert name not in seen, f"{name} stands in {seen[name]} and in {where}"
        seen[name] = where


def indexed() -> list[tuple[int, str, str]]:
    """(number in the article, figure, chapter) for each line of the index of figures."""
    text = (BOOK / "figures.md").read_text(encoding="utf-8")
    lines = []
    for number, rest in re.findall(r"(?m)^\| F(\d+) \|(.+)$", text):
        names = re.findall(r"\{numref\}`([\w-]+)`", rest)
        chapters = re.findall(r"\[\]\(\.\./notebooks/(\w+\.ipynb)\)", rest)
        assert len(names) in (len(chapters), 1) and chapters, f"F{number} lacks a link"
        lines += [(int(number), *pair) for pair in zip(names, chapters, strict=True)]
    return lines


def test_the_index_has_every_figure_of_the_article_once_and_in_order() -> None:
    numbers = [number for number, _, _ in indexed()]
    assert sorted(set(numbers)) == list(range(1, 22))
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(("number", "name", "chapter"), indexed())
def test_a_figure_of_the_index_is_where_it_says(number: int, name: str, chapter: str) -> None:
    path = ROOT / "notebooks" / chapter
    assert path.is_file(), f"F{number}: there is no {chapter}"
    assert name in figures(path), f"F{number}: {chapter} has no figure {name}"


# ----------------------------------------------------------------- links

REMOTE = re.compile(
    r"""!\[[^\]]*\]\(\s*(?:https?:)?//          # a Markdown picture
      | (?:src|srcset|poster|data)\s*=\s*["']?(?:https?:)?//
      | <link[^>]+href\s*=\s*["']?(?:https?:)?//
      | \{(?:image|figure)\}\s*(?:https?:)?//
      | url\(\s*["']?(?:https?:)?// | @import
      | fetch\(\s*["'](?:https?:)?//
      | \bimport\(?\s*["'](?:https?:)?//""",
    re.VERBOSE | re.IGNORECASE,
)


@every_text
def test_internal_links_lead_somewhere(path: Path) -> None:
    text = prose(path)
    targets = re.findall(r"\]\(<?([^)\s>]+)>?\)", text) + re.findall(
        r"""(?:href|src)=["']([^"']+)["']""", text
    )
    for target in targets:
        file = target.partition("#")[0]
        if file and not re.match(r"[a-z]+:", target):
            # Raw HTML is written for where the page will lie, beside _static.
            place = file.replace("../_static/", "_static/") if path.parent == BOOK else file
            assert (path.parent / place).exists(), f"{path.name} links to {target}"


@every_text
def test_nothing_is_fetched_from_another_host(path: Path) -> None:
    parts = [prose(path)]
    if path.suffix == ".ipynb":
        for cell in cells(path):
            for output in cell.get("outputs", []):
                parts += [str(output.get("data", {}).get("text/html", ""))]
    for part in parts:
        assert not (found := REMOTE.search(part)), f"{path.name}: {found and found[0]}"


def test_nothing_of_ours_is_fetched_from_another_host() -> None:
    own = [p for p in (BOOK / "_static").rglob("*") if p.suffix in (".css", ".html", ".js", ".svg")]
    for path in own:
        if "mathjax" not in path.parts:
            found = REMOTE.search(path.read_text(encoding="utf-8"))
            assert not found, f"{path.relative_to(ROOT)}: {found and found[0]}"


@pytest.mark.parametrize(
    "text",
    ["![x](https://a.b/c.png)", '<img src="//a.b/c.png">', "<script src=https://a.b/c.js>",
     "```{image} http://a.b/c.png", "url('https://a.b/c.woff2')", "@import 'x.css'",
     'fetch("https://a.b/c")'],
)  # fmt: skip
def test_the_search_for_other_hosts_finds_them(text: str) -> None:
    assert REMOTE.search(text)
    assert not REMOTE.search("[a paper](https://arxiv.org/abs/1) and ![y](_static/y.png)")


def test_the_bibliography_has_every_paper_that_is_cited() -> None:
    entries = (BOOK / "references.bib").read_text(encoding="utf-8")
    known = set(re.findall(r"arxiv\.org/abs/([\d.]+\d)", entries))
    keys = set(re.findall(r"(?m)^@\w+\{([^,]+),", entries))
    for path in [*CHAPTERS, *PAGES]:
        text = prose(path)
        cited = set(re.findall(r"arxiv\.org/(?:abs|pdf)/([\d.]+\d)", text))
        assert cited <= known, f"{path.name} cites {sorted(cited - known)}: add to references.bib"
        raw = path.read_text(encoding="utf-8")
        roles = {
            k for found in re.findall(r"\{cite[:\w]*\}`([^`]+)`", raw) for k in found.split(",")
        }
        assert roles <= keys, f"{path.name} cites {sorted(roles - keys)}"


# ----------------------------------------------------------------- exercises


@every_chapter
def test_a_chapter_ends_with_exercises_that_have_tested_solutions(path: Path) -> None:
    headings = re.findall(r"(?m)^## (.+)$", prose(path))
    assert "Exercises" in headings[-2:], f"{path.name} has no exercises at its end"
    solutions = [c.source for c in cells(path) if c.source.startswith("# @title Solution")]
    tested = [s for s in solutions if any(isinstance(n, ast.Assert) for n in ast.walk(parsed(s)))]
    assert len(solutions) >= 2, f"{path.name} has {len(solutions)} solutions"
    assert tested == solutions, f"{path.name}: a solution without an assert"
    exercises = re.findall(r"(?m)^### (\d+)\.", prose(path))
    numbers = [re.findall(r"Solution to exercise (\d+)", source)[0] for source in solutions]
    assert numbers == exercises, f"{path.name}: solutions {numbers}, exercises {exercises}"
    assert prose(path).count("<summary>Hint</summary>") >= len(exercises), "an exercise has no hint"


def parsed(source: str) -> ast.Module:
    return ast.parse(TransformerManager().transform_cell(source))


# ----------------------------------------------------------------- tables of contents


def test_every_page_is_in_the_table_of_contents() -> None:
    contents = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"(?:file|root): book/(\w+)", contents))
    assert listed == {page.stem for page in PAGES}


def chapters_of_the_contents() -> list[str]:
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    return [file.removeprefix("notebooks/") for file in files if file.startswith("notebooks/")]


def test_the_front_page_leads_through_all_chapters() -> None:
    table = re.findall(r"(?m)^\|.*\(\.\./notebooks/(\w+)\.ipynb\)", prose(BOOK / "index.md"))
    assert table == chapters_of_the_contents()


def test_the_front_page_promises_the_minutes_that_the_chapters_promise() -> None:
    words = ["five", "six", "seven", "eight", "nine", "ten"]
    words += ["eleven", "twelve", "thirteen", "fourteen", "fifteen"]
    words += ["sixteen", "seventeen", "eighteen", "nineteen", "twenty"]
    rows = re.findall(r"(?m)^\|.*/notebooks/(\w+)\.ipynb.*\| (\d+) \|$", prose(BOOK / "index.md"))
    for name, minutes in rows:
        path = ROOT / "notebooks" / f"{name}.ipynb"
        if path.is_file():
            word = words[int(minutes) - 5]
            opening = cells(path)[0].source.replace("a quarter of an hour", "fifteen minutes")
            assert re.search(rf"\b({word}|{minutes})\s+minutes", opening), f"{name}: {minutes}"


def test_the_readme_shows_a_picture_of_every_chapter() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r'(?m)^\|.*src="(book/_static/contents/\d\d\.png)".*alt="([^"]{20,})"', readme
    )
    links = re.findall(r"(?m)^\|.*\]\(notebooks/(\w+)\.ipynb\)", readme)
    assert links == chapters_of_the_contents()
    assert [Path(file).stem for file, _ in rows] == [name[:2] for name in links]
    for file, _ in rows:
        assert (ROOT / file).stat().st_size <= 15_000, f"{file} is larger than 15 kB"
        with Image.open(ROOT / file) as picture:
            assert picture.width <= 240, f"{file} is wider than 240 pixels"


def test_the_full_evaluation_takes_as_long_wherever_it_is_named() -> None:
    command_line = (ROOT / "minidiff" / "cli_data.py").read_text(encoding="utf-8")
    path = ROOT / "notebooks" / "13_how_good.ipynb"
    chapter = "\n".join(cell.source for cell in cells(path))
    for text in (command_line, chapter, (ROOT / "README.md").read_text(encoding="utf-8")):
        near = re.findall(r".{150}--full.{120}", " ".join(text.split()))
        minutes = {word for part in near for word in re.findall(r"([\w-]+) minutes", part)}
        assert minutes == {"twenty-five"}, minutes
