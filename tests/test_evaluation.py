"""`minidiff evaluate`: what it says of pictures of which the answer is known.

The pictures come from stand-ins for a model (real glyphs, blank paper), so that each figure has a
value it must take; a network with random weights shows that the whole runs.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import odd_defaults
from minidiff import evaluation
from minidiff.captions import named
from minidiff.evaluation import FORMS, NAMED, Form, evaluate
from minidiff.glyphs import GlyphDataset, load_glyphs, to_float
from minidiff.held_out import HELD_OUT, HeldOut, chosen
from minidiff.model import ModelConfig, load_model
from minidiff.pipeline import Pipeline, load
from minidiff.recogniser import load_recogniser
from minidiff.report import as_text
from minidiff.shelf import find_model, pretrained
from minidiff.spaces import Pixels
from minidiff.student import Student
from minidiff.unet import UNet, UNetConfig
from minidiff.wanted import EVERYDAY, WANTED, shows

# The quick form's number of definitions, with all that the full one has beside.
SMALL = Form(192, per_prompt=4, without_text=192, with_guidance=True, per_everyday=2, per_radical=2)
WORDS = WANTED | EVERYDAY


def random_pipeline(image_size: int = 64) -> Pipeline:
    """A network that has learnt nothing and knows no text."""
    torch.manual_seed(0)
    unet = UNetConfig(stem=8, channels=(32,), attention=(False,), text_dim=None)
    return Pipeline(UNet(unet), ModelConfig(unet, image_size, space=Pixels(0.4, 0.85)))


class Stand(Pipeline):
    """In a model's place: `draw` answers the prompts, and the loss is that of a random network."""

    def __init__(self, draw: Callable[[Sequence[str]], Tensor]) -> None:
        inner = random_pipeline()
        super().__init__(inner.network, inner.config)
        self.draw = draw

    def __call__(self, prompt: str | Sequence[str], **_: Any) -> Tensor:
        return self.draw(prompt)


