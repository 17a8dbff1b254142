"""Words: from text to vectors, and from vectors into the network.

The first part reads what `tools/data/build_embeddings.py` has made of the 16,343 different
definitions; the rest draws the figures of the chapters on text.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff import plots
from minidiff.figures import BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, arrow, bare, legend_below, new
from minidiff.figures.panels import box, lines, write
from minidiff.glyphs import DATA, load_glyphs
from minidiff.storage import CheckpointError, read_info, read_tensors
from minidiff.text import TextTokens

#: The folder with the table that ships.
EMBEDDINGS = DATA / "embeddings"


# ------------------------------------------------------------------- the definitions


def definitions() -> list[str]:
    """The different definitions, in the order in which the glyphs bring them."""
    return list(dict.fromkeys(glyph.definition for glyph in load_glyphs()))


def digest(texts: list[str]) -> str:
    """SHA-256 of a list of texts."""
    return hashlib.sha256("\n".join(texts).encode("utf-8")).hexdigest()


def pooled(text: TextTokens) -> Tensor:
    """One vector a text, (B, d): the mean of its tokens, brought to length 1."""
    mask = text.mask[..., None].float()
    mean = (text.tokens * mask).sum(1) / mask.sum(1).clamp(min=1)
    return F.normalize(mean, dim=1)


@dataclass(frozen=True)
class Definitions:
    """All different definitions and a coarse table of their vectors.

    Attributes:
        texts: N of them.
        map: (N, 2) in [0, 1], coordinates on a map of the meanings.
        signs: (N, k) ±1: on which side of k planes each definition lies.
        centre, directions: (d,) and (d, k): the planes.
    """

    texts: list[str]
    map: Tensor
    signs: Tensor
    centre: Tensor
    directions: Tensor

    def shortlist(self, vector: Tensor, count: int = 300) -> list[str]:
        """The texts that may be nearest to a vector (d,); compare these exactly."""
        scores = self.signs @ ((vector - self.centre) @ self.directions)
        return [self.texts[i] for i in scores.topk(count).indices.tolist()]


@lru_cache(maxsize=1)
def load_definitions(folder: Path = EMBEDDINGS) -> Definitions:
    """The table that ships.

    Raises:
        CheckpointError: if its files are damaged or were made for other definitions.
    """
    info = read_info(folder)
    tensors, texts = read_tensors(folder, "embeddings.safetensors", info), definitions()
    if info["record"]["definitions_sha256"] != digest(texts):
        raise CheckpointError(
            f"{folder} was made for other definitions: run tools/data/build_embeddings.py"
        )
    bits = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8)
    signs = (tensors["signs"][..., None] & bits).ne(0).flatten(1).float() * 2 - 1
    floats = (tensors[name].float() for name in ("centre", "directions"))
    return Definitions(texts, tensors["map"].float(), signs, *floats)


# ------------------------------------------------------------------- looking inside


def attention_weights(layer: Any, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
    """What a layer `minidiff.unet.Attention` weighs with; torch's own function does not return it.

    (B, m, C), (B, n, d), mask (B, 1, 1, n) or None -> (B, heads, m, n); each row sums to 1.
    """
    query = layer.query(x).unflatten(2, (layer.heads, -1)).transpose(1, 2)
    key = layer.key_value(context).chunk(2, dim=2)[0].unflatten(2, (layer.heads, -1))
    scores = query @ key.permute(0, 2, 3, 1) / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1)


@contextmanager
def attention_maps(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """While this is open, every call of the network leaves its cross-attention in the dictionary.

    The name of a layer -> weights (B, heads, places, tokens).
    """
    seen: dict[str, Tensor] = {}

    def see(name: str, layer: nn.Module, inputs: tuple[Any, ...], _: Tensor) -> None:
        with torch.no_grad():
            seen[name] = attention_weights(layer, *inputs)

    with ExitStack() as hooks:
        for name, layer in network.named_modules():
            if name.endswith("cross_attention"):
                hooks.enter_context(layer.register_forward_hook(partial(see, name)))
        yield seen


# ------------------------------------------------------------------- figures: text to vectors


def text_to_array(text: str, tokens: Sequence[str], rows: Tensor, states: Tensor) -> Any:
    """From a text to an (n, d) array, one column a token.

    Args:
        tokens: n of them.
        rows: (n, d) of the encoder's table.
        states: (n, d) what the encoder makes of them; 24 of the d numbers are drawn.
    """
    (n, d), shown = states.shape, 24
    figure, axes = new(3, 1, size=(7.0, 5.4), height_ratios=[1.0, 1.6, 2.3])
    head, *arrays = axes
    bare(head)
    head.set(xlim=(-0.5, n - 0.5), ylim=(0, 3))
    head.text((n - 1) / 2, 2.5, f"“{text}”", ha="center", va="center", fontsize=13)
    for i, token in enumerate(tokens):
        frame = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": DARK}
        head.text(i, 0.7, token, ha="center", va="center", fontsize=11, bbox=frame)
    arrow(head, ((n - 1) / 2, 2.1), ((n - 1) / 2, 1.4))
    names = ("a row of the table\nfor each token", "after the\nlanguage model")
    for axis, values, name in zip(arrays, (rows, states), names):
        part = values[:, :shown].T
        limit = float(values.std()) * 2.5
        axis.imshow(part.numpy(), cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        bare(axis)
        axis.vlines([i + 0.5 for i in range(n - 1)], -0.5, shown - 0.5, color="white", lw=14)
        label = f"{name}\n(first {shown} of {d})"
        axis.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=12)
    title = "language model: 6 layers, in each of which every token looks at all"
    arrays[1].set_title(title, color=ORANGE)
    arrays[1].set_xlabel(f"n = {n} tokens, d = {d} numbers each")
    return figure


def similarities(matrices: dict[str, Tensor], labels: Sequence[str]) -> Any:
    """Square tables of cosines side by side, the rows named once; 0.6 and less is drawn white.

    Args:
        matrices: title -> (k, k).
        labels: k of them.
    """
    figure, (axes,) = new(1, len(matrices), size=(7.2, 2.9), squeeze=False)
    for axis, (title, matrix) in zip(axes, matrices.items()):
        axis.imshow(matrix.numpy(), cmap="Blues", vmin=0.6, vmax=1.0)
        bare(axis, title)
        numbers = [[f"{value:.2f}" for value in row] for row in matrix.tolist()]
        write(axis, numbers, matrix > 0.8, fontsize=9)
    axes[0].set_yticks(range(len(labels)), labels, fontsize=10)
    axes[0].tick_params(length=0)
    return figure


def maps(panels: dict[str, tuple[Tensor, Tensor]], names: dict[int, str]) -> Any:
    """Points in two dimensions, some groups of them in colour.

    Args:
        panels: title -> places (N, 2) and groups (N,).
        names: the groups to be coloured and what to call them; the others are grey.
    """
    figure, axes = new(1, len(panels), size=(7.2, 4.0), squeeze=False)
    marks = "osD^vP"
    colours = [BLUE, ORANGE, GREEN, "#8b3fa8", "#c1272d", "#1a8a9a"]
    for axis, (title, (places, groups)) in zip(axes[0], panels.items()):
        bare(axis, title)
        size = 3.0 if len(places) > 5000 else 12.0
        axis.scatter(*places.T.numpy(), s=size / 3, c=LIGHT, linewidths=0, rasterized=True)
        for (group, name), mark, colour in zip(names.items(), marks, colours):
            look = {"s": size, "c": colour, "marker": mark, "linewidths": 0, "alpha": 0.8}
            axis.scatter(*places[groups == group].T.numpy(), label=name, **look)
    legend_below(figure, axes[0, 0], ncols=3, markerscale=2.5)
    return figure


# ------------------------------------------------------------------- figures: text in the network


def cross_attention(network: Any, image_size: int) -> Any:
    """Where the text enters the U-Net; every size is read from the network.

    Args:
        network: a `minidiff.unet.UNet`.
        image_size: height and width of the pictures.
    """
    config = network.config
    figure, axis = new(size=(7.2, 5.2))
    bare(axis)
    axis.set(xlim=(0, 10.2), ylim=(-1.1, 8.6))
    levels = len(config.channels)
    sides = [image_size // config.stem // 2**i for i in range(levels)]
    rows = [5.6 - 3.5 * i / max(1, levels - 1) for i in range(levels)]
    for x, name in ((1.9, "down"), (5.0, "up")):
        for y, side, width, attends in zip(rows, sides, config.channels, config.attention):
            _box(axis, x, y, f"{side} × {side}\n{width} channels", ORANGE if attends else GREY)
        for above, below in itertools.pairwise(rows):
            ends = (above - 0.55, below + 0.55)
            arrow(axis, (x, ends[name == "up"]), (x, ends[name != "up"]))
    _box(axis, 3.45, 0.35, f"{sides[-1]} × {sides[-1]}\nmiddle", ORANGE)
    arrow(axis, (1.9, rows[-1] - 0.55), (2.55, 0.5))
    arrow(axis, (4.35, 0.5), (5.0, rows[-1] - 0.55))
    for y in rows:
        axis.plot([2.8, 4.1], [y, y], color=GREY, ls=":", lw=1.5)
    axis.text(3.45, rows[0] - 0.5, "handed\nacross", ha="center", fontsize=9, color=DARK)
    arrow(axis, (1.9, 7.0), (1.9, 6.2))
    axis.text(1.9, 7.1, f"picture {image_size} × {image_size}", ha="center")
    arrow(axis, (5.0, 6.2), (5.0, 7.0))
    axis.text(5.0, 7.1, "prediction", ha="center")
    _text_column(axis, config, rows)
    return figure


def _text_column(axis: Any, config: Any, rows: list[float]) -> None:
    """The right side of `cross_attention`: text, its tokens, and the two ways in."""
    width = config.channels[-1]
    x, lowest = 8.55, -0.75
    axis.text(x, 0.0, "text", ha="center", va="center", fontsize=11)
    arrow(axis, (x, 0.25), (x, 0.75))
    _box(axis, x, 1.3, f"encoder (frozen)\nn × {config.text_dim}", GREY, wide=1.35)
    arrow(axis, (x, 1.85), (x, 2.35))
    added = f"linear, then one\n“no text” in front:\n(1 + n) × {width}"
    _box(axis, x, 3.1, added, ORANGE, 1.35, 0.75)
    attending = [y for y, attends in zip(rows, config.attention) if attends]
    axis.plot([7.2, 6.6, 6.6], [3.1, 3.1, lowest], color=ORANGE)
    axis.plot([6.6, 6.6], [3.1, max(attending)], color=ORANGE)
    axis.plot([6.6, 0.4, 0.4], [lowest, lowest, max(attending)], color=ORANGE)
    for y in attending:
        arrow(axis, (6.6, y), (5.9, y), color=ORANGE)
        arrow(axis, (0.4, y), (1.0, y), color=ORANGE)
    arrow(axis, (3.45, lowest), (3.45, -0.2), color=ORANGE)
    axis.text(4.0, lowest + 0.1, "cross-attention", color=ORANGE, fontsize=11, va="bottom")
    if config.pooled_text:
        arrow(axis, (x, 3.9), (x, 5.2), color=GREEN)
        axis.text(x + 0.1, 4.5, "mean", color=GREEN, fontsize=11)
    _box(axis, x, 5.75, f"timestep embedding\n{width} numbers", GREEN, wide=1.5)
    axis.text(x, 7.1, "timestep $t$", ha="center")
    arrow(axis, (x, 7.0), (x, 6.35))
    axis.plot([10.05, 10.15, 10.15, 3.45, 3.45], [5.75, 5.75, 8.1, 8.1, 6.6], color=GREEN)
    arrow(axis, (3.45, 6.9), (3.45, 6.4), color=GREEN)
    axis.text(5.0, 8.2, "added in every block", color=GREEN, fontsize=11, va="bottom")


def _box(
    axis: Any, x: float, y: float, text: str, colour: str, wide: float = 0.9, high: float = 0.55
) -> None:
    """A box around (x, y), that far to all sides."""
    box(axis, (x - wide, y - high), 2 * wide, 2 * high, text, edgecolor=colour, linewidth=2)


def cross_attention_maps(picture: Tensor, weights: Tensor, tokens: Sequence[str]) -> Any:
    """A picture and, for each token, how much every place of it attends to that token.

    Args:
        picture: (H, W) in [-1, 1].
        weights: (h, w, n), which sum to 1 over the tokens.
        tokens: n of them; at most five are shown a row.
    """
    columns = min(6, len(tokens) + 1)
    rows = -(-len(tokens) // (columns - 1))
    figure, axes = new(rows, columns, size=(7.2, 1.55 * rows), squeeze=False)
    for axis in axes.flat:
        bare(axis)
    plots.draw(axes[0, 0], picture)
    axes[0, 0].set_title("guess")
    shares = weights.mean((0, 1)).tolist()
    for i, (token, share) in enumerate(zip(tokens, shares)):
        axis = axes[i // (columns - 1), 1 + i % (columns - 1)]
        axis.imshow(weights[..., i].numpy(), cmap="Oranges", vmin=0, vmax=1)
        axis.set_title(f"{token}\n{share:.0%}")
        axis.spines[:].set(visible=True, color=LIGHT)
    return figure


def curves(t: Sequence[float], panels: Mapping[str, Mapping[str, Sequence[float]]]) -> Any:
    """Curves over t, noise at the left as in sampling.

    Args:
        panels: title -> name of a curve -> its values.
    """
    looks, style = [(BLUE, "o-"), (ORANGE, "s--"), (GREEN, "^:")], {"markersize": 4}
    figure = lines(panels, t, (7.2, 2.6), looks, style=style, legend=False, xlabel="timestep t")
    for axis in figure.axes:
        axis.axhline(0, color=GREY, lw=0.8)
        axis.invert_xaxis()
        axis.legend(fontsize=9, frameon=False)
    return figure
