"""The figures of distributions and of slices: they show what they are given."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minidiff.figures import densities

PLAYER = Path(__file__).parents[1] / "book" / "_static" / "players" / "slice.html"
X = torch.linspace(-1, 1, 21)


def drawable(figure: Any) -> None:
    figure.canvas.draw()  # labels with faulty mathematics fail here
    assert figure.get_figwidth() <= 7.2


def texts(axis: Any) -> list[str]:
    return [text.get_text() for text in axis.texts]


def test_histogram_points_from_each_picture_to_its_place() -> None:
    values, places = torch.linspace(0.1, 0.5, 50), torch.tensor([0.2, 0.45])
    figure = densities.histogram(values, torch.zeros(2, 1, 8, 8), places, "ink")
    drawable(figure)
    above, axis = figure.axes
    assert [line.get_xdata()[-1] for line in above.lines] == pytest.approx([0.2, 0.45])
    assert above.get_xlim() == axis.get_xlim(), "else the lines do not meet"
    assert sum(bar.get_height() for bar in axis.patches) == 50
    with pytest.raises(ValueError, match="zip"):
        densities.histogram(values, torch.zeros(3, 1, 8, 8), places, "ink")


def test_learnt_shows_draws_as_a_density_between_two_curves() -> None:
    figure = densities.learnt(X, X, torch.randn(500), 2 * X)
    drawable(figure)
    (axis,) = figure.axes
    areas = [bar.get_width() * bar.get_height() for bar in axis.patches]
    assert sum(areas) == pytest.approx(1)
    assert [line.get_ydata()[-1] for line in axis.lines] == [1, 2]
    assert axis.lines[1].get_linestyle() == ":"


def test_likelihoods_repeats_wrong() -> None:
    examples = torch.tensor([0.1, 0.4])
    candidates = {"a": (X, examples), "b": (2 * X, 2 * examples)}
    figure = densities.likelihoods(X, candidates, examples, X, -(X**2), 0.25)
    drawable(figure)
    left, right = figure.axes
    assert left.lines[3].get_ydata().tolist() == (2 * examples).tolist()
    assert right.lines[1].get_xdata()[0] == 0.25
    figure = densities.repeats(X, X, {"few": torch.rand(3, 21), "many": torch.rand(4, 21)})
    drawable(figure)
    assert [len(axis.lines) for axis in figure.axes] == [4, 5]
    edges, cells = torch.linspace(-1, 1, 5), torch.tensor([0.1, 0.4, 0.4, 0.1])
    figure = densities.wrong(X, X.abs(), {"flat": 0 * X}, edges, cells)
    drawable(figure)
    steps = figure.axes[1].patches[0].get_data()
    assert list(steps.values) == cells.tolist()


@pytest.mark.parametrize(
    ("bits", "expected"), [(4, "16"), (16, "65,536"), (36, "7 · $10^{10}$"), (256, "$10^{77}$")]
)
def test_numbers_of_cells(bits: int, expected: str) -> None:
    assert densities._power(bits) == expected


def test_cells_and_machine() -> None:
    pictures = [torch.zeros(k, k, dtype=torch.bool) for k in (2, 3)]
    figure = densities.cells((2, 3), [1.0, 0.054], pictures)
    drawable(figure)
    axis = figure.axes[1]
    assert texts(axis) == ["100 %", "5.4 %"]
    assert axis.get_xticklabels()[1].get_text().split() == ["3", "×", "3", "512", "cells"]
    drawable(densities.machine(torch.randn(99), torch.rand(99), X, X**2))


def test_table_has_the_sums_of_rows_and_columns() -> None:
    counts = torch.tensor([[1000, 2], [3, 4]])
    figure = densities.table(counts, ["r", "s"], ["c", "d"], counts / counts.sum(1, keepdim=True))
    drawable(figure)
    left, right = figure.axes
    assert texts(left) == ["1,000", "2", "1,002", "3", "4", "7", "1,003", "6", "1,009"]
    assert texts(right) == ["100%", "0%", "43%", "57%"]
    # Both tables have rows of the same height, though one has a row of sums.
    assert left.get_ylim() == right.get_ylim()


def joint(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.exp(-(x**2) / 2 - (y[:, None] - 1) ** 2 / 2) / (2 * math.pi)


def test_joint_slice_marks_the_density_of_the_cut() -> None:
    x, y = torch.linspace(-4, 4, 81), torch.linspace(-3, 5, 81)
    figure = densities.joint_slice(x, y, joint(x, y), 1.0, torch.exp(-(x**2)), (-1, 1))
    drawable(figure)
    side = figure.axes[3]
    length, top = max(side.lines[0].get_xdata()), 1 / math.sqrt(2 * math.pi)
    assert length == pytest.approx(top, rel=0.01), "p(y) at its highest place"
    assert set(figure.axes[2].lines[0].get_ydata()) == {1.0}


def test_slices_bands_guesses() -> None:
    figure = densities.slices(X, X, {"y = 1": 2 * X, "y = 2": 3 * X})
    drawable(figure)
    assert [axis.lines[0].get_ydata()[-1] for axis in figure.axes] == [2, 3]
    points = torch.tensor([[0.1, 0.0], [0.2, 0.0], [0.9, 5.0]])
    near = {"near": points[:, 1] < 1, "all": points[:, 1] < 9}
    figure = densities.bands(points, near, X, X**2)
    drawable(figure)
    counted = [np.sum([bar.get_height() > 0 for bar in axis.patches]) for axis in figure.axes[2:]]
    assert counted == [2, 3]
    figure = densities.guesses(X, {"t = 1": {"one": X, "two": 2 * X}, "t = 2": {"one": X}})
    drawable(figure)
    assert figure.axes[0].lines[1].get_ydata()[-1] == 2


def test_the_player_has_the_landscape_of_the_chapter() -> None:
    """Weight, means, and variance of x, covariance, variance of y of its first two spots."""
    source = PLAYER.read_text(encoding="utf-8")
    block = re.search(r"two tilted spots\": \[(.+?)\n    \]", source, re.S)
    assert block
    spots = [[float(v) for v in row.split(",")] for row in re.findall(r"\[([-\d., ]+)\]", block[1])]
    chapter = Path(__file__).parents[1] / "notebooks" / "08_conditioning.ipynb"
    text = chapter.read_text(encoding="utf-8")
    lines = (r'"one, other = (.+)', r'"means = torch\.tensor\((.+)\)')
    covariances, means = (
        [float(v) for v in re.findall(r"-?\d+\.\d+", re.findall(line, text)[0])] for line in lines
    )
    assert "joint = Mixture(torch.ones(2) / 2, means, torch.tensor([one, other]))" in text
    weights = [0.5, 0.5]
    for k, spot in enumerate(spots):
        (xx, xy, _, yy) = covariances[4 * k : 4 * k + 4]
        assert spot == [weights[k], *means[2 * k : 2 * k + 2], xx, xy, yy]
