"""Figures of the chapter on how good a model is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from minidiff import plots
from minidiff.figures import BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, bare, new

COLOURS = (BLUE, ORANGE, GREEN)


def clouds(sets: Mapping[str, Tensor]) -> Any:
    """Features of several sets of pictures, seen from where the first one spreads most.

    Each cloud is summed up as an ellipse: its mean and, to twice the deviation, its covariance.

    Args:
        sets: features (N, d) by name, at most three.
    """
    first = next(iter(sets.values()))
    middle = first.mean(0)
    _, _, directions = torch.linalg.svd(first - middle, full_matrices=False)
    figure, axis = new(size=(5.6, 3.8))
    angle = torch.linspace(0, 2 * torch.pi, 100, dtype=first.dtype)
    circle = torch.stack([angle.cos(), angle.sin()])
    for (name, features), colour in zip(sets.items(), COLOURS, strict=False):
        flat = (features - middle) @ directions[:2].T
        root = torch.linalg.cholesky(flat.T.cov())
        ellipse = flat.mean(0)[:, None] + 2 * root @ circle
        axis.scatter(*flat.T, s=7, color=colour, alpha=0.45, linewidths=0)
        axis.plot(*ellipse, color=colour, label=name)
    axis.set(xlabel="first direction", ylabel="second direction")
    axis.set_aspect("equal")
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def yardsticks(examples: Mapping[str, Tensor], distances: Mapping[str, float], name: str) -> Any:
    """Two pictures of each set beside its distance as a bar.

    Args:
        examples: (2, 1, H, W) in [-1, 1] of each set.
        distances: of each set.
        name: of the set that is judged; the others are yardsticks.
    """
    size, ratios = (6.8, 0.75 * len(examples)), [1, 1, 7.5]
    figure, axes = new(len(examples), 3, size, width_ratios=ratios, squeeze=False)
    longest = max(distances.values())
    for row, (label, pictures) in zip(axes, examples.items(), strict=True):
        for axis, picture in zip(row[:2], pictures[:, 0], strict=True):
            plots.draw(bare(axis), picture)
        axis = bare(row[2])
        axis.barh([0], [distances[label]], color=ORANGE if label == name else BLUE, height=0.5)
        axis.set(xlim=(0, 1.2 * longest), ylim=(-0.5, 0.8))
        axis.text(0, 0.4, label, fontsize=10, color=DARK)
        axis.text(distances[label] + longest / 60, 0, f"{distances[label]:.1f}", va="center")
    return figure


def bars(labels: Sequence[str], shares: Sequence[float]) -> Any:
    """Shares as upright bars; labels may be Chinese characters."""
    figure, axis = new(size=(5.6, 2.4))
    axis.bar(range(len(labels)), shares, color=BLUE, width=0.7)
    axis.set_xticks(range(len(labels)), list(labels), fontsize=13)
    axis.set_ylabel("share")
    return figure


def intervals(rows: Mapping[str, tuple[float, float, float]]) -> Any:
    """Shares as points with their intervals as lines, one below the other.

    Args:
        rows: (share, lower end, upper end) by name.
    """
    figure, axis = new(size=(6.4, 0.36 * len(rows) + 0.7))
    for place, (share, low, high) in enumerate(rows.values()):
        axis.plot([low, high], [place, place], color=GREY, lw=2.5, solid_capstyle="butt")
        axis.plot(share, place, "o", color=ORANGE)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.invert_yaxis()
    axis.set(xlabel="share", xlim=(-0.02, 1.02))
    axis.grid(axis="x", color=LIGHT, lw=0.6)
    return figure


def histograms(samples: Mapping[str, Tensor], mark: float, note: str) -> Any:
    """Histograms over each other, with an upright line at a value.

    Args:
        samples: (N,) values by name, at most three.
        mark: where the line stands.
        note: what it means.
    """
    figure, axis = new(size=(6.0, 2.9))
    ends = torch.cat(list(samples.values()))
    bins = torch.linspace(float(ends.min()), float(ends.max()), 31).tolist()
    for (name, values), colour in zip(samples.items(), COLOURS, strict=False):
        axis.hist(values, bins=bins, color=colour, alpha=0.5, density=True, label=name)
    axis.axvline(mark, ymax=0.72, color=DARK, ls="--", lw=1.3, label=note)
    axis.set(xlabel="distance to the nearest training glyph", yticks=[])
    axis.set_ylim(top=1.4 * axis.get_ylim()[1])  # room for the legend
    axis.spines["left"].set_visible(False)
    axis.legend(loc="upper left", frameon=False, fontsize=9)
    return figure
