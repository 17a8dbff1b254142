"""Samplers against what is known: closed forms, exact moments, and diffusers on shared grids.

All of it in float64 with ideal denoisers, so that what is seen is the sampler and nothing else.
Measured orders and biases stand beside the bounds.
"""

from __future__ import annotations

import ast
import itertools
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers import scheduling_dpmsolver_multistep
from torch import Tensor

import minidiff.samplers
from helpers import SCHEDULES, noise
from minidiff.denoisers import Denoiser, Guided, NetworkDenoiser, Prediction
from minidiff.samplers import (
    HISTORY,
    SAMPLERS,
    History,
    Noise,
    Step,
    StepRule,
    ddim,
    ddpm,
    evaluations,
    heun,
    move,
    sample,
    sample_steps,
    seeded_generator,
    standard_normal,
)
from minidiff.schedules import Schedule, make_schedule
from minidiff.toys import MixtureDenoiser

LINEAR = SCHEDULES["linear"]
MEAN, DEVIATION = 0.6, 0.35  # of the Gaussian that the one-dimensional tests draw
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(schedule: Schedule, deviation: float = DEVIATION) -> MixtureDenoiser:
    one = torch.ones(1, dtype=torch.float64)
    return MixtureDenoiser(schedule, one, MEAN * one[None], deviation**2 * one[None, None])


def mixture(schedule: Schedule) -> MixtureDenoiser:
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    means = torch.tensor([[-1.2, 0.6], [1.0, 0.4], [0.0, -1.3]], dtype=torch.float64)
    spread = torch.tensor([0.05, 0.1, 0.02], dtype=torch.float64)
    covariances = spread[:, None, None] * torch.eye(2, dtype=torch.float64)
    return MixtureDenoiser(schedule, weights, means, covariances)


def doubling(schedule: Schedule) -> NetworkDenoiser:
    """A denoiser made of single multiplications: bitwise the same in a batch of any size."""
    return NetworkDenoiser(lambda x, t: 2 * x, schedule, "x0")


# ---- the end of the walk -------------------------------------------------------------------------


@every_schedule
@every_sampler
@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_last_step_returns_the_predicted_data_bit_for_bit(
    schedule: Schedule, sampler: str, steps: int, dtype: torch.dtype
) -> None:
    denoiser = NetworkDenoiser(lambda x, t: 0.7 * x + 0.01, schedule, "v")
    x_T = noise(3, 1, 4, 4).to(dtype)
    walk = list(sample_steps(denoiser, x_T, sampler, steps, generator=seeded()))
    assert [step.index for step in walk] == list(range(steps))
    assert [step.t for step in walk] == schedule.timesteps(steps)[1:]
    assert walk[-1].x.dtype == dtype
    assert torch.equal(walk[-1].x, walk[-1].prediction.x0)
    for before, after in zip([x_T, *(step.x for step in walk)], walk):
        assert torch.equal(after.prediction.x_t, before)  # the prediction at the step's start


@every_schedule
@every_sampler
@pytest.mark.filterwarnings("ignore:prediction_type 'eps'")  # which is exact here
def test_every_prediction_type_walks_the_same_way(schedule: Schedule, sampler: str) -> None:
    """Also from alpha_T = 0, where a division by alpha would give NaN."""
    ideal, x_T = mixture(schedule), noise(16, 2)
    expected = sample(ideal, x_T, sampler, 10, generator=seeded(1))
    assert expected.isfinite().all()
    types = ["x0", "v", "flow"] + ["eps"] * bool(schedule.alpha[-1] > 0)
    for prediction_type in types:

        def network(x: Tensor, t: Tensor, kind: str = prediction_type) -> Tensor:
            return getattr(ideal(x, t), kind)

        denoiser = NetworkDenoiser(network, schedule, prediction_type)
        actual = sample(denoiser, x_T, sampler, 10, generator=seeded(1))
        torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-7)


# ---- differential equations: order of convergence ------------------------------------------------


