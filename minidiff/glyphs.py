"""The glyphs: 20,509 Chinese characters as pictures, with English definitions and labels.

The package carries the definitions and a font and draws the pictures at any size on first use;
they then lie in a cache folder (see `minidiff.cache`). Pictures are grey: as uint8 tensors 255 is
white paper and 0 black ink, as float32 tensors in [-1, 1] +1 is paper and -1 ink.
"""

from __future__ import annotations

import hashlib
import lzma
import operator
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from minidiff.cache import cached
from minidiff.captions import RARE, RARE_SHARES, SHARES, named_prompts, prompts_of, split_senses
from minidiff.schedules import whole_number

DATA = Path(__file__).resolve().parent / "data"  #: the folder of what ships beside the models
TABLE = DATA / "glyphs.tsv.xz"
FONT = DATA / "NotoSansSC-subset.otf"
SPLITS = ("train", "test", "all")


@dataclass(frozen=True)
class Glyph:
    """A character and what is known about it.

    Attributes:
        char: the character.
        definition: in English, from Unicode's Unihan database.
        senses: the senses that the definition lists, see `minidiff.captions.split_senses`.
        radical: its Kangxi radical, 1 to 214.
        layout: how its parts are put together: "left-right", "top-bottom", "surround" or "other".
        components: the parts that it is directly made of.
        family: the first of the characters that have the same definition or are variants of each
            other. A family lies in one split as a whole.
        split: "train" or "test".
    """

    char: str
    definition: str
    senses: tuple[str, ...]
    radical: int
    layout: str
    components: tuple[str, ...]
    family: str
    split: str


@lru_cache(maxsize=1)
def load_glyphs() -> tuple[Glyph, ...]:
    """All 20,509 characters in the order of their code points."""
    with lzma.open(TABLE, "rt", encoding="utf-8", newline="") as file:
        header, *rows = (line.rstrip("\n").split("\t") for line in file)
    columns = ["char", "definition", "radical", "layout", "components", "family", "split"]
    if header != columns:
        raise ValueError(f"{TABLE} has the columns {header}, not {columns}: reinstall minidiff")
    return tuple(
        Glyph(char, text, split_senses(text), int(radical), layout, tuple(parts), family, split)
        for char, text, radical, layout, parts, family, split in rows
    )


# --------------------------------------------------------------------------------- rendering


def check_size(size: int) -> int:
    """The size itself, as an int.

    Raises:
        ValueError: unless it is a whole number of pixels from 8 to 512.
    """
    try:
        pixels = whole_number("size", size)
    except ValueError:
        pixels = 0
    if not 8 <= pixels <= 512:
        raise ValueError(f"size is {size!r}: give a whole number of pixels from 8 to 512")
    return pixels


def render(chars: Iterable[str], size: int = 64, font: str | os.PathLike[str] = "sans") -> Tensor:
    """Draw characters, black on white: uint8 (N, size, size), 255 = white.

    Args:
        chars: N of them. One that the font lacks comes out as the font's empty box.
        size: height and width in pixels.
        font: "sans", the font of the package, or the path of another font file.

    Raises:
        ValueError: for a size outside 8 to 512, and for a file that is no font.
        FileNotFoundError: for a missing one.
    """
    size = check_size(size)
    path = FONT if font == "sans" else Path(font)
    if not path.is_file():
        raise FileNotFoundError(f"no font file {path}: give 'sans' or the path of a font")
    points = round(60 / 64 * size)
    try:
        face = ImageFont.truetype(str(path), points)
    except OSError as error:
        raise ValueError(f"{path} is not a font that can be read: {error}") from error
    chars = list(chars)
    pictures = np.empty((len(chars), size, size), np.uint8)
    baseline = size / 2 + 0.38 * points  # puts the body of a Chinese character in the middle
    # A bar where one waits: for the whole set, not for a handful, and (None) on a terminal only.
    quiet = True if len(chars) < 2000 else None
    for i, char in enumerate(tqdm(chars, "drawing glyphs", disable=quiet, leave=False)):
        picture = Image.new("L", (size, size), 255)
        draw = ImageDraw.Draw(picture)
        try:
            draw.text((size / 2, baseline), char, fill=0, font=face, anchor="ms")
        except RuntimeError as error:  # some control characters
            raise ValueError(f"the character {char!r} cannot be drawn: {error}") from error
        pictures[i] = np.asarray(picture)
    return torch.from_numpy(pictures)


# ------------------------------------------------------------------------------------- pictures


@cache
def _sources() -> str:
    """A short fingerprint of what the pictures depend on."""
    return hashlib.sha256(FONT.read_bytes() + TABLE.read_bytes()).hexdigest()[:12]


def glyph_images(size: int = 64) -> Tensor:
    """Pictures of all characters in the order of `load_glyphs`: uint8 (20509, size, size).

    Drawn on first use (4 seconds at 64 pixels), read from the cache afterwards. A damaged file
    in the cache is replaced; several processes may ask at once.
    """
    chars = [glyph.char for glyph in load_glyphs()]
    shape = (len(chars), check_size(size), size)
    images = cached(
        f"glyphs-{size}-{_sources()}",
        make=lambda: {"images": render(chars, size)},
        fits=lambda found: found.keys() == {"images"} and found["images"].shape == shape,
    )
    return images["images"]


# ---------------------------------------------------------------------------------- datasets


