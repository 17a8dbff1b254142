"""A cascade draws (Ho et al. 2022): what the first stage draws, the second draws twice as large.

`minidiff.load("glyph128")` gives a `Pipeline` of the first stage that has a `SecondStage`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from minidiff import hub
from minidiff.denoisers import NetworkDenoiser
from minidiff.frames import Frame, Frames
from minidiff.inputs import is_folder, on_network, sides
from minidiff.model import ModelConfig, load_model, load_weights, model_info
from minidiff.networks import build
from minidiff.samplers import Generators, StepRule, sample_steps, standard_normal
from minidiff.schedules import number_within, whole_number
from minidiff.shelf import find_model
from minidiff.stages import FIRST, doubled, laid_beside
from minidiff.storage import CheckpointError, read_info, read_tensors, write_folder

BATCH = 16  # pictures that the network sees at a time: they are large
RULE = "dpmpp_2m"  # sharper than ddim in as many steps
OPTIONS = ("second_steps", "redrawn")  # of a call, that are for the second stage


class Doubled(Frame):
    """A moment of the first stage, every pixel four times: so a film has one size."""

    def __init__(self, frame: Frame) -> None:
        super().__init__(frame._steps, frame._space)

    def _pictures(self, batches: Any) -> Tensor:
        return doubled(super()._pictures(batches))


class Both(Frames):
    """The frames of the first stage, then those of the second, which begins when they are over."""

    def __init__(self, first: Frames, second: Callable[[Tensor], Frames], count: int) -> None:
        self._first, self._enlarge, self._count = first, second, len(first) + count
        self._second: Frames | None = None

    def __next__(self) -> Frame:
        if self._second is None:
            for frame in self._first:
                self._last = frame
                return Doubled(frame)
            self._second = self._enlarge(self._last.images)
        frame = next(self._second)
        frame.index += len(self._first)
        return frame


class SecondStage:
    """Draws pictures twice as large as those that it is shown.

    Args:
        network, config, record: of a model with a `first_stage`.

    Raises:
        ValueError: for one without.
    """

    def __init__(
        self, network: nn.Module, config: ModelConfig, record: dict[str, Any] | None = None
    ) -> None:
        if config.first_stage is None:
            raise ValueError("this model enlarges nobody's pictures: its config has no first_stage")
        self.network, self.config, self.first = network.eval(), config, config.first_stage
        self.space, self.record, self.schedule = config.space, record or {}, config.make_schedule()
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> SecondStage:
        """Move it to another device, and return it."""
        self.device = device
        self.network.to(device)
        return self

    def settings(self, options: dict[str, Any]) -> dict[str, Any]:
        """Take what is for this stage out of the options of a call, and see that it can be.

        Args:
            options: `second_steps`, how many steps, and `redrawn`, how far it shall mistrust the
                small picture, from 0 to 1; else what its config says. Others are left there.

        Raises:
            ValueError: naming what is out of range.
        """
        told = {name: options.pop(name, None) for name in OPTIONS}
        steps, redrawn = told["second_steps"], told["redrawn"]
        steps = self.first.steps if steps is None else whole_number("second_steps", steps)
        last = self.schedule.num_train_timesteps
        if not 1 <= steps <= last:
            raise ValueError(f"second_steps must be from 1 to {last}, got {steps}")
        redrawn = self.first.redrawn if redrawn is None else redrawn
        wanted = "redrawn must lie between 0 and 1"
        return {"steps": steps, "redrawn": number_within(0, 1, redrawn, wanted)}

    def after(
        self,
        frames: Frames,
        space: Any,
        generators: Generators,
        steps: int,
        redrawn: float,
        rule: str | StepRule = RULE,
        last: int = 0,
        progress: bool = False,
    ) -> Frames:
        """Go on with what the first stage has drawn.

        Args:
            frames: of the first stage.
            space: of the first stage.
            generators: of the noise, one for all or a list of one per picture.
            steps, redrawn: from `settings`.
            rule: how it steps.
            last: timestep at which the first stage ends.
            progress: show a bar with the time left.

        Raises:
            ValueError: for a first stage that ends before t = 0.
        """
        if last > 0:
            raise ValueError(
                f"timesteps end at {last}, but a second stage enlarges what is finished: let them "
                "end at 0"
            )

        def enlarged(images: Tensor) -> Frames:
            shape = len(images), *self.config.shape
            x_T = standard_normal(shape, generators, self.device)
            small = space.to_data(images).to(x_T)
            walks = []
            for part in torch.arange(len(x_T)).split(BATCH):
                rows = part.to(x_T.device)
                told = x_T.new_full((len(part),), redrawn)
                picture = laid_beside(small[rows], torch.zeros_like(told), told)
                kind, clip = self.config.prediction_type, self.space.data_range
                asked = NetworkDenoiser(self.network, self.schedule, kind, clip, picture=picture)
                mine = generators
                if isinstance(generators, list):
                    mine = [generators[i] for i in part.tolist()]
                walks.append(sample_steps(asked, x_T[rows], rule, steps, mine))
            bar = tqdm(zip(*walks), "Enlarging", steps, False, unit=" steps", disable=not progress)
            return Frames(steps, iter(bar), self.space)

        return Both(frames, enlarged, steps)

    def save(
        self, folder: str | Path, network: nn.Module, config: ModelConfig, record: dict[str, Any]
    ) -> None:
        """Write both stages into one folder that `minidiff.load` opens, in half precision.

        Args:
            network, config, record: of the first stage.

        Raises:
            OSError, TypeError: as `minidiff.model.save_model`.
        """
        name = Path(self.first.name).name  # no path of this machine
        first = dataclasses.replace(self.first, name=name)
        mine = dataclasses.replace(self.config, first_stage=first)
        files = {"model.safetensors": _half(self.network), FIRST: _half(network)}
        info = {**model_info(mine, self.record), "first": model_info(config, record)}
        write_folder(folder, files, info)


def _half(network: nn.Module) -> dict[str, Tensor]:
    weights = network.state_dict().items()
    return {n: x.half() if x.is_floating_point() else x for n, x in weights}


def check_alone(config: ModelConfig) -> None:
    """See that a model draws by itself.

    Raises:
        ValueError: for a second stage.
    """
    if config.first_stage is not None:
        raise ValueError(
            f"this is a second stage, which enlarges pictures of {config.first_stage.name!r}: open "
            "its folder with minidiff.load, or give it to a Pipeline of the first as second"
        )


Stages = tuple[nn.Module, ModelConfig, dict[str, Any], SecondStage | None]


def stages(
    network: nn.Module, config: ModelConfig, record: dict[str, Any], folder: Path | None = None
) -> Stages:
    """What a `Pipeline` is made of: the model itself or, of a second stage, the first and it.

    Args:
        folder: from which the model was read; its first stage may lie there, too.

    Raises:
        FileNotFoundError: if the first stage is not here.
        CheckpointError: if it has other weights than it had, or draws in another size.
    """
    if config.first_stage is None:
        return network, config, record, None
    info = {"files": {}} if folder is None else read_info(folder)
    if folder is not None and FIRST in info["files"]:
        first = _inside(folder, info)
    else:
        first = _by_name(config, folder)
    wanted = tuple(side // 2 for side in sides(config.image_size))
    if sides(first[1].image_size) != wanted or first[1].shape[0] != config.shape[0]:
        raise CheckpointError(
            f"the first stage {config.first_stage.name!r} draws {first[1].image_size} in "
            f"{first[1].shape[0]} channels, not {wanted} in {config.shape[0]}: use another"
        )
    return *first, SecondStage(network, config, record)


def _inside(folder: Path, info: dict[str, Any]) -> tuple[nn.Module, ModelConfig, dict[str, Any]]:
    """The first stage that `SecondStage.save` has written."""
    try:
        config, record = ModelConfig.from_dict(info["first"]["model"]), info["first"]["record"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'} does not describe a first stage ({error}): use another copy"
        ) from error
    network = build(config.network)
    load_weights(network, read_tensors(folder, FIRST, info), folder / FIRST)
    return network.eval(), config, record


def _by_name(
    config: ModelConfig, folder: Path | None
) -> tuple[nn.Module, ModelConfig, dict[str, Any]]:
    """The first stage as one that ships or a folder; a model decides on no download."""
    assert config.first_stage is not None
    name, wanted = config.first_stage.name, config.first_stage.weights
    who = "this model" if folder is None else f"the model in {folder}"
    remedy = "put it back, or take a copy that Pipeline.save wrote, which holds both stages"
    if on_network(name) or (hub.is_name(name) and not is_folder(name)):
        raise FileNotFoundError(f"{who} enlarges pictures of {name!r}, which is not here: {remedy}")
    try:
        place = find_model(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{who} enlarges pictures of {name!r}, which is not here: {remedy}"
        ) from error
    found = read_info(place)["files"]["model.safetensors"]
    if found != wanted:
        raise CheckpointError(
            f"{who} enlarges pictures of {name!r} with the weights {wanted} (SHA-256), but those "
            f"in {place} are {found}: {remedy}"
        )
    return load_model(place)
