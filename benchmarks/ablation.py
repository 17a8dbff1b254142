"""What each step brought: our training step from a plain version to the one that is used.

    python benchmarks/ablation.py      # two minutes on one core

It begins with the shipped model's levels and recipe in their plainest form: memory in the order of
channels, attention written out, no stem, AdamW weight by weight, the average of the weights in a
loop, texts encoded and glyphs drawn at every step. Then one thing after the other becomes what
minidiff/unet.py and minidiff/training.py do; the last row is `Trainer` itself. The rows run in
turns in one process, each with a network of its own from the same seed, on the first 256
training glyphs. The order matters: what comes early changes how much the later ones can bring.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from machine import described, machine, write
from measuring import in_turns, spread, times_faster
from torch import Tensor, nn

import minidiff
from minidiff import unet
from minidiff.glyphs import GlyphDataset, render
from minidiff.recipe import TrainingConfig
from minidiff.text import TextEncoder
from minidiff.training import Trainer
from minidiff.unet import TransformerBlock

NAME, BATCH, GLYPHS = "ablation", 8, 256
RECIPE = Path(minidiff.__file__).parent / "recipes" / "glyph64.toml"

# In the order in which they are added: name, and what the table says.
STEPS = {
    "plain": "plain",
    "channels_last": "pictures in memory by place, not by channel (channels_last)",
    "attention": "scaled_dot_product_attention, not a softmax written out",
    "stem 2": "stem 2: 2 × 2 pixels folded into channels",
    "stem 4": "stem 4: 4 × 4 pixels",
    "optimizer": "AdamW fused, not weight by weight",
    "average": "the average of the weights in one call (foreach), not a loop",
    "images": "glyphs drawn once and kept as bytes, not drawn at every step",
    "texts": "texts encoded once, not at every step (what is used)",
}


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    scores = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    return scores.softmax(3) @ value


class Drawn:
    """The training pictures, drawn whenever they are asked for."""

    def __init__(self, chars: list[str], size: int) -> None:
        self.chars, self.shape = chars, torch.Size([len(chars), 1, size, size])

    def __len__(self) -> int:
        return len(self.chars)

    def __getitem__(self, index: Tensor) -> Tensor:
        return render([self.chars[i] for i in index], self.shape[2]).unsqueeze(1)


class Row(Trainer):
    """The trainer with the first so many steps done, and the others as plainly as can be."""

    def __init__(self, done: set[str], dataset: Any, encoder: TextEncoder, folder: Path) -> None:
        self.done, self.encoder = done, encoder
        super().__init__(recipe(done), dataset, folder)
        self.prompts = sorted({text for several in dataset.prompts for text in several})
        if "channels_last" not in done:
            self.network.to(memory_format=torch.contiguous_format)
            for part in self.network.modules():
                if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | TransformerBlock):
                    part.register_forward_hook(lambda _part, _in, out: out.contiguous())
        if "optimizer" not in done:
            group = self.optimizer.param_groups[0]
            settings = {k: group[k] for k in ("lr", "betas", "weight_decay")}
            slow = torch.optim.AdamW(self.network.parameters(), foreach=False, **settings)
            self.optimizer = self.accelerator.prepare(slow)
        if "images" not in done:
            self.images = Drawn([glyph.char for glyph in dataset.glyphs], self.config.image_size)

    def step(self) -> None:
        with plainly("attention" not in self.done):
            super().step()

    @torch.no_grad()
    def _average(self) -> None:
        if "average" in self.done:
            super()._average()
            return
        decay = min(self.config.ema_decay, (1 + self.step_count) / (10 + self.step_count))
        pairs = zip(self.averaged.parameters(), self.network.parameters(), strict=True)
        for average, current in pairs:
            average.lerp_(current, 1 - decay)

    def _read(self, row: Tensor) -> tuple[Tensor, Tensor]:
        if "texts" in self.done:
            return super()._read(row)
        text = self.encoder.encode([self.prompts[i] if i >= 0 else "" for i in row])
        return text.tokens, text.mask


@contextlib.contextmanager
def plainly(plain: bool) -> Iterator[None]:
    if not plain:
        yield
        return
    # In our network only: the text encoder keeps its own.
    functions = {**vars(unet.F), "scaled_dot_product_attention": plain_attention}
    with mock.patch.object(unet, "F", SimpleNamespace(**functions)):
        yield


def recipe(done: set[str]) -> TrainingConfig:
    config = TrainingConfig.from_dict(tomllib.loads(RECIPE.read_text(encoding="utf-8")))
    stem = max([1, *(int(name.split()[1]) for name in done if name.startswith("stem"))])
    return dataclasses.replace(
        config, network=dataclasses.replace(config.network, stem=stem), batch_size=BATCH
    )


def glyphs() -> SimpleNamespace:
    """The first training glyphs: the whole set would take its time to encode."""
    every = GlyphDataset(64, "train")
    return SimpleNamespace(
        images=every.images[:GLYPHS], prompts=every.prompts[:GLYPHS], glyphs=every.glyphs[:GLYPHS]
    )


def rows(folder: Path) -> dict[str, Row]:
    dataset, encoder = glyphs(), TextEncoder("minilm")
    names = list(STEPS)
    return {
        name: Row(set(names[: i + 1]), dataset, encoder, folder / str(i))
        for i, name in enumerate(names)
    }


def section(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    last = list(result["rows"].values())[-1]
    lines = [
        "Our training step, from a plain version to the one that is used, one change added after "
        f"the other: images a second at 64 × 64 pixels in batches of {result['batch']} "
        f"({described(result['machine'])}; seed {result['seed']}; in turns, {result['rounds']} of "
        "them; medians and quartiles). Repeat it with `python benchmarks/ablation.py`. Altogether "
        f"it is {last['times_faster_than_plain']:.1f} times as fast. The stem brings most, and is "
        "the only change that alters the pictures: it makes them a little coarser. A factor within "
        "a few hundredths of 1 is no difference.",
        "",
        "| one after the other | images/s | quartiles | × the row before | × plain |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        low, high = row["images_per_second"]["quartiles"]
        before = row["times_faster_than_before"]
        lines.append(
            f"| {STEPS[name]} | {row['images_per_second']['median']:.1f} | {low:.1f} to {high:.1f} "
            f"| {'' if before is None else f'{before:.2f}'} "
            f"| {row['times_faster_than_plain']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of every row")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        actions = {name: row.step for name, row in rows(Path(folder)).items()}
        seconds = in_turns(actions, arguments.rounds)
    names = list(seconds)
    result = {
        name: {
            "images_per_second": spread(BATCH / s for s in seconds[name]),
            "times_faster_than_before": times_faster(seconds[name], seconds[before])
            if name != before
            else None,
            "times_faster_than_plain": times_faster(seconds[name], seconds["plain"]),
        }
        for name, before in zip(names, [names[0], *names], strict=False)
    }
    head = {"machine": machine(), "seed": 0, "batch": BATCH, "rounds": arguments.rounds}
    write(NAME, {**head, "rows": result})


if __name__ == "__main__":
    main()
