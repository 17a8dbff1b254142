"""The measures, against cases with a known answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from helpers import odd_defaults
from minidiff import metrics, recogniser
from minidiff.glyphs import GlyphDataset, to_float
from minidiff.recogniser import FOLDER, Recogniser, load_recogniser, save_recogniser
from minidiff.samplers import seeded_generator
from minidiff.shelf import find_model
from minidiff.storage import CheckpointError


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded_generator(seed))


def disc(radius: float, width: float, size: int = 64) -> Tensor:
    """A black disc whose edge is a straight ramp of `width` pixels: (1, 1, size, size)."""
    place = torch.arange(size) - (size - 1) / 2
    distance = (place[:, None] ** 2 + place**2).sqrt()
    ink = ((radius - distance) / width + 0.5).clamp(0, 1)
    return (1 - 2 * ink)[None, None]


# ------------------------------------------------------------------- a set against a set


def test_frechet_distance_of_gaussians() -> None:
    # Closed form for diagonal covariances: the squared distance of means and of deviations.
    first = normal(20_000, 3)
    second = normal(20_000, 3, seed=1) * torch.tensor([1.0, 2.0, 0.5]) + torch.tensor([3.0, 0, 0])
    assert metrics.frechet_distance(first, second) == pytest.approx(9 + 1 + 0.25, rel=0.02)
    assert metrics.frechet_distance(first, first) == pytest.approx(0, abs=1e-6)


def test_few_samples_flatter_a_set_without_variety() -> None:
    real = normal(4000, 32)
    poor = normal(2000, 32, seed=1) * 0.8

    def excess(count: int) -> float:
        floor = metrics.frechet_distance(real, normal(count, 32, seed=2))
        return metrics.frechet_distance(real, poor[:count]) - floor

    assert excess(2000) == pytest.approx(32 * 0.2**2, rel=0.15)
    assert excess(50) < 0.5 * excess(2000)


def test_kernel_distance_does_not_depend_on_numbers() -> None:
    real = normal(2000, 8)
    few, many = normal(300, 8, seed=1) + 0.5, normal(2000, 8, seed=2) + 0.5
    first, second = (metrics.kernel_distance(real, x) for x in (few, many))
    assert first == pytest.approx(second, rel=0.25)
    assert abs(metrics.kernel_distance(real, normal(2000, 8, seed=3))) < first / 20


def test_kernel_distance_repeats_and_leaves_the_generator_alone() -> None:
    real, other = normal(300, 4), normal(300, 4, seed=1) + 1
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    assert metrics.kernel_distance(real, other) == metrics.kernel_distance(real, other)
    assert torch.equal(torch.rand(3), expected)


def test_distances_want_enough() -> None:
    with pytest.raises(ValueError, match="256 samples a side, got 300, 5"):
        metrics.kernel_distance(normal(300, 4), normal(5, 4))
    with pytest.raises(ValueError, match="2 samples a side, got 300, 1"):
        metrics.frechet_distance(normal(300, 4), normal(1, 4))
    with pytest.raises(ValueError, match="size must be at least 2, got 1"):
        metrics.kernel_distance(normal(300, 4), normal(300, 4), size=1)


class AsTheyAre(nn.Module):
    """What torchmetrics calls a feature extractor, for features that are extracted already."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save")
@pytest.mark.parametrize("width", [1, 8, 128])
def test_distances_are_those_of_torchmetrics(width: int) -> None:
    real, other = normal(400, width), normal(100, width, seed=1) * 1.2 + 0.3
    frechet = FrechetInceptionDistance(AsTheyAre(width)).set_dtype(torch.float64)
    kernel = KernelInceptionDistance(AsTheyAre(width), subsets=100, subset_size=64)
    for theirs, convert in ((frechet, Tensor.double), (kernel, Tensor.float)):
        theirs.update(convert(real), real=True)
        theirs.update(convert(other), real=False)
    torch.manual_seed(3)  # from which they choose the subsets
    expected = kernel.compute()[0].item()
    assert metrics.kernel_distance(real, other, 64, seed=3) == pytest.approx(expected, abs=1e-6)
    assert metrics.frechet_distance(real, other) == pytest.approx(frechet.compute().item())


