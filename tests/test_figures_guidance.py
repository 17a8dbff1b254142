"""The figures of guidance, editing and quality: they show what they are given."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from minidiff.figures import guidance, quality


def lines_of(axis: Any, label: str) -> Any:
    (line,) = [line for line in axis.lines if line.get_label() == label]
    return line


def drawable(figure: Any) -> None:
    figure.canvas.draw()  # labels with faulty mathematics fail here
    assert figure.get_figwidth() <= 7.2


def test_arrows_mark_the_guess_at_every_scale() -> None:
    without, told = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 2.0])
    figure = guidance.arrows(torch.zeros(5, 2), torch.tensor([-1.0, 0]), without, told, (0, 1, 3))
    drawable(figure)
    (axis,) = figure.axes
    points = [tuple(p) for line in axis.lines for p in line.get_xydata().tolist()]
    assert {(0, 0), (1, 2), (3, 6)} <= set(points)
    assert {"0", "1", "3"} <= {text.get_text() for text in axis.texts}


def test_slices_and_scores() -> None:
    x, y = torch.linspace(0, 1, 5), torch.linspace(-1, 1, 3)
    figure = guidance.slices(x, y, torch.rand(3, 5), 0.5, x, 2 * x)
    drawable(figure)
    left, right = figure.axes
    assert left.lines[0].get_ydata()[0] == 0.5
    assert right.lines[1].get_ydata()[-1] == 2
    figure = guidance.scores(x, [x, -x], [2 * x, x], ["one", "two"])
    drawable(figure)
    assert lines_of(figure.axes[1], "guided").get_ydata()[-1] == -1


def test_densities_have_a_row_a_sampler() -> None:
    x = torch.linspace(0, 1, 11)
    samples = [torch.full((20,), 0.3), torch.full((20,), 0.8)]
    drawn = {"one": samples, "two": samples}
    figure = guidance.densities(x, drawn, [x, 2 * x], ["left", "right"])
    drawable(figure)
    assert len(figure.axes) == 4
    assert [axis.get_title() for axis in figure.axes] == ["left", "right", "", ""]
    assert [axis.get_ylabel() for axis in figure.axes] == ["one", "", "two", ""]
    heights = [bar.get_height() for bar in figure.axes[1].patches]
    assert heights.index(max(heights)) == pytest.approx(0.8 * 120, abs=1)


def test_trade_off_shows_shares_and_variety() -> None:
    shares = {"gold": [(0.5, 0.2, 0.8), (0.9, 0.6, 1.0)], "bird": [(0.1, 0.0, 0.3)] * 2}
    variety = {"gold": [3.0, 2.0], "bird": [4.0, 1.0]}
    figure = guidance.trade_off((1, 3), shares, variety, {"gold": 5.0, "bird": 6.0})
    drawable(figure)
    left, right = figure.axes
    assert left.get_ylim()[1] >= 1 and right.get_ylim()[1] > 6
    assert list(right.lines[0].get_ydata()) == [3.0, 2.0]


def test_clouds_see_the_direction_of_most_spread() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(400, 5, generator=generator) * torch.tensor([1.0, 1, 9, 1, 3])
    figure = quality.clouds({"first": wide, "second": wide / 2})
    drawable(figure)
    (axis,) = figure.axes
    first, second = (lines_of(axis, name).get_xdata() for name in ("first", "second"))
    assert max(first) - min(first) == pytest.approx(4 * 9, rel=0.1)
    assert max(second) - min(second) == pytest.approx(4 * 4.5, rel=0.1)


def test_yardsticks_draw_a_bar_for_each_set() -> None:
    examples = {"real": torch.ones(2, 1, 8, 8), "drawn": torch.zeros(2, 1, 8, 8)}
    figure = quality.yardsticks(examples, {"real": 1.0, "drawn": 4.0}, "drawn")
    drawable(figure)
    widths = [bar.get_width() for axis in figure.axes for bar in axis.patches]
    colours = [bar.get_facecolor() for axis in figure.axes for bar in axis.patches]
    assert widths == [1.0, 4.0] and colours[0] != colours[1]
    assert any(text.get_text() == "4.0" for axis in figure.axes for text in axis.texts)


def test_bars_intervals_histograms() -> None:
    figure = quality.bars("鳥隹", [0.7, 0.3])
    drawable(figure)
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0.7, 0.3]
    figure = quality.intervals({"a": (0.5, 0.25, 0.75), "b": (0.0, 0.0, 0.2)})
    drawable(figure)
    low, high = figure.axes[0].get_ylim()
    assert low > high, "the first row is at the top"
    values = torch.linspace(0.2, 0.9, 40)
    figure = quality.histograms({"real": values, "drawn": values + 0.1}, 0.3, "line")
    drawable(figure)
    assert lines_of(figure.axes[0], "line").get_xdata()[0] == 0.3
