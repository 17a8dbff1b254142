"""Figures of noising and of the best possible denoiser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minidiff import plots
from minidiff.figures import BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, arrow, bare, legend_below, new
from minidiff.figures.panels import curves, lines, note
from minidiff.glyphs import as_pictures
from minidiff.schedules import Schedule

BROWN = "#a85400"  # orange for letters and thin lines, dark enough to read
SEEN = 1e-4  # smaller weights are not shown


def _picture(axis: Any, image: Tensor, title: str = "") -> None:
    """A glyph (1, h, w) in [-1, 1] on an axis of its own, with a thin frame: paper is white too."""
    plots.draw(axis, image, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set(visible=True, color=LIGHT)
    if title:
        axis.set_title(title)


# ---------------------------------------------------------------------------- noising


def overview(images: Tensor) -> Any:
    """The whole way from data to noise and back, after figure 2 of Ho et al. (2020).

    Args:
        images: (4, 1, h, w) in [-1, 1], one glyph at t = 0, t − 1, t and T.
    """
    figure, axis = new(size=(5.9, 2.1))
    bare(axis).set_aspect("equal")
    lefts, side = (0.0, 1.75, 4.75, 6.5), 1.1
    names = ("$x_0$\ndata", "$x_{t-1}$", "$x_t$", "$x_T$\nnoise")
    # Seven greys are enough, and make a small file.
    images = (as_pictures(images).clamp(-1, 1) * 3).round() / 3
    frame = torch.tensor([[0, 1, 1, 0, 0], [0, 0, 1, 1, 0]]) * side
    for image, left, name in zip(images, lefts, names):
        plots.draw(axis, image, interpolation="nearest", extent=(left, left + side, 0, side))
        axis.plot(left + frame[0], frame[1], color=GREY, lw=1)
        axis.text(left + side / 2, -0.12, name, size=13, ha="center", va="top")
    for left, right in pairwise(lefts):
        long = right - left > 2.5
        gap = (left + side + 0.08, right - 0.08)
        middle = sum(gap) / 2
        if not long:
            axis.text(middle, side / 2, "· · ·", size=13, ha="center", va="center")
        _arrow(axis, gap[0], gap[1], 0.76 * side, BLUE)
        _arrow(axis, gap[1], gap[0], 0.24 * side, ORANGE)
        if long:
            axis.text(middle, 0.9 * side, "$q(x_t | x_{t-1})$", size=13, color=BLUE, ha="center")
            back = {"size": 13, "color": BROWN, "ha": "center", "va": "top"}
            axis.text(middle, 0.1 * side, r"$p_\theta(x_{t-1} | x_t)$", **back)
    axis.set(xlim=(-0.05, 7.65), ylim=(-0.85, 1.45))
    return figure


def _arrow(axis: Any, start: float, end: float, y: float, colour: str) -> None:
    dashes = {"linestyle": (0, (3, 1.5))} if end < start else {}
    arrow(axis, (start, y), (end, y), color=colour, lw=2, **dashes)


def radii(lengths: Mapping[int, Tensor]) -> Any:
    """Histograms of ‖noise‖ / √d, one row for each number of dimensions d.

    Args:
        lengths: d -> (N,) lengths of noise vectors, already divided by √d.
    """
    figure, axes = new(len(lengths), 1, (6.4, 0.6 + 0.7 * len(lengths)), sharex=True, squeeze=False)
    bins = np.linspace(0, 2.5, 126)
    for axis, (d, values) in zip(axes[:, 0], lengths.items()):
        axis.hist(values.numpy(), bins=bins, color=ORANGE)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.text(0.01, 0.55, f"$d$ = {d:,}", transform=axis.transAxes)
    axes[-1, 0].set(xlabel=r"length of the noise, divided by $\sqrt{d}$", xlim=(0, 2.5))
    return figure


def one_step(data: Tensor, chosen: Tensor, shrink: float, deviation: float, draws: Tensor) -> Any:
    """One noising step in the plane: first everything shrinks, then noise is added.

    Args:
        data: (N, 2) examples of x_0.
        chosen: (K, 2) some of them.
        shrink: √(1 − β).
        deviation: √β.
        draws: (K, M, 2) noisy versions x_1 of the chosen ones.
    """
    figure, axes = new(1, 2, (7.0, 3.7), sharex=True, sharey=True)
    for axis, title in zip(axes, ("shrink towards 0", "add noise")):
        bare(axis, title).set_aspect("equal")
        axis.scatter(*data.T, s=5, color=BLUE, linewidths=0, antialiaseds=False)
    axes[0].scatter(*(shrink * data).T, s=5, color=GREY, linewidths=0, antialiaseds=False)
    axes[0].plot(0, 0, "+", color=DARK, ms=10)
    angle = torch.linspace(0, 2 * torch.pi, 90)
    circle = deviation * torch.stack([angle.cos(), angle.sin()])
    for point, around in zip(chosen, draws):
        axes[0].plot(*torch.stack([point, shrink * point]).T, color=DARK, lw=1.5)
        axes[0].plot(*(shrink * point), "o", color=GREY, mec=DARK, ms=7)
        axes[1].scatter(*around.T, s=5, color=ORANGE, linewidths=0, antialiaseds=False, zorder=3)
        for radius in (1, 2):
            axes[1].plot(*(shrink * point[:, None] + radius * circle), color=BROWN, lw=1.2)
        axes[1].plot(*(shrink * point), "o", color=GREY, mec=DARK, ms=7, zorder=4)
        for axis in axes:
            axis.plot(*point, "o", color=BLUE, mec="white", ms=7, zorder=4)
    return figure


def heat(t: Tensor, x: Tensor, density: Tensor, paths: Tensor) -> Any:
    """A density of one number over time as shades, and some paths through it.

    Args:
        t: (K,) timesteps.
        x: (X,) places.
        density: (X, K) density at each place and time.
        paths: (P, K) numbers on their way.
    """
    figure, axis = new(size=(6.2, 3.0))
    levels = np.arange(0, float(density.max()) + 0.075, 0.075)
    shades = axis.contourf(t, x, density, levels=levels, cmap="Blues")
    axis.plot(t, paths.T, color=ORANGE, lw=1.1)
    axis.set(xlabel="timestep $t$", ylabel="$x_t$", ylim=(float(x[0]), float(x[-1])))
    figure.colorbar(shades, ax=axis, label="density $q(x_t)$", pad=0.02, ticks=(0, 0.3, 0.6, 0.9))
    return figure


def finite_density(data: Tensor, alpha: float, sigma: float, places: Tensor) -> Tensor:
    """q(x_t) of noised examples: the mean of a bell of width sigma around each alpha · example.

    Args:
        data: (N, 2) examples, each as likely.
        places: (..., 2) where the density is wanted.

    Returns:
        (...) the density.
    """
    flat = places.reshape(-1, 2)
    total = torch.zeros(len(flat))
    for part in data.split(512):  # a table of all distances at once would be large
        total += torch.exp(-((torch.cdist(flat, alpha * part) / sigma) ** 2) / 2).sum(1)
    return (total / (len(data) * 2 * torch.pi * sigma**2)).view(places.shape[:-1])


def forward(points: Tensor, densities: Tensor, half: float, titles: Sequence[str]) -> Any:
    """Forward diffusion in the plane: samples of x_t above, the density q(x_t) below.

    Args:
        points: (K, N, 2) samples at K times.
        densities: (K, n, n) on a lattice from -half to half; the first of n counts y.
        half: half the side of what is shown.
        titles: K of them.
    """
    figure, axes = new(2, len(points), (7.0, 3.1), sharex=True, sharey=True, squeeze=False)
    for (top, below), cloud, density, title in zip(axes.T, points, densities, titles):
        top.scatter(*cloud.T, s=1, color=BLUE, linewidths=0, antialiaseds=False)
        # The shades of each panel run from 0 to its own highest value: the densities fall a lot.
        levels = np.linspace(0, float(density.max()), 13)
        line = np.linspace(-half, half, len(density))
        below.contourf(line, line, density, levels=levels, cmap="Blues")
        for axis in (top, below):
            axis.set(xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[])
            axis.spines[:].set(visible=True, color=LIGHT)
            axis.set_aspect("equal")
        top.set_title(title)
    axes[0, 0].set_ylabel("samples $x_t$")
    axes[1, 0].set_ylabel("density $q(x_t)$")
    return figure


def schedules(several: Sequence[Schedule]) -> Any:
    """alpha_t, sigma_t and log signal-to-noise of several schedules, one panel each."""
    names = {r"data left, $\alpha_t$": "alpha", r"noise, $\sigma_t$": "sigma"}
    names[r"log ratio, $\lambda_t$"] = "log_snr"
    panels = {title: {s.name: getattr(s, name) for s in several} for title, name in names.items()}
    t = torch.arange(several[0].num_train_timesteps + 1)
    figure = lines(panels, t, (6.8, 2.7), style={"lw": 2}, xlabel="$t$", xticks=(0, 500, 1000))
    figure.axes[2].set_ylim(-12, 12)
    figure.axes[2].axhline(0, color=GREY, lw=1)
    return figure


# ---------------------------------------------------------------------------- denoising


def guesses(values: Tensor, guess: Tensor, cost: Tensor) -> Any:
    """The mean squared error of one guess for several numbers, as a curve over the guess.

    Args:
        values: (N,) the numbers, each as likely.
        guess: (K,) guesses.
        cost: (K,) their mean squared errors.
    """
    figure, axis = new(size=(6.0, 3.0))
    axis.plot(guess, cost, color=BLUE)
    best = int(cost.argmin())
    axis.plot(guess[best], cost[best], "o", color=ORANGE, ms=9)
    place = (guess[best], cost[best])
    note(axis, f"best guess: {guess[best]:.3g}", place, (0, 14), ha="center", color=BROWN)
    for number, count in Counter(values.tolist()).items():
        for i in range(count):
            axis.plot(number, -2.6 - 2.3 * i, "s", color=DARK, ms=7, clip_on=False)
    axis.set(xlabel="the guess", ylabel="mean squared error", ylim=(-6, float(cost.max())))
    axis.spines["bottom"].set_position(("data", 0))
    axis.set_yticks([y for y in axis.get_yticks() if y >= 0 and y <= float(cost.max())])
    axis.tick_params(axis="x", labelbottom=True, pad=26)
    return figure


def two_points(
    x: Tensor, bells: Tensor, weights: Mapping[str, Tensor], guess: Mapping[str, Tensor]
) -> Any:
    """Two originals and what an x_t between them says: bells, weights, best guess.

    Args:
        x: (N,) places of x_t.
        bells: (2, N) density of x_t if it came from the left, from the right.
        weights: name -> (N,) weight of the right one.
        guess: name -> (N,) the average.
    """
    figure, axes = new(1, 3, (7.0, 2.9), sharex=True)
    for bell, colour, style in zip(bells, (BLUE, GREEN), ("-", "--")):
        axes[0].plot(x, bell, style, color=colour)
        axes[0].fill_between(x, bell, color=colour, alpha=0.15, lw=0)
    looks = [(DARK, "-"), (ORANGE, "--"), (GREY, "-.")]
    curves(axes[1], x, weights, looks)
    curves(axes[2], x, guess, looks)
    axes[0].set(title="$q(x_t | x_0)$ of both", yticks=[])
    axes[1].set(title="weight of the right one", yticks=(0, 0.5, 1))
    axes[2].set(title=r"best guess $\hat x_0$", yticks=(-1, 0, 1))
    for axis in axes:
        axis.set_xlabel("$x_t$")
    legend_below(figure, axes[1])
    return figure


def mixture(
    x: Tensor,
    density: Mapping[int, Tensor],
    guess: Mapping[int, Tensor],
    spots: Tensor,
    averages: Mapping[int, Tensor],
) -> Any:
    """A known density under noise, and the best guess: by its formula, and by averaging.

    Args:
        x: (n,) noisy values.
        density, guess: timestep -> (n,) the density of x_t, and the guess of x_0, at these values.
        spots: (k,) noisy values where originals were averaged.
        averages: timestep -> (k,) these averages.
    """
    looks = [(BLUE, "-"), (ORANGE, "--"), (GREEN, "-.")]
    panels = {
        "density $q(x_t)$": {f"$t$ = {t}": values for t, values in density.items()},
        r"best guess $\hat x_0$": {f"$t$ = {t}": values for t, values in guess.items()},
    }
    figure = lines(panels, x, (7.0, 2.9), looks, xlabel="$x_t$")
    curves(
        figure.axes[1],
        spots,
        averages,  # type: ignore[arg-type] # the dots are in no legend, so their names may be numbers
        [(colour, "o") for colour, _ in looks],
        ms=5,
    )
    figure.axes[0].set(yticks=[], ylim=(0, None))
    return figure


def ideal(
    noisy: Tensor, average: Tensor, top: Tensor, weights: Tensor, titles: Sequence[str]
) -> Any:
    """The best denoiser at work: noisy glyphs, averages, and what these are averages of.

    Args:
        noisy: (K, 1, h, w) in [-1, 1], one a column.
        average: (K, 1, h, w).
        top: (K, R, 1, h, w) the glyphs with the largest weights.
        weights: (K, R) these weights.
        titles: K of them.
    """
    rows = 2 + top.shape[1]
    figure, axes = new(rows, len(noisy), (7.0, 1.28 * rows), squeeze=False)
    for k, column in enumerate(axes.T):
        _picture(column[0], noisy[k], titles[k])
        _picture(column[1], average[k])
        for axis, glyph, weight in zip(column[2:], top[k], weights[k].tolist()):
            if weight < SEEN:  # which of those with next to none come first is an accident
                bare(axis)
                continue
            _picture(axis, glyph)
            axis.set_xlabel("100 %" if weight > 0.9995 else f"{100 * weight:.2g} %", labelpad=2)
    names = ["noisy $x_t$", r"average $\hat x_0$", "largest weight"]
    names += [f"{i}." for i in range(2, rows - 1)]
    for axis, name in zip(axes[:, 0], names):
        axis.set_ylabel(name)
    return figure


def by_t(
    panels: Mapping[str, Mapping[str, Tensor]], t: Sequence[int], ylabel: str, **settings: Any
) -> Any:
    """Values against the timestep, one panel a title, several lines in each.

    Args:
        panels: title -> name of a line -> (K,) values.
        t: K timesteps.
        settings: of `minidiff.figures.panels.lines`.
    """
    looks, style = [(BLUE, "o-"), (ORANGE, "s--"), (GREY, "-")], {"ms": 5}
    settings = {"sharey": True, "style": style, "xlabel": "timestep $t$", **settings}
    return lines(panels, t, (7.0, 3.1), looks, ylabel=ylabel, **settings)
