"""How clean pictures are at their full size."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minidiff.glyphs import load_glyphs, render, to_float
from minidiff.large import full_size
from minidiff.report import as_text


class Forger:
    """Draws real glyphs, of 128 × 128 pixels."""

    image_size: Any = 128
    config: Any = SimpleNamespace(channels=1, text_encoder="minilm")

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, prompt: str, num_images_per_prompt: int, seed: int) -> torch.Tensor:
        self.asked.append(prompt)
        glyphs = load_glyphs()[5000 :: 97 + len(self.asked)][:num_images_per_prompt]
        return to_float(render([glyph.char for glyph in glyphs], 128)).unsqueeze(1)


def test_a_forger_is_as_sharp_as_the_font_and_an_enlarged_picture_is_not() -> None:
    forger: Any = Forger()
    found = full_size(forger, per_word=2)
    drawn, real, enlarged = found.values()
    assert drawn["samples"] == real["samples"] == 40 == 2 * len(set(forger.asked))
    assert drawn["edge_width"] == pytest.approx(real["edge_width"], rel=0.1)
    assert enlarged["edge_width"] > 2 * real["edge_width"]
    # Half of the forger's are the same glyph, so its strokes stand on the same places.
    assert real["seams"] < 0.2 < drawn["seams"]
    lines = as_text({"full_size": found}).splitlines()
    assert lines[0] == "At full size, 40 samples" and lines[3].startswith("drawn ")


def test_what_is_no_glyph_is_refused() -> None:
    wide, many = Forger(), Forger()
    wide.image_size = (128, 64)
    with pytest.raises(ValueError, match="does not draw glyphs, which are grey and square"):
        full_size(wide)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="per_word must be from 1 to 50, got 51"):
        full_size(many, per_word=51)  # type: ignore[arg-type]