def test_precision_and_recall() -> None:
    ring = torch.linspace(0, 2 * math.pi, 201)[:-1]
    real = torch.stack([ring.cos(), ring.sin()], 1)
    half = torch.cat([real[:100], real[:100]])  # all of it looks real, and it covers half
    precision, recall = metrics.precision_recall(real, half)
    assert precision == 1
    assert recall == pytest.approx(0.5, abs=0.05)
    assert metrics.precision_recall(real, real + 10) == (0, 0)
    assert metrics.precision_recall(real, real) == (1, 1)


def test_precision_wants_equal_numbers() -> None:
    with pytest.raises(ValueError, match="equal numbers, got 5, 6"):
        metrics.precision_recall(normal(5, 2), normal(6, 2))


@pytest.mark.parametrize("function", [metrics.frechet_distance, metrics.precision_recall])
def test_features_of_another_width(function) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"\(5, 2\) and \(5, 3\)"):
        function(normal(5, 2), normal(5, 3))


# ------------------------------------------------------------------- a picture by itself


@pytest.mark.parametrize("width", [2.0, 3.0, 5.0])
def test_edge_width_of_a_ramp(width: float) -> None:
    assert metrics.edge_width(disc(20, width)) == pytest.approx(width, rel=0.08)


def test_edge_width_grows_with_blur_and_not_with_ink() -> None:
    sharp = disc(20, 1.5)
    assert metrics.edge_width(metrics.blurred(sharp)) > 1.5 * metrics.edge_width(sharp)
    both = torch.cat([sharp, disc(10, 1.5)])
    assert metrics.edge_width(both) == pytest.approx(metrics.edge_width(sharp), rel=0.1)


def test_edge_width_of_nothing() -> None:
    assert metrics.edge_width(torch.ones(1, 1, 8, 8)) == 0


def test_grey_share() -> None:
    images = torch.tensor([-1.0, -0.9, -0.5, 0.0, 0.7, 0.85, 1.0, 1.0]).view(1, 1, 2, 4)
    assert metrics.grey_share(images) == pytest.approx(3 / 8)


def paper_with(*strokes: tuple[slice, slice], level: float = -1.0) -> Tensor:
    """White paper with rectangles of ink."""
    picture = torch.ones(1, 1, 32, 32)
    for rows, columns in strokes:
        picture[0, 0, rows, columns] = level
    return picture


def test_specks_are_small_blobs_that_touch_no_stroke() -> None:
    stroke = (slice(0, 30), slice(0, 2))
    nineteen, twenty = (slice(10, 11), slice(8, 27)), (slice(20, 24), slice(8, 13))
    touching = (slice(30, 31), slice(2, 4))  # the stroke, with a corner
    in_the_corner = (slice(31, 32), slice(31, 32))
    for strokes, expected in [
        ((), 0),
        ((stroke,), 0),
        ((stroke, nineteen), 1),
        ((stroke, twenty), 0),
        ((stroke, touching), 0),
        ((stroke, nineteen, in_the_corner), 2),
    ]:
        assert metrics.specks(paper_with(*strokes)) == expected, strokes
    two = torch.cat([paper_with(in_the_corner), paper_with((slice(0, 1), slice(0, 1)))])
    assert metrics.specks(two) == 1, "each picture by itself, and one a picture"
    assert metrics.specks(paper_with(nineteen, level=0.5)) == 0, "too pale for ink"


def test_off_white_is_what_is_not_quite_paper() -> None:
    levels = torch.tensor([0, 128, 234, 235, 244, 252, 253, 255], dtype=torch.uint8)
    assert metrics.off_white(levels) == pytest.approx(3 / 8)
    assert metrics.off_white(torch.tensor([1.2, 0.9, -1.3, 1.0])) == pytest.approx(1 / 4)


