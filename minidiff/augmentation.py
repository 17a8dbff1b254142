"""Augmentation: a picture moved, enlarged or mirrored a little is another picture of the same.

For few pictures, which a network would otherwise learn by heart. Randomness comes from (seed, step,
place in the batch), as in `minidiff.batches`. What is learnt so is also drawn so: a network that
saw mirrored pictures draws mirrored ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minidiff.glyphs import as_pictures
from minidiff.recipe import TrainingConfig
from minidiff.samplers import seeded_generator


class Augmentation:
    """Changes the pictures of any batch; called with them and the number of the step.

    Args:
        config: the recipe; `translate`, `zoom` and `flips` say what happens.
        images: those of the data set, (N, C, H, W) uint8.

    Attributes:
        paper: colour (C, 1, 1) in [-1, 1] of what comes into view beside a picture, or None: its
            outermost pixels go on there.
    """

    def __init__(self, config: TrainingConfig, images: Tensor) -> None:
        self.config, paper = config, paper_of(images)
        self.paper = None if paper is None else as_pictures(paper)[:, None, None]

    def __call__(self, images: Tensor, step: int, mine: slice) -> Tensor:
        """The pictures (b, C, H, W), uint8, changed; floats in [-1, 1].

        Args:
            mine: which rows of the whole batch they are.
        """
        config, device = self.config, images.device
        draw = seeded_generator(config.seed, "augmentation", step)
        drawn = torch.rand(4, config.batch_size, generator=draw)[:, mine].to(device)
        scale = (1 + config.zoom) ** (2 * drawn[0] - 1)
        flip = (drawn[1] < 0.5) & config.flips
        rows, columns = (
            self._resampling(length, scale, where)
            for length, where in zip(images.shape[2:], drawn[2:])
        )
        columns = torch.where(flip[:, None, None], columns.flip(1), columns)
        paper = 0.0 if self.paper is None else self.paper.to(device)
        x = as_pictures(images) - paper
        x = rows[:, None] @ x @ columns[:, None].transpose(2, 3)
        return (x + paper).clamp(-1, 1)

    def _resampling(self, length: int, scale: Tensor, where: Tensor) -> Tensor:
        """(b, length, length): what each new row of pixels is the sum of.

        By cubic convolution (Keys 1981), which leaves pixels as they are that move by whole pixels.

        Args:
            scale: (b,), above 1 enlarges.
            where: (b,) in 0 … 1, from the largest shift one way to the largest the other way.
        """
        most = round(self.config.translate * length)
        shift = (where * (2 * most + 1)).floor().clamp(
            max=2 * most
        ) - most  # by whole pixels: sharp
        place = torch.arange(length, device=where.device, dtype=torch.float32)
        middle = (length - 1) / 2
        source = (place - middle) / scale[:, None] + middle - shift[:, None]
        if self.paper is None:
            source = source.clamp(0, length - 1)
        x = (source[:, :, None] - place).abs()
        near = (1.5 * x - 2.5) * x * x + 1
        far = ((2.5 - 0.5 * x) * x - 4) * x + 2
        weights = torch.where(x <= 1, near, far) * (x < 2)
        return weights if self.paper is not None else weights / weights.sum(2, keepdim=True)


def paper_of(images: Tensor) -> Tensor | None:
    """The colour (C,) that the edges of most pictures have, if there is one.

    Args:
        images: (N, C, H, W) uint8.
    """
    some = images[torch.linspace(0, len(images) - 1, min(1000, len(images))).long()].cpu()
    edges = [some[:, :, 0], some[:, :, -1], some[:, :, :, 0], some[:, :, :, -1]]
    pixels = torch.cat(edges, 2).transpose(0, 1).flatten(1)  # (C, …)
    about = pixels.long() // 16  # JPEG's white is not all 255
    kind = sum(about[c] * 16**c for c in range(len(about)))
    assert isinstance(kind, Tensor)
    kinds, count = kind.unique(return_counts=True)
    if 2 * int(count.max()) <= len(kind):
        return None
    return pixels[:, kind == kinds[count.argmax()]].median(1).values


def wanted(config: TrainingConfig) -> bool:
    """Whether a recipe asks for any."""
    return config.flips or config.translate > 0 or config.zoom > 0
