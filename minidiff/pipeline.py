"""Text to picture in one call::

    pipeline = minidiff.load()
    images = pipeline("gold", num_images_per_prompt=16, seed=0)   # (16, 1, 64, 64) in [-1, 1]

A `Pipeline` holds a trained network and what it needs around it: the text encoder (loaded with the
first prompt), the schedule, guidance and a sampler.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minidiff import samplers
from minidiff.checkpoints import CheckpointError, ModelConfig, load_model, read_info
from minidiff.denoisers import Guided, NetworkDenoiser
from minidiff.inputs import as_device, as_path, is_folder, warn_of_namesake
from minidiff.schedules import whole_number
from minidiff.unet import UNet, UNetConfig

if TYPE_CHECKING:
    from minidiff.text import TextEncoder

__all__ = ["Frame", "ModelCard", "Pipeline", "default_device", "find_model", "load", "pretrained"]

MODELS = Path(__file__).parent / "models"
DEFAULT_MODEL = "glyph64"
# Where a text is followed is decided while there is much noise, so the steps lie closer together
# there; how much better the pictures are is in benchmarks/results/quality_samplers.json.
SHIFT = {"straight": 3.0}
WITHOUT_TEXT = (
    'this model was trained without text: leave the prompt empty (""), and negative_prompt too'
)
BATCH = 64  # pictures the network sees at a time: more is no faster, and memory stays small


def default_device() -> torch.device:
    """The first of CUDA, Apple's MPS and the CPU that is here."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@dataclass(frozen=True)
class Frame:
    """One moment of the way from noise to picture. Tensors are (B, C, H, W) on the CPU."""

    index: int  #: 0 … N − 1 of the N steps
    t: int  #: timestep reached; 0 in the last frame
    images: Tensor  #: x_t in the units of a picture, still noisy, held within [-1, 1]
    predicted: Tensor  #: what the network took for the finished picture


