"""Text to picture in one call::

    pipeline = minidiff.load()
    images = pipeline("gold", num_images_per_prompt=16, seed=0)   # (16, 1, 64, 64) in [-1, 1]

A `Pipeline` holds a trained network and what it needs around it: the text encoder (loaded with the
first prompt), the schedule, guidance and a sampler.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from minidiff import samplers, student
from minidiff.cascade import SecondStage, check_alone, stages
from minidiff.denoisers import Denoiser, Guided, NetworkDenoiser
from minidiff.frames import Frames
from minidiff.inputs import Size, as_device, sides, warn
from minidiff.model import ModelConfig, load_model, save_model
from minidiff.networks import describe
from minidiff.prompts import as_list, warned_without_effect, words_of_the_definitions
from minidiff.schedules import whole_number
from minidiff.shelf import DEFAULT_MODEL, find_model
from minidiff.storage import CheckpointError

if TYPE_CHECKING:
    from minidiff.text import TextEncoder

WITHOUT_TEXT = (
    'this model was trained without text: leave the prompt empty (""), and negative_prompt too'
)
BATCH = 64  # pictures the network sees at a time: more is no faster, and memory stays small


def default_device() -> torch.device:
    """The first of CUDA, Apple's MPS and the CPU that is here."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class Pipeline:
    """A trained model, ready to draw.

    Args:
        network: a trained network.
        config: what it was trained for.
        record: how it came about. Its "words", if it has them, need no notice in a prompt: the text
            encoder makes nothing of them, but the network was trained with them.
        device: where to run; `default_device()` if None.
        second: enlarges what the network draws, in a cascade.

    Raises:
        ValueError: for a device that is not here, the config of another network, or a second stage
            in the place of a model.
    """

    def __init__(
        self,
        network: nn.Module,
        config: ModelConfig,
        record: dict[str, Any] | None = None,
        device: torch.device | str | None = None,
        second: SecondStage | None = None,
    ) -> None:
        if not describe(config.network).denoises:
            raise ValueError(
                "this is an autoencoder, which draws nothing by itself: train a model in its "
                "latents (recipe latents128), or open it with minidiff.latents.open_autoencoder"
            )
        shape = getattr(network, "config", None)
        if type(shape) is type(config.network) and shape != config.network:
            raise ValueError(
                f"the network's shape is {shape}, but that of config.network {config.network}: "
                "give the config that it was trained with"
            )
        check_alone(config)
        self.device = default_device() if device is None else as_device(device)
        self.network = network.to(self.device).eval()
        self.config, self.space, self.record = config, config.space, record or {}
        self.schedule = config.make_schedule()
        self.second = None if second is None else second.to(self.device)

    @property
    def image_size(self) -> Size:
        """Height and width of the pictures in pixels; one number for a square."""
        return (self.second or self).config.image_size

    def __repr__(self) -> str:
        both = self.network, *([] if self.second is None else [self.second.network])
        parameters = sum(p.numel() for network in both for p in network.parameters())
        height, width = sides(self.image_size)
        return f"Pipeline({height} × {width}, {parameters / 1e6:.1f} M parameters, {self.device})"

    def save(self, folder: str | Path) -> None:
        """Write it into a folder that `load` opens: weights in half precision, config and record.

        Raises:
            FileExistsError: if the folder holds anything that was not saved here.
            OSError: where it cannot be written; what was there before is untouched then.
            TypeError: for a folder that is no path.
        """
        if self.second is not None:
            self.second.save(folder, self.network, self.config, self.record)
        else:
            save_model(folder, self.network, self.config, self.record)

    def to(self, device: torch.device | str) -> Pipeline:
        """Move it to another device, and return it.

        Raises:
            ValueError: for a device that is not here.
        """
        self.device = as_device(device)
        self.network.to(self.device)
        if self.second is not None:
            self.second.to(self.device)
        self.__dict__.pop("text_encoder", None)  # loaded there when it is needed again
        return self

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The encoder that the network was trained with; loading it takes about 3 s.

        Raises:
            ValueError: for a model without text.
            CheckpointError: if the encoder here is another one than the network was trained with.
        """
        from minidiff.text import TextEncoder

        if self.config.text_encoder is None:
            raise ValueError(WITHOUT_TEXT)
        encoder = TextEncoder(self.config.text_encoder, self.config.max_tokens, self.device)
        if encoder.fingerprint != self.config.text_fingerprint:
            raise CheckpointError(
                f"this model was trained with the text encoder {self.config.text_encoder!r} "
                f"({self.config.text_fingerprint}), but the one here is {encoder.fingerprint}: "
                "install the one it was trained with"
            )
        return encoder

    def steps(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str = "",
        num_images_per_prompt: int = 1,
        num_inference_steps: int | None = None,
        guidance_scale: float = 3.0,
        sampler: str | None = None,
        seed: int = 0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        timesteps: Sequence[int] | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Frames:
        """Draw pictures of one or several prompts, and see every step of the way.

        Args:
            prompt: a text or a list of texts; `""` asks for anything.
            negative_prompt: what to move away from, instead of from "no text".
            num_images_per_prompt: pictures of each prompt.
            num_inference_steps: steps of the sampler, 1 … T; None: 20, or of a student 4.
            guidance_scale: 1 = off; larger follows the text more closely, with less variety; 0 does
                not follow it at all.
            sampler: a name in `minidiff.samplers.SAMPLERS`; None: "dpmpp_2m_sde", or of a student
                "ddim", whose steps are its jumps.
            seed: picture i of every prompt starts from the noise of (seed, i), whatever the number
                of pictures: with the same seed only the words make the difference.
            generator: your own source of noise instead of `seed`, one or a list of one per picture.
                It moves on as it is used, so a second call draws other pictures.
            timesteps: a falling grid of your own, used instead of num_inference_steps. It may end
                above 0: then the pictures still hold noise.
            progress: show a bar with the time left.
            options: of the sampler, for instance eta of ddim; of a cascade also those that
                `SecondStage.settings` takes. Its frames are those of both stages.

        Returns:
            A `Frame` for every step, an iterator of known length. The last one's `images` are the
            result: (prompts × images, C, H, W) float32 on the CPU in [-1, 1], white = +1; the
            pictures of the first prompt come first.

        Raises:
            ValueError: for impossible values, naming them; also when the pictures would not fit
                into memory, and for a prompt to a model without text. All errors are raised by the
                call itself, before anything is drawn.
            TypeError: for a prompt that is no text, a generator that is none, or an option that the
                sampler does not have.

        Warns:
            UserWarning: when the text encoder can make nothing of a prompt, or does not read it to
                its end, or when a text has no effect; it is drawn all the same.
        """
        prompts = self._checked_prompts(prompt, negative_prompt)
        images = whole_number("num_images_per_prompt", num_images_per_prompt)
        if images < 1:
            raise ValueError(f"num_images_per_prompt must be at least 1, got {images}")
        steps, sampler = self.settled(num_inference_steps, sampler)
        seed, total = whole_number("seed", seed), len(prompts) * images
        self.check_memory(total)
        generators = samplers.checked_generators(generator, total)
        if generators is None:
            seeds = [(seed, i) for _ in prompts for i in range(images)]
            generators = [samplers.seeded_generator(*key) for key in seeds]
        enlarging = {} if self.second is None else self.second.settings(options)
        grid = self.timesteps(steps) if timesteps is None else timesteps
        # A list, because an iterator could be walked only once.
        several = isinstance(grid, Iterable) and getattr(grid, "ndim", 1) != 0
        options["timesteps"] = grid = list(grid) if several else grid
        # With no pictures to draw, the sampler and the guidance only check what they are asked for.
        if self.config.student is not None:
            self.config.student.check(steps, guidance_scale, sampler, negative_prompt, timesteps)
        nothing = self._guided({}, {}, guidance_scale, steps)
        empty = torch.empty(0, *self.config.shape)
        samplers.sample_steps(nothing, empty, sampler, steps, **options)

        if warned_without_effect(prompt, prompts, negative_prompt, guidance_scale):
            negative_prompt = ""
        self._notice([*prompts, negative_prompt])
        text, negative = self._encode(prompts), self._encode([negative_prompt])
        if not text and not negative:
            guidance_scale = 1.0  # nothing to follow: both passes would say the same
        x_T = samplers.standard_normal((total, *self.config.shape), generators, self.device)
        # A prompt repeated is encoded once; the batch picks its rows.
        rows = torch.arange(len(prompts), device=self.device).repeat_interleave(images)
        walks = []
        for start in range(0, total, BATCH):
            part = slice(start, start + BATCH)
            mine = generators if isinstance(generators, torch.Generator) else generators[part]
            without = _pick(negative, torch.zeros_like(rows[part]))
            denoiser = self._guided(_pick(text, rows[part]), without, guidance_scale, steps)
            walk = samplers.sample_steps(denoiser, x_T[part], sampler, steps, mine, **options)
            walks.append(walk)
        count = len(grid) - 1
        bar = tqdm(zip(*walks), "Drawing", count, False, unit=" steps", disable=not progress)
        frames = Frames(count, iter(bar), self.space)
        if self.second is None:
            return frames
        if generator is None:
            generators = [samplers.seeded_generator(s, "second stage", i) for s, i in seeds]
        return self.second.after(
            frames, self.space, generators, last=grid[-1], progress=progress, **enlarging
        )

    def __call__(self, prompt: str | Sequence[str], **settings: Any) -> Tensor:
        """The pictures at the end of `steps`, which takes the same arguments: (N, C, H, W)."""
        for frame in self.steps(prompt, **settings):
            last = frame
        return last.images

    __call__.__signature__ = inspect.signature(steps).replace(  # type: ignore[attr-defined]
        return_annotation="Tensor"
    )

    def denoiser(self, prompt: str | Sequence[str] = "") -> NetworkDenoiser:
        """The network told these texts, for samplers and steps of your own.

        Two of them make guidance::

            texts, nothing = pipeline.denoiser(["gold", "fish"]), pipeline.denoiser()
            Guided(texts, nothing, guidance_scale=3.0, clip=pipeline.space.data_range)

        Args:
            prompt: one text for each picture of the batches it will see; a single one fits every
                batch.

        Returns:
            A denoiser in the network's units, unclipped; `space.to_images` makes pictures of them.

        Raises:
            TypeError: for a prompt that is no text.

        Warns:
            UserWarning: when the text encoder can make nothing of a prompt, or does not read it to
                its end.
        """
        prompts = as_list(prompt)
        self._notice(prompts)
        told = {} if self.config.student is None else self.config.student.told()
        return self._denoiser(**told, **self._encode(prompts))

    def timesteps(self, num_inference_steps: int) -> list[int]:
        """The falling grid, T to 0, that a call takes: closer together where there is much noise.

        Raises:
            ValueError: unless num_inference_steps is from 1 to T.
        """
        return self.schedule.timesteps(num_inference_steps)

    def settled(self, num_inference_steps: int | None, sampler: str | None) -> tuple[int, str]:
        """Steps and sampler: what is asked for, else what suits the model.

        Raises:
            ValueError: for steps that are no whole number.
        """
        usual = (20, "dpmpp_2m_sde") if self.config.student is None else (student.STEPS, "ddim")
        steps = usual[0] if num_inference_steps is None else num_inference_steps
        return whole_number("num_inference_steps", steps), usual[1] if sampler is None else sampler

    # ------------------------------------------------------------------ how it is done

    def _checked_prompts(self, prompt: Any, negative_prompt: Any) -> list[str]:
        prompts = as_list(prompt)
        if not isinstance(negative_prompt, str):
            raise TypeError(f"negative_prompt must be one text, got {negative_prompt!r}")
        if self.config.text_encoder is None and "".join([*prompts, negative_prompt]).strip():
            raise ValueError(WITHOUT_TEXT)
        return prompts

    def _guided(
        self,
        condition: dict[str, Tensor],
        negative: dict[str, Tensor],
        guidance_scale: float,
        steps: int,
    ) -> Denoiser:
        if self.config.student is not None:  # unclipped: its lines may lead beyond
            return self._denoiser(**self.config.student.told(guidance_scale, steps), **condition)
        with_text, without = self._denoiser(**condition), self._denoiser(**negative)
        return Guided(with_text, without, guidance_scale, clip=self.space.data_range)

    def _denoiser(self, **condition: Any) -> NetworkDenoiser:
        return NetworkDenoiser(
            self.network, self.schedule, self.config.prediction_type, **condition
        )

    def _encode(self, prompts: list[str]) -> dict[str, Tensor]:
        """Keyword arguments of the network for these prompts; none for a model without text."""
        if not any(prompt.strip() for prompt in prompts):
            return {}  # only "no text": the encoder need not be loaded
        text = self.text_encoder.encode(prompts)
        return {"tokens": text.tokens, "mask": text.mask}

    def _notice(self, prompts: list[str]) -> None:
        """Say what the text encoder makes nothing of, and what it does not read."""
        for prompt in dict.fromkeys(p for p in prompts if p.strip()):
            if self.text_encoder.understands(prompt) is not None:
                known = words_of_the_definitions().union(self.record.get("words") or ())
                notice = self.text_encoder.understands(prompt, known)
                if notice:
                    warn(f"{notice} It is drawn all the same.")
            if notice := self.text_encoder.overlong(prompt):
                warn(notice)

    def check_memory(self, images: int) -> None:
        """Raise ValueError if so many pictures would not fit into memory at once."""
        import psutil

        text = self.config.max_tokens * (describe(self.config.network).text_dim or 0)
        # The state and two predictions for each, with and without guidance, and the text twice.
        each = 4 * (18 * math.prod((self.second or self).config.shape) + 2 * text)
        fit = int(psutil.virtual_memory().available * 0.8) // each
        if images > fit:
            raise ValueError(
                f"{images:,} pictures need about {max(1, images * each // 2**30):,} GiB of memory; "
                f"about {fit:,} fit: ask for fewer at a time"
            )


def _pick(condition: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: value[rows.to(value.device)] for name, value in condition.items()}


def load(
    name_or_path: str | Path = DEFAULT_MODEL, device: torch.device | str | None = None
) -> Pipeline:
    """Open a trained model.

    Args:
        name_or_path: a model that ships ("glyph64"), a folder written by `Pipeline.save`, a
            training run (its finished model, else its newest checkpoint), or a model of the
            Hugging Face Hub, "owner/model" or "owner/model@revision", fetched if it is not here.
        device: where to run; `default_device()` if None.

    Raises:
        FileNotFoundError: if there is no such model or folder, naming those that ship.
        CheckpointError: if it is damaged, altered or not ours.
        TypeError: for what is neither a name nor a path.
        ValueError: for a device that is not here.

    Warns:
        UserWarning: if a folder here has the name of a model that ships, which is taken.
    """
    folder = find_model(name_or_path)
    network, config, record, second = stages(*load_model(folder), folder)
    return Pipeline(network, config, record, device, second)
