"""Students: what a network that draws in few evaluations was made for, and what it refuses.

How it learns that from its teacher is in `minidiff.distillation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minidiff.schedules import is_finite

STEPS, GUIDANCE = 4, 3.0  #: of its walk, unless others are asked for


@dataclass(frozen=True)
class Student:
    """What a student was made for; it travels in its `minidiff.model.ModelConfig`.

    Attributes:
        teacher: the SHA-256 of the teacher's weights.
        evaluations: of how many steps its walks can be: 1, 2, 4, … to the finest.
        guidance: the lowest and the highest guidance scale that it has heard of.

    Raises:
        ValueError: for other numbers of steps, or scales that do not rise.
    """

    teacher: str
    evaluations: tuple[int, ...] = (1, 2, 4, 8)
    guidance: tuple[float, float] = (1.0, 5.0)

    def __post_init__(self) -> None:
        for name in ("evaluations", "guidance"):  # a list, in JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.evaluations != tuple(2**i for i in range(len(self.evaluations))):
            raise ValueError(f"evaluations must be 1, 2, 4, 8, …, got {self.evaluations}")
        fit = len(self.guidance) == 2 and all(map(is_finite, self.guidance))
        if not fit or not 1 <= self.guidance[0] < self.guidance[1]:
            raise ValueError(f"guidance must be two rising scales from 1 on, got {self.guidance}")

    def numbers(self, scale: Tensor, steps: Tensor) -> Tensor:
        """(B, 2) what the network is told: the scale's place in its range, and 1 / steps."""
        low, high = self.guidance
        return torch.stack([(scale - low) / (high - low), 1 / steps], dim=1)

    def told(self, scale: float = GUIDANCE, steps: int = STEPS) -> dict[str, Tensor]:
        """The argument of its network for a walk."""
        return {"numbers": self.numbers(torch.tensor([float(scale)]), torch.tensor([1.0 * steps]))}

    def check(
        self, steps: int, scale: float, sampler: str, negative_prompt: str, timesteps: Any
    ) -> None:
        """See that it has learnt what it is asked for; see `minidiff.pipeline.Pipeline.steps`.

        Raises:
            ValueError: naming what it has not.
        """
        if not is_finite(scale):
            raise ValueError(f"guidance_scale must be a number, got {scale!r}")
        walks, (low, high) = ", ".join(map(str, self.evaluations)), self.guidance
        if timesteps is not None or steps not in self.evaluations:
            got = f"num_inference_steps = {steps}" if timesteps is None else "timesteps"
            raise ValueError(
                f"this model has learnt walks of {walks} steps, each of one evaluation, got {got}: "
                "give one of these, or draw with its teacher"
            )
        if sampler != "ddim":
            raise ValueError(
                f"this model draws with the sampler 'ddim', got {sampler!r}: its answer already "
                "leads to the end of a step, and other samplers would bend it once more"
            )
        if not low <= scale <= high:
            raise ValueError(
                f"this model has learnt a guidance_scale from {low:g} to {high:g}, got {scale:g}"
            )
        if negative_prompt.strip():
            raise ValueError(
                f"negative_prompt {negative_prompt!r} does not go with this model, whose guidance "
                "is built in: leave it out, or draw with its teacher"
            )
