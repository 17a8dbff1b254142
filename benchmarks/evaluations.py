"""How good the glyphs are for how many evaluations of the network, by sampler, and by guidance.

    python benchmarks/evaluations.py            # the shipped model; 95 minutes of one core
    python benchmarks/evaluations.py --model runs/glyph64

Every cell is drawn for all 1,034 held-out definitions from the same noise and compared with the
same 4,096 real glyphs. The excess is the Fréchet distance over that of as many held-out real glyphs
(the floor); its standard error is found by leaving out a sixteenth of the glyphs at a time. Beside
it stand the kernel distance and recall, for a set of less variety is flattered by the excess.
Samplers are compared without guidance, so that an evaluation is a step (Heun: two a step, one in
the last); all get 3 to 20 evaluations, the two best 50. Guidance is compared with 20 steps of the
default sampler, which are 40 evaluations. Cells that are in the result already, for the same
weights, are not drawn again.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable
from typing import Any

import torch
from machine import RESULTS, described, machine, write
from torch import Tensor
from tqdm import tqdm

from minidiff import metrics, samplers
from minidiff.evaluation import STEPS, draw, radicals, real_features
from minidiff.held_out import HeldOut
from minidiff.pipeline import Pipeline, find_model, load
from minidiff.recogniser import load_recogniser
from minidiff.storage import read_info
from minidiff.wanted import WANTED, shows

COUNT = 1034  # all that are held out
EVALUATIONS = (3, 5, 8, 12, STEPS)
MANY = 50
GUIDANCE = (1.0, 2.0, 3.0, 5.0)
PER_WORD = 8
EVEN = "dpmpp_2m evenly spaced"  # the others take the pipeline's grid, closer where noise is much


def steps_for(sampler: str, evaluations: int) -> int:
    """The most steps that take no more than so many evaluations."""
    return max(1, (evaluations + 1) // 2) if sampler == "heun" else evaluations


class Judge:
    """What held-out definitions look like when drawn, beside their real glyphs."""

    def __init__(self, count: int = COUNT) -> None:
        self.recogniser, _ = load_recogniser()
        self.test = HeldOut(count)
        self.real = real_features(self.recogniser)
        self.truth = torch.tensor([glyph.radical for glyph in self.test.glyphs])
        self.floor = self.frechet(self.test.images)

    def frechet(self, images: Tensor) -> float:
        return metrics.frechet_distance(self.real, metrics.features(self.recogniser, images))

    def __call__(self, images: Tensor) -> dict[str, float]:
        seen = metrics.features(self.recogniser, images)
        right = radicals(self.recogniser, images) == self.truth
        _, recall = metrics.precision_recall(self.real[: len(seen)], seen)
        return {
            "excess": round(metrics.frechet_distance(self.real, seen) - self.floor, 3),
            "standard_error": round(standard_error(self.real, seen), 3),
            "kernel": round(metrics.kernel_distance(self.real, seen), 4),
            "recall": round(recall, 3),
            "edge_width": round(metrics.edge_width(images), 3),
            "radical_right": round(right.float().mean().item(), 4),
        }


def standard_error(real: Tensor, seen: Tensor, groups: int = 16) -> float:
    """Of a Fréchet distance: the jackknife, a sixteenth of the glyphs left out at a time."""
    group = torch.arange(len(seen)) % groups
    left = [metrics.frechet_distance(real, seen[group != g]) for g in range(groups)]
    return math.sqrt((groups - 1) * statistics.pvariance(left))


class Table:
    """A result file that is written after every cell, and taken up again for the same weights."""

    def __init__(self, name: str, model: str, judge: Judge) -> None:
        weights = read_info(find_model(model))["files"]["model.safetensors"]
        blurred = judge.frechet(metrics.blurred(judge.test.images))
        self.name = name
        self.head = {
            "machine": machine(),
            "model": model,
            "weights": weights,
            "samples": COUNT,
            "seed": 0,
            "floor": round(judge.floor, 3),
            "excess_of_real_blurred_by_1_pixel": round(blurred - judge.floor, 3),
        }
        path = RESULTS / f"{name}.json"
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        same = all(before.get(key) == self.head[key] for key in ("weights", "samples", "seed"))
        self.cells = before["cells"] if same else {}

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
    best = sorted(samplers.SAMPLERS, key=lambda name: cell(name, STEPS)["excess"])[:2]
    for name in tqdm(best, "Many evaluations"):
        cell(name, MANY)


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


def whose(result: dict[str, Any]) -> str:
    """The weights of a result in words."""
    shipped = read_info(find_model("glyph64"))["files"]["model.safetensors"]
    return "the shipped weights" if result["weights"] == shipped else "weights shipped earlier"


def section(result: dict[str, Any]) -> str:
    """One of the two results in Markdown."""
    of_guidance = "words_shown" in result["cells"].get("1.0", {})
    weights = whose(result)
    head = (
        f"The same {result['samples']} held-out definitions drawn from the same noise by {weights} "
        f"({described(result['machine'])}; seed {result['seed']}). The excess is the Fréchet "
        "distance beyond that of as many held-out real glyphs, for which a blur of one pixel gives "
        f"{result['excess_of_real_blurred_by_1_pixel']:.1f}. {doubt(result)} "
        f"Repeat it with `python benchmarks/evaluations.py --only "
        f"{'guidance' if of_guidance else 'samplers'}`."
    )
    make = guidance_table if of_guidance else samplers_table
    return "\n".join([head, "", *make(result["cells"])]) + "\n"


def rows_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of all samplers, or of all guidance scales."""
    cells = result["cells"].values()
    return [row for cell in cells for row in ([cell] if "excess" in cell else cell.values())]


