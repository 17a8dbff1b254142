"""One GPU: training step, sixteen glyphs and memory, by precision, compilation and memory order.

    python benchmarks/gpu.py      # some ten minutes, most of it compilation

The network of the recipe glyph64-gpu does training steps on noise as `Trainer` does (autocast, loss
scaling for fp16, fused AdamW) in the recipe's batches, and the 20 steps with guidance that draw 16
glyphs. The first steps warm up and compile, and are timed apart. fp16 with scaling is what cards
older than Ampere (the T4, say) get, bf16 what later ones get.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import described, machine, write
from measuring import megabytes, spread

import minidiff
from minidiff import samplers
from minidiff.denoisers import Guided, NetworkDenoiser
from minidiff.recipe import TrainingConfig
from minidiff.schedules import make_schedule
from minidiff.unet import UNet

NAME, TOKENS, GLYPHS, STEPS = "gpu", 32, 16, 20
RECIPE = Path(minidiff.__file__).parent / "recipes" / "glyph64-gpu.toml"
PRECISIONS = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
LEAST = 4 * 2**30  # bytes that the largest row needs, on the safe side


def recipe() -> TrainingConfig:
    return TrainingConfig.from_dict(tomllib.loads(RECIPE.read_text(encoding="utf-8")))


def usable() -> torch.device:
    """The GPU, or the end with a line that says what is missing."""
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py measures one CUDA device, and torch finds none here")
    free, total = torch.cuda.mem_get_info()
    if free < LEAST:
        sys.exit(
            f"benchmarks/gpu.py needs {LEAST / 2**30:.0f} GiB of free memory on the GPU, and "
            f"{free / 2**30:.1f} of its {total / 2**30:.1f} are free: end what else uses it"
        )
    return torch.device("cuda")


class Row:
    """A network in one precision, compiled or not, in one order of memory."""

    def __init__(
        self,
        config: TrainingConfig,
        device: torch.device,
        precision: str,
        compiled: bool,
        channels_last: bool,
    ) -> None:
        torch.manual_seed(0)
        self.config, self.device, self.dtype = config, device, PRECISIONS[precision]
        order = torch.channels_last if channels_last else torch.contiguous_format
        self.network = UNet(config.network).to(device, memory_format=order)
        if compiled:
            self.network.compile()
        self.schedule = make_schedule(config.schedule)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4, fused=True)

    def _autocast(self) -> Any:
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def _inputs(self, batch: int) -> tuple[torch.Tensor, NetworkDenoiser]:
        size, dim = self.config.image_size, self.config.network.text_dim or 1
        x = torch.randn(batch, 1, size, size, device=self.device)
        tokens = torch.randn(batch, TOKENS, dim, device=self.device)
        mask = torch.ones(batch, TOKENS, dtype=torch.bool, device=self.device)
        prediction = self.config.prediction_type
        denoiser = NetworkDenoiser(
            self.network, self.schedule, prediction, tokens=tokens, mask=mask
        )
        return x, denoiser

    def train(self) -> None:
        self.network.train()
        x, denoiser = self._inputs(self.config.batch_size)
        t = torch.randint(1, 1000, (len(x),), device=self.device)
        with self._autocast():
            loss = denoiser.loss(x, t, torch.randn_like(x)).mean()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    @torch.inference_mode()
    def sample(self) -> None:
        self.network.eval()
        x, denoiser = self._inputs(GLYPHS)
        grid = self.schedule.timesteps(STEPS)
        generators = [samplers.seeded_generator(0, i) for i in range(GLYPHS)]
        with self._autocast():
            samplers.sample(
                Guided(denoiser, denoiser, 3.0), x, "dpmpp_2m_sde",
                generator=generators, timesteps=grid,
            )  # fmt: skip

    def timed(self, action: Callable[[], None]) -> float:
        started = time.perf_counter()
        action()
        if self.device.type == "cuda":
            torch.cuda.synchronize()  # until then the GPU is still at work
        return time.perf_counter() - started

    def measure(self, rounds: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, action in (("train", self.train), ("sample", self.sample)):
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            first = sum(self.timed(action) for _ in range(3))  # warm-up and compilation
            seconds = spread(self.timed(action) for _ in range(rounds))
            result[name] = {"first_three": round(first, 2), "seconds": seconds}
            if self.device.type == "cuda":
                result[name]["megabytes"] = megabytes(torch.cuda.max_memory_allocated())
        return result


def section(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    lines = [
        f"The network of the recipe glyph64-gpu on one {result['device']}: a training step of "
        f"{result['batch']} and {GLYPHS} glyphs in {STEPS} steps with guidance, by precision, "
        f"compilation and memory order ({described(result['machine'])}; seed 0; medians of "
        f"{result['rounds']}). “To start” is what the first three training steps took, compilation "
        "included. Repeat it with `python benchmarks/gpu.py`.",
        "",
        "| precision | compiled | channels_last | training step, ms | images/s | 16 glyphs, s "
        "| memory, MB | to start, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        train, sample = row.get("train"), row.get("sample")
        if row.get("out_of_memory"):
            figures = ["does not fit into memory", *[""] * 4]
        else:
            step = train["seconds"]["median"]
            figures = [
                f"{1000 * step:.1f}",
                f"{result['batch'] / step:,.0f}",
                f"{sample['seconds']['median']:.2f}",
                str(train["megabytes"]),
                f"{train['first_three']:.0f}",
            ]
        marks = ["yes" if row[name] else "no" for name in ("compiled", "channels_last")]
        lines.append(f"| {' | '.join([row['precision'], *marks, *figures])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="of every measurement")
    arguments = parser.parse_args()
    device, config, rows = usable(), recipe(), []
    names = ("precision", "compiled", "channels_last")
    for compiled, precision, channels_last in itertools.product(
        (False, True), reversed(PRECISIONS), (True, False)
    ):  # what takes minutes to compile comes last: whoever stops it has the others
        row = dict(zip(names, (precision, compiled, channels_last), strict=True))
        try:
            row |= Row(config, device, precision, compiled, channels_last).measure(arguments.rounds)
        except torch.cuda.OutOfMemoryError:
            row["out_of_memory"] = True
        torch.compiler.reset()
        torch.cuda.empty_cache()
        rows.append(row)
        head = {"machine": machine(), "device": torch.cuda.get_device_name()}
        counts = {"batch": config.batch_size, "rounds": arguments.rounds}
        write(NAME, {**head, **counts, "rows": rows})


if __name__ == "__main__":
    main()
