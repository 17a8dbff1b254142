"""What is held out: by content, whatever the order; remembered by the run and found again."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import minidiff
from helpers import Pictures, log_of
from minidiff.batches import data_of
from minidiff.recipe import TrainingConfig
from minidiff.splitting import FEW, split
from minidiff.training import Trainer
from minidiff.unet import UNetConfig


def noise(count: int, seed: int = 0) -> Any:
    """Different pictures."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return SimpleNamespace(images=images, prompts=[(f"number {i}",) for i in range(count)])


def shown(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_each_picture_is_on_one_side_with_its_prompts() -> None:
    data = noise(200)
    train, held_out = split(data, 0.1)
    assert (len(train), len(held_out)) == (180, 20)
    assert sorted([*train.rows, *held_out.rows]) == list(range(200))
    for part in (train, held_out):
        assert torch.equal(part.images, data.images[part.rows])
        assert part.prompts == [data.prompts[i] for i in part.rows]
        assert part[0]["text"] == part.prompts[0][0] and part.share == 0.1 and part.whole is data


def test_the_choice_is_by_content_and_not_by_place() -> None:
    data = noise(120)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(1))
    other = SimpleNamespace(images=data.images[order], prompts=[("",)] * 120)
    assert shown(split(data, 0.2)[1].images) == shown(split(other, 0.2)[1].images)
    assert split(data, 0.2)[1].rows != list(range(24)), "not simply the first"
    assert shown(split(data, 0.1)[1].images) < shown(split(data, 0.2)[1].images)


def test_equal_pictures_are_on_the_same_side() -> None:
    base = noise(40)
    data = SimpleNamespace(images=base.images.repeat(3, 1, 1, 1), prompts=base.prompts * 3)
    train, held_out = split(data, 0.1)
    assert len(held_out) == 12 and not shown(train.images) & shown(held_out.images)
    assert {rows % 40 for rows in held_out.rows}.isdisjoint(rows % 40 for rows in train.rows)


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan"), "0.1", True, None])
def test_a_share_that_is_none(share: Any) -> None:
    with pytest.raises(ValueError, match=r"above 0 and below 1.*, got ") as error:
        split(noise(20), share)
    assert repr(share) in str(error.value)


def test_a_share_in_per_cent_is_put_right() -> None:
    with pytest.raises(ValueError, match=r"below 1, as 0\.1 for 10 %, got 10"):
        split(noise(20), 10)


def test_something_is_left_to_learn_from() -> None:
    same = SimpleNamespace(images=torch.zeros(9, 1, 8, 8, dtype=torch.uint8), prompts=[("",)] * 9)
    for data, share in ((same, 0.1), (noise(1), 0.5), (noise(20), 0.99)):
        with pytest.raises(ValueError, match="none would be left to learn from"):
            split(data, share)


def test_few_held_out_pictures_are_told_of(recwarn: pytest.WarningsRecorder) -> None:
    split(noise(10 * FEW), 0.1)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="only 1 of 8 pictures are held out: .*mostly chance"):
        split(noise(8), 0.01)


def recipe(**settings: Any) -> TrainingConfig:
    network = UNetConfig(channels=(32,), attention=(False,), text_dim=None, stem=2)
    often = {f"{name}_every": 2 for name in ("log", "save", "sample", "evaluate")}
    usual = {"network": network, "image_size": 8, "text_encoder": None, "batch_size": 4, "steps": 2}
    return TrainingConfig(**{**usual, **often, **settings})


def test_a_run_remembers_what_it_held_out(tmp_path: Path) -> None:
    data, run = Pictures(60), tmp_path / "run"
    train, held_out = split(data, 0.2)
    Trainer(recipe(), train, run, held_out).run()
    record = json.loads((run / "model" / "config.json").read_text("utf-8"))["record"]
    assert record["training_images"] == len(train)
    assert record["data"]["held_out"] == 0.2
    whole = data_of(data, False)
    assert record["data"]["fingerprint"] == whole["fingerprint"] and "held_out" not in whole
    assert [entry["step"] for entry in log_of(run) if "held_out_loss" in entry] == [2]
    Trainer(recipe(steps=4), *(split(data, 0.2)[0], run, held_out), resume=True).run()
    for other in (data, split(data, 0.5)[0]):
        with pytest.raises(ValueError, match=r"held_out was 0\.2 in this run and is now (None|0)"):
            Trainer(recipe(steps=6), other, run, resume=True)


def test_parts_of_the_glyphs_are_of_glyphs() -> None:
    glyphs = minidiff.GlyphDataset(16, "test", name_radicals=True)
    train, _ = split(glyphs, 0.1)
    assert train.name_radicals and data_of(train, True)["kind"] == "glyphs"
