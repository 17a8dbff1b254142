"""The table of definitions that ships, and the figures of the chapters on text."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from helpers import awake
from minidiff.figures import words
from minidiff.storage import CheckpointError, read_info, write_folder
from minidiff.text import TextTokens
from minidiff.unet import UNet, UNetConfig


def small_network() -> UNet:
    return awake(UNetConfig(channels=(32, 32, 64), head_dim=16, stem=2, text_dim=8))


# ------------------------------------------------------------------- the table


def test_table_fits_the_definitions_and_is_small() -> None:
    table = words.load_definitions()
    count = len(words.definitions())
    assert len(table.texts) == count == len(set(table.texts))
    assert table.map.shape == (count, 2)
    assert table.map.min() == 0 and table.map.max() == 1 and table.map.isfinite().all()
    assert set(table.signs.unique().tolist()) == {-1.0, 1.0}
    assert table.signs.shape == (count, table.directions.shape[1])
    assert sum(path.stat().st_size for path in words.EMBEDDINGS.iterdir()) <= 400_000


def test_planes_are_even_and_at_right_angles() -> None:
    table = words.load_definitions()
    assert table.signs.mean(0).abs().max() < 0.2
    eye = torch.eye(table.directions.shape[1])
    assert torch.allclose(table.directions.T @ table.directions, eye, atol=0.01)


def test_shortlist_puts_first_what_lies_on_the_same_sides() -> None:
    table = words.load_definitions()
    for i in (5, 5000, 16000):
        vector = table.centre + table.directions @ table.signs[i]
        found = table.shortlist(vector, 3)
        assert len(found) == 3
        assert table.texts[i] == found[0]


def test_table_for_other_definitions_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "embeddings"
    shutil.copytree(words.EMBEDDINGS, folder)
    record = read_info(folder)["record"]
    write_folder(
        folder,
        {"embeddings.safetensors": {"map": torch.zeros(1)}},
        {"record": {**record, "definitions_sha256": words.digest(["gold"])}},
    )
    with pytest.raises(CheckpointError, match="build_embeddings"):
        words.load_definitions(folder)


def test_pooled_heeds_the_mask() -> None:
    tokens = torch.zeros(2, 3, 4)
    tokens[0, 0, 0], tokens[0, 1, 1] = 2.0, 2.0
    mask = torch.tensor([[True, True, False], [False, False, False]])
    expected = torch.tensor([[0.5**0.5, 0.5**0.5, 0, 0], [0, 0, 0, 0]])
    assert torch.allclose(words.pooled(TextTokens(tokens, mask)), expected)


# ------------------------------------------------------------------- looking inside


def test_attention_weights_are_those_of_the_layer() -> None:
    network = small_network()
    layer = network.middle1.attention.cross_attention  # type: ignore[union-attr]
    x, context = torch.randn(2, 16, 64), torch.randn(2, 3, 64)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]], dtype=torch.bool)[:, None, None]
    weights = words.attention_weights(layer, x, context, mask)
    assert weights.shape == (2, 4, 16, 3) and (weights[0, ..., 2] == 0).all()
    value = layer.key_value(context).chunk(2, dim=2)[1].unflatten(2, (4, -1)).transpose(1, 2)
    result = layer.out((weights @ value).transpose(1, 2).flatten(2))
    assert torch.allclose(result, layer(x, context, mask), atol=1e-5)


def test_attention_maps_are_noted_while_open_only() -> None:
    network = small_network()
    x, t, text = torch.randn(1, 1, 16, 16), torch.tensor([500]), torch.randn(1, 4, 8)
    with words.attention_maps(network) as maps:
        network(x, t, text)
        assert len(maps) == 7
        first = next(iter(maps.values()))
        assert first.shape == (1, 2, 16, 5)  # 4 × 4 places; "no text" and four tokens
        assert torch.allclose(first.sum(-1), torch.ones(1, 2, 16))
    maps.clear()
    network(x, t, text)
    assert maps == {}


# ------------------------------------------------------------------- figures


def texts_of(figure: object) -> str:
    from matplotlib.text import Text

    return "\n".join(t.get_text() for t in figure.findobj(Text))  # type: ignore[attr-defined]


def test_diagram_reads_its_sizes_from_the_network() -> None:
    shown = texts_of(words.cross_attention(small_network(), 32))
    for size in ("picture 32 × 32", "16 × 16\n32 channels", "4 × 4\n64 channels", "n × 8", "mean"):
        assert size in shown
    plain = UNet(UNetConfig(channels=(32, 32), attention=(False, True), pooled_text=False))
    shown = texts_of(words.cross_attention(plain, 16))
    assert "mean" not in shown and "16 × 16\n32 channels" in shown


def test_figures_show_what_they_are_given() -> None:
    torch.manual_seed(0)
    arrays = words.text_to_array("a b", ["a", "b"], torch.randn(2, 40), torch.randn(2, 40))
    assert "n = 2 tokens, d = 40" in texts_of(arrays)
    assert "0.25" in texts_of(
        words.similarities({"x": torch.eye(2), "y": torch.full((2, 2), 0.25)}, "ab")
    )
    panels = {"map": (torch.rand(9, 2), torch.arange(9) % 3)}
    assert "water" in texts_of(words.maps(panels, {1: "water", 2: "fire"}))
    weights = torch.full((2, 2, 7), 1 / 7)
    assert (
        texts_of(words.cross_attention_maps(torch.zeros(8, 8), weights, "abcdefg")).count("14%")
        == 7
    )
    lines = words.curves(
        [3, 2, 1], {"one": {"a": [1, 2, 3]}, "two": {"a": [1, 0, -1], "b": [0, 1, 2]}}
    )
    assert [axis.get_title() for axis in lines.axes] == ["one", "two"]
    assert lines.axes[0].xaxis_inverted()
