"""The definitions as the text encoder sees them, small enough to ship: five minutes on one core.

    python tools/data/build_embeddings.py

Every different definition is encoded, its tokens are averaged and the mean brought to length 1:
16,343 vectors of 384 numbers, 25 MB. Two small things are made of them, and minidiff.figures.words
reads both:

map     two coordinates of each definition, by UMAP
signs   on which side of 112 planes each definition lies: 14 bytes that are enough to find the few
        hundred definitions that may be near to a text; these are then encoded and compared exactly

The planes stand at right angles to the 112 directions in which the vectors differ most, mixed by a
random rotation, so that no plane tells much more than another.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minidiff.cache import cache_dir
from minidiff.figures.words import EMBEDDINGS, definitions, digest, pooled
from minidiff.glyphs import GlyphDataset
from minidiff.samplers import seeded_generator
from minidiff.storage import write_folder
from minidiff.text import TextEncoder
from minidiff.texts import encode_texts

PLANES = 112
UMAP: dict[str, Any] = {"n_neighbors": 15, "min_dist": 0.1, "metric": "cosine", "random_state": 0}


def meanings(encoder: TextEncoder) -> Tensor:
    """(N, d): the pooled tokens of every different definition."""
    # The same texts as in training, whose table may lie in the cache already.
    datasets = [GlyphDataset(64, split) for split in ("train", "test")]
    texts = sorted({text for d in datasets for several in d.prompts for text in several})
    table = encode_texts(texts, encoder, cache_dir())
    return torch.cat([pooled(table.batch(rows)) for rows in table.rows(definitions()).split(512)])


def planes(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Centre (d,) and directions (d, PLANES)."""
    centre = vectors.mean(0)
    main = torch.linalg.svd(vectors - centre, full_matrices=False)[2][:PLANES].T
    random = torch.randn(PLANES, PLANES, generator=seeded_generator(0))
    return centre, main @ torch.linalg.qr(random)[0]


def packed(signs: Tensor) -> Tensor:
    """bool (N, 8 k) -> uint8 (N, k), the first of eight in the highest bit."""
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1])
    bits: Tensor = signs.long().unflatten(1, (-1, 8))
    return (bits * weights).sum(2).to(torch.uint8)


def coordinates(vectors: Tensor) -> Tensor:
    """(N, 2) in [0, 1] by UMAP, as float16."""
    import umap

    place = torch.from_numpy(umap.UMAP(**UMAP).fit_transform(vectors.numpy()))
    low, high = place.amin(0), place.amax(0)
    return ((place - low) / (high - low)).half()


def main() -> None:
    encoder = TextEncoder("minilm")
    vectors = meanings(encoder)
    centre, directions = planes(vectors)
    tensors = {
        "centre": centre.half(),
        "directions": directions.half(),
        "signs": packed((vectors - centre) @ directions > 0),
        "map": coordinates(vectors),
    }
    record = {
        "definitions": len(vectors),
        "text_encoder": encoder.name,
        "text_fingerprint": encoder.fingerprint,
        "definitions_sha256": digest(definitions()),
        "umap": UMAP,
        "planes": PLANES,
        "seed": 0,
    }
    write_folder(EMBEDDINGS, {"embeddings.safetensors": tensors}, {"record": record})
    size = sum(path.stat().st_size for path in EMBEDDINGS.iterdir())
    print(f"{len(vectors):,} definitions, {size:,} bytes in {EMBEDDINGS}")


if __name__ == "__main__":
    main()
