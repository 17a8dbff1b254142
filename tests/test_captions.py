"""What may stand for a glyph in training."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from minidiff.batches import check_names
from minidiff.captions import (
    NEVER_ALONE,
    RARE,
    RARE_SHARES,
    SHARES,
    named,
    named_prompts,
    prompts_of,
    radical_name,
    split_senses,
)
from minidiff.datasets import ImageFolder
from minidiff.glyphs import GlyphDataset
from minidiff.recipe import TrainingConfig
from minidiff.training import Trainer
from minidiff.unet import UNetConfig


@pytest.mark.parametrize(
    ("definition", "senses"),
    [
        ("gold; metals in general; money", ("gold", "metals in general", "money")),
        ("to see, to look; to see", ("to see", "to look")),
        ("lithium (element 3, Li)", ("lithium (element 3, Li)",)),
        ("food, oil, etc.; a cake", ("food", "oil", "a cake")),
        ("one of 10,000; many", ("one of 10,000", "many")),
        ("open (never, closed; so", ("open (never", "closed", "so")),
        ("", ()),
    ],
)
def test_senses(definition: str, senses: tuple[str, ...]) -> None:
    assert split_senses(definition) == senses
    assert prompts_of(definition) == (definition, *senses) or len(senses) < 2


def test_every_radical_has_a_name_of_its_own() -> None:
    names = [radical_name(number) for number in range(1, 215)]
    assert len(set(names)) == 214
    assert (names[60], names[84], names[166], names[213]) == ("heart", "water", "gold", "flute")
    assert set(names) >= NEVER_ALONE, "a name here is none of Unicode's"


@pytest.mark.parametrize("number", [0, 215, -1])
def test_there_are_214_radicals(number: int) -> None:
    with pytest.raises(ValueError, match=f"radicals 1 to 214, got {number}"):
        radical_name(number)


def test_named() -> None:
    assert named("dragon", 85) == "dragon, water radical"
    assert named("", 61) == "heart radical"


def test_prompts_that_name_the_radical() -> None:
    whole, *rest = named_prompts("dread; fear", 61)
    assert whole == "dread; fear" and len(rest) == sum(SHARES.values())
    counted = Counter(rest)
    assert counted["dread"] + counted["fear"] == SHARES["sense"]
    told = counted["dread, heart radical"] + counted["fear, heart radical"]
    assert told == SHARES["sense, named"]
    assert abs(counted["dread"] - counted["fear"]) <= 1, "the senses come in turns"
    assert counted["dread; fear, heart radical"] == SHARES["whole, named"]
    assert counted["heart radical"] == SHARES["name"]
    assert counted["heart"] == SHARES["short name"]


def test_a_name_that_says_nothing_alone_keeps_to_its_long_form() -> None:
    counted = Counter(named_prompts("a dot", 3))
    assert counted["dot"] == 0
    assert counted["dot radical"] == SHARES["name"] + SHARES["short name"]


def test_a_definition_without_senses_stands_for_itself() -> None:
    assert set(named_prompts("etc.", 61)) == {
        "etc.", "etc., heart radical", "heart radical", "heart"
    }  # fmt: skip


def test_the_glyphs_are_told_by_their_radicals_only_where_asked() -> None:
    plain, telling = (GlyphDataset(16, "test", name_radicals=tell) for tell in (False, True))
    assert not any("heart radical" in several for several in plain.prompts)
    for glyph, several in zip(telling.glyphs, telling.prompts):
        assert several[0] == glyph.definition
        assert named("", glyph.radical) in several
    assert {len(several) for several in telling.prompts} == {1 + sum(SHARES.values())}


def test_names_of_radicals_that_few_glyphs_have_are_heard_more_often() -> None:
    assert sum(RARE_SHARES.values()) == sum(SHARES.values())
    train = GlyphDataset(16, "train", name_radicals=True)
    count = Counter(glyph.radical for glyph in train.glyphs)
    seen = set()
    for glyph, (_, *rest) in zip(train.glyphs, train.prompts):
        rare = count[glyph.radical] < RARE
        if not glyph.definition or (glyph.radical, rare) in seen:
            continue
        seen.add((glyph.radical, rare))
        shares = RARE_SHARES if rare else SHARES
        assert rest.count(named("", glyph.radical)) >= shares["name"]
        plain = [text for text in rest if text in (glyph.definition, *glyph.senses)]
        assert len(plain) >= shares["sense"] and (not rare or len(plain) <= shares["short name"])
    assert {rare for _, rare in seen} == {True, False}


def test_a_recipe_that_says_otherwise_than_the_data_is_refused(tmp_path: Path) -> None:
    unet = UNetConfig(stem=2, channels=(32,), attention=(False,), text_dim=384)
    plain = TrainingConfig(network=unet, image_size=16)
    telling = dataclasses.replace(plain, name_radicals=True)
    for recipe in (plain, telling):
        data = GlyphDataset(16, "test", name_radicals=not recipe.name_radicals)
        wrong = f"name_radicals = {recipe.name_radicals}, the data set {data.name_radicals}: make"
        with pytest.raises(ValueError, match=wrong):
            Trainer(recipe, data, tmp_path)
        check_names(recipe, GlyphDataset(16, "test", name_radicals=recipe.name_radicals))
        check_names(recipe, ImageFolder.__new__(ImageFolder))  # other pictures have no radicals
