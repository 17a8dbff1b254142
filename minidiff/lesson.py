"""A student's lesson: its teacher, found and checked, and the loss that it learns from."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from minidiff.batches import Batch
from minidiff.distillation import Distillation
from minidiff.matching import Matching
from minidiff.model import ModelConfig, load_model
from minidiff.recipe import TrainingConfig
from minidiff.samplers import seeded_generator
from minidiff.second_stage import folder_of
from minidiff.storage import read_info
from minidiff.student import Student


class Lesson:
    """What a student learns from.

    Args:
        config: the recipe, which names the teacher.
        device: where to train.
        processes: that train together.
        begun: whether there is a student already, to start from or to go on with.

    Raises:
        FileNotFoundError: if there is no such teacher.
        ValueError: for a student as a teacher; and for one that is to match its teacher before it
            can jump, or in several processes.

    Attributes:
        student: what is to be made.
    """

    def __init__(
        self, config: TrainingConfig, device: torch.device, processes: int, begun: bool
    ) -> None:
        assert config.teacher is not None
        self.matches, self.seed = config.student_matches, config.seed
        if self.matches and not begun:
            raise ValueError(
                "student_matches is True, but only a student that can jump already learns so: give "
                "one with start (minidiff train --start), or set it to false"
            )
        if self.matches and processes > 1:
            raise ValueError(
                f"student_matches is True, which one process can do, not {processes} together: "
                "start a single one"
            )
        self.name, folder = config.teacher, folder_of(config.teacher, "teacher")
        self.teacher, self.config, _ = load_model(folder)
        self.teacher.to(device).requires_grad_(False)
        if self.config.student is not None:
            raise ValueError(f"the teacher {self.name} is a student itself: give its own teacher")
        walks = tuple(2**i for i in range(config.student_steps.bit_length()))
        weights = read_info(folder)["files"]["model.safetensors"]
        self.student = Student(weights, walks, (1.0, config.student_guidance))
        self.distillation: Distillation | None = None

    def agreed(self, model: ModelConfig) -> ModelConfig:
        """What the student is to be, in its teacher's space and with its grid.

        Raises:
            ValueError: for a teacher of another kind, naming what differs.
        """
        theirs = self.config
        same = ("image_size", "schedule", "num_train_timesteps", "zero_terminal_snr")
        for name in (*same, "prediction_type", "max_tokens"):
            if getattr(theirs, name) != getattr(model, name):
                raise ValueError(
                    f"the teacher {self.name} has {name} = {getattr(theirs, name)!r}, the recipe "
                    f"{getattr(model, name)!r}: use a recipe that agrees"
                )
        if not theirs.space.agrees(model.space):
            raise ValueError(
                f"the space of the teacher {self.name} is {theirs.space}, that of these pictures "
                f"{model.space}: use the pictures that it was trained on"
            )
        self.model = dataclasses.replace(model, shift=theirs.shift, space=theirs.space)
        return self.model

    def begin(
        self, network: nn.Module, averaged: nn.Module, text: str | None, compiled: bool
    ) -> None:
        """Give the student its teacher's weights, and keep the average of its own.

        Args:
            network, averaged: the student and its average.
            text: the fingerprint of the text encoder.
            compiled: whether to use torch.compile for those that are asked, too.

        Raises:
            ValueError: for a student of another shape, or another text encoder.
        """
        if text != self.config.text_fingerprint:
            raise ValueError(
                f"the teacher {self.name} was trained with the text encoder "
                f"{self.config.text_fingerprint}, this one is {text}: use the same"
            )
        for each in (network, averaged):
            new = each.state_dict()
            weights = {
                **{n: w for n, w in new.items() if n.startswith("numbers.")},
                **self.teacher.state_dict(),
            }
            try:
                each.load_state_dict(weights)
            except RuntimeError as error:
                reason = str(error).splitlines()[-1].strip()
                raise ValueError(
                    f"the student must have the shape of its teacher {self.name}, and numbers = 2 "
                    f"({reason})"
                ) from error
        if compiled:
            self.teacher.compile()
            averaged.compile()
        kind = Matching if self.matches else Distillation
        self.distillation = kind(
            self.student,
            self.teacher,
            averaged,
            self.model.make_schedule(),
            self.model.prediction_type,
            self.model.space.data_range,
        )

    def loss(self, network: nn.Module, batch: Batch, step: int) -> Tensor:
        """(b,) of each picture of the batch of a step."""
        lesson = self.distillation
        assert lesson is not None and batch.draw is not None
        if not isinstance(lesson, Matching):
            return lesson.loss(network, batch.x0, batch.eps, batch.draw, **batch.condition)
        generator = seeded_generator(self.seed, "matching", step, device=batch.eps.device)
        return lesson.match(
            network, batch.x0, batch.eps, batch.draw, step, generator, **batch.condition
        )

    @property
    def beside(self) -> tuple[nn.Module, torch.optim.Optimizer] | None:
        """A network that is trained beside the student, and its optimizer."""
        lesson = self.distillation
        return (lesson.fake, lesson.optimizer) if isinstance(lesson, Matching) else None
