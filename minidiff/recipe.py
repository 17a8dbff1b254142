"""The recipe of a training: every setting, with its range, as one frozen dataclass.

Those that ship are files in recipes/; a checkpoint carries its own.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minidiff.encoder_files import ENCODERS
from minidiff.inputs import Size, as_path, check_settings, is_file, sides, warn_of_namesake
from minidiff.model import ModelConfig, check_network
from minidiff.networks import NETWORKS, config_of, describe, registered
from minidiff.spaces import SPACES
from minidiff.stages import check_second
from minidiff.student import Student
from minidiff.unet import UNetConfig

RECIPES = Path(__file__).parent / "recipes"
MOVED = ("translate", "zoom", "flips")  # pictures that are, see `minidiff.augmentation`
# Settings that others do not have.
STUDENTS = ("teacher", "student_steps", "student_guidance", "student_matches")


@dataclass(frozen=True)
class TrainingConfig:
    """A recipe. It travels inside every checkpoint.

    Attributes:
        network: the network's config, of a class in `minidiff.networks.NETWORKS`. In a .toml file
            it is a table under the network's name: [unet].
        space: the name of the space, see `minidiff.spaces.SPACES`.
        autoencoder: for the space "latents": the folder of the run or model that makes them, as
            the recipe autoencoder128 trains one. The model keeps a copy.
        image_size: height and width of the pictures in pixels, [64, 96]; one number for a square.
        schedule, prediction_type, zero_terminal_snr: what is learnt; see
            `minidiff.model.ModelConfig`.
        shift: of the grid that samplers take, see `minidiff.schedules.Schedule.timesteps`; None:
            what suits the schedule and grey pictures of 64 × 64. It grows like the root of how many
            numbers x_0 has (Esser et al. 2024, section 5.3.2).
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
        name_radicals: whether part of the glyphs' prompts name the radical, "dread, heart radical";
            see `minidiff.captions`. It means nothing for other pictures.
        hidden_tokens: share of a text's tokens that the network does not see, other ones every
            time: so it cannot learn a definition by heart by one of its words.
        translate, zoom, flips: of pictures that are moved, enlarged or mirrored at random, see
            `minidiff.augmentation`: the largest shift, as a share of height and width; by how much
            larger (or, as often, smaller) at most, 0.1 is a tenth; whether half are mirrored left
            to right.
        text_encoder, max_tokens: see `minidiff.text.TextEncoder`; None trains without text.
        teacher: a model that ships, or its folder: then a student is trained that draws as it does
            in few evaluations, see `minidiff.distillation`; None trains on the pictures alone.
        student_steps: of the student's finest walk, a power of 2; it learns 1, 2, 4, … as well.
        student_guidance: the highest guidance scale that the student hears of, from 1 on.
        student_matches: whether a student that can jump already learns to draw what its teacher
            finds likely, see `minidiff.matching`; give one with `start`.
        log_every, evaluate_every, sample_every, save_every: in steps.
        bfloat16_on_cpu: compute in bfloat16 on a processor that has it (AVX-512 BF16), which takes
            two thirds of the time; on others as ever. A GPU's half precision needs no asking.
        first: of the second stage of a cascade: the model whose pictures it enlarges to twice their
            size, see `minidiff.second_stage`; a name that ships or a folder.
        variants: how often that draws every picture again before the training, 1 to 64.
        compile: use torch.compile (minutes to start; then faster, most of all on a GPU).
        seed: of everything random.

    Raises:
        ValueError: for a value of another type, out of range or that does not fit the others,
            naming it.
    """

    network: Any = field(default_factory=lambda: UNetConfig(stem=4, channels=(96, 96, 128)))
    space: str = "pixels"
    autoencoder: str | None = None
    image_size: Size = 64
    schedule: str = "straight"
    zero_terminal_snr: bool = False
    prediction_type: str = "flow"
    shift: float | None = None
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
    name_radicals: bool = False
    hidden_tokens: float = 0.0
    translate: float = 0.0
    zoom: float = 0.0
    flips: bool = False
    text_encoder: str | None = "minilm"
    max_tokens: int = 32
    teacher: str | None = None
    student_steps: int = 8
    student_guidance: float = 5.0
    student_matches: bool = False
    log_every: int = 50
    evaluate_every: int = 500
    sample_every: int = 500
    save_every: int = 500
    bfloat16_on_cpu: bool = False
    compile: bool = False
    seed: int = 0
    first: str | None = None
    variants: int = 1

    def __post_init__(self) -> None:
        check_settings(self)
        for name in ("time_limit", "shift"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name} must be a number above 0, got {value}")
        positive = ("steps", "batch_size", "learning_rate", "log_every", "evaluate_every")
        also = ("sample_every", "save_every", "clip", "timestep_std")
        for name in (*positive, *also):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if min(sides(self.image_size)) <= 0:
            raise ValueError(f"image_size must be above 0, got {self.image_size}")
        for name in ("warmup", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        shares = ("decay", "ema_decay", "no_text", "senses", "hidden_tokens", "translate", "zoom")
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.beta2 < 1:
            raise ValueError(f"beta2 must be from 0 to below 1, got {self.beta2}")
        if not -(2**63) <= self.seed < 2**64:
            raise ValueError(f"seed must be from -2**63 to 2**64 - 1, got {self.seed}")
        large = {name: getattr(self, name) for name in ("steps", "batch_size", "warmup")}
        for name, value in {**large, "image_size": max(sides(self.image_size))}.items():
            if value >= 2**31:
                raise ValueError(f"{name} must be below 2**31, got {value}")
        if self.text_encoder in ENCODERS and not 3 <= self.max_tokens <= 512:
            raise ValueError(
                f"max_tokens must be from 3 to 512 for the text encoder {self.text_encoder!r}, "
                f"got {self.max_tokens}"
            )
        if self.space not in SPACES:
            raise ValueError(f"unknown space {self.space!r}: known are {', '.join(SPACES)}")
        steps = self.student_steps
        if not 1 <= steps <= 1024 or steps & (steps - 1):
            raise ValueError(f"student_steps must be 1, 2, 4, 8, … up to 1024, got {steps}")
        if not 1 < self.student_guidance <= 100:
            raise ValueError(
                f"student_guidance must be above 1 and at most 100, got {self.student_guidance}"
            )
        if (self.space == "latents") != (self.autoencoder is not None):
            raise ValueError(
                f"space is {self.space!r} and autoencoder {self.autoencoder!r}: latents need the "
                "folder of an autoencoder (minidiff train --recipe autoencoder128 trains one), and "
                "other spaces have none"
            )
        # Better here than after the texts are encoded.
        network = check_network(self, SPACES[self.space])
        if network.numbers != (0 if self.teacher is None else 2):
            raise ValueError(
                f"teacher is {self.teacher!r} but {network.name}.numbers is {network.numbers}: a "
                "student is told 2 numbers, the guidance scale and the steps; others none"
            )
        if self.student_matches and self.teacher is None:
            raise ValueError("student_matches is True, but there is no teacher to match: name one")
        if self.first is not None:
            check_second(self, network, SPACES[self.space])
        elif network.condition_channels:
            raise ValueError(
                f"{network.name}.condition_channels is {network.condition_channels}, but a recipe "
                "without first knows of no picture to lay beside x_t: set it to 0, or first to the "
                "model whose pictures are to be enlarged"
            )
        if self.first is not None and self.teacher is not None:
            raise ValueError("first and teacher do not go together: a second stage has no student")
        moved = [name for name in MOVED if getattr(self, name)]
        if moved and (self.first is not None or self.autoencoder is not None):
            raise ValueError(
                f"{moved[0]} is {getattr(self, moved[0])}, but pictures are not moved where "
                "something else of them is made beforehand (first, autoencoder): set it to 0"
            )
        if not 1 <= self.variants <= 64:
            raise ValueError(f"variants must be from 1 to 64, got {self.variants}")

    @classmethod
    def recipe(cls, name_or_path: str | Path, **overrides: Any) -> TrainingConfig:
        """A recipe that ships ("glyph64", "glyph64-gpu") or a .toml file, with other settings.

        In the file `text_encoder = false` means a network without text. What is other than in the
        recipe may be given of the network, too: `unet={"stem": 2}`; or a whole one, `network=`.

        Raises:
            TypeError: for what is neither a name nor a path.
            ValueError: if there is no such recipe, or if it holds an unknown or impossible setting.

        Warns:
            UserWarning: if a file here has the name of a recipe that ships, which is taken.
        """
        values = recipe_values(name_or_path)
        if any(n in overrides and n not in values for n in ("network", *NETWORKS)):
            values = {n: v for n, v in values.items() if n not in NETWORKS}  # another network
        if values.get("text_encoder") is False:  # TOML has no None
            values["text_encoder"] = None
            name = next((n for n in NETWORKS if n in values), "unet")
            if "text_dim" in _settings(NETWORKS[name][1]):
                values[name] = {**values.get(name, {}), "text_dim": None}
        for name, table in values.items():
            if isinstance(table, dict) and isinstance(overrides.get(name), dict):
                overrides[name] = {**table, **overrides[name]}
        return cls.from_dict({**values, **overrides})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingConfig:
        """From plain values (a TOML recipe, a checkpoint); a misspelt name is an error.

        What is not given, also of the network, is as in `TrainingConfig()`.
        """
        if not isinstance(values, dict):
            raise ValueError(f"a recipe must be a table of settings, got {values!r}")
        tables = {n: v for n, v in values.items() if n in NETWORKS or isinstance(v, dict)}
        tables.pop("network", None)
        if len(tables) > 1 or (tables and "network" in values):
            names = " and ".join(map(repr, [*tables, *({"network"} & values.keys())]))
            raise ValueError(f"one network at a time: the recipe has {names}")
        plain = {n: v for n, v in values.items() if n not in tables}
        _check_names(plain, _settings(cls))
        if tables:
            name = registered(tables, NETWORKS, "network")
            plain["network"] = _network(name, tables[name])
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """The way back: plain values, the network under its name: {"unet": {…}, …}."""
        network = {describe(self.network).name: dataclasses.asdict(self.network)}
        rest = [name for name in _settings(type(self)) if name != "network"]
        of = {"first": ("first", "variants"), "teacher": STUDENTS}
        of |= {name: (name,) for name in ("autoencoder", "shift")}
        silent = {n for key, names in of.items() if getattr(self, key) is None for n in names}
        silent |= {n for n in MOVED if not getattr(self, n)}
        rest = [name for name in rest if name not in silent]  # they say nothing then
        return {**network, **{name: getattr(self, name) for name in rest}}

    def model_for(self, space: Any, student: Student | None = None) -> ModelConfig:
        """What a network of this recipe is, trained in a space of `minidiff.spaces`."""
        return ModelConfig(
            network=self.network,
            image_size=self.image_size,
            space=space,
            shift=self.shift,
            schedule=self.schedule,
            zero_terminal_snr=self.zero_terminal_snr,
            prediction_type=self.prediction_type,
            text_encoder=self.text_encoder,
            max_tokens=self.max_tokens,
            student=student,
        )

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


def recipe_values(name_or_path: str | Path) -> dict[str, Any]:
    """What a recipe says itself, without defaults; see `TrainingConfig.recipe`.

    Raises:
        TypeError: for what is neither a name nor a path.
        ValueError: if there is no such recipe, or for a file that is not TOML.
    """
    path = _locate(as_path("name_or_path", name_or_path), os.fspath(name_or_path))
    try:  # Windows' editors may put a mark at the beginning
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a TOML file in UTF-8: {error}") from error


def _network(name: str, table: Any) -> Any:
    """The config of a network from a table of what is other than usual."""
    kind = NETWORKS[name][1]
    if isinstance(table, kind):
        return table
    if not isinstance(table, dict):
        raise ValueError(f"{name} must be a table of settings, got {table!r}")
    _check_names(table, _settings(kind))
    usual = TrainingConfig().network
    if type(usual) is kind:
        return dataclasses.replace(usual, **table)
    return config_of(name, table)


def _settings(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _check_names(given: dict[str, Any], known: list[str]) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"unknown setting {name!r}: known are {', '.join(known)}")


def _locate(path: Path, name: str) -> Path:
    """The file of a recipe; names come before files."""
    shipped = {p.stem: p for p in RECIPES.glob("*.toml")}
    if name in shipped:
        warn_of_namesake(name, Path(f"{name}.toml"), "recipe")
        return shipped[name]
    if path.suffix.lower() != ".toml" or not is_file(path):
        raise ValueError(
            f"no recipe {name!r}: give one of {', '.join(sorted(shipped))}, or a .toml file"
        )
    return path
