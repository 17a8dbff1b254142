"""What captions that name the radical bring: how many of them, and in which words.

    python benchmarks/captions.py --start runs/before          # all that are missing
    python benchmarks/captions.py --start runs/before no_names # this one: a quarter of an hour

Short trainings, equal in all but one thing, that go on from the same model: that of --start; the
table is of glyph64 as it was before any prompt named a radical. Judged by the averaged weights: the
20 words × 8 plainly and by the radical's name, 256 held-out definitions plainly and with the name,
the loss on 512 held-out glyphs at little and much noise, and what the strokes look like. Rows may
come from different machines: the table says which.
Finished models stay in runs/captions/<name>/model.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, described, machine, write

from minidiff import evaluation, metrics
from minidiff.captions import SHARES, named, named_prompts, prompts_of
from minidiff.evaluation import draw, radicals
from minidiff.glyphs import GlyphDataset
from minidiff.held_out import HeldOut
from minidiff.pipeline import Pipeline, load
from minidiff.recipe import TrainingConfig
from minidiff.recogniser import load_recogniser
from minidiff.run_folder import latest_checkpoint
from minidiff.shelf import find_model
from minidiff.storage import read_info
from minidiff.training import Trainer
from minidiff.wanted import WANTED, shows

ROOT = Path(__file__).resolve().parents[1]
STEPS, DEFINITIONS, PER_WORD = 300, 256, 8
FEW = {"sense": 15, "sense, named": 3, "whole, named": 0, "name": 1, "short name": 1}
LONG = {"sense": 9, "sense, named": 7, "whole, named": 1, "name": 3, "short name": 0}
MANY = {"sense": 3, "sense, named": 11, "whole, named": 2, "name": 2, "short name": 2}

# name: (what is different, shares of prompts or None for no names)
VARIANTS: dict[str, tuple[str, dict[str, int] | None]] = {
    "no_names": ("no prompt names the radical", None),
    "few": ("few do: a quarter", FEW),
    "half": ("half do: the shares of `minidiff.captions`", dict(SHARES)),
    "many": ("most do", MANY),
    "long_form": ("half, but never the name without “radical”", LONG),
    "with_the": ("half, in other words: “dread, with the heart radical”", dict(SHARES)),
}


def asked(text: str, radical: int, variant: str) -> str:
    """A text with the radical's name, in the words of a variant."""
    told = named(text, radical)
    if variant != "with_the" or not text:
        return told
    return f"{text}, with the {told.removeprefix(f'{text}, ')}"


def prompts(glyph: Any, variant: str) -> tuple[str, ...]:
    """What stands for a glyph in the training of a variant."""
    shares = VARIANTS[variant][1]
    assert shares is not None
    plain = {asked(text, glyph.radical, ""): asked(text, glyph.radical, variant)
             for text in (*glyph.senses, glyph.definition)}  # fmt: skip
    several = named_prompts(glyph.definition, glyph.radical, shares)
    return tuple(plain.get(text, text) for text in several)


def train(name: str, start: Path, runs: Path) -> Pipeline:
    """The model of a variant, from its folder where it was finished before."""
    folder = runs / name
    if (folder / "model").is_dir():
        return load(folder)
    shares = VARIANTS[name][1]
    every = {f"{x}_every": 10**9 for x in ("evaluate", "sample", "save")}
    config = TrainingConfig.recipe(
        "glyph64", steps=STEPS, seed=100, learning_rate=1.5e-3, warmup=50, decay=0.6,
        timestep_mean=0.8, timestep_std=1.8, name_radicals=shares is not None, **every,
    )  # fmt: skip
    dataset, test = GlyphDataset(64, "train", config.name_radicals), GlyphDataset(64, "test")
    if shares is not None:
        dataset.prompts = [prompts(glyph, name) for glyph in dataset.glyphs]
    # All texts of all variants behind a text that is read: so they are encoded once, not by each.
    told = [variant for variant, (_, shares) in VARIANTS.items() if shares]
    texts = {text for glyph in dataset.glyphs for text in prompts_of(glyph.definition)}
    texts |= {text for v in told for glyph in dataset.glyphs for text in prompts(glyph, v)}
    for i, text in enumerate(sorted(texts)):
        test.prompts[i % len(test)] += (text,)
    again = latest_checkpoint(folder) is not None
    Trainer(config, dataset, folder, test, resume=again, start=None if again else start).run()
    return load(folder)


