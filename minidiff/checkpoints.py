"""Saving and loading: a folder of safetensors and one JSON file that says what they are.

Nothing here reads or writes a pickle, so a checkpoint from anywhere can be opened without running
anything. A folder is written under another name and renamed when it is complete; a folder under its
own name is therefore always whole. The SHA-256 of every file, and of the JSON itself, stands in the
JSON and is checked: what a disk or an editor has changed is not taken for what was saved.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from minidiff.denoisers import NetworkDenoiser
from minidiff.glyphs import as_pictures
from minidiff.inputs import as_path, check_settings, is_file, plain_torch
from minidiff.schedules import Schedule, make_schedule
from minidiff.unet import UNet, UNetConfig

__all__ = [
    "CheckpointError",
    "ModelConfig",
    "load_model",
    "read_info",
    "read_tensors",
    "save_model",
]

FORMAT, VERSION = "minidiff", 1
Tensors = dict[str, Tensor]


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, altered or not ours."""


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to use a trained network besides its weights.

    Attributes:
        unet: the network's shape.
        image_size: height and width it was trained at.
        schedule, num_train_timesteps, zero_terminal_snr: see `minidiff.schedules.make_schedule`.
        prediction_type: "eps", "x0", "v" or "flow".
        data_mean, data_std: the network sees (image − data_mean) / data_std.
        text_encoder: its name, or None for a network without text.
        text_fingerprint: identifies the encoder's weights.
        max_tokens: prompts are cut there.

    Raises:
        ValueError: for a value of another type, out of range or that does not fit the others,
            naming it.
    """

    unet: UNetConfig
    image_size: int
    schedule: str = "straight"
    num_train_timesteps: int = 1000
    zero_terminal_snr: bool = False
    prediction_type: str = "flow"
    data_mean: float = 0.0
    data_std: float = 1.0
    text_encoder: str | None = None
    text_fingerprint: str | None = None
    max_tokens: int = 32

    def __post_init__(self) -> None:
        check_settings(self)
        if self.data_std <= 0:
            raise ValueError(f"data_std must be above 0, got {self.data_std}")
        if self.num_train_timesteps > 1_000_000:  # make_schedule refuses too few
            raise ValueError(
                f"num_train_timesteps must be at most 1,000,000, got {self.num_train_timesteps}"
            )
        check_network(self)

    @plain_torch()
    def make_schedule(self) -> Schedule:
        """The schedule that the network was trained with."""
        return make_schedule(self.schedule, self.num_train_timesteps, self.zero_terminal_snr)

    def to_data(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] or uint8 to the network's units: mean 0, deviation 1 over the data set.

        Raises:
            TypeError: for other whole numbers.
        """
        return (as_pictures(images).float() - self.data_mean) / self.data_std

    def to_images(self, x: Tensor) -> Tensor:
        """The way back, held within [-1, 1].

        Raises:
            TypeError: for whole numbers, which are not in the network's units.
        """
        if not x.is_floating_point():
            raise TypeError(f"x must be floats in the network's units, got {x.dtype}")
        return (x * self.data_std + self.data_mean).clamp(-1, 1)

    @property
    def data_range(self) -> tuple[float, float]:
        """Where black (-1) and white (+1) lie in the network's units."""
        return (-1 - self.data_mean) / self.data_std, (1 - self.data_mean) / self.data_std


def check_network(config: Any) -> None:
    """Hold against each other what a recipe and a `ModelConfig` both say of the network.

    Raises:
        ValueError: naming what does not fit or is not known.
    """
    size, unet = config.image_size, config.unet
    if size < 1 or size % unet.multiple:
        raise ValueError(
            f"image_size must be a multiple of {unet.multiple} for this network "
            f"(stem {unet.stem}, {len(unet.channels)} levels), got {size}"
        )
    if not 1 <= config.max_tokens <= 65_536:
        raise ValueError(f"max_tokens must be from 1 to 65,536, got {config.max_tokens}")
    if (config.text_encoder is None) != (unet.text_dim is None):
        raise ValueError(
            f"text_encoder is {config.text_encoder!r} but unet.text_dim is {unet.text_dim}: "
            "give both, or neither for a network without text"
        )
    if config.text_encoder is not None and not config.text_encoder.strip():
        raise ValueError(
            f"text_encoder is {config.text_encoder!r}: give a name such as 'minilm', or None for a "
            "network without text"
        )
    steps = getattr(config, "num_train_timesteps", 1000)
    schedule = make_schedule(config.schedule, steps, config.zero_terminal_snr)
    NetworkDenoiser(torch.zeros_like, schedule, config.prediction_type)


