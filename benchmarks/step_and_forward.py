"""Our U-Net against those of other libraries: training step and forward, images/s and memory.

    python benchmarks/step_and_forward.py      # three minutes on one core

At 32 × 32 and at 64 × 64 pixels: with text against diffusers' UNet2DConditionModel, and without
text (ours without it, too) against the Unets of denoising-diffusion-pytorch and smalldiffusion. All
have three levels, attention at the lower two and in the middle, and in the rows "same operations"
as many floating-point operations an image, to 4 per cent, with attention counted. For that ours has
the widths, in multiples of 32, that come nearest to the peer's count; mostly they are larger, since
the peers spend more between levels, in feed-forward layers or at the top. What differs beyond that
stays as each library has it: denoising-diffusion-pytorch has two blocks a level on the way down and
linear attention at the top, smalldiffusion one head. What heads cost, with no operation more, the
row "ours, one head" shows. Peers get what speeds them up: the fused AdamW, fused attention where it
is an option, no dropout.

Beside them stand ours with diffusers' own channels, which does the same job with fewer operations,
and ours with the stem (2 × 2 or 4 × 4 pixels folded into channels). The networks run in turns in
one process; ratios are the medians of those turn by turn. Memory is what a process of its own adds
to its resident memory at its peak, network and optimizer included.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from machine import described, machine, need, write
from measuring import (
    alone,
    in_turns,
    megabytes,
    memory,
    peak_gflops,
    peak_memory,
    spread,
    times_faster,
)
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minidiff.unet import Attention, UNet, UNetConfig

NAME = "step_and_forward"
TOKENS, TEXT_DIM = 16, 384
PEERS = ("diffusers", "denoising-diffusion-pytorch", "smalldiffusion")
BATCH = {32: 8, 64: 2}  # about the same work a step


def ours(channels: tuple[int, ...], stem: int = 1, text: bool = True) -> UNet:
    return UNet(UNetConfig(channels=channels, stem=stem, text_dim=TEXT_DIM if text else None))


def one_head(channels: tuple[int, ...]) -> UNet:
    """Ours without text: as wide, as many operations, but one softmax a pixel, not one a head."""
    network = ours(channels, text=False)
    for module in network.modules():
        if isinstance(module, Attention):
            module.heads = 1
    return network


class Called(nn.Module):
    """A peer's network, called as ours is."""

    def __init__(self, network: nn.Module, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network, self.call = network, call

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.call(self.network, *inputs)


def diffusers(size: int, order: torch.memory_format = torch.contiguous_format) -> nn.Module:
    from diffusers import UNet2DConditionModel

    channels = (32, 64, 128)
    network = UNet2DConditionModel(
        sample_size=size,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_DIM,
        # The number of heads, in spite of its name.
        attention_head_dim=tuple(c // 32 for c in channels),
    ).to(memory_format=order)

    def call(network: Any, x: Tensor, t: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        return network(x, t, tokens, encoder_attention_mask=mask).sample

    return Called(network, call)


def imported(name: str) -> Any:
    """A library that loads torchvision, which its networks do not use.

    On PyPI torchvision fits the CUDA build of torch only; where it is missing, an empty module
    stands in for it during the import, and goes again, for others ask whether it is there.
    """
    missing = importlib.util.find_spec("torchvision") is None
    if missing:
        import accelerate  # noqa: F401  asks, too

        stub = types.ModuleType("torchvision")
        stub.transforms, stub.utils = mock.MagicMock(), mock.MagicMock()
        sys.modules["torchvision"] = stub
    try:
        return importlib.import_module(name)
    finally:
        if missing:
            del sys.modules["torchvision"]


def denoising_diffusion_pytorch() -> nn.Module:
    library = imported("denoising_diffusion_pytorch")
    network = library.Unet(
        dim=32, dim_mults=(1, 3, 3), channels=1, full_attn=(False, True, True), flash_attn=True
    )
    return Called(network, lambda network, x, t: network(x, t))


def smalldiffusion(size: int) -> nn.Module:
    network = imported("smalldiffusion").Unet(
        size, 1, 1, ch=32, ch_mult=(1, 3, 4), num_res_blocks=1,
        attn_resolutions=(size // 2, size // 4), dropout=0.0,
    )  # fmt: skip
    return Called(network, lambda network, x, t: network(x, t.float()))


@dataclass
class Case:
    """A peer's network, under its library's name, and ours beside it."""

    size: int
    peer: str
    networks: dict[str, Callable[[], nn.Module]]

    @property
    def name(self) -> str:
        return f"{self.peer}, {self.size} pixels"

    @property
    def text(self) -> bool:
        return self.peer == "diffusers"

    def inputs(self) -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        batch = BATCH[self.size]
        picture = torch.randn(batch, 1, self.size, self.size), torch.randint(1, 1000, (batch,))
        if not self.text:
            return picture
        tokens = torch.randn(batch, TOKENS, TEXT_DIM)
        return *picture, tokens, torch.ones(batch, TOKENS, dtype=torch.bool)


def cases() -> list[Case]:
    same = {  # widths of the same operations
        ("diffusers", 32): (32, 96, 128),
        ("diffusers", 64): (64, 64, 96),
        ("denoising-diffusion-pytorch", 32): (32, 64, 160),
        ("denoising-diffusion-pytorch", 64): (32, 64, 128),
        ("smalldiffusion", 32): (32, 96, 160),
        ("smalldiffusion", 64): (32, 96, 160),
    }
    result = []
    for (peer, size), channels in same.items():
        text = peer == "diffusers"
        theirs = {
            "diffusers": partial(diffusers, size),
            "denoising-diffusion-pytorch": denoising_diffusion_pytorch,
            "smalldiffusion": partial(smalldiffusion, size),
        }
        networks = {peer: theirs[peer], "ours, same operations": partial(ours, channels, 1, text)}
        if text:
            networks["diffusers, channels_last"] = partial(diffusers, size, torch.channels_last)
            networks["ours, same channels"] = partial(ours, (32, 64, 128))
            networks["ours, stem 2"] = partial(ours, channels, 2)
        if peer == "smalldiffusion":
            networks["ours, one head"] = partial(one_head, channels)
        networks["ours, stem 4"] = partial(ours, channels, 4, text)
        result.append(Case(size, peer, networks))
    return result


class Candidate:
    def __init__(self, case: Case, name: str) -> None:
        self.inputs = case.inputs()
        torch.manual_seed(0)
        self.network = case.networks[name]()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4, fused=True)

    def train(self) -> None:
        self.network(*self.inputs).square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.inference_mode()
    def forward(self) -> None:
        self.network(*self.inputs)

    def operations(self) -> int:
        """Floating-point operations of a forward pass for one image."""
        # As plain products: the counter does not know the fused attention of a CPU.
        with (
            FlopCounterMode(display=False) as counter,
            sdpa_kernel(SDPBackend.MATH),
            torch.no_grad(),
        ):
            self.network(*(x[:1] for x in self.inputs))
        return int(counter.get_total_flops())


def memory_of(case_name: str, name: str) -> dict[str, int]:
    """The megabytes that forward and training step add to a process of their own."""
    case = next(case for case in cases() if case.name == case_name)
    if name.partition(",")[0] in PEERS:  # to import its library is not what is measured
        case.networks[name]()
        gc.collect()
    before = memory()
    candidate = Candidate(case, name)
    peaks = {}
    for what in ("forward", "train"):  # the smaller first: the peak never falls
        getattr(candidate, what)()
        getattr(candidate, what)()
        peaks[what] = megabytes(peak_memory() - before)
    return peaks


def measure(case: Case, rounds: int) -> dict[str, Any]:
    candidates = {name: Candidate(case, name) for name in case.networks}
    operations = {name: candidate.operations() for name, candidate in candidates.items()}
    trains = in_turns({n: c.train for n, c in candidates.items()}, rounds)
    forwards = in_turns({n: c.forward for n, c in candidates.items()}, rounds, warm_up=2)
    networks = {}
    for name, candidate in candidates.items():
        batch = len(candidate.inputs[0])
        forward = spread(batch / s for s in forwards[name])
        networks[name] = {
            "parameters": sum(p.numel() for p in candidate.network.parameters()),
            "operations_per_image": operations[name],
            "train": spread(batch / s for s in trains[name]),
            "forward": forward,
            "forward_gflops": round(forward["median"] * operations[name] / 1e9, 1),
            "megabytes": alone(memory_of, case.name, name),
            "times_faster": {
                "train": times_faster(trains[name], trains[case.peer]),
                "forward": times_faster(forwards[name], forwards[case.peer]),
            },
        }
    return {"batch": BATCH[case.size], "text": case.text, "networks": networks}


def section(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    cases = result["cases"]
    first = cases["diffusers, 32 pixels"]["networks"]
    same, stem = (first[f"ours, {name}"] for name in ("same operations", "stem 4"))
    share = same["forward_gflops"] / result["peak_gflops"]
    equal = [
        f"{case['networks']['ours, same operations']['times_faster']['train']:.2f} ({name})"
        for name, case in cases.items()
    ]
    one_head = [
        f"{case['networks']['ours, one head']['times_faster']['train']:.2f} ({name})"
        for name, case in cases.items()
        if "ours, one head" in case["networks"]
    ]
    lines = [
        f"Training step and forward of our U-Net beside those of {', '.join(PEERS)}: three levels, "
        "attention at the lower two, and in the rows “same operations” as many floating-point "
        "operations an image as the peer, to 4 per cent. They ran in turns in one process "
        f"({described(result['machine'])}; seed {result['seed']}; {result['rounds']} turns; "
        "medians ± half of what lies between the quartiles; GFLOP of one image; MB of memory for "
        "training / forward). Repeat it with "
        "`python benchmarks/step_and_forward.py` in the environment that "
        "`benchmarks/requirements.txt` describes.",
        "",
        f"At the same operations our training step is so many times as fast: {', '.join(equal)}; "
        "below 1 the other is faster. With one head, as smalldiffusion's network has, and not one "
        f"for every 32 channels, ours would be {', '.join(one_head)}. "
        f"Against diffusers at 32 pixels ours reaches {share:.0%}, diffusers' network "
        f"{first['diffusers']['forward_gflops'] / result['peak_gflops']:.0%} of what a plain "
        f"matrix product reaches here ({result['peak_gflops']:.0f} GFLOP/s), so there is not "
        "much left to win by that road. What pays is to need fewer operations: a stem of 4 trains "
        f"{stem['times_faster']['train']:.1f} times as fast as diffusers' network, for coarser "
        "pictures.",
        "",
    ]
    for name, case in cases.items():
        text = "with" if case["text"] else "without"
        lines += [
            f"### {name}, {text} text, batches of {case['batch']}",
            "",
            "| network | GFLOP | parameters | training, images/s | × | forward, images/s "
            "| × | MB |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for network, row in case["networks"].items():
            cells = [
                network,
                f"{row['operations_per_image'] / 1e9:.2f}",
                f"{row['parameters'] / 1e6:.1f} M",
            ]
            for what in ("train", "forward"):
                cells += [_rate(row[what]), f"{row['times_faster'][what]:.2f}"]
            cells.append(f"{row['megabytes']['train']} / {row['megabytes']['forward']}")
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _rate(rate: dict[str, Any]) -> str:
    low, high = rate["quartiles"]
    digits = 2 if rate["median"] < 10 else 1
    return f"{rate['median']:,.{digits}f} ± {(high - low) / 2:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of every network")
    arguments = parser.parse_args()
    need(*PEERS)
    result = {"machine": machine(*PEERS), "seed": 0, "rounds": arguments.rounds, "cases": {}}
    for case in cases():
        result["cases"][case.name] = measure(case, arguments.rounds)
    write(NAME, {**result, "peak_gflops": peak_gflops()})


if __name__ == "__main__":
    main()
