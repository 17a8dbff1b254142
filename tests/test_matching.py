"""Distribution matching: when a student is left as it is, where it is sent, that it arrives."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers import noise
from minidiff import matching
from minidiff.denoisers import NetworkDenoiser
from minidiff.matching import Matching
from minidiff.samplers import sample
from minidiff.schedules import make_schedule
from minidiff.student import Student

STUDENT, SCHEDULE = Student("0" * 64, (1, 2, 4), (1.0, 5.0)), make_schedule("straight", shift=2.0)
MEAN, DEVIATION = 0.5, 0.4  # of the data, a normal distribution


class Normal(nn.Module):
    """The ideal network for normally distributed numbers; both of its numbers can be learnt."""

    config = SimpleNamespace(channels=(1,))

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.middle2 = nn.Identity()  # what the critic sees
        self.mean = nn.Parameter(torch.tensor(mean))
        self.log_deviation = nn.Parameter(torch.tensor(deviation).log())

    def forward(self, x: Tensor, t: Tensor, **_: Any) -> Tensor:
        alpha, sigma = SCHEDULE.coefficients(t, like=x)
        variance = (2 * self.log_deviation).exp()
        share = alpha * variance / (alpha**2 * variance + sigma**2)
        x0 = self.mean + share * (self.middle2(x) - alpha * self.mean)
        return (x - alpha * x0) / sigma - x0


def lesson(student: nn.Module, teacher: Any = None, clip: Any = None) -> Matching:
    """The fake begins as the student's average does, here the student itself."""
    teacher = Normal(MEAN, DEVIATION) if teacher is None else teacher
    return Matching(STUDENT, teacher, student, SCHEDULE, "flow", clip)


def wrong(matched: Matching, drawn: Tensor, scale: Tensor, **text: Tensor) -> Tensor:
    t, eps = matched._noise(drawn, chance())
    x_t = SCHEDULE.add_noise(drawn, eps, t)
    told = matched._told(matched.fake, scale, torch.ones_like(scale), text)
    return matched._wrong(drawn, x_t, t, told.estimate(x_t, t)[0], scale, text).detach()


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_student_is_left_alone_where_the_fake_agrees_with_the_teacher() -> None:
    same, other = Normal(MEAN, DEVIATION), Normal(MEAN + 0.3, DEVIATION)
    drawn, scale = noise(64, 1, 1, 1).float(), torch.ones(64)
    assert not wrong(lesson(same), drawn, scale).any()
    # Its pictures are too bright: less of that.
    assert (wrong(lesson(other), drawn, scale) > 0).all()


def test_guidance_is_the_teachers() -> None:
    def teacher(x: Tensor, t: Tensor, tokens: Tensor | None = None, **_: Any) -> Tensor:
        alpha, sigma = SCHEDULE.coefficients(t, like=x)
        x0 = torch.full_like(x, 0.0 if tokens is None else 0.1)
        return (x - alpha * x0) / sigma - x0

    def fake(x: Tensor, t: Tensor, numbers: Tensor, **_: Any) -> Tensor:
        alpha, sigma = SCHEDULE.coefficients(t, like=x)
        scale = (1 + 4 * numbers[:, :1] if knows else torch.ones(len(x), 1))[..., None, None]
        x0 = 0.1 * scale.expand_as(x)
        return (x - alpha * x0) / sigma - x0

    matched = lesson(Normal(0.0, 1.0), teacher)
    matched.fake = fake  # type: ignore[assignment]
    text = {"tokens": torch.ones(3, 2, 2), "mask": torch.ones(3, 2).bool()}
    drawn, scale = noise(3, 1, 2, 2).float(), torch.tensor([1.0, 3.0, 5.0])
    knows = True
    assert wrong(matched, drawn, scale, **text).abs().max() < 1e-4
    knows = False
    unguided = wrong(matched, drawn, scale, **text).abs().amax((1, 2, 3))
    assert unguided[0] < 1e-4 and (unguided[1:] > 0.1).all()


