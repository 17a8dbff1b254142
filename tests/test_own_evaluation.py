"""`minidiff evaluate` for one's own pictures: what it says where the answer is known.

The pictures come from stand-ins for a model: one that copies, one that draws new pictures from the
same source, one that draws mush, one that heeds its text.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from faults.calls import command_line
from minidiff import held_out as held_out_module
from minidiff import own_evaluation
from minidiff.batches import data_of
from minidiff.datasets import ImageFolder
from minidiff.glyphs import to_float
from minidiff.likeness import Eye, glance
from minidiff.model import ModelConfig
from minidiff.originals import is_own, originals
from minidiff.own_evaluation import HELD, LEARNT, WITHOUT, Form, evaluate, losses
from minidiff.pipeline import Pipeline
from minidiff.report import of_own
from minidiff.spaces import Pixels
from minidiff.splitting import split
from minidiff.unet import UNet, UNetConfig

FORM = Form(8, 64)
COLOURS = {"red": (220, 30, 30), "green": (30, 140, 60), "blue": (40, 60, 220)}


def icons(count: int, seed: int = 0, size: tuple[int, int] = (32, 32), channels: int = 3) -> Any:
    """White pages with a coloured block and grey bars; the text says where and which colour."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    images, prompts = torch.full((count, channels, *size), 255, dtype=torch.uint8), []
    for image in images:
        row, column, kind, one, two, down, right, dark = torch.rand(8, generator=generator).tolist()
        name = list(COLOURS)[int(kind * 3)]
        top, left = int(row * (height - 12)), int(column * (width - 12))
        colour = torch.tensor(COLOURS[name][:channels], dtype=torch.uint8)
        block = image[:, top : top + 5 + int(one * 7), left : left + 5 + int(two * 7)]
        block.copy_(colour[:, None, None].expand_as(block))
        image[:, int(down * (height - 3)) :][:, :2, int(right * width / 2) :] = int(150 * dark)
        side = "left" if column < 0.5 else "right"
        prompts.append((f"{name} block on the {side}",))
    return SimpleNamespace(images=images, prompts=prompts)


class Stand(Pipeline):
    """In a model's place: `draw` answers the prompts; the loss is that of a random network."""

    def __init__(
        self,
        draw: Callable[[list[str]], Tensor],
        size: Any = 32,
        channels: int = 3,
        text: bool = False,
        record: dict[str, Any] | None = None,
    ) -> None:
        torch.manual_seed(0)
        unet = UNetConfig(
            in_channels=channels, stem=4, channels=(32,), attention=(False,), text_dim=None
        )
        super().__init__(UNet(unet), ModelConfig(unet, size, space=Pixels(0.8, 0.5)), record, "cpu")
        self.draw = draw
        if text:
            known = dataclasses.replace(unet, text_dim=384)
            self.config = dataclasses.replace(self.config, network=known, text_encoder="minilm")

    def __call__(self, prompt: str | Sequence[str], **_: Any) -> Tensor:
        return self.draw(list(prompt))


