"""The sampling loop's own cost, and how much of the processor the shipped network makes use of.

    python benchmarks/sampling_loop.py

A real run of 16 glyphs in turns with one whose network does nothing; then forward passes of the
shipped network for 32 glyphs, whose operations a second are compared with a matrix product's.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
from machine import described, machine, write
from measuring import in_turns, peak_gflops, spread
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import minidiff
from minidiff.unet import UNet

NAME, BATCH, TOKENS = "sampling_loop", 32, 16
SETTINGS: dict[str, Any] = {
    "num_images_per_prompt": 16,
    "num_inference_steps": 20,
    "guidance_scale": 3.0,
    "sampler": "dpmpp_2m_sde",
    "seed": 0,
}


class Nothing(nn.Module):
    """Answers with a tensor that is already there."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config, self.answer = config, torch.zeros(16, 1, 64, 64)

    def forward(self, x: Tensor, t: Tensor, tokens: Any = None, mask: Any = None) -> Tensor:
        return self.answer


def loop(rounds: int) -> dict[str, Any]:
    real, empty = minidiff.load(), minidiff.load()
    empty.network = Nothing(real.network.config)
    actions = {
        name: lambda pipeline=pipeline: pipeline("gold", **SETTINGS)
        for name, pipeline in (("real", real), ("alone", empty))
    }
    seconds = in_turns(actions, rounds, warm_up=2)
    pairs = zip(seconds["alone"], seconds["real"], strict=True)
    return {
        "seconds_real": spread(seconds["real"]),
        "seconds_loop_alone": spread(seconds["alone"]),
        "share_of_the_loop": round(statistics.median(a / b for a, b in pairs), 4),
    }


@torch.inference_mode()
def forward(network: UNet, rounds: int) -> dict[str, Any]:
    """Operations a second of the network, and of a matrix product."""
    torch.manual_seed(0)
    size, dim = 64, network.config.text_dim or 1
    inputs = (
        torch.randn(BATCH, 1, size, size),
        torch.randint(1, 1000, (BATCH,)),
        torch.randn(BATCH, TOKENS, dim),
    )
    # As plain products: the counter does not know the fused attention of a CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(*(x[:1] for x in inputs))
    operations = counter.get_total_flops()
    seconds = in_turns({"forward": lambda: network(*inputs)}, rounds, warm_up=2)["forward"]
    rate, peak = spread(BATCH / s for s in seconds), peak_gflops()
    gflops = round(rate["median"] * operations / 1e9, 1)
    return {
        "batch": BATCH,
        "operations_per_image": operations,
        "images_per_second": rate,
        "gflops": gflops,
        "peak_gflops": peak,
        "share_of_peak": round(gflops / peak, 3),
    }


def section(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    settings, forward = result["settings"], result["forward"]
    rate = forward["images_per_second"]
    lines = [
        f"The shipped model draws {settings['num_images_per_prompt']} glyphs in "
        f"{settings['num_inference_steps']} steps with guidance, in turns with a pipeline whose "
        f"network does nothing ({described(result['machine'])}; seed {settings['seed']}; medians, "
        "with quartiles). Repeat it with `python benchmarks/sampling_loop.py`. All but the network "
        f"takes {result['share_of_the_loop']:.1%} of the time (the aim was 3 % at most). The "
        f"network reaches {forward['share_of_peak']:.0%} of a matrix product's "
        f"{forward['peak_gflops']:.0f} GFLOP/s (the aim was 55 %).",
        "",
        "| what | median | quartiles |",
        "|---|---|---|",
        _row("whole run, s", result["seconds_real"], 2),
        _row("without the network, s", result["seconds_loop_alone"], 3),
        _row(f"forward in batches of {forward['batch']}, images/s", rate, 0),
    ]
    return "\n".join(lines) + "\n"


def _row(what: str, value: dict[str, Any], digits: int) -> str:
    low, high = value["quartiles"]
    return f"| {what} | {value['median']:.{digits}f} | {low:.{digits}f} to {high:.{digits}f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of every measurement")
    rounds = parser.parse_args().rounds
    network = minidiff.load().network
    result = {**loop(rounds), "forward": forward(network, 4 * rounds)}
    write(NAME, {"machine": machine(), "settings": SETTINGS, "function_evaluations": 40, **result})


if __name__ == "__main__":
    main()
