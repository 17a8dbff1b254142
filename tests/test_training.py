"""Training: what a step sees, what a run leaves behind, and how it survives what goes wrong.

All of it on the CPU, with tiny networks and a made-up text encoder. Run as a program this file is
the child that other tests kill, or launch twice: see `main` at its end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import math
import mmap
import os
import pickle
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import minidiff
from helpers import WIDTH, Pictures, Words, log_of, names, odd_defaults, sha256
from minidiff import batches, devices, held_out, run_folder, storage, text, texts, training
from minidiff.batches import Batch
from minidiff.endings import Ended, TrainingStopped
from minidiff.model import load_model
from minidiff.recipe import TrainingConfig
from minidiff.shelf import find_model
from minidiff.storage import CheckpointError
from minidiff.training import Trainer
from minidiff.unet import UNet, UNetConfig

NO_TEXT = UNetConfig(channels=(16,), attention=(False,), head_dim=16, text_dim=None)
WITH_TEXT = UNetConfig(channels=(16, 16), attention=(False, True), head_dim=16, text_dim=WIDTH)
PLAIN = TrainingConfig(
    network=NO_TEXT, image_size=8, text_encoder=None, steps=12, batch_size=4, warmup=3, clip=5.0,
    log_every=4, evaluate_every=6, sample_every=6, save_every=6,
)  # fmt: skip
TEXT = dataclasses.replace(PLAIN, network=WITH_TEXT, text_encoder="words", max_tokens=6)
SHORT = dataclasses.replace(PLAIN, steps=4, log_every=1, evaluate_every=9, save_every=2)


class OtherWords(Words):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fingerprint = "4567"


@pytest.fixture(autouse=True)
def surroundings(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On the CPU, whatever the machine has; a cache of its own; the made-up encoder."""
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(text, "TextEncoder", Words)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def change(config: TrainingConfig, **changes: Any) -> TrainingConfig:
    return dataclasses.replace(config, **changes)


def train(config: TrainingConfig, folder: Path, **options: Any) -> Trainer:
    trainer = Trainer(config, Pictures(), folder, **options)
    trainer.run()
    return trainer


def losses(folder: Path) -> dict[int, float]:
    return {entry["step"]: entry["loss"] for entry in log_of(folder) if "loss" in entry}


def saved(folder: Path) -> list[int]:
    """The steps of the checkpoints in a run folder."""
    return [int(path.name.removeprefix("step-")) for path in run_folder.all_checkpoints(folder)]


def tensors(batch: Batch) -> list[Tensor]:
    return [batch.x0, batch.eps, batch.t, *batch.condition.values()]


def silence(network: torch.nn.Module) -> None:
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)


def newest(folder: Path) -> Path:
    path = run_folder.latest_checkpoint(folder)
    assert path is not None
    return path


def same_state(a: Path, b: Path) -> bool:
    """Bit for bit the same weights, average and optimizer in two checkpoints."""
    names = ["model.safetensors", "optimizer.safetensors", "weights.safetensors"]
    for folder in (a, b):
        assert sorted(p.name for p in folder.iterdir()) == ["config.json", *names]
    for name in names:
        left, right = load_file(a / name), load_file(b / name)
        if left.keys() != right.keys() or not all(torch.equal(left[k], right[k]) for k in left):
            return False
    return True


# ---------------------------------------------------------------------------- what is sampled


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-1.0, 0.5), (0.5, 3.0)])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_timesteps_cover_the_distribution_evenly(mean: float, std: float, batch: int) -> None:
    config = change(PLAIN, timestep_mean=mean, timestep_std=std)
    normal = statistics.NormalDist(mean, std)

    def quantile(u: float) -> float:  # of t / T
        if u <= 0 or u >= 1:
            return min(max(u, 0.0), 1.0)
        return 1 / (1 + math.exp(-normal.inv_cdf(u)))

    generator = torch.Generator().manual_seed(0)
    for last in (1000, 10):
        for _ in range(20):
            t = batches.sample_timesteps(config, batch, last, generator)
            assert t.shape == (batch,) and t.dtype == torch.int64
            assert t.min() >= 1 and t.max() <= last
            for k, value in enumerate(sorted(t.tolist())):  # one from each slice
                low, high = (quantile((k + i) / batch) * last for i in (0, 1))
                assert max(1, math.ceil(low - 1e-6)) <= value <= math.ceil(high + 1e-6)


def test_timesteps_are_logit_normal_and_in_no_order() -> None:
    generator = torch.Generator().manual_seed(0)
    config = change(PLAIN, timestep_mean=0.5, timestep_std=0.8)
    draws = [batches.sample_timesteps(config, 16, 1000, generator) for _ in range(500)]
    logits = torch.logit((torch.cat(draws).double() - 0.5) / 1000)
    assert logits.mean().item() == pytest.approx(0.5, abs=0.02)
    assert logits.std().item() == pytest.approx(0.8, abs=0.02)
    places = torch.stack([t.argmax() for t in draws])  # of the largest in its batch
    assert Counter(places.tolist()).most_common(1)[0][1] < 80


