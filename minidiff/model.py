"""What a trained model is, besides its weights: its network, its space, its schedule; on the disk.

A model is a checked folder (`minidiff.storage`) of config.json and model.safetensors. Which network
and which space it has, it says itself, by their names.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minidiff.denoisers import NetworkDenoiser
from minidiff.inputs import Size, as_path, check_settings, plain_torch, sides
from minidiff.networks import NETWORKS, Description, build, config_of, describe, registered
from minidiff.schedules import Schedule, make_schedule
from minidiff.spaces import SPACES, Pixels, name_of
from minidiff.stages import FirstStage, check_second
from minidiff.storage import CheckpointError, read_info, read_tensors, write_folder
from minidiff.student import Student

# Where a text is followed is decided while there is much noise, so the steps lie closer together
# there; how much better the pictures are is in benchmarks/results/quality_samplers.json.
SHIFT = {"straight": 3.0}


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to use a trained network besides its weights.

    Attributes:
        network: the network's config, of a class in `minidiff.networks.NETWORKS`.
        image_size: height and width of the pictures it was trained on; one number for a square.
        space: how pictures become x_0 and back, of a class in `minidiff.spaces.SPACES`.
        schedule, num_train_timesteps, zero_terminal_snr: see `minidiff.schedules.make_schedule`.
        shift: of the grid that samplers take, see `Schedule.timesteps`; None: what suits the
            schedule.
        prediction_type: "eps", "x0", "v" or "flow".
        text_encoder: its name, or None for a network without text.
        text_fingerprint: identifies the encoder's weights.
        max_tokens: prompts are cut there.
        student: for a network that draws in few evaluations, what it was made for; else None.
        first_stage: of the second stage of a cascade, the first; else None.

    Raises:
        ValueError: for a value of another type, out of range or that does not fit the others,
            naming it.
    """

    network: Any
    image_size: Size
    space: Any = field(default_factory=Pixels)
    schedule: str = "straight"
    num_train_timesteps: int = 1000
    zero_terminal_snr: bool = False
    shift: float | None = None
    prediction_type: str = "flow"
    text_encoder: str | None = None
    text_fingerprint: str | None = None
    max_tokens: int = 32
    student: Student | None = None
    first_stage: FirstStage | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        if self.num_train_timesteps > 1_000_000:  # make_schedule refuses too few
            raise ValueError(
                f"num_train_timesteps must be at most 1,000,000, got {self.num_train_timesteps}"
            )
        name_of(self.space)  # refuses an unknown one
        network = check_network(self, self.space)
        if network.numbers != (0 if self.student is None else 2):
            raise ValueError("a network that is told two numbers is a student's: give both or none")
        if self.first_stage is not None:
            check_second(self, network, self.space)
        if self.shift is None:
            object.__setattr__(self, "shift", SHIFT.get(self.schedule, 1.0))
        self.make_schedule().timesteps(1)  # a shift that cannot be is found out now

    @plain_torch()
    def make_schedule(self) -> Schedule:
        """The schedule that the network was trained with, and the grid that suits it."""
        steps, zero, shift = self.num_train_timesteps, self.zero_terminal_snr, self.shift
        return make_schedule(self.schedule, steps, zero, 1.0 if shift is None else shift)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of x_0."""
        height, width = (side // self.space.factor for side in sides(self.image_size))
        return describe(self.network).in_channels, height, width

    @property
    def channels(self) -> int:
        """Of pictures: 1 for grey, 3 for colour."""
        return int(self.space.channels or describe(self.network).in_channels)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, the network and the space under their names: {"unet": {…}, …}."""
        apart = ("network", "space", "student", "first_stage")
        rest = [f.name for f in dataclasses.fields(self) if f.name not in apart]
        made_for = {"student": self.student, "first_stage": self.first_stage}
        return {
            describe(self.network).name: dataclasses.asdict(self.network),
            name_of(self.space): dataclasses.asdict(self.space),
            **{name: getattr(self, name) for name in rest},
            **{name: dataclasses.asdict(x) for name, x in made_for.items() if x is not None},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """The way back, also from files of version 1.

        Raises:
            ValueError: for an unknown network or space, naming those that are known.
        """
        values = dict(values)
        if "data_mean" in values:  # version 1 had pixels only
            values["pixels"] = {"mean": values.pop("data_mean"), "std": values.pop("data_std")}
        for key, kind in (("student", Student), ("first_stage", FirstStage)):
            if key in values:
                values[key] = kind(**values[key])
        name = registered({n: v for n, v in values.items() if n not in SPACES}, NETWORKS, "network")
        network = config_of(name, values.pop(name))
        space = registered(values, SPACES, "space")
        return cls(network=network, space=SPACES[space](**values.pop(space)), **values)


def check_network(config: Any, space: Any) -> Description:
    """Hold against each other what a recipe and a `ModelConfig` both say of the network.

    Args:
        space: the space, or its class.

    Raises:
        ValueError: naming what does not fit or is not known.
    """
    network = describe(config.network)
    multiple = network.multiple * space.factor
    if any(side < 1 or side % multiple for side in sides(config.image_size)):
        raise ValueError(
            f"image_size must be a multiple of {multiple} for this network, got "
            f"{config.image_size}: {config.network}"
        )
    if network.out_channels != network.in_channels:
        raise ValueError(
            f"out_channels must be in_channels, {network.in_channels}, for a network that "
            f"denoises, got {network.out_channels}"
        )
    if not 1 <= config.max_tokens <= 65_536:
        raise ValueError(f"max_tokens must be from 1 to 65,536, got {config.max_tokens}")
    if (config.text_encoder is None) != (network.text_dim is None):
        raise ValueError(
            f"text_encoder is {config.text_encoder!r} but {network.name}.text_dim is "
            f"{network.text_dim}: give both, or neither for a network without text"
        )
    if config.text_encoder is not None and not config.text_encoder.strip():
        raise ValueError(
            f"text_encoder is {config.text_encoder!r}: give a name such as 'minilm', or None for a "
            "network without text"
        )
    steps = getattr(config, "num_train_timesteps", 1000)
    schedule = make_schedule(config.schedule, steps, config.zero_terminal_snr)
    NetworkDenoiser(torch.zeros_like, schedule, config.prediction_type)
    return network


def model_info(config: ModelConfig, record: dict[str, Any]) -> dict[str, Any]:
    """What stands in config.json for a model."""
    return {"model": config.to_dict(), "record": record}


def save_model(
    folder: str | Path,
    network: nn.Module,
    config: ModelConfig,
    record: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Save a trained network for use.

    Args:
        folder: becomes config.json and model.safetensors.
        network: of the shape config.network; compiled or wrapped (torch.compile, DataParallel) is
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
        name.replace("_orig_mod.", "").removeprefix("module."): (
            value.to(dtype) if value.is_floating_point() else value
        )
        for name, value in network.state_dict().items()
    }
    with torch.device("meta"):
        expected = build(config.network).state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        got, wanted = (tuple(x[name].shape) if name in x else None for x in (weights, expected))
        if got != wanted:
            raise ValueError(
                f"the network is not of the shape config.network: the weight {name} has the shape "
                f"{got} where {wanted} is wanted (None: there is none)"
            )
    files = {"model.safetensors": weights, **getattr(config.space, "files", {})}
    write_folder(folder, files, model_info(config, record or {}))


@plain_torch()
def load_model(folder: str | Path) -> tuple[nn.Module, ModelConfig, dict[str, Any]]:
    """The network (float32, in evaluation mode), its configuration and its record.

    Raises:
        CheckpointError: if the folder is not a whole, unaltered checkpoint of ours, or that of a
            network or a space that is not known here.
        TypeError: for a folder that is no path.
    """
    folder = as_path("folder", folder)
    info = read_info(folder)
    config = read_config(folder, info)
    network = build(config.network)
    load_weights(network, read_tensors(folder, "model.safetensors", info), folder)
    return network.eval(), config, info.get("record", {})


def read_config(folder: Path, info: dict[str, Any]) -> ModelConfig:
    """The configuration of the model in a folder, whose config.json holds `info`.

    Raises:
        CheckpointError: if it describes none, or one of a network or a space that is not known.
    """
    try:
        config = ModelConfig.from_dict(info["model"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'} does not describe a model ({error}): use another checkpoint"
        ) from error
    if (name := getattr(config.space, "FILE", None)) is not None:  # an autoencoder goes with it
        config.space.hold(read_tensors(folder, name, info))
    return config


def load_weights(network: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
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
