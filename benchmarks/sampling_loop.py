"""The sampling loop's own cost: a real run of 16 glyphs against one whose network does nothing.

python benchmarks/sampling_loop.py
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from machine import machine, write
from torch import Tensor, nn

import minidiff

SETTINGS: dict[str, Any] = {"num_images_per_prompt": 16, "num_inference_steps": 20}


class Nothing(nn.Module):
    """Answers with a tensor that is already there."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config, self.answer = config, torch.zeros(16, 1, 64, 64)

    def forward(self, x: Tensor, t: Tensor, tokens: Any = None, mask: Any = None) -> Tensor:
        return self.answer


def seconds(pipeline: Any) -> float:
    started = time.perf_counter()
    with torch.inference_mode():
        pipeline("gold", **SETTINGS)
    return time.perf_counter() - started


def main() -> None:
    real = minidiff.load()
    empty = minidiff.load()
    empty.network = Nothing(real.network.config)  # type: ignore[assignment]
    pairs = [(seconds(real), seconds(empty)) for _ in range(12)][2:]  # two to warm up
    write(
        "sampling_loop",
        {
            "machine": machine(),
            "settings": {**SETTINGS, "guidance_scale": 3.0, "sampler": "dpmpp_2m", "seed": 0},
            "function_evaluations": 40,
            "seconds_real": round(statistics.median(a for a, _ in pairs), 4),
            "seconds_loop_alone": round(statistics.median(b for _, b in pairs), 4),
            "share_of_the_loop": round(statistics.median(b / a for a, b in pairs), 4),
        },
    )


if __name__ == "__main__":
    main()