@pytest.mark.parametrize("batch_size", [4, 7, 20, 33])
def test_every_epoch_sees_every_picture_once(tmp_path: Path, batch_size: int) -> None:
    trainer = Trainer(change(PLAIN, batch_size=batch_size), Pictures(20), tmp_path / "run")
    steps = math.ceil(60 / batch_size)
    order = torch.cat([trainer.batches.order(step) for step in range(steps)])[:60]
    epochs = [part.tolist() for part in order.split(20)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != sorted(epochs[2])


def test_a_batch_can_be_drawn_again(tmp_path: Path) -> None:
    trainer = Trainer(TEXT, Pictures(), tmp_path / "run")
    first, again, other = (trainer.batches(step) for step in (5, 5, 6))
    for a, b, c in zip(tensors(first), tensors(again), tensors(other)):
        assert torch.equal(a, b)
        assert a.shape != c.shape or not torch.equal(a, c)
    assert first.x0.shape == first.eps.shape == (4, 1, 8, 8) and first.t.shape == (4,)
    tokens, mask = first.condition["tokens"], first.condition["mask"]
    assert tokens.shape == (*mask.shape, WIDTH)
    # pictures of the data set, in the network's units
    images = trainer.model_config.space.to_images(first.x0)
    chosen = Pictures().images[trainer.batches.order(5)].float() / 127.5 - 1
    assert torch.allclose(images, chosen, atol=1e-5)


def test_pictures_have_mean_0_and_deviation_1_for_the_network(tmp_path: Path) -> None:
    trainer = Trainer(PLAIN, Pictures(), tmp_path / "run")
    x = trainer.model_config.space.to_data(Pictures().images.double() / 127.5 - 1)
    assert x.mean().item() == pytest.approx(0, abs=1e-5)
    assert x.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_prompts_are_dropped_and_replaced_by_senses_as_often_as_asked(tmp_path: Path) -> None:
    config = change(TEXT, batch_size=20, no_text=0.25, senses=0.6)
    trainer = Trainer(config, Pictures(), tmp_path / "run")
    lengths: Counter[tuple[bool, int]] = Counter()  # (picture with several prompts, tokens)
    for step in range(100):
        mask = trainer.batches(step).condition["mask"]
        pictures = trainer.batches.order(step).tolist()
        lengths.update((i % 2 == 1, n) for i, n in zip(pictures, mask.sum(1).tolist()))
    several = {n: lengths[True, n] / 1000 for n in range(7)}
    single = {n: lengths[False, n] / 1000 for n in range(7)}
    assert sum(several.values()) == sum(single.values()) == 1
    assert several[0] == pytest.approx(0.25, abs=0.05) == single[0]
    assert several[4] == pytest.approx(0.75 * 0.4, abs=0.05)  # the whole definition
    assert several[1] == pytest.approx(0.75 * 0.3, abs=0.05) == several[2]  # its two senses
    assert single[3] == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize(("no_text", "senses", "expected"), [(1, 0.5, {0}), (0, 0, {3, 4})])
def test_the_ends_of_the_shares(
    tmp_path: Path, no_text: float, senses: float, expected: set[int]
) -> None:
    config = change(TEXT, no_text=no_text, senses=senses)
    trainer = Trainer(config, Pictures(), tmp_path / "run")
    masks = [trainer.batches(step).condition["mask"] for step in range(20)]
    assert {n for mask in masks for n in mask.sum(1).tolist()} == expected


def test_tokens_are_hidden_as_often_as_asked_and_nothing_else_changes(tmp_path: Path) -> None:
    config = change(TEXT, batch_size=20, no_text=0.0, senses=0.0)
    seen = Trainer(config, Pictures(), tmp_path / "seen")
    hiding = Trainer(change(config, hidden_tokens=0.3), Pictures(), tmp_path / "hiding")
    kept = total = 0
    for step in range(50):
        *others, mask = tensors(seen.batches(step))
        *same, left = tensors(hiding.batches(step))
        assert all(map(torch.equal, others, same))
        again = hiding.batches(step).condition["mask"]
        assert torch.equal(left, again)
        assert not (left & ~mask).any()  # padding stays padding
        kept, total = kept + int(left.sum()), total + int(mask.sum())
    assert 1 - kept / total == pytest.approx(0.3, abs=0.03)
    every = Trainer(change(config, hidden_tokens=1.0), Pictures(), tmp_path / "all").batches(0)
    assert not every.condition["mask"].any()


def test_tokens_are_those_of_the_picture(tmp_path: Path) -> None:
    config = change(TEXT, no_text=0.0, senses=0.0)
    pictures = Pictures()
    trainer = Trainer(config, pictures, tmp_path / "run")
    condition = trainer.batches(3).condition
    whole = [pictures.prompts[i][0] for i in trainer.batches.order(3).tolist()]
    expected = Words(max_tokens=6).encode(whole)
    assert torch.equal(condition["mask"], expected.mask)
    assert torch.allclose(
        condition["tokens"], expected.tokens, atol=2e-3
    )  # the table is half precision


def test_processes_share_the_batch_one_would_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import Accelerator

    whole = Trainer(TEXT, Pictures(), tmp_path / "run").batches(7)
    shares = []
    for index in (0, 1):
        monkeypatch.setattr(Accelerator, "num_processes", property(lambda _: 2))
        place = property(lambda _, i=index: i)  # type: ignore[misc]
        monkeypatch.setattr(Accelerator, "process_index", place)
        shares.append(Trainer(TEXT, Pictures(), tmp_path / f"{index}").batches(7))
    for together, first, second in zip(tensors(whole), *map(tensors, shares)):
        joined = torch.cat([first, second])
        n = together.shape[1:2]  # prompts are padded further with several processes
        assert torch.equal(joined[:, : n[0]] if together.ndim in (2, 3) else joined, together)


# ------------------------------------------------------------------------------ the method


def test_one_batch_overfits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = change(
        TEXT, network=dataclasses.replace(WITH_TEXT, channels=(32, 32)), steps=200, warmup=20,
        learning_rate=3e-3, log_every=20, save_every=500, evaluate_every=500, sample_every=500,
    )  # fmt: skip
    trainer = Trainer(config, Pictures(), tmp_path / "run")
    same = trainer.batches(0)
    monkeypatch.setattr(trainer, "batches", lambda step: same)
    first: list[float] = []
    for _ in range(config.steps):
        trainer.step()
        if not first:
            first.append(trainer._mean_loss())
        if trainer.step_count == config.steps - 20:
            trainer._mean_loss()
    assert first[0] > 1.5  # an untrained network answers 0 to a target of variance 2
    assert trainer._mean_loss() < 0.1 * first[0]


def test_the_average_of_the_weights_is_ramped(tmp_path: Path) -> None:
    trainer = Trainer(change(PLAIN, ema_decay=0.27), Pictures(), tmp_path / "run")
    expected: list[Tensor] = []
    for n, decay in enumerate([0, 2 / 11, 3 / 12, 0.27, 0.27, 0.27]):
        trainer.step()
        now = [p.detach().clone() for p in trainer.network.parameters()]
        expected = [decay * e + (1 - decay) * w for e, w in zip(expected, now)] if n else now
        for a, b in zip(trainer.averaged.parameters(), expected):
            assert torch.allclose(a, b, atol=1e-7)
    assert not any(p.requires_grad for p in trainer.averaged.parameters())
    pairs = list(zip(trainer.averaged.parameters(), trainer.network.parameters()))
    assert not any(torch.equal(a, b) for a, b in pairs)


def test_gradients_are_clipped_and_the_rate_is_set(tmp_path: Path) -> None:
    trainer = Trainer(change(PLAIN, clip=0.01), Pictures(), tmp_path / "run")
    for step in range(3):
        trainer.step()
        gradients = [p.grad for p in trainer.network.parameters() if p.grad is not None]
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        assert norm.item() == pytest.approx(0.01, rel=1e-3)
        rates = {group["lr"] for group in trainer.optimizer.param_groups}
        assert rates == {trainer.config.learning_rate_at(step)}


def test_the_learning_rate_rises_stays_and_falls() -> None:
    config = change(PLAIN, steps=100, warmup=10, decay=0.3, learning_rate=2.0)
    rates = [config.learning_rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10:71] == [2.0] * 61
    assert rates[70:] == pytest.approx([2.0 * (30 - i) / 30 for i in range(30)])
    assert 0 < rates[-1] < 0.1
    steady = change(config, warmup=0, decay=0.0)
    assert {steady.learning_rate_at(step) for step in range(100)} == {2.0}
    short = change(config, steps=1)
    assert short.learning_rate_at(0) == pytest.approx(0.2)


def test_with_a_time_limit_the_learning_rate_falls_by_steps_or_time() -> None:
    """By whichever is nearer its end."""
    config = change(PLAIN, steps=100, warmup=10, decay=0.4, learning_rate=2.0)
    limited = change(config, time_limit=5.0)
    for step in (3, 50, 90):
        assert config.learning_rate_at(step, 1e9) == config.learning_rate_at(step)
        assert limited.learning_rate_at(step) == config.learning_rate_at(step)
    for seconds, share in ((0, 1), (180, 1), (210, 0.75), (240, 0.5), (300, 0), (400, 0)):
        assert limited.learning_rate_at(20, seconds) == pytest.approx(2 * share)
    assert limited.learning_rate_at(80, 210) == pytest.approx(2 * 0.5)  # here the steps are ahead
    assert limited.learning_rate_at(4, 240) == pytest.approx(2 * 0.5 * 0.5)  # warming up till late
    steady = change(limited, decay=0.0)
    assert steady.learning_rate_at(50, 299) == 2.0


@pytest.mark.parametrize("prediction_type", ["flow", "v", "eps", "x0"])
def test_held_out_loss_of_a_network_that_answers_zero(tmp_path: Path, prediction_type: str) -> None:
    """The mean square of the target: 2 for eps − x0, else 1, whatever t."""
    schedule = "straight" if prediction_type == "flow" else "cosine"
    config = change(PLAIN, prediction_type=prediction_type, schedule=schedule)
    pictures = Pictures(256)
    trainer = Trainer(config, pictures, tmp_path / "run", held_out=pictures)
    first = trainer.held_out_loss()
    assert trainer.held_out_loss() == first
    assert list(first) == ["62", "188", "312", "438", "562", "688", "812", "938", "mean"]
    expected = 2.0 if prediction_type == "flow" else 1.0
    assert list(first.values()) == pytest.approx([expected] * 9, rel=0.03)


def test_loss_by_timestep_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    trainer = Trainer(PLAIN, Pictures(), tmp_path / "run")
    config, images = trainer.model_config, trainer.batches.images[:4].float() / 127.5 - 1
    measure = held_out.loss_by_timestep
    expected = measure(trainer.network.eval(), config, images)
    trainer.network.train()
    with odd_defaults(device=None):
        assert measure(trainer.network, config, images) == expected
    assert all(module.training for module in trainer.network.modules())
    assert list(measure(trainer.network, config, images, bins=1)) == ["500", "mean"]
    small = dataclasses.replace(config, num_train_timesteps=8)
    assert len(measure(trainer.network, small, images, bins=7)) == 8
    for bins in (0, 8):
        with pytest.raises(ValueError, match=f"bins must be .* below the 8 .*got {bins}"):
            measure(trainer.network, small, images, bins=bins)


def test_held_out_loss_is_that_of_the_average_and_disturbs_nothing(tmp_path: Path) -> None:
    trainer = Trainer(TEXT, Pictures(), tmp_path / "a", held_out=Pictures(8, seed=1))
    plain = Trainer(TEXT, Pictures(), tmp_path / "b")
    before = trainer.held_out_loss()
    for _ in range(3):
        trainer.held_out_loss()
        trainer.step()
        plain.step()
    assert trainer.held_out_loss() != before
    for a, b in zip(trainer.network.parameters(), plain.network.parameters()):
        assert torch.equal(a, b)
    after = trainer.held_out_loss()
    silence(trainer.network)
    assert trainer.held_out_loss() == after
    silence(trainer.averaged)
    assert trainer.held_out_loss() != after


def test_precision_is_what_the_hardware_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    asked = []
    for cuda, bf16, expected in ((False, True, "no"), (True, True, "bf16"), (True, False, "fp16")):

        def supported(including_emulation: bool = True, bf16: bool = bf16) -> bool:
            asked.append(including_emulation)
            return bf16

        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
        assert devices.precision() == expected
    assert asked and not any(asked)  # a T4 emulates bf16, slowly
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # accelerate launch --cpu
    assert devices.precision() == "no"


def test_bfloat16_on_a_cpu_only_where_the_processor_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(wanted: bool, folder: str) -> Tensor:
        trainer = Trainer(change(TEXT, bfloat16_on_cpu=wanted), Pictures(), tmp_path / folder)
        for _ in range(3):
            trainer.step()
        assert {p.dtype for p in trainer.network.parameters()} == {torch.float32}
        return trainer.losses

    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    plain = losses(False, "plain")
    assert torch.equal(losses(True, "without"), plain)
    # Others compute it slowly, but compute it.
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    half = losses(True, "with")
    assert not torch.equal(half, plain)
    torch.testing.assert_close(half, plain, rtol=0.02, atol=0)


def test_bfloat16_leaves_attention_and_group_norm_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    norm, conv = torch.nn.GroupNorm(2, 4), torch.nn.Conv2d(4, 4, 3)
    with devices.bfloat16_on_cpu(True):
        y = conv(x)
        assert y.dtype == torch.bfloat16
        assert norm(y).dtype == torch.float32
        q = y.flatten(2)[:, None]
        attention = torch.nn.functional.scaled_dot_product_attention
        assert attention(q, q, q).dtype == torch.float32
        assert attention(query=q, key=q, value=q).dtype == torch.float32
    assert conv(x).dtype == torch.float32


# -------------------------------------------------------------------- no waiting between steps


@contextlib.contextmanager
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Our own code may not ask a tensor for its numbers: on a GPU that waits for the device."""
    package = str(Path(minidiff.__file__).parent)

    def guarded(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def method(self: Tensor, *args: Any, **options: Any) -> Any:
            frame = sys._getframe(1)
            where = frame.f_code.co_filename
            if frame.f_code.co_qualname.startswith("Schedule.checked"):
                return original(self, *args, **options)  # only what lies on the CPU: see its test
            if where.startswith(package) and not where.endswith("text.py"):
                raise AssertionError(f"Tensor.{name} in {where}, line {frame.f_lineno}")
            return original(self, *args, **options)

        return method

    names = ["item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__"]
    with monkeypatch.context() as patch:
        for name in [*names, "__index__", "__array__", "__contains__", "unique"]:
            patch.setattr(Tensor, name, guarded(name, getattr(Tensor, name)))
        yield


def test_a_step_never_waits_for_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(TEXT, Pictures(), tmp_path / "run")
    # as on a GPU, where a prompt is padded to a fixed length for this very reason
    trainer.batches.text_length = TEXT.max_tokens
    with no_waiting(monkeypatch):
        for _ in range(3):
            trainer.step()
        with pytest.raises(AssertionError, match=r"Tensor\.tolist in .*training\.py"):
            trainer._mean_loss()  # the log does wait, so the guard sees something
    assert trainer.step_count == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_never_waits_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    trainer = Trainer(TEXT, Pictures(), tmp_path / "run")
    if trainer.accelerator.scaler:
        pytest.skip("fp16 asks its scaler at every step whether it overflowed")
    assert trainer.device.type == "cuda"
    trainer.step()
    trainer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            trainer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


# ------------------------------------------------------------------------------------ a run


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    seen: list[int] = []
    trainer = train(
        change(TEXT, steps=14, save_every=4, evaluate_every=7), tmp_path / "run",
        held_out=Pictures(9, seed=1), callback=lambda t: seen.append(t.step_count),
    )  # fmt: skip
    folder = tmp_path / "run"
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoints", "log.jsonl", "model"]
    assert seen == [6, 12, 14]
    assert saved(folder) == [12, 14]  # the newest two
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [
        "step-00000012", "step-00000014",
    ]  # fmt: skip
    entries = log_of(folder)
    assert [e["step"] for e in entries if "loss" in e] == [4, 8, 12, 14]
    assert [e["step"] for e in entries if "held_out_loss" in e] == [7, 14]
    for entry in entries:
        assert "loss" not in entry or (entry["device"], entry["processes"]) == ("cpu", 1)
        numbers = [v for v in entry.values() if not isinstance(v, dict | str)]
        assert all(math.isfinite(v) for v in [*numbers, *entry.get("held_out_loss", {}).values()])
    assert entries[0]["learning_rate"] == trainer.config.learning_rate_at(3)
    assert entries[0]["images_per_second"] > 0
    assert [e["seconds"] for e in entries if "loss" in e] == sorted(
        e["seconds"] for e in entries if "loss" in e
    )

    network, config, record = load_model(folder / "model")
    assert config == trainer.model_config
    assert config.text_encoder == "words" and config.text_fingerprint == "0123"
    for a, b in zip(network.parameters(), trainer.averaged.parameters()):
        assert torch.equal(a, b.half().float())
    assert record["steps"] == 14 and record["images_seen"] == 56
    assert record["training_images"] == 20 and record["device"].startswith("cpu")
    assert record["processes"] == 1
    assert TrainingConfig.from_dict(record["recipe"]) == trainer.config
    # a checkpoint opens in the same way
    assert load_model(newest(folder))[1] == config


def test_a_model_without_text_trains_on_pictures_alone(tmp_path: Path) -> None:
    pictures = SimpleNamespace(images=Pictures().images, prompts=[])
    Trainer(SHORT, pictures, tmp_path / "run").run()
    _, config, _ = load_model(tmp_path / "run" / "model")
    assert config.text_encoder is None and config.text_fingerprint is None


@pytest.mark.parametrize("kind", ["TEXT", "no text drawn", "fresh data order"])
def test_a_resumed_run_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    config = {
        "TEXT": TEXT,
        "no text drawn": change(TEXT, no_text=1.0),  # some weights never get a gradient
        "fresh data order": change(PLAIN, batch_size=7, prediction_type="v", schedule="cosine"),
    }[kind]

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle")

    for module in (torch, pickle):
        for name in ("load", "save", "dump", "dumps", "loads"):
            monkeypatch.setattr(module, name, refuse, raising=False)
    held_out = Pictures(5, seed=1)
    train(config, tmp_path / "straight", held_out=held_out)

    def stop(trainer: Trainer) -> None:
        raise KeyboardInterrupt

    with pytest.raises(TrainingStopped, match=r"interrupted at step 6; saved.*resume=True"):
        train(config, tmp_path / "halves", held_out=held_out, callback=stop)
    assert saved(tmp_path / "halves") == [6]
    torch.manual_seed(99)  # the state of the global generator plays no part
    train(config, tmp_path / "halves", held_out=held_out, resume=True)

    straight, halves = tmp_path / "straight", tmp_path / "halves"
    assert same_state(newest(straight), newest(halves))
    assert not same_state(newest(straight), run_folder.all_checkpoints(straight)[0])
    assert losses(straight).keys() == {4, 8, 12}
    assert losses(straight) == losses(halves)  # also of the interval that was interrupted
    both = [
        [e["held_out_loss"] for e in log_of(f) if "held_out_loss" in e] for f in (straight, halves)
    ]
    assert both[0] == both[1] and len(both[0]) == 2


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    config = change(TEXT, decay=0.0)
    train(config, tmp_path / "straight")
    train(change(config, steps=6), tmp_path / "longer")
    train(change(config, save_every=4, log_every=1), tmp_path / "longer", resume=True)
    assert same_state(newest(tmp_path / "straight"), newest(tmp_path / "longer"))
    assert load_model(tmp_path / "longer" / "model")[2]["steps"] == 12


def test_the_model_of_a_shorter_run_does_not_pass_for_that_of_a_longer(tmp_path: Path) -> None:
    train(change(TEXT, steps=6), tmp_path / "run")
    longer = Trainer(change(TEXT, steps=12), Pictures(), str(tmp_path / "run"), resume=True)
    longer.step()
    longer.save()
    assert load_model(find_model(tmp_path / "run"))[2]["steps"] == 7


def test_a_finished_run_resumes_to_nothing(tmp_path: Path) -> None:
    train(SHORT, tmp_path / "run")
    before = log_of(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")  # killed before the model was written, say
    trainer = train(SHORT, tmp_path / "run", resume=True)
    assert trainer.step_count == 4 and log_of(tmp_path / "run") == before
    assert load_model(tmp_path / "run" / "model")[2]["steps"] == 4


def test_seconds_go_on(tmp_path: Path) -> None:
    trainer = train(SHORT, tmp_path / "run")
    again = Trainer(SHORT, Pictures(), tmp_path / "run", resume=True)
    assert again.seconds == trainer.seconds > 0
    again = train(change(SHORT, steps=5), tmp_path / "run", resume=True)
    assert again.seconds > trainer.seconds


def test_the_log_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    train(SHORT, tmp_path / "run")
    path = tmp_path / "run" / "log.jsonl"
    before = path.read_text("utf-8")
    with path.open("a", encoding="utf-8") as file:  # killed at step 5, within a line
        file.write('{"step": 5, "loss": 1.0}\n{"step": 6, "lo')
    Trainer(SHORT, Pictures(), tmp_path / "run", resume=True)
    assert path.read_text("utf-8") == before
    train(change(SHORT, steps=6), tmp_path / "run", resume=True)
    assert list(losses(tmp_path / "run")) == [1, 2, 3, 4, 5, 6]
    assert sorted(p.name for p in path.parent.iterdir()) == ["checkpoints", "log.jsonl", "model"]


def test_a_damaged_line_of_the_log_goes_though_it_still_reads_as_json(tmp_path: Path) -> None:
    train(SHORT, tmp_path / "run")
    path = tmp_path / "run" / "log.jsonl"
    first, *others = path.read_bytes().splitlines(keepends=True)
    assert b'"loss"' in first
    path.write_bytes(b"".join([first.replace(b'"loss"', b'"l\xe1ss"'), *others]))  # not UTF-8
    Trainer(SHORT, Pictures(), tmp_path / "run", resume=True)
    assert path.read_bytes() == b"".join(others)


# ---------------------------------------------------------------------- time limit, warm start


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that moves on by a second whenever it is read."""
    fake = SimpleNamespace(now=0.0)

    def monotonic() -> float:
        fake.now += 1
        return fake.now

    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=monotonic))
    return fake


