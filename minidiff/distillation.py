"""Distillation: a student that draws in 1, 2, 4 or 8 evaluations what its teacher draws in forty.

The teacher is asked twice at every step, with the text and without, and takes small steps, because
its answer is the direction of the path at x_t only, and the path bends. The student is told two
numbers more than the teacher, each embedded as the timestep is:

- the *guidance scale*: it answers at once what the teacher's two answers make (Meng et al. 2023);
- the *number of steps* of the walk: it answers with the straight line from x_t to where the path
  will be at the next point of that walk, x_s. A jump along this line, `jump`, is a step of `ddim`.

Where the path leads, the teacher shows for the finest walk only, in `SMALL` small steps. A jump of
a coarser walk shall end where two jumps of the next finer one end, made by the average of the
student itself: progressive distillation (Salimans & Ho 2022) with all its rounds at once, as in
shortcut models (Frans et al. 2024).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from minidiff.denoisers import NetworkDenoiser, Prediction, Range, training_target
from minidiff.schedules import Schedule
from minidiff.student import Student

SMALL = 4  #: steps of the teacher for one jump of the finest walk


def jump(schedule: Schedule, now: Prediction, s: int | Tensor) -> Tensor:
    """x_s on the straight line that goes through x_t, x_0 and eps of a prediction.

    Args:
        s: one timestep or (B,) of them, below those of the prediction.
    """
    alpha, sigma = schedule.coefficients(s, like=now.x_t)
    return alpha * now.x0 + sigma * now.eps


def line(
    schedule: Schedule, x_t: Tensor, x_s: Tensor, t: Tensor, s: Tensor
) -> tuple[Tensor, Tensor]:
    """The (x_0, eps) from which `jump` leads from x_t to x_s: two equations in two unknowns."""
    alpha_t, sigma_t = schedule.coefficients(t, like=x_t)
    alpha_s, sigma_s = schedule.coefficients(s, like=x_t)
    determinant = alpha_t * sigma_s - sigma_t * alpha_s
    x0 = (sigma_s * x_t - sigma_t * x_s) / determinant
    return x0, (alpha_t * x_s - alpha_s * x_t) / determinant


class Distillation:
    """The student's loss, in the place of `NetworkDenoiser.loss`.

    Args:
        student: the walks and scales to learn.
        teacher: the teacher's network.
        averaged: the average of the student's weights, whose jumps the longer ones learn from.
        schedule, prediction_type: of both.
        clip: (low, high) range of the data, to which the teacher's guesses are clipped.

    Raises:
        ValueError: if the schedule has not enough timesteps for the teacher's small steps.
    """

    def __init__(
        self,
        student: Student,
        teacher: nn.Module,
        averaged: nn.Module,
        schedule: Schedule,
        prediction_type: str,
        clip: Range,
    ) -> None:
        self.student, self.teacher, self.averaged = student, teacher, averaged
        self.schedule, self.prediction_type, self.clip = schedule, prediction_type, clip
        # Every walk's timesteps are among the teacher's.
        self.finest, last = student.evaluations[-1] * SMALL, schedule.num_train_timesteps
        grid = schedule.timesteps(min(self.finest, last))
        walks = ((grid[:: self.finest // n], schedule.timesteps(n)) for n in student.evaluations)
        if len(grid) <= self.finest or any(ours != theirs for ours, theirs in walks):
            raise ValueError(
                f"the schedule has {last} timesteps, which are too few for a teacher's walk of "
                f"{self.finest} steps: give fewer student_steps"
            )
        self.grid = torch.tensor(grid)

    def loss(self, network: Any, x0: Tensor, eps: Tensor, draw: Tensor, **condition: Any) -> Tensor:
        """(B,) mean squared error of the student's jumps.

        Args:
            network: the student.
            x0, eps: (B, C, H, W) data and noise.
            draw: (2, B) uniform numbers from 0 to 1, which choose a point of the walk and a scale.
            condition: tokens and mask.
        """
        low, high = self.student.guidance
        scale = low + (high - low) * draw[1]
        # As many pictures learn from the teacher as learn each of the coarser walks.
        kinds = torch.tensor(self.student.evaluations, device=x0.device).flip(0)
        first = -(-len(x0) // len(kinds))  # so many: they stand in front
        steps = kinds.repeat_interleave(first)[: len(x0)]
        stride = self.finest // steps
        place = (draw[0] * steps).long() * stride
        grid = self.grid.to(x0.device)
        t, s = grid[place], grid[place + stride]
        with torch.no_grad():
            x_t = self.start(x0, eps, t)
            x_s = self.ends(x_t, place, stride, scale, first, condition)
            x0, eps = line(self.schedule, x_t, x_s, t, s)
            target = training_target(self.prediction_type, self.schedule, x0, eps, t)
        answer = self._told(network, scale, steps, condition).output(x_t, t)
        return (answer.float() - target).square().flatten(1).mean(1)

    def start(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """(B, C, H, W) where the jumps begin: at noised pictures."""
        return self.schedule.add_noise(x0, eps, t)

    def ends(
        self,
        x_t: Tensor,
        place: Tensor,
        stride: Tensor,
        scale: Tensor,
        first: int,
        condition: dict[str, Any],
    ) -> Tensor:
        """(B, C, H, W) where the jumps from x_t shall end.

        Args:
            place, stride: (B,) where in the grid the jumps begin, and how far they go.
            scale: (B,) of the guidance.
            first: so many learn from the teacher, the others from the average of the student.
            condition: tokens and mask.
        """
        one, two = slice(first), slice(first, None)
        taught = self._taught(x_t[one], place[one], scale[one], _rows(condition, one))
        halves = self._two_jumps(
            x_t[two], place[two], stride[two], scale[two], _rows(condition, two)
        )
        return torch.cat([taught, halves])

    def _taught(self, x: Tensor, place: Tensor, scale: Tensor, condition: dict[str, Any]) -> Tensor:
        """Where the teacher, guided, walks in `SMALL` steps from places of the grid."""
        told = NetworkDenoiser(self.teacher, self.schedule, self.prediction_type, **condition)
        scale, grid = scale.view(-1, 1, 1, 1), self.grid.to(x.device)
        for k in range(SMALL):
            t = grid[place + k]
            x0, eps = told.estimate(x, t)
            x0_without, eps_without = told.given().estimate(x, t)
            x0, eps = torch.lerp(x0_without, x0, scale), torch.lerp(eps_without, eps, scale)
            now = Prediction(x, t, x0, eps, *self.schedule.coefficients(t, like=x))
            now = now if self.clip is None else now.clipped(*self.clip)
            x = jump(self.schedule, now, grid[place + k + 1]).float()
        return x

    def _two_jumps(
        self, x: Tensor, place: Tensor, stride: Tensor, scale: Tensor, condition: dict[str, Any]
    ) -> Tensor:
        """Where the average of the student comes in two jumps, each half as long as the stride."""
        half = stride // 2
        told = self._told(self.averaged, scale, self.finest // half, condition)
        grid = self.grid.to(x.device)
        for k in range(2):
            now = told(x, grid[place + k * half])
            x = jump(self.schedule, now, grid[place + (k + 1) * half]).float()
        return x

    def _told(
        self, network: Any, scale: Tensor, steps: Tensor, condition: dict[str, Any]
    ) -> NetworkDenoiser:
        numbers = self.student.numbers(scale, steps)
        return NetworkDenoiser(
            network, self.schedule, self.prediction_type, numbers=numbers, **condition
        )


def _rows(condition: dict[str, Any], rows: slice) -> dict[str, Any]:
    return {name: value[rows] for name, value in condition.items()}
