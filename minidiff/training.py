"""Training: take pictures, add noise, predict, compare, update.

`Trainer.step` is the whole method in a few lines, and `Trainer.run` goes from one step to the next.
What a step learns from is decided in `minidiff.batches`, how a run begins in `minidiff.resume`,
and what lies on the disk in `minidiff.run_folder`.

A run that was interrupted goes on bit for bit (on one CPU, unless a time limit makes the learning
rate follow the clock).
"""

from __future__ import annotations

import copy
import dataclasses
import math
import platform
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm.auto import tqdm

from minidiff import networks, run_folder, storage
from minidiff.batches import (
    Batch,
    Batches,
    PictureDataset,
    check_dataset,
    check_names,
    data_of,
    encode_prompts,
)
from minidiff.denoisers import NetworkDenoiser
from minidiff.devices import accelerator, bfloat16_on_cpu, usual_torch
from minidiff.endings import RESUME, Ended, TrainingStopped, polite, uninterrupted
from minidiff.held_out import chosen, loss_by_timestep
from minidiff.inputs import as_path
from minidiff.latents import space_of
from minidiff.lesson import Lesson
from minidiff.model import save_model
from minidiff.recipe import TrainingConfig
from minidiff.resume import Beginning, checkpoint
from minidiff.second_stage import with_first
from minidiff.trackers import checked, track, tracked