TIMED = change(
    PLAIN, steps=1000, time_limit=0.5, warmup=1, decay=0.5, log_every=1, evaluate_every=7,
    sample_every=100, save_every=10,
)  # fmt: skip


def test_a_time_limit_ends_the_run_properly(tmp_path: Path, clock: SimpleNamespace) -> None:
    sampled: list[int] = []
    trainer = train(
        TIMED, tmp_path / "run", held_out=Pictures(4, seed=1),
        callback=lambda t: sampled.append(t.step_count),
    )  # fmt: skip
    steps, folder = trainer.step_count, tmp_path / "run"
    assert steps == 16 and 30 <= trainer.seconds < 32  # each step reads the clock twice
    assert sampled == [steps] and saved(folder)[-1] == steps
    assert [e["step"] for e in log_of(folder) if "held_out_loss" in e] == [7, 14, 16]
    rates = [e["learning_rate"] for e in log_of(folder) if "loss" in e]
    seconds = [0.0, *(e["seconds"] for e in log_of(folder) if "loss" in e)]
    expected = [1e-3 * min(1, (30 - s) / 15) for s in seconds[:-1]]
    assert rates == pytest.approx(expected) and rates[0] == 1e-3 and rates[-1] < 1e-4
    record = load_model(folder / "model")[2]
    assert record["steps"] == steps and record["recipe"]["time_limit"] == 0.5

    again = train(TIMED, folder, resume=True)
    assert again.step_count == steps  # the time is over
    longer = train(change(TIMED, time_limit=1.0), folder, resume=True)
    assert longer.step_count > steps + 8 and 60 <= longer.seconds < 62


