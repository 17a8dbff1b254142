"""Latents: a model that draws in them is trained, resumed, saved with its autoencoder, loaded."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import minidiff
from helpers import Pictures, names
from minidiff import editing, latents
from minidiff.autoencoder import Autoencoder, AutoencoderConfig
from minidiff.latents import channels_of, latents_of, space_of
from minidiff.model import ModelConfig, load_model, save_model
from minidiff.recipe import TrainingConfig
from minidiff.spaces import Latents, Pixels
from minidiff.storage import CheckpointError, info_hash, read_info
from minidiff.training import Trainer
from minidiff.unet import UNet, UNetConfig

SHAPE = AutoencoderConfig(latent_channels=3, widths=(8, 8), stem=1)
UNET = UNetConfig(in_channels=3, channels=(32,), attention=(False,), text_dim=None)
CPU = torch.device("cpu")


def autoencoder(folder: Path, shape: AutoencoderConfig = SHAPE, seed: int = 0) -> Path:
    """The folder of one that knows nothing."""
    torch.manual_seed(seed)
    config = ModelConfig(shape, 8 * shape.multiple)
    save_model(folder, Autoencoder(shape), config)
    return folder


def recipe(folder: Path, **changes: Any) -> TrainingConfig:
    settings: dict[str, Any] = {
        "network": UNET, "space": "latents", "autoencoder": str(folder), "image_size": 8,
        "text_encoder": None, "steps": 4, "batch_size": 4, "log_every": 2, "evaluate_every": 2,
        "save_every": 2,
    }  # fmt: skip
    return TrainingConfig(**{**settings, **changes})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run, in a folder beside that of its autoencoder."""
    config = recipe(autoencoder(tmp_path / "coder"))
    Trainer(config, Pictures(), tmp_path / "run", Pictures(seed=1)).run()
    return tmp_path / "run"


def test_there_and_back(tmp_path: Path) -> None:
    images = Pictures(64).images
    space = space_of(recipe(autoencoder(tmp_path / "coder")), images, CPU)
    x = space.to_data(images)
    assert x.shape == (64, 3, 4, 4) and abs(x.mean()) < 1e-3 and abs(x.std() - 1) < 1e-3
    assert torch.equal(x[:2], space.to_data(images[:2].float() / 127.5 - 1))
    back = space.to_images(x)
    assert back.shape == images.shape and back.abs().max() <= 1 and not back.requires_grad
    assert torch.equal(back, space.to_images(x, clip=False))
    assert (space.factor, space.channels, space.data_range) == (2, 1, None)
    for wrong in (images.long(), x.long()):
        with pytest.raises(TypeError):
            space.to_images(wrong) if wrong.shape == x.shape else space.to_data(wrong)


def test_latents_are_made_once_and_are_those_of_every_step(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(recipe(autoencoder(tmp_path / "coder")), Pictures(), tmp_path / "run")
    made: list[int] = []
    encode = Autoencoder.encode

    def counted(network: Autoencoder, images: torch.Tensor) -> torch.Tensor:
        made.append(len(images))
        return encode(network, images)

    monkeypatch.setattr(Autoencoder, "encode", counted)
    x0 = [trainer.batches(step).x0 for step in range(3)]
    assert made == [20]
    index = torch.cat([trainer.batches.order(step) for step in range(3)])
    expected = trainer.model_config.space.to_data(trainer.batches.images[index])
    assert torch.allclose(torch.cat(x0), expected, atol=2e-3)

    monkeypatch.setattr(latents, "LARGE", 1)  # many pictures: kept for the next time
    space, images = trainer.model_config.space, trainer.batches.images
    first, again = latents_of(space, images), latents_of(space, images)
    assert first is not None and again is not None and torch.equal(first, again)
    assert len(names(own_cache)) == 1 and len(made) == 3
    assert latents_of(Pixels(), images) is None


def test_the_autoencoder_travels_with_the_model(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "coder")
    for folder in (run / "model", *(run / "checkpoints").iterdir()):
        assert (folder / "autoencoder.safetensors").is_file()
    pipeline = minidiff.load(run, device="cpu")
    images = pipeline("", num_images_per_prompt=3, num_inference_steps=2)
    assert images.shape == (3, 1, 8, 8) and images.abs().max() <= 1
    frames = list(pipeline.steps("", num_images_per_prompt=2, num_inference_steps=2))
    assert frames[0].predicted.shape == frames[0].images.shape == (2, 1, 8, 8)
    pipeline.save(tmp_path / "copy")
    again = minidiff.load(tmp_path / "copy", device="cpu")
    assert torch.equal(images, again("", num_images_per_prompt=3, num_inference_steps=2))
    assert again.config.channels == 1 and again.config.shape == (3, 4, 4)
    assert again.config == pipeline.config == ModelConfig.from_dict(again.config.to_dict())


def test_a_part_of_a_picture_is_drawn_anew(run: Path) -> None:
    pipeline = minidiff.load(run, device="cpu")
    picture = Pictures(1).images[0]
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, 3:5, 3:5] = True  # pixels of four places
    asked: dict[str, Any] = {
        "picture": picture,
        "mask": mask,
        "strength": 1.0,
        "num_inference_steps": 2,
    }
    images = [list(editing.steps(pipeline, "", seed=seed, **asked))[-1] for seed in (0, 1)]
    x = [frame._steps[0].x for frame in images]
    same = (x[0] == x[1]).all(1)[0]
    assert same.sum() == 12 and not same[1:3, 1:3].any()
    assert torch.allclose(x[0][:, :, same], pipeline.space.to_data(picture[None])[:, :, same])


