"""Stages 8 and on of glyph64, unfinished: prompts that name the radical ("dread, heart radical").

    python tools/release/unfinished/named_radicals.py runs/stage10 --seed 10 --minutes 130
    python tools/release/unfinished/named_radicals.py runs/stage10 --seed 10 --minutes 130 --resume

Starts from the model beside it. Trainer and package are unchanged: the data set hands over lists of
prompts in which a text stands as often as it is to be drawn.
"""

from __future__ import annotations

import argparse
import itertools
import unicodedata
from pathlib import Path

import torch

import minidiff
from minidiff.shelf import find_model
from minidiff.training import Trainer

# Names that say nothing, or something else, when they stand alone.
NEVER_ALONE = {
    "line", "dot", "slash", "second", "hook", "lid", "legs", "down box", "cover", "open box",
    "wrap", "right open box", "hiding enclosure", "private", "again", "enclosure", "go slowly",
    "lame", "short thread", "dotted cliff", "long stride", "snout", "rap", "not", "do not",
    "double x", "half tree trunk", "slice", "dotted tent", "track", "and", "self", "stopping",
    "walk enclosure", "bolt of cloth", "enter", "step", "even",
}  # fmt: skip
TURNS = 20  # prompts a list has, so that shares are multiples of 5 %
# Of the 75 % of prompts that are not the whole definition; a sense, a sense with the radical, the
# whole with it, the radical by its long name, and by its short one.
SHARES = {"plain": 6, "sense named": 9, "whole named": 1, "radical": 2, "alone": 2}
SENSES = 0.75


def radical_name(number: int) -> str:
    return unicodedata.name(chr(0x2F00 + number - 1)).removeprefix("KANGXI RADICAL ").lower()


def prompts(definition: str, senses: tuple[str, ...], radical: int) -> tuple[str, ...]:
    name = radical_name(radical)
    plain = list(senses) or [definition]
    alone = f"{name} radical" if name in NEVER_ALONE else name
    texts = {
        "plain": plain,
        "sense named": [f"{sense}, {name} radical" for sense in plain],
        "whole named": [f"{definition}, {name} radical"],
        "radical": [f"{name} radical"],
        "alone": [alone],
    }
    turns = [
        text
        for kind, n in SHARES.items()
        for text in itertools.islice(itertools.cycle(texts[kind]), n)
    ]
    assert len(turns) == TURNS
    return (definition, *turns)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--minutes", type=float, default=130)
    parser.add_argument("--seed", type=int, required=True, help="another than an earlier stage had")
    parser.add_argument("--start", default=str(Path(__file__).parent / "model"))
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = minidiff.TrainingConfig.recipe(
        "glyph64", steps=60_000, time_limit=arguments.minutes, batch_size=32, seed=arguments.seed,
        learning_rate=1.5e-3, warmup=100, decay=0.6, timestep_mean=0.6, timestep_std=2.0,
        senses=SENSES, hidden_tokens=0.25, evaluate_every=2000, sample_every=10**9, save_every=500,
    )  # fmt: skip
    train, test = minidiff.GlyphDataset(64, "train"), minidiff.GlyphDataset(64, "test")
    train.prompts = [prompts(g.definition, g.senses, g.radical) for g in train.glyphs]
    start = None if arguments.resume else find_model(arguments.start)
    Trainer(config, train, arguments.folder, test, resume=arguments.resume, start=start).run()


if __name__ == "__main__":
    main()
