"""Our U-Net against diffusers' UNet2DConditionModel: training step and forward, images a second.

    python benchmarks/unet_speed.py

Both have the same topology (three levels, one block a level and one more on the way up, attention
with cross-attention to 16 tokens of 384 numbers at the two lower levels and in the middle, heads
of 32), work on 32 × 32 pixels in batches of 32 and take the same floating-point operations an
image, to 2 %: diffusers' has wider feed-forward layers and larger convolutions between levels, so
ours has more channels. Two sizes are compared, a small one and one of 2.6 times the work. They run
in turns in one process, so that a busy machine slows both; the result is the median of the ratios.
The stem (ours, folding 2 × 2 or 4 × 4 pixels) is timed beside, and so is ours with diffusers' own
channels, where it does the same job with fewer operations. The peak is that of a matrix product.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import machine, write
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from minidiff.unet import UNet, UNetConfig

TOKENS, TEXT_DIM, SIZE = 16, 384, 32


def theirs(
    channels: tuple[int, ...], memory_format: torch.memory_format = torch.contiguous_format
) -> Callable[..., Tensor]:
    from diffusers import UNet2DConditionModel

    network = UNet2DConditionModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_DIM,
        # The number of heads, in spite of its name.
        attention_head_dim=tuple(c // 32 for c in channels),
    )
    network.to(memory_format=memory_format)
    return Theirs(network)


class Theirs(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.network(x, t, tokens, encoder_attention_mask=mask).sample


def ours(channels: tuple[int, ...], stem: int = 1) -> UNet:
    return UNet(UNetConfig(channels=channels, stem=stem, text_dim=TEXT_DIM))


class Candidate:
    def __init__(self, network: Any, batch: int) -> None:
        self.network, self.batch = network, batch
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
        self.inputs = (
            torch.randn(batch, 1, SIZE, SIZE),
            torch.randint(1, 1000, (batch,)),
            torch.randn(batch, TOKENS, TEXT_DIM),
            torch.ones(batch, TOKENS, dtype=torch.bool),
        )
        self.seconds: dict[str, list[float]] = {"train": [], "forward": []}

    def train(self) -> None:
        self.network(*self.inputs).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.inference_mode()
    def forward(self) -> None:
        self.network(*self.inputs)

    def time(self, what: str) -> None:
        started = time.perf_counter()
        getattr(self, what)()
        self.seconds[what].append(time.perf_counter() - started)

    def summary(self) -> dict[str, Any]:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.network(*(x[:1] for x in self.inputs))
        rate = {
            f"{what}_images_per_second": round(self.batch / statistics.median(seconds), 1)
            for what, seconds in self.seconds.items()
        }
        parameters = sum(p.numel() for p in self.network.parameters())
        flops = counter.get_total_flops()
        gflops = round(rate["forward_images_per_second"] * flops / 1e9, 1)
        return {
            "parameters": parameters,
            "flops_per_image": flops,
            **rate,
            "forward_gflops_per_second": gflops,
        }


def peak(size: int = 2048, runs: int = 7) -> float:
    """Floating-point operations a second of a large matrix product."""
    a, b, seconds = torch.randn(size, size), torch.randn(size, size), []
    for _ in range(runs):
        started = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / statistics.median(seconds)


def ratio(candidates: dict[str, Candidate], name: str, what: str) -> float:
    """How many times faster than diffusers' network of the same size, turn by turn."""
    other = "diffusers, large" if name.endswith("large") else "diffusers"
    pairs = zip(candidates[other].seconds[what], candidates[name].seconds[what], strict=True)
    return round(statistics.median(a / b for a, b in pairs), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="turns of every network")
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    networks = {
        "diffusers": theirs((32, 64, 128)),
        "diffusers, channels_last": theirs((32, 64, 128), torch.channels_last),
        "ours": ours((32, 96, 128)),
        "ours, same channels": ours((32, 64, 128)),
        "ours, stem 2": ours((32, 96, 128), stem=2),
        "ours, stem 4": ours((32, 96, 128), stem=4),
        "diffusers, large": theirs((64, 128, 128)),
        "ours, large": ours((64, 160, 160)),
    }
    candidates = {name: Candidate(network, arguments.batch) for name, network in networks.items()}
    for turn in range(-2, arguments.rounds):  # two turns to warm up
        for candidate in candidates.values():
            for what in ("train", "forward"):
                candidate.time(what)
                if turn < 0:
                    candidate.seconds[what].clear()
    result = {name: candidate.summary() for name, candidate in candidates.items()}
    ratios = {
        name: {what: ratio(candidates, name, what) for what in ("train", "forward")}
        for name in candidates
        if name.startswith("ours")
    }
    write(
        "unet_speed",
        {
            "machine": machine("diffusers"),
            "seed": 0,
            "batch": arguments.batch,
            "rounds": arguments.rounds,
            "peak_gflops": round(peak() / 1e9, 1),
            "networks": result,
            "times_faster_than_diffusers": ratios,
        },
    )


if __name__ == "__main__":
    main()