def with_text(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> Stand:
    """As if the model knew text; of its loss nothing is asked."""
    unet = dataclasses.replace(stand.config.network, text_dim=384)
    stand.config = dataclasses.replace(stand.config, network=unet, text_encoder="minilm")
    monkeypatch.setattr(evaluation, "held_out_loss", lambda *_: {"mean": 1.0})
    return stand


def oracle() -> Callable[[Sequence[str]], Tensor]:
    """Answers a held-out definition with its glyph, a word or a radical's name with glyphs that
    have the radical, and nothing with unseen glyphs."""
    test = GlyphDataset(64, "test")
    place: dict[str, int] = {}
    for i, glyph in enumerate(test.glyphs):
        place.setdefault(glyph.definition, i)
        place[named(glyph.definition, glyph.radical)] = i
    everything = GlyphDataset(64, "all")
    rows: dict[str, Iterator[int]] = {
        word: itertools.cycle(
            [
                i
                for i, glyph in enumerate(everything.glyphs)
                if glyph.radical == radical and set(parts) & set(glyph.components)
            ][::7]
        )
        for word, (radical, parts) in WORDS.items()
    }
    for radical in range(1, 215):
        having = [i for i, glyph in enumerate(everything.glyphs) if glyph.radical == radical]
        rows[named("", radical)] = itertools.cycle(having)
    rest = iter(range(0, len(test), 5))  # the first in order of code points are all rare

    def draw(prompts: Sequence[str]) -> Tensor:
        images = []
        for prompt in prompts:
            if prompt in rows:
                images.append(everything.images[next(rows[prompt])])
            else:
                images.append(test.images[place[prompt] if prompt else next(rest)])
        return to_float(torch.stack(images))

    return draw


@pytest.fixture(scope="module")
def of_real() -> dict[str, Any]:
    """What is measured of a model that draws real glyphs."""
    with pytest.MonkeyPatch.context() as patch:
        return evaluate(with_text(Stand(oracle()), patch), SMALL)


def test_real_glyphs_reach_the_floor(of_real: dict[str, Any]) -> None:
    distances = of_real["distances"]
    floor = distances["floor (held-out real glyphs)"]
    # The same glyphs but for those that share a definition.
    assert distances["guidance 1"]["frechet"] == pytest.approx(floor["frechet"], rel=0.1)
    assert distances["guidance 1"]["edge_width"] == pytest.approx(floor["edge_width"], rel=0.01)
    assert distances["without text"]["frechet"] < 1.3 * floor["frechet"]
    assert abs(floor["kernel"]) < 0.2 * distances["the same, blurred by 1 pixel"]["kernel"]
    assert {row["samples"] for row in distances.values()} == {192}
    assert floor["specks"] < 0.03 and floor["off_white"] == pytest.approx(0.016, abs=0.002)
    assert distances["the same, blurred by 1 pixel"]["off_white"] > 2 * floor["off_white"]


def test_yardsticks_are_farther_than_the_floor(of_real: dict[str, Any]) -> None:
    distances = of_real["distances"]
    floor = distances["floor (held-out real glyphs)"]
    for name, row in distances.items():
        if name == "the same with serifs":  # the recogniser knows that font, too
            assert row["frechet"] == pytest.approx(floor["frechet"], rel=0.2)
        elif name.startswith("the same"):
            assert row["frechet"] > 1.1 * floor["frechet"], name  # which 192 samples make large
    blurred = distances["the same, blurred by 1 pixel"]
    assert blurred["edge_width"] > 1.4 * floor["edge_width"]
    assert blurred["grey_share"] > 1.5 * floor["grey_share"]


def test_real_glyphs_are_faithful(of_real: dict[str, Any]) -> None:
    rows = of_real["faithfulness"]
    real = rows["real glyphs, as the recogniser reads them"]["share"]
    assert real > 0.85
    for name in ("guidance 1", "default guidance", NAMED):
        assert rows[name]["share"] == pytest.approx(real, abs=0.06)
    assert 0.2 < rows["text classifier, sampled"] < rows["text classifier, arg-max"] < 0.7
    assert 0.2 < rows["nearest definition's glyph"] < rows["text classifier, arg-max"]
    assert "without text" not in rows


def test_real_glyphs_show_what_was_asked_for(of_real: dict[str, Any]) -> None:
    prompts = of_real["prompts"]
    assert prompts["mean"] > 0.95 and len(prompts["words"]) == 20
    assert prompts["fewest_different"] >= 3
    assert all(low <= row["share"] <= high for row in prompts["words"].values()
               for low, high in [row["interval"]])  # fmt: skip
    assert of_real["everyday"]["mean"] > 0.95 and len(of_real["everyday"]["words"]) == 60


def test_real_glyphs_show_the_radical_that_was_named(of_real: dict[str, Any]) -> None:
    radicals = of_real["radicals"]
    for kind in ("common", "rare"):  # some are hardly to be seen in real glyphs either
        assert radicals[kind]["mean"] == pytest.approx(radicals[kind]["real"], abs=0.15)
    assert radicals["common"]["real"] > 0.8 and len(radicals["rows"]) == 214
    assert radicals["common"]["radicals"] + radicals["rare"]["radicals"] == 214
    assert radicals["rows"]["heart"]["radical"] == 61
    assert radicals["rows"]["heart"]["training_glyphs"] > 400


def test_unseen_glyphs_are_no_copies(of_real: dict[str, Any]) -> None:
    for name in ("guidance 1", "without text"):
        low, high = of_real["copying"][name]["interval"]
        assert low <= 0.05 <= high, name


def test_result_is_plain_and_readable(of_real: dict[str, Any]) -> None:
    assert json.loads(json.dumps(of_real)) == of_real
    text = as_text(of_real)
    for word in ("floor", "frechet", "gold", "arg-max", "without text", "guidance 1"):
        assert word in text
    for word in ("everyday words", "heart radical", "specks", "off-white", "radical named"):
        assert word in text
    assert max(len(line) for line in text.splitlines()) <= 110
    assert len(text.splitlines()) < 90, "everyday words and radicals are not all listed"


def test_few_samples_are_not_compared(of_real: dict[str, Any]) -> None:
    assert "192 samples: for a first look" in as_text(of_real)
    for row in of_real["distances"].values():
        many = {**row, "samples": 1034}
        text = as_text({"distances": {"floor": many}})
        assert "1,034 samples" in text and "first look" not in text
    held_out = len(GlyphDataset(64, "test"))
    assert FORMS["full"].definitions == FORMS["full"].without_text == held_out == 1034


def test_record_of_an_earlier_release_is_readable(of_real: dict[str, Any]) -> None:
    old = {k: v for k, v in of_real.items() if k not in ("everyday", "radicals")}
    old["distances"] = {
        name: {k: v for k, v in row.items() if k not in ("specks", "off_white")}
        for name, row in of_real["distances"].items()
    }
    text = as_text(old)
    assert "–" in text and "everyday" not in text and "gold" in text


def test_copies_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    images = to_float(GlyphDataset(64, "train").images[::37])
    noise = 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    result = evaluate(Stand(lambda prompts: (images + noise)[: len(prompts)]), SMALL)
    assert result["copying"]["without text"]["interval"][0] > 0.9
    assert "prompts" not in result and "faithfulness" not in result


def test_blank_paper_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    blank = with_text(Stand(lambda prompts: torch.ones(len(prompts), 1, 64, 64)), monkeypatch)
    result = evaluate(blank, SMALL)
    assert result["prompts"]["mean"] <= 0.05
    assert result["prompts"]["fewest_different"] == 1
    assert result["faithfulness"]["guidance 1"]["share"] < 0.2
    distances = result["distances"]
    floor = distances["floor (held-out real glyphs)"]["frechet"]
    assert distances["guidance 1"]["frechet"] > 10 * floor
    assert distances["guidance 1"]["recall"] < 0.1
    assert result["everyday"]["mean"] < 0.05 and result["radicals"]["common"]["mean"] < 0.05


def test_a_network_that_has_learnt_nothing() -> None:
    result = evaluate(random_pipeline(), SMALL)
    assert [*result["held_out_loss"]][-1] == "mean"
    noise = result["distances"]["without text"]
    floor = result["distances"]["floor (held-out real glyphs)"]
    assert noise["recall"] < 0.01 and noise["grey_share"] > 0.3
    assert noise["frechet"] > 5 * floor["frechet"]
    assert result["paper"] != pytest.approx(1, abs=0.02)
    copying = result["copying"]["without text"]
    assert copying["share"] == 0, "noise is near to no glyph"
    assert copying["interval"] == [0, pytest.approx(0.0196, abs=1e-3)], "0 of 192 is not nought"


def test_a_student_is_measured_in_its_own_steps_and_of_no_loss() -> None:
    asked: list[dict[str, Any]] = []

    class Told(Stand):
        def __call__(self, prompt: str | Sequence[str], **options: Any) -> Tensor:
            asked.append(options)
            return self.draw(prompt)

    paper = Told(lambda prompts: torch.ones(len(prompts), 1, 64, 64))
    unet = dataclasses.replace(paper.config.network, numbers=2)
    student = Student("0" * 64, guidance=(1.0, 4.0))
    paper.config = dataclasses.replace(paper.config, network=unet, student=student)
    result = evaluate(paper, Form(32, 2, 0, False))
    assert not {"held_out_loss", "paper"} & {*result} and len(asked) == 1
    assert "num_inference_steps" not in asked[0], "or it would not be the student's own"
    assert result["num_inference_steps"] == 4 and result["built_in_guidance"] == [1.0, 4.0]
    assert as_text(result).startswith("4 steps of one evaluation each, with guidance, which is ")


def test_pictures_that_cannot_be_read() -> None:
    with pytest.raises(ValueError, match=r"16 × 16 pixels.*--loss-only"):
        evaluate(random_pipeline(image_size=16), SMALL)


@pytest.mark.parametrize("measure", [evaluation.held_out_loss, lambda p: evaluate(p, SMALL)])
def test_a_model_of_other_pictures_is_not_measured(measure: Callable[[Pipeline], Any]) -> None:
    pipeline = random_pipeline()
    pipeline.record = {"data": {"kind": "folder", "path": "icons"}}
    with pytest.raises(ValueError, match=r"trained on other pictures \(icons\), and all that"):
        measure(pipeline)


@pytest.mark.parametrize("measure", [evaluation.held_out_loss, lambda p: evaluate(p, SMALL)])
def test_a_coloured_model_is_not_measured(measure: Callable[[Pipeline], Any]) -> None:
    unet = UNetConfig(stem=8, channels=(32,), attention=(False,), text_dim=None, in_channels=3)
    with pytest.raises(ValueError, match="draws in 3 channels, and glyphs are grey"):
        measure(Pipeline(UNet(unet), ModelConfig(unet, 64)))


@pytest.mark.parametrize("total", [0, 1, 7, HELD_OUT, 513, 1034, 20_509])
def test_held_out_rows_are_spread_over_all(total: int) -> None:
    rows = chosen(total).tolist()
    assert len(rows) == min(total, HELD_OUT)
    assert rows == sorted(set(rows))
    if rows:
        assert (rows[0], rows[-1]) == (0, total - 1)
        steps = {b - a for a, b in itertools.pairwise(rows)}
        assert not steps or max(steps) - min(steps) <= 1


@pytest.mark.parametrize("record", [{}, {"data": None}, {"data": {"kind": "glyphs"}}])
def test_a_model_of_glyphs_is_measured(record: dict[str, Any]) -> None:
    pipeline = random_pipeline()
    expected = evaluation.held_out_loss(pipeline)
    pipeline.record = record
    with odd_defaults(device=None):
        assert evaluation.held_out_loss(pipeline) == expected


def test_arguments_that_are_none() -> None:
    pipeline, (recogniser, _) = random_pipeline(), load_recogniser()
    wrong: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: evaluate(pipeline, "quick"), TypeError, "FORMS.*got 'quick'"),  # type: ignore[arg-type]
        (lambda: evaluate(pipeline, SMALL, seed=1.5), ValueError, "seed.*1.5"),  # type: ignore[arg-type]
        (
            lambda: evaluation.draw(pipeline, "gold"),
            TypeError,
            "list of texts, got the text 'gold'",
        ),
        (lambda: evaluation.draw(pipeline, []), ValueError, "no texts"),
        (lambda: HeldOut(1035), ValueError, "count must be from 1 to 1034, got 1035"),
        (lambda: HeldOut(0), ValueError, "count must be from 1 to 1034, got 0"),
        (lambda: HeldOut("9"), ValueError, "count must be a whole number, got '9'"),  # type: ignore[arg-type]
        (
            lambda: shows(recogniser, torch.ones(1, 1, 64, 64), "car"),
            ValueError,
            "'car'.*gold.*cart",
        ),
        (lambda: shows(recogniser, torch.ones(1, 1, 64, 64).long(), "gold"), TypeError, "int64"),
    ]
    for act, kind, message in wrong:
        with pytest.raises(kind, match=message):
            act()