def judge(pipeline: Pipeline, variant: str) -> dict[str, Any]:
    """All that the table shows of one model."""
    recogniser, _ = load_recogniser()
    test = HeldOut(DEFINITIONS)
    truth = torch.tensor([glyph.radical for glyph in test.glyphs])
    told = [asked(glyph.definition, glyph.radical, variant) for glyph in test.glyphs]
    plain = draw(pipeline, test.texts, guidance_scale=1.0)
    with_name = draw(pipeline, told)

    def share(texts: dict[str, str]) -> dict[str, float]:
        drawn = {word: draw(pipeline, [text] * PER_WORD) for word, text in texts.items()}
        seen = {word: shows(recogniser, images, word) for word, images in drawn.items()}
        return {word: round(found.float().mean().item(), 4) for word, found in seen.items()}

    return {
        "words": share({word: word for word in WANTED}),
        "by_name": share({word: named("", radical) for word, (radical, _) in WANTED.items()}),
        "radical_right": _right(recogniser, plain, truth),
        "radical_right_when_named": _right(recogniser, with_name, truth),
        "specks": round(metrics.specks(plain), 4),
        "off_white": round(metrics.off_white(plain), 4),
        "edge_width": round(metrics.edge_width(plain), 3),
        "held_out": evaluation.held_out_loss(pipeline),
    }


def _right(recogniser: Any, images: torch.Tensor, truth: torch.Tensor) -> float:
    return round((radicals(recogniser, images) == truth).float().mean().item(), 4)


def as_table(runs: dict[str, Any]) -> str:
    """The results in Markdown, in the order of VARIANTS."""
    lines = [
        "| what differs | 20 words | worst | by the radical's name | held-out definitions: radical "
        "right | the same, named | loss: mean | t = 62 | t = 938 | specks a glyph | off-white |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in ("start", *VARIANTS):
        if name in runs:
            run = runs[name]
            words, by_name = run["words"], run["by_name"]
            loss = (f"{run['held_out'][t]:.3f}" for t in ("mean", "62", "938"))
            what = "where they start" if name == "start" else VARIANTS[name][0]
            lines.append(
                f"| {what} | {_mean(words):.0%} | {min(words, key=words.__getitem__)} "
                f"{min(words.values()):.0%} | {_mean(by_name):.0%} | {run['radical_right']:.1%} "
                f"| {run['radical_right_when_named']:.1%} | {' | '.join(loss)} "
                f"| {run['specks']:.2f} | {run['off_white']:.1%} |"
            )
    return "\n".join(lines) + "\n"


def _mean(shares: dict[str, float]) -> float:
    return sum(shares.values()) / len(shares)


def section(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    steps = result["steps"]
    machines = " and ".join(dict.fromkeys(described(r["machine"]) for r in result["runs"].values()))
    return (
        f"Trainings of {steps} steps of 32 from the same weights, glyph64 as it was before any "
        f"prompt named a radical ({machines}). Words and names: the share of "
        f"{PER_WORD} drawings of each of the 20 that show what was asked for, with guidance 3; "
        f"held-out definitions: {DEFINITIONS}, plainly without guidance, named with guidance 3; "
        "specks and off-white (bytes 235 to 252) of the plain ones. A share of these definitions "
        "is known to 3 points (one standard error): what differs by less is no difference. So "
        "short a training says what is learnt quickly, not what is best in the end. Repeat it with "
        "`python benchmarks/captions.py`.\n\n" + as_table(result["runs"])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of start, {', '.join(VARIANTS)}; all if none")
    parser.add_argument("--start", required=True, help="the model that all go on from")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "captions")
    arguments = parser.parse_args()
    path, start = RESULTS / "captions.json", find_model(arguments.start)
    weights = read_info(start)["files"]["model.safetensors"]
    for name in arguments.names or ("start", *VARIANTS):
        done = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": {}}
        if done.get("start", weights) != weights:
            parser.error(f"{path} holds runs from another model: begin with no such file")
        if name not in done["runs"]:
            pipeline = load(start) if name == "start" else train(name, start, arguments.runs)
            row = {"machine": machine(), **judge(pipeline, name)}
            head = {"machine": machine(), "start": weights, "steps": STEPS}
            write("captions", {**head, "runs": {**done["runs"], name: row}})


if __name__ == "__main__":
    main()
