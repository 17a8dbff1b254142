"""U-Nets and a transformer (DiT) at equal operations: who learns more from as many glyphs?

    python benchmarks/unet_or_dit.py               # one pass through the glyphs, one core
    python benchmarks/unet_or_dit.py --rounds 16   # goes on to two passes

All learn from scratch to draw glyphs of 32 × 32 pixels by their definitions: the same glyphs,
noise and timesteps in the same order, the same recipe, and as many multiply-adds a glyph, counted
by torch. The U-Net is there twice: on the transformer's grid of 8 × 8 places, and on a finer one
with fewer channels. They take turns, an eighth of a pass each, so it can be stopped at any time
and goes on where it was. The learning rate stays where it is after the warm-up, and what is judged
is the average of the weights: so every point is the end of a training of its own length.
Checkpoints stay in runs/unet_or_dit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch
from machine import described, machine, write
from measuring import in_turns, spread
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minidiff.dit import DiTConfig
from minidiff.glyphs import GlyphDataset
from minidiff.networks import build
from minidiff.recipe import TrainingConfig
from minidiff.run_folder import latest_checkpoint, newest_info
from minidiff.training import Trainer
from minidiff.unet import UNetConfig

ROOT = Path(__file__).resolve().parents[1]
NAME = "unet_or_dit"
ROUND = 76  # steps of 32 glyphs: an eighth of the 19,475
NETWORKS: dict[str, tuple[str, Any]] = {
    "unet": (
        "U-Net, stem 4, widths 96 and 128",
        UNetConfig(stem=4, channels=(96, 128), attention=(False, True)),
    ),
    "fine": (
        "U-Net, stem 2, widths 32, 64 and 128",
        UNetConfig(stem=2, channels=(32, 64, 128), attention=(False, False, True)),
    ),
    "dit": ("DiT, patches of 4, width 120, 6 blocks", DiTConfig(patch=4, width=120, head_dim=40)),
}
RECIPE = TrainingConfig(
    network=NETWORKS["unet"][1], image_size=32, timestep_std=1.4, batch_size=32, warmup=100,
    decay=0.0, ema_decay=0.995,
    senses=0.75, name_radicals=True, evaluate_every=ROUND, log_every=ROUND, save_every=ROUND,
    sample_every=10**9,
)  # fmt: skip


def example(batch: int) -> tuple[torch.Tensor, ...]:
    """x_t, t and a text of 12 tokens, the length of a usual definition."""
    t = torch.linspace(1, 1000, batch).long()
    return torch.randn(batch, 1, 32, 32), t, torch.randn(batch, 12, 384)


@torch.no_grad()
def operations(network: nn.Module) -> float:
    """Multiply-adds of one glyph, in millions; torch counts both apart."""
    every = sdpa_kernel(SDPBackend.MATH)  # else what attention multiplies is left out
    with FlopCounterMode(display=False) as counter, every:
        network(*example(1))
    return round(float(counter.get_total_flops()) / 2e6, 1)


def sizes() -> dict[str, dict[str, Any]]:
    """What each network is and costs: operations, weights, the processor's time for a step."""
    torch.manual_seed(0)
    networks = {name: build(config) for name, (_, config) in NETWORKS.items()}
    batch = example(RECIPE.batch_size)

    def step(network: nn.Module) -> None:
        network.zero_grad()
        network(*batch).square().mean().backward()

    seconds = in_turns({n: lambda n=n: step(networks[n]) for n in networks}, 5)  # type: ignore[misc]
    return {
        name: {
            "what": NETWORKS[name][0],
            "million_multiply_adds": operations(network),
            "parameters": sum(p.numel() for p in network.parameters()),
            "step_seconds": spread(seconds[name]),
        }
        for name, network in networks.items()
    }


def train(name: str, steps: int, folder: Path, *datasets: GlyphDataset) -> None:
    """Go on to so many steps, unless they are made."""
    again = latest_checkpoint(folder) is not None
    if again and newest_info(folder)[1]["step"] >= steps:
        return
    config = dataclasses.replace(RECIPE, network=NETWORKS[name][1], steps=steps)
    Trainer(config, datasets[0], folder, datasets[1], resume=again).run()


def curve(folder: Path) -> dict[str, dict[str, float]]:
    """Glyphs seen -> loss on held-out glyphs, at eight timesteps and their mean."""
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [entry for line in lines if "held_out_loss" in (entry := json.loads(line))]
    return {str(RECIPE.batch_size * e["step"]): e["held_out_loss"] for e in entries}


def section(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    rows = [result["networks"][name] for name in NETWORKS]
    seen = [n for n in rows[0]["held_out"] if all(n in row["held_out"] for row in rows)]
    ranked = sorted(rows, key=lambda row: row["held_out"][seen[-1]]["mean"])
    ends = [row["held_out"][seen[-1]]["mean"] for row in ranked]
    # The best network's glyphs when it was first where another one ended.
    sooner = [next(int(n) for n in seen if ranked[0]["held_out"][n]["mean"] <= end) for end in ends]
    order = ", ".join(f"{row['what']} **{end:.4f}**" for row, end in zip(ranked, ends, strict=True))
    reached = " and ".join(
        f"{there:,} glyphs where the {row['what']} ends"
        for row, there in zip(ranked[1:], sooner[1:], strict=True)
    )
    lines = [
        "All from scratch on glyphs of 32 × 32 pixels with their definitions: the same glyphs and "
        "noise in the same order, one recipe (AdamW at 1e-3, batches of 32, flow on the straight "
        f"line), as many multiply-adds a glyph ({described(result['machine'])}; seed 0). The loss "
        "is that of the averaged weights on 512 held-out glyphs; smaller is better. Repeat it with "
        f"`python benchmarks/unet_or_dit.py`. After {int(seen[-1]):,} glyphs, "
        f"{int(seen[-1]) / 19_475:.1f} passes: {order}. The first of them was after {reached}. "
        "The learning rate was chosen for none, and this is the beginning of a training only.",
        "",
        "| | multiply-adds a glyph, M | parameters, M | training step of 32, ms |",
        "|---|---|---|---|",
    ]
    for row in rows:
        milliseconds = 1000 * row["step_seconds"]["median"]
        lines.append(
            f"| {row['what']} | {row['million_multiply_adds']:.0f} "
            f"| {row['parameters'] / 1e6:.2f} | {milliseconds:.0f} |"
        )
    names = [row["what"].split(",")[0] for row in rows]
    names[1] += ", finer"
    heads = [f"{name}{what}" for what in ("", ", t = 62", ", t = 938") for name in names]
    lines += ["", f"| glyphs seen | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for n in seen:
        losses = [row["held_out"][n] for row in rows]
        cells = [f"{loss[t]:.4f}" for t in ("mean", "62", "938") for loss in losses]
        lines.append(f"| {int(n):,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=8, help="eighths of a pass")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / NAME)
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        sys.exit("--rounds must be at least 1")
    datasets = GlyphDataset(32, "train", name_radicals=True), GlyphDataset(32, "test")
    rows = sizes()
    for number in range(1, arguments.rounds + 1):
        for name in NETWORKS:
            train(name, number * ROUND, arguments.runs / name, *datasets)
            rows[name]["held_out"] = curve(arguments.runs / name)
        write(NAME, {"machine": machine(), "round": ROUND, "networks": rows})


if __name__ == "__main__":
    main()