def test_long_definitions_are_drawn_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation.draw(load("glyph64"), ["bird " * 40], num_inference_steps=1, guidance_scale=1)


# ------------------------------------------------------------------- the shipped model


def test_shipped_model_carries_its_figures() -> None:
    folder = find_model("glyph64")
    _, _, record = load_model(folder)
    figures = record["evaluation"]
    assert figures["samples"] == dataclasses.asdict(FORMS["full"])
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert as_text(figures) in card, "the card shows other figures than the record has"
    shown = record["quality"]["20 words shown"]
    assert float(shown.removesuffix(" %")) == pytest.approx(100 * figures["prompts"]["mean"], abs=1)
    assert f"20 words shown {shown}" in str(pretrained()[0])


def test_shipped_model_draws_what_is_asked_for() -> None:
    pipeline, (recogniser, _) = load("glyph64"), load_recogniser()
    images = pipeline(["fish", "bamboo"], num_images_per_prompt=6, seed=1)
    right = [shows(recogniser, images[:6], "fish"), shows(recogniser, images[6:], "bamboo")]
    wrong = [shows(recogniser, images[:6], "bamboo"), shows(recogniser, images[6:], "fish")]
    assert torch.cat(right).sum() >= 9, "of 12"
    assert torch.cat(wrong).sum() <= 2, "of 12"


