"""What was held out from training: the loss on it, and a choice of the glyphs to judge by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from minidiff.denoisers import NetworkDenoiser
from minidiff.glyphs import Glyph, GlyphDataset, render, to_float
from minidiff.inputs import plain_torch
from minidiff.model import ModelConfig
from minidiff.networks import describe
from minidiff.samplers import seeded_generator
from minidiff.schedules import whole_number

HELD_OUT = 512  #: pictures that the loss is the mean of, or all if there are fewer


def chosen(total: int) -> Tensor:
    """Rows of the held-out pictures that the loss is taken of, (`HELD_OUT`,) or fewer of fewer.

    Evenly spread over all of them: in order of code points the first glyphs are all rare ones.
    """
    return torch.linspace(0, total - 1, min(HELD_OUT, total)).long()


@plain_torch()
@torch.inference_mode()
def loss_by_timestep(
    network: nn.Module, config: ModelConfig, images: Tensor, *, bins: int = 8, **condition: Any
) -> dict[str, float]:
    """The training loss at timesteps t = T/16, 3T/16, …, with the same noise every time.

    On pictures that were held out this is the number to watch: where it rises while the training
    loss falls, the network has begun to memorise.

    Args:
        images: (B, C, H, W) in [-1, 1] or uint8.
        bins: how many timesteps, each the middle of an equal part of 1 … T; fewer than T.
        condition: keyword arguments of the network: tokens (B, n, d) and mask (B, n), or none.

    Returns:
        {"62": loss at t = 62, …, "mean": mean over all t}; of an autoencoder the mean alone.

    Raises:
        ValueError: for another number of bins.
    """
    if not 1 <= whole_number("bins", bins) < config.num_train_timesteps:
        raise ValueError(
            f"bins must be at least 1 and below the {config.num_train_timesteps} timesteps of the "
            f"model, got {bins}"
        )
    x0 = config.space.to_data(images)
    if not describe(config.network).denoises:
        return reconstruction_loss(network, x0)
    eps = torch.randn(x0.shape, generator=seeded_generator(0, "loss")).to(x0.device)
    schedule = config.make_schedule()
    denoiser = NetworkDenoiser(network, schedule, config.prediction_type, **condition)
    # Larger pictures in several parts, for memory's sake.
    parts = torch.arange(len(x0)).split(max(1, HELD_OUT * 4096 // x0[0, 0].numel()))
    result, mode = {}, network.training
    network.eval()
    try:
        for k in range(bins):
            t = round(schedule.num_train_timesteps * (2 * k + 1) / (2 * bins))
            times = torch.full((len(x0),), t, device=x0.device)
            losses = []
            for part in parts:
                told = {n: v if len(v) == 1 else v[part] for n, v in condition.items()}
                losses.append(denoiser.given(**told).loss(x0[part], times[part], eps[part]))
            result[str(t)] = round(torch.cat(losses).mean().item(), 5)
    finally:
        network.train(mode)
    return {**result, "mean": round(sum(result.values()) / bins, 5)}


def reconstruction_loss(network: nn.Module, images: Tensor) -> dict[str, float]:
    """{"mean": loss of an autoencoder on pictures (B, C, H, W) in [-1, 1], without noise}."""
    mode = network.training
    network.eval()
    try:
        losses = [network(part, torch.zeros_like(part)) for part in images.split(64)]
    finally:
        network.train(mode)
    return {"mean": round(torch.cat(losses).mean().item(), 5)}


class HeldOut:
    """A fixed choice of held-out characters, their texts and pictures.

    Args:
        count: how many, 1 to 1034.

    Raises:
        ValueError: for another count.

    Attributes:
        rows: (count,) their places in the test split.
        glyphs: `minidiff.glyphs.Glyph` of each.
        texts: their definitions.
        images: (count, 1, 64, 64) in [-1, 1].
    """

    @plain_torch()
    def __init__(self, count: int) -> None:
        dataset = GlyphDataset(64, "test")
        if not 1 <= whole_number("count", count) <= len(dataset):
            raise ValueError(f"count must be from 1 to {len(dataset)}, got {count}")
        # A random choice, always the same: in order of code points the first are all rare ones.
        choice = seeded_generator(0, "held out")
        order = torch.randperm(len(dataset), generator=choice)
        self.rows = order[:count]
        self.glyphs: list[Glyph] = [dataset.glyphs[i] for i in self.rows.tolist()]
        self.texts = [glyph.definition for glyph in self.glyphs]
        self.images = to_float(dataset.images[self.rows])

    def in_font(self, font: Any) -> Tensor:
        """(count, 1, 64, 64) in [-1, 1], drawn with the font of this file."""
        return to_float(render([g.char for g in self.glyphs], 64, font)).unsqueeze(1)
