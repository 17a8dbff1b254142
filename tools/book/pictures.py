"""Make the pictures of the README and the book's front page from the shipped model.

    python tools/book/pictures.py

Writes book/_static/glyphs.png (eight everyday words, the first eight glyphs of each),
book/_static/gold.gif (16 glyphs coming out of noise) and gold.png (its last moment, for readers who
ask for less motion). And book/_static/glyph128.png: six words by the model of 128 × 128 pixels,
below each row the real glyphs that are nearest.
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F

import minidiff
from minidiff import plots
from minidiff.glyphs import GlyphDataset, nearest, render, to_float

STATIC = Path(__file__).parents[2] / "book" / "_static"
PROMPTS = ("heart", "hand", "water", "fire", "bird", "fish", "horse", "gold")
EACH = 8
LARGE = PROMPTS[-6:]


def beside_real() -> None:
    """glyph128.png: what the cascade draws, and the nearest real glyphs at the same size."""
    pipeline, dataset = minidiff.load("glyph128"), GlyphDataset(64, "all")
    rows, labels = [], []
    for word in LARGE:
        drawn = pipeline(word, num_images_per_prompt=EACH, seed=0)
        closest = nearest(F.avg_pool2d(drawn, 2), dataset.images)
        real = render([dataset.glyphs[int(i)].char for i in closest.flatten()], 128)
        rows += [*drawn, *to_float(real).unsqueeze(1)]
        labels += [word, "nearest real"]
    plots.save_picture(STATIC / "glyph128.png", plots.grid(rows, columns=EACH, labels=labels))


def main() -> None:
    pipeline = minidiff.load()
    drawn = pipeline(PROMPTS, num_images_per_prompt=EACH, seed=0)
    plots.save_picture(STATIC / "glyphs.png", plots.grid(drawn, columns=EACH, labels=PROMPTS))

    frames = [
        plots.grid(frame.images, columns=8, scale=1)
        for frame in pipeline.steps("gold", num_images_per_prompt=16, num_inference_steps=24)
    ]
    plots.save_picture(STATIC / "gold.gif", plots.animation(frames))
    plots.save_picture(STATIC / "gold.png", frames[-1])
    beside_real()


if __name__ == "__main__":
    main()
