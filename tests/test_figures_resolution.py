"""The figures of high resolution and of fewer steps: they show what they are given."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from minidiff.figures import few_steps, resolution


def drawable(figure: Any) -> None:
    figure.canvas.draw()  # labels with faulty mathematics fail here
    assert figure.get_figwidth() <= 7.2


def test_cost_is_drawn_for_every_network_and_ends_at_the_proportion() -> None:
    spent = {"one": [0.1, 0.2, 0.8], "two": [0.1, 0.1, 0.2]}
    figure = resolution.cost((32, 64, 128), spent)
    drawable(figure)
    (axis,) = figure.axes
    one, two, pixels = (line.get_ydata() for line in axis.lines)
    assert list(one) == spent["one"] and list(two) == spent["two"]
    assert list(pixels) == pytest.approx([0.05, 0.2, 0.8])
    assert [label.get_text() for label in axis.get_xticklabels()] == ["32", "64", "128"]


def test_tiles_lie_row_by_row_between_lines_of_paper() -> None:
    pictures = torch.arange(6.0)[:, None, None].expand(6, 16, 16)
    sheet = resolution.tiled(pictures, 3, paper=9.0)
    assert sheet.shape == (1, 33, 50)
    assert sheet[0, ::17, ::17].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (sheet[0, 16] == 9).all() and (sheet[0, :, 16] == 9).all()


def test_panels_show_pictures_of_any_size_as_strong_as_they_are_told() -> None:
    row = {"large": (torch.zeros(1, 8, 8), 1.0), "small": (torch.ones(1, 4, 6), 3.0)}
    figure = resolution.panels([row, row])
    drawable(figure)
    assert [axis.get_title() for axis in figure.axes] == ["large", "small"] * 2
    (image,) = figure.axes[1].images
    assert image.get_array().shape == (4, 6) and image.get_clim() == (-3, 3)


def test_pairs_have_the_colour_of_their_partners_peak() -> None:
    noise, ends = torch.randn(30, 2), torch.randn(30, 2)
    figure = few_steps.pairs({"one": (noise, ends, torch.arange(30) % 3)}, joined=4)
    drawable(figure)
    (axis,) = figure.axes
    first, *_ = axis.collections
    assert torch.equal(torch.tensor(first.get_offsets().data).float(), noise[::3])
    coloured = [line for line in axis.lines if line.get_color() != "white"]
    colours = [line.get_color() for line in coloured]
    assert len(colours) == 4 and colours[0] == colours[3] != colours[1]
    assert coloured[0].get_xydata().tolist() == torch.stack([noise[0], ends[0]]).tolist()


def test_every_walk_of_jumps_ends_where_the_path_ends() -> None:
    path = torch.linspace(0, 1, 9)[:, None].expand(9, 2)
    figure = few_steps.jumps(path, (4, 1), torch.zeros(2, 2))
    drawable(figure)
    four, one = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["4 jumps", "1 jump"]
    assert [len(line.get_xdata()) for line in four.lines] == [9, 5]  # behind it the finer walk
    assert [len(line.get_xdata()) for line in one.lines] == [5, 2]
    assert all(line.get_xdata()[-1] == 1 for axis in figure.axes for line in axis.lines)


def test_what_was_drawn_has_a_row_for_each_who_draws() -> None:
    points = {"1": torch.zeros(3, 2), "2": torch.ones(4, 2), "4": torch.ones(5, 2)}
    figure = few_steps.drawn({"student": points, "teacher": points}, torch.zeros(6, 2))
    drawable(figure)
    assert [axis.get_title() for axis in figure.axes] == ["1", "2", "4", "", "", ""]
    assert [axis.get_ylabel() for axis in figure.axes] == ["student", "", "", "teacher", "", ""]
    assert [len(axis.collections[1].get_offsets()) for axis in figure.axes] == [3, 4, 5] * 2


def test_measures_by_evaluations_name_their_numbers_and_real_glyphs() -> None:
    both = {"student": ([1, 4], [3.0, 2.0]), "teacher": ([4, 40], [2.5, 1.5])}
    figure = few_steps.by_evaluations({"share": both, "edge": both}, {"edge": 1.0})
    drawable(figure)
    left, right = figure.axes
    assert [label.get_text() for label in left.get_xticklabels()] == ["1", "4", "40"]
    assert len(left.lines) == 2 and right.lines[-1].get_ydata()[0] == 1.0
