"""A reader of glyphs: which radical, which layout, which components a picture shows.

The measures in `minidiff.metrics` look at pictures through its eyes. It was trained on real glyphs
only, in several fonts and a little shifted, never blurred and never drawn by a model: what it
cannot read, a person would have trouble with too. Every radical and component is a yes-or-no
question of its own, so the answer may be "none of them".
"""

from __future__ import annotations

import copy
import itertools
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minidiff.glyphs import as_pictures
from minidiff.inputs import as_path, plain_torch
from minidiff.storage import CheckpointError, read_info, read_tensors, write_folder

FOLDER = Path(__file__).parent / "data" / "recogniser"
RADICALS = 214  #: Kangxi radicals, 1 to 214
#: How the parts of a character are put together.
LAYOUTS = ("left-right", "top-bottom", "surround", "other")
WIDTHS = (24, 48, 96, 192)  # channels at 32 × 32, 16 × 16, 8 × 8 and 4 × 4
FEATURES = 128


class Recogniser(nn.Module):
    """A small convolutional network over 64 × 64 pixels.

    Args:
        components: the components it knows, one character each.
    """

    def __init__(self, components: tuple[str, ...]) -> None:
        super().__init__()
        self.components = components
        layers: list[nn.Module] = [*_layer(1, WIDTHS[0], size=5, stride=2)]
        for before, after in itertools.pairwise(WIDTHS):
            layers += [*_layer(before, after, stride=2), *_layer(after, after)]
        self.body = nn.Sequential(*layers, nn.Flatten())
        # Flattened, not averaged: a component on the left is another thing than one on the right.
        self.neck = nn.Sequential(
            nn.Linear(WIDTHS[-1] * 16, FEATURES, bias=False), nn.BatchNorm1d(FEATURES)
        )
        self.head = nn.Linear(FEATURES, RADICALS + len(components) + len(LAYOUTS))
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):  # in this order convolutions are quicker
                layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """(B, 1, 64, 64) in [-1, 1] or uint8 -> (B, 128): what it sees, before it names it.

        Raises:
            TypeError: for other whole numbers.
            ValueError: for pictures of another size.
        """
        images = as_pictures(images).float()
        if images.shape[1:] != (1, 64, 64):
            raise ValueError(
                "the recogniser reads pictures of shape (B, 1, 64, 64), "
                f"got {tuple(images.shape)}: resize them"
            )
        out: Tensor = self.neck(self.body(images.to(memory_format=torch.channels_last)))
        return out

    def logits(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of radicals (B, 214), components (B, number of components) and layouts (B, 4).

        Args:
            features: (B, 128).
        """
        sizes = [RADICALS, len(self.components), len(LAYOUTS)]
        radicals, components, layouts = self.head(features.relu()).split(sizes, 1)
        return radicals, components, layouts

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 1, 64, 64) in [-1, 1] or uint8 -> logits of radicals, components and layouts."""
        return self.logits(self.features(images))


def _layer(before: int, after: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU()]


def save_recogniser(
    recogniser: Recogniser, record: dict[str, Any], folder: str | Path = FOLDER
) -> None:
    """Save it in half precision, with a record of how it came about and how well it reads."""
    weights = {
        name: value.half() if value.is_floating_point() else value
        for name, value in recogniser.state_dict().items()
    }
    info = {"components": list(recogniser.components), "record": record}
    write_folder(folder, {"recogniser.safetensors": weights}, info)


@torch.inference_mode(False)
def load_recogniser(folder: str | Path = FOLDER) -> tuple[Recogniser, dict[str, Any]]:
    """The recogniser that ships, in evaluation mode on the CPU, and its record.

    Raises:
        CheckpointError: if its files are damaged, or those of something else.
        TypeError: for a folder that is no path.
    """
    return copy.deepcopy(_load(as_path("folder", folder)))  # the caller may change it


@lru_cache(maxsize=2)
@torch.inference_mode(False)  # otherwise it could not be used with gradients later
@plain_torch()
def _load(folder: Path) -> tuple[Recogniser, dict[str, Any]]:
    info = read_info(folder)
    if "components" not in info:
        raise CheckpointError(f"{folder} holds no recogniser: give a folder of save_recogniser")
    recogniser = Recogniser(tuple(info["components"]))
    recogniser.load_state_dict(read_tensors(folder, "recogniser.safetensors", info))
    return recogniser.eval(), info["record"]
