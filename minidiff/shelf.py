"""The shelf: which trained models ship with the package, and where a name or a path leads."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minidiff import hub
from minidiff.inputs import Size, as_path, is_folder, sides, warn_of_namesake
from minidiff.run_folder import latest_checkpoint
from minidiff.storage import read_info

MODELS = Path(__file__).parent / "models"
DEFAULT_MODEL = "glyph64"


@dataclass(frozen=True)
class ModelCard:
    """A model that ships with the package."""

    name: str
    image_size: Size
    parameters: int
    megabytes: float
    quality: dict[str, Any]  #: measured figures, see the record in its config.json

    def __str__(self) -> str:
        figures = ", ".join(f"{key} {value}" for key, value in self.quality.items())
        size = " × ".join(map(str, sides(self.image_size)))
        return (
            f"{self.name}: {size}, {self.parameters / 1e6:.2f} M parameters, "
            f"{self.megabytes:.1f} MB; {figures or 'not measured yet'}"
        )


def pretrained() -> list[ModelCard]:
    """The models that ship with the package, the default first: size, parameters, quality."""
    return [model_card(folder) for folder in _shipped().values()]


def model_card(folder: Path) -> ModelCard:
    """What there is to say of the model in a folder, a first stage and an autoencoder included."""
    info = read_info(folder)
    weights = [folder / "model.safetensors", *folder.glob("autoencoder.safetensors")]
    if first := info["model"].get("first_stage"):
        weights.append(find_model(first["name"], online=False) / "model.safetensors")
    return ModelCard(
        folder.name,
        info["model"]["image_size"],
        sum(map(_count_parameters, weights)),
        sum(path.stat().st_size for path in weights) / 1e6,
        info.get("record", {}).get("quality", {}),
    )


def _count_parameters(path: Path) -> int:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def _shipped() -> dict[str, Path]:
    folders = sorted(path.parent for path in MODELS.glob("*/config.json"))
    folders.sort(key=lambda folder: folder.name != DEFAULT_MODEL)
    return {folder.name: folder for folder in folders}


def find_model(name_or_path: str | Path, online: bool = True) -> Path:
    """The folder that `load` reads for this name or path.

    A text that is the name of a model that ships means that one, a `pathlib.Path` the folder. A
    text such as "owner/model" or "owner/model@revision" is, where no such folder is here, a model
    of the Hugging Face Hub, see `minidiff.hub`.

    Args:
        online: whether the Hub may be asked; where a model is wanted that is here, it would only be
            asked for slips in a path.

    Raises:
        CheckpointError: for what is on the Hub but no model of ours.
        FileNotFoundError: if there is none, naming the models that ship.
        TypeError: for what is neither a name nor a path.
    """
    folder, name = as_path("name_or_path", name_or_path), os.fspath(name_or_path)
    shipped = _shipped()
    if name in shipped and (isinstance(name_or_path, str) or not is_folder(folder)):
        warn_of_namesake(name, folder, "model")
        return shipped[name]
    if not name or not is_folder(folder):
        # Below a folder that is here, a slip in the path is likelier than a model of the Hub.
        named = isinstance(name_or_path, str) and hub.is_name(name)
        if online and named and not is_folder(folder.parent):
            return hub.fetch(name)
        of_hub = "owner/model of the Hugging Face Hub"
        if not online:
            of_hub = 'one of the Hub that minidiff.load("owner/model").save(folder) has put there'
        raise FileNotFoundError(
            f"no model {name!r}: give one that ships ({', '.join(shipped)}), the folder of a "
            f"checkpoint or training run, or {of_hub}"
        )
    for place in (folder, folder / "model"):
        if (place / "config.json").is_file():
            return place
    newest = latest_checkpoint(folder)
    if newest is None and any((folder / name).exists() for name in ("log.jsonl", ".lock")):
        raise FileNotFoundError(
            f"the run in {folder} has saved nothing yet: wait for its first checkpoint, or give "
            "another model"
        )
    return newest or folder
