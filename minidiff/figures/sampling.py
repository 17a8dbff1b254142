"""Figures of sampling and of the score: walks, steps, vector fields.

Where many small things lie over each other they are drawn without smooth edges: that makes the
stored pictures several times smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minidiff import plots
from minidiff.figures import BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, bare, legend_below, new
from minidiff.figures.panels import lines


def one_step(data: Tensor, x_t: Tensor, x0: Tensor, kept: Tensor, fresh: Tensor) -> Any:
    """One step in the plane: the same guess, with the old noise and with fresh noise.

    Args:
        data: (N, 2) examples.
        x_t: (2,) where the step starts.
        x0: (2,) the guess there.
        kept: (2,) where DDIM lands.
        fresh: (M, 2) where DDPM lands in M tries.
    """
    figure, axes = new(1, 2, size=(6.0, 3.1), sharex=True, sharey=True)
    titles = ("keep the noise: one end", f"renew a part: {len(fresh)} tries")
    for axis, ends, title in zip(axes, (kept[None], fresh), titles):
        bare(axis, title).set_aspect("equal")
        axis.scatter(*data.T, s=4, color=LIGHT, antialiased=False)
        size, smooth = (45, True) if len(ends) == 1 else (6, False)
        axis.scatter(*ends.T, s=size, color=ORANGE, label="$x_s$", zorder=3, antialiased=smooth)
        axis.plot(*torch.stack([x_t, x0]).T, "--", color=DARK, linewidth=1, zorder=4)
        axis.scatter(*x_t, s=45, color=DARK, label="$x_t$", zorder=5)
        axis.scatter(*x0, s=110, color=BLUE, marker="*", label=r"$\hat x_0$", zorder=5)
    legend_below(figure, axes[0], fontsize=12, handletextpad=0.1)
    return figure


def reverse_kernels(x: Tensor, truth: Tensor, step: Tensor, titles: Sequence[str]) -> Any:
    """What x_s may be, given x_t: the truth (blue, filled) and what a step draws from (orange).

    Args:
        x: (N,) places.
        truth, step: (K, N) densities there, one row a panel.
        titles: K of them.
    """
    names = ("$q(x_s | x_t)$", "the step")
    panels = {title: dict(zip(names, pair)) for title, *pair in zip(titles, truth, step)}
    figure = lines(panels, x, (6.4, 2.4), legend=False, xlabel="$x_s$", yticks=[])
    for axis, true, drawn in zip(figure.axes, truth, step):
        axis.fill_between(x, true, color=BLUE, alpha=0.25, linewidth=0)
        seen = x[(true > 0.002 * true.max()) | (drawn > 0.002 * drawn.max())]
        axis.set_xlim(seen.min().item(), seen.max().item())
        axis.set_ylim(0, 1.45 * max(true.max().item(), drawn.max().item()))  # room for the legend
    figure.axes[0].legend(loc="upper left", frameon=False)
    return figure


def paths(t: Tensor, walks: Mapping[str, Tensor], x: Tensor, density: Tensor) -> Any:
    """One-dimensional walks from noise (left) to data (right) over the true density.

    Args:
        t: (S,) timesteps.
        walks: for each title the states, (S, P).
        x: (N,) places.
        density: (S, N) true density of x_t; each column is drawn as strong as its maximum.
    """
    style = {"linewidth": 0.7, "antialiased": False}
    panels = {title: {"": states} for title, states in walks.items()}
    looks = [(ORANGE, "-")]
    size = (min(3.2 * len(panels), 7.2), 2.8)
    figure = lines(panels, t, size, looks, style=style, legend=False, sharey=True)
    shade = (density / density.max(dim=1, keepdim=True).values).T
    levels = [0.05, 0.25, 0.5, 0.75, 1.01]  # few tones keep the picture small
    for axis in figure.axes:
        axis.contourf(t, x, shade, levels=levels, cmap="Blues", vmax=2, antialiased=False)
        axis.set(xlabel="timestep $t$", xlim=(t.max().item(), t.min().item()))
        axis.set_ylim(x.min().item(), x.max().item())
    figure.axes[0].set_ylabel("$x_t$")
    return figure


def moment(t: int, states: Tensor, guesses: Tensor) -> Image.Image:
    """One frame of an animation: where several walks are, and below what they are taken for.

    In few greys, as each of them costs in a GIF: much noise is drawn in black and white.

    Args:
        t: the timestep of the states.
        states, guesses: (N, 1, H, W) in [-1, 1], or beyond, which is cut off; N is at most 8, or
            a multiple of 8.
    """
    of_states, of_guesses = 2 if t > 200 else 3 if t > 0 else 8, 4 if t > 0 else 8
    pictures = torch.cat([_in_greys(states, of_states), _in_greys(guesses, of_guesses)])
    columns = min(len(states), 8)
    more = [""] * (-(-len(states) // columns) - 1)  # rows without a label of their own
    labels = [f"t = {t}", *more, "best guess", *more]
    return plots.grid(pictures, columns=columns, labels=labels)


def _in_greys(images: Tensor, count: int) -> Tensor:
    """In so many evenly spaced greys, from -1 to 1."""
    steps = (images.clamp(-1, 1) + 1) / 2 * (count - 1)
    return steps.round() / (count - 1) * 2 - 1


def field(
    grid: Tensor, density: Tensor, points: Tensor, arrows: Tensor, titles: Sequence[str]
) -> Any:
    """The score as arrows over the density, a panel for each amount of noise.

    All arrows are drawn with the square root of their length, as they differ so much.

    Args:
        grid: (G,) coordinates of the pixels along either axis.
        density: (K, G, G) with the second coordinate of a point first.
        points: (M, 2) feet of the arrows.
        arrows: (K, M, 2).
        titles: K of them.
    """
    columns = 2 if len(titles) == 4 else len(titles)
    rows = len(titles) // columns
    size = (5.8, 5.8 * rows / columns + 0.2 * rows)
    figure, axes = new(rows, columns, size=size, sharex=True, sharey=True)
    for axis, values, arrow, title in zip(np.asarray(axes).flat, density, arrows, titles):
        bare(axis, title).set_aspect("equal")
        levels = values.max().item() * np.array([0.02, 0.2, 0.6, 1.01])
        settings = {"cmap": "Blues", "vmax": 2 * levels[-1], "antialiased": False}
        axis.contourf(grid, grid, values, levels=levels, **settings)
        arrow = arrow / arrow.norm(dim=1, keepdim=True).sqrt()
        longest = arrow.norm(dim=1).max().item()
        settings = {"angles": "xy", "scale_units": "width", "width": 0.008, "color": ORANGE}
        axis.quiver(*points.T, *arrow.T, scale=9 * longest, **settings)
    return figure


def score_estimates(
    x: Tensor,
    truth: Tensor,
    estimates: Tensor,
    data: Sequence[Tensor],
    titles: Sequence[str],
    reach: Sequence[float],
) -> Any:
    """The true score and several estimates of it, over a histogram of what they learnt from.

    Args:
        x: (N,) places.
        truth: (K, N) the score in K panels.
        estimates: (K, E, N).
        data: K tensors (P,) of noisy examples.
        titles: K of them.
        reach: the largest score that a panel shows.
    """
    settings = {"height_ratios": [4, 1], "sharex": True, "squeeze": False}
    figure, axes = new(2, len(titles), size=(7.0, 3.8), **settings)
    bins = np.linspace(float(x.min()), float(x.max()), 90)
    for k, (above, below) in enumerate(axes.T):
        above.plot(x, estimates[k].T, color=ORANGE, linewidth=1.1, alpha=0.8)
        above.plot(x, truth[k], color=BLUE, linewidth=2.2)
        above.axhline(0, color=GREY, linewidth=0.8)
        above.set(title=titles[k], ylim=(-reach[k], reach[k]))
        below.hist(data[k].numpy(), bins=bins, color=BLUE)
        below.set(xlabel="$x_t$", yticks=[])
    axes[0, 0].set_ylabel("score")
    axes[1, 0].set_ylabel("count")
    return figure


def errors(evaluations: Mapping[str, Sequence[int]], error: Mapping[str, Sequence[float]]) -> Any:
    """Error against the number of evaluations, both on logarithmic axes.

    Args:
        evaluations, error: for each sampler one number a walk.
    """
    named = {name: (evaluations[name], error[name]) for name in error}
    looks, style = [(DARK, "o-"), (GREEN, "s--"), (ORANGE, "^-")], {"markersize": 5}
    figure = lines({"": named}, (), (5.2, 2.9), looks, style=style, xscale="log", yscale="log")
    (axis,) = figure.axes
    axis.set(xlabel="evaluations of the denoiser", ylabel="distance from the exact end")
    axis.grid(True, which="major", color=LIGHT, linewidth=0.6)
    return figure


def slope(x: Tensor, density: Tensor, score: Tensor) -> Any:
    """A density in one dimension, its logarithm, and the slope of that: the score.

    Args:
        x, density, score: (N,).
    """
    panels = {"density $q(x)$": density, r"$\log q(x)$": density.log()}
    panels[r"score $\nabla_x \log q(x)$"] = score
    named = {title: {"": values} for title, values in panels.items()}
    figure = lines(named, x, (7.0, 2.5), legend=False, xlabel="$x$")
    figure.axes[0].set_ylim(0, None)
    figure.axes[2].axhline(0, color=GREY, linewidth=0.8)
    return figure
