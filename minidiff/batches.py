"""Batches: which pictures, noise, timesteps and texts an update of the weights learns from.

All randomness comes from (seed, step, place in the batch), so a run that was interrupted goes on
with the batches it would have seen, and several processes together see the batch one would see.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from minidiff.augmentation import Augmentation, wanted
from minidiff.cache import cache_dir
from minidiff.glyphs import GlyphDataset
from minidiff.inputs import sides
from minidiff.latents import channels_of, latents_of
from minidiff.model import ModelConfig
from minidiff.networks import describe
from minidiff.recipe import TrainingConfig
from minidiff.samplers import seeded_generator
from minidiff.second_stage import Beside
from minidiff.splitting import Part

if TYPE_CHECKING:
    from accelerate import Accelerator

    from minidiff.texts import EncodedTexts


class PictureDataset(Protocol):
    """What the trainer needs of a data set (`GlyphDataset`, `ImageFolder`, `Wrapped` have it).

    Attributes:
        images: (N, C, H, W) uint8, 255 = white.
        prompts: for each picture the texts that may stand for it, the whole text first.
    """

    images: Tensor
    prompts: list[tuple[str, ...]]


@dataclass(frozen=True)
class Batch:
    """What one process learns from in one step."""

    x0: Tensor  #: (b, C, H, W) the data
    eps: Tensor  #: noise like it
    t: Tensor  #: (b,) timesteps in 1 … T
    condition: dict[str, Any]  #: arguments of the network: tokens and mask, a picture, or none
    draw: Tensor | None = None  #: (2, b) uniform, for a student: see `minidiff.distillation`


class Batches:
    """The batch of any step; called with its number.

    Args:
        config: the recipe.
        dataset: pictures and prompts.
        model: its space leads from pictures to x_0.
        texts: the table of all prompts, or None for a network without text.
        accelerator: which device, and which of how many processes this one is.
    """

    def __init__(
        self,
        config: TrainingConfig,
        dataset: PictureDataset,
        model: ModelConfig,
        texts: EncodedTexts | None,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.space, self.texts = config, model.space, texts
        self.last = model.num_train_timesteps
        self.device = accelerator.device
        self.images = dataset.images.to(self.device)
        self.augment = Augmentation(config, dataset.images) if wanted(config) else None
        each = config.batch_size // accelerator.num_processes
        first = each * accelerator.process_index
        self.mine = slice(first, first + each)  # of the rows of a batch
        second = config.first is not None
        self.beside = Beside(config, model, dataset, accelerator) if second else None
        # Tokens that a prompt is padded to; None: as many as the longest of the batch has. A fixed
        # length for compiled code; on a GPU, where finding the longest means waiting; and for
        # several processes, which expect a gradient of every weight, be all their texts empty.
        several = accelerator.num_processes > 1
        fixed = config.compile or self.device.type != "cpu" or several
        self.text_length = config.max_tokens if fixed else None
        if texts is not None:  # of each picture the rows of its prompts, and how many they are
            rows = [texts.rows(several) for several in dataset.prompts]
            self.counts = torch.tensor([len(several) for several in rows])
            self.rows = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)

    def __call__(self, step: int) -> Batch:
        """This process's share of the batch of a step."""
        config, size, mine = self.config, self.config.batch_size, self.mine
        draw = seeded_generator(config.seed, "choices", step)
        t = sample_timesteps(config, size, self.last, draw)[mine]
        index = self.order(step)[mine]
        choice = torch.rand(3, size, generator=draw)[:, mine]
        hide = torch.rand(size, config.max_tokens, generator=draw)[mine] < config.hidden_tokens
        x0 = self._x0(self._send(index), step)
        noise = seeded_generator(config.seed, "noise", step, device=self.device)
        eps = torch.randn(size, *x0.shape[1:], generator=noise, device=self.device)[mine]
        lesson = None
        if config.teacher is not None:
            draw = seeded_generator(config.seed, "lesson", step)
            lesson = self._send(torch.rand(2, size, generator=draw)[:, mine])
        condition = self._prompts(index, choice, hide)
        if self.beside is not None:
            condition["picture"] = self.beside(step, index, mine)
        return Batch(x0, eps, self._send(t), condition, lesson)

    @cached_property
    def _latents(self) -> Tensor | None:
        return latents_of(self.space, self.images)

    def _x0(self, index: Tensor, step: int) -> Tensor:
        if self._latents is not None:
            return self._latents[index].float()
        images = self.images[index]
        return self.space.to_data(self.augment(images, step, self.mine) if self.augment else images)

    def order(self, step: int) -> Tensor:
        """(batch,) pictures of a step: every epoch goes through all in an order of its own."""
        size, total = self.config.batch_size, len(self.images)
        position = torch.arange(step * size, (step + 1) * size)
        index = torch.empty_like(position)
        for epoch in range(step * size // total, ((step + 1) * size - 1) // total + 1):
            draw = seeded_generator(self.config.seed, "order", epoch)
            order = torch.randperm(total, generator=draw)
            here = position // total == epoch
            index[here] = order[position[here] % total]
        return index

    def _prompts(self, index: Tensor, choice: Tensor, hide: Tensor) -> dict[str, Any]:
        """A prompt for each of the pictures `index` (b,).

        `choice` (3, b), uniform, picks prompts; `hide` (b, max_tokens) masks tokens.
        """
        if self.texts is None:
            return {}
        rows, count = self.rows[index], self.counts[index]
        sense = 1 + (choice[1] * (count - 1)).long()
        sense = sense.where((choice[0] < self.config.senses) & (count > 1), 0)
        row = rows.gather(1, sense[:, None])[:, 0]
        row = row.where(choice[2] >= self.config.no_text, -1)  # −1: the empty prompt
        read = self.read(row)
        return {**read, "mask": read["mask"] & ~self._send(hide[:, : read["mask"].shape[1]])}

    def read(self, row: Tensor) -> dict[str, Any]:
        """Tokens and mask of rows (b,) of the table; nothing without text."""
        if self.texts is None:
            return {}
        text = self.texts.batch(self._send(row), length=self.text_length)
        return {"tokens": text.tokens, "mask": text.mask}

    def whole(self, index: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Pictures by their places (b,), uint8, and the condition that their whole texts make."""
        condition = {} if self.texts is None else self.read(self.rows[index, 0])
        if self.beside is not None:
            condition["picture"] = self.beside.held_out(index)
        return self.images[index.to(self.device)], condition

    def _send(self, x: Tensor) -> Tensor:
        """To the device; on a GPU without waiting until it has done all that was asked before."""
        return x.to(self.device, non_blocking=self.device.type == "cuda")


def sample_timesteps(
    config: TrainingConfig, batch: int, last: int, generator: torch.Generator
) -> Tensor:
    """(batch,) timesteps in 1 … last, one from each of `batch` equal slices of the distribution.

    The distribution is that of `TrainingConfig`: logit-normal (Esser et al. 2024, section 3.1).
    """
    slices = torch.randperm(batch, generator=generator).double()
    u = (slices + torch.rand(batch, generator=generator, dtype=torch.float64)) / batch
    normal = torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9))
    share = torch.sigmoid(config.timestep_mean + config.timestep_std * normal)
    return (share * last).ceil().long().clamp(1, last)


def encode_prompts(
    config: TrainingConfig, accelerator: Accelerator, *datasets: PictureDataset
) -> tuple[EncodedTexts | None, str | None, list[str]]:
    """The text of all prompts as one table on the device, and the encoder's fingerprint.

    Also the words of the first data set that the encoder does not know, unless it is the glyphs.

    Raises:
        ValueError: for an encoder that the network cannot read.
    """
    if config.text_encoder is None:
        return None, None, []
    from minidiff.text import TextEncoder
    from minidiff.texts import different_texts, encode_texts, warn_of_alike

    encoder = TextEncoder(config.text_encoder, config.max_tokens, accelerator.device)
    network, words = describe(config.network), list[str]()
    if encoder.dim != network.text_dim:
        raise ValueError(
            f"the text encoder {config.text_encoder!r} gives vectors of width {encoder.dim}, "
            f"but {network.name}.text_dim is {network.text_dim}: set it to {encoder.dim}"
        )
    if not isinstance(datasets[0], GlyphDataset):
        ours = different_texts(datasets[0].prompts)
        words = encoder.unknown_words(ours)
        if accelerator.is_main_process:
            warn_of_alike(ours, encoder)
    texts = different_texts(*(dataset.prompts for dataset in datasets))
    with accelerator.main_process_first():  # one process fills the cache
        table = encode_texts(texts, encoder, cache_dir())
    return table.to(accelerator.device), encoder.fingerprint, words


def data_of(dataset: Any, with_text: bool) -> dict[str, Any]:
    """Where pictures come from, and what tells them from others: for the record of a run.

    Returns:
        {"kind": "glyphs", "folder" or "other", "path": absolute or None, "fingerprint": 16 hex
        digits over the pictures and, if there is text, the prompts; and "options", with which a
        folder is read, if they are other than usual; of a part of `minidiff.splitting.split` all
        this is of the whole, and "held_out" the share}.
    """
    also: dict[str, Any] = {}
    if isinstance(dataset, Part):
        dataset, also = dataset.whole, {"held_out": dataset.share}
    images, folder = dataset.images, getattr(dataset, "folder", None)
    told = [*images.shape, dataset.prompts if with_text else None]
    digest = hashlib.sha256(json.dumps(told).encode("utf-8"))
    digest.update(images.cpu().contiguous().numpy())
    path = str(Path(folder).absolute()) if isinstance(folder, str | os.PathLike) else None
    kind = "glyphs" if isinstance(dataset, GlyphDataset) else "folder" if path else "other"
    options = getattr(dataset, "options", None) if kind == "folder" else None
    also |= {"options": options} if options else {}
    return {"kind": kind, "path": path, "fingerprint": digest.hexdigest()[:16], **also}


def check_dataset(config: TrainingConfig, dataset: Any) -> None:
    """See that a data set has what the recipe wants.

    Raises:
        TypeError: for a data set without pictures or prompts.
        ValueError: for pictures of another size or kind, or prompts that do not fit them.
    """
    images, size = getattr(dataset, "images", None), sides(config.image_size)
    if not isinstance(images, Tensor):
        raise TypeError(
            "the data set must have .images, a uint8 tensor (N, C, H, W), and .prompts, as "
            f"minidiff.datasets.ImageFolder has, got a {type(dataset).__name__} without"
        )
    network = describe(config.network)
    shape = tuple(images.shape[1:])
    channels = channels_of(config)
    if shape[1:] != size:
        raise ValueError(
            f"the recipe wants pictures of {size[0]} × {size[1]} pixels (height × width), those of "
            f"the data set have the shape {shape}: set image_size, or load them at that size"
        )
    if images.dtype != torch.uint8 or len(images) == 0:
        raise ValueError(
            f"the data set must hold at least one picture as uint8 (255 = white), "
            f"got {len(images)} as {images.dtype}"
        )
    if shape[0] != channels:
        raise ValueError(
            f"the recipe wants pictures with in_channels = {channels}, those of the data set "
            f"have {shape[0]}: set in_channels = {shape[0]} under [{network.name}]"
        )
    if config.text_encoder is not None:
        _check_prompts(getattr(dataset, "prompts", None), len(images))


def check_names(config: TrainingConfig, dataset: Any) -> None:
    """See that what is learnt from names the glyphs' radicals if the recipe says so, and only then.

    Raises:
        ValueError: if not.
    """
    named = getattr(dataset, "name_radicals", config.name_radicals)  # other pictures have none
    if config.text_encoder is not None and named != config.name_radicals:
        raise ValueError(
            f"the recipe has name_radicals = {config.name_radicals}, the data set {named}: make it "
            f"with GlyphDataset(…, name_radicals={config.name_radicals})"
        )


def _check_prompts(prompts: Any, pictures: int) -> None:
    if not isinstance(prompts, Sequence):
        raise TypeError(
            "the data set must have .prompts, a list with a tuple of texts for each picture, "
            f"got {type(prompts).__name__}"
        )
    if len(prompts) != pictures:
        raise ValueError(f"the data set has {pictures} pictures but prompts for {len(prompts)}")
    for i, texts in enumerate(prompts):
        several = isinstance(texts, tuple | list) and len(texts) > 0
        if not several or not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f'prompts[{i}] must be a tuple of texts, such as ("gold",), got {texts!r}'
            )