def test_a_time_limit_counts_the_time_before_an_interruption(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    def stop(trainer: Trainer) -> None:
        raise KeyboardInterrupt

    with pytest.raises(TrainingStopped):
        train(change(TIMED, sample_every=5), tmp_path / "run", callback=stop)
    clock.now += 1000  # a night
    trainer = train(TIMED, tmp_path / "run", resume=True)
    assert 14 <= trainer.step_count <= 18 and 30 <= trainer.seconds < 32


def test_a_warm_start_takes_the_weights_and_keeps_the_stages(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    train(change(TEXT, steps=6), first)
    assert load_model(first / "model")[2]["stages"] == []
    config = change(TEXT, seed=1, learning_rate=5e-4, steps=5)
    trainer = Trainer(config, Pictures(), second, start=str(first / "model"))
    weights = load_model(first / "model")[0].state_dict()
    for network in (trainer.network, trainer.averaged):
        for name, value in network.state_dict().items():
            assert torch.equal(value, weights[name])
    assert not trainer.optimizer.optimizer.state and trainer.step_count == 0
    trainer.run()
    assert log_of(second)[0]["learning_rate"] == 5e-4  # after a warm-up of its own
    record = load_model(second / "model")[2]
    assert (record["images_seen"], record["images_seen_in_all"]) == (20, 44)
    (stage,) = record["stages"]
    assert stage["steps"] == 6 and stage["images_seen"] == 24 and "stages" not in stage
    assert TrainingConfig.from_dict(stage["recipe"]) == change(TEXT, steps=6)
    assert stage["torch"] == torch.__version__ and stage["device"].startswith("cpu")
    assert stage["weights_sha256"] == sha256(first / "model" / "model.safetensors")

    newest_of_second = newest(second)  # a checkpoint of a run is a model, too
    train(change(TEXT, seed=2, steps=4), third, start=newest_of_second)
    record = load_model(third / "model")[2]
    assert record["images_seen_in_all"] == 24 + 20 + 16
    assert [s["recipe"]["seed"] for s in record["stages"]] == [0, 1]
    assert record["stages"][0] == stage
    weights_of_second = sha256(newest_of_second / "model.safetensors")
    assert record["stages"][1]["weights_sha256"] == weights_of_second


def test_a_warm_start_resumes_bit_for_bit_with_its_stages(tmp_path: Path) -> None:
    def stop(trainer: Trainer) -> None:
        raise KeyboardInterrupt

    model = tmp_path / "first" / "model"
    train(SHORT, tmp_path / "first")
    config = change(PLAIN, seed=3)
    train(config, tmp_path / "straight", start=model)
    with pytest.raises(TrainingStopped):
        train(config, tmp_path / "halves", start=model, callback=stop)
    with pytest.raises(ValueError, match=r"only a new run can start from .*model"):
        train(config, tmp_path / "halves", start=model, resume=True)
    shutil.rmtree(model)  # it is not needed any more
    train(config, tmp_path / "halves", resume=True)
    assert same_state(newest(tmp_path / "straight"), newest(tmp_path / "halves"))
    records = [load_model(tmp_path / name / "model")[2] for name in ("straight", "halves")]
    assert records[0]["stages"] == records[1]["stages"] and len(records[0]["stages"]) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": dataclasses.replace(WITH_TEXT, stem=2)}, r"its unet\.stem is 1, here it is 2"),
        ({"network": dataclasses.replace(WITH_TEXT, channels=(16, 32))}, r"its unet\.channels is"),
        ({"schedule": "cosine"}, "its schedule is 'straight', here it is 'cosine'"),
        ({"prediction_type": "v"}, "its prediction_type is 'flow', here it is 'v'"),
        ({"schedule": "linear", "zero_terminal_snr": True, "prediction_type": "v"}, "schedule"),
        ({"network": NO_TEXT, "text_encoder": None}, r"its unet\.channels is .*here it is"),
    ],
)
def test_a_model_of_another_kind_is_no_start(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    train(change(TEXT, steps=2), tmp_path / "first")
    with pytest.raises(ValueError, match=r"cannot start from .*first.*" + message):
        train(change(TEXT, **changes), tmp_path / "second", start=tmp_path / "first" / "model")


def test_a_model_of_another_encoder_or_other_pictures_is_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(change(TEXT, steps=2), tmp_path / "first")
    model = tmp_path / "first" / "model"
    with pytest.raises(ValueError, match=r"its space is Pixels\(mean=.* Use the same pictures"):
        Trainer(TEXT, Pictures(seed=1), tmp_path / "second", start=model)
    monkeypatch.setattr(text, "TextEncoder", OtherWords)
    with pytest.raises(ValueError, match="its text_fingerprint is '0123', here it is '4567'"):
        Trainer(TEXT, Pictures(), tmp_path / "third", start=model)
    monkeypatch.setattr(text, "TextEncoder", Words)
    # the name of the encoder (perhaps a folder) and how many tokens it may give are free
    config = change(TEXT, text_encoder="words elsewhere", max_tokens=4)
    assert train(config, tmp_path / "fourth", start=model).stages


def test_pictures_drawn_a_little_differently_keep_the_scale_of_the_weights(tmp_path: Path) -> None:
    first = train(SHORT, tmp_path / "run").model_config
    pictures = Pictures()
    pictures.images[0, 0, 0, 0] -= 9  # as by another release of the library that draws
    assert Trainer(SHORT, pictures, tmp_path / "alone").model_config.space != first.space
    longer = change(SHORT, steps=6)
    resumed = Trainer(longer, pictures, tmp_path / "run", resume=True)
    started = Trainer(SHORT, pictures, tmp_path / "new", start=newest(tmp_path / "run"))
    assert resumed.model_config == started.model_config == first


# -------------------------------------------------------------------------- what goes wrong


def poison(trainer: Trainer) -> None:
    """Weights that are not numbers, as after a step that went too far."""
    with torch.no_grad():
        next(trainer.network.parameters()).fill_(math.nan)


@pytest.mark.parametrize("first", ["log", "save", "evaluate"])
def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path, first: str) -> None:
    """Whichever of log, save and held-out loss comes first notices."""
    every = {f"{name}_every": 1 if name == first else 100 for name in ("log", "save", "evaluate")}
    every["save_every"] = 1 if first == "save" else 2
    config = change(SHORT, steps=50, sample_every=2, **every)
    with pytest.raises(TrainingStopped) as error:
        train(config, tmp_path / "run", callback=poison, held_out=Pictures(4))
    message = str(error.value)
    assert "nan before step 3" in message and "learning_rate than 0.001" in message
    assert str(newest(tmp_path / "run")) in message
    assert saved(tmp_path / "run")[-1] == 2
    for entry in log_of(tmp_path / "run") if first != "save" else []:
        assert math.isfinite(entry.get("loss", 0))
    network, _, _ = load_model(newest(tmp_path / "run"))
    assert all(p.isfinite().all() for p in network.parameters())
    config = change(config, steps=4)
    assert train(config, tmp_path / "run", resume=True).step_count == 4


def test_a_learning_rate_that_is_far_too_high_stops_the_run(tmp_path: Path) -> None:
    config = change(SHORT, learning_rate=1e30, steps=50, save_every=100)
    with pytest.raises(TrainingStopped, match=r"before step \d+; nothing was saved yet.*1e\+30"):
        train(config, tmp_path / "run")
    assert saved(tmp_path / "run") == [] and not (tmp_path / "run" / "model").exists()


def test_a_loss_that_overflowed_is_not_saved(tmp_path: Path) -> None:
    """With finite weights, as when a half-precision step was skipped."""
    trainer = Trainer(SHORT, Pictures(), tmp_path / "run")
    trainer.step()
    trainer.losses[0] = math.inf
    with pytest.raises(TrainingStopped, match="loss became inf before step 1"):
        trainer.save()
    assert saved(tmp_path / "run") == []


def test_weights_that_are_not_numbers_are_not_saved(tmp_path: Path) -> None:
    """The last update spoilt them; no loss has shown it yet."""
    trainer = Trainer(SHORT, Pictures(), tmp_path / "run")
    trainer.step()
    poison(trainer)
    with pytest.raises(TrainingStopped, match="weights became nan before step 1"):
        trainer.save()
    assert saved(tmp_path / "run") == []


