"""A cascade: a second stage that enlarges the pictures of a first, trained and drawn with."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import minidiff
from faults.calls import command_line
from helpers import WIDTH, Pictures, awake, log_of, sha256
from minidiff import editing, hub, second_stage, shelf, stages
from minidiff.cascade import SecondStage
from minidiff.cli_train import SampleGrids
from minidiff.glyphs import to_float
from minidiff.model import ModelConfig, load_model, save_model
from minidiff.recipe import TrainingConfig
from minidiff.run_folder import all_checkpoints
from minidiff.second_stage import Beside
from minidiff.spaces import Pixels
from minidiff.stages import FirstStage
from minidiff.storage import CheckpointError, read_info
from minidiff.training import Trainer
from minidiff.unet import UNetConfig

SMALL = UNetConfig(channels=(16, 16), attention=(False, True), head_dim=16, text_dim=WIDTH)
LARGE = UNetConfig(
    channels=(16,), attention=(False,), head_dim=16, text_dim=None, condition_channels=3, stem=2
)

pytestmark = pytest.mark.usefixtures("reading_on_cpu")


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
    model = second_stage.with_first(recipe, recipe.model_for(Pixels.of(pictures.images)))
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


# ------------------------------------------------------------------------------- drawing


@pytest.fixture
def cascade(first: Path, tmp_path: Path) -> Path:
    """The folder of a second stage that names its first, as a training leaves it."""
    told = FirstStage(str(first), sha256(first / "model.safetensors"), steps=3)
    config = ModelConfig(LARGE, 16, Pixels(0.4, 0.8), first_stage=told)
    save_model(tmp_path / "second", awake(LARGE), config)
    return tmp_path / "second"


def test_a_film_shows_both_stages_in_one_size(cascade: Path, first: Path) -> None:
    pipeline = minidiff.load(cascade)
    assert pipeline.image_size == 16 and "16 × 16" in repr(pipeline)
    frames = pipeline.steps(["bar", "number"], num_images_per_prompt=2, num_inference_steps=5)
    shown = list(frames)
    assert len(frames) == len(shown) == 8
    assert [frame.index for frame in shown] == list(range(8)) and shown[-1].t == 0
    assert {frame.images.shape for frame in shown} == {(4, 1, 16, 16)}
    assert {frame.predicted.shape for frame in shown} == {(4, 1, 16, 16)}
    alone = minidiff.load(first)
    small = alone(["bar", "number"], num_images_per_prompt=2, num_inference_steps=5)
    assert torch.equal(shown[4].images, stages.doubled(small))
    last = pipeline(["bar", "number"], num_images_per_prompt=2, num_inference_steps=5)
    assert torch.equal(last, shown[-1].images)
    longer = pipeline.steps("bar", num_inference_steps=5, second_steps=4, redrawn=0.1)
    assert len(longer) == 9


def test_pictures_do_not_depend_on_how_many_are_drawn(cascade: Path) -> None:
    pipeline = minidiff.load(cascade)
    one, many = (
        pipeline("bar", num_images_per_prompt=n, num_inference_steps=3, seed=4) for n in (1, 20)
    )
    assert torch.allclose(one, many[:1], atol=1e-4) and not torch.allclose(one, many[1:2])
    mine = pipeline("bar", num_inference_steps=3, generator=torch.Generator().manual_seed(0))
    again = pipeline("bar", num_inference_steps=3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mine, again) and not torch.allclose(mine, one)


def test_saved_it_is_whole(cascade: Path, first: Path, tmp_path: Path) -> None:
    pipeline = minidiff.load(cascade)
    for _ in range(2):  # over itself, too
        pipeline.save(tmp_path / "whole")
    shutil.rmtree(first)
    opened = minidiff.load(tmp_path / "whole")
    how = {"num_images_per_prompt": 2, "num_inference_steps": 3}
    assert torch.equal(opened("bar", **how), pipeline("bar", **how))
    assert str(tmp_path) not in (tmp_path / "whole/config.json").read_text(encoding="utf-8")

    data = bytearray((tmp_path / "whole/first.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "whole/first.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"first.safetensors is not what was saved"):
        minidiff.load(tmp_path / "whole")


def test_a_first_stage_that_is_missing_or_another_is_refused(cascade: Path, first: Path) -> None:
    _, config, _ = load_model(first)
    save_model(first, awake(SMALL, seed=1), config)
    with pytest.raises(CheckpointError, match=r"with the weights .* but those .*: put it back"):
        minidiff.load(cascade)
    shutil.rmtree(first)
    with pytest.raises(FileNotFoundError, match=r"enlarges pictures of .* which is not here: put"):
        minidiff.load(cascade)


def test_a_second_stage_is_no_model_by_itself(cascade: Path, recipe: TrainingConfig) -> None:
    network, config, _ = load_model(cascade)
    with pytest.raises(ValueError, match=r"second stage, .* open its folder with minidiff.load"):
        minidiff.Pipeline(network, config)
    with pytest.raises(ValueError, match="which is a second stage itself: give a model that draws"):
        twice = dataclasses.replace(recipe, first=str(cascade), image_size=32)
        Trainer(twice, Pictures(20, 32), cascade.parent / "run")
    with pytest.raises(ValueError, match="no first_stage"):
        SecondStage(network, dataclasses.replace(config, first_stage=None))


def test_options_of_the_second_stage_are_checked_by_the_call(cascade: Path, first: Path) -> None:
    pipeline = minidiff.load(cascade)
    with pytest.raises(ValueError, match="second_steps must be from 1 to 1000, got 0"):
        pipeline.steps("bar", second_steps=0)
    with pytest.raises(ValueError, match="redrawn must lie between 0 and 1, got 2"):
        pipeline.steps("bar", redrawn=2)
    with pytest.raises(ValueError, match=r"timesteps end at 9, but .*: let them end at 0"):
        pipeline.steps("bar", timesteps=[1000, 500, 9])
    with pytest.raises(TypeError, match="second_steps"):
        minidiff.load(first).steps("bar", second_steps=4)


def test_where_the_mask_is_black_the_picture_stays_to_the_pixel(cascade: Path) -> None:
    pipeline, picture = minidiff.load(cascade), Pictures(1, 16).images[0]
    mask = torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[:, 3:9, 5:12] = True
    how: dict[str, Any] = {"picture": picture, "mask": mask, "num_inference_steps": 4}
    drawn, again = ([f.images for f in editing.steps(pipeline, "bar", **how)][-1] for _ in range(2))
    assert torch.equal(drawn, again)
    real = to_float(picture)[None]
    assert torch.allclose(drawn[:, ~mask], real[:, ~mask], atol=1e-5)
    assert not torch.allclose(drawn[:, mask], real[:, mask], atol=0.1)
    with pytest.raises(ValueError, match="picture has 8 × 8 pixels, and the model draws 16 × 16"):
        editing.steps(pipeline, "bar", picture=picture[:, :8, :8])
    blend = [f.images for f in editing.steps(pipeline, ["bar", "x"], blend=True)][-1]
    assert blend.shape == (1, 1, 16, 16)


@pytest.mark.parametrize("ending", [".png", ".gif", ".npy"])
def test_the_command_draws_it_and_draws_it_again(
    cascade: Path, tmp_path: Path, ending: str
) -> None:
    places = [tmp_path / f"{name}{ending}" for name in "ab"]
    how = ["--num-images", "2", "--num-inference-steps", "3", "--model", str(cascade)]
    result = command_line(["sample", "bar", *how, "-o", str(places[0])])
    assert result.status == 0 and result.err == "", result
    assert command_line(["sample", "--again", str(places[0]), "-o", str(places[1])]).status == 0
    assert sha256(places[0]) == sha256(places[1])
    if ending == ".npy":
        assert np.load(places[0]).shape == (1, 2, 16, 16)


def test_the_shelf_counts_both_stages(
    cascade: Path, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf_folder = tmp_path / "shelf"
    shutil.copytree(first, shelf_folder / "small")
    network, config, _ = load_model(cascade)
    told = FirstStage("small", sha256(first / "model.safetensors"))
    save_model(shelf_folder / "large", network, dataclasses.replace(config, first_stage=told))
    monkeypatch.setattr(shelf, "MODELS", shelf_folder)
    large, small = minidiff.pretrained()
    assert (large.image_size, small.image_size) == (16, 8)
    both = sum(p.numel() for net in (network, load_model(first)[0]) for p in net.parameters())
    assert large.parameters == both > small.parameters and large.megabytes > small.megabytes
    assert minidiff.load("large")("bar", num_inference_steps=2).shape == (1, 1, 16, 16)


def test_sample_sheets_are_of_both_stages(recipe: TrainingConfig, tmp_path: Path) -> None:
    sheets = SampleGrids(["bar"])
    train(dataclasses.replace(recipe, steps=2), tmp_path / "run", callback=sheets)
    assert not sheets.failed
    with Image.open(next((tmp_path / "run/samples").iterdir())) as sheet:
        assert sheet.width > 8 * 16


def test_others_get_both_stages(cascade: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="half a cascade: write both stages into one folder"):
        hub.push(cascade, "ann/large")
    pipeline = minidiff.load(cascade)
    pipeline.record["data"] = {"path": "D:/ann"}
    pipeline.save(tmp_path / "whole")
    sent = json.loads(hub.public(read_info(tmp_path / "whole")))
    assert sent["files"].keys() == {"model.safetensors", "first.safetensors"}
    assert sent["first"]["record"]["data"]["path"] is None
    assert "16 × 16 pixels in two stages, told by texts (words)" in hub.card(tmp_path / "whole")


# ------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 32}, "image_size is 32, but .* draws 8: set image_size to 16 × 16"),
        ({"first": "glyph63"}, "first is 'glyph63', but there is no .*: give one that"),
        ({"first": "ann/icons"}, "first is 'ann/icons', .* or the folder of one"),
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
