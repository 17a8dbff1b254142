"""`minidiff data`: what it says of a folder before anything is trained, and of which files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import helpers
from faults.calls import command_line
from helpers import encoded
from minidiff import looking, text
from minidiff.datasets import ImageFolder
from minidiff.recipe import TrainingConfig
from minidiff.report import of_data
from minidiff.unet import UNetConfig

RED, GREY, CLEAR = (250, 0, 0), (120, 120, 120), (0, 0, 0, 0)


@pytest.fixture(autouse=True)
def surroundings(own_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of its own, an encoder that knows the words that do not begin with b; in a folder."""
    monkeypatch.setattr(text, "TextEncoder", helpers.Words)
    monkeypatch.chdir(tmp_path)


def recipe(**settings: Any) -> TrainingConfig:
    return TrainingConfig(network=UNetConfig(text_dim=12), **settings)


def block(size: tuple[int, int], colour: Any = RED, mode: str = "RGB") -> Image.Image:
    """White, or clear, with a block of a colour; as wide and as high as `size` says."""
    page = Image.new(mode, size, CLEAR if mode == "RGBA" else "white")
    page.paste(colour, (2, 2, size[0] // 2, size[1] // 2))
    return page


def folder(path: Path, *rows: tuple[str, bytes | None, str]) -> Path:
    """Files with texts; one without content is not there."""
    path.mkdir()
    lines = ["file_name,text"]
    for name, content, said in rows:
        if content is not None:
            (path / name).write_bytes(content)
        lines.append(f'{name},"{said}"')
    (path / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    lying = Image.Exif()
    lying[looking.ORIENTATION] = 6
    return folder(
        tmp_path / "mixed",
        ("a.png", encoded(block((40, 24))), "red block"),
        ("b.png", encoded(block((40, 24), GREY)), "grey block"),
        ("c.jpg", encoded(block((40, 24)), "JPEG", exif=lying), "lying block"),
        ("d.png", encoded(block((24, 24), (*RED, 255), "RGBA")), "red block"),
        ("same.png", encoded(block((40, 24))), "block"),
        ("page.png", b"<!doctype html><html></html>", "a page"),
        ("gone.png", None, "nothing"),
        ("../out.png", encoded(block((9, 9))), "outside"),
    )


def test_files_are_told_apart(mixed: Path) -> None:
    dataset, notices = looking.read(mixed, 16)
    files = looking.files_of(dataset)
    assert len(dataset) == 5 and not notices and files.listed == 8
    reasons = dict(files.refused)
    assert "a web page" in reasons["page.png"] and "no such file" in reasons["gone.png"]
    assert "outside" in reasons["../out.png"] and len(reasons) == 3
    assert files.sizes == {(24, 40): 3, (40, 24): 1, (24, 24): 1}, "one lies on its side"
    assert files.sides == (24, 40, 40) and files.transparent == 1
    assert looking.coloured(dataset.images) == 4
    assert looking.equal(dataset) == [[0, 4]]


def test_texts_are_read_as_the_encoder_reads_them(mixed: Path) -> None:
    dataset, _ = looking.read(mixed, 16)
    found = looking.texts_of(dataset.prompts, recipe(max_tokens=3))
    assert found.pictures["red block"] == 2 and len(found.pictures) == 4 and not found.cut
    assert found.unknown == ["block"] and found.longest == "lying block"
    assert looking.texts_of([("one two three four", "one")], recipe(max_tokens=3)).cut
    without = TrainingConfig(network=UNetConfig(text_dim=None), text_encoder=None)
    assert looking.texts_of(dataset.prompts, without).unknown == []


def test_what_is_found_can_be_read_by_people_and_machines(mixed: Path) -> None:
    dataset, notices = looking.read(mixed, 16)
    texts = looking.texts_of(dataset.prompts, recipe())
    result = looking.as_dict(dataset, looking.files_of(dataset), texts)
    assert json.loads(json.dumps(result)) == result
    result |= {"notices": notices, "skip_unreadable": False, "why": "small is quick."}
    said = of_data(result)
    for words in ("3 of 8, and training stops", "'page.png': it seems to be a web page", "3 sizes",
                  "1 may be transparent", "'a.png' = 'same.png'; in 1 cases with different texts",
                  "4 different, for 1 to 2 pictures each, most for 'red block'"):  # fmt: skip
        assert words in " ".join(said.split()), words
    assert max(map(len, said.splitlines())) <= 100
    assert "left out" in of_data({**result, "skip_unreadable": True})


@pytest.mark.parametrize("count", [1, 7, 100])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 24, 32), (3, 200, 100)])
def test_a_sheet_of_any_pictures(tmp_path: Path, count: int, shape: tuple[int, int, int]) -> None:
    _, height, width = shape
    dataset = ImageFolder.__new__(ImageFolder)
    dataset.images, dataset.size = torch.zeros(count, *shape, dtype=torch.uint8), (height, width)
    dataset.prompts = [(f"number {i} " * 9 + "x" * 300 + "\n\t金",) for i in range(count)]
    page = looking.sheet(dataset)
    dark = int((np.asarray(page) == 0).all(2).sum())
    scale = max(1, round(150 / width))
    shown = min(count, looking.SHOWN)
    assert 0.8 < dark / (shown * height * width * scale**2) < 2.1
    assert page.width <= 8 * (max(width * scale, 100) + 60)


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 of 1 pictures cannot be read \(none is left\)"):
        looking.read(folder(tmp_path / "p", ("a.png", b"", "x")), 16)