def test_a_run_goes_on_and_another_starts_from_it(run: Path, tmp_path: Path) -> None:
    config = recipe(tmp_path / "coder", steps=6)
    resumed = Trainer(config, Pictures(), run, resume=True)
    resumed.run()
    assert resumed.step_count == 6
    straight = Trainer(recipe(tmp_path / "coder", steps=6), Pictures(), tmp_path / "straight")
    assert torch.equal(straight.batches(5).x0, resumed.batches(5).x0)
    Trainer(config, Pictures(), tmp_path / "warm", start=run / "model").run()

    other = recipe(autoencoder(tmp_path / "other", seed=1), steps=8)
    with pytest.raises(ValueError, match="trained on other pictures: 20 in Latents"):
        Trainer(other, Pictures(), run, resume=True)
    with pytest.raises(ValueError, match=r"cannot start from .*its space is Latents"):
        Trainer(other, Pictures(), tmp_path / "cold", start=run / "model")
    shutil.move(tmp_path / "coder", tmp_path / "moved")
    Trainer(recipe(tmp_path / "moved", steps=8), Pictures(), run, resume=True)


# ------------------------------------------------------------------------------- bad input


def test_a_model_without_its_autoencoder_is_refused(run: Path) -> None:
    (run / "model" / "autoencoder.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks autoencoder.safetensors.*: copy it again"):
        minidiff.load(run)
    alone = Latents(SHAPE, "0123")
    for use in (lambda: alone.to_images(torch.ones(1, 3, 4, 4)), lambda: alone.files):
        with pytest.raises(CheckpointError, match=r"autoencoder 0123, which is not here.*load"):
            use()


def test_a_model_with_another_autoencoder_is_refused(run: Path, tmp_path: Path) -> None:
    model, other = run / "model", autoencoder(tmp_path / "other", seed=1)
    shutil.copy(other / "model.safetensors", model / "autoencoder.safetensors")
    with pytest.raises(CheckpointError, match=r"autoencoder.safetensors is not what was saved"):
        minidiff.load(run)
    info = read_info(model)  # also where somebody has put the hash right
    info["files"]["autoencoder.safetensors"] = read_info(other)["files"]["model.safetensors"]
    info["sha256"] = info_hash(info)
    (model / "config.json").write_text(json.dumps(info), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"in the latents of the autoencoder .*, but the one"):
        minidiff.load(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"autoencoder": None}, "latents need the folder of an autoencoder"),
        ({"space": "pixels"}, "space is 'pixels' and autoencoder '.*other spaces have none"),
        ({"shift": 0.0}, "shift must be a number above 0, got 0.0"),
    ],
)
def test_a_recipe_that_cannot_be(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(tmp_path, **changes)


def test_an_autoencoder_that_does_not_fit_is_refused_before_any_work(tmp_path: Path) -> None:
    def train(folder: Path, size: int = 8, **changes: Any) -> Trainer:
        config = recipe(folder, image_size=size, **changes)
        return Trainer(config, Pictures(size=size), tmp_path / "run")

    coder = autoencoder(tmp_path / "coder")
    with pytest.raises(FileNotFoundError, match=r"no autoencoder in '.*nowhere': train one first"):
        train(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"image_size must be a multiple of 2 .*, got 9"):
        train(coder, 9)
    deep = dataclasses.replace(UNET, channels=(32, 32), attention=(False, False))
    with pytest.raises(ValueError, match=r"image_size must be a multiple of 4 .*, got 10"):
        train(coder, 10, network=deep)
    wide = dataclasses.replace(UNET, in_channels=5)
    with pytest.raises(ValueError, match=r"have 3 channels, but unet.in_channels is 5: set it to"):
        train(coder, network=wide)
    colour = autoencoder(tmp_path / "colour", dataclasses.replace(SHAPE, in_channels=3))
    assert channels_of(recipe(colour)) == 3
    with pytest.raises(ValueError, match="in_channels = 3, those of the data set have 1"):
        train(colour)
    save_model(tmp_path / "unet", UNet(UNET), ModelConfig(UNET, 8))
    with pytest.raises(ValueError, match="unet' holds a UNet, not an autoencoder"):
        train(tmp_path / "unet")
    assert not (tmp_path / "run").exists()


def test_what_is_no_autoencoder_s_shape_is_refused(run: Path) -> None:
    for wrong in (3, None, {"widths": 3}):
        with pytest.raises(ValueError, match=r"autoencoder must be a table|widths must be"):
            Latents(wrong, "0123")
    with pytest.raises(ValueError, match="std must be above 0"):
        Latents(SHAPE, "0123", 0.0, 0.0)
    assert load_model(run / "model")[1].space.factor == 2
