"""The network: a U-Net that is told the timestep and, if you like, a text.

The picture goes down through ever smaller, ever wider levels and up again, each level handing its
activations across to its mirror image (Ronneberger et al. 2015). It has the shape of Ho et al.
2020: residual blocks that hear the timestep, and attention where the picture is small. Text enters
in two ways, as in Imagen (Saharia et al. 2022): every attention block also looks at the text's
tokens (cross-attention), and the mean of the tokens is added to the timestep embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = 65_536  # of any size: beyond, torch could not count the weights


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a `UNet`.

    Attributes:
        in_channels: channels of the data, and so of x_t; 1 for grey.
        channels: width of each level, from the full size down; the size halves between levels.
        blocks: residual blocks a level on the way down (one more on the way up).
        attention: for each level, whether its blocks are followed by attention. The middle always
            has it.
        head_dim: width of an attention head.
        stem: fold stem × stem pixels into channels before the first convolution (1 = no folding).
            The network then works on a picture stem times smaller: much cheaper, a little coarser.
        text_dim: width d of the text's tokens, or None for a network without text.
        pooled_text: also add the mean of the tokens to the timestep embedding.
        out_channels: channels of the answer, or None for as many as in_channels.
        condition_channels: channels of a picture laid beside x_t, such as a small one to enlarge.
        numbers: how many more numbers, besides t, it is told; each is embedded as t is.

    Raises:
        ValueError: for values of another type, out of range or that do not fit together, by name.
    """

    in_channels: int = 1
    channels: tuple[int, ...] = (64, 128, 128)
    blocks: int = 1
    attention: tuple[bool, ...] = (False, True, True)
    head_dim: int = 32
    stem: int = 1
    text_dim: int | None = 384
    pooled_text: bool = True
    out_channels: int | None = None
    condition_channels: int = 0
    numbers: int = 0

    def __post_init__(self) -> None:
        for name, given in dict(vars(self)).items():
            value = _plain(given)
            if name in ("channels", "attention"):
                if not isinstance(value, list | tuple):
                    raise ValueError(f"{name} must be a list with one entry a level, got {value!r}")
                value = tuple(map(_plain, value))
            object.__setattr__(self, name, value)
        if len(self.channels) != len(self.attention) or not self.channels:
            got = f"{self.channels} and {self.attention}"
            raise ValueError(f"channels and attention need one entry a level, got {got}")
        for name, flags in ("pooled_text", [self.pooled_text]), ("attention", self.attention):
            if wrong := [flag for flag in flags if type(flag) is not bool]:
                raise ValueError(f"{name} must be true or false, got {wrong[0]!r}")
        names = ("in_channels", "out_channels", "condition_channels", "numbers", "text_dim")
        sizes = [(name, getattr(self, name)) for name in (*names, "blocks", "head_dim", "stem")]
        for name, size in [*sizes, *(("channels", c) for c in self.channels)]:
            if size is None and name in ("out_channels", "text_dim"):
                continue
            least = 0 if name in ("condition_channels", "numbers") else 1
            if type(size) is not int or not least <= size <= LARGEST:
                span = f"from {least} to {LARGEST:,}"
                raise ValueError(f"{name} must be a whole number {span}, got {size!r}")
        for c in self.channels:
            if c % self.head_dim:
                raise ValueError(f"channels must be multiples of head_dim={self.head_dim}, got {c}")
        if self.channels[0] % 2:  # half of it for the sines of t, half for the cosines
            raise ValueError(f"the first of channels must be even, got {self.channels[0]}")

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of this."""
        return self.stem * 2 ** (len(self.channels) - 1)


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy and torch as Python's, which JSON can hold."""
    return value.tolist() if hasattr(value, "tolist") else value


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sines and cosines of t at `dim / 2` frequencies (Vaswani et al. 2017, section 3.5).

    Args:
        t: (B,) timesteps.
        dim: even.

    Returns:
        (B, dim), float32.
    """
    k = torch.arange(dim // 2, dtype=torch.float32, device=t.device)
    angle = t.float()[:, None] * torch.exp(k * (-math.log(10_000) / (dim // 2)))
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def _zero(layer: nn.Module) -> nn.Module:
    """Start a layer at zero, so that the block it ends begins as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _norm(channels: int) -> nn.GroupNorm:
    """Up to 32 groups, none of one or two channels: their mean, taken out, is the embedding."""
    groups = math.gcd(32, channels)
    while groups > 1 and channels < 3 * groups:
        groups //= 2
    return nn.GroupNorm(groups, channels)


