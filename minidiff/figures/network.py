"""Figures of the network and of its training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from minidiff import plots
from minidiff.figures import BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, arrow, bare, new
from minidiff.figures.panels import box, lines, note

Size = tuple[int, int, int]  # channels, height, width
PART: dict[str, Any] = {"facecolor": "#eaf1f8", "edgecolor": GREY}  # of a network


# ------------------------------------------------------------------ diagrams


def _canvas(width: float, height: float) -> tuple[Any, Any]:
    """A figure and its one axis, measured in tenths of an inch from the lower left corner."""
    figure, axis = new(size=(width / 10, height / 10))
    figure.set_layout_engine("none")
    axis.set_position((0, 0, 1, 1))
    bare(axis).set(xlim=(0, width), ylim=(0, height))
    return figure, axis


def _picture(axis: Any, image: Tensor, x: float, y: float, side: float, reach: float = 1) -> None:
    """A picture (1, H, W) with its lower left corner at (x, y); ±reach are white and black."""
    place = {"extent": (x, x + side, y, y + side), "aspect": "auto"}
    image = ((image / reach).clamp(-1, 1) * 3).round() / 3  # seven greys make a small file
    plots.draw(axis, image, interpolation="nearest", **place)  # type: ignore[arg-type]
    box(axis, (x, y), side, side, facecolor="none", edgecolor=GREY)


def training_loop(x0: Tensor, eps: Tensor, x_t: Tensor, predicted: Tensor, t: int) -> Any:
    """One turn of training as a diagram: take, add noise, predict, compare, update.

    Args:
        x0, eps, x_t, predicted: (1, H, W) a picture, noise, both mixed, and the noise predicted.
        t: the timestep of x_t.
    """
    figure, axis = _canvas(66, 40)
    side = 11
    upper, lower = 22.0, 3.0
    for image, x, y, reach in (
        (x0, 1, upper, 1), (eps, 1, lower, 2.5), (x_t, 18, upper, 2), (predicted, 54, upper, 2.5)
    ):  # fmt: skip
        _picture(axis, image, x, y, side, reach)
    error = "squared error\nmean of $(\\hat{\\varepsilon}-\\varepsilon)^2$"
    box(axis, (35, upper), 13, side, "network\nweights $\\theta$", 11)
    box(axis, (39, lower), 26, side, error, 11)
    middle, low = upper + side / 2, lower + side / 2
    arrow(axis, (12, middle), (18, middle))
    arrow(axis, (12, lower + side), (18, upper))
    arrow(axis, (29, middle), (35, middle))
    arrow(axis, (48, middle), (54, middle))
    arrow(axis, (59.5, upper), (59.5, lower + side), color=BLUE)
    arrow(axis, (12, low), (39, low), color=BLUE)
    arrow(axis, (44, lower + side), (44, upper), color=ORANGE, lw=2.2)
    axis.text(32, 17, f"t = {t}", ha="center", va="center", fontsize=11)
    arrow(axis, (33, 18.4), (36.5, upper))
    arrow(axis, (29.5, 18), (26, upper))
    above = upper + side + 1.2
    for centre, text in (
        (6.5, "1 take\n$x_0$"), (23.5, "2 add noise\n$x_t$"), (41.5, "3 predict\n"),
        (59.5, "the noise\n$\\hat{\\varepsilon}$"),
    ):  # fmt: skip
        axis.text(centre, above, text, ha="center", va="bottom", fontsize=11)
    axis.text(6.5, lower + side + 0.8, "noise $\\varepsilon$", ha="center", fontsize=11)
    axis.text(25, low + 1, "4 compare", color=BLUE, ha="center", fontsize=11)
    axis.text(45, 17.5, "5 update $\\theta$", color=ORANGE, va="center", fontsize=11)
    return figure


def unet(sizes: Mapping[str, Size], image: Tensor, output: Tensor, embedding: int) -> Any:
    """A U-Net as a diagram: its levels, with sizes and channels, and what jumps across.

    Args:
        sizes: what each part of a `minidiff.unet.UNet` puts out, (channels, height, width), by
            name: "conv_in", "down.0.0", "shrink.0", …, "middle2", "up.0.0", …, "conv_out".
        image, output: (1, H, W) what goes in and what comes out.
        embedding: how many numbers tell the blocks the timestep.
    """
    down = [size for name, size in sizes.items() if name.startswith("down.")]
    blocks = len(down) // len({name.split(".")[1] for name in sizes if name.startswith("down.")})
    down, levels = down[blocks - 1 :: blocks], len(down) // blocks
    step = 11.5
    figure, axis = _canvas(70, 15.5 + step * levels)
    width = {i: 7 + size[0] / 25 for i, size in enumerate(down)}
    heights = [8.0 - 0.8 * i for i in range(levels)]
    left = {i: 15 + 3.5 * i for i in range(levels)}  # where the blocks of the way down begin
    top = 10 + step * (levels - 1)
    pill = (35.0, top + 14)
    for i, size in enumerate(down):
        y, right = top - step * i, 70 - left[i] - width[i]
        for x in (left[i], right):
            axis.plot(*zip(pill, (x + width[i] / 2, y + heights[i] / 2)), color=LIGHT, zorder=0)
            label = f"{size[1]} × {size[2]}\n{size[0]} channels"
            box(axis, (x, y), width[i], heights[i], label, **PART)
        start, end = (left[i] + width[i], y + heights[i] * 0.5), (right, y + heights[i] * 0.5)
        arrow(axis, start, end, color=BLUE, linestyle="--")
        if i + 1 < levels:
            below = y - step + heights[i + 1]
            arrow(axis, (left[i + 1] + 5, y), (left[i + 1] + 5, below))
            arrow(axis, (65 - left[i + 1], below), (65 - left[i + 1], y))
    _middle(axis, sizes["middle2"], left[levels - 1] + width[levels - 1] - 4, 10)
    axis.text(35, top + heights[0] / 2 + 1.0, "skip connections", color=BLUE, ha="center")
    _ends(axis, sizes, image, output, top, left[0])
    frame = {"boxstyle": "round", "facecolor": "white", "edgecolor": GREEN}
    text = f"timestep t and text: {embedding} numbers, to every block"
    axis.text(*pill, text, ha="center", va="center", fontsize=10, bbox=frame)
    return figure


def _middle(axis: Any, size: Size, x: float, y: float) -> None:
    """The bottom of the U: arrows leave from height y at x and come back at its mirror image."""
    half, height, gap = 9.0, 5.6, 3.4
    floor = y - gap - height
    label = f"middle: {size[1]} × {size[2]}\n{size[0]} channels"
    box(axis, (35 - half, floor), 2 * half, height, label, **PART)
    arrow(axis, (x, y), (x, y - gap))
    arrow(axis, (70 - x, y - gap), (70 - x, y))


def _ends(
    axis: Any, sizes: Mapping[str, Size], image: Tensor, output: Tensor, y: float, x: float
) -> None:
    """The picture that goes in at the left and the one that comes out at the right."""
    side = 9.5
    _picture(axis, image, 0.5, y, side, 2)
    _picture(axis, output, 69.5 - side, y, side, 2.5)
    arrow(axis, (0.5 + side, y + 4), (x, y + 4))
    arrow(axis, (70 - x, y + 4), (69.5 - side, y + 4))
    height, breadth = image.shape[1:]
    fold = f"folded to\n{sizes['conv_in'][1]} × {sizes['conv_in'][2]}\n× {sizes['conv_out'][0]}"
    for centre, above in ((0.5 + side / 2, "in: $x_t$"), (69.5 - side / 2, "out")):
        axis.text(centre, y + side + 0.6, above, ha="center", fontsize=11)
        axis.text(centre, y - 1, f"{height} × {breadth}", ha="center", va="top", fontsize=10)
    axis.text(0.5 + side / 2, y - 3.4, fold, ha="center", va="top", fontsize=10, color=GREY)
    axis.text(69.5 - side / 2, y - 3.4, "unfolded", ha="center", va="top", fontsize=10, color=GREY)


# ------------------------------------------------------------------ curves and maps


def best_guess(
    originals: Tensor, guesses: Tensor, errors: Tensor, mean: float, floor: float
) -> Any:
    """The originals behind one noisy value, and the squared error of every possible answer.

    Args:
        originals: (n,) x_0 of examples with nearly the same x_t.
        guesses, errors: (m,) answers and their mean squared error over the originals.
        mean, floor: the mean of the originals according to theory, and the error there.
    """
    figure, (above, below) = new(2, 1, size=(6.2, 4.2), sharex=True)
    above.hist(originals.numpy(), bins=60, color=BLUE, alpha=0.75)
    above.set(yticks=[], ylabel="originals")
    below.plot(guesses.numpy(), errors.numpy(), color=ORANGE)
    below.plot([mean], [floor], "o", color=DARK)
    line = {"arrowstyle": "-", "color": GREY}
    note(below, "least at the mean", (mean, floor), (0, 30), ha="center", arrowprops=line)
    above.axvline(mean, color=DARK, linestyle="--", linewidth=1)
    below.set(xlabel="$x_0$, or the answer given", ylabel="squared error", ylim=(0, None))
    return figure


def loss_curve(
    steps: Tensor, loss: Tensor, floors: Mapping[str, float], bottom: float = 0.0
) -> Any:
    """A falling loss above the levels it can be compared with.

    Args:
        steps, loss: (n,).
        floors: label -> level, drawn as a dashed line.
        bottom: where the vertical axis starts.
    """
    figure = lines({"": {"": loss}}, steps, (6.2, 3.0), [(ORANGE, "-")], legend=False)
    (axis,) = figure.axes
    for (label, level), colour in zip(floors.items(), (BLUE, GREEN)):
        axis.axhline(level, color=colour, linestyle="--")
        left, low = ("axes fraction", "data"), level - bottom < 0.15 * (float(loss.max()) - bottom)
        note(axis, label, (0, level), (6, 4 if low else -14), xycoords=left, color=colour)
    axis.set(xlabel="updates", ylabel="mean squared error", ylim=(bottom, None))
    return figure


def loss_by_t(
    t: Sequence[int], learnt: Mapping[str, Tensor], bounds: Mapping[str, Tensor] | None = None
) -> Any:
    """Mean squared error at each timestep: `learnt` with dots, `bounds` (least) dashed.

    Args:
        t: n timesteps.
        learnt, bounds: label -> (n,).
    """
    looks = [(ORANGE, "o-"), (GREEN, "s-."), (GREY, "^:"), (DARK, "D-")][: len(learnt)]
    looks += [(BLUE, "--")] * len(bounds or {})
    panels, limits = {"": {**learnt, **(bounds or {})}}, {"xlim": (0, 1000), "ylim": (0, None)}
    figure = lines(panels, t, (6.2, 3.2), looks, style={"markersize": 4})
    figure.axes[0].set(xlabel="timestep t", ylabel="mean squared error", **limits)
    return figure


def embedding(values: Tensor) -> Any:
    """A timestep embedding (t, numbers) as a heat map, t from left to right."""
    from matplotlib import colormaps

    figure, axis = new(size=(5.6, 2.6))
    colours = colormaps["RdBu_r"].resampled(65)  # few enough for a small file
    image = axis.imshow(
        values.T.numpy(), aspect="auto", cmap=colours, vmin=-1, vmax=1, interpolation="nearest"
    )
    figure.colorbar(image, ax=axis, ticks=[-1, 0, 1])
    axis.set(xlabel="timestep t", ylabel="number in the embedding")
    return figure


def looks(picture: Tensor, weights: Tensor, places: Sequence[tuple[int, int]]) -> Image.Image:
    """Where some places of a picture look: a row a place, with a map for each head of attention.

    Args:
        picture: (1, H, W) in [-1, 1].
        weights: (heads, n, n) how much each of n = k · k places heeds each other one; H and W are
            multiples of k.
        places: row and column of some, from 0 to k − 1.
    """
    k = math.isqrt(weights.shape[1])
    side = picture.shape[-1] // k
    shown = []
    for row, column in places:
        marked = 0.6 + 0.4 * picture  # paler, so that the frame is seen
        patch = marked[..., row * side : (row + 1) * side, column * side : (column + 1) * side]
        patch[..., [0, -1], :] = patch[..., [0, -1]] = -1
        maps = weights[:, row * k + column].view(-1, 1, k, k)
        maps = 1 - 2 * maps / maps.amax((1, 2, 3), keepdim=True)
        shown += [marked, *maps.repeat_interleave(side, 2).repeat_interleave(side, 3)]
    return plots.grid(shown, columns=1 + len(weights), scale=2)
