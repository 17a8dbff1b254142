"""The failures of a model, made on purpose: it draws pictures again that have been noised.

A second stage learns from them what it has to mend, see `minidiff.second_stage`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm.auto import tqdm

from minidiff.cache import cache_dir
from minidiff.denoisers import NetworkDenoiser
from minidiff.model import load_model
from minidiff.storage import CheckpointError

if TYPE_CHECKING:
    from accelerate import Accelerator

SHARES = (0.1, 0.7)  # from a t / T between these,
EULER = 5  # in so many steps
BATCH = 256  # pictures at a time


class Redrawing:
    """The first stage, as it draws pictures again that have been noised.

    Args:
        folder: of its model.
        accelerator: where it runs.
        texts: N of them, which it reads where it can.

    Raises:
        CheckpointError: if its text encoder is another one than it was trained with.
    """

    def __init__(self, folder: Path, accelerator: Accelerator, texts: Sequence[str]) -> None:
        self.accelerator, self.device = accelerator, accelerator.device
        network, self.model, _ = load_model(folder)
        self.network, self.schedule = network.to(self.device), self.model.make_schedule()
        self.table = None
        if self.model.text_encoder is not None:
            from minidiff.text import TextEncoder
            from minidiff.texts import encode_texts

            encoder = TextEncoder(self.model.text_encoder, self.model.max_tokens, self.device)
            if encoder.fingerprint != self.model.text_fingerprint:
                raise CheckpointError(
                    f"the first stage in {folder} was trained with another text encoder "
                    f"({self.model.text_encoder}, {self.model.text_fingerprint}): use that one"
                )
            self.table = encode_texts(texts, encoder, cache_dir()).to(self.device)
            self.rows = self.table.rows(texts)

    @torch.no_grad()
    def __call__(
        self, small: Tensor, draw: torch.Generator, quiet: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Noise pictures up to a t of their own and draw them to an end from there.

        Args:
            small: (N, C, H, W) uint8.
            draw: a generator of the CPU.

        Returns:
            the same, drawn again, and the t / T (N,) from which; both on the CPU.
        """
        low, high = SHARES
        share = low + (high - low) * torch.rand(len(small), generator=draw)
        made, last = [], self.schedule.num_train_timesteps
        bar = tqdm(
            total=len(small),
            desc="First stage, drawing again",
            unit=" images",
            disable=quiet or not self.accelerator.is_main_process,
            mininterval=0.5 if sys.stderr.isatty() else 30,
            leave=False,
        )
        with bar:
            for rows in torch.arange(len(small)).split(BATCH):
                x = self.model.space.to_data(small[rows.to(small.device)])
                eps = torch.randn(x.shape, generator=draw).to(x)
                grid = [(share[rows] * last * k / EULER).round() for k in range(EULER, 0, -1)]
                times = [t.long().clamp(1, last).to(x.device) for t in grid]
                denoiser = self._denoiser(rows)
                x = self.schedule.add_noise(x, eps, times[0])
                for t, s in pairwise([*times, torch.zeros_like(times[0])]):
                    with self.accelerator.autocast():
                        now = denoiser(x, t)
                    x = self.schedule.add_noise(now.x0.float(), now.eps.float(), s)
                images = self.model.space.to_images(x)
                made.append(((images + 1) * 127.5).round().to("cpu", torch.uint8))
                bar.update(len(rows))
        return torch.cat(made), share

    def _denoiser(self, rows: Tensor) -> NetworkDenoiser:
        text: dict[str, Tensor] = {}
        if self.table is not None:
            length = None if self.device.type == "cpu" else self.model.max_tokens
            read = self.table.batch(self.rows[rows], length)
            text = {"tokens": read.tokens, "mask": read.mask}
        kind, clip = self.model.prediction_type, self.model.space.data_range
        return NetworkDenoiser(self.network, self.schedule, kind, clip, **text)
