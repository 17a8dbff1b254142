"""Training in latents: which autoencoder makes them, and all pictures of a data set as latents.

Latents are made once, before the first step, and kept in the cache: a training sees every picture
many times, and the autoencoder does not change. What a space is stands in `minidiff.spaces`.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from minidiff.autoencoder import Autoencoder, AutoencoderConfig
from minidiff.cache import cached
from minidiff.inputs import as_path, is_file
from minidiff.model import check_network, load_model, read_config
from minidiff.networks import describe
from minidiff.recipe import TrainingConfig
from minidiff.run_folder import latest_checkpoint
from minidiff.spaces import SPACES, Latents, Pixels
from minidiff.storage import Tensors, read_info

LARGE = 10_000_000  #: pixels of all pictures together from which on their latents are kept


def open_autoencoder(folder: str | Path) -> Autoencoder:
    """An autoencoder from the folder of its run (the finished model, else the newest checkpoint).

    Or from that of its model.

    Raises:
        FileNotFoundError: if there is none.
        TypeError: for a folder that is no path.
        ValueError: for another model.
        CheckpointError: for one that is damaged.
    """
    network, config, _ = load_model(_place_of(folder))
    if isinstance(config.space, Latents):  # a model that draws in latents has its own
        return config.space._held()
    if not isinstance(network, Autoencoder):
        raise ValueError(
            f"{str(folder)!r} holds a {type(network).__name__}, not an autoencoder: give the "
            "folder of a run of the recipe autoencoder128"
        )
    return network


def _place_of(folder: str | Path) -> Path:
    # Not minidiff.shelf, which would bring the models that ship into a copy of the trainer.
    root = as_path("folder", folder)
    for place in (root, root / "model", latest_checkpoint(root) or root):
        if is_file(place / "config.json"):
            return place
    raise FileNotFoundError(
        f"there is no autoencoder in {str(folder)!r}: train one first, with minidiff train "
        "--recipe autoencoder128 --output FOLDER, and set autoencoder to its folder"
    )


def space_of(config: TrainingConfig, images: Tensor, device: torch.device) -> Any:
    """The space that a training happens in: of its recipe, for these pictures.

    Args:
        images: (N, C, H, W) uint8.
        device: where an autoencoder shall look at them.

    Raises:
        FileNotFoundError, CheckpointError: as `open_autoencoder`.
        ValueError: for a recipe that does not fit the autoencoder, naming what.
    """
    if not describe(config.network).denoises:
        return Pixels()  # an autoencoder sees them as they are
    if config.autoencoder is None:
        return SPACES[config.space].of(images)
    network, name = open_autoencoder(config.autoencoder), describe(config.network).name
    if network.config.latent_channels != describe(config.network).in_channels:
        raise ValueError(
            f"the latents of {config.autoencoder} have {network.config.latent_channels} channels, "
            f"but {name}.in_channels is {describe(config.network).in_channels}: set it to "
            f"{network.config.latent_channels}"
        )
    check_network(config, Latents(network.config, ""))  # before minutes go into encoding
    some = torch.linspace(0, len(images) - 1, min(2048, len(images))).long()
    return Latents.of(images[some].to(device), network)


def channels_of(config: TrainingConfig) -> int:
    """Channels that pictures must have for a recipe: 1 for grey, 3 for colour, or others.

    Raises:
        FileNotFoundError, CheckpointError, ValueError: as `open_autoencoder`.
    """
    if config.autoencoder is None:
        return SPACES[config.space].channels or describe(config.network).in_channels
    folder = _place_of(config.autoencoder)
    config_there = read_config(folder, read_info(folder))
    network = config_there.network
    if isinstance(config_there.space, Latents):
        network = config_there.space.autoencoder
    if not isinstance(network, AutoencoderConfig):
        open_autoencoder(config.autoencoder)  # says what it is
    return int(network.in_channels)


def latents_of(space: Any, images: Tensor) -> Tensor | None:
    """All pictures (N, C, H, W), uint8, as x_0 in half precision, where they are; None for pixels.

    Half precision has 11 bits, and the decoder is used to far more noise.
    """
    if not isinstance(space, Latents):
        return None
    make = partial(_encoded, space, images)
    if images.numel() < LARGE:
        return make()["latents"].to(images.device)
    digest = hashlib.sha256(repr(space).encode("utf-8"))
    digest.update(images.cpu().contiguous().numpy().data)
    height, width = (side // space.factor for side in images.shape[2:])
    shape = (len(images), space.autoencoder.latent_channels, height, width)
    name = f"latents-{digest.hexdigest()[:24]}"
    found = cached(name, make, lambda x: x.keys() == {"latents"} and x["latents"].shape == shape)
    return found["latents"].to(images.device)


def _encoded(space: Latents, images: Tensor) -> Tensors:
    bar = tqdm(images.split(256), "encoding pictures", disable=None, delay=1, leave=False)
    return {"latents": torch.cat([space.to_data(part).half() for part in bar]).cpu().contiguous()}
