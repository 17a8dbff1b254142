"""The transformer: shapes, text, its start, what it sees of places, and that it learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import minidiff
from helpers import Pictures, log_of, noise
from minidiff.dit import Attention, DiT, DiTConfig, places
from minidiff.model import load_model
from minidiff.networks import build, describe
from minidiff.recipe import TrainingConfig
from minidiff.training import Trainer

SMALL = DiTConfig(patch=2, width=16, depth=2, head_dim=8, text_dim=12)
X, T, TOKENS = noise(3, 1, 8, 12), torch.tensor([1, 500, 1000]), noise(3, 5, 12, seed=2)


def awake(config: DiTConfig) -> DiT:
    """In double precision, with what starts at zero made random: every part of it counts."""
    torch.manual_seed(0)
    network = DiT(config)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network.double().eval()


@pytest.fixture(scope="module")
def network() -> DiT:
    return awake(SMALL)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> bool:
    return float((a - b).detach().abs().max()) <= tolerance


@pytest.mark.parametrize(
    ("changes", "size"),
    [({}, (8, 12)), ({"text_dim": None}, (8, 8)), ({"in_channels": 3, "patch": 4}, (8, 16)),
     ({"patch": 1, "depth": 1}, (5, 3))],
)  # fmt: skip
def test_the_answer_has_the_shape_of_the_picture(
    changes: dict[str, Any], size: tuple[int, int]
) -> None:
    config = dataclasses.replace(SMALL, **changes)
    x = noise(2, config.in_channels, *size)
    tokens = None if config.text_dim is None else noise(2, 3, 12)
    y = awake(config)(x, torch.tensor([3, 900]), tokens)
    assert y.shape == x.shape and y.isfinite().all() and y.std() > 1e-3


def test_an_untrained_one_answers_zero_and_its_blocks_change_nothing() -> None:
    network = DiT(SMALL)
    assert not network(X.float(), T, TOKENS.float()).any()
    x, told, text = torch.randn(2, 6, 16), torch.randn(2, 16), torch.randn(2, 3, 16)
    assert torch.equal(network.blocks[0](x, told, text, None), x)


def test_it_hears_timestep_and_text(network: DiT) -> None:
    assert not close(network(X, T, TOKENS), network(X, T - 400 * (T > 400), TOKENS), 1e-3)
    other = TOKENS.clone()
    other[1] += 1  # only the second picture has another text
    changed = (network(X, T, TOKENS) - network(X, T, other)).abs().amax((1, 2, 3)) > 1e-4
    assert changed.tolist() == [False, True, False]


def test_padding_counts_for_nothing_and_no_text_is_an_empty_one(network: DiT) -> None:
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
    expected = network(X, T, TOKENS, mask)
    assert close(network(X, T, torch.where(mask[..., None], TOKENS, 1e3), mask), expected)
    assert close(network(X[1:2], T[1:2], TOKENS[1:2, :2]), expected[1:2])
    assert close(network(X, T)[2:], expected[2:]) and expected.isfinite().all()
    assert close(network(X, T, TOKENS[:1]), network(X, T, TOKENS[:1].expand(3, -1, -1)))


def test_attention_is_the_formula_head_by_head() -> None:
    torch.manual_seed(0)
    attention = Attention(8, head_dim=4).double()
    x, context = noise(1, 3, 8), noise(1, 5, 8, seed=1)
    q, k, v = attention.query(x)[0], attention.key(context)[0], attention.value(context)[0]
    heads = [
        torch.softmax(q[:, h] @ k[:, h].T / 2, dim=1) @ v[:, h]
        for h in (slice(0, 4), slice(4, 8))
    ]  # fmt: skip
    assert close(attention(x, context)[0], attention.out(torch.cat(heads, 1)), 1e-12)


def test_without_places_a_transformer_does_not_know_the_order(
    network: DiT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of patches in another order give the same answer in that order, unless it is told."""
    swapped = X.roll(4, dims=2)
    told = network(swapped, T, TOKENS), network(X, T, TOKENS).roll(4, dims=2)
    assert not close(*told, 1e-3)
    monkeypatch.setattr("minidiff.dit.places", lambda rows, columns, dim: torch.zeros(dim))
    assert close(network(swapped, T, TOKENS), network(X, T, TOKENS).roll(4, dims=2))


def test_every_place_is_told_apart_and_neighbours_are_alike() -> None:
    where = places(8, 16, 32)
    gaps = torch.cdist(where, where)
    assert (gaps + 9 * torch.eye(128)).min() > 0.1
    assert gaps[0, 1] < gaps[0, 5] and gaps[0, 16] < gaps[0, 16 * 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"width": 18}, "width must be a multiple of 4 and head_dim, got 18"),
     ({"patch": 0}, "patch must be a whole number"), ({"depth": 1.5}, "depth must be a whole"),
     ({"in_channels": None}, "in_channels must be a whole number")],
)  # fmt: skip
def test_a_shape_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_it_takes_the_place_of_the_u_net(tmp_path: Path) -> None:
    """By its name in a recipe: trained, saved, loaded, drawn with."""
    path = tmp_path / "mine.toml"
    path.write_text("[dit]\npatch = 2\nwidth = 32\ndepth = 2\n", encoding="utf-8")
    recipe = TrainingConfig.recipe(
        path, image_size=8, text_encoder=None, dit={"text_dim": None}, steps=60, batch_size=8,
        learning_rate=3e-3, warmup=5, log_every=20,
    )  # fmt: skip
    assert describe(recipe.network).multiple == 2 and isinstance(build(recipe.network), DiT)
    Trainer(recipe, Pictures(), tmp_path / "run").run()
    losses = [entry["loss"] for entry in log_of(tmp_path / "run")]
    assert losses[-1] < losses[0] * 0.9
    assert isinstance(load_model(tmp_path / "run" / "model")[0], DiT)
    images = minidiff.load(tmp_path / "run", device="cpu")("", num_inference_steps=2)
    assert images.shape == (1, 1, 8, 8) and images.std() > 0
