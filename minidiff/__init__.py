"""minidiff: a text-to-image diffusion model that is short enough to read.

    import minidiff
    pipeline = minidiff.load()
    images = pipeline("gold", num_images_per_prompt=16, seed=0)   # (16, 1, 64, 64)

The mathematics stands in `schedules`, `denoisers` and `samplers`; the network in `unet`; the rest
makes them useful. Importing the package loads nothing heavier than torch, and that only on use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minidiff.datasets import ImageFolder, Wrapped
    from minidiff.fitting import fit
    from minidiff.glyphs import GlyphDataset
    from minidiff.pipeline import Pipeline, load
    from minidiff.recipe import TrainingConfig
    from minidiff.schedules import make_schedule
    from minidiff.shelf import pretrained
    from minidiff.training import Trainer
    from minidiff.unet import UNet, UNetConfig

__version__ = "0.1.0"

_HOME = {
    "GlyphDataset": "glyphs",
    "ImageFolder": "datasets",
    "Pipeline": "pipeline",
    "Trainer": "training",
    "TrainingConfig": "recipe",
    "UNet": "unet",
    "UNetConfig": "unet",
    "Wrapped": "datasets",
    "fit": "fitting",
    "load": "pipeline",
    "make_schedule": "schedules",
    "pretrained": "shelf",
}

__all__ = [
    "GlyphDataset",
    "ImageFolder",
    "Pipeline",
    "Trainer",
    "TrainingConfig",
    "UNet",
    "UNetConfig",
    "Wrapped",
    "fit",
    "load",
    "make_schedule",
    "pretrained",
]


def __getattr__(name: str) -> Any:
    # Loaded on first use (PEP 562): `minidiff --help` should not wait for torch.
    if name in _HOME:
        return getattr(import_module(f"minidiff.{_HOME[name]}"), name)
    raise AttributeError(f"module 'minidiff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
