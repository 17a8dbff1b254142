"""Spaces: how a picture becomes the x_0 that is noised, how it comes back, and which range it has.

Training and drawing happen in a space and know neither bytes nor ranges. `Pixels` is the picture
itself, scaled; `Latents` is what an autoencoder makes of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from minidiff.autoencoder import Autoencoder, AutoencoderConfig
from minidiff.glyphs import as_pictures
from minidiff.inputs import check_settings, plain_torch
from minidiff.storage import CheckpointError, Tensors


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


@dataclass(frozen=True)
class Latents:
    """x_0 = (what an autoencoder makes of the picture − mean) / std (Rombach et al. 2022).

    The autoencoder travels with the model: in its folder as autoencoder.safetensors. A space that
    was read from config.json alone has not got it yet; see `hold`.

    Args:
        autoencoder: the shape of it, an `AutoencoderConfig` or the table of one.
        fingerprint: identifies its weights.
        mean, std: of the latents that a network is trained on.

    Attributes:
        factor, channels: as those of `Pixels`; of the class before there is an autoencoder.

    Raises:
        ValueError: for a setting that cannot be.
    """

    autoencoder: Any
    fingerprint: str
    mean: float = 0.0
    std: float = 1.0
    factor: ClassVar[int] = 1
    channels: ClassVar[int | None] = None
    data_range: ClassVar[None] = None  #: latents have no ends, so guesses are not clipped
    FILE: ClassVar[str] = "autoencoder.safetensors"
    _network: ClassVar[Autoencoder | None] = None

    def __post_init__(self) -> None:
        check_settings(self)
        if isinstance(self.autoencoder, dict):
            object.__setattr__(self, "autoencoder", AutoencoderConfig(**self.autoencoder))
        if not isinstance(self.autoencoder, AutoencoderConfig):
            raise ValueError(f"autoencoder must be a table of settings, got {self.autoencoder!r}")
        if self.std <= 0:
            raise ValueError(f"std must be above 0, got {self.std}")
        object.__setattr__(self, "factor", self.autoencoder.multiple)
        object.__setattr__(self, "channels", self.autoencoder.in_channels)

    @classmethod
    def of(cls, images: Tensor, autoencoder: Autoencoder) -> Latents:
        """The space of a data set: of pictures (N, C, H, W), uint8, as an autoencoder sees them."""
        weights = _halved(autoencoder)
        space = cls(autoencoder.config, fingerprint_of(weights))
        space.hold(weights)
        std, mean = torch.std_mean(space.to_data(images).cpu().double())
        space = cls(autoencoder.config, space.fingerprint, round(mean.item(), 4),
                    round(max(std.item(), 1e-4), 4))  # fmt: skip
        space.hold(weights)
        return space

    @plain_torch()
    @torch.inference_mode(False)  # otherwise it could not be used with gradients later
    def hold(self, weights: Tensors) -> None:
        """Take up the autoencoder's weights.

        Raises:
            CheckpointError: if they are those of another one than the model was trained with.
        """
        if (found := fingerprint_of(weights)) != self.fingerprint:
            raise CheckpointError(
                f"this model was trained in the latents of the autoencoder {self.fingerprint}, but "
                f"the one beside it is {found}: give it the {self.FILE} that it was saved with"
            )
        network = Autoencoder(self.autoencoder)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise CheckpointError(
                f"{self.FILE} has not the shape that config.json says ({reason}): use another copy"
            ) from error
        object.__setattr__(self, "_network", network.eval().requires_grad_(False))

    @property
    def files(self) -> dict[str, Tensors]:
        """What lies beside a model of this space: file name -> tensors, in half precision."""
        return {self.FILE: _halved(self._held())}

    def _held(self) -> Autoencoder:
        if self._network is None:
            raise CheckpointError(
                f"these latents are those of the autoencoder {self.fingerprint}, which is not "
                f"here: open the model with minidiff.load, from a folder that has {self.FILE}"
            )
        return self._network

    def agrees(self, other: Any) -> bool:
        """Whether weights of the one space serve in the other: only with the same autoencoder."""
        same = isinstance(other, Latents) and other.fingerprint == self.fingerprint
        return same and max(abs(self.mean - other.mean), abs(self.std - other.std)) <= 0.01

    @torch.no_grad()
    def to_data(self, images: Tensor) -> Tensor:
        """Pictures in [-1, 1] or uint8 (B, C, H, W) to x_0 (B, c, H / factor, W / factor).

        Raises:
            TypeError: for other whole numbers.
            ValueError: for pictures of another shape than the autoencoder takes.
            CheckpointError: for a space without its autoencoder.
        """
        network = self._held().to(images.device)
        parts = [network.encode(as_pictures(part).float()) for part in images.split(64)]
        return (torch.cat(parts) - self.mean) / self.std

    @torch.no_grad()
    def to_images(self, x: Tensor, clip: bool = True) -> Tensor:
        """The way back. The decoder's pictures lie within [-1, 1] whether `clip` or not.

        Raises:
            TypeError: for whole numbers, which are not x_0.
            CheckpointError: for a space without its autoencoder.
        """
        if not x.is_floating_point():
            raise TypeError(f"x must be floats in the network's units, got {x.dtype}")
        network = self._held().to(x.device)
        return torch.cat([network.decode(p.float() * self.std + self.mean) for p in x.split(64)])


def _halved(network: Autoencoder) -> Tensors:
    """Weights as they are stored."""
    halved = network.state_dict().items()
    return {name: x.cpu().half() if x.is_floating_point() else x.cpu() for name, x in halved}


def fingerprint_of(weights: Tensors) -> str:
    """16 hex digits over an autoencoder's weights, as they are in half precision."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(weights[name].cpu().contiguous().half().numpy().data)
    return digest.hexdigest()[:16]


#: The spaces by the names under which they stand in recipes and checkpoints.
SPACES: dict[str, Any] = {"pixels": Pixels, "latents": Latents}


def name_of(space: Any) -> str:
    """The name of a space.

    Raises:
        ValueError: for what is none.
    """
    for name, kind in SPACES.items():
        if type(space) is kind:
            return name
    raise ValueError(f"space must be one of {', '.join(SPACES)}, got {space!r}")