def test_a_full_disk_stops_the_run_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(SHORT, tmp_path / "straight")

    def full(path: Path, payload: bytes) -> None:
        path.write_bytes(payload[:1000])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(trainer: Trainer) -> None:
        monkeypatch.setattr(storage, "_write_through", full)

    folder = tmp_path / "run"
    with pytest.raises(TrainingStopped) as error:
        train(change(SHORT, sample_every=3), folder, callback=fill)
    message = str(error.value)
    assert "No space left" in message and "resume=True" in message and "step-00000004" in message
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["step-00000002"]
    monkeypatch.undo()
    train(change(SHORT, sample_every=3), folder, resume=True)
    assert same_state(newest(folder), newest(tmp_path / "straight"))
    assert losses(folder) == losses(tmp_path / "straight")


def test_a_full_disk_for_the_finished_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "could not save model (No space left)")

    monkeypatch.setattr(training, "save_model", full)
    with pytest.raises(TrainingStopped, match=r"could not save model .*resume=True"):
        train(SHORT, tmp_path / "run")
    assert saved(tmp_path / "run") == [2, 4]


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    def obstruct(trainer: Trainer) -> None:
        path = trainer.folder / "log.jsonl"
        path.unlink()
        path.mkdir()

    with pytest.raises(
        TrainingStopped, match=r"could not write .*log\.jsonl.*resume=True"
    ) as error:
        train(change(SHORT, sample_every=2), tmp_path / "run", callback=obstruct)
    assert "Free some space" not in str(error.value)