def dpmpp_3m(denoiser: Denoiser, now: Prediction, s: int, history: History, noise: Noise) -> Tensor:
    """Third order in ten lines: DPM-Solver++ with three x_0 (Lu et al. 2022, section 4.2).

    Through them goes a parabola in lambda = log alpha / sigma. Its mean from t to s, weighted with
    e^lambda, stands for the whole way. The first two steps are heun's: ddim's would cost an order.
    """
    if len(history) < 2 or s == 0:
        return heun(denoiser, now, s, history, noise)
    first, last = history[-2:]
    j, k, h = (denoiser.schedule.log_snr[[first.t, last.t, now.t, s]] / 2).diff().tolist()
    near, far = (now.x0 - last.x0) / k, (last.x0 - first.x0) / j
    bend = (near - far) / (j + k)
    mean = h / (1 - math.exp(-h)) - 1  # of lambda − lambda_t
    square = h**2 / (1 - math.exp(-h)) - 2 * mean  # the mean of its square
    x0 = now.x0 + mean * (near + k * bend) + square * bend
    return move(denoiser.schedule, now.x_t, now.t, s, x0, noise)


@every_schedule
@pytest.mark.parametrize(
    ("sampler", "low", "high"),
    [("ddim", 0.9, 1.1), ("heun", 1.8, 2.2), ("dpmpp_2m", 1.8, 2.5), (dpmpp_3m, 2.8, 4.2)],
)
def test_order_of_convergence_inside_the_interval(
    schedule: Schedule, sampler: str | StepRule, low: float, high: float
) -> None:
    """Measured: ddim 0.99–1.00, heun 1.98–2.01, dpmpp_2m 1.98–2.40 (straight line), to 2.00;
    dpmpp_3m 2.87–3.04, and 3.75–4.11 on the linear ones, where the first term nearly cancels.

    The flow carries a Gaussian onto a Gaussian: x keeps its distance from the mean, counted in
    standard deviations. Down to t = 0 no order can be seen, lambda being infinite there.
    """
    start, stop = 840, 200
    deviation = (schedule.alpha**2 * DEVIATION**2 + schedule.sigma**2).sqrt()
    x = torch.tensor([[-1.5], [-0.3], [0.5], [2.0]], dtype=torch.float64)
    scores = (x - schedule.alpha[start] * MEAN) / deviation[start]
    exact = schedule.alpha[stop] * MEAN + deviation[stop] * scores
    errors = []
    for steps in (20, 40, 80, 160):
        grid = list(range(start, stop - 1, -(start - stop) // steps))
        assert len(grid) == steps + 1
        end = sample(gaussian(schedule), x, sampler, timesteps=grid)
        errors.append((end - exact).abs().max().item())
    for coarse, fine in itertools.pairwise(errors):
        assert low < math.log2(coarse / fine) < high


def test_ddim_is_eulers_method() -> None:
    """One step on the probability-flow equation in the variables x / sigma and alpha / sigma."""
    for schedule in SCHEDULES.values():
        x, t, s = noise(5, 2), 600, 550
        prediction = mixture(schedule)(x, t)
        gamma_t, gamma_s = ((schedule.alpha / schedule.sigma)[i] for i in (t, s))
        y = x / schedule.sigma[t] + (gamma_s - gamma_t) * prediction.x0
        end = sample(mixture(schedule), x, "ddim", timesteps=[t, s])
        torch.testing.assert_close(end, schedule.sigma[s] * y, rtol=1e-12, atol=1e-12)


# ---- stochastic samplers: exact moments ----------------------------------------------------------


def moments(
    schedule: Schedule, sampler: str, grid: list[int], deviation: float = DEVIATION
) -> tuple[float, float]:
    """Mean and standard deviation at the end of the walk for Gaussian data, without sampling.

    For Gaussian data every step is affine: (x_s, x0_now) = base + A (x_t, x0_before) + c z. The map
    is read off by calling the rule on unit vectors, then mean and covariance go through it exactly,
    beginning with the true distribution of x_T.
    """
    denoiser, rule = gaussian(schedule, deviation), SAMPLERS[sampler]
    alpha, sigma = schedule.alpha[grid[0]].item(), schedule.sigma[grid[0]].item()
    mean = torch.tensor([alpha * MEAN, 0.0], dtype=torch.float64)
    covariance = torch.zeros(2, 2, dtype=torch.float64)
    covariance[0, 0] = (alpha * deviation) ** 2 + sigma**2
    x, x0_before, z = torch.eye(4, dtype=torch.float64)[:, 1:].unsqueeze(2).unbind(1)
    history: list[Prediction] = []
    for t, s in itertools.pairwise(grid):
        now = denoiser(x, t)
        x_s = rule(denoiser, now, s, history, lambda: z)
        base, *columns = torch.cat([x_s, now.x0], dim=1)
        A, c = torch.stack([columns[0] - base, columns[1] - base], dim=1), columns[2] - base
        mean, covariance = base + A @ mean, A @ covariance @ A.T + torch.outer(c, c)
        history = [Prediction(x, t, x0_before, x, x, x)]
    return mean[0].item(), covariance[0, 0].sqrt().item()


@pytest.mark.parametrize(("steps", "share"), [(20, 0.738), (100, 0.917), (1000, 0.989)])
def test_ddpm_draws_too_narrow_at_few_steps(steps: int, share: float) -> None:
    mean, deviation = moments(LINEAR, "ddpm", LINEAR.timesteps(steps))
    assert mean == pytest.approx(MEAN, abs=5e-3 if steps == 20 else 1e-3)
    assert deviation / DEVIATION == pytest.approx(share, abs=6e-4)


@every_schedule
@pytest.mark.parametrize(
    ("sampler", "low", "high"), [("ddpm", 0.9, 1.1), ("dpmpp_2m_sde", 1.8, 2.2)]
)
def test_bias_of_the_deviation_decays(
    schedule: Schedule, sampler: str, low: float, high: float
) -> None:
    """Measured inside the interval: order 0.96–1.00 for ddpm, 1.89–2.09 for dpmpp_2m_sde."""
    exact = math.sqrt((schedule.alpha[200] * DEVIATION) ** 2 + schedule.sigma[200] ** 2)
    biases = []
    for steps in (20, 40, 80, 160):
        grid = list(range(840, 199, -640 // steps))
        mean, deviation = moments(schedule, sampler, grid)
        assert mean == pytest.approx(schedule.alpha[200].item() * MEAN, rel=1e-9)
        biases.append(abs(deviation / exact - 1))
    for coarse, fine in itertools.pairwise(biases):
        assert low < math.log2(coarse / fine) < high


@every_schedule
def test_bias_of_ddpm_halves_with_twice_the_steps_down_to_the_data(schedule: Schedule) -> None:
    """Measured: from 500 to 1000 steps it falls by a factor of 1.90 to 1.97."""
    bias = [
        1 - moments(schedule, "ddpm", schedule.timesteps(n))[1] / DEVIATION for n in (500, 1000)
    ]
    assert 1.8 < bias[0] / bias[1] < 2.1


def test_exact_moments_are_those_of_real_samples() -> None:
    """The affine bookkeeping above, held against 20,000 draws."""
    n, grid = 20_000, LINEAR.timesteps(10)
    for sampler in ("ddpm", "dpmpp_2m_sde"):
        mean, deviation = moments(LINEAR, sampler, grid)
        start = LINEAR.add_noise(MEAN + DEVIATION * noise(n, 1), noise(n, 1, seed=1), 1000)
        x = sample(gaussian(LINEAR), start, sampler, 10, generator=seeded(2))
        assert x.mean().item() == pytest.approx(mean, abs=5 * deviation / n**0.5)
        assert x.std().item() == pytest.approx(deviation, abs=5 * deviation / (2 * n) ** 0.5)


def test_ddpm_step_is_the_posterior_written_with_betas() -> None:
    """Ho et al. 2020, eq. 6 and 7, term by term, for s = t − 1."""
    x, x0, z = noise(9), noise(9, seed=1), noise(9, seed=2)
    betas, cumprod = LINEAR.betas, LINEAR.alphas_cumprod
    for t in (2, 3, 500, 1000):
        beta, now, earlier = betas[t - 1], cumprod[t], cumprod[t - 1]
        mean = earlier.sqrt() * beta / (1 - now) * x0
        mean = mean + (1 - beta).sqrt() * (1 - earlier) / (1 - now) * x
        variance = (1 - earlier) / (1 - now) * beta
        actual = move(LINEAR, x, t, t - 1, x0, lambda: z, eta=1.0)
        torch.testing.assert_close(actual, mean + variance.sqrt() * z, rtol=1e-9, atol=1e-9)


@every_schedule
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_move_with_the_true_data_keeps_the_marginal(schedule: Schedule, eta: float) -> None:
    """Given x_0, a step from q(x_t | x_0) must land in q(x_s | x_0), for every eta and stride."""
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    for t, s in [(1000, 999), (1000, 500), (700, 20), (3, 2), (2, 1), (1, 0)]:

        def to(x: Tensor, x0: Tensor, z: Tensor, t: int = t, s: int = s) -> float:
            return move(schedule, x, t, s, x0, lambda: z, eta).item()

        alpha_t, sigma_t = schedule.alpha[t].item(), schedule.sigma[t].item()
        mean = alpha_t * to(one, zero, zero) + to(zero, one, zero)
        variance = (sigma_t * to(one, zero, zero)) ** 2 + to(zero, zero, one) ** 2
        assert mean == pytest.approx(schedule.alpha[s].item(), rel=1e-12)
        assert variance == pytest.approx(schedule.sigma[s].item() ** 2, rel=1e-9)


def test_ddim_with_eta_1_is_ddpm() -> None:
    x_T = noise(10, 2)
    expected = sample(mixture(LINEAR), x_T, "ddpm", 10, generator=seeded())
    actual = sample(mixture(LINEAR), x_T, "ddim", 10, generator=seeded(), eta=1.0)
    assert torch.equal(actual, expected)
    halfway = sample(mixture(LINEAR), x_T, "ddim", 10, generator=seeded(), eta=0.5)
    assert not torch.allclose(halfway, expected)


@pytest.mark.parametrize("name", ["linear", "cosine, zero SNR", "straight"])
def test_samples_of_a_mixture_follow_it(name: str) -> None:
    schedule, n = SCHEDULES[name], 3000
    denoiser = mixture(schedule)
    x = sample(denoiser, noise(n, 2), "ddpm", 200, generator=seeded(1))
    deviation = denoiser.covariances[:, 0, 0].sqrt()
    distance = (x[:, None] - denoiser.means).norm(dim=-1) / deviation
    nearest = distance.argmin(1)
    assert distance.min(1).values.max() < 5
    share = nearest.bincount(minlength=3) / n
    # four standard errors of a share of one half
    torch.testing.assert_close(share.double(), denoiser.weights, rtol=0, atol=4 * 0.5 / n**0.5)
    for k in range(3):
        spread = (distance[nearest == k, k].square().mean() / 2).sqrt()
        assert 0.85 < spread < 1.05  # measured 0.90 to 1.00: narrow by the bias above


# ---- parity with diffusers -----------------------------------------------------------------------


def run_diffusers(
    oracle: Any, schedule: Schedule, denoiser: Denoiser, x: Tensor, steps: int, **options: Any
) -> list[Tensor]:
    """Their scheduler on our tables in float64. Their index i is our t = i + 1."""
    oracle.alphas_cumprod = schedule.alphas_cumprod[1:]
    oracle.one = oracle.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    oracle.set_timesteps(steps)
    assert [int(i) + 1 for i in oracle.timesteps] == schedule.timesteps(steps)[:-1]
    if hasattr(oracle, "sigmas"):  # DPM-Solver++, which rounds them to float32
        sigmas = [(schedule.sigma / schedule.alpha)[t] for t in schedule.timesteps(steps)]
        oracle.sigmas = torch.stack(sigmas)
    states = []
    for i in oracle.timesteps:
        # v, so that their conversion to x_0 is held against ours too
        v = denoiser(x, int(i) + 1).v
        index = int(i) if isinstance(oracle, DDIMScheduler) else i
        x = oracle.step(v, index, x, generator=options["generator"], **options["step"]).prev_sample
        states.append(x)
    return states


PARITY: dict[str, tuple[type, dict[str, Any], str, dict[str, Any]]] = {
    "ddpm": (DDPMScheduler, {"clip_sample": False}, "ddpm", {}),
    "ddim": (DDIMScheduler, {"clip_sample": False}, "ddim", {"eta": 0.0}),
    "ddim, eta 0.7": (DDIMScheduler, {"clip_sample": False}, "ddim", {"eta": 0.7}),
    "2M": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}, "dpmpp_2m", {}),
    "2M SDE": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++"},
        "dpmpp_2m_sde",
        {},
    ),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("steps", [1, 2, 5, 20, 100])
@pytest.mark.parametrize("name", ["linear", "linear, zero SNR", "cosine", "cosine, zero SNR"])
@pytest.mark.parametrize("case", PARITY)
def test_parity_with_diffusers(
    case: str, name: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every state on the way agrees: to 2e-12; to 3e-10 for DDPM, whose last noise they floor."""
    scheduler, configuration, sampler, options = PARITY[case]
    schedule = SCHEDULES[name]
    if scheduler is DPMSolverMultistepScheduler:
        # It casts its state to float32: give it a torch whose float32 is float64.
        double = types.ModuleType("torch")
        double.__dict__.update(torch.__dict__, float32=torch.float64)
        monkeypatch.setattr(scheduling_dpmsolver_multistep, "torch", double)
        if schedule.alpha[-1] == 0:
            # Nor can it begin at lambda = −inf; it puts ᾱ_T = 2⁻²⁴ there, which may be more than
            # ᾱ_{T−1}. So let both begin at a small alpha.
            alpha = schedule.alpha.clone()
            alpha[-1] = alpha[-2] / 2
            schedule = Schedule(name, alpha, (1 - alpha**2).sqrt())
    oracle = scheduler(prediction_type="v_prediction", timestep_spacing="trailing", **configuration)
    x_T, denoiser = noise(32, 2, seed=4), mixture(schedule)
    theirs = run_diffusers(
        oracle, schedule, denoiser, x_T, steps, generator=seeded(5), step=options
    )
    ours = sample_steps(denoiser, x_T, sampler, steps, generator=seeded(5), **options)
    for step, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(step.x, expected, rtol=0, atol=1e-9)


def test_parity_with_diffusers_when_clipping() -> None:
    oracle = DDPMScheduler(prediction_type="v_prediction", timestep_spacing="trailing")
    free, x_T = mixture(LINEAR), noise(32, 2, seed=4)
    clipped = Guided(free, free, 1.0, clip=(-1.0, 1.0))
    theirs = run_diffusers(oracle, LINEAR, free, x_T, 20, generator=seeded(5), step={})
    ours = sample_steps(clipped, x_T, "ddpm", 20, generator=seeded(5))
    for step, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(step.x, expected, rtol=0, atol=1e-9)
    assert theirs[-1].abs().max().item() == pytest.approx(1)  # clipping did happen


# ---- the driver ----------------------------------------------------------------------------------


@every_sampler
@pytest.mark.parametrize("steps", [1, 2, 10])
def test_number_of_evaluations(sampler: str, steps: int) -> None:
    asked: list[int] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        asked.append(int(t[0]))
        return x

    sample(NetworkDenoiser(network, LINEAR, "v"), noise(2, 2), sampler, steps, generator=seeded())
    assert len(asked) == evaluations(sampler, steps)
    assert evaluations(sampler, steps) == (2 * steps - 1 if sampler == "heun" else steps)
    assert 0 not in asked  # never at the data


def test_evaluations_are_counted_and_not_guessed_from_the_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def repeated(
        denoiser: Denoiser, now: Prediction, s: int, history: History, noise: Noise, *, times: int
    ) -> Tensor:
        """heun with that many rounds."""
        x_s = ddim(denoiser, now, s, history, noise)
        for _ in range(times if s > 0 else 0):
            x0 = (now.x0 + denoiser(x_s, s).x0) / 2
            x_s = move(denoiser.schedule, now.x_t, now.t, s, x0, noise)
        return x_s

    state = torch.get_rng_state()
    monkeypatch.setitem(SAMPLERS, "mine", heun)
    assert evaluations("mine", 10) == evaluations(heun, 10) == 19
    assert evaluations(repeated, 10, times=3) == 10 + 9 * 3
    assert evaluations(dpmpp_3m, 10) == 12
    assert evaluations("ddpm", 1500) == 1500 and evaluations("ddim", 4, eta=0.5) == 4
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match=r"num_inference_steps must be from 1 .* got 0"):
        evaluations("heun", 0)
    with pytest.raises(TypeError, match="sampler 'heun' has no option 'eta'"):
        evaluations("heun", 5, eta=1.0)


@every_sampler
def test_picture_does_not_depend_on_the_batch(sampler: str) -> None:
    def draw(seeds: list[int]) -> Tensor:
        generators = [seeded(seed) for seed in seeds]
        x_T = standard_normal((len(seeds), 1, 3, 3), generators)
        return sample(doubling(LINEAR), x_T, sampler, 5, generator=generators)

    together = draw([10, 11, 12, 13, 14])
    for i in range(5):
        assert torch.equal(draw([10 + i])[0], together[i])
    assert not torch.equal(together[0], together[1])


@every_sampler
def test_same_seed_same_picture(sampler: str) -> None:
    def draw(seed: int) -> Tensor:
        generator = seeded(seed)
        x_T = standard_normal((2, 3), generator)
        return sample(doubling(LINEAR), x_T, sampler, 5, generator=generator)

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


def test_fresh_noise_depends_on_the_generator_where_there_is_any() -> None:
    x_T = noise(4, 2)
    for sampler in SAMPLERS:
        a, b = (sample(doubling(LINEAR), x_T, sampler, 5, generator=seeded(i)) for i in (0, 1))
        assert torch.equal(a, b) == (sampler not in ("ddpm", "dpmpp_2m_sde"))


def test_ordinary_differential_equations_draw_no_noise() -> None:
    x_T, state = noise(2, 2), torch.get_rng_state()
    for sampler in ("ddim", "heun", "dpmpp_2m"):
        sample(doubling(LINEAR), x_T, sampler, 5)
    assert torch.equal(torch.get_rng_state(), state)
    sample(doubling(LINEAR), x_T, "ddpm", 5)
    assert not torch.equal(torch.get_rng_state(), state)


def test_no_gradients_on_the_way_but_the_callers_own() -> None:
    weight = torch.ones((), requires_grad=True)
    denoiser = NetworkDenoiser(lambda x, t: weight * x, LINEAR, "v")
    for step in sample_steps(denoiser, noise(2, 2), num_inference_steps=3):
        assert torch.is_grad_enabled() and not step.x.requires_grad
    with torch.inference_mode():
        assert sample(denoiser, noise(2, 2), "heun", 3).is_inference()


def test_a_sampler_of_ones_own() -> None:
    def half(
        denoiser: Denoiser,
        now: Prediction,
        s: int,
        history: History,
        noise: Noise,
        *,
        share: float = 0.5,
    ) -> Tensor:
        return (1 - share) * now.x_t + share * now.x0

    x_T = noise(2, 2)
    steps = list(sample_steps(doubling(LINEAR), x_T, half, 2, share=0.25))
    assert isinstance(steps[0], Step)
    torch.testing.assert_close(steps[-1].x, 1.25**2 * x_T)
    with pytest.raises(TypeError, match="'half' has no option 'shares'; it has share"):
        sample_steps(doubling(LINEAR), x_T, half, 2, shares=0.25)


def test_a_rule_sees_the_last_predictions_newest_last() -> None:
    seen: list[tuple[int | Tensor, ...]] = []

    def watching(
        denoiser: Denoiser, now: Prediction, s: int, history: History, noise: Noise
    ) -> Tensor:
        seen.append((*(before.t for before in history), now.t, s))
        return ddim(denoiser, now, s, history, noise)

    grid = [900, 800, 600, 500, 300, 200, 100]
    sample(doubling(LINEAR), noise(1, 2), watching, timesteps=grid)
    # No more are held, however long the walk.
    assert HISTORY < 5 and seen == [tuple(grid[max(0, i - HISTORY) : i + 2]) for i in range(6)]
    seen.clear()
    watching.history = 9  # type: ignore[attr-defined]
    sample(doubling(LINEAR), noise(1, 2), watching, timesteps=grid)
    assert seen == [tuple(grid[: i + 2]) for i in range(6)]


def test_without_a_grid_the_schedule_says_how_steps_are_spaced() -> None:
    schedule, x_T = make_schedule("straight", shift=3.0), noise(4, 2)
    assert [step.t for step in sample_steps(mixture(schedule), x_T, "ddim", 4)] == [
        900,
        750,
        500,
        0,
    ]
    for shift in (1.0, 3.0):
        grid = schedule.timesteps(4, shift)
        own = sample(mixture(make_schedule("straight", shift=shift)), x_T, "ddim", 4)
        assert torch.equal(sample(mixture(schedule), x_T, "ddim", timesteps=grid), own)


# ---- errors: raised by the call itself, not by the first step ------------------------------------


def test_unknown_sampler_lists_the_known() -> None:
    known = "ddpm, ddim, heun, dpmpp_2m, dpmpp_2m_sde"
    with pytest.raises(ValueError, match=f"unknown sampler 'euler': choose one of {known}"):
        sample_steps(doubling(LINEAR), noise(1, 2), "euler")
    with pytest.raises(ValueError, match="unknown sampler"):
        evaluations("euler", 10)


def test_misspelt_options() -> None:
    with pytest.raises(TypeError, match="sampler 'ddim' has no option 'etta'; it has eta"):
        sample_steps(doubling(LINEAR), noise(1, 2), "ddim", etta=0.5)
    with pytest.raises(TypeError, match="sampler 'dpmpp_2m' has no option 'eta'; it has none"):
        sample_steps(doubling(LINEAR), noise(1, 2), eta=0.5)
    with pytest.raises(TypeError, match="no option 'num_steps'"):
        sample(doubling(LINEAR), noise(1, 2), num_steps=10)


@pytest.mark.parametrize("eta", [-0.1, 1.5, 2, math.nan, math.inf, "1", None])
def test_impossible_eta(eta: Any) -> None:
    denoiser, x = doubling(LINEAR), noise(1, 2)
    with pytest.raises(ValueError, match=f"eta must be from 0 .* got {eta!r}"):
        sample_steps(denoiser, x, "ddim", 3, eta=eta)  # by the call, before the first step
    with pytest.raises(ValueError, match=f"eta must be from 0 .* got {eta!r}"):
        ddim(denoiser, denoiser(x, 500), 400, [], lambda: x, eta=eta)


@pytest.mark.parametrize("number", [np.float32, np.float64, torch.tensor])
def test_numbers_of_numpy_and_torch_are_as_good(number: Any) -> None:
    # with its few digits float32 had more fresh noise than there is noise at all
    denoiser = doubling(make_schedule("straight"))
    for steps in (5, 14, 15):
        expected = sample(denoiser, noise(2, 3), "ddim", steps, generator=seeded(), eta=1.0)
        got = sample(denoiser, noise(2, 3), "ddim", steps, generator=seeded(), eta=number(1.0))
        assert torch.equal(got, expected)
    assert denoiser.schedule.timesteps(7, number(2.0)) == denoiser.schedule.timesteps(7, 2.0)
    assert Guided(denoiser, denoiser, number(2.0)).guidance_scale == 2


@pytest.mark.parametrize(
    "wrong", [lambda *_: None, lambda d, now, *_: now.x0.mean(0)], ids=["nothing", "another shape"]
)
def test_a_sampler_of_ones_own_that_returns_something_else(wrong: Any) -> None:
    for steps in (1, 3):
        with pytest.raises(TypeError, match=r"the sampler must answer .* x_t, \(2, 3\), got"):
            sample(doubling(LINEAR), noise(2, 3), wrong, steps)


@pytest.mark.parametrize("key", [(5,), (0, 3), (2**70, -1)])
def test_every_kind_of_whole_number_names_a_generator(key: tuple[int, ...]) -> None:
    expected = seeded_generator(*key).initial_seed()
    kinds: list[Any] = [np.array(key, dtype=object), [torch.tensor(k) for k in key if k < 2**60]]
    if max(key) < 2**60:
        kinds.append([np.int64(k) for k in key])
    for kind in kinds:
        if len(kind) == len(key):
            assert seeded_generator(*kind).initial_seed() == expected


def test_no_two_purposes_see_the_same_numbers() -> None:
    purposes: list[Any] = [(), (3,), ("3",), ("loss",), ("noise", 3), ("noise", "3"), (3, 3)]
    seen = {seeded_generator(0, *purpose).initial_seed() for purpose in purposes}
    assert len({*seen, seeded_generator(3, 0).initial_seed()}) == len(purposes) + 1


@pytest.mark.parametrize("key", [(1.0,), ("0",), (0, True), (None,)])
def test_a_seed_that_is_no_whole_number(key: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=f"seed must be a whole number, got {key[-1]!r}"):
        seeded_generator(*key)


@pytest.mark.parametrize("sampler", [[], {}, None, 3])
def test_a_sampler_that_is_no_name(sampler: Any) -> None:
    with pytest.raises(ValueError, match=r"unknown sampler .*: choose one of ddpm"):
        sample_steps(doubling(LINEAR), noise(1, 2), sampler)


@pytest.mark.parametrize("steps", [0, -3, 1001, 2.5])
def test_impossible_numbers_of_steps(steps: Any) -> None:
    with pytest.raises(ValueError, match="num_inference_steps must be"):
        sample_steps(doubling(LINEAR), noise(1, 2), num_inference_steps=steps)


@pytest.mark.parametrize(
    "grid", [[], [500], [500, 500], [200, 400], [1001, 0], [500, -1], [500.0, 0.0], [True, False]]
)
def test_impossible_grids(grid: list[Any]) -> None:
    with pytest.raises(ValueError, match="timesteps must be two or more whole numbers from 1000"):
        sample_steps(doubling(LINEAR), noise(1, 2), timesteps=grid)


def test_wrong_number_of_generators() -> None:
    generators = [seeded(), seeded()]
    with pytest.raises(ValueError, match="2 generators for 3 pictures"):
        sample_steps(doubling(LINEAR), noise(3, 2), generator=generators)
    with pytest.raises(ValueError, match="2 generators for 3 pictures"):
        standard_normal((3, 2), generators)


# ---- the core stands alone -----------------------------------------------------------------------


def test_core_imports_only_torch_and_itself() -> None:
    folder = Path(minidiff.samplers.__file__).parent
    core = ["minidiff.schedules", "minidiff.denoisers", "minidiff.samplers"]
    for position, module in enumerate(core):
        source = (folder / (module.split(".")[1] + ".py")).read_text(encoding="utf-8")
        names = []
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0 and node.module, "relative imports hide where they lead"
                names.append(node.module)
        assert "torch" in names
        for name in names:
            allowed = name.split(".")[0] in {"torch", *sys.stdlib_module_names}
            assert allowed or name in core[:position], f"{module} imports {name}"


def test_ddpm_rule_can_be_used_alone() -> None:
    """A rule is a plain function: one step by hand is one step of the driver."""
    denoiser, x, z = mixture(LINEAR), noise(4, 2), noise(4, 2, seed=7)
    by_hand = ddpm(denoiser, denoiser(x, 500), 400, [], lambda: z)
    driven = sample(denoiser, x, "ddpm", timesteps=[500, 400], generator=seeded(7))
    assert torch.equal(by_hand, driven)
