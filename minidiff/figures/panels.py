"""What many chapters draw: lines over x, histograms over densities, clouds; boxes and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from torch import Tensor

from minidiff.figures import BLUE, DARK, GREEN, ORANGE, bare, legend_below, new

PALE, SAND = "#a9c6e6", "#f2c79a"  #: areas in blue and in orange, pale enough for a line in front
Looks = Sequence[tuple[str, str]]  # of each line the colour, and matplotlib's format of the rest
LOOKS: Looks = ((BLUE, "-"), (ORANGE, "--"), (GREEN, "-."))


def curves(axis: Any, x: Any, named: Mapping[str, Any], looks: Looks = LOOKS, **style: Any) -> None:
    """Lines over x on one axis.

    Args:
        x: (n,) places.
        named: name of a line -> its values (n,), fewer if it ends early, or (n, k) for k lines
            that look alike; or a pair (places, values) if it has places of its own.
        looks: colour and format of each line, as in `LOOKS`; after the last one from the first on.
        style: of matplotlib's `plot`, for all lines.
    """
    for (name, values), (colour, form) in zip(named.items(), cycle(looks)):
        places, heights = values if isinstance(values, tuple) else (x[: len(values)], values)
        axis.plot(places, heights, form, color=colour, label=name, **style)


def lines(
    panels: Mapping[str, Mapping[str, Any]],
    x: Any,
    size: tuple[float, float],
    looks: Looks = LOOKS,
    *,
    legend: bool = True,
    sharey: bool = False,
    ylabel: str = "",
    style: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """Lines over x, in panels side by side; the legend is below several and inside a single one.

    Args:
        panels: title -> the lines, as `curves` wants them.
        x: (n,) places.
        size: of the figure, in inches.
        looks, style: see `curves`.
        settings: of every axis, for instance xlabel, yscale or ylim.
    """
    figure, axes = new(1, len(panels), size, sharey=sharey, squeeze=False)
    for axis, (title, named) in zip(axes[0], panels.items()):
        curves(axis, x, named, looks, **(style or {}))
        axis.set(title=title, **settings)
    axes[0, 0].set_ylabel(ylabel)
    if legend and len(panels) > 1:
        legend_below(figure, axes[0, 0])
    elif legend:
        axes[0, 0].legend(frameon=False)
    return figure


def histograms(
    rows: Mapping[str, Mapping[str, tuple[Tensor, Mapping[str, Tensor]]]],
    x: Tensor,
    size: tuple[float, float],
    bins: int = 60,
    *,
    bars: Mapping[str, Any] | None = None,
    label: str = "",
    sharey: bool = False,
    xlabel: str = "",
    **settings: Any,
) -> Any:
    """Histograms of samples over the densities they should follow.

    One kind of samples is drawn as bars behind the line of the density; several as outlines before
    its area.

    Args:
        rows: name of a row -> title of a column -> the density (n,), and name -> samples (N,).
        x: (n,) places.
        size: of the figure, in inches.
        bins: cells from the first place to the last one.
        bars: settings of matplotlib's `hist`, how one kind of samples looks.
        label: of the density in a legend.
        settings: of every axis.
    """
    columns = next(iter(rows.values()))
    figure, axes = new(len(rows), len(columns), size, sharex=True, sharey=sharey, squeeze=False)
    cells = {"bins": np.linspace(float(x[0]), float(x[-1]), bins + 1).tolist(), "density": True}
    outline = {"histtype": "step", "linewidth": 1.3}
    for row, (name, panels) in zip(axes, rows.items()):
        row[0].set_ylabel(name)
        for axis, (density, samples) in zip(row, panels.values(), strict=True):
            if len(samples) == 1:
                ((kind, values),) = samples.items()
                axis.hist(values.numpy(), label=kind, **{**cells, "color": SAND, **(bars or {})})
                axis.plot(x, density, color=BLUE, label=label)
            else:
                axis.fill_between(x, density, color=BLUE, alpha=0.25, linewidth=0)
                for (kind, values), colour in zip(samples.items(), (ORANGE, GREEN)):
                    axis.hist(values.numpy(), color=colour, label=kind, **cells, **outline)
            axis.set(**settings)
    for top, bottom, title in zip(axes[0], axes[-1], columns):
        top.set_title(title)
        bottom.set_xlabel(xlabel)
    if len(samples) > 1:
        legend_below(figure, axes[0, 0])
    return figure


def clouds(
    panels: Mapping[str, Tensor],
    size: tuple[float, float],
    reach: float | None = None,
    dot: float = 3,
) -> Any:
    """Clouds of points side by side: the first one, the data, is blue, the others are orange.

    Args:
        panels: title -> points (N, 2); a cloud that has shrunk to a spot gets larger dots.
        size: of the figure, in inches.
        reach: coordinate of the right edge of a frame around each cloud, or None for no frame.
        dot: area of a dot.
    """
    figure, axes = new(1, len(panels), size, sharex=True, sharey=True, squeeze=False)
    for i, (axis, (title, points)) in enumerate(zip(axes[0], panels.items())):
        bare(axis, title).set_aspect("equal")
        spots = len(points.round(decimals=1).unique(dim=0))
        colour = ORANGE if i else BLUE
        axis.scatter(*points.T, s=40 if spots < 10 else dot, color=colour, linewidths=0)
        if reach is not None:
            axis.set(xlim=(-reach, reach), ylim=(-reach, reach))
            axis.spines[:].set_visible(True)
    return figure


def over_numbers(
    named: Mapping[str, Any], numbers: Sequence[int], size: tuple[float, float], **labels: str
) -> Any:
    """Lines over a few growing numbers, on a logarithmic axis that names just these.

    Args:
        named: the lines, as `curves` wants them.
        size: of the figure, in inches.
        labels: xlabel and ylabel.
    """
    looks = [(BLUE, "o-"), (ORANGE, "s-"), (GREEN, "^-")]
    figure = lines({"": named}, numbers, size, looks)
    (axis,) = figure.axes
    axis.set(xscale="log", xticks=numbers, xticklabels=numbers, ylim=(0, None), **labels)
    axis.minorticks_off()
    return figure


def note(axis: Any, text: str, at: Any, shift: tuple[float, float], **style: Any) -> None:
    """A text beside the place `at`, that many points to the right of it and above."""
    axis.annotate(text, tuple(at), shift, textcoords="offset points", **style)


def write(axis: Any, texts: Sequence[Sequence[str]], dark: Any, fontsize: int) -> None:
    """Texts into the cells of a picture, row by row; white where the cell is `dark` (r, c)."""
    for i, row in enumerate(texts):
        for k, text in enumerate(row):
            colour = "white" if dark[i, k] else DARK
            axis.text(k, i, text, ha="center", va="center", color=colour, fontsize=fontsize)


def box(
    axis: Any,
    corner: tuple[float, float],
    width: float,
    height: float,
    text: str = "",
    fontsize: int = 10,
    **style: Any,
) -> None:
    """A rectangle from its lower left corner on, with a text in the middle.

    Args:
        style: of `matplotlib.patches.Rectangle`.
    """
    from matplotlib.patches import Rectangle

    look = {"facecolor": "white", "edgecolor": DARK, "linewidth": 1, **style}
    axis.add_patch(Rectangle(corner, width, height, **look))
    middle = (corner[0] + width / 2, corner[1] + height / 2)
    axis.text(*middle, text, ha="center", va="center", fontsize=fontsize)