def test_ctrl_c_within_an_update_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    # A shell that started the tests in the background would have told them to ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    train(SHORT, tmp_path / "straight")
    average, calls = Trainer._average, []

    def pressed(trainer: Trainer) -> None:
        calls.append(trainer.step_count)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)  # the weights are new, the average is old
        average(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_average", pressed)
        with pytest.raises(TrainingStopped, match="interrupted at step 3"):
            train(SHORT, tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert saved(tmp_path / "run") == [2, 3]
    train(SHORT, tmp_path / "run", resume=True)
    assert same_state(newest(tmp_path / "run"), newest(tmp_path / "straight"))


def test_ctrl_c_in_the_middle_of_a_step_and_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(TEXT, tmp_path / "straight")

    def pressed(*_: Any) -> None:
        raise KeyboardInterrupt

    for expected in (0, 6):
        trainer = Trainer(TEXT, Pictures(), tmp_path / "run", resume=expected > 0)
        while trainer.step_count < expected:
            trainer.step()
        # the gradient is there, the weights are not changed yet
        monkeypatch.setattr(trainer.accelerator, "clip_grad_norm_", pressed)
        with pytest.raises(TrainingStopped, match=f"interrupted at step {expected}"):
            trainer.run()
    assert saved(tmp_path / "run") == [0, 6]
    # the same trainer may go on, too: no gradient is left over from the broken step
    monkeypatch.undo()
    trainer.run()
    assert same_state(newest(tmp_path / "run"), newest(tmp_path / "straight"))


# ------------------------------------------------------------------------- asked to end


@pytest.fixture
def usual_signals(request: pytest.FixtureRequest) -> None:
    """As in a terminal: a shell that runs the tests in the background has Ctrl-C ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if number := getattr(signal, name, None):
            usual = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
            before = signal.signal(number, usual)
            request.addfinalizer(functools.partial(signal.signal, number, before))


ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
ENDS = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("number", ENDS)
@pytest.mark.parametrize("moment", ["update", "save", "sample", "model"])
def test_asked_to_end_it_saves_and_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, moment: str
) -> None:
    config = change(SHORT, sample_every=3)
    train(config, tmp_path / "straight")
    handlers = {n: signal.getsignal(n) for n in ENDS}

    def ask(*_: Any) -> None:
        signal.raise_signal(number)
        if moment in ("update", "save"):
            signal.raise_signal(number)  # impatience does no harm

    owner, name, at = {
        "update": (Trainer, "_average", 3),  # the weights are new, the average is old
        "save": (storage, "_write_through", 2),  # the first file is there
        "sample": (Trainer, "callback", 1),
        "model": (training, "save_model", 1),
    }[moment]
    original, calls = getattr(owner, name, lambda _: None), []

    def asked(*arguments: Any, **options: Any) -> None:
        calls.append(name)
        if len(calls) == at:
            ask()
        original(*arguments, **options)

    by = "" if number == signal.SIGINT else f" by {number.name}"
    step = {"update": 3, "save": 2, "sample": 3, "model": 4}[moment]
    with monkeypatch.context() as patch:
        if moment != "sample":
            patch.setattr(owner, name, asked)
        with pytest.raises(TrainingStopped) as stopped:
            train(config, tmp_path / "run", callback=asked if moment == "sample" else None)
    expected = f"interrupted{by} at step {step}; saved. Go on with resume=True"
    assert str(stopped.value) == expected and stopped.value.signal == number
    assert {n: signal.getsignal(n) for n in ENDS} == handlers
    assert saved(tmp_path / "run")[-1] == step
    train(config, tmp_path / "run", resume=True)
    assert same_state(newest(tmp_path / "run"), newest(tmp_path / "straight"))
    if moment != "update":  # there the log is a line short, and the next one is of two steps
        assert losses(tmp_path / "run") == losses(tmp_path / "straight")
    assert names(tmp_path / "run") == ["checkpoints", "log.jsonl", "model"]


@pytest.mark.usefixtures("usual_signals")
def test_asked_to_end_before_the_first_step_it_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(texts, "encode_texts", encode)
    with pytest.raises(Ended) as ended:
        Trainer(TEXT, Pictures(), tmp_path / "deep" / "run")
    assert ended.value.code == 128 + signal.SIGTERM
    assert not (tmp_path / "deep").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.usefixtures("usual_signals")
def test_signals_that_somebody_has_chosen_to_handle_are_left_alone(tmp_path: Path) -> None:
    came: list[int] = []

    def mine(number: int, _: Any) -> None:
        came.append(number)

    chosen: dict[int, Any] = {signal.SIGINT: signal.SIG_IGN, signal.SIGTERM: mine}  # nohup …
    for number, handler in chosen.items():
        signal.signal(number, handler)

    def ask(trainer: Trainer) -> None:
        for number, handler in chosen.items():
            assert signal.getsignal(number) == handler
            signal.raise_signal(number)

    assert train(change(SHORT, sample_every=2), tmp_path / "run", callback=ask).step_count == 4
    assert came == [signal.SIGTERM, signal.SIGTERM]
    assert all(signal.getsignal(n) == handler for n, handler in chosen.items())


@pytest.mark.usefixtures("usual_signals")
def test_training_in_a_thread_leaves_signals_alone(tmp_path: Path) -> None:
    found: list[Any] = []

    def look(trainer: Trainer) -> None:
        found.append(signal.getsignal(signal.SIGTERM))

    options = {"callback": look}
    thread = threading.Thread(target=train, args=(SHORT, tmp_path / "run"), kwargs=options)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL] and saved(tmp_path / "run") == [2, 4]


# ------------------------------------------------------------------ one process at a time


HOLD = """
import sys, time
from pathlib import Path
from minidiff.run_folder import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def held_elsewhere(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process has the folder, until it is killed."""
    arguments = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, encoding="utf-8")
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_training_in_a_folder_is_told_who_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(SHORT, folder)
    path = folder / "log.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 5, "lo')  # the other is just writing
    model = folder / "checkpoints" / ".step-00000006.part-x"
    model.mkdir()
    before = path.read_bytes()
    with held_elsewhere(folder) as other:
        for resume in (True, False):
            with pytest.raises(BlockingIOError) as error:
                Trainer(change(SHORT, steps=6), Pictures(), folder, resume=resume)
            said = f"{folder} is being trained in by process {other.pid} on "
            assert str(error.value).startswith(said) and "choose another folder" in str(error.value)
        assert path.read_bytes() == before and model.exists()
        assert load_model(find_model(folder))[2]["steps"] == 4  # reading is free
        other.kill()
        other.wait()
        assert (folder / ".lock").exists()
        assert train(change(SHORT, steps=6), folder, resume=True).step_count == 6
    assert names(folder) == ["checkpoints", "log.jsonl", "model"] and not model.exists()


def test_a_new_run_that_another_has_begun_does_not_begin(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with held_elsewhere(folder), pytest.raises(BlockingIOError, match="is being trained in by"):
        Trainer(SHORT, Pictures(), folder)
    assert names(folder) == [".lock"]  # that of the one that was killed
    first, second = (Trainer(SHORT, Pictures(), folder) for _ in range(2))
    first.run()
    before = (folder / "log.jsonl").read_bytes()
    with pytest.raises(FileExistsError, match="already holds a run"):
        second.run()
    assert (folder / "log.jsonl").read_bytes() == before


def test_the_same_process_may_train_there_again_but_not_twice_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def fail(trainer: Trainer) -> None:
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()} on"):
            Trainer(SHORT, Pictures(), folder, resume=True)
        raise ZeroDivisionError

    first = Trainer(change(SHORT, sample_every=2), Pictures(), folder, callback=fail)
    idle = Trainer(SHORT, Pictures(), folder)
    with pytest.raises(ZeroDivisionError):
        first.run()
    second = Trainer(SHORT, Pictures(), folder, resume=True)
    second.run()
    assert first.step_count == 2 and second.step_count == 4 and idle.step_count == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks")
def test_a_forked_child_does_not_keep_the_folder(tmp_path: Path) -> None:
    with run_folder.RunLock(tmp_path / "run"):
        child = os.fork()
        if child == 0:
            try:
                time.sleep(60)
            finally:
                os._exit(0)
    try:  # the child lives, but it is not the one that trains
        assert train(SHORT, tmp_path / "run").step_count == 4
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_where_there_are_no_locks_it_trains_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def without(_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(run_folder, "_lock", without)
    train(SHORT, tmp_path / "run")
    assert names(tmp_path / "run") == ["checkpoints", "log.jsonl", "model"]
    assert not [w for w in recwarn if "lock" in str(w.message)]


@pytest.mark.parametrize("failure", [ValueError, RuntimeError, MemoryError, KeyboardInterrupt])
def test_a_run_that_could_not_begin_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure("here")

    mine = tmp_path / "mine"
    mine.mkdir()
    for owner, name in ((texts, "encode_texts"), (torch.optim, "AdamW"), (UNet, "forward")):
        if failure is KeyboardInterrupt and name == "forward":
            continue  # interrupted in a run, it saves
        for folder, left in ((tmp_path / "a" / "b" / "run", tmp_path / "a"), (mine, mine / "x")):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, fail)
                with pytest.raises(failure, match="here"):
                    train(TEXT, folder)
            assert not left.exists() and names(mine) == []
    train(TEXT, mine)


# ----------------------------------------------------------------- where the pictures come from


class Folder(Pictures):
    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(**options)
        self.folder = str(folder)


def test_a_run_remembers_its_pictures(tmp_path: Path) -> None:
    config = change(TEXT, steps=2, save_every=2)
    Trainer(config, Folder(tmp_path / "mine"), tmp_path / "run").run()
    info = storage.read_info(newest(tmp_path / "run"))
    data = load_model(tmp_path / "run" / "model")[2]["data"]
    assert data == info["data"] == info["record"]["data"]
    assert (data["kind"], data["path"]) == ("folder", str(tmp_path / "mine"))
    assert len(data["fingerprint"]) == 16 and int(data["fingerprint"], 16)
    assert batches.data_of(Pictures(), True) == {**data, "kind": "other", "path": None}

    changed = Folder(tmp_path / "mine")
    changed.images[3, 0, 0, 0] ^= 1
    renamed = Folder(tmp_path / "mine")
    renamed.prompts[0] = ("another",)
    for other in (changed, renamed):
        with pytest.raises(ValueError, match=f"{tmp_path / 'mine'} does not hold .*put them back"):
            Trainer(config, other, tmp_path / "run", resume=True)
    moved = Trainer(
        change(config, steps=3), Folder(tmp_path / "new"), tmp_path / "run", resume=True
    )
    moved.run()
    assert load_model(tmp_path / "run" / "model")[2]["data"]["path"] == str(tmp_path / "new")


def test_captions_that_nobody_reads_may_change(tmp_path: Path) -> None:
    Trainer(SHORT, Folder(tmp_path / "mine"), tmp_path / "run").run()
    other = Folder(tmp_path / "mine")
    other.prompts = []
    assert Trainer(SHORT, other, tmp_path / "run", resume=True).step_count == 4


def test_pictures_that_changed_are_found_out_before_texts_are_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(change(TEXT, steps=2), tmp_path / "run")

    def refuse(*_: Any) -> None:
        raise AssertionError("the texts were encoded first")

    monkeypatch.setattr(texts, "encode_texts", refuse)
    for config, pictures, message in (
        (TEXT, Pictures(21), "other pictures"),
        (change(TEXT, seed=1), Pictures(), "seed was 0"),
        (change(TEXT, steps=1), Pictures(), "steps is 1, but this run has made 2: give more"),
    ):
        with pytest.raises(ValueError, match=message):
            Trainer(config, pictures, tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match=r"its unet\.channels"):
        unet = dataclasses.replace(WITH_TEXT, channels=(16, 32))
        start = tmp_path / "run" / "model"
        Trainer(change(TEXT, network=unet), Pictures(), tmp_path / "new", start=start)


def test_a_run_of_an_earlier_release_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It remembers neither its pictures nor the words."""
    with monkeypatch.context() as patch:
        save = run_folder.save_checkpoint

        def older(folder: Path, step: int, files: Any, info: dict[str, Any]) -> None:
            del info["data"]
            for name in ("data", "words", "processes"):
                del info["record"][name]
            save(folder, step, files, info)

        patch.setattr(run_folder, "save_checkpoint", older)
        Trainer(SHORT, Folder(tmp_path / "a"), tmp_path / "run").run()
    longer = Trainer(change(SHORT, steps=6), Folder(tmp_path / "b"), tmp_path / "run", resume=True)
    longer.run()
    assert load_model(tmp_path / "run" / "model")[2]["data"]["path"] == str(tmp_path / "b")


def test_words_that_the_encoder_does_not_know_are_kept(tmp_path: Path) -> None:
    train(change(TEXT, steps=2), tmp_path / "first")
    record = load_model(tmp_path / "first" / "model")[2]
    assert record["words"] == ["bar", "black"]
    other = Pictures()
    other.prompts = [("big",)] * 20
    start = tmp_path / "first" / "model"
    Trainer(change(TEXT, steps=2), other, tmp_path / "second", start=start).run()
    assert load_model(tmp_path / "second" / "model")[2]["words"] == ["bar", "big", "black"]


def test_texts_that_the_encoder_cannot_tell_apart_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("MINIDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    pictures = Pictures(4)
    pictures.prompts = [("红色",), ("绿色",), ("Red  car",), ("red car", "xqzv")]
    config = change(
        TEXT, network=dataclasses.replace(WITH_TEXT, text_dim=384), text_encoder="minilm"
    )
    with pytest.warns(UserWarning, match="^1 of 5 texts read the same .*'绿色' as '红色'"):
        trainer = Trainer(config, pictures, tmp_path / "run")
    assert trainer.words == ["xqzv"]


def test_a_resumed_run_must_not_be_over_already(tmp_path: Path) -> None:
    trainer = train(change(SHORT, time_limit=60.0), tmp_path / "run")
    before = (tmp_path / "run" / "log.jsonl").read_bytes()
    with pytest.raises(ValueError, match="steps is 3, but this run has made 4: give more"):
        Trainer(change(SHORT, steps=3), Pictures(), tmp_path / "run", resume=True)
    short = change(SHORT, time_limit=trainer.seconds / 120)
    with pytest.raises(ValueError, match=r"time_limit is .* minutes, but this run has trained for"):
        Trainer(short, Pictures(), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == before


# ---------------------------------------------------------------- what is set around a training


@pytest.mark.parametrize(
    "setting",
    [
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4", "ACCELERATE_DYNAMO_BACKEND=INDUCTOR",
        "ACCELERATE_DYNAMO_BACKEND=EAGER", "ACCELERATE_MIXED_PRECISION=bf16",
        "ACCELERATE_MIXED_PRECISION=fp8", "ACCELERATE_SPLIT_BATCHES=true",
        "ACCELERATE_DOWNCAST_BF16=true", "ACCELERATE_GRADIENT_CLIPPING=0.001",
        "ACCELERATE_USE_FSDP=false",
    ],
)  # fmt: skip
def test_the_environment_does_not_change_what_is_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    from accelerate.state import AcceleratorState

    train(SHORT, tmp_path / "plain")
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv(*setting.split("="))
    train(SHORT, tmp_path / "set")
    assert same_state(newest(tmp_path / "plain"), newest(tmp_path / "set"))


def test_processes_that_do_not_know_of_each_other_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = SimpleNamespace(num_processes=1)
    monkeypatch.setattr("accelerate.Accelerator", lambda **_: alone)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"WORLD_SIZE is 2, .*set ACCELERATE_USE_CPU=true"):
        Trainer(PLAIN, Pictures(), tmp_path / "run")


@pytest.mark.parametrize("name", devices.SHARDED)
def test_ways_of_sharing_that_would_break_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "true")
    with pytest.raises(ValueError, match=f"{name} is set.*unset it"):
        Trainer(SHORT, Pictures(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


SURROUNDINGS: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "inference_mode": torch.inference_mode,
    "default dtype": lambda: odd_defaults(device=None),
    "default device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_what_is_set_for_all_of_torch_does_not_change_what_is_learnt(
    tmp_path: Path, name: str
) -> None:
    config, pictures, held_out = change(TEXT, steps=6), Pictures(), Pictures(4, seed=1)
    train(config, tmp_path / "plain", held_out=held_out)
    with SURROUNDINGS[name]():
        Trainer(config, pictures, tmp_path / "set", held_out).run()
    assert same_state(newest(tmp_path / "plain"), newest(tmp_path / "set"))
    assert losses(tmp_path / "plain") == losses(tmp_path / "set")


# -------------------------------------------------------------------------------- bad input


def test_misspelt_settings_are_refused() -> None:
    with pytest.raises(TypeError, match="learning_rat"):
        TrainingConfig(learning_rat=1e-3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"unknown setting 'learning_rat': known are .*batch_size"):
        TrainingConfig.from_dict({"learning_rat": 1e-3})
    with pytest.raises(ValueError, match=r"unknown setting 'stems': known are .*head_dim"):
        TrainingConfig.from_dict({"unet": {"stems": 2}})


def test_a_recipe_from_plain_values() -> None:
    values = json.loads(json.dumps(TEXT.to_dict()))
    assert TrainingConfig.from_dict(values) == TEXT
    assert TrainingConfig.from_dict({}) == TrainingConfig()
    usual = TrainingConfig().network  # what a recipe leaves out of the network is as usual, too
    assert TrainingConfig.from_dict({"unet": {"stem": 8}}).network == dataclasses.replace(
        usual, stem=8
    )
    for path in sorted((Path(minidiff.__file__).parent / "recipes").glob("*.toml")):
        TrainingConfig.recipe(path.stem)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be above 0, got 0"),
        ({"steps": 10.5}, "steps must be a whole number, got 10.5"),
        ({"steps": "100"}, "steps must be a whole number, got '100'"),
        ({"batch_size": -1}, "batch_size must be above 0, got -1"),
        ({"batch_size": True}, "batch_size must be a whole number, got True"),
        ({"learning_rate": math.nan}, "learning_rate must be a finite number, got nan"),
        ({"learning_rate": math.inf}, "learning_rate must be a finite number, got inf"),
        ({"learning_rate": "fast"}, "learning_rate must be a finite number, got 'fast'"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"clip": -1.0}, "clip must be above 0"),
        ({"save_every": 0}, "save_every must be above 0"),
        ({"warmup": -1}, "warmup must not be negative, got -1"),
        ({"weight_decay": -0.1}, "weight_decay must not be negative"),
        ({"no_text": 1.5}, "no_text must lie between 0 and 1, got 1.5"),
        ({"hidden_tokens": -0.1}, "hidden_tokens must lie between 0 and 1, got -0.1"),
        ({"ema_decay": -0.1}, "ema_decay must lie between 0 and 1"),
        ({"image_size": 0}, "image_size must be above 0"),
        ({"time_limit": 0.0}, "time_limit must be a number above 0, got 0.0"),
        ({"time_limit": math.inf}, "time_limit must be a number above 0, got inf"),
        ({"time_limit": "long"}, "time_limit must be a number above 0, got 'long'"),
        ({"network": dataclasses.replace(NO_TEXT, stem=3)}, "image_size must be a multiple of 3"),
        ({"text_encoder": "minilm"}, "text_encoder is 'minilm' but unet.text_dim is None"),
        ({"network": WITH_TEXT}, "text_encoder is None but unet.text_dim is 12"),
        ({"schedule": "bent"}, "unknown schedule 'bent'.*cosine, linear, straight"),
        ({"prediction_type": "noise"}, "unknown prediction_type 'noise'.*eps, x0, v, flow"),
        ({"prediction_type": "eps"}, "'eps' cannot be used with schedule 'straight'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(PLAIN, **changes)


def test_pictures_that_do_not_suit_are_refused(tmp_path: Path) -> None:
    good = Pictures()
    for images, message in (
        (Pictures(size=16).images, r"8 × 8 pixels.*\(1, 16, 16\): set image_size"),
        (good.images[..., :7], r"8 × 8 pixels.*\(1, 8, 7\): set image_size"),
        (good.images[:, 0], r"8 × 8 pixels.*\(8, 8\): set image_size"),
        (good.images[:, 0, 0, 0], r"8 × 8 pixels.*\(\): set image_size"),
        (good.images.expand(-1, 3, -1, -1), "in_channels = 1.* have 3: set in_channels = 3 under"),
        (good.images.float() / 255, "uint8.*float32"),
        (good.images[:0], "at least one picture.*got 0"),
    ):
        bad = SimpleNamespace(images=images, prompts=good.prompts)
        for options in ({"dataset": bad}, {"dataset": good, "held_out": bad}):
            with pytest.raises(ValueError, match=message):
                Trainer(PLAIN, folder=tmp_path / "run", **options)
    for prompts, got in (("gold", "'gold'"), ((), r"\(\)"), (("gold", None), r"\('gold', None\)")):
        bad = SimpleNamespace(images=good.images, prompts=[*good.prompts[:-1], prompts])
        with pytest.raises(ValueError, match=rf"prompts\[19\] must be a tuple.*got {got}"):
            Trainer(TEXT, bad, tmp_path / "run")
    without: Any = torch.utils.data.TensorDataset(good.images)
    with pytest.raises(TypeError, match=r"must have \.images, .*got a TensorDataset"):
        Trainer(PLAIN, without, tmp_path / "run")
    with pytest.raises(TypeError, match=r"must have \.prompts, .*got NoneType"):
        Trainer(TEXT, SimpleNamespace(images=good.images), tmp_path / "run")
    bad = SimpleNamespace(images=good.images, prompts=good.prompts[1:])
    with pytest.raises(ValueError, match="20 pictures but prompts for 19"):
        Trainer(TEXT, bad, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"folder": 5}, TypeError, "folder must be a text or a pathlib.Path, got 5"),
        ({"start": 5}, TypeError, "start must be a text or a pathlib.Path, got 5"),
        ({"start": "glyph64"}, FileNotFoundError, r"no folder: .*find_model\('glyph64'\)"),
        ({"callback": "no"}, TypeError, "callback must be a function .*got 'no'"),
    ],
)
def test_arguments_of_other_kinds_are_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Trainer(PLAIN, Pictures(), **{"folder": tmp_path / "run", **options})
    assert names(tmp_path) == []


def test_an_encoder_of_another_width_is_refused(tmp_path: Path) -> None:
    config = change(TEXT, network=dataclasses.replace(WITH_TEXT, text_dim=10))
    with pytest.raises(ValueError, match=r"width 12, but unet\.text_dim is 10: set it to 12"):
        Trainer(config, Pictures(), tmp_path / "run")


def test_a_batch_that_cannot_be_shared_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import Accelerator

    monkeypatch.setattr(Accelerator, "num_processes", property(lambda _: 3))
    with pytest.raises(ValueError, match="batch_size 4 cannot be shared evenly by 3 processes"):
        Trainer(PLAIN, Pictures(), tmp_path / "run")


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(SHORT, folder)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    with pytest.raises(FileExistsError, match=r"run already holds a run: .*go on with resume=True"):
        Trainer(SHORT, Pictures(), folder)
    (folder / "log.jsonl").unlink()  # the checkpoints alone are a run, too
    with pytest.raises(FileExistsError, match="resume=True"):
        Trainer(SHORT, Pictures(), folder)
    after = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    del before[folder / "log.jsonl"]
    assert before == after


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint to resume in .*start a new run"):
        Trainer(SHORT, Pictures(), tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()
    # killed before the first checkpoint: neither way may lead to the other
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="start a new run"):
        Trainer(SHORT, Pictures(), tmp_path / "run", resume=True)
    with pytest.raises(FileExistsError, match=r"choose another folder, or delete .*log\.jsonl"):
        Trainer(SHORT, Pictures(), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.5}, r"learning_rate was 0\.001 in this run and is now 0\.5"),
        ({"seed": 1}, "seed was 0 in this run and is now 1"),
        ({"batch_size": 8}, "batch_size was 4 in this run and is now 8"),
        ({"network": dataclasses.replace(NO_TEXT, channels=(32,))}, r"unet\.channels was \W16"),
    ],
)
def test_another_recipe_cannot_resume(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    train(SHORT, tmp_path / "run")
    with pytest.raises(ValueError, match=message + ".*same recipe, or start a new folder"):
        Trainer(change(SHORT, **changes), Pictures(), tmp_path / "run", resume=True)


def test_copies_of_checkpoints_are_left_alone(tmp_path: Path) -> None:
    train(SHORT, tmp_path / "run")
    last = newest(tmp_path / "run")
    for name in ("step-00000001-backup", "step-best", "step-9"):
        shutil.copytree(last, last.with_name(name))
    last.with_name("step-old").mkdir()
    assert saved(tmp_path / "run") == [2, 4]
    train(change(SHORT, steps=8), tmp_path / "run", resume=True)
    assert saved(tmp_path / "run") == [6, 8] and len(losses(tmp_path / "run")) == 8
    others = ["step-00000001-backup", "step-9", "step-best", "step-old"]
    assert names(last.parent) == sorted([*others, "step-00000006", "step-00000008"])
    last.with_name("step-100000000").mkdir()
    assert newest(tmp_path / "run").name == "step-100000000"


def test_a_run_that_has_saved_nothing_yet_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").touch()
    with pytest.raises(FileNotFoundError, match=r"has saved nothing yet: wait"):
        find_model(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"saved nothing yet, .*delete .*log\.jsonl"):
        run_folder.newest_info(tmp_path)
    with held_elsewhere(tmp_path), pytest.raises(BlockingIOError, match=r"by process \d+ on"):
        run_folder.newest_info(tmp_path)
    (tmp_path / "afile").touch()
    with pytest.raises(NotADirectoryError, match="afile is a file: choose another"):
        Trainer(SHORT, Pictures(), tmp_path / "afile" / "run")


@pytest.mark.usefixtures("usual_signals")
def test_asked_to_end_while_it_releases_the_folder_it_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def asked(path: Path, **options: Any) -> None:
        unlink(path, **options)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Path, "unlink", asked)
    with pytest.raises(Ended):
        Trainer(SHORT, Pictures(), tmp_path / "new" / "run")
    assert names(tmp_path) == []


