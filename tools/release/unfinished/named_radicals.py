"""Stage 11 of glyph64 and on, unfinished: rare radicals are named more often.

    python tools/release/unfinished/named_radicals.py runs/stage11 --start glyph64 --seed 11
    python tools/release/unfinished/named_radicals.py runs/stage11 --seed 11 --resume

After stage 10 the names of radicals with 100 training glyphs or more were followed in 98 of 100
drawings, those with 50 to 100 in 60, with fewer than 35 in none. What counts is how often a name
is heard, so here it is heard about equally often: glyphs of a radical with fewer than 150 are
always named unless the whole definition stands for them, and those of very rare ones stand in the
data two or three times, the copies always named, so that the plain prompts still meet all glyphs
as often as they are.
"""

from __future__ import annotations

import argparse
from collections import Counter

import torch

import minidiff
from minidiff.captions import SHARES, named, named_prompts
from minidiff.shelf import find_model
from minidiff.spaces import Pixels
from minidiff.training import Trainer

RARE = {"sense": 0, "sense, named": 11, "whole, named": 2, "name": 5, "short name": 2}
COMMON = {**SHARES, "sense": 10, "sense, named": 5}


def balance(train: minidiff.GlyphDataset) -> None:
    """Name rare radicals more often, in place."""
    count = Counter(glyph.radical for glyph in train.glyphs)
    rows, prompts = list(range(len(train))), []
    for glyph in train.glyphs:
        shares = RARE if count[glyph.radical] < 150 else COMMON
        prompts.append(named_prompts(glyph.definition, glyph.radical, shares))
    for i, glyph in enumerate(train.glyphs):
        n = count[glyph.radical]
        for _ in range(2 if n < 35 else 1 if n < 60 else 0):
            told = named(glyph.definition, glyph.radical)
            prompts.append((told, *prompts[i][1:]))
            rows.append(i)
    space = Pixels.of(train.images)  # the copies leave black and white where they are
    Pixels.of = staticmethod(lambda images: space)  # type: ignore[method-assign]
    train.images, train.prompts = train.images[rows], prompts
    train.glyphs = [train.glyphs[i] for i in rows]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--minutes", type=float, default=240)
    parser.add_argument("--seed", type=int, required=True, help="another than an earlier stage had")
    parser.add_argument("--start", help="the model that it begins with: glyph64, or a folder")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = minidiff.TrainingConfig.recipe(
        "glyph64", steps=60_000, time_limit=arguments.minutes, batch_size=32, seed=arguments.seed,
        learning_rate=1.5e-3, warmup=100, decay=0.6, timestep_mean=1.0, timestep_std=1.6,
        evaluate_every=2000, sample_every=10**9, save_every=500,
    )  # fmt: skip
    train = minidiff.GlyphDataset(64, "train", name_radicals=True)
    balance(train)
    print(f"{len(train):,} rows")
    start = None if arguments.resume else find_model(arguments.start or "glyph64")
    test = minidiff.GlyphDataset(64, "test")
    Trainer(config, train, arguments.folder, test, resume=arguments.resume, start=start).run()


if __name__ == "__main__":
    main()