# ------------------------------------------------------------------- the recogniser


def test_recogniser_reads_unseen_characters_as_recorded() -> None:
    recogniser, record = load_recogniser()
    test = GlyphDataset(64, "test")
    with torch.inference_mode():
        radicals, _, _ = recogniser(to_float(test.images))
    truth = torch.tensor([glyph.radical - 1 for glyph in test.glyphs])
    right = (radicals.argmax(1) == truth).float().mean().item()
    assert right == pytest.approx(record["held_out"]["sans"]["radical"], abs=0.003)
    assert right > 0.9


@pytest.mark.parametrize("word", WANTED)
def test_component_detector(word: str) -> None:
    """On characters that the recogniser never saw: it finds what is there, and not elsewhere."""
    radical, parts = WANTED[word]
    test = GlyphDataset(64, "test")
    seen = shows(load_recogniser()[0], test.images, word)
    has = torch.tensor([bool(set(parts) & set(glyph.components)) for glyph in test.glyphs])
    neither = ~has & torch.tensor([glyph.radical != radical for glyph in test.glyphs])
    assert (seen & neither).sum() / neither.sum() < 0.01
    if has.sum() >= 8:
        assert (seen & has).sum() / has.sum() > 0.8


def test_every_wanted_component_has_examples() -> None:
    for word, (radical, parts) in WANTED.items():
        fitting = [g for g in load_glyphs() if g.radical == radical]
        assert len(fitting) > 60, word
        assert sum(bool(set(parts) & set(g.components)) for g in fitting) > 0.5 * len(fitting), word


