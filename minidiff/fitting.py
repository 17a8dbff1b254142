"""A recipe that fits: chosen from the pictures that there are, and from how fast this machine is.

Speed is measured, by some updates of the network in question. What comes out is a recipe like any
other: it can be looked at, kept as a file and changed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from PIL import Image

from minidiff.batches import PictureDataset, check_dataset
from minidiff.devices import accelerator, usual_torch
from minidiff.inputs import Size, as_path, sides
from minidiff.listings import listed
from minidiff.networks import describe
from minidiff.pictures import ORIENTATION, formats
from minidiff.recipe import RECIPES, TrainingConfig
from minidiff.training import Trainer

SMALL = RECIPES / "small.toml"  #: what a choice begins with, whatever is called "small" here
ENOUGH = 100_000  #: pictures that a network should learn from, each time that it sees one
PASSES = 3_000  #: through the pictures, after which more would only teach them by heart
MEASURED = 2.0  #: seconds of updates for each network that is tried
# Widths of a network's levels, the fastest first, and the number of pictures that bear it.
WIDTHS = {(32, 64): 1, (64, 96): 1, (64, 96, 128): 1_000, (96, 96, 128): 5_000}
WIDTHS_ON_GPU = {**WIDTHS, (128, 192, 256): 5_000}
# Against learning by heart: what holds below a number of pictures.
CAREFUL: dict[float, dict[str, float]] = {
    2_000: {"weight_decay": 0.1, "translate": 0.07, "zoom": 0.06, "hidden_tokens": 0.15},
    10_000: {"weight_decay": 0.05, "translate": 0.035, "zoom": 0.0, "hidden_tokens": 0.15},
    math.inf: {"weight_decay": 0.01, "translate": 0.0, "zoom": 0.0, "hidden_tokens": 0.1},
}
SENTENCE = "a small red bird on a branch, from the side"  # as long as captions are


@dataclass(frozen=True)
class Fit:
    """A recipe for a data set on this machine.

    Attributes:
        config: the recipe.
        images_per_second: that it learns from here, as measured.
        minutes: that the training will take.
        why: the recipe is so, in a few sentences.
    """

    config: TrainingConfig
    images_per_second: float
    minutes: float
    why: str


def fit(dataset: PictureDataset, minutes: float = 20.0, **settings: Any) -> Fit:
    """Choose a recipe for a data set: network, batch size, steps and what is against copying.

    It begins with the recipe "small". The network is the largest, among those that so many pictures
    bear, that sees enough of them in the time; that is tried here, for some seconds. Prompts that
    are all empty make a model without text.

    Args:
        dataset: pictures with their prompts, such as an `ImageFolder`.
        minutes: that the training shall take. It may take less: many more passes through few
            pictures would only teach them by heart.
        settings: of `TrainingConfig`; these win. The network's may be some of them:
            `unet={"blocks": 2}`. With `steps` there is no limit of time, unless that is given too.

    Raises:
        TypeError, ValueError: for a data set or settings that cannot be, naming them.
    """
    if type(minutes) not in (int, float) or not 0 < minutes < math.inf:
        raise ValueError(f"minutes must be a number above 0, got {minutes!r}")
    if any(settings.get(name) for name in ("first", "autoencoder", "teacher")):
        raise ValueError(
            "a recipe is fitted to pictures alone: begin with the recipe latents128, upscale128 or "
            "glyph64-fast for latents, second stages and students"
        )
    settings = {"time_limit": None if "steps" in settings else float(minutes), **settings}
    count, configs = len(dataset.images), list(_candidates(dataset, settings))
    check_dataset(configs[0], dataset)
    limit = configs[0].time_limit
    seconds = math.inf if limit is None else 60 * limit
    needed = max(ENOUGH, 3 * count)
    while True:
        speed, weights = _measured(configs[0], dataset)
        short = needed / (speed * seconds)
        if short <= 1 or len(configs) == 1:
            break
        configs = configs[-1:] if short > 2 else configs[1:]  # the smallest: some 2.4 times as fast
    config = _paced(configs[0], count, speed, settings)
    by_steps = config.steps * config.batch_size / speed
    expected = min(seconds, by_steps)
    why = _why(config, dataset, speed, weights, expected)
    if by_steps < seconds < math.inf:
        why += " More passes would only teach them by heart: it ends before its time."
    if short > 1:
        why += " That is little: give it more time, or a faster machine."
    return Fit(config, speed, expected / 60, why)


def size_for(folder: str | os.PathLike[str], caption_column: str = "text") -> Size:
    """The size at which to learn a folder's pictures, by their own; the longer side 16 to 64.

    If all are of one such size it is that. What is much longer than wide, or wider than long, stays
    so. Files that cannot be read are passed over: `ImageFolder` tells of them.

    Raises:
        FileNotFoundError, ValueError: for a folder without pictures, or a table that is wrong.
    """
    root = as_path("folder", folder)
    _, rows = listed(root, caption_column)
    sizes = [s for row in rows[:: max(1, len(rows) // 200)] if (s := _size(root / row.file_name))]
    if not sizes:
        return 32
    height, width = sizes[0]
    if len(set(sizes)) == 1 and all(12 <= side <= 64 and side % 4 == 0 for side in sizes[0]):
        return height if height == width else (height, width)
    longer = median(max(size) for size in sizes)
    side = 64 if longer > 48 else 32 if longer > 20 else 16
    shape = median(height / width for height, width in sizes)
    alike = sum(0.9 < height / width / shape < 1.1 for height, width in sizes)
    if 0.8 < shape < 1.25 or alike < 0.9 * len(sizes):
        return side
    quarter = side // 4
    shorter = quarter * min(3, max(1, round(4 * min(shape, 1 / shape))))
    return (side, shorter) if shape > 1 else (shorter, side)


def _size(path: Path) -> tuple[int, int] | None:
    """Height and width of the picture in a file, of which only the head is read."""
    with suppress(Exception), path.open("rb") as file:  # whatever Pillow runs into
        picture = Image.open(file, formats=formats())
        width, height = picture.size
        turned = picture.format == "JPEG" and picture.getexif().get(ORIENTATION, 1) >= 5
        return (width, height) if turned else (height, width)
    return None


def as_toml(config: TrainingConfig) -> str:
    """The text of a file that `TrainingConfig.recipe` reads as this recipe.

    What is as usual is left out.
    """
    usual, name = TrainingConfig().to_dict(), describe(config.network).name
    values = config.to_dict()
    network = values.pop(name)
    lines = [
        f"{key} = {_toml(False if value is None else value)}"
        for key, value in values.items()
        if value != usual.get(key)
    ]
    table = [f"{key} = {_toml(value)}" for key, value in network.items() if value is not None]
    return "\n".join([*lines, "", f"[{name}]", *table, ""])


def _toml(value: Any) -> str:
    """A value as it stands in a TOML file; JSON writes all but some floats in the same way."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