class Pipeline:
    """A trained model, ready to draw.

    Args:
        network: a trained U-Net.
        config: what it was trained for.
        record: how it came about. Its "words", if it has them, need no notice in a prompt: the text
            encoder makes nothing of them, but the network was trained with them.
        device: where to run; `default_device()` if None.

    Raises:
        ValueError: for a device that is not here, or the config of another network.
    """

    def __init__(
        self,
        network: UNet,
        config: ModelConfig,
        record: dict[str, Any] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        shape = getattr(network, "config", None)
        if isinstance(shape, UNetConfig) and shape != config.unet:
            raise ValueError(
                f"the network's shape is {shape}, but that of config.unet {config.unet}: give the "
                "config that it was trained with"
            )
        self.device = default_device() if device is None else as_device(device)
        self.network = network.to(self.device).eval()
        self.config, self.record = config, record or {}
        self.schedule = config.make_schedule()

    def __repr__(self) -> str:
        parameters = sum(p.numel() for p in self.network.parameters())
        size = self.config.image_size
        return f"Pipeline({size} × {size}, {parameters / 1e6:.1f} M parameters, {self.device})"

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

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str = "",
        num_images_per_prompt: int = 1,
        num_inference_steps: int = 20,
        guidance_scale: float = 3.0,
        sampler: str = "dpmpp_2m_sde",
        seed: int = 0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        timesteps: Sequence[int] | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Tensor:
        """Draw pictures of one or several prompts.

        Args:
            prompt: a text or a list of texts; `""` asks for anything.
            negative_prompt: what to move away from, instead of from "no text".
            num_images_per_prompt: pictures of each prompt.
            num_inference_steps: steps of the sampler, 1 … T.
            guidance_scale: 1 = off; larger follows the text more closely, with less variety; 0 does
                not follow it at all.
            sampler: a name in `minidiff.samplers.SAMPLERS`.
            seed: picture i of every prompt starts from the noise of (seed, i), whatever the number
                of pictures: with the same seed only the words make the difference.
            generator: your own source of noise instead of `seed`, one or a list of one per picture.
                It moves on as it is used, so a second call draws other pictures.
            timesteps: a falling grid of your own, used instead of num_inference_steps. It may end
                above 0: then the pictures still hold noise.
            progress: show a bar with the time left.
            options: of the sampler, for instance eta of ddim.

        Returns:
            (prompts × images, C, H, W) float32 on the CPU in [-1, 1], white = +1; the pictures of
            the first prompt come first.

        Raises:
            ValueError: for impossible values, naming them; also when the pictures would not fit
                into memory, and for a prompt to a model without text.
            TypeError: for a prompt that is no text, a generator that is none, or an option that the
                sampler does not have.

        Warns:
            UserWarning: when the text encoder can make nothing of a prompt, or does not read it to
                its end, or when a prompt or negative prompt has no effect; it is drawn all the
                same.
        """
        steps, walk = self._walk(
            prompt, negative_prompt, num_images_per_prompt, num_inference_steps, guidance_scale,
            sampler, seed, generator, timesteps, options,
        )  # fmt: skip
        with _bar(progress, steps) as bar:
            for batches in walk:
                bar.update()
                states = [step.x for step in batches]
        return self._pictures(states)

    def steps(
        self,
        prompt: str | Sequence[str],
        *,
        negative_prompt: str = "",
        num_images_per_prompt: int = 1,
        num_inference_steps: int = 20,
        guidance_scale: float = 3.0,
        sampler: str = "dpmpp_2m_sde",
        seed: int = 0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        timesteps: Sequence[int] | None = None,
        **options: Any,
    ) -> Iterator[Frame]:
        """The same as calling the pipeline, but yields a `Frame` after every step.

        Errors are raised by the call itself, before the first step. The last frame's `images` are
        the result.
        """
        _, walk = self._walk(
            prompt, negative_prompt, num_images_per_prompt, num_inference_steps, guidance_scale,
            sampler, seed, generator, timesteps, options,
        )  # fmt: skip
        return (
            Frame(
                steps[0].index,
                steps[0].t,
                self._pictures(step.x for step in steps),
                self._pictures(step.prediction.x0 for step in steps),
            )
            for steps in walk
        )

    def denoiser(self, prompt: str | Sequence[str] = "") -> NetworkDenoiser:
        """The network told these texts, for samplers and steps of your own.

        Two of them make guidance::

            texts, nothing = pipeline.denoiser(["gold", "fish"]), pipeline.denoiser()
            Guided(texts, nothing, guidance_scale=3.0, clip=pipeline.config.data_range)

        Args:
            prompt: one text for each picture of the batches it will see; a single one fits every
                batch.

        Returns:
            A denoiser in the network's units, unclipped; `config.to_images` makes pictures of them.

        Raises:
            TypeError: for a prompt that is no text.

        Warns:
            UserWarning: when the text encoder can make nothing of a prompt, or does not read it to
                its end.
        """
        prompts = _checked_prompts(prompt)
        self._notice(prompts, stacklevel=3)
        return self._denoiser(**self._encode(prompts))

    def timesteps(self, num_inference_steps: int) -> list[int]:
        """The falling grid, T to 0, that a call takes: closer together where there is much noise.

        Raises:
            ValueError: unless num_inference_steps is from 1 to T.
        """
        return self.schedule.timesteps(num_inference_steps, SHIFT.get(self.schedule.name, 1.0))

    # ------------------------------------------------------------------ how it is done

    def _walk(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str,
        images: int,
        steps: int,
        guidance_scale: float,
        sampler: str,
        seed: int,
        generator: torch.Generator | Sequence[torch.Generator] | None,
        timesteps: Sequence[int] | None,
        options: dict[str, Any],
    ) -> tuple[int, Iterator[tuple[samplers.Step, ...]]]:
        """How many steps, and all batches of pictures, walking in step: one `Step` of each a time.

        What can be wrong is found here, before the text encoder is loaded and anything is drawn.
        """
        prompts = _checked_prompts(prompt)
        if not isinstance(negative_prompt, str):
            raise TypeError(f"negative_prompt must be one text, got {negative_prompt!r}")
        if self.config.text_encoder is None and "".join([*prompts, negative_prompt]).strip():
            raise ValueError(WITHOUT_TEXT)
        images = whole_number("num_images_per_prompt", images)
        if images < 1:
            raise ValueError(f"num_images_per_prompt must be at least 1, got {images}")
        steps = whole_number("num_inference_steps", steps)
        seed, total = whole_number("seed", seed), len(prompts) * images
        self._check_memory(total)
        generators = samplers.checked_generators(generator, total)
        if generators is None:
            seeds = [(seed, i) for _ in prompts for i in range(images)]
            generators = [samplers.seeded_generator(*key) for key in seeds]
        grid = self.timesteps(steps) if timesteps is None else timesteps
        # A list, because an iterator could be walked only once.
        several = isinstance(grid, Iterable) and getattr(grid, "ndim", 1) != 0
        options["timesteps"] = grid = list(grid) if several else grid
        # With no pictures to draw, the sampler and the guidance only check what they are asked for.
        nothing = self._guided({}, {}, guidance_scale)
        samplers.sample_steps(nothing, torch.empty(0, *self._shape), sampler, steps, **options)

        if guidance_scale == 1 and negative_prompt.strip():
            warnings.warn(
                f"negative_prompt {negative_prompt!r} has no effect, because guidance is off "
                "(guidance_scale 1): give a scale such as 3",
                stacklevel=3,
            )
            negative_prompt = ""
        if guidance_scale == 0 and "".join(prompts).strip():
            warnings.warn(
                f"prompt {prompt!r} has no effect, because guidance_scale is 0: give 1 to turn "
                "guidance off, or a scale such as 3",
                stacklevel=3,
            )
        self._notice([*prompts, negative_prompt])
        text, negative = self._encode(prompts), self._encode([negative_prompt])
        if not text and not negative:
            guidance_scale = 1.0  # nothing to follow: both passes would say the same
        x_T = samplers.standard_normal((total, *self._shape), generators, self.device)
        # A prompt repeated is encoded once; the batch picks its rows.
        rows = torch.arange(len(prompts), device=self.device).repeat_interleave(images)
        walks = []
        for start in range(0, total, BATCH):
            part = slice(start, start + BATCH)
            mine = generators if isinstance(generators, torch.Generator) else generators[part]
            without = _pick(negative, torch.zeros_like(rows[part]))
            denoiser = self._guided(_pick(text, rows[part]), without, guidance_scale)
            walk = samplers.sample_steps(denoiser, x_T[part], sampler, steps, mine, **options)
            walks.append(walk)
        return len(grid) - 1, zip(*walks)

    def _guided(
        self, condition: dict[str, Tensor], negative: dict[str, Tensor], guidance_scale: float
    ) -> Guided:
        with_text, without = self._denoiser(**condition), self._denoiser(**negative)
        return Guided(with_text, without, guidance_scale, clip=self.config.data_range)

    def _pictures(self, batches: Iterable[Tensor]) -> Tensor:
        """Batches in the network's units as one tensor of pictures on the CPU."""
        return torch.cat([self.config.to_images(x).float().cpu() for x in batches])

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

    def _notice(self, prompts: list[str], stacklevel: int = 4) -> None:
        """Say what the text encoder makes nothing of, and what it does not read."""
        for prompt in dict.fromkeys(p for p in prompts if p.strip()):
            if self.text_encoder.understands(prompt) is not None:
                known = _words_of_the_definitions().union(self.record.get("words") or ())
                notice = self.text_encoder.understands(prompt, known)
                if notice:
                    warnings.warn(f"{notice} It is drawn all the same.", stacklevel=stacklevel)
            if notice := self.text_encoder.overlong(prompt):
                warnings.warn(notice, stacklevel=stacklevel)

    @property
    def _shape(self) -> tuple[int, int, int]:
        size = self.config.image_size
        return self.config.unet.in_channels, size, size

    def _check_memory(self, images: int) -> None:
        import psutil

        text = self.config.max_tokens * (self.config.unet.text_dim or 0)
        # The state and two predictions for each, with and without guidance, and the text twice.
        each = 4 * (12 * math.prod(self._shape) + 2 * text)
        fit = int(psutil.virtual_memory().available * 0.8) // each
        if images > fit:
            raise ValueError(
                f"{images:,} pictures need about {max(1, images * each // 2**30):,} GiB of memory; "
                f"about {fit:,} fit: ask for fewer at a time"
            )


def _checked_prompts(prompt: Any) -> list[str]:
    # Of what has no order or several dimensions, iteration gives something else than the texts.
    no_list = (
        isinstance(prompt, str | bytes | bytearray | Mapping | Set)
        or getattr(prompt, "ndim", 1) != 1
    )
    prompts = [prompt] if no_list or not isinstance(prompt, Iterable) else list(prompt)
    if not prompts:
        raise ValueError('there is no prompt: give a text such as "gold" ("" for anything)')
    for text in prompts:
        if not isinstance(text, str):
            raise TypeError(f'a prompt must be a text such as "gold", or a list, got {text!r}')
    return prompts


def _pick(condition: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: value[rows.to(value.device)] for name, value in condition.items()}


def _bar(show: bool, total: int) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, desc="Drawing", unit=" steps", disable=not show, leave=False)


