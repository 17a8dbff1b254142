"""The recipe of a training: every setting, with its range, as one frozen dataclass.

Those that ship are files in recipes/; a checkpoint carries its own.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from minidiff.denoisers import NetworkDenoiser
from minidiff.schedules import make_schedule
from minidiff.unet import UNetConfig

__all__ = ["TrainingConfig"]

RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class TrainingConfig:
    """A recipe. It travels inside every checkpoint.

    Attributes:
        unet: the network's shape.
        image_size: height and width of the pictures in pixels.
        schedule, prediction_type, zero_terminal_snr: what is learnt; see
            `minidiff.checkpoints.ModelConfig`.
        timestep_mean, timestep_std: t / T = sigmoid(mean + std · normal), spread evenly over each
            batch (logit-normal, Esser et al. 2024, section 3.1). Larger std: more of both ends.
        steps: updates in all.
        batch_size: pictures an update, over all processes together.
        time_limit: minutes of training after which it ends, if the steps have not; None: no limit.
        learning_rate: after `warmup` steps; it falls linearly to 0 over the last `decay` share of
            the steps, or of the time where that is nearer its end.
        weight_decay, beta2, clip: AdamW's, and the largest norm of a gradient.
        ema_decay: of the average of the weights, reached gradually: min(ema_decay, (1+n) / (10+n)).
        no_text: share of pictures trained without their text, which guidance needs.
        senses: share of prompts that are one random sense instead of the whole definition.
        hidden_tokens: share of a text's tokens that the network does not see, other ones every
            time: so it cannot learn a definition by heart by one of its words.
        text_encoder, max_tokens: see `minidiff.text.TextEncoder`; None trains without text.
        log_every, evaluate_every, sample_every, save_every: in steps.
        compile: use torch.compile (minutes to start; then faster, most of all on a GPU).
        seed: of everything random.

    Raises:
        ValueError: for a value that is out of range or does not fit the others, naming it.
    """

    unet: UNetConfig = field(default_factory=lambda: UNetConfig(stem=4, channels=(96, 96, 128)))
    image_size: int = 64
    schedule: str = "straight"
    zero_terminal_snr: bool = False
    prediction_type: str = "flow"
    timestep_mean: float = 0.0
    timestep_std: float = 1.0
    steps: int = 5000
    time_limit: float | None = None
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: int = 300
    decay: float = 0.3
    weight_decay: float = 0.01
    beta2: float = 0.99
    clip: float = 1.0
    ema_decay: float = 0.999
    no_text: float = 0.1
    senses: float = 0.5
    hidden_tokens: float = 0.0
    text_encoder: str | None = "minilm"
    max_tokens: int = 32
    log_every: int = 50
    evaluate_every: int = 500
    sample_every: int = 500
    save_every: int = 500
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for kind, name in ((f.type, f.name) for f in dataclasses.fields(self)):
            value = getattr(self, name)
            if kind == "int" and type(value) is not int:
                raise ValueError(f"{name} must be a whole number, got {value!r}")
            number = type(value) in (int, float) and math.isfinite(value)
            if kind == "float" and not number:
                raise ValueError(f"{name} must be a finite number, got {value!r}")
            if kind == "float | None" and value is not None and not (number and value > 0):
                raise ValueError(f"{name} must be a number above 0, got {value!r}")
        positive = ("steps", "batch_size", "learning_rate", "log_every", "evaluate_every")
        also = ("sample_every", "save_every", "clip", "timestep_std", "image_size")
        for name in (*positive, *also):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("warmup", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("decay", "ema_decay", "no_text", "senses", "hidden_tokens", "beta2"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.image_size % self.unet.multiple:
            raise ValueError(
                f"image_size must be a multiple of {self.unet.multiple} for this network "
                f"(stem {self.unet.stem}, {len(self.unet.channels)} levels), got {self.image_size}"
            )
        if (self.text_encoder is None) != (self.unet.text_dim is None):
            raise ValueError(
                f"text_encoder is {self.text_encoder!r} but unet.text_dim is {self.unet.text_dim}: "
                "give both, or neither for a network without text"
            )
        # These refuse what they do not know; better here than after the texts are encoded.
        schedule = make_schedule(self.schedule, zero_terminal_snr=self.zero_terminal_snr)
        NetworkDenoiser(torch.zeros_like, schedule, self.prediction_type)

    @classmethod
    def recipe(cls, name_or_path: str | Path, **overrides: Any) -> TrainingConfig:
        """A recipe that ships ("glyph64", "glyph64-gpu") or a .toml file, with other settings.

        In the file `text_encoder = false` means a network without text.

        Raises:
            ValueError: if there is no such recipe, or if it holds an unknown or impossible setting.
        """
        path = Path(name_or_path)
        if path.suffix != ".toml":
            path = RECIPES / f"{name_or_path}.toml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
            raise ValueError(
                f"no recipe {str(name_or_path)!r}: give one of {known}, or a .toml file"
            )
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a TOML file: {error}") from error
        if values.get("text_encoder") is False:  # TOML has no None
            values["text_encoder"] = None
            values["unet"] = {**values.get("unet", {}), "text_dim": None}
        return cls.from_dict({**values, **overrides})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingConfig:
        """From plain values (a TOML recipe, a checkpoint); a misspelt name is an error.

        What is not given, also of the network, is as in `TrainingConfig()`.
        """
        unet = values.get("unet", {})
        if not isinstance(unet, dict):
            raise ValueError(f"unet must be a table of settings, got {unet!r}")
        for kind, given in ((cls, values), (UNetConfig, unet)):
            known = [f.name for f in dataclasses.fields(kind)]
            unknown = [name for name in given if name not in known]
            if unknown:
                raise ValueError(f"unknown setting {unknown[0]!r}: known are {', '.join(known)}")
        return cls(**{**values, "unet": dataclasses.replace(cls().unet, **unet)})

    def learning_rate_at(self, step: int, seconds: float = 0.0) -> float:
        """Warm-up, a plateau, then straight down to 0 (Hägele et al. 2024).

        Args:
            step: updates made so far.
            seconds: of training so far; they only count where there is a time limit.
        """
        rise = min(1.0, (step + 1) / max(self.warmup, 1))
        fall = min(1.0, (self.steps - step) / max(self.decay * self.steps, 1))
        if self.time_limit is not None and self.decay > 0:
            left = max(0.0, 1 - seconds / (60 * self.time_limit))
            fall = min(fall, left / self.decay)
        return self.learning_rate * rise * fall