def _silu(x: Tensor) -> Tensor:
    """In place, but not while learning: autograd would first copy what it overwrites."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def _embedder(width: int, embedding: int) -> nn.Sequential:
    """From the sines of a number to what the blocks hear of it."""
    return nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))


class ResBlock(nn.Module):
    """Two convolutions around a shortcut; the embedding is added between them.

    (B, in, H, W), (B, e) -> (B, out, H, W)
    """

    def __init__(self, in_channels: int, out_channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = _norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embed = nn.Linear(embedding, out_channels)
        self.norm2 = _norm(out_channels)
        self.conv2 = _zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(_silu(self.norm1(x)))
        h = h + self.embed(embedding)[:, :, None, None]
        h = self.conv2(_silu(self.norm2(h)))
        return self.shortcut(x) + h


class Attention(nn.Module):
    """Multi-head attention of x to a context (Vaswani et al. 2017, section 3.2).

    (B, m, C), (B, n, d), mask (B, 1, 1, n) or None -> (B, m, C)
    """

    def __init__(self, channels: int, context: int, head_dim: int) -> None:
        super().__init__()
        self.heads = channels // head_dim
        self.query = nn.Linear(channels, channels, bias=False)
        self.key_value = nn.Linear(context, 2 * channels, bias=False)
        self.out = _zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        def split(y: Tensor) -> Tensor:  # (B, n, C) -> (B, heads, n, C / heads)
            return y.unflatten(2, (self.heads, -1)).transpose(1, 2)

        key, value = self.key_value(context).chunk(2, dim=2)
        h = F.scaled_dot_product_attention(
            split(self.query(x)), split(key), split(value), attn_mask=mask
        )
        return self.out(h.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Pixels look at each other, then at the text, then each thinks for itself.

    (B, C, H, W), text (B, n, d) or None -> (B, C, H, W)
    """

    def __init__(self, channels: int, text_dim: int | None, head_dim: int) -> None:
        super().__init__()
        self.norm1 = _norm(channels)
        self.self_attention = Attention(channels, channels, head_dim)
        if text_dim is not None:
            self.norm2 = nn.LayerNorm(channels)
            self.cross_attention = Attention(channels, text_dim, head_dim)
        self.norm3 = nn.LayerNorm(channels)
        self.feed_forward = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.SiLU(), _zero(nn.Linear(2 * channels, channels))
        )

    def forward(self, x: Tensor, text: Tensor | None, mask: Tensor | None) -> Tensor:
        shape = x.shape
        h = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H W, C): in channels_last only a view
        normed = self.norm1(x).permute(0, 2, 3, 1).flatten(1, 2)
        h = h + self.self_attention(normed, normed)
        if text is not None:
            h = h + self.cross_attention(self.norm2(h), text, mask)
        h = h + self.feed_forward(self.norm3(h))
        return h.unflatten(1, shape[2:]).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """A residual block, followed by attention at the levels that have it."""

    def __init__(self, width: int, out: int, embedding: int, attend: bool, config: UNetConfig):
        super().__init__()
        self.block = ResBlock(width, out, embedding)
        text = None if config.text_dim is None else config.channels[-1]
        self.attention = TransformerBlock(out, text, config.head_dim) if attend else None

    def forward(
        self, x: Tensor, embedding: Tensor, text: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        x = self.block(x, embedding)
        return x if self.attention is None else self.attention(x, text, mask)


class UNet(nn.Module):
    """Text- and time-conditional U-Net; see `UNetConfig` for its shape.

    One learned "no text" token stands in front of every prompt. It is never masked, so attention
    always has something to look at, and it is all that an empty prompt has.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths, embedding = config.channels, config.channels[-1]
        channels_in = config.stem**2 * (config.in_channels + config.condition_channels)
        channels_out = config.stem**2 * (config.out_channels or config.in_channels)
        self.time = _embedder(widths[0], embedding)
        self.numbers = nn.ModuleList(_embedder(widths[0], embedding) for _ in range(config.numbers))
        for embed in self.numbers:  # no effect at first: a trained network can be given them
            _zero(cast(nn.Sequential, embed)[2])
        if config.text_dim is not None:
            text = widths[-1]  # brought to that width here, not in every attention block
            self.text = nn.Sequential(nn.Linear(config.text_dim, text), nn.LayerNorm(text))
            self.no_text = nn.Parameter(torch.randn(1, 1, text) * 0.02)
            if config.pooled_text:
                self.pooled = nn.Linear(text, embedding)

        self.conv_in = nn.Conv2d(channels_in, widths[0], 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        width, skips = widths[0], [widths[0]]
        for level, out in enumerate(widths):
            stages = nn.ModuleList()
            for _ in range(config.blocks):
                stages.append(Stage(width, out, embedding, config.attention[level], config))
                width = out
                skips.append(width)
            self.down.append(stages)
            if level < len(widths) - 1:
                self.shrink.append(nn.Conv2d(width, width, 2, stride=2))
                skips.append(width)

        self.middle1 = Stage(width, width, embedding, True, config)
        self.middle2 = ResBlock(width, width, embedding)

        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(widths))):
            stages, out = nn.ModuleList(), widths[level]
            for _ in range(config.blocks + 1):
                joined = width + skips.pop()
                stages.append(Stage(joined, out, embedding, config.attention[level], config))
                width = out
            self.up.append(stages)
            if level > 0:
                self.grow.append(nn.ConvTranspose2d(width, width, 2, stride=2))
        self.norm_out = _norm(width)
        self.conv_out = _zero(nn.Conv2d(width, channels_out, 3, padding=1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        picture: Tensor | None = None,
        numbers: Tensor | None = None,
    ) -> Tensor:
        """What the network says to x_t; what that means is for `NetworkDenoiser` to know.

        Args:
            x: (B, C, H, W), H and W multiples of `config.multiple`.
            t: (B,) timesteps in 1 … T.
            tokens: (B, n, d) text, (1, n, d) for one that all pictures have, or None for "no text".
            mask: (B, n) or (1, n) as the tokens, True where a token is real, or None if all are.
            picture: (B or 1, `config.condition_channels`, H, W), laid beside x_t.
            numbers: (B or 1, `config.numbers`), each from 0 to 1.

        Returns:
            (B, C, H, W), with C = `config.out_channels` where that is given.

        Raises:
            ValueError: for pictures, tokens, a mask or numbers of a shape that it cannot read.
        """
        x = self._beside(x, picture)
        embedding = self._embedded(t, numbers, x)
        text = attendable = None
        if self.config.text_dim is not None:
            text, mask = self._read(tokens, mask, len(x))
            if self.config.pooled_text:
                share = mask[..., None].to(text.dtype)
                mean = (text * share).sum(1) / share.sum(1)
                embedding = embedding + self.pooled(mean)
            attendable = mask[:, None, None, :]
        embedding = F.silu(embedding)

        h = F.pixel_unshuffle(x, self.config.stem) if self.config.stem > 1 else x
        h = self.conv_in(h.contiguous(memory_format=torch.channels_last))
        skips = [h]
        for level, stages in enumerate(self.down):
            for stage in cast(nn.ModuleList, stages):
                h = stage(h, embedding, text, attendable)
                skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
                skips.append(h)

        h = self.middle2(self.middle1(h, embedding, text, attendable), embedding)

        for level, stages in enumerate(self.up):
            for stage in cast(nn.ModuleList, stages):
                h = stage(torch.cat([h, skips.pop()], dim=1), embedding, text, attendable)
            if level < len(self.grow):
                h = self.grow[level](h)

        h = self.conv_out(_silu(self.norm_out(h)))
        h = F.pixel_shuffle(h, self.config.stem) if self.config.stem > 1 else h
        return h.contiguous()

    def _embedded(self, t: Tensor, numbers: Tensor | None, x: Tensor) -> Tensor:
        """(B, e) what the timestep and the numbers say to every block."""
        embedders = [self.time, *self.numbers]
        told = [t] if numbers is None else [t, *(1000 * numbers).unbind(1)]
        if len(told) != len(embedders):
            count, given = self.config.numbers, None if numbers is None else tuple(numbers.shape)
            raise ValueError(f"numbers must be (B, {count}) or (1, {count}), got {given}")
        sines = (timestep_embedding(n, self.config.channels[0]).to(x) for n in told)
        embedding, *others = (embed(sine) for embed, sine in zip(embedders, sines))
        return sum(others, start=embedding)

    def _read(
        self, tokens: Tensor | None, mask: Tensor | None, batch: int
    ) -> tuple[Tensor, Tensor]:
        """The text as the blocks see it, (B, 1 + n, width), and its mask, (B, 1 + n)."""
        first = self.no_text.expand(batch, -1, -1)
        ones = torch.ones(batch, 1, dtype=torch.bool, device=first.device)
        if tokens is not None and (tokens.ndim != 3 or len(tokens) not in (1, batch)):
            each = f"(B, n, d) with one text for each of the {batch} pictures, or one for all"
            raise ValueError(f"tokens must be {each}, got shape {tuple(tokens.shape)}")
        if tokens is None or not tokens.shape[1]:
            return first, ones
        if tokens.shape[2] != (dim := self.config.text_dim):
            got = f"width {tokens.shape[2]}: the text comes from another encoder"
            raise ValueError(f"this network reads tokens of width {dim}, got {got}")
        if mask is None:
            mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        if mask.dtype != torch.bool or mask.shape != tokens.shape[:2]:
            wanted = f"of bool (True: a real token) and shape {tuple(tokens.shape[:2])}"
            raise ValueError(f"mask must be {wanted}, got {mask.dtype} of {tuple(mask.shape)}")
        text = self.text(tokens.to(first.dtype)).expand(batch, -1, -1)
        return torch.cat([first, text], 1), torch.cat([ones, mask.expand(batch, -1)], 1)

    def _beside(self, x: Tensor, picture: Tensor | None) -> Tensor:
        """x_t and the picture beside it, if the network has one, as channels of one tensor."""
        config, multiple = self.config, self.config.multiple
        if x.ndim != 4 or x.shape[1] != config.in_channels:
            wanted = f"(B, {config.in_channels}, H, W)"
            raise ValueError(f"expected pictures of shape {wanted}, got {tuple(x.shape)}")
        if x.shape[2] % multiple or x.shape[3] % multiple:
            raise ValueError(
                f"height and width must be multiples of {multiple} (stem {config.stem}, "
                f"halved {len(config.channels) - 1} times), got {x.shape[2]} × {x.shape[3]}"
            )
        channels = config.condition_channels
        given = None if picture is None else tuple(picture.shape)
        fits = [(n, channels, *x.shape[2:]) for n in (len(x), 1)] if channels else [None]
        if given not in fits:
            remedy = f"give one of shape {fits[0]} or {fits[-1]}" if channels else "leave it out"
            raise ValueError(
                f"picture of shape {given} does not fit condition_channels={channels}: {remedy}"
            )
        if picture is None:
            return x
        return torch.cat([x, picture.to(x.dtype).expand(len(x), -1, -1, -1)], dim=1)
