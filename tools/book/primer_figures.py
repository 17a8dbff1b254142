"""Draw the four pictures of the book's primer.

    python tools/book/primer_figures.py

Writes vector.png, gaussian.png, gradient.png and network.png into book/_static/primer/.
"""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from minidiff import plots
from minidiff.figures import BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, bare, new
from minidiff.glyphs import render, to_float

FOLDER = Path(__file__).parents[2] / "book" / "_static" / "primer"


def vector() -> Any:
    """Two arrows and their sum; a picture of nine pixels and its nine numbers."""
    figure, (plane, tiny, glyph) = new(1, 3, size=(5.2, 2.0), width_ratios=[1.5, 1, 1.2])
    for start, end, colour, name in [
        ((0, 0), (3, 1), BLUE, "(3, 1)"),
        ((3, 1), (4, 3), ORANGE, "(1, 2)"),
        ((0, 0), (4, 3), DARK, "(4, 3)"),
    ]:
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 2, "shrinkA": 0, "shrinkB": 0}
        plane.annotate("", end, start, arrowprops=arrow)
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        offset = {BLUE: (0.1, -0.45), ORANGE: (0.25, -0.2), DARK: (-1.2, 0.45)}[colour]
        plane.text(middle[0] + offset[0], middle[1] + offset[1], name, color=colour)
    plane.set(xlim=(-0.1, 5.3), ylim=(-0.4, 3.6), aspect="equal", title="two numbers")
    plane.grid(color=LIGHT, linewidth=0.6)

    pixels = torch.tensor([[1.0, -1.0, 1.0], [-0.5, -1.0, -0.5], [1.0, -1.0, 0.5]])
    tiny.imshow(pixels, cmap="gray", vmin=-1, vmax=1)
    for row in range(3):
        for column in range(3):
            value = pixels[row, column].item()
            ink = "white" if value < 0 else "black"
            tiny.text(
                column, row, f"{value:g}".replace("-", "−"), ha="center", va="center", color=ink
            )
    framed(bare(tiny, "nine numbers"))

    glyph.imshow(to_float(render("明"))[0], cmap="gray", vmin=-1, vmax=1)
    framed(bare(glyph, "4,096 numbers"))
    return figure


def framed(axis: Any) -> None:
    """A thin line around a picture that is white at its border."""
    for spine in axis.spines.values():
        spine.set(visible=True, color=LIGHT)


def gaussian() -> Any:
    """The bell curve with what mu and sigma are, and noise: one draw a pixel."""
    figure, (curve, noise) = new(1, 2, size=(5.2, 2.4), width_ratios=[1.9, 1])
    x = torch.linspace(-4, 4, 400)
    density = torch.exp(-(x**2) / 2) / (2 * torch.pi) ** 0.5
    draws = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    curve.hist(draws.numpy(), bins=40, density=True, color=ORANGE, alpha=0.45, label="2,000 draws")
    curve.plot(x, density, color=BLUE, label="density")
    curve.axvline(0, color=GREY, linewidth=1, linestyle=":")
    curve.annotate("", (1, 0.242), (0, 0.242), arrowprops={"arrowstyle": "<->", "color": DARK})
    curve.text(0.5, 0.26, "σ", ha="center", fontsize=12)
    curve.set_xticks([-3, -2, -1, 0, 1, 2, 3], ["", "", "μ − σ", "μ", "μ + σ", "", ""])
    curve.set_yticks([])
    curve.spines["left"].set_visible(False)
    curve.set_ylim(0, 0.5)
    curve.legend(loc="upper right", frameon=False)
    square = torch.randn(24, 24, generator=torch.Generator().manual_seed(1))
    noise.imshow(square, cmap="gray", vmin=-3, vmax=3)
    bare(noise, "one draw a pixel")
    return figure


