"""Students: trained from a teacher, drawn with in few evaluations, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import minidiff
from helpers import WIDTH, Pictures, awake
from minidiff import editing, matching
from minidiff.lesson import Lesson
from minidiff.model import ModelConfig, load_model, save_model
from minidiff.recipe import TrainingConfig
from minidiff.spaces import Pixels
from minidiff.storage import read_info
from minidiff.student import Student
from minidiff.training import Trainer
from minidiff.unet import UNetConfig

TEACHER = UNetConfig(channels=(16, 16), attention=(False, True), head_dim=16, text_dim=WIDTH)
STUDENT = dataclasses.replace(TEACHER, numbers=2)

pytestmark = pytest.mark.usefixtures("reading_on_cpu")


def of_pictures(**others: Any) -> ModelConfig:
    return ModelConfig(
        **{"network": TEACHER, "image_size": 8, "space": Pixels.of(Pictures().images),
           "text_encoder": "words", "text_fingerprint": "0123", "shift": 2.0, **others},
    )  # fmt: skip


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    save_model(tmp_path / "teacher", awake(TEACHER), of_pictures())
    return tmp_path / "teacher"


@pytest.fixture
def recipe(teacher: Path) -> TrainingConfig:
    return TrainingConfig(
        network=STUDENT, image_size=8, text_encoder="words", teacher=str(teacher), steps=4,
        batch_size=8, log_every=2, save_every=2, sample_every=9, student_steps=4,
    )  # fmt: skip


@pytest.fixture
def student(tmp_path: Path) -> minidiff.Pipeline:
    made_for = Student("0" * 64, (1, 2, 4), (1.0, 5.0))
    config = of_pictures(network=STUDENT, student=made_for)
    save_model(tmp_path / "student", awake(STUDENT), config)
    return minidiff.load(tmp_path / "student")


def train(config: TrainingConfig, folder: Path, **options: Any) -> Trainer:
    trainer = Trainer(config, Pictures(), folder, **options)
    trainer.run()
    return trainer


# ------------------------------------------------------------------------------------ training


def test_it_begins_as_its_teacher_and_becomes_a_model_that_draws(
    recipe: TrainingConfig, teacher: Path, tmp_path: Path
) -> None:
    trainer = Trainer(recipe, Pictures(), tmp_path / "run")
    theirs = load_model(teacher)[0].state_dict()
    assert all(torch.equal(w, theirs[n]) for n, w in trainer.network.state_dict().items()
               if not n.startswith("numbers."))  # fmt: skip
    trainer.run()
    pipeline = minidiff.load(tmp_path / "run")
    made_for = pipeline.config.student
    assert made_for is not None and made_for.evaluations == (1, 2, 4)
    assert made_for.teacher == read_info(teacher)["files"]["model.safetensors"]
    assert (pipeline.schedule.shift, pipeline.space) == (2.0, of_pictures().space)
    assert pipeline.record["recipe"]["teacher"] == str(teacher)
    assert pipeline("bar").shape == (1, 1, 8, 8)
    losses = [json.loads(line)["loss"] for line in
              (tmp_path / "run" / "log.jsonl").read_text("utf-8").splitlines()]  # fmt: skip
    assert len(losses) == 2 and all(loss > 0 for loss in losses)


def test_a_resumed_run_is_the_uninterrupted_one(recipe: TrainingConfig, tmp_path: Path) -> None:
    whole = train(recipe, tmp_path / "whole")
    train(dataclasses.replace(recipe, steps=2), tmp_path / "parts")
    parts = train(recipe, tmp_path / "parts", resume=True)
    for name, weight in whole.averaged.state_dict().items():
        assert torch.equal(weight, parts.averaged.state_dict()[name]), name


def test_a_resumed_run_that_matches_is_the_uninterrupted_one(
    recipe: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "ALONE", 1)
    train(recipe, tmp_path / "jumps")
    recipe = dataclasses.replace(recipe, student_matches=True)
    whole = train(recipe, tmp_path / "whole", start=tmp_path / "jumps" / "model")
    half = dataclasses.replace(recipe, steps=2)
    train(half, tmp_path / "parts", start=tmp_path / "jumps" / "model")
    parts = train(recipe, tmp_path / "parts", resume=True)
    assert whole.lesson and whole.lesson.beside and parts.lesson and parts.lesson.beside
    fakes = (whole.lesson.beside[0], parts.lesson.beside[0])
    for ours, theirs in ((whole.averaged, parts.averaged), fakes):
        for name, weight in ours.state_dict().items():
            assert torch.equal(weight, theirs.state_dict()[name]), name
    start = load_model(tmp_path / "jumps" / "model")[0].state_dict()
    assert any(not torch.equal(start[n], w) for n, w in whole.averaged.state_dict().items())
    again = json.loads((tmp_path / "parts" / "log.jsonl").read_text("utf-8").splitlines()[-1])
    assert again["loss"] > 0


def test_only_a_student_that_can_jump_matches_and_in_one_process(
    recipe: TrainingConfig, tmp_path: Path
) -> None:
    matching = dataclasses.replace(recipe, student_matches=True)
    with pytest.raises(ValueError, match="only a student that can jump already"):
        Trainer(matching, Pictures(), tmp_path / "run")
    with pytest.raises(ValueError, match="which one process can do, not 2 together"):
        Lesson(matching, torch.device("cpu"), 2, True)


def test_it_does_not_go_on_with_another_teacher(
    recipe: TrainingConfig, teacher: Path, tmp_path: Path
) -> None:
    train(dataclasses.replace(recipe, steps=2), tmp_path / "run")
    save_model(teacher, awake(TEACHER, seed=1), of_pictures())
    with pytest.raises(ValueError, match="this run's student learns from the teacher with the"):
        Trainer(recipe, Pictures(), tmp_path / "run", resume=True)
    other = dataclasses.replace(recipe, teacher=str(tmp_path / "other"))
    save_model(tmp_path / "other", awake(TEACHER), of_pictures())
    fresh = dataclasses.replace(recipe, steps=2)
    with pytest.raises(ValueError, match=r"its student\.teacher is"):
        Trainer(fresh, Pictures(), tmp_path / "new", start=tmp_path / "run" / "model")
    Trainer(other, Pictures(), tmp_path / "run", resume=True)  # the same one, in another place


@pytest.mark.parametrize(
    ("others", "what"),
    [
        ({"schedule": "cosine"}, "has schedule = 'cosine', the recipe 'straight'"),
        ({"prediction_type": "x0"}, "has prediction_type = 'x0', the recipe 'flow'"),
        ({"image_size": 16}, "has image_size = 16, the recipe 8"),
        ({"space": Pixels(0.9, 0.1)}, "use the pictures that it was trained on"),
        ({"text_fingerprint": "4567"}, "was trained with the text encoder 4567"),
    ],
)
def test_a_teacher_of_another_kind_is_refused(
    recipe: TrainingConfig, teacher: Path, tmp_path: Path, others: dict[str, Any], what: str
) -> None:
    save_model(teacher, awake(TEACHER), of_pictures(**others))
    with pytest.raises(ValueError, match=what):
        Trainer(recipe, Pictures(), tmp_path / "run")


def test_a_teacher_of_another_shape_and_a_student_as_teacher_are_refused(
    recipe: TrainingConfig, student: minidiff.Pipeline, tmp_path: Path
) -> None:
    wide = dataclasses.replace(STUDENT, channels=(16, 32))
    with pytest.raises(ValueError, match="the student must have the shape of its teacher"):
        Trainer(dataclasses.replace(recipe, network=wide), Pictures(), tmp_path / "run")
    of_student = dataclasses.replace(recipe, teacher=str(tmp_path / "student"))
    with pytest.raises(ValueError, match="is a student itself"):
        Trainer(of_student, Pictures(), tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="teacher is 'nobody', but there is no such model"):
        Trainer(dataclasses.replace(recipe, teacher="nobody"), Pictures(), tmp_path / "run")


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"teacher": None}, "teacher is None but unet.numbers is 2"),
        ({"network": TEACHER}, "but unet.numbers is 0"),
        ({"student_steps": 6}, "student_steps must be 1, 2, 4, 8"),
        ({"student_steps": 0}, "student_steps must be 1, 2, 4, 8"),
        ({"student_guidance": 1.0}, "student_guidance must be above 1"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(
    recipe: TrainingConfig, values: dict[str, Any], what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        dataclasses.replace(recipe, **values)


def test_the_recipes_that_ship_are_students_of_what_ships() -> None:
    for name in ("glyph64-fast", "glyph64-fast-gpu", "glyph64-fast-match"):
        config = TrainingConfig.recipe(name)
        assert config.student_matches == name.endswith("match")
        assert config.teacher == "glyph64" and config.network.numbers == 2
        assert dataclasses.replace(config.network, numbers=0) == minidiff.load().config.network
    assert "teacher" not in TrainingConfig().to_dict()  # it says nothing of other trainings


# ------------------------------------------------------------------------------------- drawing


def test_it_draws_in_four_evaluations_or_in_one(student: minidiff.Pipeline) -> None:
    heard = []
    student.network.register_forward_pre_hook(
        lambda _, given, named: heard.append(named["numbers"]), with_kwargs=True
    )
    frames = list(student.steps("bar", num_images_per_prompt=2))
    assert len(frames) == len(heard) == 4 and frames[-1].t == 0
    torch.testing.assert_close(heard[0], torch.tensor([[0.5, 0.25]]))  # 3 of 1 to 5; 4 steps
    heard.clear()
    student("bar", num_inference_steps=1, guidance_scale=5.0)
    torch.testing.assert_close(heard[0], torch.tensor([[1.0, 1.0]]))
    assert len(heard) == 1


def test_scale_steps_and_text_all_count(student: minidiff.Pipeline) -> None:
    usual = student("bar")
    assert not torch.equal(usual, student("bar", guidance_scale=1.0))
    assert not torch.equal(usual, student("bar", num_inference_steps=2))
    assert not torch.equal(usual, student("black"))
    assert torch.equal(usual, student("bar", sampler="ddim", num_inference_steps=4))


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"num_inference_steps": 20}, r"walks of 1, 2, 4 steps.*num_inference_steps = 20"),
        ({"timesteps": [1000, 500, 0]}, "walks of 1, 2, 4 steps.*got timesteps"),
        ({"sampler": "dpmpp_2m"}, "with the sampler 'ddim', got 'dpmpp_2m'"),
        ({"guidance_scale": 0.5}, "guidance_scale from 1 to 5, got 0.5"),
        ({"guidance_scale": "3"}, "guidance_scale must be a number, got '3'"),
        ({"guidance_scale": 7}, "guidance_scale from 1 to 5, got 7"),
        ({"negative_prompt": "black"}, "negative_prompt 'black' does not go with this model"),
    ],
)
def test_what_it_has_not_learnt_is_refused(
    student: minidiff.Pipeline, asked: dict[str, Any], what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        student("bar", **asked)


def test_it_does_not_edit(student: minidiff.Pipeline) -> None:
    with pytest.raises(ValueError, match="learnt to jump from noise"):
        editing.steps(student, ["bar", "black"], blend=True)


def test_a_file_without_what_it_was_made_for_is_no_model(
    student: minidiff.Pipeline, tmp_path: Path
) -> None:
    values = student.config.to_dict()
    assert ModelConfig.from_dict(json.loads(json.dumps(values))) == student.config
    del values["student"]
    with pytest.raises(ValueError, match="give both or none"):
        ModelConfig.from_dict(values)
    values = student.config.to_dict()
    values["student"]["evaluations"] = (1, 3)
    with pytest.raises(ValueError, match=r"evaluations must be 1, 2, 4, 8"):
        ModelConfig.from_dict(values)
    values["student"].update(evaluations=(1, 2), guidance=(5.0, 1.0))
    with pytest.raises(ValueError, match="guidance must be two rising scales"):
        ModelConfig.from_dict(values)
