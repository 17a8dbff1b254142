"""Figures of distributions: densities, fits, tables, and slices through a joint density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from minidiff import plots
from minidiff.figures import BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, bare, legend_below, new
from minidiff.figures.panels import PALE, SAND, curves, lines, note, write

# ------------------------------------------------------------------- one number at a time


def histogram(values: Tensor, pictures: Tensor, places: Tensor, label: str) -> Any:
    """A histogram with some of what it counts drawn above it, each at its place.

    Args:
        values: (N,) one number a thing.
        pictures: (k, 1, H, W) in [-1, 1], some of the things.
        places: (k,) their numbers, growing.
        label: what the number is.
    """
    figure, (above, axis) = new(2, 1, size=(7.0, 3.3), height_ratios=[1, 2.6])
    figure.get_layout_engine().set(h_pad=0.02, hspace=0)
    axis.hist(values.numpy(), bins=60, color=PALE)
    axis.set(xlabel=label, ylabel="how many", xlim=(0, 1.05 * float(values.max())))
    bare(above).set(ylim=(0, 1), xlim=axis.get_xlim())
    low, high = axis.get_xlim()
    for i, (picture, place) in enumerate(zip(pictures, places.tolist(), strict=True)):
        # Spread evenly above, with a line to where the number lies.
        middle = (i + 0.5) / len(places)
        box = above.inset_axes((middle - 0.05, 0.25, 0.1, 0.75))
        plots.draw(box, picture)
        bare(box)
        above.plot([low + middle * (high - low), place], [0.25, 0], color=GREY, lw=1)
        axis.axvline(place, color=GREY, lw=0.6, ls=":")
    return figure


def learnt(x: Tensor, truth: Tensor, samples: Tensor, fitted: Tensor) -> Any:
    """A density, a histogram of draws from it, and the density estimated back from them.

    Args:
        x: (n,) places.
        truth, fitted: (n,) densities there.
        samples: (N,) draws.
    """
    figure, axis = new(size=(6.4, 3.4))
    bars = {"bins": 40, "density": True, "color": SAND}
    axis.hist(samples.numpy(), label=f"{len(samples)} draws", **bars)
    axis.plot(x, truth, color=DARK, label="the density")
    axis.plot(x, fitted, color=BLUE, ls=":", lw=3, label="estimated from\nthe draws")
    axis.set(xlabel="$x$", ylabel="density", xlim=(float(x[0]), float(x[-1])))
    axis.legend(loc="upper left", fontsize=10, frameon=False)
    return figure


def likelihoods(
    x: Tensor,
    candidates: Mapping[str, tuple[Tensor, Tensor]],
    examples: Tensor,
    mu: Tensor,
    curve: Tensor,
    best: float,
) -> Any:
    """Left: curves over a few examples, with their heights there. Right: how well each mu does.

    Args:
        x: (n,) places.
        candidates: name -> density (n,) there, and (k,) at the examples.
        examples: (k,).
        mu, curve: (m,) candidates for the mean, and the log-likelihood of each.
        best: the mean of the examples.
    """
    figure, (left, right) = new(1, 2, size=(7.2, 3.1), width_ratios=[1.5, 1])
    looks = ((GREY, "--"), (ORANGE, "-"), (GREEN, "-."))
    for (name, (density, heights)), (colour, form) in zip(candidates.items(), looks):
        left.plot(x, density, form, color=colour, label=name)
        left.plot(examples, heights, "o", color=colour, ms=4)
    left.plot(examples, [0] * len(examples), "^", color=BLUE, ms=8, clip_on=False, label="examples")
    left.set(xlabel="$x$", ylabel="density", ylim=(0, None), xlim=(float(x[0]), float(x[-1])))
    legend_below(figure, left, ncols=4)
    right.plot(mu, curve, color=ORANGE)
    right.axvline(best, color=BLUE, ls=":")
    right.set(xlabel=r"$\mu$", ylabel="log-likelihood")
    lowest = (best, float(curve.min()))
    note(right, "mean of\nthe examples", lowest, (6, 2), color=BLUE, fontsize=9)
    return figure


def repeats(x: Tensor, truth: Tensor, fits: Mapping[str, Tensor]) -> Any:
    """The same estimate again and again from new examples, a panel for each number of examples.

    Args:
        x: (n,) places.
        truth: (n,) density.
        fits: title -> (R, n) estimated densities.
    """
    panels = {title: {"": several.T} for title, several in fits.items()}
    looks, style = [(ORANGE, "-")], {"lw": 0.8, "alpha": 0.7}
    figure = lines(panels, x, (7.0, 2.4), looks, style=style, sharey=True, legend=False)
    for axis in figure.axes:
        axis.plot(x, truth, color=DARK, lw=1.6)
        axis.set(xlabel="$x$", yticks=[])
    figure.axes[0].set_ylabel("density")
    return figure


def wrong(
    x: Tensor, truth: Tensor, missing: Mapping[str, Tensor], edges: Tensor, table: Any
) -> Any:
    """A curve that misses a density, and a histogram that does not.

    Args:
        x: (n,) places.
        truth: (n,) density.
        missing: name of the curve -> (n,).
        edges, table: (k + 1,) and (k,) the histogram, as a density.
    """
    figure, (left, right) = new(1, 2, size=(7.0, 2.7), sharex=True, sharey=True)
    for axis in (left, right):
        axis.fill_between(x, truth, color=PALE, lw=0, label="the density")
        axis.set(xlabel="$x$", xlim=(float(x[0]), float(x[-1])))
    curves(left, x, missing, [(ORANGE, ":")], lw=3)
    right.stairs(table, edges, color=ORANGE, lw=1.6, label=f"a table of {len(table)} cells")
    left.set(ylabel="density", ylim=(None, 1.45 * float(truth.max())))
    for axis in (left, right):
        axis.legend(loc="upper left", fontsize=9, frameon=False)
    return figure


def cells(sides: Sequence[int], share: Sequence[float], pictures: Sequence[Tensor]) -> Any:
    """How many unseen things fall into a cell of a table that is not empty.

    Args:
        sides: k sizes of the picture.
        share: (k,) of the unseen glyphs whose cell has been met.
        pictures: k pictures (side, side), True = paper.
    """
    figure, (above, axis) = new(2, 1, size=(7.0, 3.4), height_ratios=[1, 2.1])
    bare(above)
    above.set(xlim=(-0.5, len(sides) - 0.5), ylim=(0, 1))
    bars = axis.bar(range(len(sides)), share, color=BLUE, width=0.6)
    axis.bar_label(
        bars, [f"{100 * v:.{0 if v > 0.1 else 1}f} %" for v in share], fontsize=10, padding=2
    )
    numbers = [_power(side**2) for side in sides]
    axis.set_xticks(range(len(sides)), [f"{k} × {k}\n{n}\ncells" for k, n in zip(sides, numbers)])
    axis.set(ylabel="already met", ylim=(0, 1.18), yticks=[0, 0.5, 1])
    axis.set_yticklabels(["0 %", "50 %", "100 %"])
    axis.set_xlim(above.get_xlim())
    for i, picture in enumerate(pictures):
        box = above.inset_axes((i - 0.45, 0, 0.9, 1), transform=above.transData)
        box.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        bare(box)
        for spine in box.spines.values():
            spine.set_visible(True)
    return figure


def _power(bits: int) -> str:
    """2 to this power, written out or rounded."""
    if bits <= 25:
        return f"{2**bits:,}"
    first, power = f"{2**bits:.0e}".split("e+")
    return f"$10^{{{power}}}$" if first == "1" else f"{first} · $10^{{{power}}}$"


def machine(z: Tensor, x: Tensor, places: Tensor, heights: Tensor) -> Any:
    """Noise in, samples out: two histograms and the function between them.

    Args:
        z, x: (N,) what goes in and what comes out.
        places, heights: (n,) the function.
    """
    figure, (left, middle, right) = new(1, 3, size=(7.0, 2.5))
    left.hist(z.numpy(), bins=50, density=True, color=LIGHT)
    middle.plot(places, heights, color=DARK)
    right.hist(x.numpy(), bins=50, density=True, color=ORANGE, alpha=0.8)
    left.set(title="noise goes in", xlabel="$z$", yticks=[])
    middle.set(title="the machine", xlabel="$z$", ylabel="$x$")
    right.set(title="samples come out", xlabel="$x$", yticks=[])
    return figure


# ------------------------------------------------------------------- two things at a time


def table(counts: Tensor, rows: Sequence[str], columns: Sequence[str], of_row: Tensor) -> Any:
    """A joint table with its sums, and beside it each row divided by its sum.

    Args:
        counts: (r, c) whole numbers.
        rows, columns: names, r and c of them.
        of_row: (r, c) shares.
    """
    figure, (left, right) = new(1, 2, size=(7.2, 3.6), width_ratios=[5, 4])
    whole = np.hstack([counts.numpy(), counts.sum(1, keepdim=True).numpy()])
    whole = np.vstack([whole, whole.sum(0, keepdims=True)])
    _numbers(left, np.sqrt(whole), [[f"{v:,}" for v in row] for row in whole], len(columns))
    shares = of_row.numpy()
    texts = [[f"{v:.0%}" for v in row] for row in shares]
    _numbers(right, shares * np.sqrt(float(counts.max())), texts, len(columns))
    for axis, sums in ((left, ["sum"]), (right, [])):
        axis.set_xticks(range(len(columns) + len(sums)), [*columns, *sums], rotation=35, ha="left")
        axis.set_yticks(range(len(rows) + len(sums)), [*rows, *sums])
    right.set_ylim(len(rows) + 0.5, -0.5)
    left.axhline(len(rows) - 0.5, color=DARK, lw=1.5)
    left.axvline(len(columns) - 0.5, color=DARK, lw=1.5)
    left.set_xlabel("glyphs")
    right.set_xlabel("each row by itself")
    return figure


def _numbers(axis: Any, shade: Any, texts: list[list[str]], columns: int) -> None:
    """A table of numbers on shaded cells; the sums in further columns and rows stay white."""
    inside = shade.copy()
    inside[:, columns:] = 0
    if inside.shape[1] > columns:
        inside[-1] = 0
    limit = float(inside.max()) * 1.05
    axis.imshow(inside, cmap="Blues", vmin=0, vmax=limit, aspect="auto")
    bare(axis)
    axis.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    write(axis, texts, inside > 0.6 * limit, fontsize=10)


def joint_slice(
    x: Tensor, y: Tensor, joint: Tensor, at: float, conditional: Tensor, peaks: Sequence[float]
) -> Any:
    """A joint density with both marginals, one slice, and the slice scaled to an area of 1.

    Args:
        x, y: (n,) and (m,) the axes, evenly spaced.
        joint: (m, n) density.
        at: where y is cut.
        conditional: (n,) density of x there.
        peaks: places of x to mark.
    """
    ratios = {"width_ratios": [3.2, 1], "height_ratios": [1.1, 2.4, 1.3]}
    figure, ((top, corner), (middle, side), (bottom, empty)) = new(3, 2, (6.6, 6.0), **ratios)
    corner.set_axis_off()
    empty.set_axis_off()
    over_y = joint.sum(1) * (x[1] - x[0])
    top.fill_between(x, joint.sum(0) * (y[1] - y[0]), color=PALE, lw=0)
    top.set(title="$p(x)$: every $y$ added up", yticks=[], xticklabels=[])
    levels = (float(joint.max()) * np.linspace(0.02, 1.0, 9)).tolist()
    middle.contourf(x, y, joint, levels=levels, cmap="Blues", vmin=-0.15 * levels[-1])
    middle.axhline(at, color=ORANGE, ls="--")
    middle.set(ylabel="$y$", xticklabels=[])
    middle.text(0, at + 0.08, "$y = y_1$", color=ORANGE, fontsize=11, ha="center", va="bottom")
    side.fill_betweenx(y, over_y, color=PALE, lw=0)
    row = int((y - at).abs().argmin())
    side.plot([0, float(over_y[row])], [at, at], color=ORANGE, lw=2)
    side.text(float(over_y[row]), at, " $p(y_1)$", color=ORANGE, va="bottom", fontsize=11)
    side.set(title="$p(y)$", yticklabels=[], xticks=[])
    side.set(ylim=(float(y[0]), float(y[-1])), xlim=(0, 1.5 * float(over_y.max())))
    area = {"color": ORANGE, "alpha": 0.25, "lw": 0}
    bottom.fill_between(x, joint[row], label="the slice, $p(x, y_1)$", **area)
    bottom.plot(x, conditional, color=ORANGE, label="scaled to area 1: $p(x | y_1)$")
    bottom.set(xlabel="$x$", yticks=[], ylim=(0, 1.75 * float(conditional.max())))
    bottom.legend(loc="upper right", fontsize=9, frameon=False)
    for axis, height in ((top, 1.0), (middle, 1.0), (bottom, 0.6)):  # not through the legend
        axis.set_xlim(float(x[0]), float(x[-1]))
        for place in peaks:
            axis.axvline(place, ymax=height, color=GREY, lw=1, ls=":")
    return figure


def slices(x: Tensor, marginal: Tensor, rows: Mapping[str, Tensor]) -> Any:
    """Slices at several y, scaled, each before the marginal.

    Args:
        x: (n,) places.
        marginal: (n,) density of x.
        rows: title -> (n,) density of x there.
    """
    panels = {title: {"": density} for title, density in rows.items()}
    figure = lines(panels, x, (7.2, 2.2), [(ORANGE, "-")], sharey=True, legend=False)
    for axis in figure.axes:
        axis.fill_between(x, marginal, color=PALE, lw=0)
        axis.set(xlabel="$x$", yticks=[])
    figure.axes[0].set_ylim(0)
    return figure


def bands(points: Tensor, chosen: Mapping[str, Tensor], x: Tensor, conditional: Tensor) -> Any:
    """Examples near one value of y: where they are, and how their x are spread.

    Args:
        points: (N, 2) all examples (x, y).
        chosen: title -> mask (N,) of those that count as near.
        x, conditional: (n,) places and the density there at the very value of y.
    """
    figure, axes = new(2, len(chosen), size=(7.0, 3.9), sharex=True, sharey="row")
    settings = {"bins": np.linspace(float(x[0]), float(x[-1]), 31).tolist(), "density": True}
    for (above, below), (title, mask) in zip(axes.T, chosen.items()):
        above.scatter(*points[~mask].T, s=2, c=LIGHT, linewidths=0)
        above.scatter(*points[mask].T, s=5, c=ORANGE, linewidths=0)
        above.set_title(title)
        below.hist(points[mask][:, 0].numpy(), color=SAND, **settings)
        below.plot(x, conditional, color=BLUE)
        below.set(xlabel="$x$", yticks=[])
        above.set_xlim(float(x[0]), float(x[-1]))
    axes[0, 0].set(ylabel="$y$")
    axes[1, 0].set_ylim(0, 2.2 * float(conditional.max()))
    return figure


def guesses(x_t: Tensor, panels: Mapping[str, Mapping[str, Tensor]]) -> Any:
    """What denoisers guess for every noisy x_t, a panel for each amount of noise.

    Args:
        x_t: (n,) noisy values.
        panels: title -> name of a denoiser -> guesses (n,).
    """
    looks = [(GREY, "-"), (BLUE, "--"), (ORANGE, "-.")]
    figure = lines(panels, x_t, (7.0, 2.9), looks, sharey=True, xlabel="noisy $x_t$")
    figure.axes[0].set_ylabel(r"guess $\hat x_0$")
    return figure
