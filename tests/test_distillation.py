"""Distillation: what a student learns, from whom, and that it can draw with it in one step."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers import SCHEDULES, noise
from minidiff.denoisers import NetworkDenoiser, Prediction
from minidiff.distillation import SMALL, Distillation, jump, line
from minidiff.schedules import Schedule, make_schedule
from minidiff.student import Student

STUDENT = Student("0" * 64, (1, 2, 4, 8), (1.0, 5.0))


def distillation(
    teacher: Any, averaged: Any, schedule: Schedule | None = None, student: Student = STUDENT
) -> Distillation:
    return Distillation(
        student, teacher, averaged, schedule or make_schedule("straight"), "flow", None
    )


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(("t", "s"), [(1000, 600), (500, 499), (300, 0)])
def test_a_jump_along_the_line_from_x_t_to_x_s_ends_at_x_s(
    schedule: Schedule, t: int, s: int
) -> None:
    x_t, x_s = noise(3, 1, 2, 2, seed=1), noise(3, 1, 2, 2, seed=2)
    x0, eps = line(schedule, x_t, x_s, torch.tensor([t]), torch.tensor([s]))
    alpha, sigma = schedule.coefficients(t, like=x_t)
    torch.testing.assert_close(alpha * x0 + sigma * eps, x_t, atol=1e-8, rtol=1e-6)

    now = Prediction(x_t, t, x0, eps, alpha, sigma)
    torch.testing.assert_close(jump(schedule, now, s), x_s, atol=1e-8, rtol=1e-6)


def test_where_the_path_is_straight_all_walks_are_the_teachers() -> None:
    """Then the answer of the teacher, guided, is right for every jump, and any other is wrong."""

    def teacher(x: Tensor, t: Tensor, tokens: Tensor | None = None, **_: Any) -> Tensor:
        direction = torch.linspace(-1, 1, x[0].numel()).view_as(x[:1])
        return direction.expand_as(x) * (1 if tokens is None else 3)

    def student(x: Tensor, t: Tensor, tokens: Tensor, numbers: Tensor, **_: Any) -> Tensor:
        scale = 1 + 4 * numbers[:, 0].view(-1, 1, 1, 1)
        return teacher(x, t) + scale * (teacher(x, t, tokens) - teacher(x, t))

    lesson = distillation(teacher, student)
    x0, eps, draw = (noise(16, 1, 4, 4, seed=i).float() for i in range(3))
    draw = draw.flatten(1)[:, :2].T.sigmoid()
    text = {"tokens": torch.ones(16, 3, 2), "mask": torch.ones(16, 3).bool()}
    assert lesson.loss(student, x0, eps, draw, **text).max() < 1e-8

    def without_guidance(x: Tensor, t: Tensor, tokens: Tensor, **_: Any) -> Tensor:
        return teacher(x, t, tokens)

    assert lesson.loss(without_guidance, x0, eps, draw, **text).mean() > 0.1


def test_the_finest_walk_learns_from_the_teacher_the_others_from_the_average() -> None:
    def says(value: float, heard: list[Tensor]) -> Any:
        def network(x: Tensor, t: Tensor, numbers: Tensor | None = None) -> Tensor:
            heard.append(t if numbers is None else torch.stack([t, *numbers.T]))
            return torch.full_like(x, value)

        return network

    taught, averaged, own = list[Tensor](), list[Tensor](), list[Tensor]()
    lesson = distillation(says(1.0, taught), says(2.0, averaged))
    x0, eps = noise(8, 1, 2, 2).float(), noise(8, 1, 2, 2, seed=1).float()
    draw = torch.full((2, 8), 0.6)
    loss = lesson.loss(says(0.0, own), x0, eps, draw)
    torch.testing.assert_close(loss, torch.tensor([1.0] * 2 + [4.0] * 6))
    told = own[0][2].tolist()  # 1 / steps
    assert told == [1 / 8] * 2 + [1 / 4] * 2 + [1 / 2] * 2 + [1.0] * 2
    assert {len(t) for t in taught} == {2} and len(taught) == 2 * SMALL  # with text and without
    assert [t.shape[1] for t in averaged] == [6, 6]
    half = [1 / 8] * 2 + [1 / 4] * 2 + [1 / 2] * 2  # each walk from the next finer
    assert all(t[2].tolist() == half for t in averaged)
    torch.testing.assert_close(own[0][1], torch.full((8,), 0.6))  # 3.4 of 1 to 5


def test_walks_meet_at_the_same_timesteps() -> None:
    for shift, steps in itertools.product((1.0, 2.0, 3.0), (1, 2, 4, 8)):
        schedule = make_schedule("straight", shift=shift)
        lesson = distillation(nn.Identity(), nn.Identity(), schedule)
        assert lesson.grid[:: lesson.finest // steps].tolist() == schedule.timesteps(steps)
    with pytest.raises(ValueError, match="20 timesteps, which are too few"):
        distillation(nn.Identity(), nn.Identity(), make_schedule("straight", 20))


class Line(nn.Module):
    """A student for one number: slope and height of its answer, by what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 2))

    def forward(self, x: Tensor, t: Tensor, numbers: Tensor, **_: Any) -> Tensor:
        told = torch.stack([t / 1000, 4 * numbers[:, 0], numbers[:, 1].log2()], 1)
        slope, height = self.layers(told).view(-1, 2, 1, 1, 1).unbind(1)
        return slope * x + height


def test_a_student_learns_to_draw_in_one_step() -> None:
    """The data is a normal distribution: its path is known, x_0 = mean + deviation · x_T."""
    mean, deviation, schedule = 0.5, 0.4, make_schedule("straight")

    def teacher(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = schedule.coefficients(t, like=x)
        share = alpha * deviation**2 / ((alpha * deviation) ** 2 + sigma**2)
        x0 = mean + share * (x - alpha * mean)
        return (x - alpha * x0) / sigma - x0

    torch.manual_seed(0)
    network, averaged = Line(), Line()
    lesson = distillation(teacher, averaged, schedule)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    averaged.load_state_dict(network.state_dict())
    for _ in range(500):
        x0, eps = mean + deviation * torch.randn(64, 1, 1, 1), torch.randn(64, 1, 1, 1)
        loss = lesson.loss(network, x0, eps, torch.rand(2, 64)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for a, b in zip(averaged.parameters(), network.parameters()):
                a.lerp_(b, 0.05)
    x_T = torch.randn(1000, 1, 1, 1)
    numbers = STUDENT.numbers(torch.tensor([1.0]), torch.tensor([1.0])).expand(1000, -1)
    now = NetworkDenoiser(averaged, schedule, "flow", numbers=numbers)(x_T, 1000)
    error = (jump(schedule, now, 0) - (mean + deviation * x_T)).square().mean().sqrt()
    assert error < 0.1 * deviation
