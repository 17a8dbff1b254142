"""Toy data in one and two dimensions, small enough to see all of it.

A `Mixture` of Gaussians knows its own density and score, and `MixtureDenoiser` is the best possible
denoiser for it, so what a diffusion model learns can be held against the truth. `spiral` and
`moons` are curves with a little noise: data near a manifold.
Everything is scaled to zero mean and unit deviation, like the pictures the real model trains on.
`ToyNetwork` learns any of it in seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from minidiff.denoisers import Denoiser
from minidiff.schedules import Schedule


@dataclass(frozen=True)
class Mixture:
    """A mixture of K Gaussians in d dimensions.

    The fields are in the order in which `MixtureDenoiser` takes them.
    """

    weights: Tensor  #: (K,) positive, sum 1
    means: Tensor  #: (K, d)
    covariances: Tensor  #: (K, d, d)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, d) independent draws."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn((n, self.means.shape[1]), generator=generator, dtype=self.means.dtype)
        root = torch.linalg.cholesky(self.covariances)
        return self.means[k] + (root[k] @ z[..., None])[..., 0]

    def log_density(self, x: Tensor) -> Tensor:
        """(n,) log q(x) at x (n, d)."""
        return _components(self, x)[0].logsumexp(1)

    def score(self, x: Tensor) -> Tensor:
        """(n, d) gradient of log q(x) at x (n, d): the direction in which the density grows."""
        log_density, whitened = _components(self, x)
        return -(log_density.softmax(1)[..., None] * whitened[..., 0]).sum(1)


def _components(q: Mixture, x: Tensor) -> tuple[Tensor, Tensor]:
    """Log of weight times density (n, K) and C⁻¹ (x − mean) (n, K, d, 1) under each component.

    The means (K, d) and covariances of q may also differ for each x: (n, K, d) and (n, K, d, d).
    """
    residual = (x[:, None] - q.means)[..., None]  # (n, K, d, 1)
    whitened = torch.linalg.solve(q.covariances, residual)
    energy = (residual * whitened).sum((-2, -1)) + torch.logdet(q.covariances)
    return q.weights.log() - (energy + x.shape[1] * math.log(2 * math.pi)) / 2, whitened


class MixtureDenoiser(Denoiser):
    """The best possible denoiser of a mixture of Gaussians, in closed form.

    Args:
        schedule: the noise that it knows.
        weights: (K,) positive, sum 1.
        means: (K, d).
        covariances: (K, d, d).
    """

    def __init__(
        self, schedule: Schedule, weights: Tensor, means: Tensor, covariances: Tensor
    ) -> None:
        super().__init__(schedule)
        self.weights, self.means, self.covariances = weights, means, covariances

    def _noised(self, x_t: Tensor, t: int | Tensor) -> Mixture:
        """What the mixture has become at t: means alpha m_k, covariances alpha² C_k + sigma² I."""
        alpha, sigma = (c[..., None] for c in self.schedule.coefficients(t, like=x_t))
        eye = torch.eye(x_t.shape[1], dtype=x_t.dtype, device=x_t.device)
        spread = alpha[..., None] ** 2 * self.covariances + sigma[..., None] ** 2 * eye
        return Mixture(self.weights, alpha * self.means, spread)

    def log_density(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """(B,) log q(x_t) for x_t (B, d)."""
        return self._noised(x_t, t).log_density(x_t)

    def estimate(self, x_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule.coefficients(t, like=x_t)
        log_density, whitened = _components(self._noised(x_t, t), x_t)
        # Under component k, x_0 given x_t is Gaussian around m_k + alpha C_k whitened_k.
        mean = self.means + (alpha[..., None, None] * self.covariances @ whitened)[..., 0]
        x0 = (log_density.softmax(1)[..., None] * mean).sum(1)
        return x0, (x_t - alpha * x0) / sigma


def two_peaks(deviation: float = 0.3) -> Mixture:
    """Two peaks in one dimension, the right one twice as likely, with mean 0 and variance 1.

    Args:
        deviation: of each peak, below 1.
    """
    weights = torch.tensor([1 / 3, 2 / 3])
    means = torch.tensor([[-(2**0.5)], [0.5**0.5]]) * math.sqrt(1 - deviation**2)
    return Mixture(weights, means, torch.full((2, 1, 1), deviation**2))


def ring(count: int = 8, deviation: float = 0.1) -> Mixture:
    """Equal round peaks on a circle in two dimensions, of mean 0 and variance 1 on each axis.

    Args:
        count: of the peaks, from 3.
        deviation: of each peak along each axis, below 1.
    """
    angle = torch.arange(count) * (2 * math.pi / count)
    radius = math.sqrt(2 * (1 - deviation**2))  # the mean of cos² is 1/2
    means = radius * torch.stack([angle.cos(), angle.sin()], dim=1)
    weights = torch.full((count,), 1 / count)
    return Mixture(weights, means, (deviation**2 * torch.eye(2)).repeat(count, 1, 1))


def spiral(
    n: int, generator: torch.Generator | None = None, turns: float = 1.5, noise: float = 0.02
) -> Tensor:
    """(n, 2) points evenly along a spiral, standardised.

    Args:
        turns: of the spiral.
        noise: standard deviation, where the spiral has radius 1.
    """
    angle = 2 * math.pi * turns * torch.rand(n, generator=generator).sqrt()
    arm = torch.stack([angle.cos(), angle.sin()], dim=1) * angle[:, None] / (2 * math.pi * turns)
    return standardised(arm + noise * torch.randn((n, 2), generator=generator))


def moons(n: int, generator: torch.Generator | None = None, noise: float = 0.05) -> Tensor:
    """(n, 2) points on two half circles that reach into each other, standardised.

    Args:
        noise: standard deviation, where the circles have radius 1.
    """
    angle = math.pi * torch.rand(n, generator=generator)
    upper = torch.rand(n, generator=generator) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    points = torch.stack([x, y], dim=1)
    return standardised(points + noise * torch.randn((n, 2), generator=generator))


def standardised(x: Tensor) -> Tensor:
    """x (n, d) shifted and scaled to mean 0 and deviation 1 along each axis."""
    return (x - x.mean(0)) / x.std(0)


class ToyNetwork(nn.Module):
    """A network for points: a noisy x (n, d) and its timesteps t (n,) in, a vector like x out.

    A few layers of weighted sums. The timestep is given as sines and cosines of t / T: the slow
    ones say roughly, the fast ones exactly, how much noise there is.

    Args:
        dim: d.
        width: numbers in each hidden layer.
        layers: hidden layers.
        num_train_timesteps: T.
    """

    frequencies: Tensor

    def __init__(
        self, dim: int = 2, width: int = 96, layers: int = 3, num_train_timesteps: int = 1000
    ) -> None:
        super().__init__()
        half_turns = 2.0 ** torch.arange(6) / num_train_timesteps  # the slowest: one in T steps
        self.register_buffer("frequencies", math.pi * half_turns, persistent=False)
        sizes = [dim + 2 * len(half_turns), *[width] * layers]
        hidden = [nn.Sequential(nn.Linear(a, b), nn.SiLU()) for a, b in pairwise(sizes)]
        self.layers = nn.Sequential(*hidden, nn.Linear(sizes[-1], dim))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(n, d) for x (n, d) and timesteps t (n,)."""
        angle = t[:, None] * self.frequencies
        return self.layers(torch.cat([x, angle.cos(), angle.sin()], dim=1))
