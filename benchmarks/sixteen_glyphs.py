"""Sixteen glyphs at equal quality: our sampler and diffusers' schedulers around one network.

    python benchmarks/sixteen_glyphs.py            # the shipped model; 25 minutes of one core
    python benchmarks/sixteen_glyphs.py --model runs/glyph64

Every way draws all 1,034 held-out definitions from the same noise, without guidance, and is judged
as in evaluations.py. Then every way draws 16 glyphs, in turns, so that a busy machine slows all;
the texts are encoded before. Ours takes 20 steps (the default) and 12 (a tenth of DDPM's 120).
Cells of the same weights are not drawn again; ours are taken from the result of evaluations.py
where that is of the same weights (else five minutes more).

diffusers' schedulers know variance-preserving noise only, alpha² + sigma² = 1, and the shipped
model learnt the straight line. One is the other in a variable of its own length: with
n = sqrt(alpha² + sigma²) the state x / n has alpha / n and sigma / n, which preserve variance,
x_0 is the same, and so is the ratio of signal to noise at every t. A scheduler that gets those
betas, and from the network x_0 at n times its state, therefore samples this model exactly. At
t = T, where alpha is 0, it gets alpha² = 2⁻²⁴, as diffusers itself puts it there.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any

import machine
import torch
from evaluations import COUNT, Judge, Table, whose
from measuring import in_turns, spread, times_faster
from torch import Tensor
from tqdm import tqdm

from minidiff import samplers
from minidiff.denoisers import Denoiser, Guided
from minidiff.pipeline import Pipeline, load
from minidiff.schedules import Schedule

NAME = "sixteen_glyphs"
DEFAULT, MANY = "dpmpp_2m_sde", 120
THEIRS = f"diffusers, DDPM, {MANY} steps"
# Takes a denoiser, noise (B, 1, H, W) and a generator a picture; returns the end of the walk.
Way = Callable[[Denoiser, Tensor, Sequence[torch.Generator]], Tensor]


def ours(sampler: str, grid: list[int]) -> Way:
    def walk(denoiser: Denoiser, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        return samplers.sample(denoiser, x, sampler, generator=generators, timesteps=grid)

    return walk


def theirs(schedule: Schedule, algorithm: str, grid: list[int]) -> Way:
    """A scheduler of diffusers on our grid, in the variance-preserving variable x / n.

    Args:
        algorithm: "ddpm", or an algorithm_type of DPMSolverMultistepScheduler.
        grid: falling from T to 0; their timestep is one less than ours, and they know no 0.
    """
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

    n = (schedule.alpha**2 + schedule.sigma**2).sqrt()
    options = {"trained_betas": betas(schedule), "prediction_type": "sample"}
    scheduler: Any
    if algorithm == "ddpm":
        scheduler = DDPMScheduler(clip_sample=False, **options)
    else:
        scheduler = DPMSolverMultistepScheduler(algorithm_type=algorithm, **options)

    def walk(denoiser: Denoiser, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        scheduler.set_timesteps(timesteps=[t - 1 for t in grid[:-1]])
        x = x / n[grid[0]].item()
        for index in scheduler.timesteps:
            t = int(index) + 1
            x0 = denoiser(x * n[t].item(), t).x0
            x = scheduler.step(x0, index, x, generator=generators).prev_sample
        return x  # at t = 0, where n is 1

    return walk


def betas(schedule: Schedule) -> list[float]:
    """Those of the variance-preserving noise with the same signal to noise at every t."""
    cumprod = schedule.alpha**2 / (schedule.alpha**2 + schedule.sigma**2)
    cumprod[-1] = max(cumprod[-1].item(), 2**-24)
    return (1 - cumprod[1:] / cumprod[:-1]).tolist()


def ways(pipeline: Pipeline) -> dict[str, tuple[int, Way]]:
    """name: (evaluations a glyph, way)."""
    schedule = pipeline.schedule
    even = schedule.timesteps(20, shift=1)
    return {
        "ours, 20 steps (the default)": (20, ours(DEFAULT, pipeline.timesteps(20))),
        "ours, 12 steps": (12, ours(DEFAULT, pipeline.timesteps(12))),
        THEIRS: (MANY, theirs(schedule, "ddpm", schedule.timesteps(MANY, shift=1))),
        "diffusers, DPM-Solver++, 20 steps": (20, theirs(schedule, "dpmsolver++", even)),
    }


def denoiser(pipeline: Pipeline, texts: Sequence[str]) -> Denoiser:
    """Without guidance, and clipped as the pipeline does."""
    told = pipeline.denoiser(texts)
    return Guided(told, told, 1.0, clip=pipeline.config.space.data_range)


@torch.inference_mode()
def draw(pipeline: Pipeline, way: Way, texts: Sequence[str]) -> Tensor:
    """One glyph of each text, from the same noise as `minidiff.evaluation.draw`."""
    parts, size = [], pipeline.config.image_size
    for start in tqdm(range(0, len(texts), 64), "Drawing", leave=False):
        part = texts[start : start + 64]
        generators = [samplers.seeded_generator(0, start + i) for i in range(len(part))]
        x = samplers.standard_normal((len(part), 1, size, size), generators)
        parts.append(pipeline.config.space.to_images(way(denoiser(pipeline, part), x, generators)))
    return torch.cat(parts)


@torch.inference_mode()
def times(pipeline: Pipeline, texts: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of every way for one glyph of each text, see `in_turns`."""
    told, size = denoiser(pipeline, texts), pipeline.config.image_size

    def action(way: Way) -> Callable[[], None]:
        def once() -> None:
            generators = [samplers.seeded_generator(0, i) for i in range(len(texts))]
            way(told, samplers.standard_normal((len(texts), 1, size, size), generators), generators)

        return once

    return in_turns({name: action(way) for name, (_, way) in ways(pipeline).items()}, rounds)


