"""The figures of the chapter on control: they show what they are given."""

from __future__ import annotations

import pytest
import torch

from minidiff.figures import control


@pytest.mark.parametrize("shape", [(12, 9), (24, 240)])
def test_low_rank_shows_each_matrix_with_its_size_and_the_product(shape: tuple[int, int]) -> None:
    rows, columns = shape
    weight, left, right = torch.randn(shape), torch.randn(rows, 2), torch.randn(2, columns)
    figure = control.low_rank(weight, left, right)
    figure.canvas.draw()
    assert figure.get_figwidth() <= 7.2
    sizes = [f"{rows} × {columns}", f"{rows} × 2", f"2 × {columns}", f"{rows} × {columns}"]
    assert [axis.get_title().split("\n")[1] for axis in figure.axes] == sizes
    shown = [torch.from_numpy(axis.images[0].get_array().data) for axis in figure.axes]
    for seen, given in zip(shown, (weight, left, right, left @ right), strict=True):
        assert torch.allclose(seen, given)
    whole, upright, flat, product = (axis.get_position() for axis in figure.axes)
    assert upright.width < whole.width / 2, "the thin one is thin"
    assert flat.height < whole.height / 2, "and so is the flat one"
    assert product.width == pytest.approx(whole.width, rel=0.05)
