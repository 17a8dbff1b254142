"""A cascade: a second stage that enlarges the pictures of a first, trained and drawn with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers import WIDTH, Pictures, Words, awake, log_of, sha256
from minidiff import second_stage, stages, text
from minidiff.model import ModelConfig, load_model, save_model
from minidiff.recipe import TrainingConfig
from minidiff.run_folder import all_checkpoints
from minidiff.second_stage import Beside
from minidiff.spaces import Pixels
from minidiff.training import Trainer
from minidiff.unet import UNetConfig

SMALL = UNetConfig(channels=(16, 16), attention=(False, True), head_dim=16, text_dim=WIDTH)
LARGE = UNetConfig(
    channels=(16,), attention=(False,), head_dim=16, text_dim=None, condition_channels=3, stem=2
)


@pytest.fixture(autouse=True)
def surroundings(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On the CPU, whatever the machine has; a cache of its own; the made-up encoder."""
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(text, "TextEncoder", Words)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A model of 8 × 8 pixels that reads texts."""
    config = ModelConfig(
        SMALL, 8, Pixels(0.5, 0.7), text_encoder="words", text_fingerprint="0123", max_tokens=6
    )
    save_model(tmp_path / "first", awake(SMALL), config)
    return tmp_path / "first"


@pytest.fixture
def recipe(first: Path) -> TrainingConfig:
    return TrainingConfig(
        network=LARGE, image_size=16, text_encoder=None, first=str(first), variants=2, steps=4,
        batch_size=4, log_every=2, evaluate_every=2, save_every=2, sample_every=9,
    )  # fmt: skip


def train(config: TrainingConfig, folder: Path, **options: Any) -> Trainer:
    held_out = Pictures(6, 16, seed=1)
    trainer = Trainer(config, Pictures(20, 16), folder, held_out=held_out, **options)
    trainer.run()
    return trainer


# ------------------------------------------------------------------------------- training


def test_a_second_stage_is_trained_like_any_model(
    recipe: TrainingConfig, first: Path, tmp_path: Path
) -> None:
    train(recipe, tmp_path / "run")
    losses = [entry["held_out_loss"]["mean"] for entry in log_of(tmp_path / "run")[1::2]]
    assert len(losses) == 2 and losses[1] < losses[0]
    _, config, record = load_model(tmp_path / "run/model")
    assert config.first_stage is not None
    assert config.first_stage.weights == sha256(first / "model.safetensors")
    assert record["recipe"]["first"] == str(first)

    other = dataclasses.replace(recipe, seed=1)
    warm = train(other, tmp_path / "warm", start=tmp_path / "run/model")
    assert warm.stages[0]["weights_sha256"] == sha256(tmp_path / "run/model/model.safetensors")


def test_resumed_it_goes_on_bit_for_bit(recipe: TrainingConfig, tmp_path: Path) -> None:
    recipe = dataclasses.replace(recipe, decay=0.0)
    train(dataclasses.replace(recipe, steps=2), tmp_path / "parts")
    train(recipe, tmp_path / "parts", resume=True)
    train(recipe, tmp_path / "whole")
    ends = [all_checkpoints(tmp_path / name)[-1] for name in ("whole", "parts")]
    a, b = (load_file(end / "weights.safetensors") for end in ends)
    assert all(torch.equal(a[name], b[name]) for name in a)


def beside_of(recipe: TrainingConfig, count: int = 20) -> Beside:
    pictures = Pictures(count, 16)
    model = second_stage.with_first(recipe, recipe.model_for(pictures.images))
    from accelerate import Accelerator

    return Beside(recipe, model, pictures, Accelerator(cpu=True))


def test_processes_share_what_one_would_see(recipe: TrainingConfig) -> None:
    beside, index = beside_of(recipe), torch.tensor([3, 1, 4, 15])
    whole = beside(7, index, slice(0, 4))
    halves = [beside(7, index[part], part) for part in (slice(0, 2), slice(2, 4))]
    assert torch.equal(whole, torch.cat(halves))
    assert not torch.equal(whole, beside(8, index, slice(0, 4)))


def test_what_is_told_is_true(recipe: TrainingConfig) -> None:
    """What is said to be clean and real is just that; the others are as far off as said."""
    recipe = dataclasses.replace(recipe, batch_size=200)
    beside, index = beside_of(recipe), torch.arange(200) % 20
    shown = beside(0, index, slice(0, 200))
    assert shown.shape == (200, 3, 16, 16)
    real = stages.doubled(beside.space.to_data(beside.small[index]))
    error = (shown[:, :1] - real).square().mean((1, 2, 3))
    noise, redrawn = shown[:, 1].amax((1, 2)), shown[:, 2].amax((1, 2))
    assert torch.equal(noise, shown[:, 1].amin((1, 2)))
    clean = (noise == 0) & (redrawn == 0)
    assert 10 < clean.sum() < 90 and (error[clean] == 0).all() and (error[~clean] > 0).all()
    assert noise.max() <= 0.5 and redrawn[redrawn > 0].min() >= 0.1 and redrawn.max() <= 0.7
    only_noise = (noise > 0.2) & (redrawn == 0)
    assert (error[only_noise] / noise[only_noise] ** 2).mean() == pytest.approx(2, rel=0.5)


def test_the_first_stage_draws_again_only_once(
    recipe: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = beside_of(recipe).redrawn
    assert made.shape == (2, 20, 1, 8, 8) and not torch.equal(*made)
    monkeypatch.setattr(second_stage, "Redrawing", None)  # all is in the cache
    assert torch.equal(beside_of(recipe).redrawn[0], made)
    with pytest.raises(TypeError):
        _ = beside_of(dataclasses.replace(recipe, seed=1)).redrawn


def test_held_out_pictures_are_real_and_redrawn_in_turn(recipe: TrainingConfig) -> None:
    beside, index = beside_of(recipe), torch.arange(10)
    shown = beside.held_out(index)
    assert (shown[:, 1] == 0).all() and (shown[::2, 2] == 0).all() and (shown[1::2, 2] > 0.09).all()
    assert torch.equal(shown, beside_of(dataclasses.replace(recipe, seed=5)).held_out(index))


# ------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 32}, "image_size is 32, but .* draws 8: set image_size to 16 × 16"),
        ({"first": "glyph63"}, "no model 'glyph63': give one that ships"),
        ({"first": "ann/icons"}, "first is 'ann/icons': give a model that ships, or the folder"),
    ],
)
def test_a_first_stage_that_does_not_fit_is_refused_before_any_work(
    recipe: TrainingConfig, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    config = dataclasses.replace(recipe, **changes)
    size = config.image_size
    assert isinstance(size, int)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        Trainer(config, Pictures(20, size), tmp_path / "run")
    assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()


def test_recipes_that_no_second_stage_can_have(recipe: TrainingConfig) -> None:
    with pytest.raises(ValueError, match=r"condition_channels is 1, .* set it to 3"):
        dataclasses.replace(recipe, network=dataclasses.replace(LARGE, condition_channels=1))
    text_too = dataclasses.replace(LARGE, text_dim=WIDTH)
    with pytest.raises(ValueError, match=r"reads no text.*text_encoder = false"):
        dataclasses.replace(recipe, network=text_too, text_encoder="words")
    with pytest.raises(ValueError, match="without first knows of no picture"):
        dataclasses.replace(recipe, first=None)
    with pytest.raises(ValueError, match="variants must be from 1 to 64, got 0"):
        dataclasses.replace(recipe, variants=0)


def test_a_run_whose_first_stage_has_changed_does_not_go_on(
    recipe: TrainingConfig, first: Path, tmp_path: Path
) -> None:
    train(dataclasses.replace(recipe, steps=2), tmp_path / "run")
    _, config, _ = load_model(first)
    save_model(first, awake(SMALL, seed=1), config)
    with pytest.raises(ValueError, match=r"the first stage of this run had the weights .*put them"):
        train(recipe, tmp_path / "run", resume=True)
