"""The U-Net: shapes, masks, its start at zero, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import minidiff
from helpers import awake, noise, odd_defaults
from minidiff.recipe import TrainingConfig
from minidiff.unet import Attention, ResBlock, UNet, UNetConfig, timestep_embedding

TEXT = UNetConfig(channels=(32, 32), attention=(False, True), head_dim=16, text_dim=12)
NO_TEXT = dataclasses.replace(TEXT, text_dim=None)


@pytest.fixture(scope="module")
def network() -> UNet:
    return awake(TEXT).double()


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> bool:
    return float((a - b).detach().abs().max()) <= tolerance


X, T, TOKENS = noise(3, 1, 8, 8), torch.tensor([1, 500, 1000]), noise(3, 5, 12, seed=2)


# ----------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, (16, 16)),
        ({"text_dim": None}, (16, 16)),
        ({"pooled_text": False}, (16, 16)),
        ({"in_channels": 3}, (16, 16)),
        ({"in_channels": 3, "stem": 2, "text_dim": None}, (16, 16)),
        ({"stem": 4}, (16, 16)),
        ({"stem": 2}, (8, 20)),  # not square
        ({"channels": (32,), "attention": (True,)}, (5, 7)),  # one level: any size
        ({"channels": (32, 64, 96), "attention": (False, True, True)}, (8, 12)),
        ({"blocks": 2, "attention": (True, False), "channels": (16, 48)}, (8, 8)),
    ],
)
def test_the_output_has_the_shape_of_the_input(
    changes: dict[str, Any], size: tuple[int, int]
) -> None:
    config = dataclasses.replace(TEXT, **changes)
    x = noise(2, config.in_channels, *size)
    tokens = None if config.text_dim is None else noise(2, 3, 12)
    y = awake(config).double()(x, torch.tensor([3, 900]), tokens)
    assert y.shape == x.shape and y.dtype == x.dtype
    assert y.isfinite().all() and y.std() > 1e-3
    assert y.is_contiguous()


def test_an_untrained_network_answers_zero() -> None:
    y = UNet(TEXT)(X.float(), T, TOKENS.float())
    assert torch.equal(y, torch.zeros(X.shape))


def test_every_block_starts_as_the_identity() -> None:
    network = UNet(TEXT).double()
    embedding, text = noise(2, 32), noise(2, 3, 32)
    x = noise(2, 32, 4, 4)
    assert torch.equal(network.middle1(x, embedding, text, None), x)
    assert torch.equal(network.middle2(x, embedding), x)


def test_the_recipe_of_the_shipped_model_keeps_to_its_size() -> None:
    recipe = Path(minidiff.__file__).parent / "recipes" / "glyph64.toml"
    config = TrainingConfig.from_dict(tomllib.loads(recipe.read_text(encoding="utf-8")))
    parameters = sum(p.numel() for p in UNet(config.network).parameters())
    assert 2e6 < parameters <= 4.9e6


def test_convolutions_lie_in_channels_last_order(network: UNet) -> None:
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) > 10
    for conv in convolutions:
        assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    seen: list[bool] = []
    hook = network.middle1.register_forward_hook(
        lambda _module, _inputs, y: seen.append(y.is_contiguous(memory_format=torch.channels_last))
    )
    network(X, T, TOKENS)
    hook.remove()
    assert seen == [True]  # and the activations follow


# ------------------------------------------------------------------------------ text and mask


def test_text_changes_the_picture(network: UNet) -> None:
    other = noise(3, 5, 12, seed=3)
    assert not close(network(X, T, TOKENS), network(X, T, other), 1e-3)
    assert not close(network(X, T, TOKENS), network(X, T), 1e-3)
    swapped = TOKENS.clone()
    swapped[1] = other[1]  # only the second picture has another text
    changed = (network(X, T, TOKENS) - network(X, T, swapped)).abs().amax((1, 2, 3)) > 1e-4
    assert changed.tolist() == [False, True, False]


@pytest.mark.parametrize("pooled", [True, False])
def test_padding_cannot_change_the_output(pooled: bool) -> None:
    network = awake(dataclasses.replace(TEXT, pooled_text=pooled)).double()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]).bool()
    expected = network(X, T, TOKENS, mask)
    longer = torch.cat([TOKENS, 100 * noise(3, 6, 12, seed=4)], dim=1)
    longer_mask = torch.cat([mask, torch.zeros(3, 6, dtype=torch.bool)], dim=1)
    assert close(network(X, T, longer, longer_mask), expected)
    # whatever stands behind the mask, also inside the prompt
    other = torch.where(mask[..., None], TOKENS, 1e4 * noise(3, 5, 12, seed=5))
    assert close(network(X, T, other, mask), expected)
    # and cut off altogether, one picture at a time
    for i in range(3):
        alone = network(X[i : i + 1], T[i : i + 1], TOKENS[i : i + 1, : int(mask[i].sum())])
        assert close(alone, expected[i : i + 1])
    # a mask that hides nothing is none
    assert close(network(X, T, TOKENS, torch.ones(3, 5).bool()), network(X, T, TOKENS))
    assert not close(expected, network(X, T, TOKENS), 1e-3)  # and one that hides something is not


@pytest.mark.parametrize("pooled", [True, False])
def test_an_empty_prompt_is_no_text(pooled: bool) -> None:
    network = awake(dataclasses.replace(TEXT, pooled_text=pooled)).double()
    expected = network(X, T)
    hidden = torch.zeros(3, 5, dtype=torch.bool)
    assert close(network(X, T, TOKENS, hidden), expected)
    none = torch.zeros(3, 0, 12), torch.zeros(3, 0, dtype=torch.bool)
    assert torch.equal(network(X, T, *none), expected)
    # one empty prompt among others
    hidden[0] = True
    mixed = network(X, T, TOKENS, hidden)
    assert close(mixed[1:], expected[1:]) and not close(mixed[:1], expected[:1], 1e-3)
    assert mixed.isfinite().all()


def test_pooled_text_is_a_way_of_its_own() -> None:
    """With cross-attention silenced the text still comes through, but only if it is pooled."""
    for pooled in (True, False):
        network = awake(dataclasses.replace(TEXT, pooled_text=pooled)).double()
        for name, module in network.named_modules():
            if name.endswith("cross_attention"):
                assert isinstance(module, Attention)
                nn.init.zeros_(module.key_value.weight)
        same = close(network(X, T, TOKENS), network(X, T))
        assert same is not pooled
        assert hasattr(network, "pooled") is pooled


def test_masked_attention_is_softmax_over_what_is_seen() -> None:
    """Against the formula, with loops, and without NaN in the gradient."""
    torch.manual_seed(0)
    attention = Attention(8, 6, head_dim=4).double()
    for parameter in attention.out.parameters():
        nn.init.normal_(parameter)
    x, context = noise(2, 3, 8), noise(2, 4, 6, seed=2).requires_grad_()
    mask = torch.tensor([[True, False, False, False], [True, True, False, True]])
    got = attention(x, context, mask[:, None, None])
    key, value = attention.key_value(context).chunk(2, dim=2)
    query = attention.query(x)
    for b in range(2):
        for i in range(3):
            joined = torch.zeros(8, dtype=torch.float64)
            for head in (slice(0, 4), slice(4, 8)):
                score = key[b, mask[b], head] @ query[b, i, head] / math.sqrt(4)
                joined[head] = torch.softmax(score, 0) @ value[b, mask[b], head]
            assert torch.allclose(got[b, i], attention.out(joined), atol=1e-12)
    got.square().sum().backward()
    assert context.grad is not None and context.grad.isfinite().all()
    assert not context.grad[~mask].any()


# ------------------------------------------------------------------------------------- time


def test_timestep_embedding_is_the_formula() -> None:
    t = torch.tensor([0, 1, 37, 1000])
    embedding = timestep_embedding(t, 8)
    assert embedding.shape == (4, 8) and embedding.dtype == torch.float32
    for row, value in zip(embedding, t.tolist()):
        angles = [value / 10_000 ** (i / 4) for i in range(4)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        assert row.tolist() == pytest.approx(expected, abs=1e-4)


def test_what_torch_is_set_to_does_not_matter(network: UNet) -> None:
    embedding, y = timestep_embedding(T, 8), network(X, T, TOKENS)
    with odd_defaults():
        again, y_again = timestep_embedding(T, 8), network(X, T, TOKENS)
    assert torch.equal(again, embedding) and again.dtype == torch.float32
    assert torch.equal(y_again, y)


def test_the_timestep_changes_the_output(network: UNet) -> None:
    same = X[:1].expand(3, -1, -1, -1)
    a, b, c = network(same, T, TOKENS[:1].expand(3, -1, -1)).unbind()
    assert not close(a, b, 1e-2) and not close(b, c, 1e-2)


@pytest.mark.parametrize("channels", [16, 24, 32, 48, 64, 96, 128, 320])
def test_the_embedding_survives_the_norm_after_it(channels: int) -> None:
    """With one channel a group, GroupNorm would take out what was added to the channel."""
    torch.manual_seed(0)
    block = ResBlock(channels, channels, 8).double()
    for parameter in block.conv2.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = noise(1, channels, 4, 4)
    a, b = block(x, noise(1, 8, seed=2)), block(x, noise(1, 8, seed=3))
    assert (a - b).std() > 0.1 * (a - x).std()
    if channels >= 96:  # the shipped model was trained with these
        assert block.norm1.num_groups == 32


# -------------------------------------------------------------------- a picture beside x_t


@pytest.mark.parametrize("stem", [1, 2])
def test_a_picture_beside_x_changes_the_answer(stem: int) -> None:
    network = awake(dataclasses.replace(TEXT, condition_channels=2, stem=stem)).double()
    picture = noise(3, 2, 8, 8, seed=8)
    y = network(X, T, TOKENS, picture=picture)
    assert y.shape == X.shape  # in_channels are the data's alone
    other = picture.clone()
    other[1, 1] += 1  # only the second picture has another one beside it
    changed = (network(X, T, TOKENS, picture=other) - y).abs().amax((1, 2, 3)) > 1e-4
    assert changed.tolist() == [False, True, False]
    one = network(X, T, TOKENS, picture=picture[:1])  # for all
    assert close(one, network(X, T, TOKENS, picture=picture[:1].expand(3, -1, -1, -1)))


@pytest.mark.parametrize(
    "shape", [None, (3, 2, 8, 8), (2, 1, 8, 8), (3, 1, 4, 4), (1, 8, 8)], ids=str
)
def test_a_picture_beside_x_that_does_not_fit_is_refused(shape: tuple[int, ...] | None) -> None:
    network = awake(dataclasses.replace(NO_TEXT, condition_channels=1))
    picture = None if shape is None else torch.zeros(shape)
    with pytest.raises(ValueError) as caught:
        network(X, T, picture=picture)
    assert f"picture of shape {shape} does not fit condition_channels=1" in str(caught.value)
    assert "give one of shape (3, 1, 8, 8) or (1, 1, 8, 8)" in str(caught.value)


def test_a_network_without_a_picture_beside_x_refuses_one(network: UNet) -> None:
    with pytest.raises(ValueError, match=r"\(3, 1, 8, 8\) .*condition_channels=0: leave it out"):
        network(X, T, TOKENS, picture=X)


def test_the_answer_can_have_other_channels() -> None:
    """Twice as many, say, where a variance is learned, too."""
    for stem in (1, 2):
        network = awake(dataclasses.replace(TEXT, out_channels=2, stem=stem)).double()
        assert network(X, T, TOKENS).shape == (3, 2, 8, 8)


def test_configurations_from_before_there_was_a_picture_mean_the_same() -> None:
    """As config.json of an older checkpoint has them; the weights come in the same order."""
    old = dataclasses.asdict(TEXT)
    del old["out_channels"], old["condition_channels"]
    assert UNetConfig(**old) == TEXT
    spelled = dataclasses.replace(TEXT, out_channels=1, condition_channels=0)
    a, b = awake(TEXT).state_dict(), awake(spelled).state_dict()
    assert list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_learning_or_not_the_answer_is_the_same(network: UNet) -> None:
    """SiLU works in place only where no gradient is wanted."""
    learning = network(X, T, TOKENS)
    with torch.no_grad():
        assert torch.equal(network(X, T, TOKENS), learning)


# ------------------------------------------------------------------------------------ batch


def test_a_picture_does_not_depend_on_its_neighbours(network: UNet) -> None:
    together = network(X, T, TOKENS)
    for i in range(3):
        alone = network(X[i : i + 1], T[i : i + 1], TOKENS[i : i + 1])
        assert close(alone, together[i : i + 1])


def test_every_parameter_learns() -> None:
    """Zero-initialised layers hold back the gradient of what stands before them for some steps."""
    torch.manual_seed(0)
    network = UNet(TEXT).double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        (network(X, T, TOKENS) - noise(3, 1, 8, 8, seed=7)).square().mean().backward()
        optimizer.step()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_network_without_text_has_no_weights_for_it() -> None:
    network = UNet(NO_TEXT)
    names = [name for name, _ in network.named_parameters()]
    assert not [n for n in names if "text" in n or "cross" in n or "pooled" in n]
    assert not hasattr(network.middle1.attention, "norm2")


# ------------------------------------------------------------------------------- bad input


def test_sizes_that_cannot_be_halved_are_refused() -> None:
    network = UNet(dataclasses.replace(NO_TEXT, stem=2))
    assert network.config.multiple == 4
    for height, width in ((6, 8), (8, 6)):
        with pytest.raises(ValueError, match=rf"multiples of 4.*{height} × {width}"):
            network(torch.zeros(1, 1, height, width), T[:1])


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 8, 8), (8, 8)])
def test_pictures_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected pictures of shape \(B, 1, H, W\)"):
        UNet(NO_TEXT)(torch.zeros(shape), T[:1])


def test_tokens_of_another_width_are_refused(network: UNet) -> None:
    with pytest.raises(ValueError, match=r"width 12, got width 10.*another encoder"):
        network(X, T, noise(3, 5, 10))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": (32, 40)}, "multiples of head_dim=16, got 40"),
        ({"channels": ()}, "one entry a level"),
        ({"channels": (32, 32, 32)}, "one entry a level"),
        ({"channels": (32, 0)}, "channels must be a whole number from 1 to 65,536, got 0"),
        ({"channels": 64}, "channels must be a list with one entry a level, got 64"),
        ({"channels": "64"}, "channels must be a list with one entry a level, got '64'"),
        ({"channels": None}, "channels must be a list with one entry a level, got None"),
        ({"channels": {32: 1}}, r"channels must be a list with one entry a level, got \{32: 1\}"),
        ({"channels": (32.0, 32)}, r"channels must be a whole number from 1 to 65,536, got 32.0"),
        ({"channels": (True, 32)}, r"channels must be a whole number from 1 to 65,536, got True"),
        (
            {"channels": (2**70, 32)},
            "channels must be a whole number from 1 to 65,536, got 1180591620717411303424",
        ),
        ({"channels": (15, 15), "head_dim": 15}, "must be even, got 15"),
        ({"attention": True}, "attention must be a list with one entry a level, got True"),
        ({"attention": (0, 1)}, r"attention must be true or false, got 0"),
        ({"attention": ["no", "yes"]}, "attention must be true or false, got 'no'"),
        ({"pooled_text": "false"}, "pooled_text must be true or false, got 'false'"),
        ({"pooled_text": 1}, "pooled_text must be true or false, got 1"),
        ({"head_dim": 0}, "head_dim must be a whole number from 1 to 65,536, got 0"),
        ({"head_dim": [16]}, r"head_dim must be a whole number from 1 to 65,536, got \[16\]"),
        ({"in_channels": 0}, "in_channels must be a whole number from 1 to 65,536, got 0"),
        ({"in_channels": True}, "in_channels must be a whole number from 1 to 65,536, got True"),
        ({"blocks": 0}, "blocks must be a whole number from 1 to 65,536, got 0"),
        ({"blocks": np.float64(2)}, "blocks must be a whole number"),
        ({"stem": -1}, "stem must be a whole number from 1 to 65,536, got -1"),
        ({"stem": 1.5}, "stem must be a whole number from 1 to 65,536, got 1.5"),
        ({"out_channels": 0}, "out_channels must be a whole number from 1 to 65,536, got 0"),
        ({"out_channels": "2"}, "out_channels must be a whole number from 1 to 65,536, got '2'"),
        ({"condition_channels": -1}, "condition_channels must be a whole number from 0 to 65,536"),
        ({"condition_channels": None}, "condition_channels must be .* from 0 to 65,536, got None"),
        ({"condition_channels": True}, "condition_channels must be .* from 0 to 65,536, got True"),
        ({"text_dim": 0}, "text_dim must be a whole number from 1 to 65,536, got 0"),
        ({"text_dim": "384"}, "text_dim must be a whole number from 1 to 65,536, got '384'"),
    ],
)
def test_shapes_that_cannot_be_built_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TEXT, **changes)


def test_misspelt_settings_are_refused() -> None:
    with pytest.raises(TypeError, match="chanels"):
        UNetConfig(chanels=(32,))  # type: ignore[call-arg]


def test_lists_become_tuples() -> None:
    """As they come from TOML and JSON."""
    config = UNetConfig(channels=[32, 64], attention=[False, True])  # type: ignore[arg-type]
    assert config == UNetConfig(channels=(32, 64), attention=(False, True))
    assert hash(config) is not None


def test_numbers_of_numpy_and_torch_become_python_s() -> None:
    config = UNetConfig(
        channels=np.array([32, 64]),  # type: ignore[arg-type]
        attention=[np.False_, torch.tensor(True)],  # type: ignore[arg-type]
        blocks=np.int64(2),  # type: ignore[arg-type]
        pooled_text=np.True_,  # type: ignore[arg-type]
    )
    assert config == UNetConfig(channels=(32, 64), attention=(False, True), blocks=2)
    assert json.loads(json.dumps(dataclasses.asdict(config)))["channels"] == [32, 64]


def test_one_text_for_all_pictures(network: UNet) -> None:
    mask = torch.tensor([[True, True, True, False, False]])
    one = network(X, T, TOKENS[:1], mask)
    each = network(X, T, TOKENS[:1].expand(3, -1, -1), mask.expand(3, -1))
    assert close(one, each)


def test_texts_and_masks_that_do_not_fit(network: UNet) -> None:
    right = torch.ones(3, 5, dtype=torch.bool)
    for tokens in (TOKENS[:2], TOKENS[0]):
        with pytest.raises(ValueError, match=r"each of the 3 pictures.*got shape \([25], "):
            network(X, T, tokens)
    for mask in (right.double(), right.long(), right[:1], right[:, :4]):
        with pytest.raises(ValueError, match=r"mask must be of bool .*\(3, 5\), got torch\."):
            network(X, T, TOKENS, mask)
