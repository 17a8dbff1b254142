"""The emoji that ship: a folder as anybody has one, packed."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

import minidiff
from helpers import ROOT

ARCHIVE = ROOT / "minidiff" / "data" / "emoji.tar.xz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    unpacked = tmp_path_factory.mktemp("emoji")
    shutil.unpack_archive(ARCHIVE, unpacked, filter="data")
    return unpacked


def test_three_thousand_emoji_in_two_megabytes_with_their_licence(folder: Path) -> None:
    assert ARCHIVE.stat().st_size <= 2_000_000
    assert 3_000 <= len(list(folder.glob("*.png"))) <= 3_500
    licence = (folder / "LICENSE").read_text(encoding="utf-8")
    assert "Google" in licence and "Apache License" in licence
    assert "Changed:" in licence, "the licence wants what was changed to be said"


def test_each_is_read_as_it_is_and_has_a_text_of_its_own(
    folder: Path, own_cache: Path, recwarn: pytest.WarningsRecorder
) -> None:
    emoji = minidiff.ImageFolder(folder, size=32)
    assert emoji.source == "metadata.csv" and emoji.images.shape[1:] == (3, 32, 32)
    assert not [str(w.message) for w in recwarn], "none is blank, none unreadable"
    assert set(emoji.file_names) == {path.name for path in folder.glob("*.png")}
    assert len({prompts[0] for prompts in emoji.prompts}) == len(emoji)
    assert len({image.numpy().tobytes() for image in emoji.images}) == len(emoji)
    assert (emoji.images == 255).float().mean() > 0.2, "on white paper"


def test_a_skin_tone_is_the_last_part_of_a_text_and_marked(folder: Path) -> None:
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["file_name"]: row for row in csv.DictReader(file)}
    for row in rows.values():
        assert ("skin tone" in row["text"]) == bool(row["skin_tone"]), row
        assert row["category"], row
    beard = rows["man-medium-dark-skin-tone-beard.png"]
    assert beard["text"] == "man beard, medium dark skin tone"
    assert beard["skin_tone"] == "medium dark"
    plain = {row["text"] for row in rows.values() if not row["skin_tone"]}
    assert {"red apple", "green apple", "waving hand", "rocket"} <= plain
