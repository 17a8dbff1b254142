"""Spaces: there and back, and the range between."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import minidiff
from helpers import Pictures
from minidiff.glyphs import as_pictures
from minidiff.recipe import TrainingConfig
from minidiff.spaces import SPACES, Pixels
from minidiff.training import Trainer
from minidiff.unet import UNetConfig

SPACE = Pixels(0.125, 0.7)


def test_there_and_back() -> None:
    images = torch.tensor([-1.0, 0.0, 0.3, 1.0])
    x = SPACE.to_data(images)
    assert torch.allclose(x, (images - 0.125) / 0.7)
    assert torch.allclose(SPACE.to_images(x), images)
    assert SPACE.to_images(torch.tensor([-9.0, 9.0])).tolist() == [-1, 1]
    assert SPACE.data_range == pytest.approx((x[0].item(), x[-1].item()))


def test_bytes_are_welcome_and_other_numbers_are_not() -> None:
    grey = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert torch.equal(SPACE.to_data(grey), SPACE.to_data(torch.tensor([-1, -0.6, 1.0])))
    assert torch.equal(SPACE.to_data(torch.ones(2).double()), SPACE.to_data(torch.ones(2)))
    with pytest.raises(
        TypeError, match=r"x must be floats in the network's units, got torch.uint8"
    ):
        SPACE.to_images(grey)
    for wrong in (grey.long(), grey > 0, grey.numpy(), [0.5], None):
        with pytest.raises(TypeError, match=r"images must be a tensor of floats in \[-1, 1\].*got"):
            SPACE.to_data(wrong)  # type: ignore[arg-type]


def test_a_data_set_has_mean_0_and_deviation_1_in_its_space() -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (50, 3, 8, 8), dtype=torch.uint8, generator=draw)
    x = Pixels.of(images).to_data(images)
    assert abs(x.mean()) < 1e-4 and abs(x.std() - 1) < 1e-4
    white = torch.full((2, 1, 4, 4), 255, dtype=torch.uint8)
    assert torch.isfinite(Pixels.of(white).to_data(white)).all()


def test_spaces_agree_up_to_what_another_freetype_draws() -> None:
    assert SPACE.agrees(Pixels(0.1255, 0.6995)) and not SPACE.agrees(Pixels(0.125, 0.71))
    assert not SPACE.agrees(None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((float("nan"), 1.0), "mean must be a finite number, got nan"),
        ((0.0, 0.0), "std must be above 0, got 0.0"),
        ((0.0, [1]), r"std must be a finite number, got \[1\]"),
    ],
)
def test_a_space_that_cannot_be_is_refused(values: tuple[float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pixels(*values)


@dataclass(frozen=True)
class Folded:
    """Blocks of 2 × 2 pixels as places of four numbers: no bytes, no range, other shapes."""

    scale: float = 1.0
    factor: ClassVar[int] = 2
    channels: ClassVar[int] = 1
    data_range: ClassVar[None] = None

    @classmethod
    def of(cls, images: Tensor) -> Folded:
        return cls(round(as_pictures(images).std().item(), 6))

    def agrees(self, other: object) -> bool:
        return isinstance(other, Folded) and abs(self.scale - other.scale) < 0.1

    def to_data(self, images: Tensor) -> Tensor:
        return F.pixel_unshuffle(as_pictures(images).float(), 2) / self.scale

    def to_images(self, x: Tensor, clip: bool = True) -> Tensor:
        return F.pixel_shuffle(x * self.scale, 2).clamp(-1, 1)


def test_another_space_is_a_class_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SPACES, "folded", Folded)
    unet = UNetConfig(in_channels=4, channels=(32,), attention=(False,), text_dim=None)
    recipe = TrainingConfig(
        network=unet, space="folded", image_size=8, text_encoder=None, steps=4, batch_size=4,
        log_every=2, evaluate_every=2, save_every=2,
    )  # fmt: skip
    run = tmp_path / "run"
    trainer = Trainer(recipe, Pictures(), run, Pictures(seed=1))
    assert trainer.batches(0).x0.shape == (4, 4, 4, 4)
    trainer.run()
    longer = TrainingConfig.from_dict({**recipe.to_dict(), "steps": 6})
    Trainer(longer, Pictures(), run, Pictures(seed=1), resume=True).run()
    pipeline = minidiff.load(run, device="cpu")
    assert isinstance(pipeline.space, Folded)
    images = pipeline("", num_images_per_prompt=3, num_inference_steps=2)
    assert images.shape == (3, 1, 8, 8) and images.abs().max() <= 1
    Trainer(recipe, Pictures(), tmp_path / "warm", start=run / "model")

    with pytest.raises(ValueError, match=r"image_size must be a multiple of 2 .*got 7"):
        TrainingConfig(network=unet, space="folded", image_size=7, text_encoder=None)
    monkeypatch.delitem(SPACES, "folded")
    with pytest.raises(ValueError, match="unknown space 'folded': known are pixels"):
        minidiff.load(run)
    with pytest.raises(ValueError, match="unknown space 'folded': known are pixels"):
        TrainingConfig(space="folded")
