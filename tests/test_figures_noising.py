"""Figures of noising and of the best denoiser: what they show is what they were given."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from minidiff.figures import noising
from minidiff.schedules import make_schedule
from minidiff.toys import MixtureDenoiser

PLAYER = Path(__file__).resolve().parents[1] / "book" / "_static" / "players" / "weights.html"


def texts(figure: Any) -> list[str]:
    """All that is written in a figure, after drawing it."""
    from matplotlib.text import Text

    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def lines(axis: Any) -> list[list[float]]:
    return [list(line.get_ydata()) for line in axis.get_lines()]


def test_density_of_noised_points_is_that_of_a_mixture_of_narrow_peaks() -> None:
    data = torch.randn((600, 2), generator=torch.Generator().manual_seed(0))
    schedule, t = make_schedule("cosine"), 400
    alpha, sigma = schedule.alpha[t].item(), schedule.sigma[t].item()
    places = torch.randn((3, 5, 2), generator=torch.Generator().manual_seed(1))
    density = noising.finite_density(data, alpha, sigma, places)
    weights, covariances = torch.full((600,), 1 / 600), torch.full((600, 2, 2), 0.0)
    mixture = MixtureDenoiser(schedule, weights, data, covariances)
    expected = mixture.log_density(places.reshape(-1, 2), t).exp().view(3, 5)
    assert density.shape == (3, 5)
    assert torch.allclose(density, expected, rtol=1e-3)


def test_density_of_noised_points_has_volume_one() -> None:
    line = torch.linspace(-4, 4, 81)
    lattice = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    density = noising.finite_density(torch.tensor([[0.5, 0.0], [-1.0, 1.0]]), 0.8, 0.6, lattice)
    assert density.sum().item() * 0.1**2 == pytest.approx(1, abs=1e-3)


def test_overview_names_all_that_the_chapter_explains() -> None:
    figure = noising.overview(torch.linspace(-3, 3, 4 * 64).view(4, 1, 8, 8))
    words = " ".join(texts(figure))
    for sign in (
        "x_0",
        "x_{t-1}",
        "x_t",
        "x_T",
        "$q(x_t | x_{t-1})$",
        r"$p_\theta(x_{t-1} | x_t)$",
    ):
        assert sign in words, sign
    pictures = [image.get_array() for image in figure.axes[0].get_images()]
    assert len(pictures) == 4 and pictures[0].min() >= -1 and pictures[3].max() <= 1


def test_one_step_puts_circles_around_the_shrunken_points() -> None:
    data = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    figure = noising.one_step(data, data, 0.5, 0.2, torch.zeros(2, 3, 2))
    circles = [line for line in figure.axes[1].get_lines() if len(line.get_xdata()) == 90]
    assert len(circles) == 4
    x, y = (torch.as_tensor(values) for values in circles[1].get_data())
    assert torch.allclose(torch.hypot(x - 0.5, y), torch.tensor(0.4), atol=1e-5)


def test_radii_has_a_row_for_each_number_of_dimensions() -> None:
    figure = noising.radii({2: torch.rand(50), 4096: torch.ones(50)})
    assert [f"$d$ = {d}" in texts(figure) for d in ("2", "4,096", "7")] == [True, True, False]


def test_heat_draws_every_path() -> None:
    t, x = torch.arange(0, 30, 10), torch.linspace(-1, 1, 5)
    paths = torch.tensor([[0.0, 0.5, 1.0], [0.1, 0.2, 0.3]])
    figure = noising.heat(t, x, torch.rand(5, 3), paths)
    drawn = torch.tensor(lines(figure.axes[0]))
    assert torch.allclose(drawn, paths)


def test_forward_has_samples_above_and_density_below() -> None:
    figure = noising.forward(torch.zeros(2, 7, 2), torch.rand(2, 9, 9), 3.0, ["early", "late"])
    assert len(figure.axes) == 4
    assert {"early", "late"} <= set(texts(figure))
    above, below = figure.axes[:2], figure.axes[2:]
    assert all(len(axis.collections[0].get_offsets()) == 7 for axis in above)
    assert all(axis.collections for axis in below)


def test_schedules_are_the_tables() -> None:
    several = [make_schedule(name) for name in ("linear", "straight")]
    figure = noising.schedules(several)
    assert {"linear", "straight"} <= set(texts(figure))
    assert lines(figure.axes[0])[1] == several[1].alpha.tolist()
    assert lines(figure.axes[1])[0] == several[0].sigma.tolist()
    assert lines(figure.axes[2])[0][500] == several[0].log_snr[500].item()


def test_guesses_marks_the_cheapest_and_shows_every_number() -> None:
    values, guess = torch.tensor([0.0, 4.0, 4.0]), torch.linspace(-1, 5, 61)
    cost = (values - guess[:, None]).square().mean(1)
    figure = noising.guesses(values, guess, cost)
    assert "best guess: 2.7" in texts(figure)
    assert sum(line.get_marker() == "s" for line in figure.axes[0].get_lines()) == 3


def test_two_points_has_the_same_lines_in_both_panels() -> None:
    x, several = torch.linspace(-1, 1, 9), {"a": torch.rand(9), "b": torch.rand(9)}
    figure = noising.two_points(x, torch.rand(2, 9), several, several)
    assert len(lines(figure.axes[1])) == len(lines(figure.axes[2])) == 2
    assert {"a", "b"} <= set(texts(figure))


def test_mixture_has_a_line_and_dots_for_each_timestep() -> None:
    x, spots = torch.linspace(-1, 1, 9), torch.tensor([-0.5, 0.0, 0.5])
    several = {100: x + 2, 900: x / 2 + 2}
    averages = {100: spots, 900: spots / 2}
    left, right = noising.mixture(x, several, several, spots, averages).axes
    curves, dots = right.get_lines()[:2], right.get_lines()[2:]
    assert [line.get_color() for line in curves] == [line.get_color() for line in dots]
    assert {line.get_linestyle() for line in dots} == {"None"}
    assert len(lines(left)) == 2 and list(dots[1].get_ydata()) == [-0.25, 0, 0.25]


def test_ideal_shows_only_glyphs_that_weigh_something() -> None:
    pictures = torch.zeros(2, 1, 8, 8)
    weights = torch.tensor([[1.0, 0.0], [0.4, 0.03]])
    figure = noising.ideal(pictures, pictures, torch.zeros(2, 2, 1, 8, 8), weights, ["a", "b"])
    words = texts(figure)
    assert [word for word in words if "%" in word] == ["100 %", "40 %", "3 %"]
    assert len([axis for axis in figure.axes if axis.get_images()]) == 7


def test_the_player_uses_the_formula_of_the_chapter() -> None:
    page = PLAYER.read_text(encoding="utf-8")
    assert "1 - t / T" in page and "/ (2 * sigma ** 2)" in page
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["theme.js"], "it needs nothing else"
    ids = set(re.findall(r'id="([\w-]+)"', page))
    used = set(re.findall(r'element\("([\w-]+)"\)', page))
    assert used <= ids, used - ids
    # All of the disc's area is the weight: 0.3 is its radius at weight 1.
    assert math.isclose(float(re.findall(r"r: ([\d.]+) \* Math\.sqrt\(w", page)[0]), 0.3)