def to_float(images: Tensor) -> Tensor:
    """uint8, 255 = paper -> float32 in [-1, 1], +1 = paper; any shape.

    Raises:
        TypeError: for other numbers.
    """
    if getattr(images, "dtype", None) != torch.uint8:
        got = getattr(images, "dtype", type(images).__name__)
        raise TypeError(f"images must be a tensor of uint8 (255 = white), got {got}")
    return images.float() / 127.5 - 1


def as_pictures(images: Any, name: str = "images") -> Tensor:
    """Pictures in [-1, 1]: floats as they are, bytes (uint8, 255 = white) brought there.

    Raises:
        TypeError: for other numbers, which mean neither, and for what is no tensor.
    """
    check_pictures(images, name)
    if images.is_floating_point():
        return images
    return to_float(images)


def check_pictures(images: Any, name: str = "images") -> None:
    """What `as_pictures` refuses, for many pictures that become floats a few at a time."""
    tensor = isinstance(images, Tensor)
    if not tensor or not (images.is_floating_point() or images.dtype == torch.uint8):
        raise TypeError(
            f"{name} must be a tensor of floats in [-1, 1] or of uint8 (255 = white), "
            f"got {images.dtype if tensor else type(images).__name__}"
        )


class Pictures(Dataset[dict[str, Any]]):
    """Pictures with texts, in memory: what `GlyphDataset` and `ImageFolder` have in common.

    `dataset[i]` is one of them: {"image": float32 (C, H, W) in [-1, 1], "text": the whole text}.
    For several take `images` and `prompts`.

    Attributes:
        images: uint8 (N, C, H, W), 255 = white; C is 1 for grey, 3 for colour.
        prompts: for each picture the texts that may stand for it, the whole text first.
    """

    images: Tensor
    prompts: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: SupportsIndex) -> dict[str, Any]:
        """One picture and its text; -1 is the last.

        Raises:
            IndexError: past the end.
            TypeError: for anything but a whole number, such as a slice.
        """
        try:
            if isinstance(i, bool) or getattr(i, "dtype", None) == torch.bool:
                raise TypeError("a truth value")
            row = operator.index(i)
        except TypeError as error:
            raise TypeError(
                f"dataset[{i!r}]: give one whole number; several pictures are in dataset.images, "
                "their texts in dataset.prompts"
            ) from error
        if not -len(self) <= row < len(self):
            raise IndexError(f"dataset[{row}]: it has {len(self)} pictures, 0 to {len(self) - 1}")
        return {"image": to_float(self.images[row]), "text": self.prompts[row][0]}


class GlyphDataset(Pictures):
    """The glyphs of one split, "train", "test" (5 %, fixed) or "all".

    `dataset[i]` is {"image": float32 (1, size, size) in [-1, 1], "text": the definition}.

    Args:
        size: height and width in pixels, 8 to 512.
        split: "train", "test" or "all".
        name_radicals: let part of the prompts name the radical, see `minidiff.captions`.

    Attributes:
        images: uint8 (N, 1, size, size), small enough to lie on a GPU as a whole.
        prompts: for each picture the whole definition and, where there are several, its senses;
            with `name_radicals` those of `minidiff.captions.named_prompts`, by `RARE_SHARES` for
            radicals that fewer than `RARE` glyphs of the split have.
        glyphs: what is known about each, N of `Glyph`.

    Raises:
        ValueError: for another split or size.
    """

    def __init__(self, size: int = 64, split: str = "train", name_radicals: bool = False) -> None:
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
        glyphs, images = load_glyphs(), glyph_images(size)
        rows = [i for i, glyph in enumerate(glyphs) if split in ("all", glyph.split)]
        self.size, self.split, self.name_radicals = check_size(size), split, name_radicals
        self.glyphs = [glyphs[i] for i in rows]
        self.images = (images if split == "all" else images[rows]).unsqueeze(1)
        if name_radicals:
            count = Counter(glyph.radical for glyph in self.glyphs)
            shares = {n: SHARES if count[n] >= RARE else RARE_SHARES for n in count}
            self.prompts = [
                named_prompts(g.definition, g.radical, shares[g.radical]) for g in self.glyphs
            ]
        else:
            self.prompts = [prompts_of(glyph.definition) for glyph in self.glyphs]


def nearest(images: Tensor, candidates: Tensor, count: int = 1) -> Tensor:
    """Indices of the candidates nearest to each image, by Euclidean distance in pixels: (B, count).

    Args:
        images, candidates: (B, ...) and (N, ...) of the same number of pixels each, in [-1, 1] or
            uint8.
        count: how many for each image; the nearest comes first.

    Raises:
        TypeError: for other whole numbers than uint8.
        ValueError: for pictures of different sizes, or a count that is not in 1 … N.
    """
    check_pictures(images)
    check_pictures(candidates, "candidates")
    if not 1 <= count <= len(candidates):
        raise ValueError(f"count is {count}: choose from 1 to {len(candidates)}, the candidates")
    if images[0].numel() != candidates[0].numel():
        raise ValueError(
            f"images {tuple(images.shape)} and candidates {tuple(candidates.shape)} differ in size"
        )
    wanted = _pixels(images)
    distances = []
    for part in candidates.split(2048):  # so that uint8 becomes float32 a little at a time
        pixels = _pixels(part).to(wanted.device)
        # |w - p|^2 = |w|^2 - 2 w.p + |p|^2, and |w|^2 is the same for every candidate
        distances.append(pixels.square().sum(1) - 2 * wanted @ pixels.T)
    return torch.cat(distances, 1).topk(count, largest=False).indices


def _pixels(images: Tensor) -> Tensor:
    """float32 (B, pixels) in [-1, 1]."""
    return as_pictures(images.flatten(1)).float()
