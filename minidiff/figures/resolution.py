"""Figures of the chapter on high resolution: what pixels cost, and pictures beside their parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff import plots
from minidiff.figures import BLUE, GREY, ORANGE, bare, new


def cost(sides: Sequence[int], seconds: Mapping[str, Sequence[float]]) -> Any:
    """Seconds by the side of a picture, on logarithmic axes, with a line in proportion to pixels.

    That line ends where the first network's ends.

    Args:
        sides: of the pictures, in pixels.
        seconds: for each network the time for one picture at every size.
    """
    figure, axis = new(size=(5.6, 3.1))
    looks = ((ORANGE, "o-"), (BLUE, "s--"))
    for (name, times), (colour, form) in zip(seconds.items(), looks):
        axis.plot(sides, times, form, color=colour, label=name)
    last = next(iter(seconds.values()))[-1]
    pixels = [last * (side / sides[-1]) ** 2 for side in sides]
    axis.plot(sides, pixels, ":", color=GREY, label="in proportion to the pixels")
    axis.set(xscale="log", yscale="log", xlabel="side of the picture, pixels", ylabel="seconds")
    axis.set_xticks(sides, [str(side) for side in sides])
    axis.minorticks_off()
    axis.legend(frameon=False)
    return figure


def tiled(pictures: Tensor, columns: int, paper: float = 1.0) -> Tensor:
    """(N, H, W) side by side as one picture (1, h, w), with lines of `paper` between them."""
    gap = max(1, pictures.shape[-1] // 16)
    framed = F.pad(pictures, [0, gap, 0, gap], value=paper)
    rows = [torch.cat(list(row), dim=1) for row in framed.split(columns)]
    return torch.cat(rows)[None, :-gap, :-gap]


def panels(rows: Sequence[Mapping[str, tuple[Tensor, float]]], height: float = 1.7) -> Any:
    """Pictures of any sizes in rows of panels, all panels of a row equally high.

    Args:
        rows: of each, title -> a picture (1, H, W) and the value that is drawn white; minus that
            is black.
        height: of a row in inches.
    """
    figure, axes = new(len(rows), len(rows[0]), (7.0, (height + 0.25) * len(rows)), squeeze=False)
    for row, named in zip(axes, rows):
        for axis, (title, (picture, reach)) in zip(row, named.items(), strict=True):
            plots.draw(bare(axis, title), picture, reach, interpolation="nearest")
            axis.title.set_size(10)
    return figure
