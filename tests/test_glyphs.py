from __future__ import annotations

import hashlib
import re
import tempfile
import warnings
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from helpers import full_disk, load_script
from minidiff import cache
from minidiff import glyphs as g
from minidiff.captions import split_senses

HAN = re.compile(
    "[\u2e80-\u2fdf\u3007\u3021-\u3029\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
FEW = "一明草國金鉄这问木林魚" + "".join(map(chr, range(0x4E00, 0x4E20)))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> Path:
    """A small character set and an empty cache folder of its own."""
    chosen = tuple(glyph for glyph in g.load_glyphs() if glyph.char in FEW)
    monkeypatch.setattr(g, "load_glyphs", lambda: chosen)
    return own_cache


def the(char: str) -> g.Glyph:
    return next(glyph for glyph in g.load_glyphs() if glyph.char == char)


# ------------------------------------------------------------------------------------- data


def test_every_character_is_there_once_in_order_and_defined() -> None:
    glyphs = g.load_glyphs()
    chars = [glyph.char for glyph in glyphs]
    assert len(glyphs) == 20_509
    assert chars == sorted(set(chars))
    assert all(0x3400 <= ord(char) <= 0x9FFF for char in chars)
    assert all(re.search("[a-z0-9]", glyph.definition, re.I) for glyph in glyphs)
    assert all(1 <= glyph.radical <= 214 for glyph in glyphs)
    assert all(glyph.senses == split_senses(glyph.definition) != () for glyph in glyphs)


def test_no_definition_names_a_character() -> None:
    for glyph in g.load_glyphs():
        text = glyph.definition
        assert not HAN.search(text), text
        assert "U+" not in text and not re.search(r"radical\s*(no\.?|number)?\s*\d", text, re.I), (
            text
        )
        assert not re.search(r"\b(same as|variant of|form of)\s*[,;)]|\(\s*\)|\[\s*\]|  ", text), (
            text
        )
        assert text == text.strip(" ,;") and text.count("(") == text.count(")"), text


def test_cleaning_keeps_what_is_english() -> None:
    assert the("锂").definition == "lithium (element 3, Li)"
    assert the("釒").definition == the("金").definition  # only "Kangxi radical 167" of its own
    assert the("㐀").definition == "hillock or mound"
    fallback = [glyph.char for glyph in g.load_glyphs() if glyph.definition == "a variant form"]
    assert len(fallback) == 5


def test_labels() -> None:
    count = Counter(glyph.radical for glyph in g.load_glyphs())
    expected = {167: 736, 85: 896, 75: 833, 140: 834, 142: 398, 196: 357, 195: 361}
    assert {radical: count[radical] for radical in expected} == expected
    assert (the("明").layout, the("明").components) == ("left-right", ("日", "月"))
    assert (the("草").layout, the("草").components) == ("top-bottom", ("艹", "早"))
    assert (the("國").layout, the("國").components) == ("surround", ("囗", "或"))
    layouts = Counter(glyph.layout for glyph in g.load_glyphs())
    assert set(layouts) == {"left-right", "top-bottom", "surround", "other"}
    assert layouts["left-right"] == 13_905 and layouts["other"] < 400


def test_package_data_is_small_and_carries_its_licences() -> None:
    assert sum(path.stat().st_size for path in g.DATA.iterdir()) <= 8_000_000
    notice = (g.DATA / "NOTICE").read_text(encoding="utf-8")
    for line in ("© 2014-2021 Adobe", "SIL OPEN FONT LICENSE Version 1.1", "Unicode, Inc."):
        assert line in notice


# ------------------------------------------------------------------------------------ split


def test_no_family_and_no_definition_crosses_the_split() -> None:
    by_family, by_text = defaultdict(set), defaultdict(set)
    for glyph in g.load_glyphs():
        by_family[glyph.family].add(glyph.split)
        by_text[" ".join(re.findall("[a-z0-9]+", glyph.definition.lower()))].add(glyph.split)
    assert all(len(splits) == 1 for splits in by_family.values())
    assert all(len(splits) == 1 for splits in by_text.values())


@pytest.mark.parametrize("pair", ["魚鱼", "門门", "麥麦", "金釒", "國囯", "龜龟", "體体", "為爲"])
def test_variants_are_one_family(pair: str) -> None:
    assert the(pair[0]).family == the(pair[1]).family


def test_the_split_is_fixed() -> None:
    test = "".join(glyph.char for glyph in g.load_glyphs() if glyph.split == "test")
    assert abs(len(test) / 20_509 - 0.05) < 0.005
    digest = hashlib.sha256(test.encode("utf-8")).hexdigest()
    assert digest == "337629314a57d378dd0d8d781bc1b8abc375ce3d8c7ee71d8c6521a0f2e1911c"


# -------------------------------------------------------------------------------- rendering


@pytest.mark.parametrize("size", [16, 32, 64])
def test_glyphs_have_ink_and_a_white_border(size: int) -> None:
    chars = [glyph.char for glyph in g.load_glyphs()]
    images = g.render(chars, size)
    assert images.shape == (len(chars), size, size) and images.dtype == torch.uint8
    assert images.flatten(1).amin(1).max() < 128, "a blank glyph"
    if size >= 32:  # smaller than that, strokes reach the edge
        border = torch.cat([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], 1)
        assert border.min() >= (255 if size == 64 else 230)


def test_no_character_is_drawn_as_the_empty_box() -> None:
    box = g.render(["\U0010fffd"], 32)[0]
    images = g.render([glyph.char for glyph in g.load_glyphs()], 32)
    assert box.min() < 128
    assert not (images == box).flatten(1).all(1).any()


def test_pictures_are_the_right_way_up() -> None:
    river, two, nail = 255 - g.render("川二丁", 64).float()
    assert river[:, 16:48].sum(0).min() == 0 and river[16:48].sum(1).min() > 0, "three uprights"
    assert two[16:48].sum(1).min() == 0 and two[:, 16:48].sum(0).min() > 0, "two bars"
    assert nail[:16].sum() > nail[-16:].sum(), "the bar is on top"


def test_render_refuses_a_wrong_size_or_font(tmp_path: Path) -> None:
    for size in (7, 513, 32.0, True):
        with pytest.raises(ValueError, match="8 to 512"):
            g.render("金", size)  # type: ignore[arg-type]
    assert g.render("金", np.int64(16)).shape == (1, 16, 16)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"no\.otf"):
        g.render("金", 32, tmp_path / "no.otf")
    (tmp_path / "bad.otf").write_bytes(b"not a font")
    with pytest.raises(ValueError, match=r"bad\.otf is not a font"):
        g.render("金", 32, tmp_path / "bad.otf")


