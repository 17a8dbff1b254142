"""Recipes: every setting is held to its type and range when it is given, by its name."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minidiff.networks import build
from minidiff.recipe import RECIPES, TrainingConfig
from minidiff.unet import UNetConfig

FIELDS = {f.name: str(f.type) for f in dataclasses.fields(TrainingConfig)}
# For every type values that are not of it, and how the message goes on.
WRONG: dict[str, tuple[list[Any], str]] = {
    "int": ([None, True, 1.0, "1", [1], {}, np.float64(1), b"1"], "must be a whole number"),
    "float": (
        [None, True, "1", [0.5], float("nan"), float("-inf"), 10**400, 1j, torch.ones(2)],
        "must be a finite number",
    ),
    "Size": (
        [None, True, 1.0, "1", [1], [8, 8, 8], [8, 8.0], [True, 8], {}, np.float64(1)],
        "must be a whole number, or two of them: .height, width.",
    ),
    "float | None": ([False, "1", [5], float("inf"), 0, -1.5], "must be a number above 0"),
    "bool": ([None, 0, 1, "false", "true", [True], 1.0], "must be true or false"),
    "str": ([None, 1, True, ["straight"], b"straight", Path("straight")], "must be a text"),
    "str | None": ([1, False, True, ["minilm"], b"minilm"], "must be a text or None"),
    "Any": ([None, 3, "small", {"stem": 4}], "must be the config of a known one"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_value_of_another_type_is_named(name: str) -> None:
    values, message = WRONG[FIELDS[name]]
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} {message}.*, got ") as error:
            TrainingConfig(**{name: value})
        assert repr(value) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta2": 1.0}, "beta2 must be from 0 to below 1, got 1.0"),
        ({"beta2": -0.1}, "beta2 must be from 0 to below 1"),
        ({"seed": 2**70}, r"seed must be from -2\*\*63 to 2\*\*64 - 1, got 1180591620717411303424"),
        ({"seed": -(2**63) - 1}, r"seed must be from -2\*\*63 to 2\*\*64 - 1"),
        ({"steps": 10**400}, r"steps must be below 2\*\*31"),
        ({"batch_size": 2**31}, r"batch_size must be below 2\*\*31, got 2147483648"),
        ({"image_size": 2**62}, r"image_size must be below 2\*\*31"),
        ({"image_size": 65}, "image_size must be a multiple of 16"),
        (
            {"max_tokens": 2},
            "max_tokens must be from 3 to 512 for the text encoder 'minilm', got 2",
        ),
        ({"max_tokens": 513}, "max_tokens must be from 3 to 512 for the text encoder 'minilm'"),
        ({"max_tokens": 0, "text_encoder": "./own"}, "max_tokens must be from 1 to 65,536, got 0"),
        ({"max_tokens": 10**9, "text_encoder": "./own"}, "max_tokens must be from 1 to 65,536"),
        ({"text_encoder": ""}, "text_encoder is '': give a name such as 'minilm'"),
        ({"text_encoder": " \n"}, r"text_encoder is ' \\n': give a name"),
        ({"schedule": "Linear"}, "unknown schedule 'Linear'"),
        (
            {"schedule": "linear", "zero_terminal_snr": True, "prediction_type": "eps"},
            "prediction_type 'eps' cannot be used",
        ),
    ],
)
def test_a_value_out_of_range_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**changes)


def test_the_ends_of_the_ranges_hold() -> None:
    for seed in (-(2**63), 2**64 - 1):
        torch.manual_seed(TrainingConfig(seed=seed).seed)
    weights = [torch.zeros(1, requires_grad=True)]
    torch.optim.AdamW(weights, betas=(0.9, TrainingConfig(beta2=0.0).beta2))
    torch.optim.AdamW(weights, betas=(0.9, TrainingConfig(beta2=1 - 1e-9).beta2))
    assert TrainingConfig(time_limit=1, decay=0, no_text=1, hidden_tokens=1, ema_decay=1)


def test_numbers_of_numpy_and_torch_become_python_s() -> None:
    config = TrainingConfig(
        steps=np.int64(7),  # type: ignore[arg-type]
        batch_size=torch.tensor(4),  # type: ignore[arg-type]
        learning_rate=np.float32(0.5),  # type: ignore[arg-type]
        compile=np.True_,  # type: ignore[arg-type]
        schedule=np.str_("cosine"),
    )
    plain = {"steps": 7, "batch_size": 4, "learning_rate": 0.5, "compile": True}
    assert config == TrainingConfig(**plain, schedule="cosine")  # type: ignore[arg-type]
    values = json.loads(json.dumps(config.to_dict()))
    assert TrainingConfig.from_dict(values) == config


# ---------------------------------------------------------------------------------- files


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_every_recipe_that_ships_can_be_read_and_fits_its_size(name: str) -> None:
    config = TrainingConfig.recipe(name)
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert name == "small" or f"{config.image_size}" in name
    if name.endswith("-gpu"):  # the same network, for more pictures at a time
        small = TrainingConfig.recipe(name.removesuffix("-gpu"))
        assert (small.network, small.space, small.shift) == (
            config.network, config.space, config.shift,
        )  # fmt: skip
        assert config.batch_size > small.batch_size


def test_the_article_s_recipe_sees_a_hundred_times_all_glyphs_and_has_its_schedule() -> None:
    config = TrainingConfig.recipe("article128")
    assert abs(config.steps * config.batch_size / 100 - 20_509) < 1
    assert (config.schedule, config.prediction_type, config.no_text) == ("linear", "eps", 0)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build(config.network).parameters())
    assert parameters == 109_244_673


def test_a_recipe_of_another_editor(tmp_path: Path) -> None:
    """Windows' editors mark UTF-8 at the beginning and end lines in two characters."""
    path = tmp_path / "字.TOML"
    path.write_bytes(b"\xef\xbb\xbfsteps = 7\r\n[unet]\r\nstem = 8\r\n")
    config = TrainingConfig.recipe(path, seed=3)
    assert (config.steps, config.network.stem, config.seed) == (7, 8, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"steps = = 1", "is not a TOML file in UTF-8"),
        ("steps = 1".encode("utf-16"), "is not a TOML file in UTF-8"),
        (b"x = " + b"[" * 20_000, "is not a TOML file in UTF-8"),
        (b"seed = " + b"9" * 5000, "is not a TOML file in UTF-8"),
        (b"zero_terminal_snr = 'false'", "zero_terminal_snr must be true or false, got 'false'"),
        (b"steps = 2026-01-01", "steps must be a whole number, got datetime.date"),
        (b"text_encoder = true", "text_encoder must be a text or None, got True"),
        (b"[unet]\nchannels = 64", "channels must be a list with one entry a level, got 64"),
        (b"[[unet]]\nstem = 4", r"unet must be a table of settings, got \[\{"),
        (b"colour = 1", "unknown setting 'colour'"),
    ],
)
def test_a_file_that_is_no_recipe(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        TrainingConfig.recipe(path)


@pytest.mark.parametrize("value", [None, 5, True, b"glyph64", ["glyph64"], {}])
def test_what_is_no_name_is_named(value: Any) -> None:
    with pytest.raises(TypeError, match="name_or_path must be a text or a pathlib") as error:
        TrainingConfig.recipe(value)
    assert repr(value) in str(error.value)
    with pytest.raises(ValueError, match=r"a recipe must be a table|unknown setting"):
        TrainingConfig.from_dict(value if value != {} else {"": 1})


@pytest.mark.parametrize("name", ["glpyh64", "", "./glyph64", "no.toml", "../recipes/glyph64"])
def test_an_unknown_recipe_lists_those_that_ship(name: str) -> None:
    with pytest.raises(ValueError, match=r"no recipe '.*give one of .*, glyph64, glyph64-fast, "):
        TrainingConfig.recipe(name)


def test_a_file_with_the_name_of_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shipped = TrainingConfig.recipe("glyph64")
    Path("glyph64.toml").write_text("steps = 3", encoding="utf-8")
    with pytest.warns(
        UserWarning, match=r"'glyph64' is taken for the recipe.*file.*'./glyph64.toml'"
    ):
        assert TrainingConfig.recipe("glyph64") == shipped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in ("glyph64.toml", "./glyph64.toml", Path("glyph64.toml")):
            assert TrainingConfig.recipe(path).steps == 3


def test_a_network_given_as_it_is() -> None:
    unet = UNetConfig(channels=(32,), attention=(False,), text_dim=None)
    assert TrainingConfig(network=unet, text_encoder=None).network is unet


def test_a_network_given_in_part_is_otherwise_that_of_the_recipe() -> None:
    shipped = TrainingConfig.recipe("glyph64-gpu")
    expected = dataclasses.replace(shipped.network, blocks=2)
    for unet in ({"blocks": 2}, expected):
        assert TrainingConfig.recipe("glyph64-gpu", unet=unet).network == expected
    assert expected.stem == 4
    plain = TrainingConfig.recipe("glyph64-gpu", text_encoder=None, unet={"text_dim": None})
    assert plain.network == dataclasses.replace(shipped.network, text_dim=None)
    assert TrainingConfig.from_dict({"unet": expected}).network == expected
