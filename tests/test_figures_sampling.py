"""Figures of sampling and of the score: they show what they were given."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pytest
import torch

from minidiff.figures import BLUE, ORANGE
from minidiff.figures import sampling as draw_figure
from minidiff.toys import ring, two_peaks

matplotlib.use("Agg")


def offsets(axis: Any) -> list[np.ndarray]:
    return [np.asarray(collection.get_offsets()) for collection in axis.collections]


def test_moment_has_states_above_guesses_in_few_greys_until_the_end() -> None:
    states = torch.linspace(-1.5, 1.5, 2 * 64).view(2, 1, 8, 8)
    greys = {}
    for t in (900, 100, 0):
        sheet = np.array(draw_figure.moment(t, states, -states))
        cells = sheet[26:34, 4:12], sheet[26 + 34 : 34 + 34, 4:12]
        assert (cells[0] <= 128).all() and (cells[1] >= 127).all(), "dark above, pale below"
        greys[t] = [len(np.unique(sheet[top : top + 8, 4:24])) for top in (26, 60)]
    assert greys[900][0] < greys[100][0] < greys[0][0]
    assert greys[900][1] < greys[0][1]


def test_one_step_shows_one_end_and_many() -> None:
    data = ring().sample(50, torch.Generator().manual_seed(0))
    x_t, x0, kept = torch.tensor([[2.0, 1.0], [0.5, 0.2], [1.0, 0.6]])
    fresh = torch.randn(30, 2, generator=torch.Generator().manual_seed(1))
    figure = draw_figure.one_step(data, x_t, x0, kept, fresh)
    left, right = figure.axes
    assert [len(o) for o in offsets(left)] == [50, 1, 1, 1]
    assert [len(o) for o in offsets(right)] == [50, 30, 1, 1]
    assert np.allclose(offsets(left)[1][0], kept) and np.allclose(offsets(right)[1], fresh)
    assert figure.legends and not any(axis.get_legend() for axis in figure.axes), "off the points"


def test_reverse_kernels_tell_truth_and_step_apart() -> None:
    x = torch.linspace(-3, 3, 61)
    truth, step = torch.exp(-(x**2)).repeat(3, 1), torch.exp(-2 * x**2).repeat(3, 1)
    figure = draw_figure.reverse_kernels(x, truth, step, ["a", "b", "c"])
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c"]
    lines = figure.axes[1].lines
    assert [line.get_color() for line in lines] == [BLUE, ORANGE]
    assert np.allclose(lines[1].get_ydata(), step[1])
    assert lines[0].get_linestyle() != lines[1].get_linestyle(), "not by colour alone"


def test_paths_run_from_noise_at_the_left_to_data_at_the_right() -> None:
    t, x = torch.tensor([1000, 500, 0]), torch.linspace(-3, 3, 9)
    walks = {"one": torch.zeros(3, 4), "two": torch.ones(3, 5)}
    figure = draw_figure.paths(t, walks, x, torch.rand(3, 9) + 0.1)
    assert [len(axis.lines) for axis in figure.axes] == [4, 5]
    assert all(axis.get_xlim() == (1000, 0) for axis in figure.axes)


def test_errors_are_logarithmic_on_both_axes() -> None:
    figure = draw_figure.errors({"a": [5, 10], "b": [10, 20]}, {"a": [0.1, 0.05], "b": [0.1, 0.02]})
    (axis,) = figure.axes
    assert axis.get_xscale() == axis.get_yscale() == "log"
    assert [list(line.get_xdata()) for line in axis.lines] == [[5, 10], [10, 20]]
    assert len({line.get_marker() for line in axis.lines}) == 2, "not by colour alone"


def test_slope_shows_density_logarithm_and_score() -> None:
    peaks, x = two_peaks(), torch.linspace(-2, 2, 41)
    density, score = peaks.log_density(x[:, None]).exp(), peaks.score(x[:, None])[:, 0]
    curves = [axis.lines[0].get_ydata() for axis in draw_figure.slope(x, density, score).axes]
    assert all(np.allclose(a, b) for a, b in zip(curves, (density, density.log(), score)))


@pytest.mark.parametrize(("count", "rows"), [(2, 1), (4, 2)])
def test_field_keeps_directions_and_order_of_lengths(count: int, rows: int) -> None:
    grid = torch.linspace(-2, 2, 11)
    points = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    arrows = torch.tensor([[1.0, 0.0], [0.0, 4.0]]).repeat(count, 1, 1)
    names = [str(i) for i in range(count)]
    figure = draw_figure.field(grid, torch.rand(count, 11, 11), points, arrows, names)
    assert len(figure.axes) == count
    assert figure.axes[0].get_gridspec().nrows == rows
    quiver = figure.axes[0].collections[-1]
    assert np.allclose(quiver.U, [1, 0]) and np.allclose(quiver.V, [0, 2]), "square roots"


def test_score_estimates_lie_over_the_truth() -> None:
    x = torch.linspace(-3, 3, 21)
    truth, estimates = -x.repeat(2, 1), torch.zeros(2, 5, 21)
    data = [torch.zeros(30), torch.ones(40)]
    figure = draw_figure.score_estimates(x, truth, estimates, data, ["low", "high"], [4, 2])
    above = figure.axes[:2]
    assert [axis.get_title() for axis in above] == ["low", "high"]
    assert [axis.get_ylim() for axis in above] == [(-4, 4), (-2, 2)]
    assert [line.get_color() for line in above[0].lines][:6] == [ORANGE] * 5 + [BLUE]
    counted = [sum(patch.get_height() for patch in axis.patches) for axis in figure.axes[2:]]
    assert counted == [30, 40]
