"""How clean pictures are that are larger than the recogniser reads, at their full size.

`minidiff.evaluation` brings them to 64 × 64 first, where everything looks sharp.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff import metrics
from minidiff.glyphs import GlyphDataset, render, to_float
from minidiff.held_out import HeldOut
from minidiff.inputs import plain_torch, sides
from minidiff.schedules import whole_number
from minidiff.wanted import WANTED

if TYPE_CHECKING:
    from minidiff.pipeline import Pipeline


@plain_torch()
def full_size(pipeline: Pipeline, per_word: int = 4, seed: int = 0) -> dict[str, dict[str, float]]:
    """Edges, grey pixels, specks, paper and seams of pictures of the 20 words of `WANTED`.

    Beside them as many held-out real glyphs of that size, and the same brought to 64 × 64 and back.

    Args:
        pipeline: a model of square glyphs.
        per_word: pictures of each word, or of none for a model without text, 1 to 50.
        seed: of the noise that they start from.

    Raises:
        ValueError: for another number, or a model of other pictures.
    """
    height, width = sides(pipeline.image_size)
    if height != width or pipeline.config.channels != 1:
        raise ValueError(f"{pipeline} does not draw glyphs, which are grey and square")
    if not 1 <= whole_number("per_word", per_word) <= 50:
        raise ValueError(f"per_word must be from 1 to 50, got {per_word}")
    words = [*WANTED] if pipeline.config.text_encoder is not None else [""] * len(WANTED)
    parts = [pipeline(word, num_images_per_prompt=per_word, seed=seed) for word in words]
    glyphs = HeldOut(len(words) * per_word).glyphs
    real = to_float(render([glyph.char for glyph in glyphs], height)).unsqueeze(1)
    small = F.interpolate(real, (64, 64), mode="area")
    pictures = {
        "drawn": torch.cat(parts),
        "held-out real glyphs": real,
        "the same at 64 × 64, enlarged": F.interpolate(small, (height, width), mode="bilinear"),
    }
    return {name: _measures(images) for name, images in pictures.items()}


def also(pipeline: Pipeline, per_word: int, seed: int) -> dict[str, Any]:
    """What `minidiff evaluate` adds of a model whose pictures are larger than 64 × 64."""
    if pipeline.image_size == 64:
        return {}
    return {"full_size": full_size(pipeline, per_word, seed)}


PERIOD = 8  #: pixels, of a fold, of latents or of parts of it


@lru_cache(maxsize=1)
def _training_glyphs(size: int) -> Tensor:
    """Every eighth."""
    return to_float(GlyphDataset(size, "train").images[::8])


def _measures(images: Tensor) -> dict[str, Any]:
    size = images.shape[-1]
    measures = {
        "edge_width": round(metrics.edge_width(images), 3),
        "grey_share": round(metrics.grey_share(images), 4),
        "specks": round(metrics.specks(images), 4),
        "off_white": round(metrics.off_white(images), 4),
        "samples": len(images),
    }
    if size % PERIOD == 0:
        measures["seams"] = round(metrics.seams(images, _training_glyphs(size), PERIOD), 4)
    return measures
