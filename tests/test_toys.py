"""Toy densities: their score is the gradient of their density, and samples follow it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from minidiff import toys


def skewed_mixture() -> toys.Mixture:
    return toys.Mixture(
        torch.tensor([0.2, 0.8], dtype=torch.float64),
        torch.tensor([[-1.0, 0.5], [1.0, -0.3]], dtype=torch.float64),
        torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.1, -0.05], [-0.05, 0.4]]], dtype=torch.float64),
    )


def test_score_is_the_gradient_of_the_log_density() -> None:
    mixture = skewed_mixture()
    x = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_density(x).sum(), x)
    torch.testing.assert_close(mixture.score(x.detach()), gradient, rtol=1e-9, atol=1e-9)


def test_density_integrates_to_one() -> None:
    axis = torch.linspace(-8, 8, 801, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    total = skewed_mixture().log_density(x).exp().sum() * 0.02**2
    assert total.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("mixture", [toys.two_peaks(), toys.ring(), toys.ring(3, 0.2)])
def test_mixtures_are_standardised_and_sampled_faithfully(mixture: toys.Mixture) -> None:
    n = 40_000
    x = mixture.sample(n, torch.Generator().manual_seed(0))
    assert x.shape == (n, mixture.means.shape[1])
    # five standard errors: 5 / sqrt(n) for the mean, a little less than twice that for the variance
    assert x.mean(0).abs().max() < 0.025
    assert (x.var(0) - 1).abs().max() < 0.05
    exact = mixture.weights @ (mixture.means**2 + mixture.covariances.diagonal(dim1=1, dim2=2))
    torch.testing.assert_close(exact, torch.ones_like(exact))


@pytest.mark.parametrize("draw", [toys.spiral, toys.moons])
def test_curves_are_standardised_and_repeatable(draw: Callable[..., Tensor]) -> None:
    x = draw(500, torch.Generator().manual_seed(1))
    assert x.shape == (500, 2)
    torch.testing.assert_close(x.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(0), torch.ones(2))
    assert torch.equal(x, draw(500, torch.Generator().manual_seed(1)))
    assert not torch.equal(x, draw(500, torch.Generator().manual_seed(2)))


def test_toy_network_learns_how_noise_depends_on_the_timestep() -> None:
    """x = sigma_t · noise, and the noise is wanted: a network without t could not tell it."""
    torch.manual_seed(0)
    network = toys.ToyNetwork(dim=3, width=32, num_train_timesteps=50)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(300):
        t, noise = torch.randint(10, 51, (256,)), torch.randn(256, 3)
        prediction = network(t[:, None] / 50 * noise, t)
        loss = (prediction - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert prediction.shape == (256, 3)
    assert loss < 0.02  # without t about 0.1: it would have to divide all by the same number
    x = torch.ones(2, 3)
    low, high = network(x, torch.tensor([15, 45]))
    assert low.mean() > 2 * high.mean()


def test_toy_network_keeps_only_what_it_learns() -> None:
    names = [name for name, _ in toys.ToyNetwork(layers=1).named_parameters()]
    assert len(names) == 4
    assert list(toys.ToyNetwork(layers=1).state_dict()) == names
