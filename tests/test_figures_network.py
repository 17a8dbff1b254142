"""Figures of the network and of training: they show what they are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from minidiff.denoisers import NetworkDenoiser
from minidiff.figures import guidance, panels, quality, sampling, words
from minidiff.figures import network as figures
from minidiff.schedules import make_schedule
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
    shades = [torch.full((1, 8, 8), value) for value in (-0.4, 0.1, 0.2, 0.3)]
    figure = figures.training_loop(shades[0], shades[1], shades[2], shades[3], t=123)
    images = figure.axes[0].images
    assert [round(float(image.get_array()[0, 0]), 1) for image in images] == [-0.4, 0.1, 0.2, 0.3]
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


def test_predictions_puts_rows_below_each_other() -> None:
    schedule = make_schedule("straight")
    x0, eps = torch.randn(3, 1, 8, 8), torch.randn(3, 1, 8, 8)
    t = torch.tensor([100, 500, 900])
    x_t = schedule.add_noise(x0, eps, t)
    answer = NetworkDenoiser(lambda x, t: eps - x0, schedule, "flow")(x_t, t)
    rows = {"noisy": x_t, "original": answer.x0}
    figure = figures.predictions(rows, [2, 1], ["a", "b", "c"])
    assert len(figure.axes) == 6
    shown = torch.stack([torch.as_tensor(axis.images[0].get_array()) for axis in figure.axes[3:]])
    torch.testing.assert_close(shown, x0[:, 0], atol=1e-4, rtol=0)
    assert figure.axes[3].get_ylabel() == "original"
    assert [axis.get_title() for axis in figure.axes[:3]] == ["a", "b", "c"]


LINE, PICTURES = torch.linspace(-1, 1, 9), torch.rand(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("draw", "count"),
    [
        (lambda: panels.clouds({"one": torch.rand(9, 2)}, (6, 3)), 1),
        (lambda: panels.lines({"one": {"a": LINE}}, LINE, (6, 3)), 1),
        (lambda: panels.histograms({"": {"one": (LINE, {"a": LINE})}}, LINE, (6, 3)), 1),
        (lambda: figures.predictions({"one": PICTURES}, [1], "ab"), 2),
        (lambda: figures.predictions({"one": PICTURES[:1], "two": PICTURES[1:]}, [1, 1], "a"), 2),
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
