"""Figures of pixel space: a glyph as a vector, principal directions, and maps of all glyphs.

The UMAP of all glyphs takes minutes, so its coordinates come with the package (`load_map`);
tools/data/build_atlas.py makes them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff import plots
from minidiff.figures import BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, bare, new
from minidiff.figures.panels import lines, write
from minidiff.glyphs import as_pictures

FOLDER = Path(__file__).resolve().parents[1] / "data" / "atlas"
LEVELS = 65_535  # coordinates are stored in 16 bits
COLOURS = {"left-right": BLUE, "top-bottom": ORANGE, "surround": GREEN, "other": GREY}
NAMES = {"left-right": "side by side", "top-bottom": "stacked", "surround": "surround"}


EXTRA = {"umap": "umap-learn", "scipy": "scipy"}  # module: name of its package


def require_extra() -> None:
    """Say at the start of the chapter, not half-way through it, what is missing.

    Raises:
        ImportError: naming the packages and how to install them.
    """
    missing = [name for module, name in EXTRA.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(
            f"this chapter needs {' and '.join(missing)}: pip install {' '.join(missing)}, or "
            "minidiff with its extra: pip install 'minidiff[notebooks]'"
        )


# --------------------------------------------------------------------------------- the map


def digest_of(chars: Iterable[str]) -> str:
    """A fingerprint of which characters there are, and in which order."""
    return hashlib.sha256("".join(chars).encode("utf-8")).hexdigest()


def load_map(folder: Path = FOLDER) -> Tensor:
    """Where each glyph lies on the UMAP that comes with the package: float32 (20509, 2).

    In the order of `minidiff.glyphs.load_glyphs`, which is that of `GlyphDataset(split="all")`.

    Raises:
        ValueError: if the map is not one of these glyphs.
    """
    from safetensors.numpy import load

    from minidiff.glyphs import load_glyphs

    about = json.loads((folder / "umap.json").read_text(encoding="utf-8"))
    points = load((folder / "umap.safetensors").read_bytes())["points"]
    chars = [glyph.char for glyph in load_glyphs()]
    if points.shape != (len(chars), 2) or points.dtype != np.uint16:
        raise ValueError(
            f"{folder} holds {points.dtype} coordinates of shape {points.shape}, wanted are "
            f"uint16 for {len(chars):,} glyphs: run tools/data/build_atlas.py"
        )
    if about["characters"] != digest_of(chars):
        raise ValueError(f"{folder} is a map of other glyphs: run tools/data/build_atlas.py")
    low, step = torch.tensor(about["low"]), about["step"]
    return torch.from_numpy(points.astype(np.float32)) * step + low


def principal(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Principal component analysis of the points x (N, d).

    Returns:
        their mean (d,), the variances along the principal directions (d,), largest first, and
        these directions, orthonormal, one a row (d, d).
    """
    mean = x.mean(0)
    variances, directions = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    variances, directions = variances.flip(0).clamp(min=0), directions.T.flip(0)
    # A direction and its opposite are as good; so that all machines agree, the larger end is up.
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return mean, variances, directions * largest.sign()


# ------------------------------------------------------------------------------ one glyph


def vector(image: Tensor) -> Any:
    """A small glyph (1, h, w) in [-1, 1] as a picture, as numbers, and row by row as one vector."""
    image = as_pictures(image)
    height, width = image.shape[-2:]
    figure, axes = new(size=(6.4, 4.7))
    axes.remove()
    above, below = figure.subfigures(2, 1, height_ratios=[3.3, 1.1])
    picture, numbers = above.subplots(1, 2)
    for axis in (picture, numbers):
        plots.draw(axis, image)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(visible=True, color=GREY)
    picture.set_title("a picture")
    numbers.set_title(f"{height} × {width} numbers")
    texts = [[f"{value:.1f}".replace("-", "−") for value in row] for row in image[0].tolist()]
    texts = [[text.replace(".0", "") for text in row] for row in texts]
    write(numbers, texts, image[0] < 0, fontsize=8)
    _strip(below.subplots(), image.flatten(), width)
    return figure


