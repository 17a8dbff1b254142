"""Make the pictures of the README and the book's front page from the shipped model.

    python tools/book/pictures.py

Writes book/_static/glyphs.png (generated glyphs, and under each the nearest real one),
book/_static/gold.gif (16 glyphs coming out of noise) and gold.png (its last moment, for readers who
ask for less motion).
"""

from __future__ import annotations

from pathlib import Path

import torch

import minidiff
from minidiff import plots
from minidiff.glyphs import GlyphDataset, nearest, to_float

STATIC = Path(__file__).parents[2] / "book" / "_static"
PROMPTS = ("gold", "water", "tree", "bird", "fish", "fire")


def main() -> None:
    pipeline, real = minidiff.load(), GlyphDataset(split="all")
    each = 8
    drawn = pipeline(PROMPTS, num_images_per_prompt=each, seed=0)
    twins = to_float(real.images[nearest(drawn, real.images)[:, 0]])
    rows = [
        part
        for k in range(len(PROMPTS))
        for part in (drawn[k * each : (k + 1) * each], twins[k * each : (k + 1) * each])
    ]
    labels = [text for word in PROMPTS for text in (f"{word}: drawn", "nearest real")]
    sheet = plots.grid(torch.cat(rows), columns=each, labels=labels)
    plots.save_picture(STATIC / "glyphs.png", sheet)

    frames = [
        plots.grid(frame.images, columns=8, scale=1)
        for frame in pipeline.steps("gold", num_images_per_prompt=16, num_inference_steps=24)
    ]
    plots.save_picture(STATIC / "gold.gif", plots.animation(frames))
    plots.save_picture(STATIC / "gold.png", frames[-1])


if __name__ == "__main__":
    main()
