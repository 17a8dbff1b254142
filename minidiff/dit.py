"""A network without convolutions: a row of patches that look at each other (DiT).

After Peebles & Xie 2023: a patch becomes a vector (a token) that knows its place; the rest is a
transformer (Vaswani et al. 2017), whose norms bring in the timestep (adaLN-Zero, their section
3.2). Text enters as in the U-Net: cross-attention, and the mean token beside the timestep.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class DiTConfig:
    """The shape of a `DiT`; ValueError names what is no whole number from 1 on or does not fit."""

    in_channels: int = 1  #: channels of the data, and so of x_t; 1 for grey
    patch: int = 4  #: height and width of a patch; half of it makes four times the tokens
    width: int = 128  #: numbers of a token, a multiple of 4 and of head_dim
    depth: int = 6  #: blocks
    head_dim: int = 32  #: width of an attention head
    text_dim: int | None = 384  #: width of the text's tokens, or None for a network without text

    def __post_init__(self) -> None:
        for name, size in vars(self).items():
            known = type(size) is int and 1 <= size <= 65_536
            if not known and (name != "text_dim" or size is not None):
                raise ValueError(f"{name} must be a whole number from 1 to 65,536, got {size!r}")
        if self.width % math.lcm(4, self.head_dim):
            raise ValueError(f"width must be a multiple of 4 and head_dim, got {self.width}")

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of this."""
        return self.patch


def sines(x: Tensor, dim: int) -> Tensor:
    """(..., dim) sines and cosines of x at dim / 2 frequencies (Vaswani et al. 2017, sec. 3.5)."""
    k = torch.arange(dim // 2, device=x.device)
    angle = x.float()[..., None] * torch.exp(k * (-math.log(10_000) / (dim // 2)))
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def places(rows: int, columns: int, dim: int) -> Tensor:
    """(rows * columns, dim) what tells a patch where it is: half the row, half the column."""
    row, column = sines(torch.arange(rows), dim // 2), sines(torch.arange(columns), dim // 2)
    return torch.cat([row.repeat_interleave(columns, 0), column.repeat(rows, 1)], dim=1)


class Attention(nn.Module):
    """softmax(Q Kᵀ / √d) V in several heads: x asks, the context answers (Vaswani et al., 3.2).

    (B, m, w), (B, n, w), mask (B, 1, 1, n) or None -> (B, m, w)
    """

    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        self.heads = width // head_dim
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        asked = self.query(x), self.key(context), self.value(context)
        q, k, v = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in asked)
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(h.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Patches look at each other, then at the text, then each thinks for itself.

    (B, m, w), what all are told (B, w), text (B, n, w) or None -> (B, m, w)
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, wide = config.width, 4 * config.width
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.self_attention = Attention(width, config.head_dim)
        widen, narrow = nn.Linear(width, wide), nn.Linear(wide, width)
        self.feed_forward = nn.Sequential(widen, nn.GELU("tanh"), narrow)
        self.told = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.told.weight), nn.init.zeros_(self.told.bias)  # the gates are shut
        if config.text_dim is not None:
            self.cross_attention = Attention(width, config.head_dim)
            out = self.cross_attention.out  # so that a block begins as the identity
            nn.init.zeros_(out.weight), nn.init.zeros_(out.bias)

    def forward(self, x: Tensor, told: Tensor, text: Tensor | None, mask: Tensor | None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.told(told)[:, None].chunk(6, dim=2)
        h = self.norm(x) * (1 + scale1) + shift1
        x = x + gate1 * self.self_attention(h, h)
        if text is not None:
            x = x + self.cross_attention(self.norm(x), text, mask)
        h = self.norm(x) * (1 + scale2) + shift2
        return x + gate2 * self.feed_forward(h)


class DiT(nn.Module):
    """Transformer on patches; one learned "no text" token, never masked, precedes every prompt."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        pixels = config.in_channels * config.patch**2
        self.patches_in = nn.Linear(pixels, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        if config.text_dim is not None:
            self.text = nn.Sequential(nn.Linear(config.text_dim, width), nn.LayerNorm(width))
            self.no_text = nn.Parameter(torch.randn(1, 1, width) * 0.02)
            self.pooled = nn.Linear(width, width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self.patches_out = nn.Linear(width, pixels)
        nn.init.zeros_(self.patches_out.weight), nn.init.zeros_(self.patches_out.bias)

    def forward(
        self, x: Tensor, t: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) for x like that, t (B,), tokens (B or 1, n, d), mask (B or 1, n) or None."""
        told, text, real = self.time(sines(t, self.config.width).to(x)), None, None
        if self.config.text_dim is not None:
            text, real = self._read(tokens, mask, len(x))
            told = told + self.pooled((text * real[..., None]).sum(1) / real.sum(1, keepdim=True))
            real = real[:, None, None]
        patches = F.pixel_unshuffle(x, self.config.patch)  # (B, C p², H / p, W / p)
        rows, columns = patches.shape[2:]
        h = self.patches_in(patches.flatten(2).transpose(1, 2))
        h = h + places(rows, columns, self.config.width).to(h)
        for block in self.blocks:
            h = block(h, F.silu(told), text, real)
        h = self.patches_out(self.norm(h)).transpose(1, 2).unflatten(2, (rows, columns))
        return F.pixel_shuffle(h, self.config.patch)

    def _read(self, tokens: Any, mask: Any, batch: int) -> tuple[Tensor, Tensor]:
        """The text as the blocks see it, (B, 1 + n, width), and which tokens are real."""
        text = self.no_text.expand(batch, -1, -1)
        real = torch.ones(batch, 1, dtype=torch.bool, device=text.device)
        if tokens is None or not tokens.shape[1]:
            return text, real
        mask = torch.ones_like(tokens[..., 0], dtype=torch.bool) if mask is None else mask
        read = self.text(tokens.to(text.dtype)).expand(batch, -1, -1)
        return torch.cat([text, read], 1), torch.cat([real, mask.expand(batch, -1)], 1)
