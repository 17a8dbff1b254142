"""How alike pictures are that nobody can read: which training picture is nearest, and how near.

Two pictures are compared as at a glance: brought down to 16 pixels along the longer side, then the
root mean square over pixels and channels. Noise and an edge half a pixel aside hardly count then.
What a training did to its pictures is forgiven, too: of a network that saw them shifted or mirrored
a copy may be so. Drawn and real pictures are compared in the same way, so what this forgives it
forgives on both sides.

How near is near depends on the picture: mush and empty paper are not far from anything. So the
distance to the nearest one is divided by the mean distance to the nearest few (Carlini et al. 2023,
"Extracting training data from diffusion models", section 5): small is what stands out among its
neighbours. That drawn pictures are nearer to the training pictures than unseen real ones is what
copying means (Meehan et al. 2020, "A non-parametric test to detect data-copying in generative
models").
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.glyphs import as_pictures
from minidiff.held_out import chosen

SIDE = 16  #: pixels along the longer side of what is compared
TWIN = 0.02  #: pictures nearer to each other than this are one picture twice; white is 2 from black
FEWEST = 5  #: pictures below which nothing can be said of copying
ENOUGH = 20  #: held-out pictures from which on they are the yardstick: one of them is 5 %


class Near(NamedTuple):
    """The nearest of many pictures to each of N."""

    row: Tensor  #: (N,) its place
    distance: Tensor  #: (N,) how far it is
    ratio: Tensor  #: (N,) the same by the mean distance to the nearest few; 1: none stands out


class Yardstick(NamedTuple):
    """Real pictures, and what is nearest to each among the training pictures but itself."""

    rows: Tensor  #: (N,) their places, among the held-out pictures or the training pictures
    held_out: bool  #: which of the two
    near: Near
    twins: int  #: how many are in the training pictures once more, which does not count


def glance(images: Tensor) -> Tensor:
    """Pictures small enough to be compared, and large enough to be shifted before that.

    Args:
        images: (N, C, H, W) in [-1, 1] or uint8.

    Returns:
        (N, C, h, w) float32, the longer of h and w is at most twice `SIDE`.
    """
    parts = images.split(512)  # so that uint8 becomes float32 a little at a time
    return torch.cat([_smaller(as_pictures(x).float(), 2 * SIDE) for x in parts])


def _smaller(images: Tensor, longer: int) -> Tensor:
    """Of so many pixels along the longer side, if they have more: means of what lies there."""
    height, width = images.shape[2:]
    scale = min(1.0, longer / max(height, width))
    size = [max(1, round(side * scale)) for side in (height, width)]
    return F.interpolate(images, size, mode="area")


@dataclass(frozen=True)
class Eye:
    """Compares pictures (N, C, h, w) as `glance` makes them.

    Attributes:
        shifted: forgive a shift by up to a sixteenth each way.
        mirrored: forgive left and right.
    """

    shifted: bool = False
    mirrored: bool = False

    def _moved(self, looks: Tensor) -> Iterator[Tensor]:
        height, width = looks.shape[2:]
        reach = self.shifted * (2 if max(height, width) > SIDE else 1)
        for one in (looks, looks.flip(3)) if self.mirrored else (looks,):
            padded = F.pad(one, [reach] * 4, mode="replicate")
            for down in range(2 * reach + 1):
                for right in range(2 * reach + 1):
                    yield padded[:, :, down : down + height, right : right + width]

    def distances(self, looks: Tensor, others: Tensor) -> Tensor:
        """(N, M) how far each of N pictures is from each of M others."""
        known = _smaller(others, SIDE).flatten(1)
        apart = torch.full((len(looks), len(known)), math.inf)
        for moved in self._moved(looks):
            found = torch.cdist(_smaller(moved, SIDE).flatten(1), known)
            torch.minimum(apart, found, out=apart)
        return apart / math.sqrt(known.shape[1])

    def nearest(self, looks: Tensor, known: Tensor, omit: Tensor | None = None) -> Near:
        """The nearest of M pictures `known` to each of N.

        Args:
            omit: (N, M) true where one does not count; at least one in each row does.
        """
        apart = self.distances(looks, known)
        left = len(known)
        if omit is not None:
            apart[omit] = math.inf
            left -= int(omit.sum(1).max())
        found, rows = apart.topk(min(max(len(known) // 10, 3), 50, left), largest=False)
        return Near(rows[:, 0], found[:, 0], found[:, 0] / found.mean(1).clamp(min=1e-9))

    def yardstick(self, known: Tensor, held_out: Tensor | None = None) -> Yardstick | None:
        """What distances look like where nothing was copied.

        Of held-out pictures, if there are `ENOUGH`, else of each training picture to the others,
        which for pictures that come from one source is the same thing. Of many a fixed choice of
        512. One that is there twice is not compared with itself.

        Args:
            known, held_out: training pictures, and others.

        Returns:
            None for fewer than `FEWEST` different pictures.
        """
        of_held_out = held_out is not None and len(held_out) >= ENOUGH
        source = held_out if held_out is not None and of_held_out else known
        rows = chosen(len(source))
        twins = Eye(mirrored=self.mirrored).distances(source[rows], known) < TWIN
        if not of_held_out:
            twins[torch.arange(len(rows)), rows] = True
        several = int((twins.sum(1) > (not of_held_out)).sum())
        if len(known) - int(twins.sum(1).max()) < FEWEST - 1:
            return None
        return Yardstick(rows, of_held_out, self.nearest(source[rows], known, twins), several)

    def spread(self, looks: Tensor) -> float:
        """Mean distance between two different ones of N, at least 2."""
        apart = self.distances(looks, looks)
        return ((apart.sum() - apart.trace()) / (len(looks) * (len(looks) - 1))).item()

    def different(self, looks: Tensor, line: float) -> int:
        """How many are no repetition: not nearer than `line` to one that is counted."""
        apart, kept = self.distances(looks, looks), list[int]()
        for i in range(len(looks)):
            if not kept or apart[i, kept].min() >= line:
                kept.append(i)
        return len(kept)
