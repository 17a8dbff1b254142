"""Training: take pictures, add noise, predict, compare, update.

`Trainer.step` is the whole method in a few lines; what surrounds it is what a long run needs:
several devices, half precision, an average of the weights, checkpoints that survive a power cut, a
log, and the loss on pictures that were held out.

All randomness comes from (seed, step, place in the batch). A run that was interrupted therefore
goes on bit for bit (on one CPU, unless a time limit makes the learning rate follow the clock), and
several processes together see the batch one would see.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import platform
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm.auto import tqdm

from minidiff import checkpoints, run_folder
from minidiff.checkpoints import ModelConfig
from minidiff.denoisers import NetworkDenoiser
from minidiff.devices import accelerator, usual_torch
from minidiff.endings import RESUME, Ended, TrainingStopped, polite
from minidiff.endings import uninterrupted as _uninterrupted
from minidiff.glyphs import cache_dir, to_float
from minidiff.held_out import loss_by_timestep
from minidiff.inputs import as_path, is_folder
from minidiff.recipe import TrainingConfig
from minidiff.run_folder import latest_checkpoint
from minidiff.samplers import seeded_generator
from minidiff.unet import UNet

if TYPE_CHECKING:
    from minidiff.texts import EncodedTexts

__all__ = [
    "PictureDataset",
    "Trainer",
]


# What random numbers are for: the second part of the key of `seeded_generator`, so that no two uses
# of a seed see the same numbers. 3: held_out; 4 and 6: evaluation; 5: metrics.bootstrap.
CHOICES, NOISE, ORDER = range(3)
HELD_OUT_CHOICE = 4


class PictureDataset(Protocol):
    """What the trainer needs of a data set (`GlyphDataset` and `ImageFolder` have it).

    Attributes:
        images: (N, C, H, W) uint8, 255 = white.
        prompts: for each picture the texts that may stand for it, the whole text first.
    """

    images: Tensor
    prompts: list[tuple[str, ...]]


def sample_timesteps(
    config: TrainingConfig, batch: int, last: int, generator: torch.Generator
) -> Tensor:
    """(batch,) timesteps in 1 … last, one from each of `batch` equal slices of the distribution.

    The distribution is that of `TrainingConfig`: logit-normal (Esser et al. 2024, section 3.1).
    """
    slices = torch.randperm(batch, generator=generator).double()
    u = (slices + torch.rand(batch, generator=generator, dtype=torch.float64)) / batch
    normal = torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9))
    share = torch.sigmoid(config.timestep_mean + config.timestep_std * normal)
    return (share * last).ceil().long().clamp(1, last)


class Trainer:
    """Trains a U-Net on a data set into a run folder.

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
            `minidiff.pipeline.find_model`. What that model has been through is kept in the record,
            as its "stages".

    Raises:
        FileExistsError: if the folder holds a run and `resume` is False.
        FileNotFoundError: if there is nothing to resume.
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
        model_config: what the averaged network needs to be used, a
            `minidiff.checkpoints.ModelConfig`.
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
    ) -> None:
        if resume and start is not None:
            raise ValueError(
                f"only a new run can start from {start}: a resumed one goes on with its own weights"
            )
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be a function of the trainer or None, got {callback!r}")
        self.config, self.folder, self.callback = config, as_path("folder", folder), callback
        source = None if start is None else as_path("start", start)
        if source is not None and not is_folder(source):
            raise FileNotFoundError(
                f"start is {str(start)!r}, which is no folder: give that of a model; for one that "
                f"ships it is minidiff.pipeline.find_model({str(start)!r})"
            )
        for pictures in (dataset, held_out):
            if pictures is not None:
                self._check_data(pictures)
        with usual_torch(), polite():
            self.accelerator = accelerator()
            self.device = self.accelerator.device
            if config.batch_size % self.accelerator.num_processes:
                raise ValueError(
                    f"batch_size {config.batch_size} cannot be shared evenly by "
                    f"{self.accelerator.num_processes} processes: make it a multiple of that"
                )
            lock = run_folder.RunLock(self.folder) if self._is_main else contextlib.nullcontext()
            self._lock, self._begun = lock, resume
            with lock:
                if not resume:
                    run_folder.check_new(self.folder)
                self._prepare(dataset, held_out, resume, source)

    def _prepare(
        self,
        dataset: PictureDataset,
        held_out: PictureDataset | None,
        resume: bool,
        start: Path | None,
    ) -> None:
        config = self.config
        self.step_count, self.seconds = 0, 0.0
        self.images = dataset.images.to(self.device)
        self.data = run_folder.data_of(dataset, config.text_encoder is not None)
        self.model_config = self._model_config(dataset.images)
        self.stages: list[dict[str, Any]] = []  # of the training before this run, oldest first
        self.words: list[str] = []  # of the prompts that the text encoder does not know
        # What does not fit is found out before minutes go into encoding texts.
        checkpoints.check_replaceable(self.folder / "model")
        newest, info = run_folder.newest_info(self.folder) if resume else (None, {})
        if newest is not None:
            run_folder.check_resumed(info, config, self.data)
            self._check_pictures(info)
        earlier = None if start is None else self._check_start(start)

        torch.manual_seed(config.seed)  # the first weights
        self.network = UNet(config.unet).to(self.device)
        self.texts, fingerprint = self._encode(dataset, held_out)
        self.model_config = dataclasses.replace(self.model_config, text_fingerprint=fingerprint)
        self.prompt_rows = self._prompt_rows(dataset)
        self.held_out = None if held_out is None else held_out.images.to(self.device)
        self.held_out_rows = None if held_out is None else self._prompt_rows(held_out)[0][:, 0]
        self.schedule = self.model_config.make_schedule()
        if start is not None and earlier is not None:
            self._start_from(start, *earlier)

        self.averaged = copy.deepcopy(self.network).requires_grad_(False)
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
        self._losses = torch.zeros(2, device=self.device)  # sum and count since the last log
        if newest is not None:
            with run_folder.older_named(self.folder):
                self._load(newest, info)
        if self._is_main:
            if resume and not self.finished:  # it is that of a shorter run
                checkpoints.remove_folder(self.folder / "model")
            run_folder.trim_log(self.folder, self.step_count)
            run_folder.remove_leftovers(self.folder)

    # ------------------------------------------------------------------ the method

    def step(self) -> None:
        """One update of the weights."""
        x0, eps, t, tokens, mask = self.batch(self.step_count)
        denoiser = NetworkDenoiser(
            self.model, self.schedule, self.config.prediction_type, tokens=tokens, mask=mask
        )
        loss = denoiser.loss(x0, t, eps).mean()
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.step_count, self.seconds)
        with _uninterrupted():  # half an update must not be saved
            self.optimizer.step()
            self._average()
            self._losses += torch.stack([loss.detach(), torch.ones_like(loss)])
            self.step_count += 1

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """This process's share b of the batch of a step.

        Returns:
            x0 (b, C, H, W), eps like it, t (b,), tokens (b, n, d) and mask (b, n), or None twice.
        """
        config, size = self.config, self.config.batch_size
        mine = self._share(size)
        draw = seeded_generator(config.seed, CHOICES, step)
        t = sample_timesteps(config, size, self.schedule.num_train_timesteps, draw)[mine]
        index = self._pictures(step)[mine]
        choice = torch.rand(3, size, generator=draw)[:, mine]
        hide = torch.rand(size, config.max_tokens, generator=draw)[mine] < config.hidden_tokens
        noise = seeded_generator(config.seed, NOISE, step, device=self.device)
        eps = torch.randn(size, *self.images.shape[1:], generator=noise, device=self.device)[mine]
        x0 = self.model_config.to_data(to_float(self.images[self._send(index)]))
        return x0, eps, self._send(t), *self._tokens(index, choice, hide)

    def _send(self, x: Tensor) -> Tensor:
        """To the device; on a GPU without waiting until it has done all that was asked before."""
        return x.to(self.device, non_blocking=self.device.type == "cuda")

    def _share(self, size: int) -> slice:
        """The rows of a batch that belong to this process."""
        each = size // self.accelerator.num_processes
        first = each * self.accelerator.process_index
        return slice(first, first + each)

    def _pictures(self, step: int) -> Tensor:
        """(batch,) indices: every epoch goes through all pictures in an order of its own."""
        size, total = self.config.batch_size, len(self.images)
        position = torch.arange(step * size, (step + 1) * size)
        index = torch.empty_like(position)
        for epoch in range(step * size // total, ((step + 1) * size - 1) // total + 1):
            draw = seeded_generator(self.config.seed, ORDER, epoch)
            order = torch.randperm(total, generator=draw)
            here = position // total == epoch
            index[here] = order[position[here] % total]
        return index

    def _tokens(
        self, index: Tensor, choice: Tensor, hide: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Tokens and mask for pictures `index` (b,).

        `choice` (3, b), uniform, picks prompts; `hide` (b, max_tokens) masks tokens.
        """
        if self.texts is None:
            return None, None
        rows, count = (table[index] for table in self.prompt_rows)
        sense = 1 + (choice[1] * (count - 1)).long()
        sense = sense.where((choice[0] < self.config.senses) & (count > 1), 0)
        row = rows.gather(1, sense[:, None])[:, 0]
        row = row.where(choice[2] >= self.config.no_text, -1)  # −1: the empty prompt
        tokens, mask = self._read(row)
        return tokens, mask & ~self._send(hide[:, : mask.shape[1]])

    def _read(self, row: Tensor) -> tuple[Tensor, Tensor]:
        assert self.texts is not None
        text = self.texts.batch(self._send(row), length=self._text_length)
        return text.tokens, text.mask

    @property
    def _text_length(self) -> int | None:
        """Tokens a prompt is padded to; None: as many as the longest of the batch has.

        A fixed length for compiled code; on a GPU, where finding the longest means waiting; and
        for several processes, which expect a gradient of every weight, be all their texts empty.
        """
        several = self.accelerator.num_processes > 1
        fixed = self.config.compile or self.device.type != "cpu" or several
        return self.config.max_tokens if fixed else None

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average of the weights (EMA) towards the weights after an update."""
        # Not `AveragedModel`: it counts in a tensor, which on a GPU means waiting at every step.
        n = self.step_count
        decay = min(self.config.ema_decay, (1 + n) / (10 + n)) if n else 0.0  # first: a copy
        averages, current = list(self.averaged.parameters()), list(self.network.parameters())
        get_ema_multi_avg_fn(decay)(averages, current, None)

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
                self._train()
            except (KeyboardInterrupt, Ended) as end:
                number = end.signal if isinstance(end, Ended) else signal.SIGINT
                with _uninterrupted() as again:
                    self._save(self._losses)  # without the others, which may have stopped already
                    again.clear()
                by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
                raise TrainingStopped(
                    f"interrupted{by} at step {self.step_count}; saved. Go on with {RESUME}", number
                ) from None

    def _train(self) -> None:
        config, processes = self.config, self.accelerator.num_processes
        bar = tqdm(
            total=config.steps * config.batch_size,
            initial=self.step_count * config.batch_size,
            unit=" images",
            desc=f"Training ({self.device.type}, {processes} process{'es' * (processes > 1)})",
            disable=not self._is_main,
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
                if self._due(config.sample_every) and self.callback and self._is_main:
                    self.callback(self)
        if self._is_main:
            with _uninterrupted():
                self.save_model(self.folder / "model")

    @property
    def _is_main(self) -> bool:
        return self.accelerator.is_main_process

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
        total, count = self.accelerator.reduce(self._losses.clone()).tolist()
        self._losses.zero_()
        loss = total / max(count, 1)
        self._check_finite("loss", loss)
        return loss

    def _check_finite(self, name: str, value: float) -> None:
        if math.isfinite(value):
            return
        newest = latest_checkpoint(self.folder)
        kept = f"the last good checkpoint is {newest}" if newest else "nothing was saved yet"
        raise TrainingStopped(
            f"the {name} became {value} before step {self.step_count}; {kept}. Try a lower "
            f"learning_rate than {self.config.learning_rate}, a longer warmup or a smaller clip"
        )

    def _write(self, entry: dict[str, Any]) -> None:
        if self._is_main:
            run_folder.write_log(self.folder, self.step_count, entry)

    def held_out_loss(self) -> dict[str, float]:
        """Loss of the averaged weights on held-out pictures, see `loss_by_timestep`."""
        assert self.held_out is not None
        # A random choice, always the same: in order of code points the first are all rare ones.
        choice = seeded_generator(0, HELD_OUT_CHOICE)
        chosen = torch.randperm(len(self.held_out), generator=choice)[:256]
        tokens = mask = None
        if self.texts is not None:
            assert self.held_out_rows is not None
            tokens, mask = self._read(self.held_out_rows[chosen])
        pictures = to_float(self.held_out[chosen.to(self.device)])
        return loss_by_timestep(self.averaged, self.model_config, pictures, tokens, mask)

    # ------------------------------------------------------------------ saving

    def save(self) -> None:
        """Write a checkpoint of everything that a resumed run needs; keep the newest two.

        Raises:
            TrainingStopped: if it cannot be written, or if the weights are not numbers any more.
        """
        losses = self.accelerator.reduce(self._losses.clone())
        with _uninterrupted():
            self._save(losses)
        self.accelerator.wait_for_everyone()

    def _save(self, losses: Tensor) -> None:
        self._check_finite("loss", losses[0].item())
        if not all(bool(weight.isfinite().all()) for weight in self.network.parameters()):
            self._check_finite("weights", math.nan)
        if not self._is_main:
            return
        files = {
            "model.safetensors": self.averaged.state_dict(),
            "weights.safetensors": self.network.state_dict(),
            "optimizer.safetensors": self._optimizer_tensors(),
        }
        info = {
            **checkpoints.model_info(self.model_config, self.record()),
            "data": self.data,
            "training": dataclasses.asdict(self.config),
            "step": self.step_count,
            "seconds": self.seconds,
            "scaler": self._scaler.state_dict() if self._scaler else None,
            "losses": losses.tolist(),
        }
        run_folder.save_checkpoint(self.folder, self.step_count, files, info)
        self._begun = True

    def save_model(self, folder: Path) -> None:
        """Write the averaged weights, in half precision, for `minidiff.load`.

        Raises:
            TrainingStopped: if they cannot be written.
        """
        with run_folder.disk_errors():
            checkpoints.save_model(folder, self.averaged, self.model_config, self.record())

    def record(self) -> dict[str, Any]:
        """How the model came about, for its model card."""
        processor = platform.processor() or platform.machine()
        if self.device.type == "cuda":
            processor = torch.cuda.get_device_name(self.device)
        seen = self.step_count * self.config.batch_size
        return {
            "stages": self.stages,
            "recipe": dataclasses.asdict(self.config),
            "steps": self.step_count,
            "images_seen": seen,
            "images_seen_in_all": seen + sum(s.get("images_seen", 0) for s in self.stages),
            "training_images": len(self.images),
            "data": self.data,
            "words": self.words,
            "seconds": round(self.seconds),
            "device": f"{self.device.type} ({processor}, {torch.get_num_threads()} threads)",
            "processes": self.accelerator.num_processes,
            "torch": torch.__version__,
        }

    @property
    def _scaler(self) -> Any:
        return self.accelerator.scaler

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        state = self.optimizer.optimizer.state
        return {
            f"{name}/{key}": value
            for name, parameter in self.network.named_parameters()
            for key, value in state[parameter].items()
        }

    def _load_optimizer(self, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for i, (name, parameter) in enumerate(self.network.named_parameters()):
            if f"{name}/step" not in tensors:
                continue  # it never had a gradient, so the optimizer knows nothing of it
            state[i] = {"step": tensors[f"{name}/step"]}
            for key in ("exp_avg", "exp_avg_sq"):
                # In the memory order of the parameter: a fused optimizer walks both side by side.
                state[i][key] = torch.empty_like(parameter).copy_(tensors[f"{name}/{key}"])
        inner = self.optimizer.optimizer
        inner.load_state_dict({**inner.state_dict(), "state": state})

    def _load(self, newest: Path, info: dict[str, Any]) -> None:
        fingerprint = info["model"]["text_fingerprint"]
        if fingerprint != self.model_config.text_fingerprint:
            raise checkpoints.CheckpointError(
                f"{newest} was trained with another text encoder "
                f"({info['model']['text_encoder']}, {fingerprint}): use that one"
            )
        weights = checkpoints.read_tensors(newest, "weights.safetensors", info)
        averages = checkpoints.read_tensors(newest, "model.safetensors", info)
        moments = checkpoints.read_tensors(newest, "optimizer.safetensors", info)
        checkpoints.load_weights(self.network, weights, newest)
        checkpoints.load_weights(self.averaged, averages, newest)
        self._load_optimizer(moments)
        self.step_count, self.seconds = info["step"], info["seconds"]
        self.stages = info["record"].get("stages", [])
        if self._is_main:  # they are of all processes together
            self._losses.copy_(torch.tensor(info["losses"]))
        if self._scaler and info["scaler"]:
            self._scaler.load_state_dict(info["scaler"])

    def _check_start(self, folder: Path) -> tuple[UNet, ModelConfig, dict[str, Any]]:
        """An earlier model to start from, if it is of the kind and the scale that is wanted."""
        network, config, record = checkpoints.load_model(folder)
        theirs, ours = (run_folder.flat(dataclasses.asdict(c)) for c in (config, self.model_config))
        free = {"text_encoder", "text_fingerprint", "max_tokens", "data_mean", "data_std"}
        for name in theirs:
            if name not in free and theirs[name] != ours[name]:
                raise ValueError(
                    f"cannot start from {folder}: its {name} is {theirs[name]!r}, here it is "
                    f"{ours[name]!r}. Use a recipe that agrees, or start from another model"
                )
        if not self._take_scale(theirs):
            raise ValueError(
                f"cannot start from {folder}: its data have mean {config.data_mean} and deviation "
                f"{config.data_std}, these {self.model_config.data_mean} and "
                f"{self.model_config.data_std}. Use the same pictures"
            )
        return network, config, record

    def _start_from(
        self, folder: Path, network: UNet, config: ModelConfig, record: dict[str, Any]
    ) -> None:
        """Take over the averaged weights of an earlier model, and note where they come from."""
        theirs, ours = config.text_fingerprint, self.model_config.text_fingerprint
        if theirs != ours:  # this decides, not the encoder's name, which may be a folder
            raise ValueError(
                f"cannot start from {folder}: its text_fingerprint is {theirs!r}, here it is "
                f"{ours!r}. Use the text encoder that it was trained with"
            )
        self.network.load_state_dict(network.state_dict())
        self.words = sorted({*self.words, *record.get("words", [])})
        kept = ("recipe", "steps", "images_seen", "training_images", "data", "seconds", "device")
        stage = {name: record[name] for name in (*kept, "processes", "torch") if name in record}
        stage["weights_sha256"] = checkpoints.read_info(folder)["files"]["model.safetensors"]
        self.stages = [*record.get("stages", []), stage]

    def _take_scale(self, model: dict[str, Any]) -> bool:
        """Keep to the data scale of earlier weights; False if that of the pictures is another one.

        The same glyphs come out a little different where Pillow has another FreeType.
        """
        names = ("data_mean", "data_std")
        if any(abs(model[name] - getattr(self.model_config, name)) > 1e-3 for name in names):
            return False
        scale = {name: model[name] for name in names}
        self.model_config = dataclasses.replace(self.model_config, **scale)
        return True

    # ------------------------------------------------------------------ preparation

    def _check_data(self, dataset: PictureDataset) -> None:
        images, size = getattr(dataset, "images", None), self.config.image_size
        if not isinstance(images, Tensor):
            raise TypeError(
                "the data set must have .images, a uint8 tensor (N, C, H, W), and .prompts, as "
                f"minidiff.datasets.ImageFolder has, got a {type(dataset).__name__} without"
            )
        shape, channels = tuple(images.shape[1:]), self.config.unet.in_channels
        if shape[1:] != (size, size):
            raise ValueError(
                f"the recipe wants pictures of {size} × {size} pixels, those of the data set have "
                f"the shape {shape}: set image_size, or load them at that size"
            )
        if shape[0] != channels:
            raise ValueError(
                f"the recipe wants pictures with in_channels = {channels}, those of the data set "
                f"have {shape[0]}: set in_channels = {shape[0]} under [unet]"
            )
        if images.dtype != torch.uint8 or len(images) == 0:
            raise ValueError(
                f"the data set must hold at least one picture as uint8 (255 = white), "
                f"got {len(images)} as {images.dtype}"
            )
        if self.config.text_encoder is None:
            return
        prompts = getattr(dataset, "prompts", None)
        if not isinstance(prompts, Sequence):
            raise TypeError(
                "the data set must have .prompts, a list with a tuple of texts for each picture, "
                f"got {type(prompts).__name__}"
            )
        if len(prompts) != len(images):
            raise ValueError(
                f"the data set has {len(images)} pictures but prompts for {len(prompts)}"
            )
        for i, texts in enumerate(prompts):
            several = isinstance(texts, tuple | list) and len(texts) > 0
            if not several or not all(isinstance(text, str) for text in texts):
                raise ValueError(
                    f'prompts[{i}] must be a tuple of texts, such as ("gold",), got {texts!r}'
                )

    def _check_pictures(self, info: dict[str, Any]) -> None:
        now, before, count = self.model_config, info["model"], info["record"]["training_images"]
        if count != len(self.images) or not self._take_scale(before):
            raise ValueError(
                f"this run was trained on other pictures: {count} of mean {before['data_mean']} "
                f"and deviation {before['data_std']}, now {len(self.images)} of {now.data_mean} "
                f"and {now.data_std}; give the same, or start a new folder"
            )

    def _encode(
        self, dataset: PictureDataset, held_out: PictureDataset | None
    ) -> tuple[EncodedTexts | None, str | None]:
        """The text of all prompts as one table on the device, and the encoder's fingerprint.

        Words that the encoder does not know are noted, unless they are those of the glyphs.
        """
        config = self.config
        if config.text_encoder is None:
            return None, None
        from minidiff.text import TextEncoder
        from minidiff.texts import different_texts, encode_texts, warn_of_alike

        encoder = TextEncoder(config.text_encoder, config.max_tokens, self.device)
        if encoder.dim != config.unet.text_dim:
            raise ValueError(
                f"the text encoder {config.text_encoder!r} gives vectors of width {encoder.dim}, "
                f"but unet.text_dim is {config.unet.text_dim}: set it to {encoder.dim}"
            )
        if self.data["kind"] != "glyphs":
            ours = different_texts(dataset.prompts)
            self.words = encoder.unknown_words(ours)
            if self._is_main:
                warn_of_alike(ours, encoder)
        texts = different_texts(dataset.prompts, held_out.prompts if held_out else [])
        with self.accelerator.main_process_first():  # one process fills the cache
            table = encode_texts(texts, encoder, cache_dir())
        return table.to(self.device), encoder.fingerprint

    def _prompt_rows(self, dataset: PictureDataset) -> tuple[Tensor, Tensor]:
        """For each picture the rows of its prompts, (N, most), and how many they are, (N,)."""
        if self.texts is None:
            return torch.empty(0, 1, dtype=torch.long), torch.empty(0, dtype=torch.long)
        rows = [self.texts.rows(several) for several in dataset.prompts]
        count = torch.tensor([len(several) for several in rows])
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1), count

    def _model_config(self, images: Tensor) -> ModelConfig:
        config = self.config
        share = torch.bincount(images.flatten(), minlength=256).double() / images.numel()
        grey = torch.arange(256, dtype=torch.float64) / 127.5 - 1
        mean = (share * grey).sum()
        std = (share * (grey - mean) ** 2).sum().sqrt()
        return ModelConfig(
            unet=config.unet,
            image_size=config.image_size,
            schedule=config.schedule,
            zero_terminal_snr=config.zero_terminal_snr,
            prediction_type=config.prediction_type,
            data_mean=round(mean.item(), 6),
            data_std=round(max(std.item(), 1e-6), 6),
            text_encoder=config.text_encoder,
            max_tokens=config.max_tokens,
        )
