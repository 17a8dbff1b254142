"""Trackers: told of what is logged, never in the way, nothing sent anywhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from helpers import log_of, names
from minidiff import trackers
from minidiff.endings import TrainingStopped
from minidiff.recipe import TrainingConfig
from minidiff.training import Trainer
from minidiff.unet import UNetConfig

NETWORK = UNetConfig(channels=(16,), attention=(False,), head_dim=16, text_dim=None)
CONFIG = TrainingConfig(
    network=NETWORK, image_size=8, text_encoder=None, steps=4, batch_size=4, warmup=1,
    log_every=2, evaluate_every=4, save_every=2,
)  # fmt: skip
PICTURES = SimpleNamespace(
    images=torch.arange(6 * 64).to(torch.uint8).reshape(6, 1, 8, 8), prompts=[("",)] * 6
)


class Tracker:
    """In place of accelerate's own: keeps what it is told."""

    main_process_only = True
    requires_logging_directory = True
    all: list[Tracker] = []  # noqa: RUF012
    fails = False

    def __init__(self, project: str, folder: str, **options: Any) -> None:
        self.project, self.folder, self.options = project, Path(folder), options
        self.name = "tensorboard"
        self.settings: dict[str, Any] = {}
        self.told: list[tuple[int, dict[str, float]]] = []
        self.finished = False
        Tracker.all.append(self)

    def start(self) -> None: ...

    def store_init_configuration(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def log(self, values: dict[str, float], step: int) -> None:
        if Tracker.fails:
            raise OSError("no space left")
        self.told.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    from accelerate import accelerator
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(Tracker, "all", [])
    monkeypatch.setattr(Tracker, "fails", False)
    if importlib.util.find_spec("tensorboard") is None:
        monkeypatch.setattr(trackers, "find_spec", lambda name: name == "tensorboard")
    monkeypatch.setitem(accelerator.LOGGER_TYPE_TO_CLASS, "tensorboard", Tracker)
    monkeypatch.setattr(accelerator, "filter_trackers", lambda names, _=None: names or [])


def trained(folder: Path, **how: Any) -> Trainer:
    trainer = Trainer(CONFIG, PICTURES, folder, held_out=PICTURES, **how)
    trainer.run()
    return trainer


def test_a_tracker_hears_what_the_log_says(tmp_path: Path) -> None:
    trained(tmp_path / "run", log_with=["tensorboard", "tensorboard"])
    (tracker,) = Tracker.all
    log = log_of(tmp_path / "run")
    assert [step for step, _ in tracker.told] == [entry["step"] for entry in log] == [2, 4, 4]
    assert tracker.told[0][1]["loss"] == log[0]["loss"]
    assert tracker.told[2][1]["held_out_loss/62"] == log[2]["held_out_loss"]["62"]
    assert all(type(v) in (int, float) for _, values in tracker.told for v in values.values())
    assert tracker.settings["learning_rate"] == CONFIG.learning_rate
    assert tracker.settings["unet.channels"] == "[16]"
    assert tracker.folder == tmp_path / "run" / "tensorboard" and tracker.finished


def test_the_log_is_the_same_with_and_without(tmp_path: Path) -> None:
    trained(tmp_path / "with", log_with=["tensorboard"])
    trained(tmp_path / "without")
    losses = [[entry.get("loss") for entry in log_of(tmp_path / n)] for n in ("with", "without")]
    assert losses[0] == losses[1] and len(Tracker.all) == 1
    assert names(tmp_path / "with") == names(tmp_path / "without")


def test_a_run_that_goes_on_takes_back_what_it_does_again(tmp_path: Path) -> None:
    trainer = Trainer(CONFIG, PICTURES, tmp_path, log_with=["tensorboard"])

    def stop() -> None:
        Trainer.save(trainer)
        raise KeyboardInterrupt

    trainer.save = stop  # type: ignore[method-assign]
    with pytest.raises(TrainingStopped):
        trainer.run()
    trained(tmp_path, resume=True, log_with=["tensorboard"])
    assert [tracker.options for tracker in Tracker.all] == [{}, {"purge_step": 3}]
    assert all(tracker.finished for tracker in Tracker.all)


def test_a_tracker_that_fails_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tracker, "fails", True)
    with pytest.warns(
        UserWarning, match="training goes on without: OSError: no space left"
    ) as told:
        trainer = trained(tmp_path, log_with=["tensorboard"])
    assert trainer.step_count == 4 and len(log_of(tmp_path)) == 3
    assert len([w for w in told if "trackers failed" in str(w.message)]) == 1


def test_a_tracker_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is made."""
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    needed = r'wandb is not installed: pip install "minidiff\[trackers\]", or leave out'
    with pytest.raises(ImportError, match=needed):
        Trainer(CONFIG, PICTURES, tmp_path / "run", log_with=["wandb"])
    with pytest.raises(
        ValueError, match="unknown tracker 'neptune': choose from tensorboard, wandb"
    ):
        Trainer(CONFIG, PICTURES, tmp_path / "run", log_with=["neptune"])
    assert names(tmp_path) == []
