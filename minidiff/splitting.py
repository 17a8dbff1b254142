"""Pictures to hold out of a training: chosen by what they show, so that none is on both sides."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from typing import Any

import torch

from minidiff.glyphs import Pictures
from minidiff.inputs import warn

FEW = 10  #: held-out pictures below which what is measured on them is mostly chance


class Part(Pictures):
    """Some pictures of a data set, with their prompts.

    Attributes:
        whole: the data set that it is a part of.
        share: that is held out of the whole.
        rows: places of these pictures in the whole.
        images, prompts: those of the pictures.
    """

    def __init__(self, whole: Any, rows: list[int], share: float) -> None:
        self.whole, self.rows, self.share = whole, rows, share
        self.images = whole.images[torch.tensor(rows, dtype=torch.long)]
        self.prompts = [whole.prompts[i] for i in rows]
        if (named := getattr(whole, "name_radicals", None)) is not None:
            self.name_radicals = named

    def __repr__(self) -> str:
        return f"{len(self)} of {self.whole!r}"


def split(dataset: Any, share: float) -> tuple[Part, Part]:
    """Part a data set into pictures to learn from and pictures to hold out.

    It depends on what the pictures show and on nothing else: neither on their order nor on their
    texts. Equal pictures come to the same side, so that none that is held out was also learnt.

    Args:
        dataset: it has `images`, uint8 (N, C, H, W), and `prompts`.
        share: how many to hold out, above 0 and below 1: 0.1 is a tenth. Where many are equal it
            can be some more.

    Returns:
        What to learn from, and what is held out.

    Raises:
        ValueError: for another share, and where one side would have no picture.

    Warns:
        UserWarning: if fewer than `FEW` are held out.
    """
    number = type(share) in (int, float) and math.isfinite(share)
    if not number or not 0 < share < 1:
        percent = f", as {share / 100:g} for {share:g} %" if number and 1 <= share < 100 else ""
        raise ValueError(
            f"held_out must be a share of the pictures above 0 and below 1{percent}, got {share!r}"
        )
    total, equal = len(dataset.images), defaultdict(list)
    for i, image in enumerate(dataset.images):
        digest = hashlib.sha256(image.cpu().contiguous().numpy().tobytes()).digest()
        equal[digest].append(i)
    wanted, held = max(1, round(share * total)), list[int]()
    for digest in sorted(equal):  # a hash is as good as chance, and the same everywhere
        if len(held) >= wanted:
            break
        held += equal[digest]
    learnt = sorted(set(range(total)) - set(held))
    if not learnt:
        raise ValueError(
            f"held_out is {share:g}, and of {total} pictures, {len(equal)} of them different, none "
            "would be left to learn from: give a smaller share, or more pictures"
        )
    if len(held) < FEW:
        warn(
            f"only {len(held)} of {total} pictures are held out: their loss is mostly chance. From "
            f"{FEW} on it begins to tell something, from a hundred much"
        )
    return Part(dataset, learnt, share), Part(dataset, sorted(held), share)
