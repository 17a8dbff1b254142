"""Denoisers: a network seen through a schedule.

A noisy picture x_t = alpha x_0 + sigma eps is one equation in two unknowns, the data x_0 and the
noise eps. Whatever second equation a network was trained to give (`eps`, `x0`, `v` or `flow`), the
pair can be solved; so every `Denoiser` answers with all of them, and samplers need not care.

The best possible answer is always the same thing: E[x_0 | x_t], the average of all originals that
could have led to x_t. For a finite data set it has a closed form; this ideal denoiser stands here
too, to learn from and to test with (that of a mixture of Gaussians stands in `minidiff.toys`).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from minidiff.schedules import Schedule, is_finite, number_within

#: What a network can be trained to predict, see `training_target`.
PREDICTION_TYPES = ("eps", "x0", "v", "flow")
Range = tuple[float, float] | None


@dataclass(frozen=True)
class Prediction:
    """What a denoiser says about x_t. x_t, x0 and eps have one shape, (B, ...)."""

    x_t: Tensor  #: what was asked about
    t: int | Tensor  #: how noisy it is: one timestep or (B,) of them, as asked
    x0: Tensor  #: estimate of the data, E[x_0 | x_t]
    eps: Tensor  #: estimate of the noise, E[eps | x_t]
    alpha: Tensor  #: (B or 1, 1, ...) of the schedule at t
    sigma: Tensor  #: shaped like alpha

    @property
    def v(self) -> Tensor:
        """alpha eps − sigma x_0 (Salimans & Ho 2022, appendix D)."""
        return self.alpha * self.eps - self.sigma * self.x0

    @property
    def flow(self) -> Tensor:
        """eps − x_0, the velocity along the straight line from data to noise."""
        return self.eps - self.x0

    @property
    def score(self) -> Tensor:
        """Gradient of log q(x_t) with respect to x_t: −eps / sigma (Vincent 2011)."""
        return -self.eps / self.sigma

    def clipped(self, low: float, high: float) -> Prediction:
        """The same with x_0 held within [low, high], and eps derived from it again."""
        x0 = self.x0.clamp(low, high)
        eps = (self.x_t - self.alpha * x0) / self.sigma
        return replace(self, x0=x0, eps=eps)


def _mixing(prediction_type: str, alpha: Tensor, sigma: Tensor) -> tuple[Any, Any]:
    """(a, b) such that the network's target is a x_0 + b eps."""
    if prediction_type not in PREDICTION_TYPES:
        known = ", ".join(PREDICTION_TYPES)
        raise ValueError(f"unknown prediction_type {prediction_type!r}: choose one of {known}")
    table = {"eps": (0.0, 1.0), "x0": (1.0, 0.0), "v": (-sigma, alpha), "flow": (-1.0, 1.0)}
    return table[prediction_type]


def training_target(
    prediction_type: str, schedule: Schedule, x0: Tensor, eps: Tensor, t: int | Tensor
) -> Tensor:
    """What a network of this prediction type should answer for x_t made from x0 and eps.

    Args:
        prediction_type: "eps" and "x0" are the two themselves, "v" is alpha eps − sigma x_0
            (Salimans & Ho 2022, appendix D) and "flow" is eps − x_0 (Lipman et al. 2023).
        schedule: the noise in x_t.
        x0, eps: (B, ...) data and noise.
        t: one timestep or (B,) of them.

    Returns:
        (B, ...) the target of the mean squared error.

    Raises:
        ValueError: for an unknown type.
    """
    a, b = _mixing(prediction_type, *schedule.coefficients(t, like=x0))
    return a * x0 + b * eps


def checked_answer(who: str, answer: Any, x_t: Tensor) -> Tensor:
    """The answer, known to be a tensor like x_t: another shape would be broadcast in silence.

    Raises:
        TypeError: naming who answered.
    """
    given = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
    if given != tuple(x_t.shape):
        raise TypeError(
            f"{who} must answer with a tensor of the shape of x_t, {tuple(x_t.shape)}, got {given}"
        )
    return answer


def _checked_range(clip: Any) -> Range:
    if clip is None:
        return None
    bounds = tuple(clip) if isinstance(clip, Iterable) else ()
    if len(bounds) != 2 or not all(map(is_finite, bounds)) or bounds[0] >= bounds[1]:
        raise ValueError(f"clip must be two numbers (low, high), low < high, got {clip!r}")
    return float(bounds[0]), float(bounds[1])


