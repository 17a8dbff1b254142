"""How cost grows: with the size of the pictures, with the batch, and with the number of glyphs.

    python benchmarks/growth.py      # two minutes on one core

The shipped network, at random weights, does training steps (AdamW, no average) and forward passes
on noise: at 32, 64 and 128 pixels in batches of 16, and at 64 pixels in batches of 1 to 256. Then
1,000, 5,000 and 20,000 glyphs are drawn from the font, read back from their file, and learnt from
for some steps of `Trainer` without text. Every measurement has a process of its own, so that its
peak of memory is its own: what that adds to the process with torch and the package loaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from machine import described, machine, write
from measuring import alone, in_turns, megabytes, memory, peak_memory, spread
from safetensors.torch import load_file, save_file

from minidiff.glyphs import load_glyphs, render
from minidiff.recipe import TrainingConfig
from minidiff.shelf import find_model
from minidiff.storage import read_info
from minidiff.training import Trainer
from minidiff.unet import UNet, UNetConfig

NAME = "growth"
SIZES, BATCHES, COUNTS = (32, 64, 128), (1, 4, 16, 64, 256), (1000, 5000, 20_000)
ROUNDS = 3  # of every measurement


def shipped() -> UNetConfig:
    return UNetConfig(**read_info(find_model("glyph64"))["model"]["unet"])


def network(size: int, batch: int) -> dict[str, Any]:
    """Seconds and megabytes of a training step and of a forward pass."""
    before = memory()
    torch.manual_seed(0)
    unet = UNet(shipped())
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, fused=True)
    x, t = torch.randn(batch, 1, size, size), torch.randint(1, 1000, (batch,))
    tokens = torch.randn(batch, 16, 384)

    def train() -> None:
        unet(x, t, tokens).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    @torch.inference_mode()
    def forward() -> None:
        unet(x, t, tokens)

    result = {}
    for name, action in (("forward", forward), ("train", train)):  # the peak never falls
        seconds = in_turns({name: action}, ROUNDS)[name]
        result[name] = {
            "seconds": spread(seconds),
            "megabytes": megabytes(peak_memory() - before),
        }
    return result


def data(count: int) -> dict[str, Any]:
    """Seconds to draw so many glyphs and to read them back, of a step with them; megabytes."""
    chars = [glyph.char for glyph in load_glyphs()[:count]]
    before = memory()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "glyphs.safetensors"
        started = time.perf_counter()
        images = render(chars)
        drawn = time.perf_counter()
        save_file({"images": images}, path)
        saved = time.perf_counter()
        images = load_file(path)["images"].clone()  # read, not only mapped
        read = time.perf_counter()
        unet = dataclasses.replace(shipped(), text_dim=None)
        config = TrainingConfig(network=unet, text_encoder=None, batch_size=16)
        dataset = SimpleNamespace(images=images.unsqueeze(1), prompts=[])
        trainer = Trainer(config, dataset, Path(folder) / "run")
        seconds = in_turns({"step": trainer.step}, 2 * ROUNDS)["step"]
    return {
        "draw_seconds": round(drawn - started, 3),
        "read_seconds": round(read - saved, 4),
        "step_seconds": spread(seconds),
        "megabytes": megabytes(peak_memory() - before),
    }


def section(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    small, large = result["size"]["32"], result["size"]["128"]
    more = large["train"]["seconds"]["median"] / small["train"]["seconds"]["median"]
    rates = {
        int(b): int(b) / row["train"]["seconds"]["median"] for b, row in result["batches"].items()
    }
    few, many = (result["glyphs"][str(count)] for count in (COUNTS[0], COUNTS[-1]))
    lines = [
        "The shipped network with the size of the pictures and with the batch, and the data with "
        f"the number of glyphs ({described(result['machine'])}; seed 0; medians of "
        f"{result['rounds']}, ± half of what lies between the quartiles; MB are what a process of "
        "its own adds at its peak, training / forward; drawing and reading by the clock). Repeat "
        "it with "
        "`python benchmarks/growth.py`. From 32 to 128 pixels, 16 "
        f"times as many, a training step takes {more:.0f} times as long. Training does "
        f"{rates[1]:.0f} images a second one by one, {rates[16]:.0f} in batches of 16 and "
        f"{rates[256]:.0f} in batches of 256, which take the memory. A step takes "
        f"{1000 * few['step_seconds']['median']:.0f} ms with {COUNTS[0]:,} glyphs and "
        f"{1000 * many['step_seconds']['median']:.0f} ms with {COUNTS[-1]:,}.",
        "",
        "| pixels | batch | training step, s | images/s | forward, s | images/s | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [(64, batch, row) for batch, row in result["batches"].items()]
    rows = [(32, result["batch"], small), *rows, (128, result["batch"], large)]
    for size, batch, row in rows:
        cells = [str(size), str(batch)]
        for what in ("train", "forward"):
            seconds = row[what]["seconds"]
            cells += [_seconds(seconds), f"{int(batch) / seconds['median']:.0f}"]
        cells.append(f"{row['train']['megabytes']} / {row['forward']['megabytes']}")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| glyphs | drawn, s | read back, s | training step of 16, s | memory, MB |",
        "|---|---|---|---|---|",
    ]
    for count, row in result["glyphs"].items():
        lines.append(
            f"| {int(count):,} | {row['draw_seconds']:.1f} | {row['read_seconds']:.3f} "
            f"| {_seconds(row['step_seconds'])} | {row['megabytes']} |"
        )
    return "\n".join(lines) + "\n"


def _seconds(rate: dict[str, Any]) -> str:
    low, high = rate["quartiles"]
    half = f"{(high - low) / 2:.4f}".rstrip("0").rstrip(".")
    return f"{rate['median']:.3g} ± {half}"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    result = {"machine": machine(), "seed": 0, "rounds": ROUNDS, "batch": 16}
    result["size"] = {size: alone(network, size, 16) for size in SIZES}
    result["batches"] = {
        batch: result["size"][64] if batch == 16 else alone(network, 64, batch) for batch in BATCHES
    }
    result["glyphs"] = {count: alone(data, count) for count in COUNTS}
    write(NAME, result)


if __name__ == "__main__":
    main()
