"""Times in turns, medians and quartiles, memory: what the measurements of speed share."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import psutil
import torch


def in_turns(
    actions: dict[str, Callable[[], object]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of every action, one after the other in every round: a busy machine slows all.

    With one thread these are the processor's seconds, in which other work beside hardly counts.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(-warm_up, rounds):
        for name, action in actions.items():
            started = clock()
            action()
            if turn >= 0:
                seconds[name].append(clock() - started)
    return seconds


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Median and quartiles; two or more values."""
    low, median, high = (
        float(f"{x:.4g}") for x in statistics.quantiles(values, n=4, method="inclusive")
    )
    return {"median": median, "quartiles": [low, high]}


def times_faster(mine: list[float], other: list[float]) -> float:
    """The median of the ratios, turn by turn."""
    return round(statistics.median(b / a for a, b in zip(mine, other, strict=True)), 3)


def peak_gflops(size: int = 2048, runs: int = 7) -> float:
    """Thousand million operations a second of a large matrix product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = in_turns({"product": lambda: torch.mm(a, b)}, runs)["product"]
    return round(2 * size**3 / statistics.median(seconds) / 1e9, 1)


def memory() -> int:
    """Bytes this process holds in memory now."""
    return int(psutil.Process().memory_info().rss)


def peak_memory() -> int:
    """The most it has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def first_use() -> None:
    """A small training step: what torch loads for its first one is no network's memory."""
    layer = torch.nn.Conv2d(8, 8, 3)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.randn(1, 8, 8, 8)).sum().backward()
    optimizer.step()


def alone(function: Callable[..., Any], *arguments: object) -> Any:
    """What a function returns in a process that has loaded what it needs and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["minidiff.training", "torch._dynamo"])
    with ProcessPoolExecutor(1, mp_context=context, initializer=first_use) as pool:
        return pool.submit(function, *arguments).result()


def megabytes(size: int) -> int:
    return round(size / 2**20)
