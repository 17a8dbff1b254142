"""Where strokes go wrong: at which amount of noise, and how the steps should be spread over it.

    python benchmarks/strokes.py            # the shipped model; a quarter of an hour on one core
    python benchmarks/strokes.py --model runs/glyph64

Real held-out glyphs are noised to a timestep and drawn to the end from there, with their own
definitions and without guidance. Down to where they still come out clean nothing is spoilt; the
faults come from above. Then 1,034 glyphs are drawn from pure noise with the same 20 steps, closer
together at much noise (a larger shift) or less so.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from evaluations import Judge, whose
from machine import described, machine, write
from tqdm import tqdm

from minidiff import metrics, samplers
from minidiff.evaluation import STEPS, draw
from minidiff.pipeline import Pipeline, load
from minidiff.shelf import find_model
from minidiff.storage import read_info

GLYPHS = 128
STARTS = (20, 100, 300, 500, 700, 800, 900, 1000)
SHIFTS = (1.5, 2.0, 3.0)


@torch.inference_mode()
def from_real_glyphs(pipeline: Pipeline, judge: Judge, t: int) -> dict[str, float]:
    """Specks and off-white of held-out glyphs drawn again from timestep t on."""
    grid = [t, *(step for step in pipeline.timesteps(STEPS) if step < t)]
    x0 = pipeline.config.space.to_data(judge.test.images[:GLYPHS]).to(pipeline.device)
    noise = [samplers.seeded_generator(0, i) for i in range(GLYPHS)]
    eps = samplers.standard_normal(tuple(x0.shape), noise, pipeline.device)
    x_t = pipeline.schedule.add_noise(x0, eps, t)
    told = pipeline.denoiser(judge.test.texts[:GLYPHS])
    x = samplers.sample(told, x_t, "dpmpp_2m_sde", generator=noise, timesteps=grid)
    return strokes(pipeline.config.space.to_images(x).cpu())


def strokes(images: torch.Tensor) -> dict[str, float]:
    return {
        "specks": round(metrics.specks(images), 4),
        "off_white": round(metrics.off_white(images), 4),
        "edge_width": round(metrics.edge_width(images), 3),
    }


def with_shift(pipeline: Pipeline, judge: Judge, shift: float) -> dict[str, float]:
    """All held-out definitions drawn with the steps spread so."""
    grid = pipeline.schedule.timesteps(STEPS, shift=shift)
    images = draw(pipeline, judge.test.texts, guidance_scale=1.0, timesteps=grid)
    return {**strokes(images), **judge(images)}


def section(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    lines = [
        f"{result['glyphs']} held-out glyphs, noised to a timestep and drawn to the end from there "
        f"by {whose(result)} ({described(result['machine'])}; {STEPS} steps from pure noise, seed "
        "0, no guidance): "
        "how many specks (blobs of ink of fewer than 20 pixels) a glyph has then, and what share "
        "of the pixels is a not quite white grey. Repeat it with `python benchmarks/strokes.py`.",
        "",
        "| drawn from t = | " + " | ".join(result["from"]) + " |",
        "|---|" + "---|" * len(result["from"]),
        "| specks | "
        + " | ".join(f"{row['specks']:.2f}" for row in result["from"].values())
        + " |",
        "| off-white | "
        + " | ".join(f"{row['off_white']:.1%}" for row in result["from"].values())
        + " |",
        "",
        f"The first two are a single step. {_verdict(result['from'])}",
        "",
        "The same steps, closer together at much noise (a larger shift), 1,034 definitions:",
        "",
        "| shift | excess Fréchet distance | kernel distance | radical right | specks | off-white "
        "| edge, pixels |",
        "|---|---|---|---|---|---|---|",
    ]
    for shift, row in result["shift"].items():
        lines.append(
            f"| {shift} | {row['excess']:.1f} | {row['kernel']:.3f} | {row['radical_right']:.1%} "
            f"| {row['specks']:.2f} | {row['off_white']:.1%} | {row['edge_width']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _verdict(rows: dict[str, dict[str, float]]) -> str:
    """Above which t at least half of the specks arise: what is drawn from there on has the rest."""
    half = rows[str(max(STARTS))]["specks"] / 2
    last = max(int(t) for t, row in rows.items() if row["specks"] <= half)
    return (
        "At least half of the specks of glyphs that are drawn from pure noise arise above "
        f"t = {last}: pieces of strokes that are laid out at much noise and fit nowhere later."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="glyph64")
    arguments = parser.parse_args()
    weights = read_info(find_model(arguments.model))["files"]["model.safetensors"]
    pipeline, judge = load(arguments.model), Judge()
    starts = {str(t): from_real_glyphs(pipeline, judge, t) for t in tqdm(STARTS, "From t")}
    shifts = {str(s): with_shift(pipeline, judge, s) for s in tqdm(SHIFTS, "Shifts")}
    write(
        "strokes",
        {
            "machine": machine(),
            "weights": weights,
            "glyphs": GLYPHS,
            "from": starts,
            "shift": shifts,
        },
    )


if __name__ == "__main__":
    main()