def summary(seconds: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    slow = seconds[THEIRS]
    return {
        name: {**spread(mine), "times_faster_than_ddpm": times_faster(mine, slow)}
        for name, mine in seconds.items()
    }


def section(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    cells, seconds = result["cells"], result["seconds"]
    quick, slow = cells["ours, 12 steps"], cells[THEIRS]
    ratio = seconds["ours, 12 steps"]["times_faster_than_ddpm"]
    error = math.hypot(quick["standard_error"], slow["standard_error"])
    more = quick["excess"] - slow["excess"]
    if more > 2 * error:
        verdict = "that is worse by more than twice the standard error"
    elif more < -2 * error:
        verdict = "that is better by more than twice the standard error"
    else:
        verdict = "they differ by less than twice the standard error"
    if result["samples"] < COUNT:  # of fewer glyphs a distance flatters: only times are told
        return timed(result)
    recall = all("recall" in cells[name] for name in seconds)  # earlier results know none
    lines = [
        f"The network with {whose(result)} draws 16 glyphs, by our sampler and by diffusers' "
        f"schedulers, in turns in one process ({machine.described(result['machine'])}; "
        f"{result['rounds']} turns), without guidance. The quality is the Fréchet distance beyond "
        f"that of real glyphs, with its standard error, of {result['samples']} held-out "
        f"definitions drawn from the same noise, seed {result['seed']}. Repeat it with "
        "`python benchmarks/sixteen_glyphs.py`.",
        "",
        f"Ours in 12 steps takes 1/{ratio:.1f} of the time of DDPM in {MANY}, with an excess of "
        f"{quick['excess']:.1f} against {slow['excess']:.1f}: {verdict} ({error:.1f}). "
        f"{note(cells)}",
        "",
        "| way | evaluations a glyph | seconds for 16 | quartiles | × faster than DDPM "
        f"| excess | {'recall | ' if recall else ''}radical right | edge, pixels |",
        "|---|---|---|---|---|---|---|---|" + "---|" * recall,
    ]
    for name, row in seconds.items():
        cell, (low, high) = cells[name], row["quartiles"]
        lines.append(
            f"| {name} | {cell['evaluations']} | {row['median']:.2f} | {low:.2f} to {high:.2f} "
            f"| {row['times_faster_than_ddpm']:.1f} | {cell['excess']:.1f} ± "
            f"{cell['standard_error']:.1f} | "
            + (f"{cell['recall']:.2f} | " if recall else "")
            + f"{cell['radical_right']:.0%} | {cell['edge_width']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def timed(result: dict[str, Any]) -> str:
    """The times alone; they are those of the network's shape, whatever its weights."""
    lines = [
        f"A network of the shape that ships draws 16 glyphs, by our sampler and by diffusers' "
        f"schedulers, in turns in one process ({machine.described(result['machine'])}; "
        f"{result['rounds']} turns), without guidance. How good our samplers' glyphs are is in the "
        "table above. Repeat it with `python benchmarks/sixteen_glyphs.py`, which judges all.",
        "",
        "| way | evaluations a glyph | seconds for 16 | quartiles | × faster than DDPM |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["seconds"].items():
        low, high = row["quartiles"]
        lines.append(
            f"| {name} | {result['cells'][name]['evaluations']} | {row['median']:.2f} "
            f"| {low:.2f} to {high:.2f} | {row['times_faster_than_ddpm']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def note(cells: dict[str, Any]) -> str:
    if any("our grid" in name for name in cells):  # a result of an earlier release
        return (
            "The last row is diffusers' solver on our grid, to be held against the first: there "
            "the two sides do the same sums. Between the other rows only the number and the place "
            "of the steps differ."
        )
    return (
        "Between the rows the number and the place of the steps differ, and whether fresh noise is "
        "added on the way; on our grid diffusers' schedulers draw the same pictures as ours."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="glyph64")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every way")
    arguments = parser.parse_args()
    machine.need("diffusers")
    pipeline, judge = load(arguments.model, "cpu"), Judge()
    table = Table(NAME, arguments.model, judge)
    ready = Table("quality_samplers", arguments.model, judge).cells.get(DEFAULT, {})
    every = ways(pipeline)
    for name, (count, way) in every.items():

        def make(name: str = name, count: int = count, way: Way = way) -> dict[str, float]:
            if name.startswith("ours") and str(count) in ready:
                return {"evaluations": count, **ready[str(count)]}
            return {"evaluations": count, **judge(draw(pipeline, way, judge.test.texts))}

        table.add(name, make=make)
    seconds = summary(times(pipeline, judge.test.texts[:16], arguments.rounds))
    head = {**table.head, "machine": machine.machine("diffusers"), "rounds": arguments.rounds}
    cells = {name: table.cells[name] for name in every}
    machine.write(NAME, {**head, "seconds": seconds, "cells": cells})


if __name__ == "__main__":
    main()
