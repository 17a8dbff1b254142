"""Spaces: there and back, and the range between."""

from __future__ import annotations

import pytest
import torch

from minidiff.spaces import Pixels

SPACE = Pixels(0.125, 0.7)


def test_there_and_back() -> None:
    images = torch.tensor([-1.0, 0.0, 0.3, 1.0])
    x = SPACE.to_data(images)
    assert torch.allclose(x, (images - 0.125) / 0.7)
    assert torch.allclose(SPACE.to_images(x), images)
    assert SPACE.to_images(torch.tensor([-9.0, 9.0])).tolist() == [-1, 1]
    assert SPACE.data_range == pytest.approx((x[0].item(), x[-1].item()))


def test_bytes_are_welcome_and_other_numbers_are_not() -> None:
    grey = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert torch.equal(SPACE.to_data(grey), SPACE.to_data(torch.tensor([-1, -0.6, 1.0])))
    assert torch.equal(SPACE.to_data(torch.ones(2).double()), SPACE.to_data(torch.ones(2)))
    with pytest.raises(
        TypeError, match=r"x must be floats in the network's units, got torch.uint8"
    ):
        SPACE.to_images(grey)
    for wrong in (grey.long(), grey > 0, grey.numpy(), [0.5], None):
        with pytest.raises(TypeError, match=r"images must be a tensor of floats in \[-1, 1\].*got"):
            SPACE.to_data(wrong)  # type: ignore[arg-type]


def test_a_data_set_has_mean_0_and_deviation_1_in_its_space() -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (50, 3, 8, 8), dtype=torch.uint8, generator=draw)
    x = Pixels.of(images).to_data(images)
    assert abs(x.mean()) < 1e-4 and abs(x.std() - 1) < 1e-4
    white = torch.full((2, 1, 4, 4), 255, dtype=torch.uint8)
    assert torch.isfinite(Pixels.of(white).to_data(white)).all()


def test_spaces_agree_up_to_what_another_freetype_draws() -> None:
    assert SPACE.agrees(Pixels(0.1255, 0.6995)) and not SPACE.agrees(Pixels(0.125, 0.71))
    assert not SPACE.agrees(None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((float("nan"), 1.0), "mean must be a finite number, got nan"),
        ((0.0, 0.0), "std must be above 0, got 0.0"),
        ((0.0, [1]), r"std must be a finite number, got \[1\]"),
    ],
)
def test_a_space_that_cannot_be_is_refused(values: tuple[float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pixels(*values)
