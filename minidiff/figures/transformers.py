"""Figures of transformers: patches, who looks at whom, what two networks learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from minidiff.figures import ORANGE, bare, new


def cut(picture: Tensor, patch: int) -> Any:
    """A picture, and the same cut into patches with gaps between them.

    Args:
        picture: (H, W) in [-1, 1].
        patch: height and width of a patch.
    """
    figure, (left, right) = new(1, 2, (6.2, 3.0))
    rows, columns = (side // patch for side in picture.shape)
    gap = patch // 2
    pieces = picture.unfold(0, patch, patch).unfold(1, patch, patch)  # (rows, columns, p, p)
    apart = torch.full((rows, columns, patch + gap, patch + gap), torch.nan)
    apart[..., :patch, :patch] = pieces
    whole = apart.transpose(1, 2).reshape(rows * (patch + gap), columns * (patch + gap))
    for axis, shown, title in (
        (left, picture, f"{picture.shape[0]} × {picture.shape[1]} pixels"),
        (right, whole, f"{rows * columns} patches of {patch**2} numbers"),
    ):
        bare(axis, title).imshow(shown.numpy(), cmap="gray", vmin=-1, vmax=1)
        axis.set_facecolor("#eadfce")
    return figure


def looks(picture: Tensor, weights: Mapping[str, tuple[int, Tensor]], rows: int = 1) -> Any:
    """Who looks at whom: the weights of one place, over the picture whose places they are.

    Args:
        picture: (H, W) in [-1, 1].
        weights: title -> the place that looks, by its number, and (places,) its weights; the
            darkest is its largest.
        rows: of panels.
    """
    columns = -(-len(weights) // rows)
    figure, axes = new(rows, columns, (7.0, 7.6 / columns * rows), squeeze=False)
    for axis, (title, (place, weight)) in zip(axes.flat, weights.items()):
        side = round(len(weight) ** 0.5)
        box = (0, side, side, 0)
        bare(axis, title).imshow(
            weight.view(side, side).numpy(), cmap="Blues", vmin=0, extent=box,
            vmax=1.3 * float(weight.max()),
        )  # fmt: skip
        ink = (1 - picture) / 2
        axis.imshow(
            torch.zeros_like(ink).numpy(), cmap="gray", extent=box, vmin=0, vmax=1,
            alpha=(0.55 * ink).numpy(),
        )  # fmt: skip
        corner = (place % side, place // side)
        axis.add_patch(_frame(corner))
        axis.set(xlim=(0, side), ylim=(side, 0))
    return figure


def _frame(corner: tuple[int, int]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, 1, 1, fill=False, edgecolor=ORANGE, lw=2.5, clip_on=False)
