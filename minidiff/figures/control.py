"""The figure of the chapter on control: a matrix, and a small change of it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from minidiff.figures import LIGHT, bare, new

THIN = 0.12  #: of the width of the large ones, at least; thinner could not be seen


def low_rank(weight: Tensor, left: Tensor, right: Tensor) -> Any:
    """A matrix, and beside it the two thin ones whose product is added to it.

    Blue is below zero, red above, each by its own largest numbers.

    Args:
        weight: (m, n) a layer's own weights.
        left, right: (m, r) and (r, n).
    """
    rows, columns = weight.shape
    narrow = max(left.shape[1] / columns, THIN)
    flat = max(left.shape[1] / rows, THIN)
    figure, axes = new(1, 4, size=(7.0, 2.2), width_ratios=[1, narrow, 1, 1])
    named = {"$W$": weight, "$B$": left, "$A$": right, "$BA$": left @ right}
    for axis, (name, matrix) in zip(axes, named.items(), strict=True):
        most = 2.5 * float(matrix.std())
        style = {"cmap": "RdBu_r", "vmin": -most, "vmax": most, "interpolation": "nearest"}
        axis.imshow(matrix.numpy(), aspect="auto", **style)
        bare(axis, f"{name}\n{matrix.shape[0]} × {matrix.shape[1]}")
        axis.spines[:].set(visible=True, color=LIGHT)
        axis.set_box_aspect({"$B$": 0.9 / narrow, "$A$": 0.9 * flat}.get(name, 0.9))
    return figure