@pytest.fixture(autouse=True)
def no_losses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few, and none where the network would have to read text."""
    for module in (own_evaluation, held_out_module):
        monkeypatch.setattr(module, "HELD_OUT", 24)
    if "losses" not in request.node.name:
        row = {"62": 0.5, "mean": 0.5}
        monkeypatch.setattr(own_evaluation, "losses", lambda *_: {"training": row})


def in_turn(images: Tensor) -> Callable[[list[str]], Tensor]:
    """Draws these pictures, one after another."""
    place = iter(range(10**6))
    return lambda prompts: torch.stack([images[next(place) % len(images)] for _ in prompts])


def copied(draw: Tensor, train: Any, held_out: Any = None, **record: Any) -> dict[str, Any]:
    stand = Stand(in_turn(draw), record={"recipe": record} if record else None)
    result, _ = evaluate(stand, train, held_out, FORM)
    return result["copying"]["rows"][WITHOUT]


def noisy(images: Tensor, seed: int = 0) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (to_float(images) + 0.06 * noise).clamp(-1, 1)


TRAIN = icons(300)


# ------------------------------------------------------------------------------------- copying


@pytest.mark.parametrize("held_out", [None, icons(100, seed=1)])
def test_copies_are_found_and_new_pictures_are_none(held_out: Any) -> None:
    copies = copied(noisy(TRAIN.images), TRAIN, held_out)
    assert copies["interval"][0] > 0.9 and copies["nearer"] > 0.95
    new = copied(noisy(icons(64, seed=2).images), TRAIN, held_out)
    assert new["interval"][0] < 0.05 < new["interval"][1] and 0.3 < new["nearer"] < 0.65


def test_mush_is_near_to_all_and_copies_none() -> None:
    mean = to_float(TRAIN.images).mean(0, keepdim=True)
    mush = copied(mean + 0.1 * torch.randn(64, 3, 32, 32), TRAIN)
    assert mush["share"] == 0
    real = copied(noisy(icons(64, seed=2).images), TRAIN)
    assert mush["median_distance"] < real["median_distance"]


def test_what_training_did_to_pictures_hides_no_copy() -> None:
    moved = noisy(TRAIN.images.roll((2, -1), (2, 3)))
    turned = noisy(TRAIN.images.flip(3))
    assert copied(moved, TRAIN, translate=0.07)["share"] > 0.8
    assert copied(turned, TRAIN, flips=True)["share"] > 0.8
    assert copied(turned, TRAIN)["share"] < 0.2, "without mirrored pictures it is another one"


def test_doubles_among_the_pictures_hide_no_copy() -> None:
    twice = SimpleNamespace(
        images=TRAIN.images.repeat(2, 1, 1, 1), prompts=[*TRAIN.prompts, *TRAIN.prompts]
    )
    assert copied(noisy(TRAIN.images), twice)["share"] > 0.9
    assert copied(noisy(icons(64, seed=2).images), twice)["share"] < 0.2


def test_few_held_out_pictures_are_no_yardstick() -> None:
    eye, known = Eye(), glance(TRAIN.images)
    for count, held_out in ((19, False), (20, True)):
        found = eye.yardstick(known, glance(icons(count, seed=1).images))
        assert found is not None and found.held_out == held_out
    assert eye.yardstick(known[:4]) is None
    assert eye.yardstick(known[:1].repeat(50, 1, 1, 1)) is None


# ------------------------------------------------------------------------------ variety, words


def heeding(source: Any, right: bool = True) -> Callable[[list[str]], Tensor]:
    """Draws a picture of `source` that has the text, or another one."""
    place = iter(range(10**6))

    def draw(prompts: list[str]) -> Tensor:
        rows = []
        for text in prompts:
            fit = [i for i, p in enumerate(source.prompts) if (p[0] == text) == right or not text]
            rows.append(fit[next(place) % len(fit)])
        return noisy(source.images[rows])

    return draw


def test_who_heeds_the_text_is_told_from_who_does_not() -> None:
    fresh = icons(300, seed=3)
    heeds, _ = evaluate(Stand(heeding(fresh), text=True), TRAIN, form=FORM)
    ignores, _ = evaluate(Stand(heeding(fresh, right=False), text=True), TRAIN, form=FORM)
    ours, theirs = (result["texts"][LEARNT] for result in (heeds, ignores))
    assert ours["share"] == pytest.approx(ours["real"]["share"], abs=0.15)
    assert ours["interval"][0] > 1.5 * ours["chance"]
    assert ours["texts"] == 6 and ours["chance"] == pytest.approx(1 / 6, abs=0.02)
    assert theirs["share"] < ours["chance"]
    words = heeds["words"]
    assert {"red", "green", "blue", "left", "right"} >= words.keys() >= {"red", "green", "blue"}
    for word, row in words.items():
        assert row["share"] == pytest.approx(row["real"]["share"], abs=0.25), word
    mean, less = (
        sum(result["words"][word]["share"] for word in words) for result in (heeds, ignores)
    )
    assert mean > 1.3 * less


def test_one_picture_for_each_text_has_no_variety() -> None:
    fresh = icons(300, seed=3)
    first = {text: i for i, (text,) in reversed([*enumerate(fresh.prompts)])}
    one = Stand(lambda prompts: noisy(fresh.images[[first.get(t, 0) for t in prompts]]), text=True)
    poor = evaluate(one, TRAIN, form=FORM)[0]["variety"][LEARNT]
    rich = evaluate(Stand(heeding(fresh), text=True), TRAIN, form=FORM)[0]["variety"][LEARNT]
    assert poor["different"] < 0.2 and poor["distance"] < 0.2 * poor["real"]["distance"]
    assert rich["different"] > 0.8
    assert rich["distance"] == pytest.approx(rich["real"]["distance"], rel=0.1)


def test_held_out_texts_are_drawn_too() -> None:
    several = icons(60, seed=4)
    for i, (text,) in enumerate(several.prompts):
        several.prompts[i] = (f"{text} {i}",)
    train, held_out = split(several, 0.4)
    result, _ = evaluate(Stand(heeding(several), text=True), train, held_out, FORM)
    assert {*result["copying"]["rows"]} == {LEARNT, HELD, WITHOUT}
    assert result["copying"]["real"]["held_out"]
    assert result["texts"][HELD]["share"] > 0.9, "it draws what was held out"
    assert "real" not in result["texts"][HELD], "there is one picture of each text"
    assert result["variety"][HELD]["real"] is None


# -------------------------------------------------------------------------------- the whole


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (8, 8)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("text", [True, False])
def test_pictures_of_all_kinds(size: tuple[int, int], channels: int, text: bool) -> None:
    data = icons(10, size=(max(size[0], 16), max(size[1], 16)), channels=channels)
    data.images = data.images[..., : size[0], : size[1]].contiguous()
    data.prompts = [("an icon",)] * 10
    side: Any = size[0] if size[0] == size[1] else size
    stand = Stand(in_turn(noisy(data.images)), side, channels, text)
    result, sheet = evaluate(stand, data, form=FORM)
    assert json.loads(json.dumps(result)) == result
    said = of_own(result)
    assert max(map(len, said.splitlines())) <= 100 and "Copies" in said and "rough" in said
    assert (LEARNT in said) == text and sheet.mode == ("L" if channels == 1 else "RGB")
    assert "Texts" not in said, "of one text there is nothing to tell apart"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_too_few_to_tell(count: int) -> None:
    data = icons(count)
    result, _ = evaluate(Stand(in_turn(noisy(data.images))), data, form=FORM)
    assert result["copying"] is None and "cannot be said" in of_own(result)


def test_the_sheet_begins_with_the_likest() -> None:
    images = noisy(icons(64, seed=2).images)
    images[37] = to_float(TRAIN.images[5])
    result, sheet = evaluate(Stand(in_turn(images)), TRAIN, form=FORM)
    wanted = TRAIN.images[5].repeat_interleave(3, 1).repeat_interleave(3, 2).movedim(0, 2)
    top = np.asarray(sheet)[26:, 4:][:96]
    for pixels in (top[:, :96], top[:, 99:195]):  # drawn, and the nearest beside it
        assert np.abs(pixels[2:].astype(int) - wanted[2:].numpy()).max() <= 1
    again, _ = evaluate(Stand(in_turn(images)), TRAIN, form=FORM)
    assert again == result


def test_losses_have_the_same_noise() -> None:
    stand = Stand(in_turn(TRAIN.images))
    few = icons(7, seed=1)
    both = losses(stand, few, few)
    assert both["training"] == both["held out"] and "mean" in both["training"]
    assert {*losses(stand, few)} == {"training"}
    assert losses(stand, TRAIN, few)["held out"] == both["training"]


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"\(3, 32, 32\), and those given have \(1, 32, 32\): load"
    ):
        evaluate(Stand(in_turn(TRAIN.images)), icons(10, channels=1))


# ------------------------------------------------------------------------- which pictures


def saved(folder: Path, data: Any) -> Path:
    from PIL import Image

    folder.mkdir()
    for i, (image, (text,)) in enumerate(zip(data.images, data.prompts)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{text} {i:03}.png")
    return folder


def test_the_pictures_of_a_model_are_found_again(tmp_path: Path) -> None:
    folder = saved(tmp_path / "p", icons(40))
    dataset = ImageFolder(folder, 32, 3)
    stand = Stand(in_turn(dataset.images), record={"data": data_of(dataset, False)})
    assert is_own(stand)
    train, held_out = originals(stand)
    assert torch.equal(train.images, dataset.images) and held_out is None

    stand.record["data"]["held_out"] = 0.25
    train, held_out = originals(stand)
    assert held_out is not None and (len(train.images), len(held_out.images)) == (30, 10)

    moved = folder.rename(tmp_path / "q")
    with pytest.raises(FileNotFoundError, match=r"were in .*not there any more: .*--data"):
        originals(stand)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(originals(stand, moved)[0].images) == 30

    next(moved.glob("*.png")).unlink()
    with pytest.warns(UserWarning, match="are not those that this model was trained on"):
        assert originals(stand, moved)[1] is None
    moved.rename(folder)
    with pytest.raises(ValueError, match=r"are not those .*now with --data"):
        originals(stand)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"kind": "other", "path": None}, "came from a program: .*--data"),
        ({"kind": "folder", "path": None}, "are not named in it: .*--data"),
        (None, "are not named in it: .*--data"),
    ],
)
def test_a_model_that_does_not_say_where(data: Any, said: str) -> None:
    stand = Stand(in_turn(TRAIN.images), record={"data": data})
    assert is_own(stand)
    with pytest.raises(ValueError, match=said):
        originals(stand)


def test_glyphs_are_not_ones_own() -> None:
    assert not is_own(Stand(in_turn(TRAIN.images), channels=1, record={"data": {"kind": "glyphs"}}))
    assert not is_own(Stand(in_turn(TRAIN.images), channels=1)), "as of an earlier release"


# ------------------------------------------------------------------------------ the command


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A network that has learnt nothing, of pictures in a folder, a quarter held out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(own_evaluation.FORMS, "quick", Form(2, 8))
    monkeypatch.setattr(own_evaluation, "STEPS", 2)
    dataset = ImageFolder(saved(tmp_path / "p", icons(40)), 32, 3)
    data = {**data_of(dataset, False), "held_out": 0.25}
    Stand(in_turn(dataset.images), record={"data": data}).save("model")
    return "model"


def test_the_command_measures_own_pictures(model: str) -> None:
    first = command_line(["evaluate", "--model", model])
    assert first.status == 0 and "30 pictures learnt, 10 held out" in first.out, first.err
    assert first.out.rstrip().splitlines()[-1].startswith("nearest.png: ")
    assert Path("nearest.png").is_file()
    values = json.loads(command_line(["evaluate", "--model", model, "--json", "-o", "x.png"]).out)
    assert values["sheet"] == "x.png" and values["pictures"] == {"learnt": 30, "held_out": 10}
    Path("p").rename("q")
    gone = command_line(["evaluate", "--model", model, "--loss-only"])
    assert gone.status == 2 and "not there any more" in gone.err and "--data" in gone.err
    told = command_line(["evaluate", "--model", model, "--data", "q", "--json"])
    assert told.status == 0 and json.loads(told.out)["copying"] == values["copying"]


def test_losses_by_the_command(model: str) -> None:
    values = json.loads(command_line(["evaluate", "--model", model, "--loss-only", "--json"]).out)
    assert {*values} == {"loss"} and {*values["loss"]} == {"training", "held out"}
    assert not Path("nearest.png").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--output", "x.gif"], ".png"),
        (["--output", "no/x.png"], "no folder no"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_what_is_wrong_is_named(words: list[str], said: str, model: str) -> None:
    result = command_line(["evaluate", "--model", model, *words])
    assert result.status == 2 and said in result.err


def test_glyphs_have_no_sheet() -> None:
    result = command_line(["evaluate", "--output", "x.png", "--loss-only"])
    assert result.status == 2 and "--output is of own pictures" in result.err
