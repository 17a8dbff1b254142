"""Figures of the network and of training: they show what they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from minidiff.figures import guidance, panels, quality, sampling, words
from minidiff.figures import network as figures
from minidiff.unet import UNet, UNetConfig, timestep_embedding


def texts(figure: object) -> str:
    axes = figure.axes  # type: ignore[attr-defined]
    return " | ".join(text.get_text() for axis in axes for text in axis.texts)


def recorded(config: UNetConfig, side: int) -> dict[str, tuple[int, int, int]]:
    """What the parts of a U-Net really put out."""
    network, sizes = UNet(config), {}
    for name, part in network.named_modules():
        if name.split(".")[0] in ("conv_in", "down", "middle2", "up", "conv_out"):
            part.register_forward_hook(
                lambda _part, _in, out, name=name: sizes.update({name: tuple(out.shape[1:])})
            )
    with torch.inference_mode():
        network(torch.zeros(1, 1, side, side), torch.tensor([5]))
    kept = {n: s for n, s in sizes.items() if n.count(".") == 2 or "." not in n}
    return {n: s for n, s in kept.items() if len(s) == 3}


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("levels", [2, 3])
def test_unet_shows_the_sizes_of_every_level(levels: int, blocks: int) -> None:
    channels = (32, 64, 96)[:levels]
    config = UNetConfig(
        channels=channels, attention=(False,) * levels, blocks=blocks, stem=2, text_dim=None
    )
    sizes = recorded(config, 32)
    picture = torch.zeros(1, 32, 32)
    figure = figures.unet(sizes, picture, picture, embedding=77)
    shown = texts(figure)
    for level, width in enumerate(channels):
        side = 16 // 2**level
        assert f"{side} × {side}\n{width} channels" in shown
        count = shown.count(f"{side} × {side}\n{width} channels")
        assert count == (3 if level == levels - 1 else 2)  # down, up; at the bottom the middle too
    assert "77 numbers" in shown
    assert "16 × 16\n× 4" in shown  # folded 2 × 2


def test_training_loop_shows_all_pictures_where_they_belong() -> None:
    # Thirds of the reach of each: only seven greys are drawn.
    shades = [torch.full((1, 8, 8), value) for value in (-1 / 3, 2.5 / 3, 4 / 3, 2.5)]
    figure = figures.training_loop(shades[0], shades[1], shades[2], shades[3], t=123)
    images = figure.axes[0].images
    assert [round(float(image.get_array()[0, 0]), 1) for image in images] == [-0.3, 0.3, 0.7, 1.0]
    left, right = figure.axes[0].get_xlim()
    for image in images:
        start, end, _, _ = image.get_extent()
        assert left <= start < end <= right
    for word in ("t = 123", "1 take", "2 add noise", "3 predict", "4 compare", "5 update"):
        assert word in texts(figure)


def test_embedding_has_t_from_left_to_right() -> None:
    values = timestep_embedding(torch.arange(50), 8)
    figure = figures.embedding(values)
    assert figure.axes[0].images[0].get_array().shape == (8, 50)
    assert "timestep" in figure.axes[0].get_xlabel()


def test_curves_and_floors_are_those_given() -> None:
    steps, loss = torch.arange(4), torch.tensor([4.0, 2.0, 1.5, 1.2])
    axis = figures.loss_curve(steps, loss, {"floor": 1.0}).axes[0]
    curve, floor = axis.lines
    assert curve.get_ydata().tolist() == pytest.approx(loss.tolist())
    assert list(floor.get_ydata()) == [1.0, 1.0]
    assert axis.get_ylim()[0] == 0
    for level, above in ((0.1, True), (1.0, False)):  # a label does not run into the axis
        (text,) = figures.loss_curve(steps, loss, {"floor": level}).axes[0].texts
        assert (text.xyann[1] > 0) is above

    axis = figures.loss_by_t([1, 500, 900], {"learnt": loss[:3]}, {"least": loss[1:]}).axes[0]
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["learnt", "least"]
    assert [line.get_linestyle() for line in axis.lines] == ["-", "--"]


def test_best_guess_marks_the_mean() -> None:
    originals = torch.tensor([-1.0, 1.0, 1.0, 1.0])
    guesses = torch.linspace(-1, 1, 5)
    errors = (originals[:, None] - guesses).square().mean(0)
    axis = figures.best_guess(originals, guesses, errors, 0.5, 0.75).axes[1]
    marked = [line for line in axis.lines if len(line.get_xdata()) == 1]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marked] == [(0.5, 0.75)]


def test_looks_marks_the_place_and_shows_where_each_head_looks() -> None:
    weights = torch.full((2, 4, 4), 0.1)
    weights[0, 1, 2] = weights[1, 1, 3] = 0.7  # from the place at the upper right
    sheet = torch.as_tensor(np.array(figures.looks(torch.zeros(1, 8, 8), weights, [(0, 1)])))
    cells = [sheet[4:20, 4 + 20 * i : 20 + 20 * i] for i in range(3)]
    assert [(cell == 0).nonzero().tolist()[0] for cell in cells] == [[0, 8], [8, 0], [8, 8]]
    assert (cells[0] == 0).sum() == 4 * 12  # a frame of one pixel around 4 × 4, drawn 2 × 2


LINE, PICTURES = torch.linspace(-1, 1, 9), torch.rand(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("draw", "count"),
    [
        (lambda: panels.clouds({"one": torch.rand(9, 2)}, (6, 3)), 1),
        (lambda: panels.lines({"one": {"a": LINE}}, LINE, (6, 3)), 1),
        (lambda: panels.histograms({"": {"one": (LINE, {"a": LINE})}}, LINE, (6, 3)), 1),
        (lambda: guidance.scores(LINE, [LINE], [LINE], ["one"]), 1),
        (lambda: words.similarities({"one": torch.eye(2)}, "ab"), 1),
        (lambda: quality.yardsticks({"one": PICTURES}, {"one": 1.0}, "one"), 3),
        (
            lambda: sampling.score_estimates(
                LINE, LINE[None], LINE[None, None], [LINE], ["one"], [1.0]
            ),
            2,
        ),
    ],
)
def test_one_panel_is_drawn_as_several_are(draw: Callable[[], Any], count: int) -> None:
    assert [axis.has_data() for axis in draw().axes] == [True] * count
