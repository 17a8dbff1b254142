"""How a run begins: anew, with an earlier model's weights, or where it was interrupted.

What a checkpoint keeps for that, and how it is taken up again, stand here together.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minidiff import run_folder, storage
from minidiff.inputs import is_folder
from minidiff.model import ModelConfig, load_model, load_weights, model_info, read_config
from minidiff.recipe import TrainingConfig
from minidiff.spaces import name_of


class Beginning:
    """What there is to begin with; both checks come before minutes go into encoding texts.

    Args:
        folder: the run folder.
        resume: go on from the newest checkpoint there.
        start: the folder of an earlier model, or None.

    Raises:
        ValueError: if both are asked for.
        FileNotFoundError: if there is none of it.
        CheckpointError: if it is damaged.
    """

    def __init__(self, folder: Path, resume: bool, start: Path | None) -> None:
        if resume and start is not None:
            raise ValueError(
                f"only a new run can start from {start}: a resumed one goes on with its own weights"
            )
        if start is not None and not is_folder(start):
            raise FileNotFoundError(
                f"start is {str(start)!r}, which is no folder: give that of a model; for one that "
                f"ships it is minidiff.shelf.find_model({str(start)!r})"
            )
        self.folder, self.resume, self.start = folder, resume, start

    def check(
        self, config: TrainingConfig, model: ModelConfig, data: dict[str, Any], pictures: int
    ) -> ModelConfig:
        """See that what there is fits what is wanted.

        Returns:
            The model's config, in the space of the earlier weights.

        Raises:
            ValueError: naming what differs.
        """
        if self.resume:
            self.newest, self.info = run_folder.newest_info(self.folder)
            before = read_config(self.newest, self.info)
            check_recipe(self.info, config, data)
            was, now = (m.first_stage and m.first_stage.weights for m in (before, model))
            if was != now:
                raise ValueError(
                    f"the first stage of this run had the weights {was}, that of {config.first!r} "
                    f"now is {now} (SHA-256): put them back, or start a new run from this one"
                )
            count = self.info["record"]["training_images"]
            if count != pictures or not before.space.agrees(model.space):
                raise ValueError(
                    f"this run was trained on other pictures: {count} in {before.space}, now "
                    f"{pictures} in {model.space}; give the same, or start a new folder"
                )
            if before.student != model.student:
                raise ValueError(
                    f"this run's student learns from the teacher {_teacher(before)}, now it is "
                    f"{_teacher(model)}: give the same, or start a new folder"
                )
        elif self.start is not None:
            self.earlier = load_model(self.start)
            before = self.earlier[1]
            self._check_kind(before, model)
        else:
            return model
        return dataclasses.replace(model, space=before.space, shift=before.shift)

    def _check_kind(self, before: ModelConfig, model: ModelConfig) -> None:
        theirs, ours = (run_folder.flat(m.to_dict()) for m in (before, model))
        free = {"text_encoder", "text_fingerprint", "max_tokens", "shift"}
        free |= set(run_folder.flat({name_of(before.space): dataclasses.asdict(before.space)}))
        for name in theirs:
            if name.startswith("first_stage."):
                continue  # the weights may learn to enlarge another's pictures
            if name not in free and theirs[name] != ours.get(name):
                raise ValueError(
                    f"cannot start from {self.start}: its {name} is {theirs[name]!r}, here it is "
                    f"{ours.get(name)!r}. Use a recipe that agrees, or start from another model"
                )
        if not before.space.agrees(model.space):
            raise ValueError(
                f"cannot start from {self.start}: its space is {before.space}, that of these "
                f"pictures {model.space}. Use the same pictures"
            )

    def take_up(self, trainer: Any) -> None:
        """Give a trainer the weights, and all else that is known, to begin with.

        Args:
            trainer: a `minidiff.training.Trainer`, complete but for these.

        Raises:
            ValueError: for a model to start from with another text encoder.
            CheckpointError: for a damaged checkpoint, or one with another text encoder.
        """
        if self.resume:
            with run_folder.older_named(self.folder):
                self._go_on(trainer)
        elif self.start is not None:
            self._start(trainer)

    def _start(self, trainer: Any) -> None:
        """The averaged weights of an earlier model, and where they come from."""
        network, config, record = self.earlier
        theirs, ours = config.text_fingerprint, trainer.model_config.text_fingerprint
        if theirs != ours:  # this decides, not the encoder's name, which may be a folder
            raise ValueError(
                f"cannot start from {self.start}: its text_fingerprint is {theirs!r}, here it is "
                f"{ours!r}. Use the text encoder that it was trained with"
            )
        for ours in (trainer.network, trainer.averaged):
            ours.load_state_dict(network.state_dict())
        trainer.words = sorted({*trainer.words, *record.get("words", [])})
        kept = ("recipe", "steps", "images_seen", "training_images", "data", "seconds", "device")
        stage = {name: record[name] for name in (*kept, "processes", "torch") if name in record}
        assert self.start is not None
        stage["weights_sha256"] = storage.read_info(self.start)["files"]["model.safetensors"]
        trainer.stages = [*record.get("stages", []), stage]

    def _go_on(self, trainer: Any) -> None:
        newest, info = self.newest, self.info
        fingerprint = info["model"]["text_fingerprint"]
        if fingerprint != trainer.model_config.text_fingerprint:
            raise storage.CheckpointError(
                f"{newest} was trained with another text encoder "
                f"({info['model']['text_encoder']}, {fingerprint}): use that one"
            )
        load_weights(
            trainer.averaged, storage.read_tensors(newest, "model.safetensors", info), newest
        )
        for names, network, optimizer in _learning(trainer):
            weights, moments = (storage.read_tensors(newest, name, info) for name in names)
            load_weights(network, weights, newest)
            _load_optimizer(network, optimizer, moments)
        trainer.step_count, trainer.seconds = info["step"], info["seconds"]
        trainer.stages = info["record"].get("stages", [])
        trainer.words = sorted({*trainer.words, *info["record"].get("words", [])})
        if trainer.is_main:  # they are of all processes together
            trainer.losses.copy_(torch.tensor(info["losses"]))
        scaler = trainer.accelerator.scaler
        if scaler and info["scaler"]:
            scaler.load_state_dict(info["scaler"])


def _teacher(model: ModelConfig) -> str:
    return "none" if model.student is None else f"with the weights {model.student.teacher[:12]}…"


def checkpoint(trainer: Any, losses: Tensor) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """All that a resumed run needs: tensors by file, and what goes into config.json."""
    files = {
        "model.safetensors": trainer.averaged.state_dict(),
        **getattr(trainer.model_config.space, "files", {}),
    }
    for (weights, moments), network, optimizer in _learning(trainer):
        files[weights] = network.state_dict()
        files[moments] = _optimizer_tensors(network, optimizer)
    scaler = trainer.accelerator.scaler
    info = {
        **model_info(trainer.model_config, trainer.record()),
        "data": trainer.data,
        "training": trainer.config.to_dict(),
        "step": trainer.step_count,
        "seconds": trainer.seconds,
        "scaler": scaler.state_dict() if scaler else None,
        "losses": losses.tolist(),
    }
    return files, info


def _learning(trainer: Any) -> list[tuple[tuple[str, str], nn.Module, Any]]:
    """What learns: the files of its weights and of its optimizer's moments, and both themselves."""
    both = [(("weights.safetensors", "optimizer.safetensors"),
             trainer.network, trainer.optimizer.optimizer)]  # fmt: skip
    if trainer.lesson is not None and trainer.lesson.beside is not None:
        both += [(("fake.safetensors", "fake_optimizer.safetensors"), *trainer.lesson.beside)]
    return both