def test_real_glyphs_have_clean_paper() -> None:
    images = GlyphDataset(64, "test").images
    assert metrics.off_white(images) == pytest.approx(0.016, abs=0.001)
    assert metrics.specks(images) < 0.015


def test_border_white() -> None:
    images = torch.full((2, 1, 5, 6), -1.0)
    images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1] = 0.9, 0.9, 0.9, 0.9
    assert metrics.border_white(images) == pytest.approx(0.9)
    images[0, 0, 0] = 1.5  # brighter than white is not hidden
    assert metrics.border_white(images) == pytest.approx(0.9 + 6 * 0.6 / 36)


def test_blurred_keeps_paper_and_spreads_ink() -> None:
    images = torch.ones(1, 1, 21, 21)
    assert torch.allclose(metrics.blurred(images), images)
    images[0, 0, 10, 10] = -1
    ink = (1 - metrics.blurred(images, 2.0))[0, 0] / 2
    assert ink.sum().item() == pytest.approx(1, abs=1e-4)
    place = torch.arange(21) - 10.0
    assert (ink.sum(0) * place**2).sum().item() == pytest.approx(4, rel=0.05)  # its variance


def test_dilated() -> None:
    images = torch.ones(1, 1, 9, 9)
    images[0, 0, 4, 4] = -1
    assert ((metrics.dilated(images) == -1).nonzero()[:, 2:] - 4).abs().max() == 1
    assert (metrics.dilated(images) == -1).sum() == 9


def test_bytes_are_welcome_and_other_numbers_are_not() -> None:
    images = (disc(20, 2.0).repeat(3, 1, 1, 1) * 127.5 + 127.5).round().to(torch.uint8)
    reader = Recogniser(("金",)).eval()
    measures: list[Callable[[Tensor], Any]] = [
        metrics.edge_width,
        metrics.grey_share,
        metrics.border_white,
        metrics.off_white,
        metrics.specks,
        metrics.blurred,
        metrics.dilated,
        lambda x: metrics.features(reader, x),
        lambda x: reader(x)[0].detach(),
        lambda x: metrics.nearest_distance(x, images[:1]),
        lambda x: metrics.nearest_distance(images, x),
    ]
    for measure in measures:
        torch.testing.assert_close(measure(images), measure(to_float(images)))
        for wrong in (images.long(), images.short(), images > 0):
            with pytest.raises(TypeError, match=rf"floats in .*uint8.*got {wrong.dtype}"):
                measure(wrong)
    for measure in measures[:7]:
        for nothing in (images.numpy(), None, [images]):
            with pytest.raises(TypeError, match=r"got (ndarray|NoneType|list)"):
                measure(nothing)  # type: ignore[arg-type]


def test_border_of_pictures_without_a_channel() -> None:
    images = torch.rand(3, 1, 8, 10)
    assert metrics.border_white(images[:, 0]) == pytest.approx(metrics.border_white(images))


@pytest.mark.parametrize("k", [0, -1, 5, 1.5, True])
def test_precision_wants_a_neighbour_that_is_there(k: Any) -> None:
    with pytest.raises(ValueError, match=f"k must be .*got {k}"):
        metrics.precision_recall(normal(5, 2), normal(5, 2), k=k)


@pytest.mark.parametrize("wrong", [None, [[1.0]], torch.ones(5, 2, dtype=torch.long)])
def test_features_that_are_none(wrong: Any) -> None:
    for function in (metrics.frechet_distance, metrics.kernel_distance, metrics.precision_recall):
        with pytest.raises(TypeError, match="features must be a tensor of floats"):
            function(normal(5, 2), wrong)


def test_what_torch_is_set_to_does_not_matter() -> None:
    sample, pictures = normal(100, 4), disc(20, 2.0)
    expected = metrics.kernel_distance(sample, sample + 1, 50)
    with odd_defaults():
        again = metrics.kernel_distance(sample, sample + 1, 50)
        reader, _ = recogniser._load.__wrapped__(FOLDER)  # not the one that is kept
        seen = metrics.features(reader, pictures)
    assert again == expected
    assert torch.equal(seen, metrics.features(load_recogniser()[0], pictures))


