"""Make the pictures of the README and the book's front page from the shipped model.

    python tools/book/pictures.py

Writes book/_static/glyphs.png (eight everyday words, the first eight glyphs of each),
book/_static/gold.gif (16 glyphs coming out of noise) and gold.png (its last moment, for readers who
ask for less motion).
"""

from __future__ import annotations

from pathlib import Path

import minidiff
from minidiff import plots

STATIC = Path(__file__).parents[2] / "book" / "_static"
PROMPTS = ("heart", "hand", "water", "fire", "bird", "fish", "horse", "gold")
EACH = 8


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


if __name__ == "__main__":
    main()
