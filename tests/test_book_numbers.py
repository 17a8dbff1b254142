"""Numbers in the prose of the book: those of the tables and settings that they stand for."""

from __future__ import annotations

import json
import re

import pytest

from helpers import ROOT

CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
PAGES = ("README.md", "book/index.md", "book/how_to_use.md")
WORDS = {10: "ten", 15: "fifteen", 20: "twenty"}


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_a_chapter_takes_as_long_as_the_shortest_and_the_longest(name: str) -> None:
    rows = re.findall(r"(?m)^\|.*/notebooks/\w+\.ipynb.*\| (\d+) \|$", page("book/index.md"))
    minutes = [int(row) for row in rows]
    promised = f"{WORDS[min(minutes)]} to {WORDS[max(minutes)]} minutes"
    assert promised in " ".join(page(name).split())


def test_every_chapter_has_its_costs_and_all_are_measured() -> None:
    table = page("book/how_to_use.md").partition("<!-- costs -->")[2]
    rows = re.findall(
        r"(?m)^\| \[\]\(\.\./notebooks/(\w+)\.ipynb\) \| \d+ s \| [\d.]+ GB \|$", table
    )
    assert rows == CHAPTERS
    assert "not measured" not in table


def test_network_calls_are_those_of_the_usual_steps_with_guidance() -> None:
    import minidiff

    pipeline = minidiff.load()
    steps, _ = pipeline.settled(None, None)
    assert steps == 20
    assert "Forty network calls a picture, two in each of twenty steps" in page(
        "book/where_next.md"
    )


def test_the_chapter_on_transformers_tells_what_the_long_comparison_measured() -> None:
    text = (ROOT / "benchmarks/results/unet_or_dit.json").read_text(encoding="utf-8")
    networks = json.loads(text)["networks"]
    end = {name: list(row["held_out"].values())[-1]["mean"] for name, row in networks.items()}
    assert end["fine"] < end["dit"] < end["unet"]
    said = page("notebooks/16_transformers.ipynb")
    assert f"a loss of {end['dit']:.2f} against {end['unet']:.2f}" in said
    assert f"ends at {end['fine']:.2f}, ahead of both" in said
