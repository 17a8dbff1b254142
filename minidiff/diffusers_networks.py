"""The U-Nets of diffusers as networks: trained, saved and drawn with like ours.

`UNet2DModel` where there is no text and `UNet2DConditionModel` where there is. They count their
timesteps from 0, ours from 1, and answer with an object. diffusers is asked for only when such a
network is made.
"""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class DiffusersUNetConfig:
    """The shape of a U-Net of diffusers, in its own words.

    Attributes:
        in_channels: channels of the data, and so of x_t; 1 for grey.
        block_out_channels: width of each level, from the full size down; the size halves between
            levels.
        layers_per_block: residual blocks a level on the way down (one more on the way up).
        attention: for each level, whether its blocks are followed by attention: AttnDownBlock2D, or
            with text CrossAttnDownBlock2D. The middle always has it.
        text_dim: width of the text's tokens (their cross_attention_dim), or None for a
            `UNet2DModel`, which reads no text.
        options: more arguments of the class, by their names, such as {"dropout": 0.1}.

    Raises:
        ValueError: for values of another type, out of range or that do not fit together, by name.
    """

    in_channels: int = 1
    block_out_channels: tuple[int, ...] = (64, 128, 128)
    layers_per_block: int = 1
    attention: tuple[bool, ...] = (False, True, True)
    text_dim: int | None = 384
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("block_out_channels", "attention"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or not value:
                raise ValueError(f"{name} must be a list with one entry a level, got {value!r}")
            object.__setattr__(self, name, tuple(value))
        if len(self.block_out_channels) != len(self.attention):
            raise ValueError(
                "block_out_channels and attention need one entry a level, "
                f"got {self.block_out_channels} and {self.attention}"
            )
        if not all(type(flag) is bool for flag in self.attention):
            raise ValueError(f"attention must be true or false at each level, got {self.attention}")
        widths = [("block_out_channels", width) for width in self.block_out_channels]
        names = ("in_channels", "layers_per_block", "text_dim")
        for name, size in [*((name, getattr(self, name)) for name in names), *widths]:
            if size is None and name == "text_dim":
                continue
            if type(size) is not int or not 1 <= size <= 65_536:
                raise ValueError(f"{name} must be a whole number from 1 to 65,536, got {size!r}")
        taken = {"in_channels", "out_channels", "block_out_channels", "layers_per_block"}
        if not isinstance(self.options, dict) or taken & {*self.options}:
            raise ValueError(
                "options must be a table of arguments of diffusers' class without "
                f"{', '.join(sorted(taken))}, got {self.options!r}"
            )
        try:  # as a checkpoint will give it back
            object.__setattr__(self, "options", json.loads(json.dumps(self.options)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"options must be plain values: {error}") from error

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of this."""
        return 2 ** (len(self.block_out_channels) - 1)

    def arguments(self) -> dict[str, Any]:
        """With what diffusers' class is called."""
        with_attention = "CrossAttn" if self.text_dim else "Attn"
        kinds = [with_attention if attends else "" for attends in self.attention]
        return {
            "in_channels": self.in_channels,
            "out_channels": self.in_channels,
            "block_out_channels": self.block_out_channels,
            "layers_per_block": self.layers_per_block,
            "down_block_types": tuple(f"{kind}DownBlock2D" for kind in kinds),
            "up_block_types": tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
            "norm_num_groups": math.gcd(32, *self.block_out_channels),
            **({"cross_attention_dim": self.text_dim} if self.text_dim else {}),
            **self.options,
        }


class DiffusersUNet(nn.Module):
    """A `UNet2DModel` or `UNet2DConditionModel` as one of our networks.

    As in ours, one learned "no text" token stands in front of every prompt. It is never masked, so
    attention always has something to look at, and it is all that an empty prompt has.

    Args:
        config: its shape.

    Attributes:
        unet: diffusers' own, for instance for its `save_pretrained`.

    Raises:
        ImportError: if diffusers is not installed.
        ValueError: for settings that it does not have, or of which it can make no network.
    """

    def __init__(self, config: DiffusersUNetConfig) -> None:
        super().__init__()
        self.config = config
        try:  # not a statement: copies of the other networks need no diffusers
            diffusers = importlib.import_module("diffusers")
        except ImportError as error:
            raise ImportError(
                'the network "diffusers_unet" needs diffusers: pip install diffusers, or take '
                '"unet", which needs nothing more'
            ) from error
        name = "UNet2DModel" if config.text_dim is None else "UNet2DConditionModel"
        try:
            self.unet = getattr(diffusers, name)(**config.arguments())
        except Exception as error:  # what it refuses, it refuses with many kinds
            raise ValueError(f"diffusers can make no {name} of {config}: {error}") from error
        if config.text_dim is not None:
            self.no_text = nn.Parameter(torch.randn(1, 1, config.text_dim) * 0.02)

    def forward(
        self, x: Tensor, t: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """What the network says to x_t.

        Args:
            x: (B, C, H, W), H and W multiples of `config.multiple`.
            t: (B,) timesteps in 1 … T.
            tokens: (B, n, d) text, (1, n, d) for one that all pictures have, or None for "no text".
            mask: (B, n) or (1, n) as the tokens, True where a token is real, or None if all are.

        Returns:
            (B, C, H, W).
        """
        if self.config.text_dim is None:
            answer: Tensor = self.unet(x, t - 1).sample
            return answer
        text = self.no_text.expand(len(x), -1, -1)
        real = torch.ones(len(x), 1, dtype=torch.bool, device=x.device)
        if tokens is not None and tokens.shape[1]:
            if mask is None:
                mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=x.device)
            text = torch.cat([text, tokens.to(text.dtype).expand(len(x), -1, -1)], 1)
            real = torch.cat([real, mask.expand(len(x), -1)], 1)
        answer = self.unet(x, t - 1, text, encoder_attention_mask=real).sample
        return answer
