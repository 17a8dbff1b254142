"""A cascade's second stage, unfinished: draws 128 × 128 pixels, given the 64 × 64 of glyph64.

    python tools/release/unfinished/upscale.py runs/upscale --seconds 5000 --compile

Beside x_t lie three channels: the small picture, every pixel four times, and two even planes that
say how far to trust it: the share of noise mixed into it (0 to 0.5; 0 in 40 % of the pictures), and
the t / T from which the first stage has drawn it again (0.1 to 0.7 T, five Euler steps without
guidance; 0 for a real picture; 60 % are redrawn). Such failures of the first stage are what the
second has to mend.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import minidiff
from minidiff.glyphs import GlyphDataset
from minidiff.spaces import Pixels
from minidiff.texts import encode_texts
from minidiff.unet import UNet, UNetConfig

CONFIG: dict[str, Any] = {
    "stem": 2, "channels": (32, 64, 96, 96), "attention": (False, False, False, True),
    "text_dim": None, "condition_channels": 3,
}  # fmt: skip
EULER, LAST = 5, 1000


def half(device: torch.device) -> Any:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def mixed(x: Tensor, share: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The straight path: (1 − share) x + share · noise, and the noise."""
    eps = torch.randn(x.shape, generator=generator, device=x.device)
    s = share[:, None, None, None]
    return (1 - s) * x + s * eps, eps


class Data:
    """Large and small pictures, and the small ones as the first stage draws them again.

    Attributes:
        again: (variants, N, 1, 64, 64) uint8; share: (variants, N), from which t / T.
    """

    def __init__(self, split: str, first: Any, variants: int) -> None:
        device = first.device
        small, large = (GlyphDataset(size, split) for size in (64, 128))
        self.first, self.small, self.large = first, small.images.to(device), large.images.to(device)
        texts = [several[0] for several in small.prompts]
        table = encode_texts(texts, first.text_encoder).to(device)
        rows = table.rows(texts).to(device)
        draw = torch.Generator(device).manual_seed(7)
        self.share = 0.1 + 0.6 * torch.rand(variants, len(small), generator=draw, device=device)
        self.again = torch.empty(variants, *self.small.shape, dtype=torch.uint8, device=device)
        for v in range(variants):
            for part in torch.arange(len(small), device=device).split(1024):
                read = table.batch(rows[part], length=32)
                text = {"tokens": read.tokens, "mask": read.mask}
                self.again[v, part] = self.redraw(part, self.share[v, part], text, draw)

    @torch.no_grad()
    def redraw(
        self, part: Tensor, share: Tensor, text: dict[str, Tensor], draw: torch.Generator
    ) -> Tensor:
        space = self.first.space
        x, _ = mixed(space.to_data(self.small[part]), share, draw)
        for k in range(EULER, 0, -1):
            t = (share * k / EULER * LAST).round().long().clamp(1, LAST)
            with half(x.device):
                velocity = self.first.network(x, t, **text).float()
            x = x - (share / EULER)[:, None, None, None] * velocity
        return ((space.to_images(x) + 1) * 127.5).round().to(torch.uint8)

    def beside(
        self, index: Tensor, redrawn: Tensor, variant: Tensor, noise: Tensor, draw: torch.Generator
    ) -> Tensor:
        """(B, 3, 128, 128): what the network is told of pictures `index` (B,)."""
        pick = redrawn[:, None, None, None]
        picture = torch.where(pick, self.again[variant, index], self.small[index])
        x, _ = mixed(self.first.space.to_data(picture), noise, draw)
        told = torch.where(redrawn, self.share[variant, index], 0.0)
        planes = torch.stack([noise, told], 1)[:, :, None, None].expand(-1, -1, 128, 128)
        return torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), planes], 1)


def batch(
    data: Data, size: int, draw: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, t, and what lies beside x_t: one step's."""

    def uniform() -> Tensor:
        return torch.rand(size, generator=draw, device=device)

    index = torch.randint(len(data.large), (size,), generator=draw, device=device)
    normal = torch.randn(size, generator=draw, device=device)
    t = (torch.sigmoid(1.6 * normal) * LAST).ceil().clamp(1, LAST)
    variant = torch.randint(len(data.again), (size,), generator=draw, device=device)
    noise = torch.where(uniform() < 0.4, 0.0, 0.5 * uniform())
    return index, t, data.beside(index, uniform() < 0.6, variant, noise, draw)


@torch.no_grad()
def held_out(network: UNet, data: Data, space: Pixels) -> dict[str, float]:
    """The loss on 256 held-out glyphs, the small picture real or redrawn, by timestep."""
    result, device = {}, data.large.device
    for name, again in (("real", False), ("redrawn", True)):
        for t in (62, 312, 562, 812):
            draw, losses = torch.Generator(device).manual_seed(3), []
            for index in torch.arange(256, device=device).split(64):
                full = torch.ones(len(index), device=device)
                x0 = space.to_data(data.large[index])
                x, eps = mixed(x0, full * t / LAST, draw)
                beside = data.beside(index, full.bool() & again, index * 0, full * 0, draw)
                with half(device):
                    said = network(x, (full * t).long(), picture=beside)
                losses.append((said.float() - (eps - x0)).square().mean((1, 2, 3)))
            result[f"{name} {t}"] = round(torch.cat(losses).mean().item(), 5)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    first = minidiff.load("glyph64")
    device, train, test = first.device, Data("train", first, 6), Data("test", first, 1)
    space = Pixels.of(train.large.cpu())
    torch.manual_seed(0)
    network, average = (UNet(UNetConfig(**CONFIG)).to(device) for _ in range(2))
    average.load_state_dict(network.requires_grad_(True).state_dict())
    if options.compile:
        network.compile()
    optimizer = torch.optim.AdamW(network.parameters(), options.rate, (0.9, 0.99), fused=True)
    draw, step, started = torch.Generator(device).manual_seed(1), 0, time.monotonic()
    while (left := 1 - (time.monotonic() - started) / options.seconds) > 0:
        for group in optimizer.param_groups:
            group["lr"] = options.rate * min(1, (step + 1) / 300, left / 0.6)
        index, t, beside = batch(train, options.batch, draw, device)
        x0 = space.to_data(train.large[index])
        x, eps = mixed(x0, t / LAST, draw)
        with half(device):
            said = network(x, t.long(), picture=beside)
        optimizer.zero_grad()
        (said.float() - (eps - x0)).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        decay = min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_([*average.parameters()], [*network.parameters()], 1 - decay)
    weights = {name: x.half().contiguous() for name, x in average.state_dict().items()}
    save_file(weights, options.folder / "upscale.safetensors")
    figures = {"steps": step, "images": step * options.batch, **held_out(average, test, space)}
    shape = {"unet": CONFIG, "mean": space.mean, "std": space.std}
    (options.folder / "upscale.json").write_text(json.dumps({**shape, **figures}), "utf-8")
    print(figures)


if __name__ == "__main__":
    main()
