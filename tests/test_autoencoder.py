"""The autoencoder: shapes there and back, what its loss means, and that it learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import minidiff
from helpers import Pictures, log_of, names
from minidiff.autoencoder import Autoencoder, AutoencoderConfig
from minidiff.cli_train import SampleGrids
from minidiff.latents import open_autoencoder
from minidiff.recipe import TrainingConfig
from minidiff.training import Trainer

TINY = AutoencoderConfig(latent_channels=3, widths=(8, 8), stem=1, noise=0.1)


def tiny(**changes: Any) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(dataclasses.replace(TINY, **changes)).eval()


@pytest.mark.parametrize(
    ("config", "shape", "latents"),
    [
        (AutoencoderConfig(), (2, 1, 128, 128), (2, 8, 16, 16)),
        (AutoencoderConfig(widths=(8,), stem=4), (1, 1, 64, 96), (1, 8, 16, 24)),
        (AutoencoderConfig(in_channels=3, widths=(8, 8, 8)), (1, 3, 24, 8), (1, 8, 3, 1)),
    ],
)
def test_there_and_back(
    config: AutoencoderConfig, shape: tuple[int, ...], latents: tuple[int, ...]
) -> None:
    network = Autoencoder(config).eval()
    z = network.encode(torch.ones(shape))
    assert z.shape == latents and shape[2] // latents[2] == config.multiple
    images = network.decode(100 * z)
    assert images.shape == shape and images.abs().max() <= 1


@pytest.mark.parametrize("shape", [(1, 1, 7, 8), (1, 1, 8, 9), (1, 3, 8, 8), (1, 8, 8)])
def test_pictures_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\), H and W multiples of 2, got"):
        tiny().encode(torch.ones(shape))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": 64}, "widths must be a list with one entry a level, got 64"),
        ({"widths": ()}, "widths must be a list with one entry a level"),
        ({"widths": (8, 0)}, "widths must be a whole number from 1 to 65,536, got 0"),
        ({"stem": 1.0}, "stem must be a whole number"),
        ({"latent_channels": True}, "latent_channels must be a whole number"),
        ({"noise": -0.1}, "noise must be a number from 0 to below 10, got -0.1"),
        ({"noise": float("nan")}, "noise must be a number"),
        ({"latent_channels": 4}, "fewer than the 4 numbers of the pixels"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)


def test_the_loss_of_a_perfect_copy_is_0_also_of_grey(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny(noise=0.0)
    images = torch.linspace(-0.9, 0.9, 64).view(1, 1, 8, 8)
    ink = (1 - images) / 2
    network.decoder = torch.nn.Sequential()  # answers with what it is given
    monkeypatch.setattr(network, "encode", lambda _: torch.logit(ink))
    assert network(images, torch.randn(1, 1, 8, 9)).abs().max() < 1e-5
    monkeypatch.setattr(network, "encode", lambda _: torch.logit(1 - ink))
    assert network(images, torch.randn(1, 1, 8, 9)).min() > 0.1


def test_the_latents_have_mean_0_and_deviation_1_over_what_it_learns_from() -> None:
    network = tiny().train()
    z = network.encode(torch.rand(64, 1, 8, 8) * 2 - 1)
    assert z.mean((0, 2, 3)).abs().max() < 1e-4
    assert (z.std((0, 2, 3)) - 1).abs().max() < 0.01


def test_noise_is_laid_on_the_latents_in_proportion() -> None:
    heard: dict[float, torch.Tensor] = {}
    for noise in (0.0, 0.2, 0.4):
        network = tiny(noise=noise)
        network.decoder.register_forward_hook(
            lambda *given, noise=noise: heard.__setitem__(noise, given[1][0])
        )
        eps = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        network(torch.ones(2, 1, 8, 8), eps)
    little, much = heard[0.2] - heard[0.0], heard[0.4] - heard[0.0]
    assert little.abs().max() > 0 and torch.allclose(much, 2 * little, atol=1e-5)


def recipe(**changes: Any) -> TrainingConfig:
    settings: dict[str, Any] = {
        "network": TINY, "image_size": 8, "text_encoder": None, "steps": 60, "batch_size": 8,
        "learning_rate": 5e-3, "warmup": 5, "log_every": 20, "evaluate_every": 30, "save_every": 20,
    }  # fmt: skip
    return TrainingConfig(**{**settings, **changes})


def test_it_is_trained_resumed_and_opened_like_any_network(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = Trainer(recipe(), Pictures(), run, Pictures(seed=1))
    for _ in range(30):
        first.step()
    first.save()
    again = Trainer(recipe(), Pictures(), run, Pictures(seed=1), resume=True)
    again.run()
    grids = SampleGrids([""])
    straight = Trainer(
        recipe(sample_every=60), Pictures(), tmp_path / "straight", Pictures(seed=1), grids
    )
    straight.run()
    for a, b in zip(again.averaged.state_dict().values(), straight.averaged.state_dict().values()):
        assert torch.equal(a, b)
    assert names(tmp_path / "straight" / "samples") == ["step-00000060.png"]
    assert "a recipe as latents128, autoencoder = " in grids.what_next(straight)
    losses = [entry["loss"] for entry in log_of(tmp_path / "straight") if "loss" in entry]
    assert losses[-1] < losses[0] * 0.8
    held_out = [entry["held_out_loss"] for entry in log_of(run) if "held_out_loss" in entry]
    assert held_out[-1].keys() == {"mean"} and 0 < held_out[-1]["mean"] < 1
    assert open_autoencoder(run).config == TINY
    with pytest.raises(ValueError, match="this is an autoencoder, which draws nothing by itself"):
        minidiff.load(run)
