"""Where compute goes: short trainings that differ from a starting point in one thing each.

    python benchmarks/study.py                 # all that are missing: seven minutes each, one core
    python benchmarks/study.py stem2 cosine_v  # these

Every run sees the same number of glyphs, about one pass through the data, with the learning rate
falling to 0 over the second half; only stem 2, at four times the operations a glyph, gets the same
minutes, so a quarter of the glyphs. What they are judged by is the squared error on held-out glyphs
in the units of the starting point (the straight line's flow, eps - x_0), at the same eight ratios
of signal to noise whatever the schedule and whatever the network predicts, so that all figures can
be compared. `recipe` is run with two seeds: what differs by less than they do is no difference.
Finished models stay in runs/study/<name>/model.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, described, machine, write

from minidiff.denoisers import NetworkDenoiser
from minidiff.glyphs import GlyphDataset
from minidiff.recipe import TrainingConfig
from minidiff.run_folder import latest_checkpoint
from minidiff.samplers import seeded_generator
from minidiff.schedules import make_schedule
from minidiff.training import Trainer
from minidiff.unet import UNetConfig

ROOT = Path(__file__).resolve().parents[1]
# The starting point: what the shipped model's first stage was trained with.
BASE = TrainingConfig(
    network=UNetConfig(stem=4, channels=(96, 96, 128)), timestep_std=1.4, learning_rate=1e-3
)
STEPS = 304  # of 64 glyphs: 19,456 of the 19,475
HELD_OUT = 512

# name: (what is different, settings of TrainingConfig, settings of UNetConfig)
VARIANTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "recipe": ("the starting point", {}, {}),
    "batch32": ("batches of 32, twice the steps", {"batch_size": 32, "steps": 2 * STEPS}, {}),
    "rate2e-3": ("learning rate 2e-3", {"learning_rate": 2e-3}, {}),
    "rate4e-3": ("learning rate 4e-3", {"learning_rate": 4e-3}, {}),
    "together32": (
        "what paid, together: rate 2e-3, timesteps of mean 0.5 and deviation 1.6, batches of 32",
        {
            "learning_rate": 2e-3,
            "timestep_mean": 0.5,
            "timestep_std": 1.6,
            "batch_size": 32,
            "steps": 2 * STEPS,
        },
        {},
    ),
    "seed1": ("the starting point with another seed", {"seed": 1}, {}),
    "noisier": ("timesteps shifted towards noise (mean +1)", {"timestep_mean": 1.0}, {}),
    "cleaner": ("timesteps shifted towards data (mean -0.5)", {"timestep_mean": -0.5}, {}),
    "stem2": (
        "stem 2, not 4, in the same minutes: a quarter of the glyphs, in batches of 32",
        {"batch_size": 32, "steps": STEPS // 2, "warmup": 25},
        {"stem": 2},
    ),
    "cosine_v": ("cosine schedule, v", {"schedule": "cosine", "prediction_type": "v"}, {}),
    "linear_eps": (
        "linear schedule, eps: the article's",
        {"schedule": "linear", "prediction_type": "eps"},
        {},
    ),
    "straight_x0": ("straight line, x0", {"prediction_type": "x0"}, {}),
    "no_pooled": ("text through cross-attention alone", {}, {"pooled_text": False}),
    "attention_low": (
        "attention at the lowest level only",
        {},
        {"attention": (False, False, True)},
    ),
    "attention_all": ("attention at all levels", {}, {"attention": (True, True, True)}),
    "wide": ("wider, so more parameters than may ship", {}, {"channels": (128, 128, 160)}),
    "deep": ("two blocks a level, narrower", {}, {"channels": (64, 96, 96), "blocks": 2}),
    "whole": ("whole definitions only, no random senses", {"senses": 0.0}, {}),
    "tokens16": ("16 tokens of text, not 32", {"max_tokens": 16}, {}),
    "beta2": ("AdamW with beta2 0.999, not 0.99", {"beta2": 0.999}, {}),
}


@torch.inference_mode()
def losses(trainer: Trainer, network: Any, with_text: bool = True) -> dict[str, float]:
    """Error of the straight line's flow at its t = 62, 188, ..., whatever was trained."""
    straight, schedule = make_schedule("straight"), trainer.schedule
    held_out = trainer.held_out
    assert held_out is not None
    choice = seeded_generator(0, "held out")
    chosen = torch.randperm(len(held_out.images), generator=choice)[:HELD_OUT]
    pictures, told = held_out.whole(chosen)
    if not with_text:
        told = held_out.read(torch.full((len(chosen),), -1))
    x0 = trainer.model_config.space.to_data(pictures)
    eps = torch.randn(x0.shape, generator=seeded_generator(0, "loss"))
    denoiser = NetworkDenoiser(network.eval(), schedule, trainer.config.prediction_type, **told)
    result = {}
    for k in range(8):
        t = round(1000 * (2 * k + 1) / 16)
        ratio = straight.alpha[t] / straight.sigma[t]
        same = int((schedule.alpha[1:] / schedule.sigma[1:] - ratio).abs().argmin()) + 1
        steps = torch.full((len(x0),), same)
        x_t = schedule.add_noise(x0, eps, steps)
        error = (denoiser(x_t, same).x0 - x0).square().mean()
        result[str(t)] = round(float(error * (1 + ratio) ** 2), 5)
    return {**result, "mean": round(sum(result.values()) / 8, 5)}