def write_folder(folder: str | Path, files: dict[str, Tensors], info: dict[str, Any]) -> None:
    """Write `files` (name -> tensors) and `info` (as config.json) as one whole, or not at all.

    An older folder of that name is replaced only once the new one is complete.

    Raises:
        FileExistsError: as `check_replaceable`.
        OSError: where it cannot be written (full disk, no permission); nothing is changed then.
        ValueError: for an `info` that JSON cannot hold.
    """
    folder, part = as_path("folder", folder), None
    check_replaceable(folder)
    try:  # as it will be read: JSON has texts for the numbers that are keys
        info = json.loads(json.dumps(info, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the record of {folder} does not fit into JSON ({error}): leave that out, or make it "
            "a text"
        ) from error
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = _part_folder(folder)
        hashes = {}
        for name, tensors in files.items():
            plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            payload = save(plain)
            hashes[name] = hashlib.sha256(payload).hexdigest()
            _write_through(part / name, payload)
        info = {"format": FORMAT, "version": VERSION, **info, "files": hashes}
        info["sha256"] = _info_hash(info)
        text = json.dumps(info, indent=2, ensure_ascii=False)
        # A path that is not UTF-8 has lone surrogates: "\\udce9" means the same to JSON.
        _write_through(part / "config.json", text.encode("utf-8", "backslashreplace"))
        part.chmod(0o755)  # a temporary folder is private; a checkpoint need not be
        _replace(part, folder)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OSError(
            error.errno,
            f"could not save {folder} ({error.strerror or error}); what was saved before is "
            f"intact. {'Free some space or choose' if full else 'Choose'} another folder",
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """See that what would be replaced is nothing, or was saved here.

    Raises:
        FileExistsError: naming what would be lost.
    """
    if not folder.is_dir():
        foreign = folder.name if folder.exists() else None
    else:
        ours = {"config.json", *(path.name for path in folder.glob("*.safetensors"))}
        others = sorted(path.name for path in folder.iterdir() if path.name not in ours)
        foreign = others[0] if others else _foreign_config(folder)
    if foreign is not None:
        raise FileExistsError(
            f"{folder} would be replaced, and {foreign!r} there was not saved by minidiff: move it "
            "away, or choose another folder"
        )


def _foreign_config(folder: Path) -> str | None:
    """config.json where it is that of another program; one that is damaged may be ours."""
    try:
        info = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return next((path.name for path in folder.iterdir()), None)
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(info, dict) and info.get("format") == FORMAT
    return None if ours else "config.json"


def _part_folder(folder: Path) -> Path:
    """A new folder beside `folder`, under a name that `remove_parts` knows."""
    return Path(tempfile.mkdtemp(prefix=f".{folder.name}.part-", dir=folder.parent))


def _replace(part: Path, folder: Path) -> None:
    """Let `part` take the place of `folder`; if that fails, all is as before."""
    if not folder.exists():
        part.rename(folder)
        return
    retired = _part_folder(folder)
    old = retired / "old"
    try:
        folder.rename(old)
        part.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        retired.rmdir()
        raise
    shutil.rmtree(retired, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Delete a checkpoint. Whatever interrupts this, no half of it stays under its own name."""
    with contextlib.suppress(OSError):
        folder = folder.rename(folder.with_name(f".{folder.name}.part-old"))
    shutil.rmtree(folder, ignore_errors=True)


def remove_parts(parent: Path, name: str) -> None:
    """Clear what a killed process has left half-written for folders called `name` (a pattern)."""
    for part in parent.glob(f".{name}.part-*"):
        shutil.rmtree(part, ignore_errors=True)


def _info_hash(info: dict[str, Any]) -> str:
    """SHA-256 of the values in config.json, however they are laid out there."""
    values = {key: value for key, value in info.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("utf-8")).hexdigest()


def _write_through(path: Path, payload: bytes) -> None:
    with path.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())  # renamed too early, a power cut could leave an empty file


def read_info(folder: str | Path) -> dict[str, Any]:
    """The JSON of a checkpoint folder, checked to be ours.

    Raises:
        CheckpointError: saying what is wrong with it.
        TypeError: for a folder that is no path.
    """
    folder = as_path("folder", folder)
    path = folder / "config.json"
    if not is_file(path):
        raise CheckpointError(
            f"{folder} is not a minidiff checkpoint: it has no config.json. Give the folder that "
            "holds config.json and model.safetensors"
        )
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): use another copy") from error
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder} is not a minidiff checkpoint: {path} is of another kind. Give a folder that "
            "minidiff has saved"
        )
    if info.get("version") != VERSION:
        raise CheckpointError(
            f"{folder} has checkpoint version {info.get('version')!r}, this minidiff reads "
            f"{VERSION}: install a matching minidiff"
        )
    if info.get("sha256") != _info_hash(info):
        raise CheckpointError(
            f"{path} is not what was saved (its SHA-256 differs): it was damaged or edited; copy "
            "it again or use another checkpoint"
        )
    return info


def read_tensors(folder: str | Path, name: str, info: dict[str, Any]) -> Tensors:
    """The tensors of one file of a checkpoint folder, checked against its SHA-256.

    Raises:
        CheckpointError: if the file is missing, cut short or altered.
    """
    folder = as_path("folder", folder)
    try:
        payload = (folder / as_path("name", name)).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{folder} lacks {name} ({error.strerror}): copy it again") from error
    hashes = info.get("files")
    expected = hashes.get(name) if isinstance(hashes, dict) else None
    if hashlib.sha256(payload).hexdigest() != expected:
        raise CheckpointError(
            f"{folder / name} is not what was saved (its SHA-256 differs): it was cut short or "
            "altered; copy it again or use another checkpoint"
        )
    try:
        return load(payload)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder / name} holds no tensors ({error}): use another checkpoint"
        ) from error


def model_info(config: ModelConfig, record: dict[str, Any]) -> dict[str, Any]:
    """What `write_folder` puts into config.json for a model."""
    return {"model": dataclasses.asdict(config), "record": record}


def save_model(
    folder: str | Path,
    network: UNet,
    config: ModelConfig,
    record: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Save a trained network for use.

    Args:
        folder: becomes config.json and model.safetensors.
        network: of the shape config.unet; compiled or wrapped (torch.compile, DataParallel) is
            fine.
        record: how it came about (data, seed, steps, time, measured quality); JSON values.
        dtype: of the stored weights; half precision halves the file.

    Raises:
        OSError: where it cannot be written; what was there before is untouched then.
        TypeError: for a folder that is no path, or a dtype that is none of floats.
        ValueError: for a record that JSON cannot hold, or a network of another shape.
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype must be one of floats such as torch.float16, got {dtype!r}")
    weights = {
        name.replace("_orig_mod.", "").removeprefix("module."): value.to(dtype)
        for name, value in network.state_dict().items()
    }
    with torch.device("meta"):
        expected = UNet(config.unet).state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        got, wanted = (tuple(x[name].shape) if name in x else None for x in (weights, expected))
        if got != wanted:
            raise ValueError(
                f"the network is not of the shape config.unet: the weight {name} has the shape "
                f"{got} where {wanted} is wanted (None: there is none)"
            )
    write_folder(folder, {"model.safetensors": weights}, model_info(config, record or {}))


@plain_torch()
def load_model(folder: str | Path) -> tuple[UNet, ModelConfig, dict[str, Any]]:
    """The network (float32, in evaluation mode), its configuration and its record.

    Raises:
        CheckpointError: if the folder is not a whole, unaltered checkpoint of ours.
        TypeError: for a folder that is no path.
    """
    folder = as_path("folder", folder)
    info = read_info(folder)
    try:
        values = dict(info["model"])
        config = ModelConfig(**{**values, "unet": UNetConfig(**values["unet"])})
        network = UNet(config.unet)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'} does not describe a model ({error!r}): use another "
            "checkpoint"
        ) from error
    load_weights(network, read_tensors(folder, "model.safetensors", info), folder)
    return network.eval(), config, info.get("record", {})


def load_weights(network: UNet, weights: Tensors, source: Path) -> None:
    """Copy weights into a network.

    Raises:
        CheckpointError: if they belong to a network of another shape.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            f"the weights in {source} do not fit the network that its config.json describes "
            f"({reason}): use another checkpoint"
        ) from error
