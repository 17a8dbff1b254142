"""Any network will do: one of ten lines is trained, saved, loaded and drawn with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import minidiff
from helpers import WIDTH, Pictures, Words, log_of
from minidiff import text
from minidiff.model import ModelConfig, load_model
from minidiff.networks import NETWORKS, Description, build, describe
from minidiff.pipeline import Pipeline
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
        with pytest.raises(
            ValueError, match=r"config of a known one \(unet, conv_.*, diffusers_unet\), got Tiny"
        ):
            ModelConfig(TinyConfig(), 8)
        with pytest.raises(ValueError, match="unknown network 'tiny': known are unet"):
            TrainingConfig.from_dict({"tiny": {}})
    finally:
        NETWORKS["tiny"] = Tiny, TinyConfig


@dataclass(frozen=True)
class WideConfig:
    in_channels: int = 1
    widths: tuple[int, ...] = (8, 8)
    text_dim: int | None = WIDTH
    multiple: int = 2


class Wide(nn.Module):
    """With all that a U-Net does not have: statistics of batches, shared weights, a tuple."""

    def __init__(self, config: WideConfig) -> None:
        super().__init__()
        first, last = config.widths
        self.read = nn.Linear(config.text_dim or 1, first)
        self.go = nn.Conv2d(config.in_channels, first, 3, padding=1)
        self.norm = nn.BatchNorm2d(first)
        self.middle = nn.Conv2d(first, last, 1)
        self.again = self.middle
        self.back = nn.Conv2d(last, config.in_channels, 3, padding=1)

    def forward(
        self, x: Tensor, t: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        h = self.norm(self.go(x))
        if tokens is not None and mask is not None:
            h = h + self.read((tokens * mask[..., None]).sum(1))[..., None, None]
        out: Tensor = self.back(self.again(self.middle(h).relu()))
        return out


def test_a_network_unlike_the_u_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "wide", (Wide, WideConfig))
    monkeypatch.setattr(text, "TextEncoder", Words)
    recipe = TrainingConfig(
        network=WideConfig(), image_size=8, text_encoder="words", max_tokens=6, steps=6,
        batch_size=4, log_every=1, save_every=2,
    )  # fmt: skip
    run = tmp_path / "run"
    first = Trainer(recipe, Pictures(), run)
    for _ in range(3):
        first.step()
    first.save()
    again = Trainer(recipe, Pictures(), run, resume=True)
    again.run()
    straight = Trainer(recipe, Pictures(), tmp_path / "straight")
    straight.run()
    for a, b in zip(again.averaged.state_dict().values(), straight.averaged.state_dict().values()):
        assert torch.equal(a, b)
    average, current = again.averaged.state_dict(), again.network.state_dict()
    assert torch.equal(average["norm.running_mean"], current["norm.running_mean"])
    assert average["norm.num_batches_tracked"] == 6

    pipeline = minidiff.load(run, device="cpu")
    assert pipeline.config.network == WideConfig()
    assert pipeline.network.state_dict()["norm.num_batches_tracked"] == 6
    monkeypatch.setattr(Pipeline, "_notice", lambda *_: None)  # Words does not know what it knows
    pipeline.__dict__["text_encoder"] = Words(max_tokens=6)
    assert pipeline(["only bar 1", ""], num_inference_steps=2).shape == (2, 1, 8, 8)
    warm = Trainer(recipe, Pictures(), tmp_path / "warm", start=run / "model")
    for a, b in zip(warm.network.parameters(), pipeline.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_two_networks_must_not_share_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "twin", (Tiny, TinyConfig))
    with pytest.raises(ValueError, match="which is that of tiny and twin"):
        build(TinyConfig())
    with pytest.raises(ValueError, match="one network at a time: the recipe has 'unet' and 'tiny'"):
        TrainingConfig.from_dict({"unet": {}, "tiny": {}})
