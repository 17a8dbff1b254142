"""Any network will do: one of ten lines is trained, saved, loaded and drawn with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import minidiff
from helpers import Pictures, log_of
from minidiff.model import ModelConfig, load_model
from minidiff.networks import NETWORKS, Description, build, describe
from minidiff.recipe import TrainingConfig
from minidiff.training import Trainer
from minidiff.unet import UNetConfig


@dataclass(frozen=True)
class TinyConfig:
    width: int = 16


class Tiny(nn.Module):
    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, config.width, 5, padding=2)
        self.last = nn.Conv2d(config.width, 1, 5, padding=2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        clock = (t / 1000)[:, None, None, None].expand_as(x)
        return self.last(self.first(torch.cat([x, clock], 1)).relu())


@pytest.fixture(autouse=True)
def known() -> Iterator[None]:
    """All that it takes."""
    NETWORKS["tiny"] = Tiny, TinyConfig
    yield
    del NETWORKS["tiny"]


def test_a_network_of_ten_lines_is_trained_saved_loaded_and_drawn_with(tmp_path: Path) -> None:
    recipe = TrainingConfig(
        network=TinyConfig(width=12), image_size=8, text_encoder=None, steps=60, batch_size=8,
        learning_rate=3e-3, warmup=5, log_every=20, evaluate_every=30, save_every=20,
    )  # fmt: skip
    run = tmp_path / "run"
    Trainer(recipe, Pictures(), run, Pictures(seed=1)).run()
    losses = [entry["loss"] for entry in log_of(run) if "loss" in entry]
    assert losses[-1] < losses[0] * 0.9

    network, config, _ = load_model(run / "model")
    assert isinstance(network, Tiny) and config.network == TinyConfig(width=12)
    images = minidiff.load(run, device="cpu")("", num_images_per_prompt=2, num_inference_steps=3)
    assert images.shape == (2, 1, 8, 8) and images.std() > 0

    longer = TrainingConfig.from_dict({**recipe.to_dict(), "steps": 70})
    resumed = Trainer(longer, Pictures(), run, resume=True)
    resumed.run()
    assert resumed.step_count == 70


def test_a_recipe_may_ask_for_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("text_encoder = false\nimage_size = 8\n[tiny]\nwidth = 3\n", encoding="utf-8")
    assert TrainingConfig.recipe(path).network == TinyConfig(width=3)
    other = TrainingConfig.recipe("glyph64", network=TinyConfig(), text_encoder=None)
    assert other.network == TinyConfig() and other.to_dict()["tiny"] == {"width": 16}


def test_what_is_known_of_a_network() -> None:
    assert describe(TinyConfig()) == Description("tiny")
    unet = describe(UNetConfig(in_channels=3, stem=2, channels=(32, 32), attention=(False, True)))
    assert unet == Description("unet", 3, 3, 0, 4, 384)
    assert isinstance(build(TinyConfig()), Tiny)


def test_one_that_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    recipe = TrainingConfig(
        network=TinyConfig(), image_size=8, text_encoder=None, steps=1, batch_size=4
    )
    Trainer(recipe, Pictures(), tmp_path / "run").run()
    del NETWORKS["tiny"]
    try:
        with pytest.raises(ValueError, match=r"unknown network 'tiny'.*: known are unet"):
            minidiff.load(tmp_path / "run")
        with pytest.raises(ValueError, match=r"config of a known one \(unet\), got TinyConfig"):
            ModelConfig(TinyConfig(), 8)
        with pytest.raises(ValueError, match="unknown network 'tiny': known are unet"):
            TrainingConfig.from_dict({"tiny": {}})
    finally:
        NETWORKS["tiny"] = Tiny, TinyConfig