class Trainer:
    """Trains a network on a data set into a run folder.

    The folder holds log.jsonl, checkpoints/step-…/ (the newest two) and, at the end, model/, which
    `minidiff.load` opens. Of two processes that would train into one, only one can.

    Args:
        config: the recipe.
        dataset: pictures and prompts. Where they come from is kept in the record as "data"; a
            folder of pictures that has changed is not taken for the one that a run began with.
        folder: the run folder; must be new, unless `resume`.
        held_out: a data set whose loss is watched, or None.
        callback: called as callback(trainer) every `sample_every` steps, on the first process.
        resume: go on from the newest checkpoint in `folder`.
        start: folder of an earlier model whose (averaged) weights a new run begins with, see
            `minidiff.shelf.find_model`. What that model has been through is kept in the record,
            as its "stages".
        log_with: names of trackers that are told of what is logged, too: see `minidiff.trackers`.

    Raises:
        FileExistsError: if the folder holds a run and `resume` is False.
        FileNotFoundError: if there is nothing to resume, or to start from.
        BlockingIOError: if another process trains in the folder, naming it.
        ValueError: for pictures of another size, for a run with another recipe or other pictures
            or longer than it shall be, a model of another kind to start from, a batch that the
            processes cannot share evenly, or a way of sharing it that would not work here.
        TypeError: for a folder or start that is no path, a callback that cannot be called, or a
            data set without pictures.
        CheckpointError: for a damaged checkpoint or model.
        Ended: if the process is asked to end. Nothing stays behind then, nor after an error.

    Attributes:
        network, averaged: the network that is trained, and the average of its weights.
        model_config: what the averaged network needs to be used, a `minidiff.model.ModelConfig`.
        batches: what each step learns from, see `minidiff.batches.Batches`.
        step_count: updates made so far.
        seconds: of training so far, those of interrupted runs included.
    """

    def __init__(
        self,
        config: TrainingConfig,
        dataset: PictureDataset,
        folder: str | Path,
        held_out: PictureDataset | None = None,
        callback: Callable[[Trainer], None] | None = None,
        resume: bool = False,
        start: str | Path | None = None,
        log_with: Sequence[str] = (),
    ) -> None:
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be a function of the trainer or None, got {callback!r}")
        self.config, self.folder, self.callback = config, as_path("folder", folder), callback
        source = None if start is None else as_path("start", start)
        beginning = Beginning(self.folder, resume, source)
        for pictures in (dataset, held_out):
            if pictures is not None:
                check_dataset(config, pictures)
        check_names(config, dataset)
        with usual_torch(), polite():
            self.accelerator = accelerator(checked(log_with), self.folder / "tensorboard")
            self.device, self.is_main = self.accelerator.device, self.accelerator.is_main_process
            if config.batch_size % self.accelerator.num_processes:
                raise ValueError(
                    f"batch_size {config.batch_size} cannot be shared evenly by "
                    f"{self.accelerator.num_processes} processes: make it a multiple of that"
                )
            self._lock = run_folder.RunLock(self.folder) if self.is_main else nullcontext()
            self._begun = resume
            with self._lock:
                if not resume:
                    run_folder.check_new(self.folder)
                self._prepare(dataset, held_out, beginning)

    def _prepare(
        self, dataset: PictureDataset, held_out: PictureDataset | None, beginning: Beginning
    ) -> None:
        config = self.config
        self.step_count, self.seconds = 0, 0.0
        self.data = data_of(dataset, config.text_encoder is not None)
        self.stages: list[dict[str, Any]] = []  # of the training before this run, oldest first
        # What does not fit is found out before minutes go into encoding texts.
        storage.check_replaceable(self.folder / "model")
        self.lesson = None
        if config.teacher is not None:
            begun = beginning.resume or beginning.start is not None
            processes = self.accelerator.num_processes
            self.lesson = Lesson(config, self.device, processes, begun)
        space = space_of(config, dataset.images, self.device)
        if self.lesson is None:
            model = with_first(config, config.model_for(space))
        else:
            model = self.lesson.agreed(config.model_for(space, self.lesson.student))
        model = beginning.check(config, model, self.data, len(dataset.images))

        torch.manual_seed(config.seed)  # the first weights
        self.network = networks.build(config.network).to(self.device)
        datasets = [dataset] if held_out is None else [dataset, held_out]
        # `words` are those of the prompts that the text encoder does not know.
        texts, fingerprint, self.words = encode_prompts(config, self.accelerator, *datasets)
        self.model_config = dataclasses.replace(model, text_fingerprint=fingerprint)
        self.schedule = self.model_config.make_schedule()
        each = [Batches(config, d, self.model_config, texts, self.accelerator) for d in datasets]
        self.batches, self.held_out = each[0], each[1] if held_out is not None else None

        self.averaged = copy.deepcopy(self.network).requires_grad_(False)
        if self.lesson is not None:
            self.lesson.begin(self.network, self.averaged, fingerprint, config.compile)
            self.held_out = None  # the loss of a student says nothing of what it draws
        optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=config.learning_rate,
            betas=(0.9, config.beta2),
            weight_decay=config.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        if config.compile:
            self.network.compile()
        self.model, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        self.losses = torch.zeros(2, device=self.device)  # sum and count since the last log
        beginning.take_up(self)
        if self.is_main:
            if beginning.resume and not self.finished:  # it is that of a shorter run
                storage.remove_folder(self.folder / "model")
            run_folder.trim_log(self.folder, self.step_count)
            run_folder.remove_leftovers(self.folder)

    # ------------------------------------------------------------------ the method

    def step(self) -> None:
        """One update of the weights."""
        batch = self.batches(self.step_count)
        with bfloat16_on_cpu(self.config.bfloat16_on_cpu and self.device.type == "cpu"):
            loss = self.loss(batch).mean()
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.step_count, self.seconds)
        with uninterrupted():  # half an update must not be saved
            self.optimizer.step()
            self._average()
            self.losses += torch.stack([loss.detach(), torch.ones_like(loss)])
            self.step_count += 1

    def loss(self, batch: Batch) -> Tensor:
        """(b,) how far the network is from what was mixed in each picture, or from its teacher."""
        if self.lesson is not None:
            with self.accelerator.autocast():  # the teacher is asked as well
                return self.lesson.loss(self.model, batch, self.step_count)
        if not networks.describe(self.config.network).denoises:  # an autoencoder
            return self.model(batch.x0, batch.eps)
        denoiser = NetworkDenoiser(
            self.model, self.schedule, self.config.prediction_type, **batch.condition
        )
        return denoiser.loss(batch.x0, batch.t, batch.eps)

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average of the weights (EMA) towards the weights after an update."""
        # Not `AveragedModel`: it counts in a tensor, which on a GPU means waiting at every step.
        n = self.step_count
        decay = min(self.config.ema_decay, (1 + n) / (10 + n)) if n else 0.0  # first: a copy
        averages, current = list(self.averaged.parameters()), list(self.network.parameters())
        get_ema_multi_avg_fn(decay)(averages, current, None)
        for average, now in zip(self.averaged.buffers(), self.network.buffers()):
            average.copy_(now)

    # ------------------------------------------------------------------ the run

    def run(self) -> None:
        """Train to the last step or the time limit, logging, sampling and saving on the way.

        What is done at the end (a last log, loss, checkpoint and sample) comes after the limit.

        Raises:
            TrainingStopped: if the loss is not a number any more, if a checkpoint cannot be saved,
                or after Ctrl-C or a signal to end (SIGTERM and the like), once all is saved.
            FileExistsError, BlockingIOError: if another process has come first, or is at it.
        """
        with usual_torch(), polite(), self._lock:
            if not self._begun:
                run_folder.check_new(self.folder)  # since the trainer was made
            try:
                with tracked(self.accelerator, self.folder, self.config.to_dict(), self.step_count):
                    self._train()
            except (KeyboardInterrupt, Ended) as end:
                number = end.signal if isinstance(end, Ended) else signal.SIGINT
                with uninterrupted() as again:
                    self._save(self.losses)  # without the others, which may have stopped already
                    again.clear()
                by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
                raise TrainingStopped(
                    f"interrupted{by} at step {self.step_count}; saved. Go on with {RESUME}", number
                ) from None

    def _train(self) -> None:
        config, processes = self.config, self.accelerator.num_processes
        if self.batches.beside is not None and not self.finished:
            _ = self.batches.beside.redrawn  # before the clock starts
        bar = tqdm(
            total=config.steps * config.batch_size,
            initial=self.step_count * config.batch_size,
            unit=" images",
            desc=f"Training ({self.device.type}, {processes} process{'es' * (processes > 1)})",
            disable=not self.is_main,
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )
        started, before = time.monotonic(), self.seconds
        mark = (started, self.step_count)
        with bar:
            while not self.finished:
                self.step()
                bar.update(config.batch_size)
                self.seconds = self._agreed(before + time.monotonic() - started)
                if self._due(config.log_every):
                    mark = self._log(bar, mark)
                if self._due(config.evaluate_every) and self.held_out is not None:
                    held_out_loss = self.held_out_loss()
                    self._check_finite("loss on held-out pictures", held_out_loss["mean"])
                    self._write({"held_out_loss": held_out_loss})
                if self._due(config.save_every):
                    self.save()
                if self._due(config.sample_every) and self.callback and self.is_main:
                    self.callback(self)
        if self.is_main:
            with uninterrupted():
                self.save_model(self.folder / "model")

    @property
    def finished(self) -> bool:
        """Whether the last step is done, or the time is over."""
        limit = self.config.time_limit
        over = limit is not None and self.seconds >= 60 * limit
        return over or self.step_count >= self.config.steps

    def _agreed(self, seconds: float) -> float:
        """The clock; with a time limit that of the first process, so that all end together."""
        if self.config.time_limit is None or self.accelerator.num_processes == 1:
            return seconds
        from accelerate.utils import broadcast

        return float(broadcast(torch.tensor(seconds, device=self.device)))

    def _due(self, every: int) -> bool:
        return self.step_count % every == 0 or self.finished

    def _log(self, bar: Any, mark: tuple[float, int]) -> tuple[float, int]:
        loss = self._mean_loss()
        now = time.monotonic()
        pictures = (self.step_count - mark[1]) * self.config.batch_size
        speed = pictures / max(now - mark[0], 1e-3)  # some clocks tick slowly
        self._write(
            {
                "loss": round(loss, 5),
                "learning_rate": self.optimizer.param_groups[0]["lr"],
                "images_per_second": round(speed, 1),
                "seconds": round(self.seconds, 1),
                "device": self.device.type,
                "processes": self.accelerator.num_processes,
            }
        )
        bar.set_postfix(step=self.step_count, loss=f"{loss:.4f}")
        return now, self.step_count

    def _mean_loss(self) -> float:
        """Mean loss since the last call. Here the host waits for the device; no step does."""
        total, count = self.accelerator.reduce(self.losses.clone()).tolist()
        self.losses.zero_()
        loss = total / max(count, 1)
        self._check_finite("loss", loss)
        return loss

    def _check_finite(self, name: str, value: float) -> None:
        if math.isfinite(value):
            return
        newest = run_folder.latest_checkpoint(self.folder)
        kept = f"the last good checkpoint is {newest}" if newest else "nothing was saved yet"
        raise TrainingStopped(
            f"the {name} became {value} before step {self.step_count}; {kept}. Try a lower "
            f"learning_rate than {self.config.learning_rate}, a longer warmup or a smaller clip"
        )

    def _write(self, entry: dict[str, Any]) -> None:
        if self.is_main:
            run_folder.write_log(self.folder, self.step_count, entry)
            track(self.accelerator, self.step_count, entry)

    def held_out_loss(self) -> dict[str, float]:
        """Loss of the averaged weights on held-out pictures, see `minidiff.held_out`."""
        assert self.held_out is not None
        pictures, condition = self.held_out.whole(chosen(len(self.held_out.images)))
        return loss_by_timestep(self.averaged, self.model_config, pictures, **condition)

    # ------------------------------------------------------------------ saving

    def save(self) -> None:
        """Write a checkpoint of everything that a resumed run needs; keep the newest two.

        Raises:
            TrainingStopped: if it cannot be written, or if the weights are not numbers any more.
        """
        losses = self.accelerator.reduce(self.losses.clone())
        with uninterrupted():
            self._save(losses)
        self.accelerator.wait_for_everyone()

    def _save(self, losses: Tensor) -> None:
        self._check_finite("loss", losses[0].item())
        if not all(bool(weight.isfinite().all()) for weight in self.network.parameters()):
            self._check_finite("weights", math.nan)
        if not self.is_main:
            return
        run_folder.save_checkpoint(self.folder, self.step_count, *checkpoint(self, losses))
        self._begun = True

    def save_model(self, folder: Path) -> None:
        """Write the averaged weights, in half precision, for `minidiff.load`.

        Raises:
            TrainingStopped: if they cannot be written.
        """
        with run_folder.disk_errors():
            save_model(folder, self.averaged, self.model_config, self.record())

    def record(self) -> dict[str, Any]:
        """How the model came about, for its model card."""
        processor = platform.processor() or platform.machine()
        if self.device.type == "cuda":
            processor = torch.cuda.get_device_name(self.device)
        seen = self.step_count * self.config.batch_size
        return {
            "stages": self.stages,
            "recipe": self.config.to_dict(),
            "steps": self.step_count,
            "images_seen": seen,
            "images_seen_in_all": seen + sum(s.get("images_seen", 0) for s in self.stages),
            "training_images": len(self.batches.images),
            "data": self.data,
            "words": self.words,
            "seconds": round(self.seconds),
            "device": f"{self.device.type} ({processor}, {torch.get_num_threads()} threads)",
            "processes": self.accelerator.num_processes,
            "torch": torch.__version__,
        }
