"""What the page that draws shows without a network of its own: recorded walks, and real glyphs."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter

import numpy as np
import torch.nn.functional as F
from PIL import Image

import minidiff
from minidiff.captions import radical_name
from minidiff.glyphs import glyph_images, load_glyphs
from minidiff.plots import to_uint8

WORDS = ("dragon", "water", "gold", "fish", "bird", "heart", "fire", "horse")
STEPS = 20
SIDE = 16  # pixels of the small pictures that are compared, as in minidiff.likeness
OFTEN = 100  # glyphs of a radical from which on a model follows its name nearly always


def recorded(name: str) -> str:
    """A script with the walks of `WORDS`, seed 0: above x_t, below the guess, in 16 greys."""
    pipeline = minidiff.load(name)
    walks = {}
    for word in WORDS:
        frames = list(pipeline.steps(word, num_inference_steps=STEPS, seed=0))
        rows = [
            np.concatenate([to_uint8(getattr(frame, part))[0, 0].numpy() for frame in frames], 1)
            for part in ("images", "predicted")
        ]
        walks[word] = {
            "t": [frame.t for frame in frames],
            "sheet": as_address(np.concatenate(rows)),
        }
    return f"globalThis.RECORDED = {json.dumps(walks)};\n"


def as_address(grey: np.ndarray) -> str:
    """A picture (H, W), uint8, as a data: address."""
    few = Image.fromarray((grey.astype(np.uint16) * 15 + 127) // 255 * 17).convert("L")
    palette = few.quantize(16, dither=Image.Dither.NONE)
    file = io.BytesIO()
    palette.save(file, "PNG", optimize=True, bits=4)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def real_glyphs() -> bytes:
    """All glyphs in the order of `load_glyphs`, at 16 × 16 in 16 greys, two pixels a byte."""
    small = F.avg_pool2d(glyph_images(64).float(), 64 // SIDE).flatten(1)
    grey = (small * (15 / 255)).round().byte().numpy()
    packed: bytes = (grey[:, 0::2] << 4 | grey[:, 1::2]).tobytes()
    return packed


def radicals() -> list[str]:
    """Names of the radicals that many glyphs have, in the order of the alphabet."""
    counts = Counter(glyph.radical for glyph in load_glyphs())
    return sorted(radical_name(number) for number, count in counts.items() if count >= OFTEN)