def _strip(axis: Any, values: Tensor, width: int) -> None:
    """The vector as one line of cells, with the places where a new row of the picture begins."""
    d = len(values)
    plots.draw(axis, values[None], aspect="auto", extent=(0, d, 0, 1))
    bare(axis, f"one vector, $x = (x_1, x_2, \\ldots, x_{{{d}}})$")
    axis.plot([0, d, d, 0, 0], [0, 0, 1, 1, 0], color=GREY, lw=1, clip_on=False)
    for row in range(d // width):
        axis.plot([row * width] * 2, [-0.4, 1], color=ORANGE, lw=1.2)
        axis.text((row + 0.5) * width, -0.2, f"row {row + 1}", size=9, ha="center", va="center")
    axis.set(xlim=(-0.5, d + 0.5), ylim=(-0.4, 1.02))


# ------------------------------------------------------------------------------- curves


def histograms(groups: Mapping[str, Tensor], label: str) -> Any:
    """Histograms of several groups of numbers above each other, on one axis."""
    colours = (BLUE, ORANGE, GREEN, DARK, GREY)
    highest = max(float(values.max()) for values in groups.values())
    figure, axes = new(len(groups), 1, (6.4, 0.55 + 0.72 * len(groups)), sharex=True, squeeze=False)
    for axis, (name, values), colour in zip(axes[:, 0], groups.items(), colours):
        axis.hist(values.numpy(), bins=np.linspace(0, 1.03 * highest, 70), color=colour)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.text(0, 0.9, name, transform=axis.transAxes, va="top", color=colour)
    axes[-1, 0].set_xlabel(label)
    return figure


def spectrum(shares: Mapping[str, Tensor]) -> Any:
    """Share of the variance that the first k principal directions hold, for k = 0 … d."""
    totals = {name: F.pad(share.cumsum(0), (1, 0)) for name, share in shares.items()}
    longest = range(max(map(len, totals.values())))
    looks = [(BLUE, "-"), (ORANGE, "-"), (GREY, "-")]
    figure = lines({"": totals}, longest, (5.8, 2.8), looks, xlabel="number of directions kept")
    figure.axes[0].set(ylabel="share of the variance", ylim=(0, 1.02))
    return figure


# -------------------------------------------------------------------------------- maps


def _square(axis: Any, title: str = "") -> Any:
    """No ticks: the coordinates of a map mean nothing by themselves."""
    axis.set_aspect("equal")
    return bare(axis, title)


def _dots(axis: Any, points: Tensor, colours: Sequence[str], cells: int) -> None:
    """Points as coloured cells of a lattice, which for thousands of them takes far fewer bytes.

    Where several fall into one cell, the last one is seen.
    """
    from matplotlib.colors import to_rgb

    low, high = points.amin(0), points.amax(0)
    step = float((high - low).max()) / (cells - 1)
    column, row = ((points - low) / step).round().long().T
    palette = {colour: to_rgb(colour) for colour in set(colours)}
    picture = np.ones((int(row.max()) + 1, int(column.max()) + 1, 3))
    picture[row, column] = [palette[colour] for colour in colours]
    (left, bottom), (height, width) = (low - step / 2).tolist(), picture.shape[:2]
    extent = (left, left + width * step, bottom, bottom + height * step)
    axis.imshow(picture, origin="lower", extent=extent, interpolation="nearest")


def _key(figure: Any, entries: Mapping[str, str]) -> None:
    """A legend below the panels: name -> colour."""
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], marker="o", ls="", color=colour) for colour in entries.values()]
    place = {"loc": "outside lower center", "ncols": min(len(entries), 5)}
    figure.legend(marks, entries, handletextpad=0.1, frameon=False, **place)


