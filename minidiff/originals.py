"""The pictures that a model was trained on, read again from the folder that its record names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from minidiff.batches import PictureDataset, data_of
from minidiff.datasets import ImageFolder
from minidiff.inputs import on_network, warn
from minidiff.splitting import split

if TYPE_CHECKING:
    from minidiff.pipeline import Pipeline


def is_own(pipeline: Pipeline) -> bool:
    """Whether a model was trained on other pictures than glyphs, as far as it says."""
    kind = (pipeline.record.get("data") or {}).get("kind")  # earlier releases did not remember it
    if kind is None:
        grey = (pipeline.space.channels or pipeline.config.shape[0]) == 1
        return not (grey and isinstance(pipeline.config.image_size, int))
    return bool(kind != "glyphs")


def originals(
    pipeline: Pipeline, folder: str | Path | None = None
) -> tuple[PictureDataset, PictureDataset | None]:
    """The pictures that a model was trained on, and those that were held out, read anew.

    Args:
        folder: where they are; None: where they were.

    Raises:
        FileNotFoundError, ValueError: if they are not there, are not the same any more (unless a
            folder is given), or if the model does not say where they were.

    Warns:
        UserWarning: if those of the folder that is given are not the ones it was trained on.
    """
    data = pipeline.record.get("data") or {}
    remedy = "give the folder that they are in with --data"
    if folder is None and data.get("path") is None:
        came = "came from a program" if data.get("kind") == "other" else "are not named in it"
        raise ValueError(f"the pictures that this model was trained on {came}: {remedy}")
    if folder is None and on_network(str(data["path"])):
        raise ValueError(f"the model names {data['path']!r}, on a network: {remedy}")
    place = Path(data["path"] if folder is None else folder)
    if folder is None and not place.is_dir():
        raise FileNotFoundError(
            f"the pictures of this model were in {place}, which is not there any more: {remedy}"
        )
    channels = pipeline.space.channels or pipeline.config.shape[0]
    dataset = ImageFolder(place, pipeline.config.image_size, channels, **data.get("options", {}))
    found = data_of(dataset, pipeline.config.text_encoder is not None)["fingerprint"]
    if found != data.get("fingerprint"):
        other = f"the pictures in {place} are not those that this model was trained on"
        if folder is None:
            raise ValueError(
                f"{other} ({found}, then {data.get('fingerprint')}): put them back, or measure it "
                f"by those that are there now with --data {place}"
            )
        warn(f"{other}: whether it copied and how well it learnt is not to be seen by them")
        return dataset, None
    return split(dataset, data["held_out"]) if "held_out" in data else (dataset, None)
