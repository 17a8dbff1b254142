"""An autoencoder: pictures to latents, small pictures of several channels, and back.

Most pixels of a glyph follow from their neighbours. Here 128 × 128 of them become 16 × 16 places of
8 numbers, and a diffusion model that draws in these latents has an eighth as much to draw, at the
cost of a small picture (Rombach et al. 2022). Three things decide what it is good for:

- What is lost. Ink is nearly black or white, so a pixel is a yes-or-no question, and the loss the
  cross-entropy of its answer: grey where there is an edge costs more than with a squared error.
- What the latents look like. They are brought to mean 0 and deviation 1, so that noise of the
  schedules means here what it means for pixels. That is all the regularisation that there is: the
  small KL term of Rombach et al. has the same purpose.
- What the decoder forgives. A diffusion model never draws latents quite right. In training the
  decoder gets them with noise on, of another strength for every picture (Sun et al. 2024), and
  learns to draw clean strokes all the same (Zheng et al. 2025). Neighbouring latents then mean like
  pictures, too: nothing may hang on a digit that the noise covers.

There is no attention and no norm within the network: each place knows its surroundings only, so a
stroke is drawn alike wherever it is and whatever else is on the page.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class AutoencoderConfig:
    """The shape of an `Autoencoder`.

    Attributes:
        in_channels: of the pictures; 1 for grey.
        latent_channels: numbers at each place of the latents.
        widths: of each level, from the largest down; the size halves between levels.
        stem: fold stem × stem pixels into channels before the first convolution.
        noise: deviation of the strength of the noise on the latents in training, in deviations of
            the latents.

    Raises:
        ValueError: for a value of another type or out of range, by name.
    """

    in_channels: int = 1
    latent_channels: int = 8
    widths: tuple[int, ...] = (32, 64, 128)
    stem: int = 2
    noise: float = 0.3

    #: It answers with its loss, not with what is under noise; see `minidiff.networks.Description`.
    denoises: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.widths, list | tuple) or not self.widths:
            raise ValueError(f"widths must be a list with one entry a level, got {self.widths!r}")
        object.__setattr__(self, "widths", tuple(self.widths))
        sizes = [(n, getattr(self, n)) for n in ("in_channels", "latent_channels", "stem")]
        for name, size in [*sizes, *(("widths", width) for width in self.widths)]:
            if type(size) is not int or not 1 <= size <= 65_536:
                raise ValueError(f"{name} must be a whole number from 1 to 65,536, got {size!r}")
        if type(self.noise) not in (int, float) or not 0 <= self.noise < 10:
            raise ValueError(f"noise must be a number from 0 to below 10, got {self.noise!r}")
        if self.latent_channels >= (pixels := self.in_channels * self.multiple**2):
            raise ValueError(
                f"latent_channels must be fewer than the {pixels} numbers of the pixels that they "
                f"stand for, got {self.latent_channels}"
            )

    @property
    def multiple(self) -> int:
        """Pixels along each side of a place of the latents; sides of pictures are multiples."""
        return self.stem * 2 ** (len(self.widths) - 1)


class Block(nn.Module):
    """Two convolutions beside a shortcut; at first it changes nothing. (B, C, H, W) -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class Autoencoder(nn.Module):
    """Pictures to latents and back; see `AutoencoderConfig` for its shape.

    Inside, paper is 0 and ink 1: so the zeros around a picture continue the paper.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        first, last = config.widths[0], config.widths[-1]
        pixels = config.stem**2 * config.in_channels

        down: list[nn.Module] = [nn.PixelUnshuffle(config.stem)]
        down += [nn.Conv2d(pixels, first, 3, padding=1), Block(first)]
        for before, after in itertools.pairwise(config.widths):
            down += [nn.Conv2d(before, after, 2, stride=2), Block(after)]
        self.encoder = nn.Sequential(*down, nn.Conv2d(last, config.latent_channels, 3, padding=1))
        self.norm = nn.BatchNorm2d(config.latent_channels, affine=False)

        up: list[nn.Module] = [nn.Conv2d(config.latent_channels, last, 3, padding=1)]
        up += [Block(last), Block(last)]
        for before, after in itertools.pairwise(reversed(config.widths)):
            up += [nn.ConvTranspose2d(before, after, 2, stride=2), Block(after), Block(after)]
        up += [nn.Conv2d(first, pixels, 3, padding=1), nn.PixelShuffle(config.stem)]
        self.decoder = nn.Sequential(*up)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1] -> latents (B, latent_channels, H / m, W / m).

        m is `config.multiple`. The latents have mean 0 and deviation 1 over what it was trained on.

        Raises:
            ValueError: for pictures of another shape.
        """
        multiple, channels = self.config.multiple, self.config.in_channels
        shape = tuple(images.shape)
        if len(shape) != 4 or shape[1] != channels or shape[2] % multiple or shape[3] % multiple:
            raise ValueError(
                f"the autoencoder takes pictures of shape (B, {channels}, H, W), H and W multiples "
                f"of {multiple}, got {shape}"
            )
        ink = ((1 - images) / 2).contiguous(memory_format=torch.channels_last)
        latents: Tensor = self.norm(self.encoder(ink))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, latent_channels, h, w) -> pictures (B, C, h m, w m) in [-1, 1]."""
        return 1 - 2 * torch.sigmoid(self.decoder(latents).float())

    def forward(self, images: Tensor, eps: Tensor) -> Tensor:
        """The loss of each picture, what training makes small: (B,).

        It is the cross-entropy of the pixels' answers with their ink, less the least that it could
        be, so that 0 is a perfect copy: the KL divergence of the two, in nats a pixel.

        Args:
            images: (B, C, H, W) in [-1, 1].
            eps: standard normal numbers like them, of which the noise on the latents is made.
        """
        latents = self.encode(images)
        numbers = eps.flatten(1)[:, : 1 + latents[0].numel()]  # there are more pixels
        strength = self.config.noise * numbers[:, :1, None, None].abs()
        noise = strength * numbers[:, 1:].view_as(latents)
        answer = self.decoder(latents + noise).float()
        ink = (1 - images.float()) / 2
        least = torch.special.entr(ink) + torch.special.entr(1 - ink)
        loss = F.binary_cross_entropy_with_logits(answer, ink, reduction="none") - least
        return loss.flatten(1).mean(1)