def test_everyday_words_are_not_seen_elsewhere() -> None:
    recogniser, test = load_recogniser()[0], GlyphDataset(64, "test")
    images, glyphs = test.images[::4], test.glyphs[::4]
    for word, (radical, parts) in EVERYDAY.items():
        seen = shows(recogniser, images, word)
        has = [g.radical == radical or bool(set(parts) & set(g.components)) for g in glyphs]
        assert (seen & ~torch.tensor(has)).float().mean() < 0.02, word


def test_everyday_words_say_what_their_glyphs_have() -> None:
    known = set(load_recogniser()[0].components)
    train = [glyph for glyph in load_glyphs() if glyph.split == "train"]
    assert len(EVERYDAY) == 60 and not EVERYDAY.keys() & WANTED.keys()
    assert all(set(parts) <= known for _, parts in WANTED.values())
    for word, (radical, parts) in EVERYDAY.items():
        assert set(parts) <= known, word
        said = re.compile(rf"\b{word}(s|es)?\b")
        having = [g for g in train if said.search(g.definition.lower())]
        right = [g for g in having if g.radical == radical or set(parts) & set(g.components)]
        assert len(having) >= 12 and len(right) > len(having) / 3, word


def test_recogniser_refuses_other_sizes() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1, 32, 32\)"):
        load_recogniser()[0](torch.ones(2, 1, 32, 32))