# ------------------------------------------------------------------------------------ cache


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_the_cache_is_read_back(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = g.glyph_images(32)
    monkeypatch.setattr(g, "render", lambda *_: pytest.fail("drawn again"))
    assert torch.equal(g.glyph_images(32), images)
    assert only_file(few).name.startswith("glyphs-32-")


def damage_truncate(data: bytearray) -> bytearray:
    return data[: len(data) // 2]


def damage_flip(data: bytearray) -> bytearray:
    data[-100] ^= 255
    return data


def damage_empty(data: bytearray) -> bytearray:
    return bytearray()


def damage_foreign(data: bytearray) -> bytearray:
    return bytearray(b"\xff" * 500)


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_empty, damage_foreign])
def test_a_damaged_cache_is_rebuilt(few: Path, damage) -> None:  # type: ignore[no-untyped-def]
    images = g.glyph_images(32)
    path = only_file(few)
    whole = path.read_bytes()
    path.write_bytes(damage(bytearray(whole)))
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.equal(g.glyph_images(32), images)
    assert only_file(few).read_bytes() == whole


def test_a_cache_of_another_shape_is_rebuilt(few: Path) -> None:
    g.glyph_images(32)
    path = only_file(few)
    path.unlink()
    kept = {"images": torch.zeros(3, 32, 32, dtype=torch.uint8)}
    cache.cached(path.stem, make=lambda: kept, fits=lambda _: True)
    assert only_file(few) == path
    with pytest.warns(UserWarning, match="damaged"):
        assert len(g.glyph_images(32)) == len(g.load_glyphs())