def gradient() -> Any:
    """A slope in one dimension; gradients on a map, and a walk against them."""
    figure, (line, field) = new(1, 2, size=(5.2, 2.5), width_ratios=[1, 1.1])
    x = torch.linspace(-2.2, 2.2, 200)
    line.plot(x, height(x), color=BLUE)
    for place, colour in [(-1.5, GREEN), (0.0, DARK), (1.1, ORANGE)]:
        at = torch.tensor(place, requires_grad=True)
        level = height(at)
        (slope,) = torch.autograd.grad(level, at)
        near = torch.tensor([place - 0.6, place + 0.6])
        line.plot(near, level.item() + slope.item() * (near - place), color=colour, linewidth=2.5)
        name = f"slope {slope.item():.1f}".replace("-0.0", "0").replace("-", "−")
        x_text, where = {-1.5: (-1.6, "right"), 0.0: (0.0, "center"), 1.1: (1.25, "left")}[place]
        line.text(
            x_text, level.item() + (0.1 if place == 0 else 0.04), name, color=colour, ha=where
        )
    line.set(ylim=(-0.1, 1.4), xlim=(-3.5, 3.3), title="how steeply it rises")
    line.set_xticks([])
    line.set_yticks([])

    axis = torch.linspace(-2, 2, 80)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    field.contour(axis, axis, valley(grid), levels=12, colors=GREY, linewidths=0.7)
    coarse = torch.linspace(-1.6, 1.6, 7)
    places = torch.stack(torch.meshgrid(coarse, coarse, indexing="xy"), -1).reshape(-1, 2)
    up = slope_of(places)
    field.quiver(*places.T, *up.T, color=BLUE, angles="xy", scale=70, width=0.006)
    walk = [torch.tensor([[-1.7, 1.5]])]
    for _ in range(12):
        walk.append(walk[-1] - 0.1 * slope_of(walk[-1]))
    field.plot(*torch.cat(walk).T, "o-", color=ORANGE, markersize=4, linewidth=1.2)
    field.set(aspect="equal", title="gradients, steps against them")
    field.set_xticks([])
    field.set_yticks([])
    return figure


def height(x: Tensor) -> Tensor:
    """A hill in one dimension."""
    return torch.exp(-(x**2) / 1.5)


def valley(x: Tensor) -> Tensor:
    """(..., 2) -> (...) a long bowl, its floor at (0.5, -0.3)."""
    u, v = x[..., 0] - 0.5, x[..., 1] + 0.3
    return u**2 + 1.8 * v**2 + 0.8 * u * v


def slope_of(x: Tensor) -> Tensor:
    """(n, 2) -> (n, 2) the gradient of `valley`."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(valley(x).sum(), x)[0]


def network() -> Any:
    """A small network as a drawing, and a network learning to go through points."""
    figure, (drawing, fit) = new(1, 2, size=(5.2, 2.6), width_ratios=[1, 1.2])
    columns = [2, 4, 4, 1]
    spots = [[(k, (n - 1) / 2 - i) for i in range(n)] for k, n in enumerate(columns)]
    for before, after in itertools.pairwise(spots):
        for one in before:
            for other in after:
                drawing.plot(*zip(one, other, strict=True), color=LIGHT, linewidth=1, zorder=1)
    for column, colour in zip(spots, [BLUE, GREY, GREY, ORANGE], strict=True):
        drawing.scatter(*zip(*column, strict=True), s=110, color=colour, zorder=2)
    for k, text in [(0, "in"), (3, "out")]:
        drawing.text(k, -2.2, text, ha="center", va="center")
    drawing.text(1.5, -2.2, "in between", ha="center", va="center")
    drawing.set(ylim=(-2.6, 1.9), xlim=(-0.5, 3.5))
    bare(drawing, "every line is one weight")

    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 1, generator=generator) * 4 - 2
    y = torch.sin(2.2 * x) + 0.15 * torch.randn(60, 1, generator=generator)
    fit.scatter(x, y, s=12, color=BLUE, label="examples")
    line = torch.linspace(-2, 2, 200)[:, None]
    for done, (style, colour), curve in training(x, y, line):
        fit.plot(line, curve, style, color=colour, label=f"after {done} updates")
    fit.set_xticks([])
    fit.set_yticks([])
    fit.set(ylim=(-1.6, 2.7), title="before and after learning")
    fit.legend(loc="upper center", ncols=2, fontsize=7.5, columnspacing=1, frameon=False)
    return figure


def training(x: Tensor, y: Tensor, line: Tensor) -> list[tuple[int, tuple[str, str], Tensor]]:
    """(updates, style, output along the line) at three moments of learning y from x."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(),
                          nn.Linear(32, 1))  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    moments = {0: (":", GREY), 30: ("--", GREEN), 500: ("-", ORANGE)}
    curves = []
    for done in range(501):
        if done in moments:
            curves.append((done, moments[done], model(line).detach()))
        optimiser.zero_grad()
        (model(x) - y).square().mean().backward()
        optimiser.step()
    return curves


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for draw in (vector, gaussian, gradient, network):
        buffer = io.BytesIO()
        draw().savefig(buffer, format="png", dpi=150, metadata={"Software": None})
        buffer.seek(0)
        few = Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE)
        plots.save_picture(FOLDER / f"{draw.__name__}.png", few)


if __name__ == "__main__":
    main()
