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
from minidiff.unet import UNet, UNetConfig


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