def test_at_first_the_fake_learns_alone_and_what_happens_depends_on_the_step_only() -> None:
    torch.manual_seed(0)
    student = Normal(0.0, 1.0)
    torch.manual_seed(1)
    one = lesson(student)
    torch.manual_seed(1)
    again = lesson(student)
    x0, eps = noise(8, 1, 2, 2).float(), noise(8, 1, 2, 2, seed=1).float()
    draw = torch.rand(2, 8, generator=chance())
    before = {name: weight.clone() for name, weight in one.fake.named_parameters()}
    for each in (one, again):
        loss = each.match(student, x0, eps, draw, 0, chance(1))
        assert loss.shape == (8,) and not loss.any()
        student.zero_grad()
        loss.mean().backward()
        assert all(
            weight.grad is not None and not weight.grad.any() for weight in student.parameters()
        )
    for name, weight in one.fake.named_parameters():
        assert not torch.equal(weight, before[name]), name
        assert torch.equal(weight, again.fake.get_parameter(name))
    later = one.match(student, x0, eps, draw, matching.ALONE, chance(2))
    assert (later > 0).all()


def test_it_walks_as_the_sampler_does() -> None:
    student = Normal(0.2, 0.7)
    x_T, matched = noise(5, 1, 2, 2).float(), lesson(student)
    for steps in STUDENT.evaluations:
        told = NetworkDenoiser(student, SCHEDULE, "flow")
        with torch.no_grad():
            ours = matched.walk(student, x_T, torch.ones(5), steps, {})
        torch.testing.assert_close(ours, sample(told, x_T, "ddim", steps), atol=1e-5, rtol=1e-5)


def test_a_student_comes_to_draw_what_its_teacher_would() -> None:
    torch.manual_seed(0)
    student = Normal(-0.5, 0.15)
    matched = lesson(student)
    matched.optimizer.param_groups[0]["lr"] = 3e-2
    optimizer, generator = torch.optim.Adam(student.parameters(), 1e-2), chance()
    for _ in range(300):
        draw = torch.rand(2, 64, generator=generator)
        draw[0] = 0.9  # four jumps
        x0, eps = (torch.randn(64, 1, 1, 1, generator=generator) for _ in range(2))
        x0 = MEAN + DEVIATION * x0
        optimizer.zero_grad()
        matched.match(student, x0, eps, draw, matching.ALONE, generator).mean().backward()
        optimizer.step()
    x_T = torch.randn(2000, 1, 1, 1, generator=generator)
    with torch.no_grad():
        drawn = matched.walk(student, x_T, torch.ones(2000), 4, {})
    assert drawn.mean().item() == pytest.approx(MEAN, abs=0.05)
    assert drawn.std().item() == pytest.approx(DEVIATION, abs=0.08)


def test_the_critic_tells_drawn_from_real_and_sends_the_student_to_the_real_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    student = Normal(-0.5, 0.3)
    matched = lesson(student, teacher=student)  # it has nothing to say
    matched.optimizer.param_groups[0]["lr"] = 1e-2
    generator = chance()
    real = 1.0 + 0.1 * torch.randn(64, 1, 4, 4, generator=generator)
    drawn = matched.walk(student, torch.randn(64, 1, 4, 4), torch.ones(64), 4, {}).detach()
    told = matched._told(matched.fake, torch.ones(128), torch.ones(128), {})
    for _ in range(150):
        matched._teach(told, matching._copies(real), matching._copies(drawn), generator)
    t = torch.full((64,), 200)
    odds = []
    for pictures in (real, drawn):
        matched.fake(SCHEDULE.add_noise(pictures, torch.randn_like(pictures), t), t)
        odds.append(matched.fake.real())
    assert (odds[0] > 0).float().mean() > 0.9 and (odds[1] < 0).float().mean() > 0.9
    eps, draw, slopes = torch.randn(64, 1, 4, 4), torch.rand(2, 64), []
    for weight in (0.0, 1.0):
        monkeypatch.setattr(matching, "TO_BE_REAL", weight)
        student.zero_grad()
        again = copy.deepcopy(matched)
        again.match(student, real, eps, draw, matching.ALONE, chance()).mean().backward()
        assert student.mean.grad is not None
        slopes.append(student.mean.grad.item())
    assert slopes[1] < slopes[0] - 0.01, "brighter, as the real ones are"