def doubt(result: dict[str, Any]) -> str:
    """How far the excess can be trusted."""
    errors = [row["standard_error"] for row in rows_of(result) if "standard_error" in row]
    if not errors:  # a result of an earlier release
        return "With so few samples it flatters glyphs of less variety, and 1 more may be chance."
    typical = statistics.median(errors)
    return f"Its standard error is typically {typical:.1f}, at most {max(errors):.1f}."


def counts_of(cells: dict[str, Any]) -> list[str]:
    """The numbers of evaluations that a sampler was given, rising."""
    return sorted({count for row in cells.values() for count in row}, key=int)


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
    ticks = [int(count) for count in counts_of(result["cells"]) if int(count) > 2]
    axis.text(ticks[-1], blur + 0.4, "real glyphs after a blur of 1 pixel", ha="right", color=GREY)
    axis.set(xlabel="evaluations of the network", ylabel="excess Fréchet distance")
    axis.set(xscale="log", ylim=(-1, 28), xticks=ticks, xticklabels=ticks)
    axis.minorticks_off()
    legend_below(figure, axis, ncols=3)
    return figure


MEASURES = {
    "excess": ("Excess", "{:.1f}"),
    "recall": ("Recall", "{:.2f}"),
    "kernel": ("Kernel distance", "{:.3f}"),
}


def samplers_table(cells: dict[str, Any]) -> list[str]:
    """A table a measure; earlier results know no recall."""
    counts, lines = counts_of(cells), []
    for key, (title, form) in MEASURES.items():
        if all(key in row for rows in cells.values() for row in rows.values()):
            lines += ["", f"{title} by sampler and number of evaluations of the network:", ""]
            lines += [f"| sampler | {' | '.join(counts)} |", "|---|" + "---|" * len(counts)]
            for name, row in cells.items():
                shown = [form.format(row[c][key]) if c in row else "" for c in counts]
                lines.append(f"| {name} | {' | '.join(shown)} |")
    return lines[1:]


def guidance_table(cells: dict[str, Any]) -> list[str]:
    columns = {
        **MEASURES,
        "radical_right": ("radical right", "{:.0%}"),
        "edge_width": ("edge, pixels", "{:.2f}"),
        "words_shown": ("20 words: component is there", "{:.0%}"),
    }
    first = next(iter(cells.values()))
    columns = {key: how for key, how in columns.items() if key in first}
    titles = [title[0].lower() + title[1:] for title, _ in columns.values()]
    lines = [
        "What guidance gains, and what it costs:",
        "",
        f"| guidance | {' | '.join(titles)} |",
        "|---|" + "---|" * len(titles),
    ]
    for scale, row in cells.items():
        shown = [form.format(row[key]) for key, (_, form) in columns.items()]
        lines.append(f"| {scale} | {' | '.join(shown)} |")
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