def test_other_pictures_cannot_resume(tmp_path: Path) -> None:
    train(SHORT, tmp_path / "run")
    for other in (Pictures(21), Pictures(seed=1)):
        with pytest.raises(ValueError, match=r"other pictures: 20 in Pixels\(mean=.*now 2[01] in"):
            Trainer(SHORT, other, tmp_path / "run", resume=True)


def test_another_text_encoder_cannot_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = change(SHORT, network=WITH_TEXT, text_encoder="words")
    train(config, tmp_path / "run")
    monkeypatch.setattr(text, "TextEncoder", OtherWords)
    with pytest.raises(CheckpointError, match=r"another text encoder \(words, 0123\)"):
        Trainer(config, Pictures(), tmp_path / "run", resume=True)


@pytest.mark.parametrize("damaged", ["optimizer.safetensors", "config.json"])
def test_a_damaged_checkpoint_is_named_with_the_one_before(tmp_path: Path, damaged: str) -> None:
    train(SHORT, tmp_path / "run")
    older, last = run_folder.all_checkpoints(tmp_path / "run")
    with (last / damaged).open("r+b") as file:
        file.truncate(500)
    with pytest.raises(CheckpointError) as error:
        Trainer(SHORT, Pictures(), tmp_path / "run", resume=True)
    assert f"delete {last} and go on from {older}" in str(error.value)
    shutil.rmtree(last)
    assert train(SHORT, tmp_path / "run", resume=True).step_count == 4
    assert saved(tmp_path / "run") == [2, 4]


