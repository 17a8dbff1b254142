"""Figures of the chapters on guidance and on editing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from minidiff.figures import BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, new

__all__ = ["arrows", "densities", "round_trip", "scores", "slices", "trade_off"]


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
    for end, colour in ((without, GREY), (told, BLUE)):
        line = {"arrowstyle": "-|>", "color": colour, "lw": 2, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", end.tolist(), x_t.tolist(), arrowprops=line)
    marks = [without + scale * (told - without) for scale in scales]
    axis.plot(
        [without[0], marks[-1][0]], [without[1], marks[-1][1]], color=ORANGE, ls="--", zorder=1
    )
    axis.plot(*x_t, "o", color=DARK)
    axis.annotate("$x_t$", x_t.tolist(), (-20, 2), textcoords="offset points", fontsize=12)
    for scale, mark in zip(scales, marks, strict=True):
        axis.plot(*mark, "o", color=ORANGE, ms=6)
        shift = {"textcoords": "offset points", "color": ORANGE}
        axis.annotate(f"{scale:g}", mark.tolist(), (7, -9), fontsize=11, **shift)
    for end, name, colour, up in (
        (without, "without text", DARK, -12),
        (told, "with text", BLUE, 8),
    ):
        shift = {"textcoords": "offset points", "color": colour, "ha": "right"}
        axis.annotate(name, end.tolist(), (-10, up), fontsize=10, **shift)
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
    left.pcolormesh(
        x.numpy(), y.numpy(), joint.numpy(), cmap="Blues", shading="auto", rasterized=True
    )
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
    figure, axes = new(
        len(drawn), len(titles), size=(7.0, 1.7 * len(drawn) + 0.5), sharex=True, squeeze=False
    )
    low, high = float(x[0]), float(x[-1])
    for row, (name, samples) in zip(axes, drawn.items(), strict=True):
        for axis, values, density in zip(row, samples, expected, strict=True):
            bars = {"bins": 120, "range": (low, high), "density": True, "color": ORANGE}
            axis.hist(values, alpha=0.55, label="drawn", **bars)
            axis.plot(x, density, color=BLUE, label="$q(x)\\,q(y \\mid x)^s$")
            axis.set_xlim(low, high)
        row[0].set_ylabel(name)
    for top, bottom, title in zip(axes[0], axes[-1], titles, strict=True):
        top.set_title(title, fontsize=10)
        bottom.set_xlabel("$x$")
    axes[0][0].legend(loc="upper left", fontsize=9, handlelength=1.2, frameon=False)
    axes[0][0].set_ylim(top=1.7 * axes[0][0].get_ylim()[1])
    return figure


def scores(x: Tensor, guided: Sequence[Tensor], wanted: Sequence[Tensor], titles: list[str]) -> Any:
    """The score that guidance follows beside the one that would be needed, one panel a timestep.

    Args:
        x: (n,) the axis.
        guided, wanted: (n,) scores for each panel.
    """
    figure, (axes,) = new(1, len(titles), size=(7.0, 2.7), squeeze=False)
    for axis, ours, theirs, title in zip(axes, guided, wanted, titles, strict=True):
        axis.axhline(0, color=LIGHT, lw=1)
        axis.plot(x, theirs, color=BLUE, label="needed")
        axis.plot(x, ours, color=ORANGE, ls="--", label="guided")
        axis.set_xlabel("$x$")
        axis.set_title(title, fontsize=10)
    axes[0].set_ylabel("score")
    axes[0].legend(fontsize=9, frameon=False)
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
    left.set(xlabel="guidance scale", ylim=(0, 1.03))
    left.set_title("share that show their word", fontsize=10)
    highest = max(max(values) for values in [*variety.values(), list(real.values())])
    right.set(xlabel="guidance scale", ylim=(0, 1.1 * highest))
    right.set_title("distance between two glyphs", fontsize=10)
    left.legend(loc="lower right", frameon=False)
    return figure


def round_trip(steps: Sequence[int], errors: Mapping[str, Sequence[float]]) -> Any:
    """The error of going up to the noise and down again, against the number of steps.

    Args:
        steps: in each direction.
        errors: for each way of going up, one error a number of steps.
    """
    figure, axis = new(size=(5.0, 3.0))
    for (name, values), colour, mark in zip(
        errors.items(), (BLUE, ORANGE, GREEN), "os^", strict=False
    ):
        axis.semilogx(steps, values, color=colour, marker=mark, label=name)
    axis.set(xlabel="steps in each direction", ylabel="error of a pixel", ylim=(0, None))
    axis.set_xticks(list(steps), [str(n) for n in steps])
    axis.minorticks_off()
    axis.legend(frameon=False)
    return figure
