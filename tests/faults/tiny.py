"""Things so small that a case takes a fraction of a second: pictures, a model, a training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tqdm.auto import tqdm

import minidiff
from faults.frame import new_folder
from minidiff import checkpoints, glyphs, text
from minidiff.checkpoints import ModelConfig
from minidiff.recipe import TrainingConfig
from minidiff.run_folder import all_checkpoints
from minidiff.training import Trainer
from minidiff.unet import UNet, UNetConfig

SHAPE = UNetConfig(channels=(16,), attention=(False,), head_dim=16, text_dim=None)
RECIPE = TrainingConfig(
    unet=SHAPE, image_size=8, text_encoder=None, steps=6, batch_size=4, warmup=1,
    log_every=1, evaluate_every=100, sample_every=100, save_every=2,
)  # fmt: skip
TEXTS = [f"text number {i}" for i in range(50)]


class Pictures:
    """A data set of noise."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self.images = torch.randint(256, (20, 1, 8, 8), dtype=torch.uint8, generator=draw)
        self.prompts: list[tuple[str, ...]] = [("",)] * 20


class Words(text.TextEncoder):
    """A text encoder that knows nothing: a fixed random vector for every word."""

    def __init__(self, name: str | Path = "words", max_tokens: int = 32, device: Any = "cpu"):
        self.name, self.max_tokens, self.device = str(name), max_tokens, torch.device(device)
        self.fingerprint, self.dim = "0123", 8
        vectors = torch.randn(97, self.dim, generator=torch.Generator().manual_seed(0))
        self._model = lambda input_ids, **_: SimpleNamespace(last_hidden_state=vectors[input_ids])

    def _token_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        return [[zlib.crc32(word.encode()) % 97 for word in prompt.split()] for prompt in prompts]


def warm_up() -> None:
    """Do once in the parent what loads libraries late, so that no fork has to wait for them."""
    from accelerate.state import AcceleratorState

    glyphs.load_glyphs()
    tqdm.monitor_interval = 0  # or it starts a thread, which a fork does not survive
    with new_folder() as folder:
        train(folder)
        minidiff.load(folder)("", num_inference_steps=1)
    AcceleratorState._reset_state(reset_partial_state=True)


def network(seed: int = 0, shape: UNetConfig = SHAPE) -> UNet:
    """Random weights everywhere, also where a new network has zeros."""
    torch.manual_seed(seed)
    unet = UNet(shape)
    for parameter in unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return unet


def save_tiny_model(folder: Path, seed: int = 0) -> None:
    checkpoints.save_model(folder, network(seed), ModelConfig(SHAPE, image_size=8))


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
        info = checkpoints.read_info(saved)
        for name in info["files"]:
            checkpoints.read_tensors(saved, name, info)
    if (folder / "model").exists():
        checkpoints.load_model(folder / "model")


def end_state(folder: Path) -> dict[str, Any]:
    """What a finished run has learnt, to the last bit, and what it has logged."""
    newest = all_checkpoints(folder)[-1]
    files = [*sorted(newest.glob("*.safetensors")), folder / "model" / "model.safetensors"]
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return {
        "newest": newest.name,
        "files": {f"{p.parent.name}/{p.name}": sha256(p) for p in files},
        "losses": [[e["step"], e.get("loss")] for e in entries],
    }


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def few_glyphs(size: int = 16) -> torch.Tensor:
    """The pictures of 60 characters by way of the cache. For a child only: it patches."""
    some = glyphs.load_glyphs()[:60]
    glyphs.load_glyphs = lambda: some  # type: ignore[assignment]
    return glyphs.glyph_images(size)


def few_texts(cache: Path) -> torch.Tensor:
    return text.encode_texts(TEXTS, Words(), cache).values
