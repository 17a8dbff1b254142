"""Trainings followed from moment to moment, and diffusers' schedulers around our denoisers."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import ROOT
from minidiff import samplers
from minidiff.denoisers import Guided
from minidiff.schedules import make_schedule
from minidiff.storage import read_info, write_folder
from minidiff.toys import MixtureDenoiser
from minidiff.unet import UNet, UNetConfig

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("time_to_quality")


@pytest.fixture
def sixteen(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("sixteen_glyphs")


# ---- the adapter


def test_the_twin_preserves_variance_and_the_ratio_of_signal_to_noise(sixteen: Any) -> None:
    schedule = make_schedule("straight")
    cumprod = (1 - torch.tensor(sixteen.betas(schedule), dtype=torch.float64)).cumprod(0)
    ratio = (cumprod / (1 - cumprod)).sqrt()
    expected = schedule.alpha[1:] / schedule.sigma[1:]
    torch.testing.assert_close(ratio[:-1], expected[:-1], rtol=1e-9, atol=0)
    assert cumprod[-1].item() == pytest.approx(2**-24)


def test_betas_of_a_schedule_that_preserves_variance_are_its_own(sixteen: Any) -> None:
    schedule = make_schedule("linear")
    torch.testing.assert_close(torch.tensor(sixteen.betas(schedule)).double(), schedule.betas)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("algorithm", "sampler", "steps"),
    [
        ("ddpm", "ddpm", 60),
        ("dpmsolver++", "dpmpp_2m", 20),
        ("sde-dpmsolver++", "dpmpp_2m_sde", 20),
    ],
)
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_their_schedulers_walk_the_straight_line_as_ours_do(
    sixteen: Any, algorithm: str, sampler: str, steps: int, shift: float
) -> None:
    """To what float32 leaves: 2e-4 at the most; a timestep of one less or more makes it 1.4e-3."""
    schedule = make_schedule("straight")
    means = torch.tensor([[-1.2, 0.6], [1.0, 0.4], [0.0, -1.3]])
    spread = torch.tensor([0.05, 0.1, 0.02])[:, None, None] * torch.eye(2)
    exact = MixtureDenoiser(schedule, torch.tensor([0.2, 0.5, 0.3]), means, spread)
    denoiser = Guided(exact, exact, 1.0, clip=(-1.5, 1.5))
    grid = schedule.timesteps(steps, shift)
    ends = []
    for way in (sixteen.theirs(schedule, algorithm, grid), sixteen.ours(sampler, grid)):
        x = samplers.standard_normal((64, 2), samplers.seeded_generator(0))
        ends.append(way(denoiser, x, [samplers.seeded_generator(1, i) for i in range(64)]))
    assert (ends[0] - ends[1]).abs().mean() < 5e-4
    assert ends[1].std() > 0.5  # they went somewhere


# ---- going on where it was stopped


class Counting:
    """A training that counts its steps, each of a second, and keeps the count."""

    def __init__(self, folder: Path) -> None:
        self.state, self.steps, self._seconds = folder / "state", 0, 0.0
        if self.state.exists():
            self.steps = read_info(self.state)["steps"]
            self._seconds = float(self.steps)

    @property
    def seconds(self) -> float:
        return self._seconds

    @seconds.setter
    def seconds(self, value: float) -> None:
        self._seconds = float(self.steps)  # whatever the clock says

    def step(self) -> None:
        self.steps += 1

    def save(self, place: Path) -> None:
        tensors = {"model.safetensors": {"weight": torch.zeros(1)}}
        write_folder(self.state, tensors, {"steps": self.steps})
        record = {"steps": self.steps, "seconds": self.seconds}
        write_folder(place, tensors, {"record": record})


class Stopped(Exception):
    pass


class FakeJudge:
    """Sees the number that stands in every picture; stops when told to."""

    def __init__(self, patience: int) -> None:
        self.test, self.patience = SimpleNamespace(texts=["gold"]), patience

    def __call__(self, images: Tensor) -> dict[str, float]:
        if self.patience == 0:
            raise Stopped
        self.patience -= 1
        return {"excess": images.mean().item()}


def test_a_stopped_run_goes_on_from_its_last_moment(quality: Any, tmp_path: Path) -> None:
    made: list[Counting] = []
    cells: dict[str, Any] = {}
    kept: list[str] = []

    def make() -> Counting:
        made.append(Counting(tmp_path))
        return made[-1]

    def pictures(place: Path, texts: Sequence[str]) -> Tensor:
        return torch.full((1,), float(read_info(place)["record"]["steps"]))

    def follow(patience: int, moments: Sequence[float]) -> None:
        judge = FakeJudge(patience)
        quality.follow(
            make, pictures, tmp_path, moments, judge, cells, lambda: kept.append(json.dumps(cells))
        )

    with pytest.raises(Stopped):
        follow(1, [0.5, 1.0])  # the first moment is judged, the second only trained
    assert list(json.loads(kept[-1])) == ["0.5"]
    follow(99, [0.5, 1.0])
    assert len(made) == 1  # the second moment was judged by the weights that were saved
    follow(99, [0.5, 1.0, 2.0])
    assert len(made) == 2 and made[-1].steps == 120
    assert [cell["excess"] for cell in cells.values()] == [30, 60, 120]
    follow(0, [0.5, 1.0, 2.0])  # nothing is left to do
    assert len(made) == 2


def test_moments(quality: Any) -> None:
    assert quality.moments(20, 60) == ([5, 10, 20], [5, 10, 20, 40, 60])
    assert quality.moments(20, 20) == ([5, 10, 20],) * 2


def test_the_recipe_is_the_shipped_one_scaled_to_the_time(quality: Any) -> None:
    config = quality.recipe(10.0)
    assert config.network == quality.our_network().config
    assert config.learning_rate_at(1000, 0) == config.learning_rate
    assert config.learning_rate_at(1000, 450) == pytest.approx(config.learning_rate / 2)
    assert config.learning_rate_at(1000, 600) == 0


def test_diffusers_recipe_goes_on_bit_for_bit(
    quality: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps, saved and taken up for a third, are three steps; the average is kept beside."""
    pictures = (torch.arange(48 * 64 * 64) % 251).to(torch.uint8).view(48, 1, 64, 64)
    train = SimpleNamespace(images=pictures, prompts=[("gold", "metal")] * 48)
    tokens = torch.randn(2, 32, 384, generator=samplers.seeded_generator(0))

    class Texts:
        def rows(self, texts: Sequence[str]) -> Tensor:
            return torch.tensor([["gold", "metal", ""].index(text) for text in texts])

        def batch(self, rows: Tensor) -> SimpleNamespace:
            padded = torch.cat([tokens, torch.zeros(1, 32, 384)])[rows]
            return SimpleNamespace(tokens=padded, mask=(rows < 2)[:, None].expand(-1, 32))

    monkeypatch.setattr(quality, "glyphs", lambda: (train, Texts()))

    def network() -> UNet:
        return UNet(UNetConfig(channels=(32,), attention=(True,), stem=8))

    def steps(folder: Path, *counts: int) -> Any:
        for count in counts:
            run = quality.Peer(folder, network)
            for _ in range(count):
                run.step()
            run.save(folder / "minutes-1")
        return run

    once, twice = steps(tmp_path / "once", 3), steps(tmp_path / "twice", 2, 1)
    for one, other in zip(once.network.parameters(), twice.network.parameters(), strict=True):
        assert torch.equal(one, other)
    infos = [read_info(tmp_path / name / "minutes-1") for name in ("once", "twice")]
    assert infos[0]["files"] == infos[1]["files"]  # hashes of the averaged weights
    assert infos[0]["record"]["images"] == 48
    raw = once.network.state_dict()
    average = dict(zip(raw, once.average.shadow_params))
    assert any(not torch.equal(average[name], raw[name]) for name in raw)


