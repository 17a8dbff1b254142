"""How good the glyphs are for how many evaluations of the network, by sampler, and by guidance.

    python benchmarks/evaluations.py            # the shipped model; an hour on one core
    python benchmarks/evaluations.py --model runs/glyph64

Every cell is drawn for the same 256 held-out definitions from the same noise and compared with the
same 4,096 real glyphs. The excess is the Fréchet distance over that of as many held-out real glyphs
(the floor). Samplers are compared without guidance, so that an evaluation is a step (Heun: two a
step, one in the last); all get 1 to 50 evaluations, the two best 120 and 250. Guidance is
compared with 20 steps of the default sampler, which are 40 evaluations. Cells that are in the
result already, for the same weights, are not drawn again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
from machine import RESULTS, described, machine, write
from torch import Tensor
from tqdm import tqdm

from minidiff import metrics, samplers
from minidiff.evaluation import WANTED, draw, radicals, real_features, shows
from minidiff.held_out import HeldOut
from minidiff.pipeline import Pipeline, find_model, load
from minidiff.recogniser import load_recogniser
from minidiff.storage import read_info

COUNT = 256
EVALUATIONS = (1, 2, 3, 5, 8, 12, 20, 50)
MANY = (120, 250)
GUIDANCE = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
PER_WORD = 8
EVEN = "dpmpp_2m evenly spaced"  # the others take the pipeline's grid, closer where noise is much


def steps_for(sampler: str, evaluations: int) -> int:
    """The most steps that take no more than so many evaluations."""
    return max(1, (evaluations + 1) // 2) if sampler == "heun" else evaluations


class Judge:
    def __init__(self) -> None:
        self.recogniser, _ = load_recogniser()
        self.test = HeldOut(COUNT)
        self.real = real_features(self.recogniser)
        self.truth = torch.tensor([glyph.radical for glyph in self.test.glyphs])
        self.floor = self.frechet(self.test.images)

    def frechet(self, images: Tensor) -> float:
        return metrics.frechet_distance(self.real, metrics.features(self.recogniser, images))

    def __call__(self, images: Tensor) -> dict[str, float]:
        seen = metrics.features(self.recogniser, images)
        right = radicals(self.recogniser, images) == self.truth
        return {
            "excess": round(metrics.frechet_distance(self.real, seen) - self.floor, 3),
            "kernel": round(metrics.kernel_distance(self.real, seen), 4),
            "edge_width": round(metrics.edge_width(images), 3),
            "radical_right": round(right.float().mean().item(), 4),
        }


class Table:
    """A result file that is written after every cell, and taken up again for the same weights."""

    def __init__(self, name: str, model: str, judge: Judge) -> None:
        weights = read_info(find_model(model))["files"]["model.safetensors"]
        path = RESULTS / f"{name}.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.name = name
        self.cells = before["cells"] if before.get("weights") == weights else {}
        blurred = judge.frechet(metrics.blurred(judge.test.images))
        self.head = {
            "machine": machine(),
            "model": model,
            "weights": weights,
            "samples": COUNT,
            "seed": 0,
            "floor": round(judge.floor, 3),
            "excess_of_real_blurred_by_1_pixel": round(blurred - judge.floor, 3),
        }

    def add(self, *place: str, make: Callable[[], dict[str, float]]) -> dict[str, float]:
        cells = self.cells
        for key in place[:-1]:
            cells = cells.setdefault(key, {})
        if place[-1] not in cells:
            cells[place[-1]] = make()
            write(self.name, {**self.head, "cells": self.cells})
        return cells[place[-1]]


def compare_samplers(pipeline: Pipeline, judge: Judge, table: Table) -> None:
    def cell(name: str, evaluations: int) -> dict[str, float]:
        def make() -> dict[str, float]:
            steps = steps_for(name, evaluations)
            options: dict[str, Any] = {"sampler": name.partition(" ")[0]}
            options["guidance_scale"] = 1.0
            if name == EVEN:
                options["timesteps"] = pipeline.schedule.timesteps(steps, shift=1)
            options["num_inference_steps"] = steps
            return {"steps": steps, **judge(draw(pipeline, judge.test.texts, **options))}

        return table.add(name, str(evaluations), make=make)

    for evaluations in tqdm(EVALUATIONS, "Samplers"):
        for name in (*samplers.SAMPLERS, EVEN):
            cell(name, evaluations)
    best = sorted(samplers.SAMPLERS, key=lambda name: cell(name, 20)["excess"])[:2]
    for evaluations in tqdm(MANY, "Many evaluations"):
        for name in best:
            cell(name, evaluations)


def compare_guidance(pipeline: Pipeline, judge: Judge, table: Table) -> None:
    for scale in tqdm(GUIDANCE, "Guidance"):

        def make(scale: float = scale) -> dict[str, float]:
            row = judge(draw(pipeline, judge.test.texts, guidance_scale=scale))
            shown = 0
            for word in WANTED:
                images = draw(pipeline, [word] * PER_WORD, guidance_scale=scale)
                shown += int(shows(judge.recogniser, images, word).sum())
            return {**row, "words_shown": round(shown / (PER_WORD * len(WANTED)), 4)}

        table.add(str(scale), make=make)


def section(result: dict[str, Any]) -> str:
    """One of the two results in Markdown."""
    of_guidance = "words_shown" in result["cells"].get("1.0", {})
    shipped = read_info(find_model("glyph64"))["files"]["model.safetensors"]
    weights = "the shipped weights" if result["weights"] == shipped else "weights shipped earlier"
    head = (
        f"The same {result['samples']} held-out definitions drawn from the same noise by {weights} "
        f"({described(result['machine'])}; seed {result['seed']}). The excess is the Fréchet "
        "distance beyond that of as many held-out real glyphs, for which a blur of one pixel gives "
        f"{result['excess_of_real_blurred_by_1_pixel']:.1f}; differences of about 1 may be chance. "
        f"Repeat it with `python benchmarks/evaluations.py --only "
        f"{'guidance' if of_guidance else 'samplers'}`."
    )
    make = guidance_table if of_guidance else samplers_table
    return "\n".join([head, "", *make(result["cells"])]) + "\n"


def picture(result: dict[str, Any]) -> Any:
    """Excess by evaluations, a line a sampler; of the guidance, what it gains and what it costs."""
    from minidiff.figures import BLUE, DARK, GREEN, GREY, ORANGE, legend_below, new

    if "ddim" not in result["cells"]:
        figure, axes = new(1, 2, size=(7.0, 2.9))
        cells = {float(scale): row for scale, row in result["cells"].items()}
        shares = {"words_shown": ("20 words", ORANGE), "radical_right": ("radicals", BLUE)}
        for key, (name, colour) in shares.items():
            values = [100 * row[key] for row in cells.values()]
            axes[0].plot(list(cells), values, color=colour, marker="o", label=f"{name} right, %")
        axes[0].set(xlabel="guidance", ylim=(0, 100))
        axes[0].legend(frameon=False, loc="lower right")
        axes[1].plot(
            list(cells), [row["excess"] for row in cells.values()], color=GREEN, marker="o"
        )
        axes[1].set(xlabel="guidance", ylabel="excess Fréchet distance", ylim=(-1, None))
        return figure
    figure, axis = new(size=(6.4, 3.8))
    styles = ((BLUE, "-"), (GREEN, "-"), (GREY, "-"), (DARK, "-"), (ORANGE, "-"), (DARK, ":"))
    for (name, row), (colour, style) in zip(result["cells"].items(), styles):
        counts = [count for count in row if int(count) > 2]  # with fewer nothing can be seen
        excess = [row[count]["excess"] for count in counts]
        line = {"color": colour, "linestyle": style, "marker": "o", "markersize": 4}
        axis.plot([int(count) for count in counts], excess, label=name, **line)
    blur = result["excess_of_real_blurred_by_1_pixel"]
    axis.axhline(blur, color=GREY, linewidth=1, linestyle="--")
    axis.text(250, blur + 0.4, "real glyphs after a blur of 1 pixel", ha="right", color=GREY)
    axis.set(xlabel="evaluations of the network", ylabel="excess Fréchet distance")
    ticks = [count for count in (*EVALUATIONS, *MANY) if count > 2]
    axis.set(xscale="log", ylim=(-1, 28), xticks=ticks, xticklabels=ticks)
    axis.minorticks_off()
    legend_below(figure, axis, ncols=3)
    return figure


def samplers_table(cells: dict[str, Any]) -> list[str]:
    counts = [str(count) for count in (*EVALUATIONS, *MANY)]
    lines = [
        "Excess by sampler and number of evaluations of the network:",
        "",
        f"| sampler | {' | '.join(counts)} |",
        "|---|" + "---|" * len(counts),
    ]
    for name, row in cells.items():
        shown = [f"{row[count]['excess']:.1f}" if count in row else "" for count in counts]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return lines


def guidance_table(cells: dict[str, Any]) -> list[str]:
    lines = [
        "More guidance shows what was asked for more often, and moves the glyphs as a whole away "
        "from real ones.",
        "",
        "| guidance | excess | radical right | edge, pixels | 20 words: component is there |",
        "|---|---|---|---|---|",
    ]
    for scale, row in cells.items():
        lines.append(
            f"| {scale} | {row['excess']:.1f} | {row['radical_right']:.0%} "
            f"| {row['edge_width']:.2f} | {row['words_shown']:.0%} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="glyph64")
    parser.add_argument("--only", choices=["samplers", "guidance"], help="one of the two tables")
    arguments = parser.parse_args()
    pipeline, judge = load(arguments.model), Judge()
    parts = {"samplers": compare_samplers, "guidance": compare_guidance}
    for name, compare in parts.items():
        if arguments.only in (None, name):
            compare(pipeline, judge, Table(f"quality_{name}", arguments.model, judge))


if __name__ == "__main__":
    main()
