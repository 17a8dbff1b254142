"""Figures of transformers: they show what they were given."""

from __future__ import annotations

import matplotlib
import numpy as np
import torch

from minidiff.figures import transformers as draw_figure

matplotlib.use("Agg")


def test_a_picture_is_cut_and_nothing_of_it_is_lost() -> None:
    picture = torch.rand(8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    left, right = draw_figure.cut(picture, 4).axes
    assert left.get_title() == "8 × 12 pixels" and right.get_title() == "6 patches of 16 numbers"
    assert np.allclose(left.images[0].get_array(), picture)
    apart = right.images[0].get_array()
    assert apart.shape == (12, 18), "gaps of half a patch"
    # numpy's masked array: gaps are not numbers
    kept = np.ma.masked_invalid(apart)
    assert np.allclose(np.sort(kept.compressed()), np.sort(picture.flatten()))
    assert np.allclose(kept[6:10, 12:16], picture[4:8, 8:12])


def test_looks_frame_the_place_that_looks() -> None:
    picture = torch.ones(8, 8)
    picture[:, 0] = -1
    weight = torch.arange(16.0)
    figure = draw_figure.looks(picture, {"a": (6, weight), "b": (0, weight)})
    first, second = figure.axes
    shades, ink = first.images
    assert np.allclose(shades.get_array(), weight.view(4, 4)) and shades.get_clim()[0] == 0
    assert (ink.get_alpha()[:, 0] > 0.5).all() and not ink.get_alpha()[:, 1:].any()
    (frame,), (other,) = first.patches, second.patches
    assert frame.get_xy() == (2, 1) and other.get_xy() == (0, 0)
