"""Spaces: how a picture becomes the x_0 that is noised, how it comes back, and which range it has.

Training and drawing happen in a space and know neither bytes nor ranges. `Pixels` is the picture
itself, scaled; what an autoencoder makes of pictures would be another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from minidiff.glyphs import as_pictures
from minidiff.inputs import check_settings


@dataclass(frozen=True)
class Pixels:
    """x_0 = (picture − mean) / std, so that data sets have mean 0 and deviation 1.

    Attributes:
        mean, std: of the pictures in [-1, 1] that a network is trained on.
        factor: how many pixels of the picture, along each side, one place of x_0 stands for.
        channels: of pictures; None: as many as x_0 has.

    Raises:
        ValueError: for what is no finite number, or a std that is not above 0.
    """

    mean: float = 0.0
    std: float = 1.0
    factor: ClassVar[int] = 1
    channels: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        check_settings(self)
        if self.std <= 0:
            raise ValueError(f"std must be above 0, got {self.std}")

    @classmethod
    def of(cls, images: Tensor) -> Pixels:
        """The space of a data set, from pictures (N, C, H, W), uint8."""
        share = torch.bincount(images.flatten(), minlength=256).double() / images.numel()
        grey = torch.arange(256, dtype=torch.float64) / 127.5 - 1
        mean = (share * grey).sum()
        std = (share * (grey - mean) ** 2).sum().sqrt()
        return cls(round(mean.item(), 6), round(max(std.item(), 1e-6), 6))

    def agrees(self, other: Any) -> bool:
        """Whether weights of the one space serve in the other.

        The same glyphs come out a little different where Pillow has another FreeType.
        """
        near = isinstance(other, Pixels) and abs(self.mean - other.mean) <= 1e-3
        return near and abs(self.std - other.std) <= 1e-3

    def to_data(self, images: Tensor) -> Tensor:
        """Pictures in [-1, 1] or uint8 (B, C, H, W) to x_0, of the same shape.

        Raises:
            TypeError: for other whole numbers.
        """
        return (as_pictures(images).float() - self.mean) / self.std

    def to_images(self, x: Tensor, clip: bool = True) -> Tensor:
        """The way back, held within [-1, 1] unless `clip` is False.

        Raises:
            TypeError: for whole numbers, which are not x_0.
        """
        if not x.is_floating_point():
            raise TypeError(f"x must be floats in the network's units, got {x.dtype}")
        images = x * self.std + self.mean
        return images.clamp(-1, 1) if clip else images

    @property
    def data_range(self) -> tuple[float, float]:
        """Where black (-1) and white (+1) lie in x_0: guesses beyond are clipped."""
        return (-1 - self.mean) / self.std, (1 - self.mean) / self.std


#: The spaces by the names under which they stand in recipes and checkpoints.
SPACES: dict[str, Any] = {"pixels": Pixels}


def name_of(space: Any) -> str:
    """The name of a space.

    Raises:
        ValueError: for what is none.
    """
    for name, kind in SPACES.items():
        if type(space) is kind:
            return name
    raise ValueError(f"space must be one of {', '.join(SPACES)}, got {space!r}")