# ---- for reading


MACHINE = {"processor": "a processor", "threads": 1}


def cell(excess: float) -> dict[str, Any]:
    return {
        "steps": 10, "seconds": 30.0, "images": 160, "parameters": 4_800_000,
        "excess": excess, "kernel": 0.1, "edge_width": 1.5, "radical_right": 0.25,
    }  # fmt: skip


def test_section_with_what_is_there_so_far(quality: Any) -> None:
    head = {"machine": MACHINE, "seed": 0, "samples": 256, "minutes": 10.0}
    some = {"diffusers": {"2.5": cell(90.0), "60": cell(20.0)}, "ours": {"2.5": cell(30.0)}}
    text = quality.section({**head, "candidates": {**some, "our network": {}}})
    assert "does not reach that: 30.0 after 2.5" in text
    assert "| minutes | diffusers | ours |" in text
    assert "| 60 | 20.0, 25%, 1.50 |  |" in text
    assert "time_to_quality.py --minutes 10 --peer-minutes 60`" in text
    some["ours"]["10"] = cell(19.0)
    text = quality.section({**head, "candidates": some})
    assert "ours has 19.0 after 10 minutes" in text
    assert text.index("| 2.5 |") < text.index("| 10 |") < text.index("| 60 |")
    assert "| minutes |" in quality.section({**head, "candidates": {}})


def test_section_of_sixteen_glyphs_says_what_is_worse(sixteen: Any) -> None:
    quick, slow = "ours, 12 steps", sixteen.THEIRS
    seconds = sixteen.summary({quick: [1.0, 1.1, 1.2], slow: [10.0, 11.0, 12.0]})
    assert seconds[quick]["times_faster_than_ddpm"] == 10
    more = {"evaluations": 12, "standard_error": 0.4}
    head = {
        "machine": MACHINE,
        "rounds": 3,
        "samples": 1034,
        "weights": "other",
        "seed": 0,
        "seconds": seconds,
    }
    cells = {quick: {**cell(3.0), **more}, slow: {**cell(1.0), **more}}
    assert "that is worse by more than twice" in sixteen.section({**head, "cells": cells})
    cells[quick]["excess"] = 1.5
    assert "they differ by less than twice" in sixteen.section({**head, "cells": cells})
    few = sixteen.section({**head, "samples": 256, "cells": cells})  # then no distance is told
    assert "excess" not in few and "10.0" in few