# ----------------------------------------------------------------------------------- choosing


def _candidates(dataset: Any, settings: dict[str, Any]) -> Iterator[TrainingConfig]:
    """Recipes with networks from the largest to the fastest; one if the network is given."""
    machine = accelerator()
    count, (channels, height, width) = len(dataset.images), dataset.images.shape[1:]
    on_gpu, processes = machine.device.type != "cpu", machine.num_processes
    batch = 32 if not on_gpu else 128 if count < 5_000 else 256
    chosen: dict[str, Any] = {
        "image_size": height if height == width else (height, width),
        "batch_size": math.ceil(batch / processes) * processes,
        "name_radicals": getattr(dataset, "name_radicals", False),
        **next(careful for below, careful in CAREFUL.items() if count < below),
    }
    if not any(text.strip() for several in dataset.prompts for text in several):
        chosen["text_encoder"] = None
    chosen |= settings
    if "network" in settings:
        yield TrainingConfig.recipe(SMALL, **chosen)
        return
    given = {"in_channels": channels, **settings.get("unet", {})}
    if chosen.get("text_encoder", "") is None:
        given = {"text_dim": None, **given}
    seen = set()
    for grid in (32, 16) if on_gpu else (16,):
        for widths, least in reversed((WIDTHS_ON_GPU if on_gpu else WIDTHS).items()):
            unet = {**_shape((height, width), widths, grid), **given}
            config = TrainingConfig.recipe(SMALL, **{**chosen, "unet": unet})
            if count >= least and config not in seen:
                seen.add(config)
                yield config