def _optimizer_tensors(network: nn.Module, optimizer: Any) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value
        for name, parameter in network.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def _load_optimizer(network: nn.Module, optimizer: Any, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for i, (name, parameter) in enumerate(network.named_parameters()):
        if f"{name}/step" not in tensors:
            continue  # it never had a gradient, so the optimizer knows nothing of it
        state[i] = {"step": tensors[f"{name}/step"]}
        for key in ("exp_avg", "exp_avg_sq"):
            # In the memory order of the parameter: a fused optimizer walks both side by side.
            state[i][key] = torch.empty_like(parameter).copy_(tensors[f"{name}/{key}"])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def check_recipe(info: dict[str, Any], config: TrainingConfig, data: dict[str, Any]) -> None:
    """See that a checkpoint's run is that of a recipe and of pictures, and not over.

    The run may become longer and log differently; what it learns must be the same. The text encoder
    and the autoencoder may lie in another folder: their fingerprints decide.

    Args:
        data: see `minidiff.batches.data_of`.

    Raises:
        ValueError: naming what differs.
    """
    free = {
        "steps",
        "time_limit",
        "decay",
        "compile",
        "text_encoder",
        "first",
        "teacher",
        "autoencoder",
    } | {f"{x}_every" for x in ("log", "evaluate", "sample", "save")}
    earlier = TrainingConfig.from_dict(info["training"])
    before, now = (run_folder.flat(recipe.to_dict()) for recipe in (earlier, config))
    for name in [*now, *before]:
        was, value = before.get(name), now.get(name)
        if name not in free and was != value:
            raise ValueError(
                f"{name} was {was!r} in this run and is now {value!r}: resume "
                "with the same recipe, or start a new folder"
            )
    known = info.get("data", {})  # earlier releases did not remember it
    if known.get("kind") == "folder" and known["fingerprint"] != data["fingerprint"]:
        raise ValueError(
            f"{data['path'] or 'the data set'} does not hold the pictures and texts that this run "
            f"began with, from {known['path']}: put them back as they were, or start a new folder"
        )
    if (held_out := known.get("held_out")) != data.get("held_out"):
        raise ValueError(
            f"held_out was {held_out} in this run and is now {data.get('held_out')}: resume with "
            "the same share, or start a new folder"
        )
    if config.steps < info["step"]:
        raise ValueError(
            f"steps is {config.steps}, but this run has made {info['step']}: give more"
        )
    limit, minutes = config.time_limit, info["seconds"] / 60
    if limit is not None and limit < minutes and limit != earlier.time_limit:
        raise ValueError(
            f"time_limit is {limit:g} minutes, but this run has trained for {minutes:.3g}: "
            "give more"
        )