# ------------------------------------------------------------------- the recogniser's folder


@pytest.mark.parametrize("value", [None, 2, b"x", ["x"], {}])
def test_what_is_no_path_is_named(value: Any) -> None:
    for act in (load_recogniser, lambda x: save_recogniser(Recogniser(("金",)), {}, x)):
        with pytest.raises(TypeError, match=r"folder must be a text or a pathlib\.Path") as error:
            act(value)
        assert repr(value) in str(error.value)


def test_a_folder_of_something_else() -> None:
    with pytest.raises(CheckpointError, match=r"glyph64 holds no recogniser"):
        load_recogniser(find_model("glyph64"))
    with pytest.raises(CheckpointError, match="not a minidiff checkpoint"):
        load_recogniser("no such folder")


# ------------------------------------------------------------------- shares and their doubt


def test_wilson() -> None:
    # Newcombe 1998, table I: 81 of 263, and 0 of 20.
    assert metrics.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert metrics.wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert metrics.wilson(20, 20)[1] == 1


@pytest.mark.parametrize("share", [(1, 0), (3, 2), (-1, 2)])
def test_wilson_of_no_share(share: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is no share"):
        metrics.wilson(*share)


def test_nearest_distance() -> None:
    candidates = torch.tensor([255, 0, 128], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    images = torch.tensor([0.9, -1.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    assert metrics.nearest_distance(images, candidates).tolist() == pytest.approx([0.1, 0.0])


def test_features_and_pictures_of_any_precision() -> None:
    real, other = normal(40, 8), normal(40, 8, seed=1)
    for measure in (lambda a, b: metrics.kernel_distance(a, b, 20), metrics.precision_recall):
        assert measure(real.double(), other) == pytest.approx(measure(real, other), rel=1e-4)
        assert measure(real.half(), other.bfloat16()) == pytest.approx(
            measure(real, other), abs=0.1
        )
    reader, _ = load_recogniser()
    pictures = disc(9.0, 1.0)
    expected = metrics.features(reader, pictures)
    assert torch.equal(metrics.features(reader, pictures.double()), expected)
    assert torch.allclose(metrics.features(reader, pictures.half()), expected, atol=0.05)


def test_whole_numbers_of_numpy() -> None:
    real, other = normal(40, 8), normal(40, 8, seed=1)
    twenty: Any = np.int64(20)
    three: Any = np.int64(3)
    assert metrics.kernel_distance(real, other, twenty) == metrics.kernel_distance(real, other, 20)
    assert metrics.precision_recall(real, other, three) == metrics.precision_recall(real, other)


@pytest.mark.parametrize("sigma", [0, -1.0, math.nan, math.inf, "1"])
def test_a_blur_that_is_none(sigma: Any) -> None:
    with pytest.raises(ValueError, match="sigma must be a number above 0, got "):
        metrics.blurred(disc(9.0, 1.0), sigma)


def test_what_is_done_to_a_recogniser_is_done_to_that_one_only() -> None:
    recogniser._load.cache_clear()
    with torch.inference_mode():
        changed = load_recogniser()[0].half().train()
    reader, pictures = load_recogniser()[0], disc(9.0, 1.0).requires_grad_()
    assert changed.training and not reader.training
    reader(pictures)[0].sum().backward()
    assert pictures.grad is not None and reader.head.weight.dtype == torch.float32


def test_seams_are_seen_on_their_grid_only() -> None:
    real, smooth = torch.rand(2, 200, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    seam = smooth.clone()
    seam[..., ::8] += 0.3  # every eighth column is a little lighter
    assert metrics.seams(smooth, real, 8) < 0.01 < 0.08 < metrics.seams(seam, real, 8)
    assert metrics.seams(seam, real, 4) > 0.04  # a harmonic
    assert metrics.seams(seam.mT, real, 8) > 0.08  # rows as well
    assert metrics.seams(seam, seam, 8) == 0  # what real glyphs have is no seam
