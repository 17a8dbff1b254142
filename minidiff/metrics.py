"""How good are pictures of glyphs: near the real ones, sharp, various, and not copied?

Functions of tensors; what is drawn and compared with what is decided in `minidiff.evaluation`.
Pictures are floats in [-1, 1] or uint8 (255 = white); other whole numbers are a TypeError.
Distances are taken in the features of the recogniser (`minidiff.recogniser`), (N, 128) each.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.glyphs import as_pictures, check_pictures, nearest
from minidiff.inputs import plain_torch
from minidiff.schedules import is_finite, whole_number

if TYPE_CHECKING:
    from minidiff.recogniser import Recogniser


# ------------------------------------------------------------------- a set against a set


@torch.inference_mode()
def features(recogniser: Recogniser, images: Tensor) -> Tensor:
    """What the recogniser sees in pictures (N, 1, 64, 64), in [-1, 1] or uint8: (N, 128)."""
    check_pictures(images)
    return torch.cat([recogniser.features(x) for x in images.split(256)])


def frechet_distance(real: Tensor, other: Tensor) -> float:
    """Fréchet distance between two sets of features (Heusel et al. 2017, eq. 6).

    ‖m1 − m2‖² + tr(C1 + C2 − 2 (C1 C2)^½), as if both were Gaussian. Of few samples it comes out
    too large, and how much so depends on the set: one with less variety has a smaller bias (Chong
    and Forsyth 2020). So the floor of as many real samples does not take the bias away, and few
    samples flatter a model that has lost variety: compare only figures of the same number of
    samples, which is more than 1,000.

    Args:
        real, other: (N, d) and (M, d), at least 2 a side.

    Raises:
        ValueError: for fewer, or features of different widths.
    """
    real, other = (x.cpu().double() for x in _features(real, other, at_least=2))
    shift = (real.mean(0) - other.mean(0)).square().sum()
    one, two = (torch.atleast_2d(x.T.cov()) for x in (real, other))
    root = torch.linalg.eigvals(one @ two).sqrt().real.sum()  # the trace of (C1 C2)^½
    return (shift + one.trace() + two.trace() - 2 * root).item()


@plain_torch()
def kernel_distance(real: Tensor, other: Tensor, size: int = 256, seed: int = 0) -> float:
    """Kernel distance between two sets of features (Bińkowski et al. 2018): near 0 for equal ones.

    Unlike the Fréchet distance it does not depend on how many samples there are. The mean of
    `maximum_mean_discrepancy` over 100 random subsets of `size`.

    Args:
        real, other: (N, d) and (M, d), each at least `size`.

    Raises:
        ValueError: for fewer, or features of different widths.
    """
    if (size := whole_number("size", size)) < 2:
        raise ValueError(f"size must be at least 2, got {size}")
    real, other = _features(real, other, at_least=size)
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(100):
        some = (x[torch.randperm(len(x), generator=generator)[:size]] for x in (real, other))
        values.append(maximum_mean_discrepancy(*some))
    return torch.stack(values).mean().item()


def maximum_mean_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """Its square, without bias, for the kernel (a·b / d + 1)³ (Gretton et al. 2012, lemma 6).

    The mean kernel of two different ones of `x`, and of `y`, less twice that of one of each.

    Args:
        x, y: (n, d) each.
    """

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def mean_of_pairs(a: Tensor) -> Tensor:
        k = kernel(a, a)
        return (k.sum() - k.trace()) / (len(a) * (len(a) - 1))

    return mean_of_pairs(x) + mean_of_pairs(y) - 2 * kernel(x, y).mean()


def precision_recall(real: Tensor, other: Tensor, k: int = 3) -> tuple[float, float]:
    """How much of `other` looks real, and how much of the real ones `other` covers.

    A set's region is the union of balls around its members that reach to the k-th neighbour;
    precision is the share of `other` in the region of `real`, recall the reverse (Kynkäänniemi
    et al. 2019, eq. 1 and 2).

    Precision alone is easily fooled: what the recogniser cannot make out lands in the middle of its
    space, where the balls of rare glyphs reach, so that noise has precision 1. Its recall is 0.

    Args:
        real, other: (N, d) and (N, d): equal numbers, for the region grows with the number.
        k: which neighbour, 1 to N − 1.

    Raises:
        ValueError: for different numbers or widths, or no k-th neighbour.
    """
    real, other = _features(real, other)
    if not 1 <= (k := whole_number("k", k)) < len(real):
        raise ValueError(f"k must be from 1 to {len(real) - 1}, one less than samples, got {k}")
    if len(real) != len(other):
        raise ValueError(f"precision and recall need equal numbers, got {len(real)}, {len(other)}")

    def share(inside: Tensor, region: Tensor) -> float:
        radius = torch.cdist(region, region).kthvalue(k + 1, dim=1).values  # the first is itself
        return (torch.cdist(inside, region) <= radius).any(1).float().mean().item()

    return share(other, real), share(real, other)


def _features(real: Tensor, other: Tensor, at_least: int = 0) -> tuple[Tensor, Tensor]:
    """Both in the same precision, which is single at least."""
    for features in (real, other):
        if not isinstance(features, Tensor) or not features.is_floating_point():
            got = getattr(features, "dtype", type(features).__name__)
            raise TypeError(f"features must be a tensor of floats (N, d), got {got}")
    if real.ndim != 2 or other.ndim != 2 or real.shape[1] != other.shape[1]:
        raise ValueError(
            "features must be (N, d) and (M, d) of the same width d, "
            f"got {tuple(real.shape)} and {tuple(other.shape)}"
        )
    if min(len(real), len(other)) < at_least:
        raise ValueError(
            f"the distance needs {at_least} samples a side, got {len(real)}, {len(other)}"
        )
    dtype = torch.promote_types(torch.promote_types(real.dtype, other.dtype), torch.float32)
    return real.to(dtype), other.to(dtype)


# ------------------------------------------------------------------- a picture by itself


def edge_width(images: Tensor) -> float:
    """Mean width in pixels of the way from paper to ink.

    With u the ink from 0 to 1, a straight ramp of width w contributes w/6 to the integral of
    u (1 − u) for every unit of the edge's length, and that of ‖grad u‖ is that length. So
    w = 6 ∫u(1 − u) / ∫‖grad u‖. Grey mush has wide edges; a font's are about a pixel wide.

    Args:
        images: (N, 1, H, W).
    """
    ink = (1 - as_pictures(images)) / 2
    down = (ink[..., 1:, :-1] - ink[..., :-1, :-1]).square()
    right = (ink[..., :-1, 1:] - ink[..., :-1, :-1]).square()
    length = (down + right).sqrt().sum().item()
    return 6 * (ink * (1 - ink)).sum().item() / max(length, 1e-9)


def grey_share(images: Tensor) -> float:
    """Share of pixels that are neither paper nor ink (between 1/10 and 9/10 of the way).

    Args:
        images: any shape.
    """
    return (as_pictures(images).abs() < 0.8).float().mean().item()


def off_white(images: Tensor) -> float:
    """Share of pixels that are not quite white paper: 235 to 252 as bytes, where 255 is white.

    Held-out real glyphs have 1.6 %, at the edges of their strokes; a veil of grey has far more.

    Args:
        images: any shape.
    """
    level = ((as_pictures(images).clamp(-1, 1) + 1) * 127.5).round()
    return ((level >= 235) & (level <= 252)).float().mean().item()


def specks(images: Tensor) -> float:
    """Blobs of ink of fewer than 20 pixels that touch no stroke, a picture.

    Ink is what is darker than 160 as a byte, and pixels touch that have an edge or a corner in
    common. Held-out real glyphs then have 0.01. With ink from middle grey on they would have 0.04:
    thin strokes, which are grey at this size, would fall into pieces.

    Args:
        images: (N, 1, H, W).
    """
    ink = F.pad(as_pictures(images)[:, 0] < 0.25, [1] * 4)  # so that no blob reaches round an edge
    width = ink.shape[-1]
    around = (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1)
    left = set(ink.flatten().nonzero()[:, 0].tolist())
    found = 0
    while left:
        blob = [left.pop()]
        for pixel in blob:  # it grows as long as it has neighbours
            near = left.intersection([pixel + step for step in around])
            left -= near
            blob += near
        found += len(blob) < 20
    return found / max(len(images), 1)


def on_grid(images: Tensor, period: int) -> Tensor:
    """(2, period) strength of edges between columns, and rows, by their place modulo the period.

    The mean is 1. The font itself is not even: its strokes have places that they prefer.

    Args:
        images: (N, 1, H, W), sides multiples of the period.
    """
    steps = [(x - x.roll(1, 3)).abs().mean((0, 1, 2)) for x in (images, images.transpose(2, 3))]
    by_place = torch.stack(steps).double().view(2, -1, period).mean(1)
    return by_place / by_place.mean(1, keepdim=True)


def seams(images: Tensor, real: Tensor, period: int) -> float:
    """How else than in real glyphs edges lie on a grid of this period: 0 if they do not know it.

    The root mean square of the difference; by Parseval's theorem the root of the difference's power
    at the period and its harmonics. Of columns and rows, the larger.

    Args:
        images, real: (N, 1, H, W) and (M, 1, H, W), sides multiples of the period.
    """
    difference = on_grid(images, period) - on_grid(real, period)
    return difference.square().mean(1).sqrt().max().item()


def border_white(images: Tensor) -> float:
    """Mean of the outermost ring of pixels; white paper is +1, a grey veil is less.

    Args:
        images: (N, 1, H, W), not clipped to [-1, 1]: clipping hides what is too bright.
    """
    images = as_pictures(images)
    inner = images[..., 1:-1, 1:-1]
    pixels = images.numel() - inner.numel()
    return (images.sum().item() - inner.sum().item()) / max(pixels, 1)


def blurred(images: Tensor, sigma: float = 1.0) -> Tensor:
    """(N, 1, H, W) -> the same after a Gaussian blur of `sigma` pixels.

    Raises:
        ValueError: for a sigma that is no number above 0.
    """
    if not (is_finite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be a number above 0, got {sigma!r}")
    images, reach = as_pictures(images), 3 * math.ceil(sigma)
    x = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(images, [reach] * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))


def dilated(images: Tensor) -> Tensor:
    """(N, 1, H, W) -> the same with the ink one pixel thicker on all sides."""
    return -F.max_pool2d(-as_pictures(images), 3, stride=1, padding=1)


# ------------------------------------------------------------------- shares and their doubt


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): honest also near 0 and 1 and for few trials.

    Raises:
        ValueError: unless 0 ≤ successes ≤ trials and there is a trial.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials} is no share: give 0 ≤ successes ≤ trials")
    z, p = 1.959964, successes / trials
    middle = (p + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(p * (1 - p) / trials + (z / (2 * trials)) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)


def nearest_distance(images: Tensor, candidates: Tensor) -> Tensor:
    """(N,) how far each picture is from the nearest candidate: root mean square over pixels.

    Args:
        images, candidates: (N, 1, H, W) and (M, 1, H, W).
    """
    check_pictures(images)
    check_pictures(candidates, "candidates")
    found = candidates[nearest(images, candidates)[:, 0].to(candidates.device)].to(images.device)
    return (as_pictures(images) - as_pictures(found)).square().flatten(1).mean(1).sqrt()
