"""A recipe that fits the pictures and the machine; `train --data` without a recipe takes it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from faults.calls import command_line
from helpers import log_of
from minidiff import cli_more, fitting
from minidiff.fitting import as_toml, fit, size_for
from minidiff.glyphs import GlyphDataset
from minidiff.inputs import sides
from minidiff.model import load_model
from minidiff.networks import build
from minidiff.recipe import RECIPES, TrainingConfig
from minidiff.unet import UNetConfig


def pictures(count: int, shape: tuple[int, ...] = (3, 32, 32), text: str = "a ship") -> Any:
    images = torch.zeros(count, *shape, dtype=torch.uint8)
    return SimpleNamespace(images=images, prompts=[(text,)] * count)


Machine = Callable[[float], list[int]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine that computes so fast; counts what it is asked to do, in operations a picture."""
    tried: list[int] = []

    def make(power: float) -> list[int]:
        def measured(config: TrainingConfig, _: Any) -> tuple[float, int]:
            network = build(config.network)
            with FlopCounterMode(display=False) as counted:
                x = torch.zeros(1, config.network.in_channels, *sides(config.image_size))
                network(x, torch.tensor([5]))
            tried.append(counted.get_total_flops())
            return power / tried[-1], sum(weight.numel() for weight in network.parameters())

        monkeypatch.setattr(fitting, "_measured", measured)
        return tried

    return make


LAPTOP = 170 * 3.6e8  # two cores: 170 pictures of 32 × 32 a second
SERVER = 100 * LAPTOP


# ----------------------------------------------------------------------------- what is chosen


def test_few_pictures_get_a_small_network_that_sees_enough(machine: Machine) -> None:
    machine(LAPTOP)
    found = fit(pictures(300))
    config = found.config
    assert config.image_size == 32 and config.network.in_channels == 3
    assert config.network.stem == 2 and found.minutes == config.time_limit == 20
    seen = found.images_per_second * 60 * found.minutes
    assert seen > fitting.ENOUGH
    assert config.steps * config.batch_size > seen, "the clock ends it, not the steps"
    assert config.translate > 0 and config.zoom > 0 and not config.flips
    assert "(translate, zoom)" in found.why
    assert config.weight_decay > TrainingConfig().weight_decay
    for word in ("300 pictures", f"{found.images_per_second:.0f} a second", "20 minutes"):
        assert word in found.why


def test_more_pictures_get_a_larger_network_and_less_against_learning_by_heart(
    machine: Machine,
) -> None:
    machine(LAPTOP)
    few, many = (fit(pictures(n, (1, 32, 32))).config for n in (300, 20_000))
    sizes = [sum(w.numel() for w in build(c.network).parameters()) for c in (few, many)]
    assert sizes[0] < sizes[1]
    assert few.weight_decay > many.weight_decay and many.translate == many.zoom == 0


def test_a_slow_machine_gets_a_faster_network(machine: Machine) -> None:
    tried = machine(LAPTOP / 3)
    found = fit(pictures(300))
    assert len(tried) == 2 and tried[1] < tried[0] and "That is little" not in found.why
    machine(LAPTOP / 100)
    assert "That is little: give it more time" in fit(pictures(300)).why


def test_a_fast_machine_ends_before_copies_are_learnt(machine: Machine) -> None:
    machine(SERVER)
    found = fit(pictures(300))
    passes = found.config.steps * found.config.batch_size / 300
    assert passes < 1.1 * fitting.PASSES and found.minutes < 5
    assert "ends before its time" in found.why


@pytest.mark.parametrize(
    ("shape", "stem", "levels"),
    [
        ((3, 32, 32), 2, 2), ((1, 28, 28), 2, 2), ((3, 64, 64), 4, 2), ((3, 64, 96), 4, 2),
        ((1, 8, 8), 1, 2), ((3, 40, 48), 2, 2), ((1, 31, 17), 1, 1), ((3, 128, 128), 8, 2),
    ],
)  # fmt: skip
def test_every_size_gets_a_network_that_can_read_it(
    machine: Machine, shape: tuple[int, ...], stem: int, levels: int
) -> None:
    machine(LAPTOP)
    config = fit(pictures(50, shape)).config
    assert (config.network.stem, len(config.network.channels)) == (stem, levels)
    assert build(config.network)(torch.zeros(1, *shape), torch.tensor([5])).shape == (1, *shape)


