"""The parts of `minidiff train`: which recipe, which pictures, and what is drawn on the way."""

from __future__ import annotations

import dataclasses
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from minidiff import plots, shell
from minidiff.cascade import stages
from minidiff.datasets import ImageFolder
from minidiff.fitting import SMALL, as_toml, fit, size_for
from minidiff.glyphs import GlyphDataset
from minidiff.inputs import on_network, warn
from minidiff.latents import channels_of
from minidiff.model import read_config
from minidiff.networks import NETWORKS, describe
from minidiff.pipeline import Pipeline
from minidiff.recipe import TrainingConfig, recipe_values
from minidiff.reconstruction import sheet
from minidiff.run_folder import check_new, newest_info
from minidiff.second_stage import reads_text
from minidiff.spaces import SPACES
from minidiff.splitting import split
from minidiff.storage import read_info

if TYPE_CHECKING:
    from torch import Tensor

    from minidiff.batches import PictureDataset
    from minidiff.training import Trainer

SAMPLE_PROMPTS = ("gold", "water", "tree", "bird", "fire", "hand", "a kind of fish", "to speak")


def pictures_of(
    config: TrainingConfig, data: Path | None, **reading: Any
) -> tuple[TrainingConfig, PictureDataset, PictureDataset | None, Sequence[str]]:
    """What is learnt from, what is held out, and prompts for the sample sheets.

    Args:
        reading: arguments of `ImageFolder`, see `how_to_read`, and the share that is held out.

    Returns:
        The recipe as well, with as many channels as the pictures have where none were asked for.
    """
    dataset: PictureDataset
    held_out: PictureDataset | None = None
    prompts: Sequence[str] = SAMPLE_PROMPTS
    if data is not None:
        channels = reading.get("channels")
        if channels not in (None, 1, 3):
            raise ValueError(
                f"in_channels is {channels}, but a folder's pictures are grey or in colour: set "
                f"in_channels = 1 or 3 under [{describe(config.network).name}], or leave it out"
            )
        share = reading.pop("held_out", None)
        dataset = ImageFolder(data, config.image_size, **reading)
        if channels is None:
            network = dataclasses.replace(config.network, in_channels=dataset.channels)
            config = dataclasses.replace(config, network=network)
        if share is not None:
            dataset, held_out = split(dataset, share)
        texts = dict.fromkeys(shell.cleaned(several[0]) for several in dataset.prompts)
        prompts = [text for text in texts if text][: len(prompts)]
    elif isinstance(size := config.image_size, int):
        dataset = GlyphDataset(size, "train", config.name_radicals)
        held_out = GlyphDataset(size, "test")
    else:
        raise ValueError(
            f"image_size is {list(size)}, but glyphs are square: set one number, or give pictures "
            "of your own with --data"
        )
    return config, dataset, held_out, (prompts if reads_text(config) and prompts else [""])


def how_to_read(
    config: TrainingConfig, recipe: str | None, running: Path | None, source: Path | None
) -> dict[str, Any]:
    """Arguments of `ImageFolder` for the pictures of a run: how it began, as the recipe says.

    Args:
        config, recipe, running, source: what `config_of` gave, and what it was given.
    """
    known = {} if running is None else newest_info(running)[1].get("data", {})
    channels = SPACES[config.space].channels if config.autoencoder is None else channels_of(config)
    if channels is None and _told_channels(config, recipe, running or source):
        channels = describe(config.network).in_channels
    apart = {"held_out": known["held_out"]} if "held_out" in known else {}
    return {"channels": channels, **known.get("options", {}), **apart}


def _told_channels(config: TrainingConfig, recipe: str | None, before: Path | None) -> bool:
    """Whether it is settled: by the network, by the recipe, or by what there is to go on from."""
    if not hasattr(config.network, "in_channels") or (recipe is None and before is not None):
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a namesake: it was said once
        table = recipe_values(recipe or "glyph64").get(describe(config.network).name, {})
    return "in_channels" in table


def remembered(output: Path) -> Path | None:
    """The folder of own pictures that a run began with; None for the glyphs."""
    known = newest_info(output)[1].get("data", {})  # earlier releases did not remember it
    if known.get("kind") == "other":
        raise ValueError(
            f"the pictures of {output} came from a program, not from a folder: go on with that "
            "program, or give --data"
        )
    folder = None if known.get("path") is None else Path(known["path"])
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(
            f"the pictures of {output} were in {folder}, which is not there any more: give the "
            "folder that they are in now with --data"
        )
    return folder


