"""Figures of the chapters on guidance and on editing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from minidiff.figures import BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, arrow, new
from minidiff.figures.panels import histograms, lines, note


def arrows(
    data: Tensor, x_t: Tensor, without: Tensor, told: Tensor, scales: Sequence[float]
) -> Any:
    """The two guesses as arrows from x_t, and where guidance goes from the one past the other.

    Args:
        data: (N, 2) points of the data.
        x_t, without, told: (2,) the noisy point and the guesses without and with a text.
        scales: guidance scales to mark.
    """
    figure, axis = new(size=(4.6, 4.2))
    axis.scatter(*data.T, s=4, color=LIGHT, label="data", zorder=0)
    arrow(axis, x_t.tolist(), without.tolist(), color=GREY, lw=2)
    arrow(axis, x_t.tolist(), told.tolist(), color=BLUE, lw=2)
    marks = [without + scale * (told - without) for scale in scales]
    axis.plot(*torch.stack([without, marks[-1]]).T, color=ORANGE, ls="--", zorder=1)
    axis.plot(*x_t, "o", color=DARK)
    note(axis, "$x_t$", x_t, (-20, 2), fontsize=12)
    for scale, mark in zip(scales, marks, strict=True):
        axis.plot(*mark, "o", color=ORANGE, ms=6)
        patch = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"}
        note(axis, f"{scale:g}", mark, (8, -9), fontsize=11, color=ORANGE, bbox=patch)
    note(axis, "without text", without, (-10, -12), fontsize=10, color=DARK, ha="right")
    note(axis, "with text", told, (-10, 8), fontsize=10, color=BLUE, ha="right")
    axis.set_aspect("equal")
    return figure


def slices(
    x: Tensor, y: Tensor, joint: Tensor, at: float, marginal: Tensor, conditional: Tensor
) -> Any:
    """A joint density with a slice through it, and the densities of x without and with y known.

    Args:
        x, y: (n,) and (m,) the axes.
        joint: (m, n) density of both.
        at: the value of y.
        marginal, conditional: (n,) densities of x.
    """
    figure, (left, right) = new(1, 2, size=(7.0, 2.9))
    axes = (x.numpy(), y.numpy(), joint.numpy())
    left.pcolormesh(*axes, cmap="Blues", shading="auto", rasterized=True)
    left.axhline(at, color=ORANGE, ls="--")
    left.set(xlabel="$x$", ylabel="$y$")
    left.set_title("both together", fontsize=10)
    right.plot(x, marginal, color=GREY, label="$q(x)$: nothing known")
    right.plot(x, conditional, color=BLUE, label="$q(x \\mid y)$: on the dashed line")
    right.set(xlabel="$x$", ylim=(0, 1.45 * float(conditional.max())))
    right.set_title("$x$ alone", fontsize=10)
    right.legend(loc="upper left", fontsize=9, frameon=False)
    return figure


def densities(
    x: Tensor,
    drawn: Mapping[str, Sequence[Tensor]],
    expected: Sequence[Tensor],
    titles: Sequence[str],
) -> Any:
    """What samplers drew as histograms, one row a sampler, and the density one might expect.

    Args:
        x: (n,) the axis.
        drawn: for each row's name one (N,) tensor of samples a column.
        expected: (n,) density for each column.
    """
    rows = {
        name: {t: (d, {"drawn": v}) for t, d, v in zip(titles, expected, samples, strict=True)}
        for name, samples in drawn.items()
    }
    size, limits = (7.0, 1.7 * len(rows) + 0.5), (float(x[0]), float(x[-1]))
    bars = {"bins": 120, "range": limits, "color": ORANGE, "alpha": 0.55}
    label = r"$q(x)\,q(y \mid x)^s$"
    figure = histograms(rows, x, size, bars=bars, label=label, xlabel="$x$", xlim=limits)
    for axis in figure.axes:
        axis.title.set_size(10)
    figure.axes[0].legend(loc="upper left", fontsize=9, handlelength=1.2, frameon=False)
    figure.axes[0].set_ylim(top=1.7 * figure.axes[0].get_ylim()[1])
    return figure


def scores(x: Tensor, guided: Sequence[Tensor], wanted: Sequence[Tensor], titles: list[str]) -> Any:
    """The score that guidance follows beside the one that would be needed, one panel a timestep.

    Args:
        x: (n,) the axis.
        guided, wanted: (n,) scores for each panel.
    """
    panels = {t: {"needed": b, "guided": a} for t, a, b in zip(titles, guided, wanted, strict=True)}
    figure = lines(panels, x, (7.0, 2.7), legend=False, xlabel="$x$")
    for axis in figure.axes:
        axis.axhline(0, color=LIGHT, lw=1, zorder=1.9)  # behind the lines
        axis.title.set_size(10)
    figure.axes[0].set_ylabel("score")
    figure.axes[0].legend(fontsize=9, frameon=False)
    return figure


def trade_off(
    scales: Sequence[float],
    shares: Mapping[str, Sequence[tuple[float, float, float]]],
    variety: Mapping[str, Sequence[float]],
    real: Mapping[str, float],
) -> Any:
    """How many glyphs show their word, and how different they are, against the guidance scale.

    Args:
        scales: of the guidance.
        shares: for each word (share, lower, upper end of its interval) at every scale.
        variety: for each word the mean distance between two glyphs at every scale.
        real: for each word that distance between real glyphs.
    """
    figure, (left, right) = new(1, 2, size=(7.0, 3.0))
    for i, (word, colour) in enumerate(zip(shares, (BLUE, ORANGE, GREEN), strict=False)):
        place = [scale + 0.08 * i for scale in scales]  # side by side: intervals lie apart
        middle = [share for share, _, _ in shares[word]]
        reach = [[m - low for m, low, _ in shares[word]], [h - m for m, _, h in shares[word]]]
        settings: dict[str, Any] = {"color": colour, "marker": "os^"[i], "ms": 5, "label": word}
        left.errorbar(place, middle, reach, capsize=2, elinewidth=1, **settings)
        right.plot(scales, variety[word], **settings)
        right.axhline(real[word], color=colour, ls=":", lw=1.2)
    left.set(xlabel="guidance scale", ylim=(0, 1.03), xticks=scales)
    left.set_title("share that show their word", fontsize=10)
    highest = max(max(values) for values in [*variety.values(), list(real.values())])
    right.set(xlabel="guidance scale", ylim=(0, 1.1 * highest), xticks=scales)
    right.set_title("distance between two glyphs", fontsize=10)
    left.legend(loc="lower right", frameon=False)
    return figure