def test_what_cannot_be_written_goes_to_a_temporary_folder(
    few: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("MINIDIFF_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match=r"cannot be written.*MINIDIFF_CACHE"):
        images = g.glyph_images(16)
    folder = cache.cache_dir()
    assert folder.parent == tmp_path / "tmp" and only_file(folder).suffix == ".safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        assert torch.equal(g.glyph_images(16), images)


def test_a_full_disk_costs_the_cache_and_nothing_else(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.warns(UserWarning, match="is not kept for the next time: .*No space left"):
        images = g.glyph_images(16)
    assert images.shape[1:] == (16, 16) and not list(few.iterdir())


def test_many_may_ask_at_once(few: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(g.glyph_images, [24] * 8))
    assert all(torch.equal(images, results[0]) for images in results)
    assert only_file(few).suffix == ".safetensors", "no temporary file is left"


# --------------------------------------------------------------------------------- datasets


def test_ink_is_minus_one_and_paper_one() -> None:
    assert g.to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


def test_dataset(few: Path) -> None:
    whole, train, test = (g.GlyphDataset(32, split) for split in ("all", "train", "test"))
    assert len(whole) == len(train) + len(test) == len(g.load_glyphs())
    assert {glyph.char for glyph in train.glyphs}.isdisjoint(glyph.char for glyph in test.glyphs)
    assert whole.images.shape == (len(whole), 1, 32, 32) and whole.images.dtype == torch.uint8
    for i, glyph in enumerate(whole.glyphs):
        item = whole[i]
        assert torch.equal(whole.images[i, 0], g.render(glyph.char, 32)[0])
        assert item["image"].dtype == torch.float32 and item["image"].shape == (1, 32, 32)
        assert item["image"].max() == 1 and item["image"].min() >= -1
        assert item["text"] == glyph.definition == whole.prompts[i][0]
        assert whole.prompts[i][1:] == (glyph.senses if len(glyph.senses) > 1 else ())
    with pytest.raises(ValueError, match=r"'validation'.*train, test, all"):
        g.GlyphDataset(32, "validation")


def test_an_index_is_one_whole_number(few: Path) -> None:
    data = g.GlyphDataset(16, "all")
    last = len(data) - 1
    for i in (last, -1, np.int64(last), torch.tensor(last)):
        assert data[i]["text"] == data.prompts[last][0]
        assert torch.equal(data[i]["image"], g.to_float(data.images[last]))
    assert len(list(data)) == len(data)  # type: ignore[call-overload]
    for i in (last + 1, -last - 2):
        with pytest.raises(IndexError, match=f"{last + 1} pictures"):
            data[i]
    wrong = (slice(0, 3), [0, 1], True, np.True_, torch.tensor(True), 1.0, "1", None)
    for value in (*wrong, torch.tensor([0, 1]), np.arange(2)):
        with pytest.raises(TypeError, match=r"dataset\[.*one whole number.*dataset\.images"):
            data[value]  # type: ignore[index]


def test_nearest() -> None:
    candidates = torch.randint(256, (5000, 1, 8, 8), dtype=torch.uint8)
    picked = torch.tensor([3, 4999, 2048])
    noisy = g.to_float(candidates[picked]) + 0.05 * torch.randn(3, 1, 8, 8)
    found = g.nearest(noisy, candidates, count=4)
    exact = torch.cdist(noisy.flatten(1).double(), g.to_float(candidates).flatten(1).double())
    assert found.shape == (3, 4) and torch.equal(found[:, 0], picked)
    assert torch.equal(found, exact.topk(4, largest=False).indices)
    for count in (0, 5001):
        with pytest.raises(ValueError, match=f"count is {count}"):
            g.nearest(noisy, candidates, count)
    with pytest.raises(ValueError, match="differ in size"):
        g.nearest(noisy[..., :4], candidates)


# ---------------------------------------------------------------------- how the data is built


@pytest.fixture(scope="module")
def build_data() -> ModuleType:
    return load_script("tools/data/build_data.py")


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("(same as U+4E18 丘) hillock or mound", "hillock or mound"),
        ("lithium (element 3, Li)", "lithium (element 3, Li)"),
        ("body; trunk, hull; Kangxi radical 158", "body; trunk, hull"),
        ("short (ancient form of 拙) stupid", "short, stupid"),
        ("same as 冀 U+5180 to hope for; to wish", "to hope for; to wish"),
        ("(Cant.) 啲咑, a trumpet", "(Cant.) a trumpet"),
        ("cup (same as 杯 [U+676F] and 桮 [U+686E]); sad", "cup; sad"),
        ("large", "large"),  # a relation word elsewhere
        ("variant of 七 (U+4E03)", ""),
        ("Kangxi radical 167", ""),
    ],
)
def test_cleaning(build_data: ModuleType, raw: str, cleaned: str) -> None:
    assert build_data.clean(raw) == cleaned


def test_families_follow_chains_of_variants_and_definitions(build_data: ModuleType) -> None:
    texts = {"a": "Fish!", "b": "fish", "c": "river", "d": "sea", "e": "wood"}
    family = build_data.families(texts, [("b", "z"), ("z", "c")])  # z has no definition
    assert family == {"a": "a", "b": "a", "c": "a", "d": "d", "e": "e"}


def test_only_bytes_are_made_floats() -> None:
    for wrong in (torch.ones(2), torch.tensor([0, 255]), np.zeros(2), [0]):
        with pytest.raises(TypeError, match=r"images must be a tensor of uint8 .*, got "):
            g.to_float(wrong)  # type: ignore[arg-type]
    pictures = torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2) * 20
    with pytest.raises(TypeError, match=r"candidates must be .*got torch.int64"):
        g.nearest(pictures, pictures.long())
    assert g.nearest(g.to_float(pictures).double(), pictures)[:, 0].tolist() == [0, 1, 2]


def test_a_size_as_a_number_of_torch() -> None:
    assert g.check_size(torch.tensor(16)) == g.check_size(np.int64(16)) == 16  # type: ignore[arg-type]