def test_a_model_is_no_run_to_go_on_with(tmp_path: Path) -> None:
    train(SHORT, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    shutil.copytree(tmp_path / "run" / "model", tmp_path / "run" / "checkpoints" / "step-00000004")
    with pytest.raises(CheckpointError, match="holds a model but no run"):
        Trainer(SHORT, Pictures(), tmp_path / "run", resume=True)


# ------------------------------------------------------------------------------ real text


def test_training_on_real_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("MINIDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    unet = dataclasses.replace(WITH_TEXT, text_dim=384)
    config = change(SHORT, network=unet, text_encoder="minilm", max_tokens=32)
    trainer = train(config, tmp_path / "run", held_out=Pictures(4, seed=1))
    _, saved_config, _ = load_model(tmp_path / "run" / "model")
    assert saved_config.text_encoder == "minilm"
    assert saved_config.text_fingerprint == trainer.model_config.text_fingerprint
    assert len(saved_config.text_fingerprint or "") >= 16
    tokens, mask = (trainer.batches(0).condition[name] for name in ("tokens", "mask"))
    assert tokens.shape[2] == 384
    assert tokens[mask].abs().sum(1).min() > 0 and not tokens[~mask].any()


# -------------------------------------------------------------------- processes, and their end


def child(*arguments: str | Path) -> list[str]:
    return [__file__, *map(str, arguments)]


def environment(tmp_path: Path) -> dict[str, str]:
    here = {"MINIDIFF_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **here, "ACCELERATE_USE_CPU": "true"}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the processes that it kills")
def test_kills_at_any_moment_lose_at_most_one_interval(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, *child("kills", tmp_path)], env=environment(tmp_path),
        capture_output=True, text=True, encoding="utf-8", timeout=240, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    attempts = [json.loads(line) for line in result.stdout.splitlines()]
    killed = [a for a in attempts if a["killed"]]
    assert len(killed) >= len(KILL_POINTS) + RANDOM_KILLS
    assert [a["point"] for a in killed if a["point"]] == [*KILL_POINTS]
    for attempt in killed:
        lost = attempt["reached"] - attempt["newest"]
        assert 0 <= lost <= KILLED.save_every, attempt
        assert attempt["loads"], attempt
    assert len({a["newest"] for a in killed}) >= len(killed) - 4  # it went on in between
    halves = [a["point"] for a in killed if a["point"] and a["left_over"]]
    assert len(halves) >= 4  # most of them did leave something half-written
    assert attempts[-1] == {
        **attempts[-1],
        "killed": False,
        "newest": KILLED.steps,
        "left_over": [],
    }

    folder = tmp_path / "killed"
    assert same_state(newest(folder), newest(tmp_path / "undisturbed"))
    assert losses(folder) == losses(tmp_path / "undisturbed")
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoints", "log.jsonl", "model"]


@pytest.mark.slow
def test_two_processes_give_the_loss_of_one(tmp_path: Path) -> None:
    # --multi_gpu is what starts several processes; ACCELERATE_USE_CPU makes them stay on the CPU
    # (with --cpu alone the processes are left to mpirun).
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", "0"]
    launched = subprocess.Popen(
        [sys.executable, *launch, *child("train", tmp_path / "two")],
        env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        encoding="utf-8",
    )  # fmt: skip
    train(SHARED, tmp_path / "one", held_out=Pictures(5, seed=1))
    output, _ = launched.communicate(timeout=240)
    assert launched.returncode == 0, output[-3000:]
    assert "2 processes" in output
    alone, together = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert list(alone) == list(together) == [2, 4, 6]
    assert list(together.values()) == pytest.approx(list(alone.values()), abs=2e-5)
    assert alone[2] != pytest.approx(alone[6], abs=1e-2)
    assert saved(tmp_path / "two") == saved(tmp_path / "one") == [3, 6]
    pair = [run_folder.all_checkpoints(tmp_path / name)[0] for name in ("one", "two")]
    # the loss since the log at step 2: a sum and how many it is of, over all processes
    (sum1, count1), (sum2, count2) = (storage.read_info(p)["losses"] for p in pair)
    assert (count1, count2) == (1, 2) and sum2 / 2 == pytest.approx(sum1, rel=1e-5)
    for name in ("weights", "model"):
        first, second = (load_file(path / f"{name}.safetensors") for path in pair)
        for key, value in first.items():
            assert (second[key] - value).norm() <= 2e-3 * value.norm(), key


SHARED = change(
    TEXT, steps=6, time_limit=60, log_every=2, save_every=3, no_text=0.6, learning_rate=1e-2
)
KILLED = change(
    PLAIN, steps=50, log_every=5, save_every=2, evaluate_every=100, sample_every=100, warmup=1
)
# Where the child kills itself: within a file, between files, around the renaming, while deleting.
KILL_POINTS = (
    "model.safetensors", "weights.safetensors", "optimizer.safetensors", "config.json",
    "before the renaming", "after the renaming", "while deleting",
)  # fmt: skip
RANDOM_KILLS = 5


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_slowly(folder: Path, point: str | None, shared: mmap.mmap) -> None:
    """Go on with a run whose disk is slow; die at the given point of the second save."""
    written: list[str] = []

    def slow_write(path: Path, payload: bytes) -> None:
        with path.open("wb") as file:
            file.write(payload[: len(payload) // 2])
            file.flush()
            time.sleep(0.008)
            if point == path.name and path.name in written:
                die()
            file.write(payload[len(payload) // 2 :])
        written.append(path.name)

    rename, rmtree = Path.rename, shutil.rmtree

    def rename_or_die(self: Path, target: Path) -> Path:
        second = written.count("config.json") == 2 and ".part-" in self.name
        if second and point == "before the renaming":
            die()
        result = rename(self, target)
        if second and point == "after the renaming":
            die()
        return result

    def rmtree_or_die(path: Path, **options: Any) -> None:
        if point == "while deleting" and path.exists() and path.name.endswith("part-old"):
            (path / "weights.safetensors").unlink()
            die()
        rmtree(path, **options)

    class Noted(Trainer):
        def step(self) -> None:
            super().step()
            shared[0], shared[1] = self.step_count, shared[1] + 1

    storage._write_through = slow_write
    Path.rename = rename_or_die  # type: ignore[method-assign, assignment]
    shutil.rmtree = rmtree_or_die  # type: ignore[assignment]
    resume = run_folder.latest_checkpoint(folder) is not None
    if not resume:
        rmtree(folder, ignore_errors=True)
    Noted(KILLED, Pictures(), folder, resume=resume).run()


def attempt(folder: Path, point: str | None, steps: float | None) -> dict[str, Any]:
    """Run a child until it ends, dies at the point, or is killed after some steps (and a bit)."""
    shared = mmap.mmap(-1, 2)  # with the child: the step it has reached, how many it made
    before = run_folder.latest_checkpoint(folder)
    shared[0] = 0 if before is None else int(before.name.removeprefix("step-"))
    process = os.fork()
    if process == 0:
        code = 1
        try:
            train_slowly(folder, point, shared)
            code = 0
        finally:
            os._exit(code)
    if steps is not None:
        deadline = time.monotonic() + 60
        while shared[1] < steps // 1 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(steps % 1 * 0.04)
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    last = run_folder.latest_checkpoint(folder)
    if last is not None:
        load_model(last)
        info = storage.read_info(last)
        for name in info["files"]:
            storage.read_tensors(last, name, info)
    hidden = [p.name for p in (folder / "checkpoints").glob(".*")]
    return {
        "point": point,
        "killed": os.WIFSIGNALED(status),
        "reached": shared[0],
        "newest": 0 if last is None else int(last.name.removeprefix("step-")),
        "loads": True,  # or an error would have come up
        "left_over": hidden,
    }


def main(kind: str, folder: Path) -> None:
    text.TextEncoder = Words  # type: ignore[misc]
    torch.set_num_threads(1)
    if kind == "train":
        trainer = Trainer(SHARED, Pictures(), folder, held_out=Pictures(5, seed=1))
        print(f"{trainer.accelerator.num_processes} processes")
        trainer.run()
    elif kind == "kills":
        # Each attempt is a fork of this process, so that all is imported once and not 14 times.
        import accelerate  # noqa: F401

        chance = random.Random(0)
        plan: list[tuple[str | None, float | None]] = [(point, None) for point in KILL_POINTS]
        plan += [(None, chance.uniform(1, 5)) for _ in range(RANDOM_KILLS)]
        for point, steps in [*plan, (None, None)]:
            print(json.dumps(attempt(folder / "killed", point, steps)), flush=True)
        attempt(folder / "undisturbed", None, None)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