# ------------------------------------------------------------------------------ the command


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Instead of measuring this machine; the minutes that are asked for."""
    from minidiff import fitting

    asked: list[float] = []

    def fit(dataset: Any, minutes: float = 20.0, **_: Any) -> fitting.Fit:
        asked.append(minutes)
        return fitting.Fit(recipe(), 50.0, minutes, "48 pictures: a small network.")

    monkeypatch.setattr(fitting, "fit", fit)
    return asked


def test_the_command_looks_and_says_how_to_train(mixed: Path, fitted: list[float]) -> None:
    first = command_line(["data", "mixed"])
    assert first.status == 0 and Path("data.png").is_file(), first.err
    said = " ".join(first.out.split())
    assert "3 of 8, and training stops" in said and "a small network." in said
    assert "[unet]" in first.out
    assert said.endswith("minidiff train --data mixed --output runs/mixed") and fitted == [20]
    words = ["data", "mixed", "--image-size", "24x40", "--skip-unreadable", "--time-limit", "5"]
    second = command_line([*words, "--paper", "#ffeedd", "--output", "s.png"])
    assert Path("s.png").is_file() and fitted[1] == 5
    for option in ("--image-size 24x40", "--skip-unreadable", "--time-limit 5", "'#ffeedd'"):
        assert option in second.out.splitlines()[-1] or '"#ffeedd"' in second.out, option
    third = command_line(["data", "mixed", "--json"])
    values = json.loads(third.out)
    assert values["sheet"] == "data-2.png" and len(values["refused"]) == 3
    assert values["recipe"]["unet"]["text_dim"] == 12


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data", "nowhere"], "nowhere"),
        (["data", "mixed", "--output", "x.gif"], ".png"),
        (["data", "mixed", "--output", "no/x.png"], "there is no folder no"),
        (["data", "mixed", "--image-size", "big"], "--image-size big"),
        (["data", "mixed", "--image-size", "4"], "from 8 to 512"),
        (["data", "mixed", "--paper", "snow storm"], "snow storm"),
        (["data", "mixed", "--caption-column", "title"], "title"),
    ],
)
def test_what_is_wrong_is_named(
    words: list[str], said: str, mixed: Path, fitted: list[float]
) -> None:
    result = command_line(words)
    assert result.status == 2 and said in result.err and not result.out
    assert [path.name for path in Path().glob("*.png")] == ["out.png"]
