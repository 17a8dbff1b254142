"""Things so small that a case takes a fraction of a second: pictures, a model, a training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

import minidiff
from faults.frame import new_folder
from helpers import Pictures, Words, awake, log_of, sha256
from minidiff import glyphs, storage, texts
from minidiff.model import ModelConfig, load_model, save_model
from minidiff.recipe import TrainingConfig
from minidiff.run_folder import all_checkpoints
from minidiff.training import Trainer
from minidiff.unet import UNetConfig

SHAPE = UNetConfig(channels=(16,), attention=(False,), head_dim=16, text_dim=None)
RECIPE = TrainingConfig(
    network=SHAPE, image_size=8, text_encoder=None, steps=6, batch_size=4, warmup=1,
    log_every=1, evaluate_every=100, sample_every=100, save_every=2,
)  # fmt: skip
TEXTS = [f"text number {i}" for i in range(50)]


def warm_up() -> None:
    """Do once in the parent what loads libraries late, so that no fork has to wait for them."""
    from accelerate.state import AcceleratorState

    glyphs.load_glyphs()
    tqdm.monitor_interval = 0  # or it starts a thread, which a fork does not survive
    with new_folder() as folder:
        train(folder)
        minidiff.load(folder)("", num_inference_steps=1)
    AcceleratorState._reset_state(reset_partial_state=True)


def save_tiny_model(folder: Path, seed: int = 0) -> None:
    save_model(folder, awake(SHAPE, seed), ModelConfig(SHAPE, image_size=8))


def train(folder: Path, config: TrainingConfig = RECIPE, **options: Any) -> None:
    Trainer(config, Pictures(), folder, **options).run()


def train_to(folder: Path, step: int, config: TrainingConfig = RECIPE) -> None:
    """A run that was interrupted after this many steps."""

    def stop(trainer: Trainer) -> None:
        if trainer.step_count == step:
            raise SystemExit

    watched = dataclasses.replace(config, sample_every=1)
    try:
        train(folder, watched, callback=stop)
    except SystemExit:
        return
    raise AssertionError(f"it never came to step {step}")


def go_on(folder: Path, config: TrainingConfig = RECIPE) -> None:
    """What a user does after an interruption: resume, or what the errors advise instead."""
    try:
        train(folder, config, resume=True)
    except FileNotFoundError as error:
        assert "to resume" in str(error), error
        try:
            train(folder, config)
        except FileExistsError as exists:
            log = folder / "log.jsonl"
            assert f"delete {log}" in str(exists), exists
            log.unlink()
            train(folder, config)


def check_whole(folder: Path) -> None:
    """Everything in a run folder that has a name of its own can be opened."""
    for saved in all_checkpoints(folder):
        info = storage.read_info(saved)
        for name in info["files"]:
            storage.read_tensors(saved, name, info)
    if (folder / "model").exists():
        load_model(folder / "model")


def end_state(folder: Path) -> dict[str, Any]:
    """What a finished run has learnt, to the last bit, and what it has logged."""
    newest = all_checkpoints(folder)[-1]
    files = [*sorted(newest.glob("*.safetensors")), folder / "model" / "model.safetensors"]
    return {
        "newest": newest.name,
        "files": {f"{p.parent.name}/{p.name}": sha256(p) for p in files},
        "losses": [[e["step"], e.get("loss")] for e in log_of(folder)],
    }


def few_glyphs(size: int = 16) -> torch.Tensor:
    """The pictures of 60 characters by way of the cache. For a child only: it patches."""
    some = glyphs.load_glyphs()[:60]
    glyphs.load_glyphs = lambda: some  # type: ignore[assignment]
    return glyphs.glyph_images(size)


def few_texts(cache: Path) -> torch.Tensor:
    return texts.encode_texts(TEXTS, Words(), cache).values
