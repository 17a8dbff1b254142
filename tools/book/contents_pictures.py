"""Make the small pictures of the README's table of contents from the figures of the chapters.

    python tools/book/contents_pictures.py

Writes book/_static/contents/00.png … 19.png. Of an animation the frame in the middle is taken.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image

from minidiff import plots

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "book" / "_static" / "contents"
WIDTH, HEIGHT = 240, 200  # pixels, at most
LIMIT = 15_000  # bytes
FIGURES = {
    "00_text_to_glyph": "fig-stills",
    "01_distributions": "fig-normal",
    "02_pixel_space": "fig-atlas",
    "03_noising": "fig-forward",
    "04_denoising": "fig-ideal",
    "05_training": "fig-predictions",
    "06_sampling": "fig-steps",
    "07_score": "fig-score",
    "08_conditioning": "fig-slice",
    "09_text_embeddings": "fig-tokens",
    "10_text_to_glyph": "fig-gold-120",
    "11_guidance": "fig-guidance-scale",
    "12_editing": "fig-editing-sketch",
    "13_how_good": "fig-quality-yardsticks",
    "14_flows": "fig-flow-straight",
    "15_high_resolution": "fig-high-both",
    "16_transformers": "fig-attention-heads",
    "17_fewer_steps": "fig-few-shipped",
    "18_control": "fig-control-drawn",
    "19_emoji": "fig-emoji-drawn",
}


def figure(path: Path, name: str) -> Image.Image:
    """The picture of this figure in a stored notebook."""
    notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    for cell in notebook.cells:
        if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == name:
            for output in cell.outputs:
                for kind in ("image/png", "image/gif"):
                    if kind in output.get("data", {}):
                        return still(base64.b64decode(output.data[kind]))
    raise LookupError(f"{path.name} has no figure {name}: choose another in FIGURES")


def still(data: bytes) -> Image.Image:
    picture: Any = Image.open(io.BytesIO(data))
    picture.seek(getattr(picture, "n_frames", 1) // 2)
    return Image.Image.convert(picture, "RGB")


def small(picture: Image.Image) -> Image.Image:
    """At most WIDTH × HEIGHT, in as many colours as LIMIT allows."""
    picture.thumbnail((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    for colours in (64, 32, 16, 8):
        few = picture.quantize(colours, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        few.save(buffer, "PNG", optimize=True)
        if buffer.tell() <= LIMIT:
            return few
    raise ValueError(f"a picture of {picture.size} does not fit in {LIMIT} bytes")


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    missing = []
    for chapter, name in FIGURES.items():
        path = ROOT / "notebooks" / f"{chapter}.ipynb"
        try:
            plots.save_picture(FOLDER / f"{chapter[:2]}.png", small(figure(path, name)))
        except (LookupError, FileNotFoundError) as error:
            missing.append(str(error))
    print(*missing, sep="\n", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
