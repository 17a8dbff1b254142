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
import sys
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from minidiff import hub
from minidiff.cache import cache_dir, cached
from minidiff.denoisers import NetworkDenoiser
from minidiff.inputs import is_folder, sides
from minidiff.model import ModelConfig, load_model, read_config
from minidiff.recipe import TrainingConfig
from minidiff.samplers import seeded_generator
from minidiff.shelf import MODELS, find_model
from minidiff.stages import FirstStage, halved, laid_beside
from minidiff.storage import CheckpointError, Tensors, read_info

if TYPE_CHECKING:
    from accelerate import Accelerator

REDRAWN = 0.6  # share of the small pictures that the first stage has drawn again,
SHARES = (0.1, 0.7)  # from a t / T between these,
EULER = 5  # in so many steps
CLEAN, MOST = 0.4, 0.5  # share without added noise; the others have up to that share of it
BATCH = 256  # pictures that are redrawn at a time


def with_first(config: TrainingConfig, model: ModelConfig) -> ModelConfig:
    """What a recipe's model is, its first stage included; the model itself where there is none.

    Raises:
        FileNotFoundError: if the first stage is not here.
        CheckpointError: if it is damaged or no model.
        ValueError: if it draws pictures of another size or kind.
    """
    if config.first is None:
        return model
    name = config.first
    if hub.is_name(name) and not is_folder(name):
        raise ValueError(f"first is {name!r}: give a model that ships, or the folder of one")
    folder = find_model(name)
    info = read_info(folder)
    first = read_config(folder, info)
    if first.first_stage is not None:
        raise ValueError(
            f"first is {name!r}, which is a second stage itself: give a model that draws alone"
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
    folder = find_model(config.first)
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
        folder = find_model(config.first)
        self.space = read_config(folder, read_info(folder)).space
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
            first = Redrawing(self.config, self.accelerator, texts)
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
            first = Redrawing(self.config, self.accelerator, self.texts)
            images, share = first(self.small, seeded_generator(seed, "redrawn", number))
            return {"images": images, "share": share}

        return cached(
            f"redrawn-{digest.hexdigest()[:24]}",
            make,
            lambda found: (
                found.keys() == {"images", "share"} and found["images"].shape == self.small.shape
            ),
        )


class Redrawing:
    """The first stage, as it draws pictures again that have been noised.

    Args:
        texts: N of them, which it reads where it can.

    Raises:
        CheckpointError: if its text encoder is another one than it was trained with.
    """

    def __init__(
        self, config: TrainingConfig, accelerator: Accelerator, texts: Sequence[str]
    ) -> None:
        assert config.first is not None
        self.accelerator, self.device = accelerator, accelerator.device
        network, self.model, _ = load_model(find_model(config.first))
        self.network, self.schedule = network.to(self.device), self.model.make_schedule()
        self.table = None
        if self.model.text_encoder is not None:
            from minidiff.text import TextEncoder
            from minidiff.texts import encode_texts

            encoder = TextEncoder(self.model.text_encoder, self.model.max_tokens, self.device)
            if encoder.fingerprint != self.model.text_fingerprint:
                raise CheckpointError(
                    f"the first stage {config.first!r} was trained with another text encoder "
                    f"({self.model.text_encoder}, {self.model.text_fingerprint}): use that one"
                )
            self.table = encode_texts(texts, encoder, cache_dir()).to(self.device)
            self.rows = self.table.rows(texts)

    @torch.no_grad()
    def __call__(
        self, small: Tensor, draw: torch.Generator, quiet: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Noise pictures up to a t of their own and draw them to an end from there.

        Args:
            small: (N, C, H, W) uint8.
            draw: a generator of the CPU.

        Returns:
            the same, drawn again, and the t / T (N,) from which; both on the CPU.
        """
        low, high = SHARES
        share = low + (high - low) * torch.rand(len(small), generator=draw)
        made, last = [], self.schedule.num_train_timesteps
        bar = tqdm(
            total=len(small),
            desc="First stage, drawing again",
            unit=" images",
            disable=quiet or not self.accelerator.is_main_process,
            mininterval=0.5 if sys.stderr.isatty() else 30,
            leave=False,
        )
        with bar:
            for rows in torch.arange(len(small)).split(BATCH):
                x = self.model.space.to_data(small[rows.to(small.device)])
                eps = torch.randn(x.shape, generator=draw).to(x)
                grid = [(share[rows] * last * k / EULER).round() for k in range(EULER, 0, -1)]
                times = [t.long().clamp(1, last).to(x.device) for t in grid]
                denoiser = self._denoiser(rows)
                x = self.schedule.add_noise(x, eps, times[0])
                for t, s in pairwise([*times, torch.zeros_like(times[0])]):
                    with self.accelerator.autocast():
                        now = denoiser(x, t)
                    x = self.schedule.add_noise(now.x0.float(), now.eps.float(), s)
                images = self.model.space.to_images(x)
                made.append(((images + 1) * 127.5).round().to("cpu", torch.uint8))
                bar.update(len(rows))
        return torch.cat(made), share

    def _denoiser(self, rows: Tensor) -> NetworkDenoiser:
        text: dict[str, Tensor] = {}
        if self.table is not None:
            length = None if self.device.type == "cpu" else self.model.max_tokens
            read = self.table.batch(self.rows[rows], length)
            text = {"tokens": read.tokens, "mask": read.mask}
        kind, clip = self.model.prediction_type, self.model.space.data_range
        return NetworkDenoiser(self.network, self.schedule, kind, clip, **text)
