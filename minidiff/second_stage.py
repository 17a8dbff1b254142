"""What the second stage of a cascade learns from: large pictures, and small ones as they come.

The small picture is the large one at half its size. In most batches' places it is one that the
first stage has drawn again: noised up to a share of the way and denoised in a few steps without
guidance. What it gets wrong so is what the second stage learns to mend. Some noise is mixed into
part of the small pictures, too. How much there is of either stands beside them.

All randomness comes from (seed, words, step), as in `minidiff.batches`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minidiff.cache import cached
from minidiff.inputs import is_file, sides
from minidiff.model import ModelConfig, read_config
from minidiff.networks import describe
from minidiff.recipe import RECIPES, TrainingConfig
from minidiff.redrawing import EULER, SHARES, Redrawing
from minidiff.samplers import seeded_generator
from minidiff.stages import FirstStage, halved, laid_beside
from minidiff.storage import Tensors, read_info

if TYPE_CHECKING:
    from accelerate import Accelerator

# As in `minidiff.shelf`, which is not asked: a copy of the training would bring all models along.
MODELS = RECIPES.with_name("models")
REDRAWN = 0.6  # share of the small pictures that the first stage has drawn again
CLEAN, MOST = 0.4, 0.5  # share without added noise; the others have up to that share of it


def folder_of(name: str, what: str = "first") -> Path:
    """The folder of a model by a name that ships, or by its folder or that of its run.

    Raises:
        FileNotFoundError: if there is none.
    """
    for place in (MODELS / name, Path(name), Path(name) / "model"):
        if is_file(place / "config.json"):
            return place
    shipped = ", ".join(sorted(path.parent.name for path in MODELS.glob("*/config.json")))
    raise FileNotFoundError(
        f"{what} is {name!r}, but there is no such model: give one that ships ({shipped}), or the "
        "folder of one"
    )


def with_first(config: TrainingConfig, model: ModelConfig) -> ModelConfig:
    """What a recipe's model is, its first stage included; the model itself where there is none.

    Raises:
        FileNotFoundError: if the first stage is not here.
        CheckpointError: if it is damaged or no model.
        ValueError: if it draws pictures of another size or kind.
    """
    if config.first is None:
        return model
    name, folder = config.first, folder_of(config.first)
    info = read_info(folder)
    first = read_config(folder, info)
    if first.first_stage is not None:
        raise ValueError(
            f"first is {name!r}, which is a second stage itself: give a model that draws alone"
        )
    if first.student is not None or not describe(first.network).denoises:
        raise ValueError(
            f"first is {name!r}, which is a student or an autoencoder: give a model that was "
            "trained on the pictures themselves"
        )
    if first.space.factor != 1:
        raise ValueError(f"first is {name!r}, which does not draw in pixels: give one that does")
    wanted = tuple(2 * side for side in sides(first.image_size))
    if sides(config.image_size) != wanted:
        raise ValueError(
            f"image_size is {config.image_size}, but the first stage {name!r} draws "
            f"{first.image_size}: set image_size to {' × '.join(map(str, wanted))}, twice that, or "
            "give another first stage"
        )
    if first.shape[0] != model.shape[0]:
        raise ValueError(
            f"the first stage {name!r} draws in {first.shape[0]} channels, this recipe's network "
            f"in {model.shape[0]}: give another first stage"
        )
    if folder.parent != MODELS:
        name = str(folder.absolute())
    weights = info["files"]["model.safetensors"]
    # An even grid: what is decided at the noisy end is decided already, by the small picture.
    return dataclasses.replace(model, first_stage=FirstStage(name, weights), shift=1.0)


def reads_text(config: TrainingConfig) -> bool:
    """Whether a model of this recipe can be told what to draw, be it by its first stage."""
    if config.first is None:
        return config.text_encoder is not None
    folder = folder_of(config.first)
    return read_config(folder, read_info(folder)).text_encoder is not None


class Beside:
    """The pictures that lie beside x_t; called with the number of a step.

    Args:
        config: a recipe with a `first`.
        model: of the second stage, from `with_first`.
        dataset: large pictures, and their prompts, which the first stage may read.
        accelerator: which device, and which of how many processes this one is.

    Attributes:
        small: (N, C, H, W) uint8, the pictures at half their size.
    """

    def __init__(
        self, config: TrainingConfig, model: ModelConfig, dataset: Any, accelerator: Accelerator
    ) -> None:
        assert config.first is not None and model.first_stage is not None
        self.config, self.weights, self.accelerator = config, model.first_stage.weights, accelerator
        self.device = accelerator.device
        self.folder = folder_of(config.first)
        self.space = read_config(self.folder, read_info(self.folder)).space
        self.small = halved(dataset.images).to(self.device)
        prompts = getattr(dataset, "prompts", None) or [("",)] * len(self.small)
        self.texts = [several[0] for several in prompts]
        self._held_out: tuple[Tensor, Tensor] | None = None

    @cached_property
    def redrawn(self) -> tuple[Tensor, Tensor]:
        """All pictures as the first stage draws them again, and the t / T from which.

        (variants, N, C, H, W) uint8 and (variants, N); from the cache, if they are there. They take
        seconds on a GPU and some six minutes on two cores for each of `config.variants`.

        Raises:
            CheckpointError: if its text encoder is another one than it was trained with.
        """
        with self.accelerator.main_process_first():  # one process fills the cache
            found = [self._variant(v) for v in range(self.config.variants)]
        images, share = (
            torch.stack([each[name] for each in found]) for name in ("images", "share")
        )
        return images.to(self.device), share.to(self.device)

    def __call__(self, step: int, index: Tensor, mine: slice) -> Tensor:
        """(b, C + 2, 2 H, 2 W): what lies beside this process's share of the batch of a step.

        Args:
            index: (b,) its pictures.
            mine: which rows of the whole batch they are.
        """
        seed, size = self.config.seed, self.config.batch_size
        u = torch.rand(4, size, generator=seeded_generator(seed, "beside", step))[:, mine]
        noise = torch.where(u[2] < CLEAN, 0.0, MOST * u[3])
        source = seeded_generator(seed, "noise beside", step, device=self.device)
        shape = size, *self.small.shape[1:]
        eps = torch.randn(shape, generator=source, device=self.device)[mine]
        again, share = self.redrawn
        redrawn, variant = u[0] < REDRAWN, (u[1] * len(again)).long()
        index, redrawn, variant, noise = (
            x.to(self.device, non_blocking=self.device.type == "cuda")
            for x in (index, redrawn, variant, noise)
        )
        picture = torch.where(
            redrawn[:, None, None, None], again[variant, index], self.small[index]
        )
        told = torch.where(redrawn, share[variant, index], 0.0)
        part = noise[:, None, None, None]
        return laid_beside((1 - part) * self.space.to_data(picture) + part * eps, noise, told)

    def held_out(self, index: Tensor) -> Tensor:
        """The same for pictures (b,) that are held out: every other one drawn again, none noised.

        It is the same for every seed.
        """
        if self._held_out is None or not torch.equal(index, self._held_out[0]):
            texts = [self.texts[i] for i in index.tolist()]
            draw = seeded_generator(0, "redrawn", "held out")
            first = Redrawing(self.folder, self.accelerator, texts)
            again, share = first(self.small[index.to(self.device)], draw, quiet=True)
            even = torch.arange(len(index), device=self.device) % 2 == 0
            share = share.to(self.device).masked_fill(even, 0)
            picture = torch.where(
                even[:, None, None, None], self.small[index.to(self.device)], again.to(self.device)
            )
            beside = laid_beside(self.space.to_data(picture), torch.zeros_like(share), share)
            self._held_out = index, beside
        return self._held_out[1]

    def _variant(self, number: int) -> Tensors:
        """{"images": (N, C, H, W) uint8, "share": (N,)}: all pictures, drawn again once."""
        seed = self.config.seed
        told = [self.weights, seed, number, SHARES, EULER, *self.small.shape, self.texts]
        digest = hashlib.sha256(json.dumps(told).encode("utf-8"))
        digest.update(self.small.cpu().contiguous().numpy().data)

        def make() -> Tensors:
            first = Redrawing(self.folder, self.accelerator, self.texts)
            images, share = first(self.small, seeded_generator(seed, "redrawn", number))
            return {"images": images, "share": share}

        return cached(
            f"redrawn-{digest.hexdigest()[:24]}",
            make,
            lambda found: (
                found.keys() == {"images", "share"} and found["images"].shape == self.small.shape
            ),
        )
