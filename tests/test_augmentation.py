"""Augmentation: what moves stays itself, paper comes in at the edges, and each step is its own."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from minidiff.augmentation import Augmentation, paper_of
from minidiff.glyphs import to_float
from minidiff.recipe import TrainingConfig
from minidiff.training import Trainer
from minidiff.unet import UNetConfig


def recipe(**settings: Any) -> TrainingConfig:
    network = UNetConfig(in_channels=3, channels=(32,), attention=(False,), text_dim=None, stem=2)
    usual = {"network": network, "image_size": 16, "text_encoder": None, "batch_size": 8}
    return TrainingConfig(**{**usual, **settings})


def icons(paper: tuple[int, int, int] = (255, 255, 255), count: int = 8) -> Tensor:
    """A square of 4 × 6 pixels, not in the middle, on paper."""
    images = torch.tensor(paper, dtype=torch.uint8)[None, :, None, None].repeat(count, 1, 16, 16)
    colours = torch.randint(256, (count, 3), generator=torch.Generator().manual_seed(0))
    images[:, :, 5:9, 4:10] = colours.to(torch.uint8)[:, :, None, None]
    return images


def changed(config: TrainingConfig, images: Tensor, step: int = 0) -> Tensor:
    return Augmentation(config, images)(images, step, slice(0, config.batch_size))


@pytest.mark.parametrize("paper", [(255, 255, 255), (0, 0, 0), (255, 128, 7)])
def test_shifts_are_by_whole_pixels_and_bring_in_paper(paper: tuple[int, int, int]) -> None:
    images = icons(paper)
    assert paper_of(images).tolist() == list(paper)  # type: ignore[union-attr]
    near, seen = range(-2, 3), set()
    for step in range(20):
        for before, after in zip(to_float(images), changed(recipe(translate=0.13), images, step)):
            moved = {(dy, dx): before.roll((dy, dx), (1, 2)) for dy, dx in product(near, near)}
            places = [place for place, x in moved.items() if torch.allclose(x, after, atol=1e-5)]
            assert len(places) == 1, "it is the picture itself, moved by at most 2 of 16 pixels"
            seen |= {*places}
    assert len(seen) == 25, "every shift comes"


def test_flips_are_of_left_and_right_and_only_where_asked() -> None:
    images = icons()
    for flips in (True, False):
        after = changed(recipe(flips=flips), images)
        same = [torch.allclose(a, b, atol=1e-6) for a, b in zip(to_float(images), after)]
        mirrored = [
            torch.allclose(a.flip(2), b, atol=1e-6) for a, b in zip(to_float(images), after)
        ]
        assert all(a or b for a, b in zip(same, mirrored))
        assert any(mirrored) == flips and any(same)


def test_zoom_changes_how_much_is_inked_within_its_limit() -> None:
    images = icons((255, 255, 255))
    images[:, :, 5:9, 4:10] = 0
    ink = [((1 - changed(recipe(zoom=0.2), images, step)) / 2).sum((1, 2, 3)) for step in range(20)]
    area = torch.cat(ink) / (3 * 24)
    assert area.min() > 0.9 / 1.2**2 and area.max() < 1.1 * 1.2**2
    assert area.min() < 0.85 and area.max() > 1.15
    assert changed(recipe(zoom=0.2), images).abs().max() <= 1


def test_pictures_without_paper_go_on_at_their_edges() -> None:
    """Nothing foreign comes into a photograph."""
    photo = torch.arange(16, dtype=torch.uint8).repeat(16, 1) * 16
    images = photo.expand(8, 3, 16, 16).contiguous()
    assert paper_of(images) is None
    for after in changed(recipe(translate=0.25, zoom=0.1), images):
        steps = after[0].diff(dim=1)
        assert steps.min() > -1e-4 and steps.max() < 0.2, "from dark to light, without a jump"


def test_a_paper_of_jpegs_is_not_all_of_one_colour() -> None:
    images = icons()
    images[:, :, 0] = torch.tensor([250, 252, 255, 255] * 4, dtype=torch.uint8)
    images[0] = 17
    assert paper_of(images).tolist() == [255, 255, 255]  # type: ignore[union-attr]


def test_pictures_depend_on_the_step_and_the_place_in_the_batch_only() -> None:
    config, images = recipe(translate=0.2, zoom=0.1, flips=True), icons()
    whole = changed(config, images, 3)
    assert torch.equal(whole, changed(config, images, 3))
    assert not torch.equal(whole, changed(config, images, 4))
    augment = Augmentation(config, images)
    for mine in (slice(0, 4), slice(4, 8)):  # as two processes would share it
        assert torch.allclose(augment(images[mine], 3, mine), whole[mine], atol=1e-6)


def test_training_sees_changed_pictures_and_resumes_to_the_same(tmp_path: Path) -> None:
    data = SimpleNamespace(images=icons(count=12), prompts=[("",)] * 12)
    often = {"save_every": 2, "log_every": 2, "translate": 0.13, "flips": True}
    plain = Trainer(recipe(steps=2), data, tmp_path / "plain", data)
    augmented = Trainer(recipe(steps=2, **often), data, tmp_path / "run", data)
    assert not torch.equal(plain.batches(0).x0, augmented.batches(0).x0)
    assert torch.equal(plain.batches(0).eps, augmented.batches(0).eps)
    assert torch.equal(augmented.held_out.whole(torch.arange(12))[0], data.images)  # type: ignore
    augmented.run()
    Trainer(recipe(steps=4, **often), data, tmp_path / "run", data, resume=True).run()
    Trainer(recipe(steps=4, **often), data, tmp_path / "whole", data).run()
    weights = [tmp_path / run / "model" / "model.safetensors" for run in ("run", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    with pytest.raises(ValueError, match="flips was True in this run and is now None"):
        Trainer(recipe(steps=6, translate=0.13), data, tmp_path / "run", resume=True)


def test_settings_of_no_augmentation_say_nothing() -> None:
    names = {"translate", "zoom", "flips"}
    assert not names & recipe().to_dict().keys()
    assert recipe(translate=0.1).to_dict()["translate"] == 0.1
    for name in ("translate", "zoom"):
        with pytest.raises(ValueError, match=f"{name} must lie between 0 and 1, got 1.5"):
            recipe(**{name: 1.5})