def run(name: str, runs: Path) -> dict[str, Any]:
    what, training, unet = VARIANTS[name]
    settings = {"steps": STEPS, "warmup": 100, "decay": 0.5, **training}
    every = {f"{x}_every": 10**9 for x in ("evaluate", "sample", "save")}
    config = dataclasses.replace(
        BASE, **settings, **every, network=dataclasses.replace(BASE.network, **unet)
    )
    size = config.image_size
    folder = runs / name
    again = latest_checkpoint(folder) is not None  # it was stopped before it was judged
    train, test = GlyphDataset(size, "train"), GlyphDataset(size, "test")
    trainer = Trainer(config, train, folder, test, resume=again)
    started = time.process_time()  # of this process alone: other work beside does not count
    trainer.run()
    seconds = None if again else round(time.process_time() - started)
    with_text, without = (losses(trainer, trainer.averaged, text) for text in (True, False))
    return {
        "what": what,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "images": trainer.step_count * config.batch_size,
        "cpu_seconds": seconds,
        "held_out": with_text,
        # Text tells something only where there is much noise.
        "less_with_text_at_938": round(without["938"] - with_text["938"], 5),
        "held_out_without_ema": losses(trainer, trainer.network),
    }


def as_table(runs: dict[str, Any]) -> str:
    """The results in Markdown, best mean error first."""
    lines = [
        "| what differs | error: mean | t = 62 | 438 | 812 | 938 | text gains, at 938 "
        "| mean without EMA | parameters | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, run in sorted(runs.items(), key=lambda item: item[1]["held_out"]["mean"]):
        error = run["held_out"]
        some = [f"{error[t]:.3f}" for t in ("mean", "62", "438", "812", "938")]
        some += [f"{run['less_with_text_at_938']:.4f}"]
        some += [f"{run['held_out_without_ema']['mean']:.3f}", f"{run['parameters'] / 1e6:.2f} M"]
        seconds = run["cpu_seconds"]
        minutes = "" if seconds is None else f"{seconds / 60:.1f}"
        lines.append(f"| {VARIANTS[name][0]} | {' | '.join(some)} | {minutes} |")
    return "\n".join(lines) + "\n"


def section(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    lines = [
        "Trainings that saw every glyph about once (but see stem 2), and differ from the starting "
        "point (what the shipped model's first stage was trained with) in one thing each, best "
        f"first ({described(result['machine'])}). The error is that on held-out glyphs in the "
        "units of the starting point, at eight ratios of signal to noise, four of which are shown; "
        "smaller is better. “Text gains” is how much larger it is without the text, and EMA the "
        "average of the weights, which all other columns use; minutes are the processor's. The "
        "starting point stands there with two seeds: what differs by less than they do is no "
        "difference. Repeat it with `python benchmarks/study.py`. So short a training favours what "
        "learns quickly; that is not always what is best in the end.",
        "",
        *_stems(result["runs"]),
    ]
    return "\n".join(lines) + "\n" + as_table(result["runs"])


def _stems(runs: dict[str, Any]) -> list[str]:
    """The two stems in the same minutes, if both have run."""
    if not {"stem2", "batch32"} <= runs.keys():
        return []
    two, four = (runs[name]["held_out"] for name in ("stem2", "batch32"))
    return [
        f"In the same minutes stem 2 comes to {two['62']:.3f} at t = 62, where the fine strokes "
        f"are decided, and stem 4 (batches of 32) to {four['62']:.3f}; at t = 812, where the text "
        f"counts, to {two['812']:.3f} and {four['812']:.3f}. A drawing costs four times as much "
        "with stem 2, so stem 4 is what ships.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(VARIANTS)}; all if none")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "study")
    arguments = parser.parse_args()
    path = RESULTS / "study.json"
    for name in arguments.names or VARIANTS:
        done = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": {}}
        if name not in done["runs"]:
            result = run(name, arguments.runs)
            done = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": {}}
            runs = {**done["runs"], name: result}
            write("study", {"machine": machine(), "runs": runs})


if __name__ == "__main__":
    main()