@cache
def _words_of_the_definitions() -> set[str]:
    from minidiff.glyphs import load_glyphs

    return {w for g in load_glyphs() for w in re.findall(r"\w+", g.definition.lower())}


# ---------------------------------------------------------------------- what can be loaded


@dataclass(frozen=True)
class ModelCard:
    """A model that ships with the package."""

    name: str
    image_size: int
    parameters: int
    megabytes: float
    quality: dict[str, Any]  #: measured figures, see the record in its config.json

    def __str__(self) -> str:
        figures = ", ".join(f"{key} {value}" for key, value in self.quality.items())
        size = f"{self.image_size} × {self.image_size}"
        return (
            f"{self.name}: {size}, {self.parameters / 1e6:.2f} M parameters, "
            f"{self.megabytes:.1f} MB; {figures or 'not measured yet'}"
        )


def pretrained() -> list[ModelCard]:
    """The models that ship with the package, with size, parameters and measured quality."""
    cards = []
    for folder in _shipped().values():
        info = read_info(folder)
        weights = folder / "model.safetensors"
        record = info.get("record", {})
        cards.append(
            ModelCard(
                folder.name,
                info["model"]["image_size"],
                _count_parameters(weights),
                weights.stat().st_size / 1e6,
                record.get("quality", {}),
            )
        )
    return cards


