"""What an autoencoder loses: held-out glyphs beside what comes back of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff import metrics
from minidiff.autoencoder import Autoencoder
from minidiff.evaluation import radicals, real_features
from minidiff.glyphs import GlyphDataset, as_pictures
from minidiff.inputs import plain_torch
from minidiff.recogniser import load_recogniser


@plain_torch()
@torch.no_grad()
def copies(autoencoder: nn.Module, images: Tensor) -> Tensor:
    """Pictures (N, C, H, W), in [-1, 1] or uint8, to latents and back: in [-1, 1], on the CPU.

    Args:
        autoencoder: a `minidiff.autoencoder.Autoencoder`, on any device.
    """
    assert isinstance(autoencoder, Autoencoder)
    device, mode = next(autoencoder.parameters()).device, autoencoder.training
    autoencoder.eval()
    try:
        parts = [as_pictures(part.to(device)).float() for part in images.split(64)]
        return torch.cat([autoencoder.decode(autoencoder.encode(part)).cpu() for part in parts])
    finally:
        autoencoder.train(mode)


def figures(autoencoder: Autoencoder, size: int = 128, count: int = 1034) -> dict[str, float]:
    """How near copies of held-out glyphs come to them.

    Args:
        size: of the glyphs in pixels, 64 or a multiple that the autoencoder takes.
        count: how many; distances of fewer than 1,000 flatter, see `metrics.frechet_distance`.

    Returns:
        `wrong_side`, the share of pixels on the other side of middle grey than the original;
        `edge_width` and `edge_width_of_real` in pixels of this size, see `metrics.edge_width`;
        `radical_right` and `radical_right_of_real`, the share of glyphs whose radical the
        recogniser reads at 64 × 64 (another size is brought there by averaging); and `excess`, the
        Fréchet distance over that of the originals at 64 × 64: no model that draws in these latents
        can be expected to come nearer.
    """
    dataset = GlyphDataset(size, "test")
    rows = torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).long()
    real = as_pictures(dataset.images[rows])
    copied = copies(autoencoder, real)
    recogniser, _ = load_recogniser()
    truth = torch.tensor([dataset.glyphs[i].radical for i in rows.tolist()])
    small = [F.interpolate(x, (64, 64), mode="area") for x in (real, copied)]
    right = [(radicals(recogniser, x) == truth).float().mean().item() for x in small]
    training = real_features(recogniser)
    floor, distance = (
        metrics.frechet_distance(training, metrics.features(recogniser, x)) for x in small
    )
    return {
        "wrong_side": round(((copied < 0) != (real < 0)).float().mean().item(), 5),
        "edge_width": round(metrics.edge_width(copied), 3),
        "edge_width_of_real": round(metrics.edge_width(real), 3),
        "radical_right": round(right[1], 4),
        "radical_right_of_real": round(right[0], 4),
        "excess": round(distance - floor, 3),
        "glyphs": len(real),
    }


def sheet(autoencoder: nn.Module, images: Tensor, columns: int = 8) -> Tensor:
    """A row of pictures (N, C, H, W), evenly chosen, the row of their copies, and so again.

    Returns:
        (4 · columns, C, H, W) in [-1, 1].
    """
    some = torch.linspace(0, len(images) - 1, 2 * columns).long()
    real = as_pictures(images[some.to(images.device)]).cpu()
    rows = zip(real.split(columns), copies(autoencoder, real).split(columns))
    return torch.cat([row for pair in rows for row in pair])