def by_layout(
    panels: Mapping[str, tuple[Tensor, Sequence[str]]],
    size: tuple[float, float] = (6.4, 3.4),
    cells: int = 150,
) -> Any:
    """Maps side by side, each glyph a dot in the colour of its layout.

    Args:
        panels: title -> coordinates (N, 2) and the layouts of these N glyphs.
        size: of the figure, in inches.
        cells: dots that would fit side by side on a map: the more, the smaller.
    """
    figure, axes = new(1, len(panels), size, squeeze=False)
    for axis, (title, (points, layouts)) in zip(axes[0], panels.items()):
        _dots(axis, points, [COLOURS[layout] for layout in layouts], cells)
        _square(axis, title)
    _key(figure, {NAMES.get(layout, layout): colour for layout, colour in COLOURS.items()})
    return figure


def atlas(points: Tensor, layouts: Sequence[str], signs: Mapping[int, str]) -> Any:
    """The map of all glyphs in the colours of their layouts, some of them written at their places.

    Args:
        points: (N, 2).
        layouts: of each.
        signs: number of a glyph -> the character.
    """
    figure = by_layout({"": (points, layouts)}, (6.0, 6.2), 400)
    (axis,) = figure.axes
    for i, sign in signs.items():
        x, y = points[i].tolist()
        box = {"boxstyle": "round,pad=0.08", "fc": "white", "ec": COLOURS[layouts[i]], "lw": 1}
        axis.text(x, y, sign, size=15, color=DARK, ha="center", va="center", bbox=box)
    return figure


def highlighted(points: Tensor, groups: Mapping[str, Tensor]) -> Any:
    """The map in grey, with groups of glyphs (up to seven; numbers of the glyphs) in colour."""
    palette = (BLUE, ORANGE, GREEN, "#a4369c", "#b02a37", DARK, "#8a7400")
    colours = dict(zip(groups, palette))
    figure, axis = new(size=(6.0, 6.0))
    chosen = torch.cat(list(groups.values()))
    parts = [LIGHT] * len(points) + [colours[name] for name, i in groups.items() for _ in i]
    _dots(axis, torch.cat([points, points[chosen]]), parts, 300)
    _square(axis)
    _key(figure, colours)
    return figure


def pairs(panels: Mapping[str, tuple[Tensor, Tensor]]) -> Any:
    """Framed panels with two clouds of points, one blue, one orange: title -> (N, 2) and (M, 2)."""
    figure, axes = new(1, len(panels), (6.4, 3.4), squeeze=False)
    for axis, (title, clouds) in zip(axes[0], panels.items()):
        colours = [colour for cloud, colour in zip(clouds, (BLUE, ORANGE)) for _ in cloud]
        points = torch.cat(clouds)
        _dots(axis, points, colours, 110)
        x, y = ((points.amax(0) + points.amin(0)) / 2).tolist()
        half = 0.56 * float((points.amax(0) - points.amin(0)).max())
        _square(axis, title).set(xlim=(x - half, x + half), ylim=(y - half, y + half))
        axis.spines[:].set(visible=True, color=LIGHT)
    return figure


def densities(panels: Mapping[str, tuple[Tensor, Tensor]]) -> Any:
    """Densities over maps, the darker the denser.

    Args:
        panels: title -> lattice (2, rows, columns), see `lattice`, and the density on it
            (rows, columns).
    """
    figure, axes = new(1, len(panels), (6.4, 3.4), squeeze=False)
    for axis, (title, ((x, y), density)) in zip(axes[0], panels.items()):
        levels = np.linspace(0, float(density.max()), 10)
        axis.contourf(x.numpy(), y.numpy(), density.numpy(), levels=levels, cmap="Oranges")
        _square(axis, title)
    return figure


def lattice(points: Tensor, cells: int = 90) -> Tensor:
    """A lattice of places that covers the points with a margin: (2, cells, cells), x and y."""
    low, high = points.amin(0), points.amax(0)
    margin = 0.06 * (high - low).max()
    ends = zip((low - margin).tolist(), (high + margin).tolist())
    x, y = (torch.linspace(start, end, cells) for start, end in ends)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))