def _count_parameters(path: Path) -> int:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def _shipped() -> dict[str, Path]:
    return {path.parent.name: path.parent for path in sorted(MODELS.glob("*/config.json"))}


def load(
    name_or_path: str | Path = DEFAULT_MODEL, device: torch.device | str | None = None
) -> Pipeline:
    """Open a trained model.

    Args:
        name_or_path: a model that ships ("glyph64"), a folder written by
            `minidiff.checkpoints.save_model`, or a training run: of that the finished model is
            taken, else its newest checkpoint.
        device: where to run; `default_device()` if None.

    Raises:
        FileNotFoundError: if there is no such model or folder, naming those that ship.
        CheckpointError: if it is damaged, altered or not ours.
        TypeError: for what is neither a name nor a path.
        ValueError: for a device that is not here.

    Warns:
        UserWarning: if a folder here has the name of a model that ships, which is taken.
    """
    return Pipeline(*load_model(find_model(name_or_path)), device=device)


def find_model(name_or_path: str | Path) -> Path:
    """The folder that `load` reads for this name or path.

    A text that is the name of a model that ships means that one, a `pathlib.Path` the folder.

    Raises:
        FileNotFoundError: if there is none, naming the models that ship.
        TypeError: for what is neither a name nor a path.
    """
    folder, name = as_path("name_or_path", name_or_path), os.fspath(name_or_path)
    shipped = _shipped()
    if name in shipped and (isinstance(name_or_path, str) or not is_folder(folder)):
        warn_of_namesake(name, folder, "model")
        return shipped[name]
    if not name or not is_folder(folder):
        raise FileNotFoundError(
            f"no model {name!r}: give one that ships ({', '.join(shipped)}) or the "
            "folder of a checkpoint or training run"
        )
    for place in (folder, folder / "model"):
        if (place / "config.json").is_file():
            return place
    from minidiff.run_folder import latest_checkpoint

    newest = latest_checkpoint(folder)
    if newest is None and any((folder / name).exists() for name in ("log.jsonl", ".lock")):
        raise FileNotFoundError(
            f"the run in {folder} has saved nothing yet: wait for its first checkpoint, or give "
            "another model"
        )
    return newest or folder
