"""The two stages of a cascade (Ho et al. 2022): what the second is told of the first's picture.

The first stage draws a small picture. The second draws one of twice the size by the same method;
beside its x_t lie the small picture, every pixel four times, and two even planes that say how far
to trust it. So it sharpens what is right and mends what is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.inputs import check_settings, sides
from minidiff.networks import Description

FIRST = "first.safetensors"  # of a cascade that was saved whole: the weights of its first stage
PLANES = 2  # beside the small picture: the share of noise in it, and how far it was redrawn


@dataclass(frozen=True)
class FirstStage:
    """Whose pictures a model enlarges, and how it does that where nothing else is asked for.

    Attributes:
        name: a model that ships, or a folder.
        weights: SHA-256 of its model.safetensors.
        steps: of the sampler of the second stage.
        redrawn: how far the second stage is told to mistrust the small picture, from 0, a real one,
            to 1: the t / T from which the first stage would have drawn it.

    Raises:
        ValueError: for a value of another type or out of range, naming it.
    """

    name: str
    weights: str
    steps: int = 6
    redrawn: float = 0.6

    def __post_init__(self) -> None:
        check_settings(self)
        if not 1 <= self.steps <= 1000:
            raise ValueError(f"steps of the second stage must be 1 to 1000, got {self.steps}")
        if not 0 <= self.redrawn <= 1:
            raise ValueError(f"redrawn must lie between 0 and 1, got {self.redrawn}")


def halved(images: Tensor) -> Tensor:
    """Pictures (B, C, 2 H, 2 W) at half their size: the mean of 2 × 2 pixels each.

    Of the glyphs this differs by a third of a grey value in 255 from drawing them at that size.
    """
    if images.is_floating_point():
        return F.avg_pool2d(images, 2)
    parts = [F.avg_pool2d(part.float(), 2).round().to(torch.uint8) for part in images.split(1024)]
    return torch.cat(parts)


def doubled(x: Tensor) -> Tensor:
    """(B, C, H, W) at twice the size, every pixel four times."""
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


def laid_beside(small: Tensor, noise: Tensor, redrawn: Tensor) -> Tensor:
    """What lies beside x_t of the second stage.

    Args:
        small: (B, C, H, W) small pictures in the units of the first stage.
        noise: (B,) share of noise that was mixed into them, 0 to 1.
        redrawn: (B,) the t / T from which the first stage has drawn them; 0 for a real picture.

    Returns:
        (B, C + 2, 2 H, 2 W).
    """
    large = doubled(small)
    planes = torch.stack([noise, redrawn], 1).to(large)[:, :, None, None]
    return torch.cat([large, planes.expand(-1, -1, *large.shape[2:])], 1)


def check_second(config: Any, network: Description, space: Any) -> None:
    """See that a recipe's or a model's settings are those of a second stage.

    Raises:
        ValueError: naming what does not fit.
    """
    wanted = network.in_channels + PLANES
    if network.condition_channels != wanted:
        raise ValueError(
            f"{network.name}.condition_channels is {network.condition_channels}, but a second "
            f"stage is told the small picture and {PLANES} planes: set it to {wanted}"
        )
    if config.text_encoder is not None:
        raise ValueError(
            f"text_encoder is {config.text_encoder!r}, but a second stage reads no text, for the "
            "first has read it: set text_encoder = false"
        )
    if space.factor != 1:
        raise ValueError("a second stage enlarges pixels: set space = 'pixels'")
    if any(side % 2 for side in sides(config.image_size)):
        raise ValueError(
            f"image_size must be twice that of the first stage, got {config.image_size}"
        )
