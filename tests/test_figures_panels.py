"""What many chapters draw: they show what they are given."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from minidiff.figures import ORANGE, panels

X = torch.linspace(-1, 1, 21)


def heights(axis: Any) -> list[list[float]]:
    return [line.get_ydata().tolist() for line in axis.lines]


def legend(of: Any) -> list[str]:
    return [text.get_text() for text in of.get_texts()]


def test_lines_have_a_panel_a_title_and_one_legend() -> None:
    one = {"first": torch.tensor([1.0, 10.0]), "second": torch.tensor([2.0, 20.0])}
    both = {"left": one, "right": one}
    figure = panels.lines(both, [1, 2], (6, 3), ylabel="height", xlabel="t", yscale="log")
    figure.canvas.draw()
    left, right = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["left", "right"]
    assert heights(left) == heights(right) == [[1, 10], [2, 20]]
    assert left.lines[0].get_linestyle() != left.lines[1].get_linestyle(), "not by colour alone"
    assert (left.get_ylabel(), right.get_ylabel(), right.get_yscale()) == ("height", "", "log")
    assert legend(figure.legends[0]) == ["first", "second"] and left.get_legend() is None
    (axis,) = panels.lines({"": one}, [1, 2], (6, 3)).axes
    assert legend(axis.get_legend()) == ["first", "second"]


def test_lines_may_be_short_many_or_elsewhere() -> None:
    named = {"short": X[:5], "many": torch.stack([X, -X], 1), "elsewhere": ([7, 8], [1, 2])}
    (axis,) = panels.lines({"": named}, X, (6, 3), legend=False).axes
    assert [len(line.get_xdata()) for line in axis.lines] == [5, 21, 21, 2]
    assert axis.lines[3].get_xdata().tolist() == [7, 8]
    assert axis.lines[1].get_color() == axis.lines[2].get_color() == ORANGE


def test_histograms_are_densities_in_rows_and_columns() -> None:
    samples = torch.full((20,), 0.55)
    row = {"u": (X, {"drawn": samples}), "v": (2 * X, {"drawn": samples})}
    figure = panels.histograms({"a": row, "b": row}, X, (6, 4), bins=20, xlabel="x")
    figure.canvas.draw()
    assert [axis.get_title() for axis in figure.axes] == ["u", "v", "", ""]
    assert [axis.get_ylabel() for axis in figure.axes] == ["a", "", "b", ""]
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "", "x", "x"]
    bars = [bar.get_height() for bar in figure.axes[1].patches]
    assert max(bars) == pytest.approx(10) and bars.index(max(bars)) == 15
    assert heights(figure.axes[1]) == [(2 * X).tolist()]


def test_several_kinds_of_samples_are_outlines_with_a_legend() -> None:
    moment = (X.abs(), {"ode": torch.zeros(10), "sde": torch.ones(10)})
    figure = panels.histograms({"": {"start": moment, "end": moment}}, X, (6, 3), yticks=[])
    assert legend(figure.legends[0]) == ["ode", "sde"]
    for axis in figure.axes:
        assert len(axis.patches) == 2 and not len(axis.get_yticks())


def test_clouds_draw_the_first_in_blue_and_a_collapsed_one_large() -> None:
    wide = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    figure = panels.clouds({"a": wide, "b": 2 * wide, "c": torch.ones(100, 2)}, (6, 2), reach=2.6)
    shown = [axis.collections[0] for axis in figure.axes]
    first, second, third = (part.get_sizes()[0] for part in shown)
    assert first == second < third
    assert (shown[0].get_facecolor() != shown[1].get_facecolor()).any()
    assert (shown[1].get_facecolor() == shown[2].get_facecolor()).all()
    assert all(axis.get_xlim() == (-2.6, 2.6) for axis in figure.axes)


def test_over_numbers_names_just_the_numbers() -> None:
    curves = {"real": [9.0, 5.0, 3.0], "drawn": [9.5, 6.0]}
    (axis,) = panels.over_numbers(curves, (32, 64, 128), (6, 3), xlabel="samples").axes
    axis.figure.canvas.draw()
    assert [text.get_text() for text in axis.get_xticklabels()] == ["32", "64", "128"]
    assert list(axis.lines[1].get_xdata()) == [32, 64] and axis.get_xscale() == "log"


def test_box_has_its_text_in_the_middle() -> None:
    (axis,) = panels.lines({"": {}}, X, (6, 3), legend=False).axes
    panels.box(axis, (1, 2), 4, 2, "text")
    assert axis.texts[0].get_position() == (3, 3)
