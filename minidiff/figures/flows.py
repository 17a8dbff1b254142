"""Figures of flows: walks over time, paths in the plane, densities found along them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from minidiff.figures import BLUE, DARK, GREY, ORANGE, bare, new


def walks(panels: Mapping[str, Tensor], x: Tensor, density: Tensor) -> Any:
    """Walks in one dimension over time, on the density that they should have at every time.

    Args:
        panels: title -> walks (T + 1, N) by growing t, whichever way they went.
        x: (n,) places.
        density: (T + 1, n) at every time.
    """
    figure, axes = new(1, len(panels), (7.2, 2.9), sharex=True, sharey=True)
    # Between 0 and 1 at every time: in the end the hill is flat, and would be pale.
    shade = (density / density.amax(1, keepdim=True)).T.numpy()
    last, (low, high) = len(density) - 1, (float(x[0]), float(x[-1]))
    for axis, (title, paths) in zip(axes, panels.items(), strict=True):
        axis.imshow(
            shade, cmap="Blues", vmax=2.2, origin="lower", aspect="auto",
            extent=(0, last, low, high), interpolation="bilinear",
        )  # fmt: skip
        axis.plot(paths.numpy(), color=ORANGE, lw=1, antialiased=False)
        axis.set(title=title, xlabel="$t$", ylim=(low, high), xticks=[0, last // 2, last])
    axes[0].set_ylabel("$x_t$")
    return figure


def paths(panels: Mapping[str, Tensor], marked: int = 0) -> Any:
    """Paths in the plane: hollow dots where they begin, full ones where they end.

    Args:
        panels: title -> paths (k, N, 2).
        marked: so many of the first are drawn dark, to be followed.
    """
    figure, axes = new(1, len(panels), (7.0, 7.2 / len(panels)), sharex=True, sharey=True)
    for axis, (title, several) in zip(axes, panels.items(), strict=True):
        bare(axis, title).set_aspect("equal")
        for i, path in reversed(list(enumerate(several.unbind(1)))):
            look = {"color": DARK, "lw": 1.5} if i < marked else {"color": "#b9b9b9", "lw": 0.7}
            axis.plot(*path.T, **look, zorder=2 if i < marked else 1)
        axis.scatter(*several[0].T, s=12, facecolors="white", edgecolors=GREY, lw=0.8, zorder=3)
        axis.scatter(*several[-1].T, s=12, color=ORANGE, linewidths=0, zorder=3)
    return figure


def likelihoods(
    pixels: Tensor, maps: Mapping[str, Tensor], truth: Tensor, found: Mapping[str, Tensor]
) -> Any:
    """Densities as maps, and log-likelihoods of points against the true ones.

    Args:
        pixels: (n,) places along both axes.
        maps: title -> density (n, n), rows from below.
        truth: (N,) log density of points.
        found: name -> (N,) what was found for them.
    """
    figure, axes = new(1, len(maps) + 1, (7.2, 2.6))
    reach, highest = float(pixels[-1]), max(float(m.max()) for m in maps.values())
    for axis, (title, density) in zip(axes, maps.items()):
        bare(axis, title).imshow(
            density.numpy(), cmap="Blues", vmin=0, vmax=highest, origin="lower",
            extent=(-reach, reach, -reach, reach), interpolation="bilinear",
        )  # fmt: skip
    axis = axes[-1]
    ends = np.array([float(truth.min()), float(truth.max())])
    axis.plot(ends, ends, color=GREY, lw=1)
    for (name, values), colour, mark in zip(found.items(), (BLUE, ORANGE), "s."):
        axis.plot(truth, values, mark, color=colour, ms=4, mfc="none", label=name)
    axis.set(xlabel="true $\\log q(x_0)$", title="found by the ODE")
    axis.legend(frameon=False, loc="upper left", fontsize=9)
    return figure
