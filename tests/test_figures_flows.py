"""Figures of flows: they show what they were given."""

from __future__ import annotations

import matplotlib
import numpy as np
import torch

from minidiff.figures import flows as draw_figure

matplotlib.use("Agg")


def test_walks_lie_on_their_density() -> None:
    x, density = torch.linspace(-2, 2, 5), torch.rand(11, 5) + 0.1
    panels = {"one": torch.zeros(11, 3), "two": torch.ones(11, 4)}
    left, right = draw_figure.walks(panels, x, density).axes
    assert (len(left.lines), len(right.lines)) == (3, 4)
    assert left.get_title() == "one" and left.images[0].get_extent() == [0, 10, -2, 2]
    shade = left.images[0].get_array()
    assert shade.shape == (5, 11), "places upwards, time to the right"
    assert np.allclose(shade.max(axis=0), 1), "a flat hill is as dark as a steep one"


def test_paths_begin_hollow_and_end_full() -> None:
    path = torch.randn(6, 9, 2, generator=torch.Generator().manual_seed(0))
    left, right = draw_figure.paths({"a": path, "b": 2 * path}, marked=2).axes
    for axis, points in ((left, path), (right, 2 * path)):
        begin, end = axis.collections
        assert np.allclose(begin.get_offsets(), points[0])
        assert np.allclose(end.get_offsets(), points[-1])
    assert len(left.lines) == 9
    assert sum(line.get_linewidth() > 1 for line in left.lines) == 2


def test_likelihoods_are_held_against_the_truth() -> None:
    pixels, truth = torch.linspace(-1, 1, 4), torch.tensor([-2.0, -1.0, 0.5])
    maps = {"true": torch.rand(4, 4), "found": torch.rand(4, 4)}
    figure = draw_figure.likelihoods(pixels, maps, truth, {"a": truth, "b": truth + 1})
    one, two, last = figure.axes
    assert np.allclose(two.images[0].get_array(), maps["found"])
    assert one.images[0].get_clim() == two.images[0].get_clim(), "shades can be compared"
    diagonal, a, b = last.lines
    assert diagonal.get_xdata().tolist() == diagonal.get_ydata().tolist() == [-2, 0.5]
    assert np.allclose(b.get_ydata(), truth + 1) and a.get_marker() != b.get_marker()
