"""Frames: what a walk from noise to picture looks like on its way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from minidiff import samplers


class Frame:
    """One moment of the way from noise to picture. Tensors are (B, C, H, W) on the CPU.

    Attributes:
        index: 0 … N − 1 of the N steps.
        t: timestep reached; 0 in the last frame.
    """

    def __init__(self, steps: tuple[samplers.Step, ...], space: Any) -> None:
        self.index, self.t = steps[0].index, steps[0].t
        self._steps, self._space = steps, space

    @cached_property
    def images(self) -> Tensor:
        """x_t in the units of a picture, still noisy, held within [-1, 1]."""
        return self._pictures(step.x for step in self._steps)

    @cached_property
    def predicted(self) -> Tensor:
        """What the network took for the finished picture."""
        return self._pictures(step.prediction.x0 for step in self._steps)

    def _pictures(self, batches: Iterable[Tensor]) -> Tensor:
        return torch.cat([self._space.to_images(x).float().cpu() for x in batches])


class Frames(Iterator[Frame]):
    """The frames of one walk, drawn as they are asked for; `len()` is how many there are in all."""

    def __init__(self, count: int, walk: Iterator[tuple[samplers.Step, ...]], space: Any) -> None:
        self._count, self._walk, self._space = count, walk, space

    def __len__(self) -> int:
        return self._count

    def __next__(self) -> Frame:
        return Frame(next(self._walk), self._space)
