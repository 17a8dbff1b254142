"""The networks that exist, by name, and all that the rest of the house knows of one.

A network is a module that is called as `network(x, t, **condition)`, with x_t (B, C, H, W) and its
timesteps (B,), and answers in the shape of x_t. It is made from a frozen dataclass, its config,
which travels in every checkpoint under the network's name. What others must know of it they read
from a `Description`; a config need only have the attributes in which it differs from that. One that
reads text takes `tokens` and `mask` as well, and is called without them where there is none.

A network of one's own is one more line::

    NETWORKS["mine"] = MyNetwork, MyConfig
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import nn

from minidiff.autoencoder import Autoencoder, AutoencoderConfig
from minidiff.diffusers_networks import DiffusersUNet, DiffusersUNetConfig
from minidiff.dit import DiT, DiTConfig
from minidiff.unet import UNet, UNetConfig

#: name -> class, and class of its config.
NETWORKS: dict[str, tuple[Any, Any]] = {
    "unet": (UNet, UNetConfig),
    "conv_autoencoder": (Autoencoder, AutoencoderConfig),
    "dit": (DiT, DiTConfig),
    "diffusers_unet": (DiffusersUNet, DiffusersUNetConfig),
}


@dataclass(frozen=True)
class Description:
    """What is known of a network.

    Attributes:
        name: what it is called in `NETWORKS`, and in checkpoints and recipes.
        in_channels: channels of x_t.
        out_channels: channels of its answer; `in_channels` if the config does not say.
        condition_channels: channels of a picture that is laid beside x_t (`picture=`); 0: none.
        multiple: height and width of x_t must be multiples of this.
        text_dim: width of the tokens that it reads (`tokens=` and `mask=`), or None for no text.
        numbers: how many numbers it is told besides t (`numbers=`); a student's are 2.
        denoises: False for one that is no denoiser, but trained like one: it is called as
            `network(x_0, eps)` and answers with its loss, (B,).
    """

    name: str
    in_channels: int = 1
    out_channels: int = 1
    condition_channels: int = 0
    multiple: int = 1
    text_dim: int | None = None
    numbers: int = 0
    denoises: bool = True


def describe(config: Any) -> Description:
    """What the config of a registered network says of it.

    Raises:
        ValueError: for the config of none, or of several.
    """
    kinds = [name for name, (_, kind) in NETWORKS.items() if type(config) is kind]
    if len(kinds) != 1:
        raise ValueError(
            f"network must be the config of a known one ({', '.join(NETWORKS)}), got {config!r}"
            + (f", which is that of {' and '.join(kinds)}" if kinds else "")
        )
    names = [f.name for f in dataclasses.fields(Description)][1:]
    said = {n: getattr(config, n) for n in names if getattr(config, n, None) is not None}
    return Description(kinds[0], **{"out_channels": said.get("in_channels", 1), **said})


def build(config: Any) -> nn.Module:
    """A new network of this config.

    Raises:
        ValueError: for the config of none that is known.
    """
    network: nn.Module = NETWORKS[describe(config).name][0](config)
    return network


def config_of(name: str, table: dict[str, Any]) -> Any:
    """The config of a network from its name and settings; the lists of JSON become tuples.

    Raises:
        ValueError, TypeError: as the config's class has it for settings that cannot be.
    """
    return NETWORKS[name][1](
        **{n: tuple(v) if isinstance(v, list) else v for n, v in table.items()}
    )


def registered(values: dict[str, Any], registry: dict[str, Any], kind: str) -> str:
    """Which of the registered names stands in these settings, as {"unet": {…}}.

    Raises:
        ValueError: if none does, naming the one that does and those that are known.
    """
    found = [name for name in registry if name in values]
    if len(found) != 1:
        others = [n for n, v in values.items() if isinstance(v, dict)]
        got = " and ".join(map(repr, found or others)) or None
        raise ValueError(f"unknown {kind} {got}: known are {', '.join(registry)}")
    return found[0]