def test_what_is_given_wins(machine: Machine) -> None:
    machine(SERVER)
    given: dict[str, Any] = {"steps": 7, "batch_size": 5, "learning_rate": 0.5, "flips": True}
    given |= {"zoom": 0.0, "save_every": 3, "seed": 4, "unet": {"blocks": 2}}
    found = fit(pictures(300), **given)
    config = found.config
    assert config.network.blocks == 2 and config.network.in_channels == 3
    assert all(getattr(config, name) == value for name, value in given.items() if name != "unet")
    assert config.time_limit is None, "so many steps, however long they take"
    assert fit(pictures(300), steps=7, time_limit=2).config.time_limit == 2
    assert fit(pictures(300), 5).config.time_limit == 5
    network = UNetConfig(in_channels=3, channels=(64,), attention=(True,), stem=8)
    tried = machine(LAPTOP / 100)
    tried.clear()
    assert fit(pictures(300), network=network).config.network == network and len(tried) == 1


def test_a_file_that_is_called_like_the_recipe_is_not_in_the_way(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(LAPTOP)
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text("steps = 3", encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(pictures(300)).config.steps > 3


def test_pictures_without_texts_get_a_model_without_text(machine: Machine) -> None:
    machine(LAPTOP)
    config = fit(pictures(50, text=" ")).config
    assert config.text_encoder is None and config.network.text_dim is None


def test_glyphs_are_pictures_too(machine: Machine) -> None:
    machine(LAPTOP)
    config = fit(GlyphDataset(16, "test", name_radicals=True)).config
    assert config.name_radicals and config.network.in_channels == 1


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf"), "20", True, None])
def test_minutes_that_are_none(minutes: Any) -> None:
    with pytest.raises(ValueError, match=r"minutes must be a number above 0, got "):
        fit(pictures(3), minutes)


def test_settings_that_cannot_be(machine: Machine) -> None:
    machine(LAPTOP)
    with pytest.raises(ValueError, match="unknown setting 'colour'"):
        fit(pictures(3), colour=1)
    with pytest.raises(ValueError, match="set image_size, or load them at that size"):
        fit(pictures(3), image_size=64)


def test_speed_is_that_of_real_updates(own_cache: Path) -> None:
    """Slower for a network that does more; the seconds are not those of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "MEASURED", 0.1)
        data = pictures(20, (1, 16, 16), text="")
        plain: dict[str, Any] = {"attention": (False,), "text_dim": None}
        networks = [UNetConfig(channels=(width,), **plain) for width in (32, 256)]
        small, large = (fit(data, network=network, batch_size=8) for network in networks)
    assert small.images_per_second > 1.5 * large.images_per_second > 0


# -------------------------------------------------------------------------------- as a file


def test_a_recipe_as_a_file_is_the_same(tmp_path: Path) -> None:
    unet = UNetConfig(channels=(64,), attention=(True,), text_dim=None, out_channels=1)
    configs = [
        TrainingConfig(),
        TrainingConfig(network=unet, text_encoder=None, image_size=(16, 24), learning_rate=1e-05),
        TrainingConfig(text_encoder='a\\b"字', flips=True, translate=0.1, time_limit=20, seed=-1),
        *(TrainingConfig.recipe(path.stem) for path in RECIPES.glob("*.toml")),
    ]
    for config in configs:
        path = tmp_path / "mine.toml"
        path.write_text(as_toml(config), encoding="utf-8")
        assert TrainingConfig.recipe(path) == config


def test_small_is_small() -> None:
    config = TrainingConfig.recipe("small")
    assert config.time_limit == 20 and config.image_size == 32 and config.translate > 0
    assert sum(w.numel() for w in build(config.network).parameters()) < 2.5e6


# -------------------------------------------------------------------------------- its size


def saved(folder: Path, *sizes: tuple[int, int]) -> Path:
    """Pictures of these widths and heights."""
    folder.mkdir(exist_ok=True)
    for i, size in enumerate(sizes):
        Image.new("RGB", size, (200, 30, 30)).save(folder / f"red_car-{i}.png")
    return folder


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(32, 32)] * 3, 32),
        ([(28, 28)] * 3, 28),
        ([(24, 16)] * 3, (16, 24)),
        ([(20, 30), (33, 29), (32, 32)], 32),
        ([(16, 16), (16, 17)], 16),
        ([(128, 128)] * 3, 64),
        ([(640, 480), (480, 640), (500, 500)], 64),
        ([(640, 420)] * 4, (48, 64)),
        ([(200, 400), (210, 400)], (64, 32)),
        ([(4000, 40)] * 3, (16, 64)),
    ],
)
def test_the_size_is_by_the_pictures_own(
    tmp_path: Path, sizes: list[tuple[int, int]], expected: Any
) -> None:
    assert size_for(saved(tmp_path, *sizes)) == expected


def test_a_photo_that_was_turned_and_one_that_is_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (600, 300)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "b.png").write_bytes(b"nothing")
    assert size_for(tmp_path) == (64, 32)
    (tmp_path / "a.jpg").unlink()
    assert size_for(tmp_path) == 32, "that it cannot be read is for ImageFolder to say"


@pytest.mark.parametrize(
    ("text", "size"), [("64", 64), ("64x96", (64, 96)), ("64x64", 64), (None, None)]
)
def test_image_size_on_the_command_line(text: str | None, size: Any) -> None:
    assert cli_more.size_of(text) == size
    for wrong in ("", "64x", "6.4", "-3", "64 x 96", "big"):
        with pytest.raises(ValueError, match=f"--image-size {wrong}: give one number, as 64"):
            cli_more.size_of(wrong)


# -------------------------------------------------------------------------- the command line


@pytest.fixture
def icons(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Thirty pictures of 16 × 16 pixels, all different, without texts; and a fast measurement."""
    monkeypatch.setattr(fitting, "MEASURED", 0.01)
    folder = tmp_path / "icons"
    folder.mkdir()
    for i in range(30):
        picture = Image.new("RGB", (16, 16), "white")
        picture.paste((8 * i, 255 - 8 * i, 100), (2, 2, 4 + i // 3, 9))
        picture.save(folder / f"{i}.png")
    return folder


def test_train_chooses_a_recipe_shows_it_and_takes_it_again(icons: Path, tmp_path: Path) -> None:
    run, file = tmp_path / "run", tmp_path / "shown.toml"
    words = ["train", "--data", str(icons), "--steps", "2", "--held-out", "0.4", "--flips"]
    result = command_line([*words, "--output", str(run)])
    assert result.status == 0, result.err
    assert "18 pictures of 16 × 16 pixels, without text: a network of" in result.err
    info = json.loads((run / "model" / "config.json").read_text("utf-8"))
    record = info["record"]
    assert record["data"]["held_out"] == 0.4 and record["training_images"] == 18
    assert any("held_out_loss" in line for line in log_of(run))
    shown = result.err[result.err.index("image_size = 16") :]
    file.write_text(shown[: shown.index("condition_channels = 0")], encoding="utf-8")
    assert TrainingConfig.recipe(file) == TrainingConfig.from_dict(record["recipe"])
    assert record["recipe"]["flips"] is True and load_model(run / "model")[1].shape == (3, 16, 16)

    again = command_line(["train", "--resume", "--steps", "3", "--output", str(run)])
    assert again.status == 0 and "a network of" not in again.err, again.err
    other = command_line(["train", "--resume", "--held-out", "0.2", "--output", str(run)])
    assert other.status == 2 and "held_out was 0.4 in this run and is now 0.2" in other.err
    fixed = ["train", "--data", str(icons), "--recipe", str(file), "--output", str(tmp_path / "b")]
    assert "a network of" not in command_line(fixed).err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--held-out", "0"], "above 0 and below 1, got 0.0"),
        (["--held-out", "10"], "as 0.1 for 10 %, got 10"),
        (["--held-out", "0.99"], "none would be left"),
        (["--image-size", "8 px"], "--image-size 8 px: give one number"),
        (["--image-size", "30"], "image_size must be a multiple of 4"),
        (["--time-limit", "0"], "time_limit must be a number above 0"),
    ],
)
def test_wrong_options_say_what_is_wrong(
    icons: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    run = tmp_path / "run"
    result = command_line(["train", "--data", str(icons), "--output", str(run), *options])
    assert result.status == 2 and said in result.err, result.err
    assert len(result.err.splitlines()) == 1 and not run.exists()


def test_held_out_is_of_own_pictures(tmp_path: Path) -> None:
    result = command_line(["train", "--held-out", "0.1", "--output", str(tmp_path / "run")])
    assert result.status == 2 and "--held-out is of own pictures: give --data" in result.err


def test_a_run_that_is_there_is_found_before_anything_is_measured(
    icons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "_measured", lambda *_: pytest.fail("too late"))
    (tmp_path / "log.jsonl").write_text("", encoding="utf-8")
    result = command_line(["train", "--data", str(icons), "--output", str(tmp_path)])
    assert result.status == 2 and "already holds a run" in result.err