class Denoiser:
    """Answers "what is under the noise?": called with (x_t, t) it returns a `Prediction`.

    A subclass says how to find (x_0, eps); clipping is done here, once.

    Attributes:
        schedule: the noise that it knows.
        clip: (low, high) range of the data, or None for no clipping.
        evaluations: network calls that one call of this denoiser costs.
    """

    evaluations = 1

    def __init__(self, schedule: Schedule, clip: Range = None) -> None:
        self.schedule, self.clip = schedule, _checked_range(clip)

    def estimate(self, x_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        """(x_0, eps), unclipped; both (B, ...) like x_t."""
        raise NotImplementedError

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Prediction:
        """Ask what is under the noise.

        Args:
            x_t: (B, ...) noisy data.
            t: one timestep or (B,) of them, in 1 … T (at t = 0 nothing is to be removed).

        Raises:
            ValueError: for other timesteps.
            TypeError: if `estimate` answers in another shape.
        """
        self.schedule.checked(t, lowest=1)
        x0, eps = (checked_answer("a denoiser", answer, x_t) for answer in self.estimate(x_t, t))
        prediction = Prediction(x_t, t, x0, eps, *self.schedule.coefficients(t, like=x_t))
        if self.clip is None:
            self._warn_of_division(t)
            return prediction
        return prediction.clipped(*self.clip)

    def _warn_of_division(self, t: int | Tensor) -> None:
        """Where x_0 comes out of a division by next to nothing, say so."""


class NetworkDenoiser(Denoiser):
    """A network together with what it was trained to predict.

    Args:
        network: called as `network(x_t, t, **condition)` with x_t (B, C, H, W) and t (B,); returns
            (B, C, H, W). One of diffusers answers with an object and calls its timesteps 0 … T − 1:
            `lambda x_t, t: unet(x_t, t - 1).sample`.
        schedule: the noise that it was trained with.
        prediction_type: "eps", "x0", "v" or "flow".
        clip: (low, high) range of the data, or None for no clipping.
        condition: keyword arguments handed to the network, for instance tokens and mask.

    Raises:
        ValueError: for an unknown type, or for eps on a schedule that ends at alpha_T = 0 or as
            good as there: x_T holds nothing of the data, and x_0 = (x_T − sigma eps) / alpha would
            divide by zero.

    Warns:
        UserWarning: when, unclipped, x_0 is such a quotient with an alpha below 0.02: errors of the
            network then come out more than 50 times as large.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        schedule: Schedule,
        prediction_type: str,
        clip: Range = None,
        **condition: Any,
    ) -> None:
        super().__init__(schedule, clip)
        _mixing(prediction_type, schedule.alpha, schedule.sigma)  # refuses an unknown type
        if prediction_type == "eps" and schedule.alpha[-1] < 1e-6:
            why = f"its alpha is {schedule.alpha[-1]:.2g} at t = T; use 'v', 'flow' or 'x0'"
            wrong = f"prediction_type 'eps' cannot be used with schedule {schedule.name!r}"
            raise ValueError(f"{wrong} because {why}")
        self.network, self.prediction_type, self.condition = network, prediction_type, condition

    def given(self, **condition: Any) -> NetworkDenoiser:
        """The same denoiser under another condition."""
        other = copy.copy(self)
        other.condition = condition
        return other

    def output(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """(B, C, H, W) what the network itself says, before it is solved for x_0 and eps.

        Raises:
            ValueError: for timesteps that are not whole numbers in 1 … T.
            TypeError: if it answers with something else than one tensor of the shape of x_t, which
                would be broadcast against it in silence.
        """
        t = self.schedule.checked(t, lowest=1).to(x_t.device)
        if len(t) not in (1, len(x_t)):
            raise ValueError(f"{len(t)} timesteps for {len(x_t)} examples: give one, or each")
        t = t.expand(len(x_t))
        return checked_answer("the network", self.network(x_t, t, **self.condition), x_t)

    def estimate(self, x_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        # y = a x0 + b eps and x_t = alpha x0 + sigma eps: two equations, solved by Cramer's rule.
        alpha, sigma = self.schedule.coefficients(t, like=x_t)
        a, b = _mixing(self.prediction_type, alpha, sigma)
        y = self.output(x_t, t)
        determinant = alpha * b - sigma * a
        return (b * x_t - sigma * y) / determinant, (alpha * y - a * x_t) / determinant

    def _warn_of_division(self, t: int | Tensor) -> None:
        """Once: the same words for every t. On a GPU only where t is a number."""
        t = torch.as_tensor(t)
        on_cpu = self.prediction_type == "eps" and t.device.type == "cpu"
        if on_cpu and self.schedule.alpha[t].min() < 0.02:
            warnings.warn(
                f"prediction_type 'eps' on schedule {self.schedule.name!r}: x_0 is divided by an "
                f"alpha that falls to {self.schedule.alpha[-1]:.1g}, and so are the network's "
                "errors. Give the range of the data as clip, or train with 'v', 'flow' or 'x0'",
                stacklevel=3,
            )

    def loss(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """(B,) mean squared error of the network for each example (Ho et al. 2020, eq. 14).

        Args:
            x0, eps: (B, C, H, W) data and noise.
            t: (B,) timesteps in 1 … T.

        Raises:
            ValueError: for x0 and eps of different shapes, or timesteps that cannot be.
            TypeError: for an answer of another shape.
        """
        target = training_target(self.prediction_type, self.schedule, x0, eps, t)
        error = self.output(self.schedule.add_noise(x0, eps, t), t).float() - target
        return error.square().flatten(1).mean(1)


class Guided(Denoiser):
    """Classifier-free guidance: uncond + s (cond − uncond).

    This is eq. 6 of Ho & Salimans 2022 with s = 1 + w.

    Args:
        conditional: the denoiser that is told the text.
        unconditional: the one that is told nothing, or a negative prompt.
        guidance_scale: how far to go from one to the other. At 1 this is the conditional denoiser
            itself, bit for bit and at its cost.
        clip: range of the data; applied once, after the two are combined. By default that of the
            conditional denoiser.

    Raises:
        ValueError: for a scale that is no number from 0 to 1,000,000.
    """

    def __init__(
        self,
        conditional: Denoiser,
        unconditional: Denoiser,
        guidance_scale: float,
        clip: Range = None,
    ) -> None:
        super().__init__(conditional.schedule, conditional.clip if clip is None else clip)
        self.conditional, self.unconditional = conditional, unconditional
        wanted = "guidance_scale must be a number from 0 to 1e6 (1 = off)"  # float32 ends at 3e38
        self.guidance_scale = number_within(0, 1e6, guidance_scale, wanted)
        if self.guidance_scale != 1:
            self.evaluations = conditional.evaluations + unconditional.evaluations

    def _warn_of_division(self, t: int | Tensor) -> None:
        self.conditional._warn_of_division(t)

    def estimate(self, x_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        x0, eps = self.conditional.estimate(x_t, t)
        if self.guidance_scale == 1:
            return x0, eps
        x0_without, eps_without = self.unconditional.estimate(x_t, t)
        return (
            x0_without + self.guidance_scale * (x0 - x0_without),
            eps_without + self.guidance_scale * (eps - eps_without),
        )


class IdealDenoiser(Denoiser):
    """The best possible denoiser of a finite data set: a weighted average of its members.

    With q(x_0) = one spike on each example, the posterior mean is sum_i w_i x^(i) with
    w = softmax(−‖x_t − alpha x^(i)‖² / 2 sigma²) (Karras et al. 2022, appendix B.3). It can only
    ever give back what it has seen.

    Args:
        schedule: the noise that it knows.
        data: (N, ...) the examples, floats.
        clip: (low, high) range of the data, or None for no clipping.
    """

    def __init__(self, schedule: Schedule, data: Tensor, clip: Range = None) -> None:
        super().__init__(schedule, clip)
        schedule.coefficients(0, like=data)  # refuses what are no floats
        self.data = data
        self._flat = data.flatten(1)
        self._norms = self._flat.square().sum(1)

    def weights(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """(B, N) how likely each example is to be the original of each x_t; rows sum to 1."""
        self.schedule.checked(t, lowest=1)
        alpha, sigma = self.schedule.coefficients(t, like=x_t.flatten(1))
        # ‖x_t‖² is the same for all examples and drops out of the softmax.
        distances = alpha**2 * self._norms - 2 * alpha * (x_t.flatten(1) @ self._flat.T)
        return torch.softmax(-distances / (2 * sigma**2), dim=1)

    def estimate(self, x_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule.coefficients(t, like=x_t)
        x0 = (self.weights(x_t, t) @ self._flat).view_as(x_t)
        return x0, (x_t - alpha * x0) / sigma