def _shape(size: tuple[int, int], widths: tuple[int, ...], grid: int) -> dict[str, Any]:
    """Stem and levels for pictures of a size: about `grid` places on the shorter side."""
    for levels in range(len(widths), 0, -1):
        stems = [s for s in (1, 2, 4, 8, 16, 32) if not any(n % (s << levels - 1) for n in size)]
        if stems:
            break
    stem = min(stems, key=lambda s: abs(math.log(min(size) / s / grid)))
    attention = [level > 0 or levels == 1 for level in range(levels)]
    return {"stem": stem, "channels": widths[-levels:], "attention": attention}


def _measured(config: TrainingConfig, dataset: PictureDataset) -> tuple[float, int]:
    """Pictures a second that a recipe learns from here, and the weights of its network."""
    images = dataset.images[: config.batch_size]
    texts = [(SENTENCE if config.text_encoder else "",)] * len(images)
    # With a time limit several processes agree on the clock, and so on how often they step.
    config = dataclasses.replace(config, steps=10**6, time_limit=1.0, compile=False)
    with (
        tempfile.TemporaryDirectory(prefix="minidiff-", ignore_cleanup_errors=True) as folder,
        warnings.catch_warnings(),
        usual_torch(),
    ):
        warnings.simplefilter("ignore")  # the training itself will tell
        trainer = Trainer(
            config, SimpleNamespace(images=images, prompts=texts), Path(folder, "run")
        )
        several = 1 if trainer.device.type == "cpu" else 10
        took: list[float] = []
        while len(took) < 4 or sum(took) < MEASURED:
            started = time.monotonic()
            for _ in range(several):
                trainer.step()
            trainer.losses.tolist()  # waits for the device
            took.append(trainer._agreed(time.monotonic() - started))
    weights = sum(weight.numel() for weight in trainer.network.parameters())
    return several * config.batch_size / max(median(took[1:]), 1e-6), weights


def _paced(
    config: TrainingConfig, count: int, speed: float, settings: dict[str, Any]
) -> TrainingConfig:
    """With as many steps as the time has, and with logs and saves at even times."""
    minute, steps = 60 * speed / config.batch_size, config.steps
    if "steps" not in settings:
        most = max(4 * ENOUGH, PASSES * count) / config.batch_size
        # More than was measured, which others may have slowed: the clock ends it in any case.
        possible = math.inf if config.time_limit is None else 1.5 * minute * config.time_limit
        steps = max(1, math.ceil(min(most, possible)))
    watch = min(steps, minute + steps / 20)  # measuring and drawing take seconds, too
    pace: dict[str, Any] = {
        "steps": steps,
        "warmup": min(config.warmup, math.ceil(steps / 10)),
        "log_every": _round(minute / 10),
        "evaluate_every": _round(watch),
        "sample_every": _round(watch),
        "save_every": _round(2 * minute),
    }
    return dataclasses.replace(config, **{n: v for n, v in pace.items() if n not in settings})


def _round(number: float) -> int:
    """To one digit, at least 1."""
    digits = 10 ** max(0, math.floor(math.log10(max(number, 1))))
    return max(1, round(number / digits)) * digits


def _why(config: TrainingConfig, dataset: Any, speed: float, weights: int, seconds: float) -> str:
    count, (height, width) = len(dataset.images), sides(config.image_size)
    seen, minutes = speed * seconds, f"{seconds / 60:.2g}"
    minutes += " minute" if minutes == "1" else " minutes"
    text = "" if config.text_encoder else ", without text"
    changed = [name for name in ("translate", "zoom", "flips") if getattr(config, name)]
    more = f"are changed a little each time ({', '.join(changed)}) and " if changed else ""
    return (
        f"{count:,} pictures of {height} × {width} pixels{text}: a network of "
        f"{weights / 1e6:.1f} million weights, which learns from {speed:.0f} a second on this "
        f"machine: some {_about(seen)} in {minutes}, each "
        f"{_about(seen / count)} times. Against learning them by heart they {more}have "
        f"weight_decay = {config.weight_decay:g}."
    )


def _about(number: float) -> str:
    """Two digits of a large number, such as 210,000."""
    digits = 10 ** max(0, math.floor(math.log10(max(number, 1))) - 1)
    return f"{max(1, round(number / digits)) * digits:,}"