def config_of(
    recipe: str | None, running: Path | None, overrides: dict[str, Any], source: Path | None = None
) -> TrainingConfig:
    """The settings: of the recipe, else of the run or the model to go on from, else of glyph64."""
    known: dict[str, Any] | None = None
    if running is not None:
        known = newest_info(running)[1]["training"]
    elif source is not None:
        info = read_info(source)
        read_config(source, info)  # of a network that is known
        known = {**info.get("record", {}).get("recipe", {}), **info["model"]}
        # How long that run was allowed to take and what it wrote when say nothing of the model.
        names = {*NETWORKS, *(f.name for f in dataclasses.fields(TrainingConfig))}
        names -= {"time_limit", "compile", "shift"}
        known = {n: v for n, v in known.items() if n in names and not n.endswith("_every")}
        if "latents" in info["model"]:
            known["autoencoder"] = str(source)  # which has a copy of it
        for name in ("first", "teacher"):
            if on_network(str(known.get(name) or "")):
                raise ValueError(
                    f"{source} names {name} = {known[name]!r}, on a network: give a recipe"
                )
    given = {name: value for name, value in overrides.items() if value is not None}
    if recipe is None and known is not None:
        return TrainingConfig.from_dict({**known, **given})
    return TrainingConfig.recipe(recipe or "glyph64", **given)


def begin_fitting(
    data: Path, output: Path, caption_column: str | None, overrides: dict[str, Any]
) -> str:
    """The recipe to begin with where none is given; its size is added to the overrides.

    Raises:
        FileExistsError: if there is a run already, which is better found out before.
    """
    check_new(output)
    if overrides["image_size"] is None:
        overrides["image_size"] = size_for(data, caption_column or "text")
    return str(SMALL)


def fitted(dataset: PictureDataset, overrides: dict[str, Any]) -> TrainingConfig:
    """A recipe that fits, but for what was given. It is shown, with the reasons."""
    from accelerate import PartialState

    found = fit(dataset, **{n: value for n, value in overrides.items() if value is not None})
    if PartialState().is_main_process:
        kept = "The recipe, which in a .toml file --recipe takes:"
        typer.echo(f"minidiff: {found.why} {kept}\n\n{as_toml(found.config)}", err=True)
    return found.config


class SampleGrids:
    """What the averaged weights draw now, a row a prompt: <run>/samples/step-….png.

    One that fails does not end the training; the first is told of.
    """

    def __init__(self, prompts: Sequence[str] = SAMPLE_PROMPTS) -> None:
        self.prompts = prompts
        self.pipeline: Pipeline | None = None  # kept: its text encoder takes seconds to load
        self.failed = False

    def __call__(self, trainer: Trainer) -> None:
        try:
            self.draw(trainer)
        except Exception as error:  # hours of training are worth more than a picture of them
            if not self.failed:
                self.failed = True
                if not shell.is_users(error):
                    traceback.print_exception(error)
                warn(f"a sample sheet failed, training goes on: {type(error).__name__}: {error}")

    def draw(self, trainer: Trainer) -> None:
        if not describe(trainer.config.network).denoises:  # an autoencoder: pictures and copies
            images = sheet(trainer.averaged, (trainer.held_out or trainer.batches).images)
            self._save(trainer, images, ("pictures", "copies") * 2)
            return
        if self.pipeline is None:
            network, config, record, second = stages(
                trainer.averaged, trainer.model_config, trainer.record()
            )
            self.pipeline = Pipeline(network, config, record, trainer.device, second)
        self._save(trainer, self.pipeline(self.prompts, num_images_per_prompt=8), self.prompts)

    def what_next(self, trainer: Trainer) -> str:
        """What the finished model is for, as a command."""
        folder = shell.as_path(trainer.folder)
        if not describe(trainer.config.network).denoises:
            return f'for training in its latents: a recipe as latents128, autoencoder = "{folder}"'
        prompt = self.prompts[0] if reads_text(trainer.config) else None
        return f"draw with: {shell.example(prompt, trainer.folder)}"

    def _save(self, trainer: Trainer, images: Tensor, labels: Sequence[str]) -> None:
        folder = trainer.folder / "samples"
        folder.mkdir(exist_ok=True)
        rows = plots.grid(images, columns=8, labels=labels)
        plots.save_picture(folder / f"step-{trainer.step_count:08d}.png", rows)
