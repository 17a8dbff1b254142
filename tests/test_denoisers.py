"""Denoisers: conversions between predictions, clipping, guidance, and the ideal ones."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor

from helpers import SCHEDULES, noise
from minidiff.denoisers import (
    PREDICTION_TYPES,
    Denoiser,
    Guided,
    IdealDenoiser,
    NetworkDenoiser,
    training_target,
)
from minidiff.samplers import sample
from minidiff.schedules import Schedule, make_schedule
from minidiff.toys import MixtureDenoiser

LINEAR = SCHEDULES["linear"]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def mixture(schedule: Schedule) -> MixtureDenoiser:
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    means = torch.tensor([[-2.0, 0.0], [1.0, 1.0], [0.5, -1.5]], dtype=torch.float64)
    root = 0.5 * noise(3, 2, 2)
    covariances = root @ root.mT + 0.1 * torch.eye(2, dtype=torch.float64)
    return MixtureDenoiser(schedule, weights, means, covariances)


class Counting:
    """A network that counts how often it is asked and answers with factor * x."""

    def __init__(self, factor: float) -> None:
        self.factor, self.calls = factor, 0

    def __call__(self, x: Tensor, t: Tensor, **condition: object) -> Tensor:
        self.calls += 1
        return self.factor * x


# ---- conversions ---------------------------------------------------------------------------------


@every_schedule
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_exact_target_gives_back_data_and_noise(schedule: Schedule, prediction_type: str) -> None:
    last = schedule.num_train_timesteps
    t = torch.tensor([1, 2, 250, 500, last - 1, last])
    x0, eps = noise(len(t), 3, 4, seed=1), noise(len(t), 3, 4, seed=2)
    alpha, sigma = schedule.alpha[t].view(-1, 1, 1), schedule.sigma[t].view(-1, 1, 1)
    by_hand = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0, "flow": eps - x0}
    target = training_target(prediction_type, schedule, x0, eps, t)
    torch.testing.assert_close(target, by_hand[prediction_type], rtol=1e-12, atol=1e-12)

    def network(x: Tensor, t: Tensor) -> Tensor:
        return target

    if prediction_type == "eps" and schedule.alpha[-1] == 0:
        with pytest.raises(ValueError, match="alpha is 0 at t = T; use 'v', 'flow' or 'x0'"):
            NetworkDenoiser(network, schedule, prediction_type)
        return
    # A range that holds all: without one, noise prediction warns of its division.
    denoiser = NetworkDenoiser(network, schedule, prediction_type, clip=(-9, 9))
    prediction = denoiser(schedule.add_noise(x0, eps, t), t)
    # dividing by the smallest alpha (cosine at T: 5e-5) or sigma costs some digits
    torch.testing.assert_close(prediction.x0, x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(prediction.eps, eps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(prediction.v, by_hand["v"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(prediction.flow, by_hand["flow"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(prediction.score, -eps / sigma, rtol=1e-9, atol=1e-9)
    assert denoiser.loss(x0, t, eps).max() < 1e-12  # compared in float32


def test_a_single_t_serves_the_whole_batch() -> None:
    seen: list[Tensor] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return x

    NetworkDenoiser(network, LINEAR, "v")(noise(3, 1, 2, 2), 700)
    assert seen[0].tolist() == [700, 700, 700] and seen[0].dtype == torch.long


def test_loss_is_the_mean_squared_error_of_each_example() -> None:
    denoiser = NetworkDenoiser(lambda x, t: torch.zeros_like(x), LINEAR, "eps")
    x0, eps = noise(4, 1, 5, 5).float(), noise(4, 1, 5, 5, seed=1).float()
    loss = denoiser.loss(x0, torch.tensor([1, 10, 100, 1000]), eps)
    torch.testing.assert_close(loss, eps.square().mean((1, 2, 3)))


def test_loss_takes_data_and_noise_of_one_shape() -> None:
    x0, eps = noise(4, 1, 5, 5), noise(4, 1, 1, 5, seed=1)
    with pytest.raises(ValueError, match=r"x0 is \(4, 1, 5, 5\) but eps \(4, 1, 1, 5\)"):
        NetworkDenoiser(Counting(1), LINEAR, "v").loss(x0, torch.tensor([5]), eps)


@pytest.mark.parametrize("shape", [(4, 2, 8, 8), (4, 1, 8, 1), (1, 1, 8, 8), (8, 8)])
def test_an_answer_of_another_shape_is_not_broadcast(shape: tuple[int, ...]) -> None:
    denoiser = NetworkDenoiser(lambda x, t: torch.zeros(shape), LINEAR, "v")
    x, t = noise(4, 1, 8, 8).float(), torch.tensor([1, 2, 3, 4])
    for ask in (lambda: denoiser.loss(x, t, x), lambda: denoiser(x, 5)):
        with pytest.raises(TypeError, match=re.escape(f"(4, 1, 8, 8), got {shape}")):
            ask()


@pytest.mark.filterwarnings("error")
def test_a_network_of_diffusers() -> None:
    """As the docstring says: its answer is in .sample, and its timesteps count from 0."""
    torch.manual_seed(0)
    unet: Any = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    unet.eval()
    x, clip = noise(2, 1, 8, 8).float(), (-1.0, 1.0)
    with pytest.raises(TypeError, match=r"the network must answer .*, got UNet2DOutput"):
        NetworkDenoiser(unet, LINEAR, "eps", clip)(x, 1000)
    denoiser = NetworkDenoiser(lambda x_t, t: unet(x_t, t - 1).sample, LINEAR, "eps", clip)
    theirs: Any = DDIMScheduler(timestep_spacing="trailing", set_alpha_to_one=True)
    theirs.set_timesteps(10)
    expected = x
    with torch.no_grad():
        for step in theirs.timesteps:
            answer = unet(expected, step).sample
            after = theirs.step(answer, step, expected, use_clipped_model_output=True)
            expected = after.prev_sample
    ours = sample(denoiser, x, "ddim", num_inference_steps=10)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


# ---- noise prediction where hardly any of the data is left ---------------------------------------


def textbook_cosine() -> Schedule:
    u = torch.linspace(0, 1, 1001, dtype=torch.float64) * math.pi / 2
    sigma = u.sin()
    sigma[0] = 0
    return Schedule("mine", u.cos(), sigma)  # cos(π/2) is 6e-17, not 0


def test_noise_prediction_is_refused_where_alpha_is_as_good_as_zero() -> None:
    with pytest.raises(ValueError, match=r"'mine' because its alpha is 6\.1e-17 at t = T; use 'v'"):
        NetworkDenoiser(Counting(1), textbook_cosine(), "eps")
    NetworkDenoiser(Counting(1), textbook_cosine(), "v")


@pytest.mark.parametrize(("name", "smallest"), [("cosine", "5e-05"), ("linear", "0.006")])
def test_division_by_a_small_alpha_is_told(name: str, smallest: str) -> None:
    schedule, x = make_schedule(name), noise(2, 1, 4, 4)
    denoiser = NetworkDenoiser(Counting(1), schedule, "eps")
    told = f"'{name}': x_0 is divided by an alpha that falls to {smallest}, .* as clip, or train"
    for t in (1000, torch.tensor([5, 1000])):
        with pytest.warns(UserWarning, match=told):
            denoiser(x, t)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        denoiser(x, 500)
        denoiser.loss(x, torch.tensor([1000, 1000]), x)
        NetworkDenoiser(Counting(1), schedule, "eps", clip=(-1, 1))(x, 1000)
        for other in ("v", "flow", "x0"):
            NetworkDenoiser(Counting(1), schedule, other)(x, 1000)


@pytest.mark.filterwarnings("ignore:prediction_type 'eps'")
def test_small_errors_of_noise_prediction_end_far_outside_unless_clipped() -> None:
    """Why it warns: the answer of a network that is a hundredth wrong, walked down from T."""
    schedule, x = make_schedule("cosine"), noise(64, 2)

    def nearly(x_t: Tensor, t: Tensor) -> Tensor:  # of standard normal data
        return schedule.coefficients(t, like=x_t)[1] * x_t + 0.01

    ends = {
        clip: sample(NetworkDenoiser(nearly, schedule, "eps", clip), x, "ddim").abs().mean().item()
        for clip in (None, (-3.0, 3.0))
    }
    assert ends[None] > 10 and ends[-3.0, 3.0] < 1.2  # of the data: 0.8


def test_condition_reaches_the_network_and_can_be_exchanged() -> None:
    def network(x: Tensor, t: Tensor, shift: float = 0.0) -> Tensor:
        return x + shift

    denoiser = NetworkDenoiser(network, LINEAR, "x0", shift=2.0)
    x = noise(2, 1, 2, 2)
    torch.testing.assert_close(denoiser(x, 5).x0, x + 2)
    torch.testing.assert_close(denoiser.given(shift=-1.0)(x, 5).x0, x - 1)
    torch.testing.assert_close(denoiser(x, 5).x0, x + 2)
    with pytest.raises(TypeError, match="shfit"):
        denoiser.given(shfit=1.0)(x, 5)


def test_unknown_prediction_type_lists_the_known() -> None:
    with pytest.raises(ValueError, match="'noise': choose one of eps, x0, v, flow"):
        NetworkDenoiser(Counting(1), LINEAR, "noise")


# ---- clipping ------------------------------------------------------------------------------------


@every_schedule
def test_clipping_holds_x0_inside_and_derives_eps_again(schedule: Schedule) -> None:
    x = 3 * noise(5, 1, 3, 3)
    for t in (1, 400, schedule.num_train_timesteps):
        free = NetworkDenoiser(Counting(1), schedule, "x0")(x, t)
        clipped = NetworkDenoiser(Counting(1), schedule, "x0", clip=(-1, 0.5))(x, t)
        assert free.x0.max() > 0.5  # else nothing is tested
        assert clipped.x0.min() >= -1 and clipped.x0.max() <= 0.5
        alpha, sigma = schedule.coefficients(t, like=x)
        torch.testing.assert_close(alpha * clipped.x0 + sigma * clipped.eps, x)


# ---- guidance ------------------------------------------------------------------------------------


def pair(clip: tuple[float, float] | None = None) -> tuple[NetworkDenoiser, NetworkDenoiser]:
    first = NetworkDenoiser(Counting(0.3), LINEAR, "v", clip)
    return first, NetworkDenoiser(Counting(-0.2), LINEAR, "v", clip)


@pytest.mark.parametrize("clip", [None, (-0.5, 0.5)])
def test_guidance_scale_1_is_the_conditional_bit_for_bit(clip: tuple[float, float] | None) -> None:
    conditional, unconditional = pair(clip)
    x = noise(3, 1, 4, 4).float()
    alone, guided = conditional(x, 300), Guided(conditional, unconditional, 1.0)
    assert torch.equal(guided(x, 300).x0, alone.x0)
    assert torch.equal(guided(x, 300).eps, alone.eps)
    assert unconditional.network.calls == 0  # type: ignore[attr-defined]
    assert guided.evaluations == 1 and Guided(conditional, unconditional, 2.0).evaluations == 2


def test_guidance_combines_first_and_clips_once() -> None:
    x, scale = 4 * noise(3, 1, 4, 4), 2.5
    for clip in (None, (-1.0, 1.0)):
        conditional = NetworkDenoiser(Counting(1.0), LINEAR, "x0", clip)
        unconditional = NetworkDenoiser(Counting(1.6), LINEAR, "x0", clip)
        combined = 1.6 * x + scale * (x - 1.6 * x)  # 0.1 x: clipping the two first would give ±1
        expected = combined if clip is None else combined.clamp(*clip)
        prediction = Guided(conditional, unconditional, scale)(x, 800)
        torch.testing.assert_close(prediction.x0, expected)
        alpha, sigma = LINEAR.coefficients(800, like=x)
        torch.testing.assert_close(alpha * expected + sigma * prediction.eps, x)
    narrow = Guided(conditional, unconditional, scale, clip=(-0.1, 0.1))(x, 800)
    torch.testing.assert_close(narrow.x0, combined.clamp(-0.1, 0.1))


def test_guidance_scale_0_is_the_unconditional() -> None:
    conditional, unconditional = pair()
    x = noise(2, 1, 4, 4)
    guided = Guided(conditional, unconditional, 0)(x, 10)
    torch.testing.assert_close(guided.x0, unconditional(x, 10).x0)
    torch.testing.assert_close(guided.eps, unconditional(x, 10).eps)


def test_guidance_of_guidance_counts_every_network_call() -> None:
    inner = Guided(*pair(), guidance_scale=2.0)
    assert Guided(inner, pair()[1], 3.0).evaluations == 3


@pytest.mark.parametrize("scale", [-0.5, 2e6, math.nan, math.inf, "3", None, [3.0]])
def test_impossible_guidance_scales(scale: Any) -> None:
    message = f"guidance_scale must be a number from 0 to 1e6 (1 = off), got {scale!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        Guided(*pair(), guidance_scale=scale)


# ---- ideal denoisers -----------------------------------------------------------------------------


@every_schedule
def test_ideal_denoiser_is_the_weighted_average_by_brute_force(schedule: Schedule) -> None:
    data, x, t = noise(7, 1, 2, 3), noise(4, 1, 2, 3, seed=1), torch.tensor([1, 300, 700, 1000])
    prediction = IdealDenoiser(schedule, data)(x, t)
    for i in range(len(x)):
        a, s = schedule.alpha[t[i]].item(), schedule.sigma[t[i]].item()
        squares = [(x[i] - a * d).square().sum().item() for d in data]
        weights = [math.exp(-(square - min(squares)) / (2 * s**2)) for square in squares]
        average = sum(w * d for w, d in zip(weights, data)) / sum(weights)
        torch.testing.assert_close(prediction.x0[i], average)
    alpha, sigma = schedule.coefficients(t, like=x)
    torch.testing.assert_close(alpha * prediction.x0 + sigma * prediction.eps, x)


def test_ideal_denoiser_answers_the_nearest_example_where_there_is_hardly_noise() -> None:
    data = noise(50, 1, 8, 8).float()
    x = LINEAR.add_noise(data[:10], noise(10, 1, 8, 8, seed=3).float(), 1)
    torch.testing.assert_close(IdealDenoiser(LINEAR, data)(x, 1).x0, data[:10])


def test_ideal_denoiser_answers_the_mean_of_the_data_where_there_is_only_noise() -> None:
    data, schedule = noise(50, 2), SCHEDULES["straight"]
    x0 = IdealDenoiser(schedule, data)(noise(3, 2, seed=1), 1000).x0
    torch.testing.assert_close(x0, data.mean(0).expand(3, 2))


@every_schedule
def test_mixture_score_is_the_gradient_of_its_log_density(schedule: Schedule) -> None:
    denoiser = mixture(schedule)
    t = torch.tensor([1, 50, 300, 600, 999, 1000]).repeat_interleave(5)
    x = noise(len(t), 2).requires_grad_()
    (gradient,) = torch.autograd.grad(denoiser.log_density(x, t).sum(), x)
    torch.testing.assert_close(denoiser(x.detach(), t).score, gradient, rtol=1e-6, atol=1e-8)


def test_mixture_density_integrates_to_one() -> None:
    axis = torch.linspace(-9, 9, 361, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    total = mixture(LINEAR).log_density(x, 300).exp().sum() * 0.05**2
    assert total.item() == pytest.approx(1, abs=1e-6)


def test_mixture_of_narrow_peaks_is_the_ideal_denoiser_of_their_means() -> None:
    data = noise(6, 2)
    covariances = torch.full((6, 1, 1), 1e-12, dtype=torch.float64) * torch.eye(2)
    weights = torch.full((6,), 1 / 6, dtype=torch.float64)
    peaks, spikes = MixtureDenoiser(LINEAR, weights, data, covariances), IdealDenoiser(LINEAR, data)
    x = noise(20, 2, seed=1)
    for t in (100, 500, 1000):
        torch.testing.assert_close(peaks(x, t).x0, spikes(x, t).x0, rtol=1e-6, atol=1e-6)


def test_posterior_mean_of_one_gaussian_by_monte_carlo() -> None:
    """E[x_0 | x_t] is the straight-line regression of x_0 on x_t when all is Gaussian."""
    mean, deviation, t, n = 0.7, 0.4, 400, 400_000
    one = torch.ones(1, dtype=torch.float64)
    denoiser = MixtureDenoiser(LINEAR, one, mean * one[None], deviation**2 * one[None, None])
    x0 = mean + deviation * noise(n, 1)
    x = LINEAR.add_noise(x0, noise(n, 1, seed=1), t)
    slope = ((x0 - x0.mean()) * (x - x.mean())).mean() / x.var()
    at = torch.tensor([[-1.0], [0.0], [2.0]], dtype=torch.float64)
    expected = x0.mean() + slope * (at - x.mean())
    torch.testing.assert_close(denoiser(at, t).x0, expected, rtol=0, atol=0.01)


def test_base_class_answers_nothing() -> None:
    with pytest.raises(NotImplementedError):
        Denoiser(LINEAR)(noise(1, 2), 5)


# ---- own denoisers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [lambda x: 0.5 * x, lambda x: (x.mean(0, keepdim=True), x), lambda x: (x, None)],
    ids=["one tensor", "another shape", "nothing"],
)
def test_an_estimate_is_two_tensors_like_x(answer: Any) -> None:
    class Mine(Denoiser):
        def estimate(self, x_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
            estimate: tuple[Tensor, Tensor] = answer(x_t)
            return estimate

    with pytest.raises(TypeError, match=r"a denoiser must answer .* x_t, \(2, 3\), got"):
        Mine(LINEAR)(noise(2, 3), 500)


@pytest.mark.parametrize("clip", [(1, -1), (0, 0), (-1, math.nan), 1.0, (1, 2, 3), ("a", "b"), ()])
def test_impossible_clips(clip: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"low < high, got {clip!r}")):
        NetworkDenoiser(Counting(1), LINEAR, "v", clip)


def test_guidance_that_clips_is_not_warned_of_division() -> None:
    schedule, x = make_schedule("cosine"), noise(2, 3)
    parts = [NetworkDenoiser(Counting(1), schedule, "eps") for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Guided(parts[0], parts[1], 2.0, clip=(-1, 1))(x, 1000)
    with pytest.warns(UserWarning, match="Give the range of the data as clip"):
        Guided(parts[0], parts[1], 2.0)(x, 1000)


def test_as_many_timesteps_as_pictures() -> None:
    denoiser = NetworkDenoiser(lambda x, t: x * t.view(-1, 1), LINEAR, "v")
    x, t = noise(3, 2), torch.tensor([1, 500, 1000])
    torch.testing.assert_close(denoiser.output(x, t[:, None]), denoiser.output(x, t))
    with pytest.raises(ValueError, match="3 timesteps for 1 examples"):
        denoiser(x[:1], t)
    with pytest.raises(ValueError, match="from 1 to 1000, got 0"):
        IdealDenoiser(LINEAR, x).weights(x, 0)
