"""Schedules: the tables, the noising chain behind them, and the grids of timesteps."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr as diffusers_rescale

from minidiff.denoisers import IdealDenoiser, NetworkDenoiser, training_target
from minidiff.samplers import move
from minidiff.schedules import SCHEDULES, Schedule, make_schedule, rescale_zero_terminal_snr

T = 1000
EVERY = [
    ("linear", False),
    ("linear", True),
    ("cosine", False),
    ("cosine", True),
    ("straight", False),
]
every_schedule = pytest.mark.parametrize(("name", "zero_snr"), EVERY)


@every_schedule
def test_starts_at_the_data_and_ends_at_the_noise(name: str, zero_snr: bool) -> None:
    schedule = make_schedule(name, zero_terminal_snr=zero_snr)
    assert schedule.num_train_timesteps == T
    assert len(schedule.alpha) == len(schedule.sigma) == T + 1
    assert schedule.alpha[0] == 1 and schedule.sigma[0] == 0
    assert (schedule.alpha[-1] == 0) == (zero_snr or name == "straight")
    assert schedule.alpha[-1] < 0.01 and schedule.sigma[-1] > 0.9999
    assert (schedule.log_snr.diff() < 0).all()
    assert schedule.log_snr[0] == torch.inf
    assert schedule.is_variance_preserving == (name != "straight")


@pytest.mark.parametrize(
    ("name", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")]
)
def test_tables_are_those_of_diffusers_shifted_by_one(name: str, theirs: str) -> None:
    schedule = make_schedule(name)
    oracle: Any = DDPMScheduler(beta_schedule=theirs)
    # Their index i is our t = i + 1. They compute in float32: measured differences are 2e-8 in beta
    # and 3e-7 in the product, which grows to 1e-5 of its value where the value nearly vanishes.
    torch.testing.assert_close(schedule.betas, oracle.betas.double(), rtol=0, atol=1e-7)
    cumprod, theirs_cumprod = schedule.alphas_cumprod[1:], oracle.alphas_cumprod.double()
    torch.testing.assert_close(cumprod, theirs_cumprod, rtol=0, atol=1e-6)
    torch.testing.assert_close(cumprod, theirs_cumprod, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_zero_terminal_snr_is_that_of_diffusers(name: str) -> None:
    plain = make_schedule(name)
    rescaled = rescale_zero_terminal_snr(plain)
    cumprod = torch.cumprod(1 - diffusers_rescale(plain.betas), 0)  # in float64, as ours
    torch.testing.assert_close(rescaled.alphas_cumprod[1:], cumprod, rtol=1e-9, atol=1e-12)
    assert rescaled.alpha[-1] == 0 and rescaled.sigma[-1] == 1
    torch.testing.assert_close(rescaled.alpha[1], plain.alpha[1], rtol=1e-12, atol=0)


@every_schedule
def test_closed_form_is_the_chain_of_single_steps(name: str, zero_snr: bool) -> None:
    """Mean factor and variance carried through all T kernels q(x_t | x_{t−1}), without sampling."""
    schedule = make_schedule(name, zero_terminal_snr=zero_snr)
    if schedule.is_variance_preserving:
        # x_t = sqrt(1 − beta) x_{t−1} + sqrt(beta) z; the linear betas are written out once more
        betas = schedule.betas
        if (name, zero_snr) == ("linear", False):
            betas = torch.linspace(0.0001, 0.02, T, dtype=torch.float64)
        factors, variances = (1 - betas).sqrt(), betas
    else:
        # The straight line's own kernels, from its definition: with u = t / T a step multiplies by
        # (1 − u) / (1 − u + 1/T) and its noise fills up the variance to u².
        u = torch.arange(1, T + 1, dtype=torch.float64) / T
        factors = (1 - u) / (1 - u + 1 / T)
        variances = u**2 - factors**2 * (u - 1 / T) ** 2
    mean, variance = 1.0, 0.0
    for t, (factor, added) in enumerate(zip(factors.tolist(), variances.tolist()), start=1):
        assert added > 0
        mean, variance = factor * mean, factor**2 * variance + added
        assert mean == pytest.approx(schedule.alpha[t].item(), rel=1e-9, abs=1e-12)
        assert variance == pytest.approx(schedule.sigma[t].item() ** 2, rel=1e-9)


def test_closed_form_is_the_chain_by_monte_carlo() -> None:
    schedule, n, stop = make_schedule("linear"), 20_000, 300
    generator = torch.Generator().manual_seed(0)
    start = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    x = start.expand(n, 2)
    for beta in schedule.betas[:stop].tolist():
        z = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        x = (1 - beta) ** 0.5 * x + beta**0.5 * z
    alpha, sigma = schedule.alpha[stop], schedule.sigma[stop]
    # five standard errors of a mean and of a standard deviation
    assert ((x.mean(0) - alpha * start).abs() < 5 * sigma / n**0.5).all()
    assert ((x.std(0) - sigma).abs() < 5 * sigma / (2 * n) ** 0.5).all()
    direct = schedule.add_noise(start.expand(n, 2), torch.ones(n, 2, dtype=torch.float64), stop)
    torch.testing.assert_close(direct[0], alpha * start + sigma)


def test_coefficients_take_dtype_shape_and_each_t() -> None:
    schedule = make_schedule("cosine")
    x = torch.zeros(3, 1, 4, 4)
    alpha, sigma = schedule.coefficients(torch.tensor([0, 500, 1000]), like=x)
    assert alpha.shape == sigma.shape == (3, 1, 1, 1) and alpha.dtype == torch.float32
    assert torch.equal(alpha.flatten(), schedule.alpha[[0, 500, 1000]].float())
    assert schedule.coefficients(7, like=x.double())[1].item() == schedule.sigma[7].item()


@pytest.mark.parametrize(
    "t",
    [-1, T + 1, 0.5, 5.0, True, None, "5", 2**70, torch.tensor([1, -1]), torch.tensor([0.5]),
     torch.tensor([1.0, 2.0]), torch.tensor([True, False]), torch.tensor(T + 1), np.float32(3)],
    ids=repr,
)  # fmt: skip
def test_a_timestep_that_cannot_be(t: Any) -> None:
    # cut to a whole number, 0.5 would add no noise; -1 would silently be the last entry
    schedule = make_schedule("cosine")
    x = torch.zeros(2, 1, 4, 4)
    denoiser = NetworkDenoiser(lambda x, t: x, schedule, "v")
    for call in (
        lambda: schedule.add_noise(x, x, t),
        lambda: schedule.coefficients(t, like=x),
        lambda: training_target("eps", schedule, x, x, t),
        lambda: denoiser(x, t),
        lambda: denoiser.output(x, t),
        lambda: denoiser.loss(x, t, x),
        lambda: move(schedule, x, t, 0, x, torch.rand),
    ):
        with pytest.raises(ValueError, match=r"whole numbers from \d+ to") as caught:
            call()
        assert repr(t) in str(caught.value)


def test_timesteps_on_a_device_are_not_waited_for() -> None:
    # "meta" has no numbers at all: to ask for one is an error
    schedule = make_schedule("cosine")
    assert schedule.checked(torch.empty(3, dtype=torch.long, device="meta")).device.type == "meta"
    with pytest.raises(ValueError, match="t must be whole numbers from 0 to 1000"):
        schedule.checked(torch.empty(3, device="meta"))


def test_a_denoiser_is_not_asked_at_the_data() -> None:
    schedule = make_schedule("straight")
    x = torch.zeros(2, 1, 4, 4)
    for denoiser in (IdealDenoiser(schedule, x), NetworkDenoiser(lambda x, t: x, schedule, "x0")):
        with pytest.raises(ValueError, match="whole numbers from 1 to 1000, got 0"):
            denoiser(x, 0)
    with pytest.raises(ValueError, match=r"each smaller than the one before, got \(5, 5\)"):
        move(schedule, x, 5, 5, x, torch.rand)


@pytest.mark.parametrize(
    "t",
    [7, np.int64(7), np.uint8(7), torch.tensor(7), torch.tensor([7, 7], dtype=torch.uint8), [7, 7]],
)
def test_every_kind_of_whole_number_is_a_timestep(t: Any) -> None:
    schedule, x = make_schedule("cosine"), torch.ones(2, 1, 2, 2, dtype=torch.float64)
    expected = schedule.alpha[7] * x + schedule.sigma[7] * 3 * x
    torch.testing.assert_close(schedule.add_noise(x, 3 * x, t), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_bytes_are_no_data(dtype: torch.dtype) -> None:
    # alpha as a whole number would be 0: nothing but noise, or nothing at all
    schedule, x = make_schedule("cosine"), torch.ones(2, 1, 4, 4).to(dtype)
    for call in (
        lambda: schedule.add_noise(x, torch.ones(2, 1, 4, 4), 500),
        lambda: IdealDenoiser(schedule, x),
        lambda: NetworkDenoiser(lambda x, t: x, schedule, "v")(x, 500),
    ):
        with pytest.raises(ValueError, match=f"floats, pictures in .-1, 1.; these are {dtype}"):
            call()


@pytest.mark.parametrize(
    ("x0", "eps"),
    [((100,), (100, 1)), ((4, 1, 8, 8), (8, 8)), ((4, 1, 8, 8), (4, 2, 8, 8)), ((4, 2), (3, 2))],
)
def test_noise_is_shaped_like_the_data(x0: tuple[int, ...], eps: tuple[int, ...]) -> None:
    schedule = make_schedule("cosine")
    with pytest.raises(ValueError, match=re.escape(f"x0 is {x0} but eps {eps}: give both alike")):
        schedule.add_noise(torch.zeros(x0), torch.zeros(eps), 500)
    assert schedule.add_noise(torch.zeros(1, 2), torch.zeros(5, 2), 500).shape == (5, 2)


def test_a_table_keeps_its_own_numbers() -> None:
    alpha, sigma = np.array([1.0, 0.5, 0.0]), np.array([0.0, 0.5, 1.0])
    schedule = Schedule("mine", alpha, sigma)  # type: ignore[arg-type]
    alpha[1] = 7
    assert schedule.alpha[1] == 0.5


def test_a_table_in_float32_preserves_the_variance() -> None:
    cumprod = torch.cat([torch.ones(1), (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)])
    schedule = Schedule("mine", cumprod.sqrt(), (1 - cumprod).sqrt())
    assert schedule.betas[-1].item() == pytest.approx(0.02, rel=1e-3)


def test_as_many_timesteps_as_examples() -> None:
    schedule, one, three = make_schedule("cosine"), torch.ones(1, 2), torch.ones(3, 2)
    t = torch.tensor([1, 500, 1000])
    assert schedule.add_noise(one, 0 * one, t).shape == (3, 2)  # one example at three moments
    assert schedule.add_noise(three, 0 * three, t).shape == (3, 2)
    with pytest.raises(ValueError, match="2 timesteps for 3 examples: give one, or each"):
        schedule.add_noise(three, three, t[:2])


def test_tables_first_used_in_inference_mode_serve_training() -> None:
    schedule = make_schedule("linear")
    x = torch.ones(2, 1)
    with torch.inference_mode():
        schedule.coefficients(5, like=x)
    alpha, _ = schedule.coefficients(5, like=x)
    weight = torch.ones(2, 1, requires_grad=True)
    (alpha * weight).sum().backward()  # needs alpha in the backward pass
    torch.testing.assert_close(weight.grad, alpha.expand(2, 1))


def test_every_grid_falls_strictly_from_T_to_0() -> None:
    schedule = make_schedule("linear")
    for n in range(1, T + 1):
        grid = schedule.timesteps(n)
        assert len(grid) == n + 1 and grid[0] == T and grid[-1] == 0
        assert all(t > s for t, s in itertools.pairwise(grid))
    assert schedule.timesteps(3) == [1000, 667, 333, 0]


@pytest.mark.parametrize("shift", [0.25, 3.0, 50.0])
def test_shifted_grids(shift: float) -> None:
    schedule = make_schedule("straight")
    for n in range(1, T + 1):
        grid = schedule.timesteps(n, shift)
        assert len(grid) == n + 1 and grid[0] == T and grid[-1] == 0
        assert all(t > s for t, s in itertools.pairwise(grid))
    even, shifted = schedule.timesteps(10), schedule.timesteps(10, shift)
    for t, s in zip(even[1:-1], shifted[1:-1]):  # odds of noise against data, times the shift
        assert s / T == pytest.approx(shift * t / (T - t + shift * t), abs=0.6 / T)


def test_a_schedule_carries_the_spacing_of_its_grids() -> None:
    even, own = make_schedule("cosine"), make_schedule("cosine", shift=3)
    assert (even.shift, own.shift) == (1, 3) and torch.equal(even.alpha, own.alpha)
    assert own.timesteps(20) == even.timesteps(20, 3) != even.timesteps(20)
    assert own.timesteps(20, shift=1) == even.timesteps(20)
    assert rescale_zero_terminal_snr(own).shift == 3
    assert make_schedule("cosine", zero_terminal_snr=True, shift=2.5).shift == 2.5
    assert Schedule("mine", own.alpha, own.sigma, 2).timesteps(5) == even.timesteps(5, 2)


@pytest.mark.parametrize(
    "shift", [0, -1, 1e-300, float("nan"), float("inf"), "2", True, [2.0], 1e308]
)
def test_impossible_shifts(shift: Any) -> None:
    told = re.escape(f"shift must be from 1e-6 to 1e6 (1 = evenly spaced), got {shift!r}")
    with pytest.raises(ValueError, match=told):
        make_schedule("straight").timesteps(10, shift)
    with pytest.raises(ValueError, match=told):
        make_schedule("straight", shift=shift)


@pytest.mark.parametrize("shift", [1e-6, 1e6])
def test_extreme_shifts_still_fall(shift: float) -> None:
    grid = make_schedule("straight", shift=shift).timesteps(20)
    assert (grid[0], grid[-1]) == (T, 0) and all(t > s for t, s in itertools.pairwise(grid))


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5, True, float("nan"), "20"])
def test_impossible_numbers_of_steps(steps: object) -> None:
    whole = type(steps) is int
    wanted = "from 1 to 1000 .*" if whole else "num_inference_steps must be a whole number"
    with pytest.raises(ValueError, match=f"{wanted}, got {steps!r}"):
        make_schedule("linear").timesteps(steps)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 1, -5, 10.0, True, "1000", None])
def test_impossible_tables(count: Any) -> None:
    with pytest.raises(ValueError, match=f"num_train_timesteps .*, got {count!r}"):
        make_schedule("linear", count)


@pytest.mark.parametrize("count", [np.int64(100), torch.tensor(100)])
def test_every_kind_of_whole_number_makes_a_table(count: Any) -> None:
    schedule = make_schedule("cosine", count)
    steps: Any = np.int64(10)
    assert schedule.num_train_timesteps == 100 and len(schedule.timesteps(steps)) == 11


@pytest.mark.parametrize("name", ["sigmoid", "", None, 3, ["linear"]])
def test_unknown_name_lists_the_known(name: Any) -> None:
    message = f"unknown schedule {name!r}: choose one of cosine, linear, straight"
    with pytest.raises(ValueError, match=re.escape(message)):
        make_schedule(name)


@pytest.mark.parametrize("value", ["false", 0, None, np.bool_(True)])
def test_zero_terminal_snr_is_true_or_false(value: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"must be True or False, got {value!r}")):
        make_schedule("linear", zero_terminal_snr=value)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("count", [2, 50, 10_000])
def test_other_numbers_of_timesteps(name: str, count: int) -> None:
    schedule = make_schedule(name, count, zero_terminal_snr=True)
    assert schedule.num_train_timesteps == count and schedule.alpha[-1] == 0


def test_linear_ends_at_the_same_noise_with_any_number_of_steps() -> None:
    thousand = make_schedule("linear", 1000)
    for count in (2, 10, 20, 100, 8000):
        schedule = make_schedule("linear", count)
        torch.testing.assert_close(schedule.alpha[-1], thousand.alpha[-1], rtol=0.02, atol=0)
    torch.testing.assert_close(schedule.alpha[::8], thousand.alpha, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize(
    ("alpha", "sigma", "message"),
    [
        ([1.0, 0.5], [0.0, 0.5, 1.0], "T \\+ 1 numbers"),
        ([0.9, 0.5], [0.1, 0.5], "t = 0 is the data"),
        ([1.0, 0.5, 0.6], [0.0, 0.8, 0.7], "must fall"),
        ([1.0, 0.5, float("nan")], [0.0, 0.8, 0.9], "must fall"),
        ([1.0, 0.5, -0.1], [0.0, 0.8, 0.9], "must fall"),
        ([1.0, -0.5, -0.1], [0.0, -0.5, -0.9], "must fall"),
    ],
)
def test_tables_that_are_no_schedule(alpha: list[float], sigma: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule("mine", torch.tensor(alpha), torch.tensor(sigma))


def test_straight_line_has_no_betas() -> None:
    with pytest.raises(ValueError, match=r"use \.alpha and \.sigma"):
        _ = make_schedule("straight").betas
