"""Figures of the chapter on fewer steps: what noise is paired with, jumps, quality by evaluations.

Where many small things lie over each other they are drawn without smooth edges: that makes the
stored pictures several times smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from minidiff.figures import BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, bare, legend_below, new
from minidiff.figures.panels import lines

COLOURS = (BLUE, ORANGE, GREEN)


def pairs(
    panels: Mapping[str, tuple[Tensor, Tensor, Tensor]], joined: int = 18, reach: float = 3.0
) -> Any:
    """Noise in the colour of the peak that its partner belongs to, and lines to some partners.

    Args:
        panels: title -> noise (N, 2), partners (N, 2), number of the partner's peak (N,), from 0
            to 2.
        joined: how many pairs get a line.
        reach: coordinate of the edges.
    """
    figure, axes = new(1, len(panels), size=(6.6, 3.4), sharex=True, sharey=True, squeeze=False)
    for axis, (title, (noise, ends, peak)) in zip(axes[0], panels.items()):
        bare(axis, title).set_aspect("equal")
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach))
        for k, colour in enumerate(COLOURS):
            mine = peak == k
            axis.scatter(*noise[mine].T, s=6, color=colour, linewidths=0, antialiased=False)
        for start, end, k in zip(noise[:joined], ends[:joined], peak[:joined].tolist()):
            axis.plot(*torch.stack([start, end]).T, color="white", lw=2.2)
            axis.plot(*torch.stack([start, end]).T, color=COLOURS[k], lw=1.1)
        axis.scatter(*ends[:joined].T, s=16, color=DARK, zorder=3)
    return figure


def jumps(path: Tensor, walks: Sequence[int], data: Tensor) -> Any:
    """A path in the plane, and the walks of fewer and fewer jumps that end where it ends.

    Args:
        path: (S + 1, 2) states of a fine walk.
        walks: numbers of jumps that divide S, the largest first; in each panel the walk before, if
            there is one, is drawn behind.
        data: (N, 2) points of the data.
    """
    figure, axes = new(1, len(walks), size=(7.0, 2.5), sharex=True, sharey=True, squeeze=False)
    around = torch.cat([path, data])
    low, high = (around.min(0).values - 0.2).tolist(), (around.max(0).values + 0.2).tolist()
    for axis, finer, count in zip(axes[0], [len(path) - 1, *walks], walks):
        bare(axis, f"{count} jumps" if count > 1 else "1 jump").set_aspect("equal")
        axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        axis.scatter(*data.T, s=4, color=LIGHT, linewidths=0, antialiased=False)
        for steps, colour, form in ((finer, GREY, "o-"), (count, ORANGE, "o-")):
            states = path[:: (len(path) - 1) // steps]
            size = 5 if colour == ORANGE else 3
            axis.plot(*states.T, form, color=colour, ms=size, lw=size / 3)
    return figure


def drawn(rows: Mapping[str, Mapping[str, Tensor]], data: Tensor, reach: float = 1.9) -> Any:
    """What was drawn, over the data in grey: a row for each who draws, a column for each walk.

    Args:
        rows: name of a row -> title of a column -> points (N, 2).
        data: (M, 2).
        reach: coordinate of the edges.
    """
    columns = next(iter(rows.values()))
    width = 1.75 if len(columns) > 2 else 2.4
    size = (width * len(columns), (width + 0.1) * len(rows) + 0.2)
    figure, axes = new(len(rows), len(columns), size, sharex=True, sharey=True, squeeze=False)
    for i, (name, clouds) in enumerate(rows.items()):
        for axis, (title, points) in zip(axes[i], clouds.items(), strict=True):
            bare(axis, "" if i else title).set_aspect("equal")
            axis.set(xlim=(-reach, reach), ylim=(-reach, reach))
            axis.scatter(*data.T, s=14, color=LIGHT, linewidths=0, antialiased=False)
            axis.scatter(*points.T, s=2, color=ORANGE, linewidths=0, antialiased=False)
        axes[i, 0].set_ylabel(name)
    return figure


def by_evaluations(
    panels: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[float]]]],
    real: Mapping[str, float],
) -> Any:
    """Measures against the number of evaluations, a panel each.

    Args:
        panels: title -> name of who draws -> evaluations and values.
        real: title -> that measure of real glyphs, where there is one.
    """
    looks, style = [(ORANGE, "o-"), (BLUE, "s--")], {"markersize": 5}
    figure = lines(panels, (), (7.0, 2.9), looks, style=style, legend=False, xscale="log")
    ticks = sorted({n for named in panels.values() for xs, _ in named.values() for n in xs})
    for axis, (title, named) in zip(figure.axes, panels.items()):
        highest = max(max(values) for _, values in named.values())
        axis.set(xlabel="evaluations of the network", ylim=(0, 1.08 * highest))
        if title in real:
            axis.axhline(real[title], color=DARK, ls=":", lw=1.3)
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.grid(axis="y", color=LIGHT, lw=0.6)
    legend_below(figure, figure.axes[0])
    return figure
