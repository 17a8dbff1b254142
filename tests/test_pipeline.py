"""Text to picture in one call: shapes, seeds, guidance, batches, errors, and what can be loaded."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

import minidiff
from helpers import MINILM, awake, odd_defaults
from minidiff import pipeline as pipeline_module
from minidiff import samplers, shelf
from minidiff.denoisers import Guided, NetworkDenoiser
from minidiff.glyphs import load_glyphs
from minidiff.model import ModelConfig, save_model
from minidiff.pipeline import Pipeline
from minidiff.prompts import words_of_the_definitions
from minidiff.spaces import Pixels
from minidiff.storage import CheckpointError, write_folder
from minidiff.text import TextEncoder, TextTokens
from minidiff.unet import UNet, UNetConfig


class Words:
    """Stands in for the text encoder: every word has a vector of its own."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, prompts: list[str]) -> TextTokens:
        self.asked += prompts
        words = [prompt.split() for prompt in prompts]
        length = max(map(len, words))
        tokens, mask = torch.zeros(len(words), length, 8), torch.zeros(len(words), length).bool()
        for row, several in enumerate(words):
            for place, word in enumerate(several):
                seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:6], "big")
                tokens[row, place] = torch.randn(8, generator=torch.Generator().manual_seed(seed))
                mask[row, place] = True
        return TextTokens(tokens, mask)

    def understands(self, prompt: str, known_words: Any = ()) -> None:
        return None

    def overlong(self, prompt: str) -> None:
        return None


def tiny_network(text_dim: int | None = 8) -> UNet:
    return awake(UNetConfig(channels=(32, 32), attention=(False, True), stem=2, text_dim=text_dim))


def tiny_config(network: UNet, **changes: Any) -> ModelConfig:
    text = network.config.text_dim is not None
    values: dict[str, Any] = {
        "network": network.config,
        "image_size": 16,
        "space": Pixels(0.4, 0.8),
        "text_encoder": "minilm" if text else None,
        "text_fingerprint": MINILM if text else None,
    }
    return ModelConfig(**{**values, **changes})


@pytest.fixture(scope="module")
def tiny() -> Pipeline:
    """A small network with random weights, and words instead of a text encoder."""
    network = tiny_network()
    pipeline = Pipeline(network, tiny_config(network), device="cpu")
    pipeline.__dict__["text_encoder"] = Words()
    return pipeline


@pytest.fixture(scope="module")
def without_text() -> Pipeline:
    network = tiny_network(text_dim=None)
    return Pipeline(network, tiny_config(network), device="cpu")


@pytest.fixture(scope="module")
def glyph64() -> Pipeline:
    return minidiff.load(device="cpu")


@pytest.fixture
def calls(tiny: Pipeline) -> Iterator[list[int]]:
    """The batch size of every call of the network."""
    sizes: list[int] = []
    hook = tiny.network.register_forward_hook(lambda _, given, out: sizes.append(len(given[0])))
    yield sizes
    hook.remove()


# ------------------------------------------------------------------------------- the result


@pytest.mark.parametrize(
    ("prompt", "images", "expected"),
    [("gold", 1, 1), ("gold", 3, 3), (["gold", "water"], 2, 4), (("a", "b", ""), 1, 3), ("", 2, 2)],
)
def test_result_is_prompts_times_images_grey_pictures(
    tiny: Pipeline, prompt: Any, images: int, expected: int
) -> None:
    result = tiny(prompt, num_images_per_prompt=images, num_inference_steps=2)
    assert result.shape == (expected, 1, 16, 16)
    assert result.dtype == torch.float32 and result.device.type == "cpu"
    assert not result.requires_grad
    assert -1 <= result.min() < result.max() <= 1


def test_pictures_of_the_first_prompt_come_first(tiny: Pipeline) -> None:
    both = tiny(["gold", "water"], num_images_per_prompt=2, num_inference_steps=3)
    gold = tiny("gold", num_images_per_prompt=2, num_inference_steps=3)
    water = tiny("water", num_images_per_prompt=2, num_inference_steps=3)
    torch.testing.assert_close(both, torch.cat([gold, water]), atol=1e-5, rtol=0)
    assert (gold - water).abs().max() > 0.01, "the text makes no difference"


def test_prompts_in_any_order_that_holds(tiny: Pipeline) -> None:
    prompts = ["gold", "water"]
    expected = tiny(prompts, num_inference_steps=2)
    several: Any
    for several in (
        tuple(prompts),
        iter(prompts),
        np.array(prompts),
        {1: "gold", 2: "water"}.values(),
    ):
        assert torch.equal(tiny(several, num_inference_steps=2), expected)


def test_guidance_scale_may_be_any_number(tiny: Pipeline) -> None:
    expected = tiny("gold", num_inference_steps=2, guidance_scale=3)
    scale: Any
    for scale in (3.0, np.float32(3), np.int64(3), torch.tensor(3.0)):
        assert torch.equal(tiny("gold", num_inference_steps=2, guidance_scale=scale), expected)


def test_seed_repeats_and_another_seed_does_not(tiny: Pipeline) -> None:
    first = tiny("gold", num_inference_steps=3, seed=5)
    torch.manual_seed(99)  # the global random state has no say
    assert torch.equal(first, tiny("gold", num_inference_steps=3, seed=5))
    assert not torch.equal(first, tiny("gold", num_inference_steps=3, seed=6))
    numpy: Any = np.int64
    assert torch.equal(first, tiny("gold", num_inference_steps=numpy(3), seed=numpy(5)))


def test_drawing_leaves_the_global_random_state_alone(tiny: Pipeline) -> None:
    before = torch.get_rng_state()
    tiny("gold", num_inference_steps=3, sampler="ddpm")
    assert torch.equal(before, torch.get_rng_state())


def test_pictures_of_one_prompt_differ(tiny: Pipeline) -> None:
    pictures = tiny("gold", num_images_per_prompt=3, num_inference_steps=3)
    assert len({picture.numpy().tobytes() for picture in pictures}) == 3


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_a_picture_does_not_depend_on_how_many_are_drawn(
    tiny: Pipeline, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    draw: Callable[..., Tensor] = lambda n: tiny(  # noqa: E731
        "gold", num_images_per_prompt=n, num_inference_steps=4, sampler=sampler
    )
    alone, five = draw(1), draw(5)
    torch.testing.assert_close(alone[0], five[0], atol=1e-4, rtol=0)
    monkeypatch.setattr(pipeline_module, "BATCH", 2)
    torch.testing.assert_close(draw(5), five, atol=1e-4, rtol=0)


def test_beside_longer_prompts_a_picture_stays_the_same(tiny: Pipeline) -> None:
    alone = tiny("gold", num_inference_steps=4)
    beside = tiny(["gold", "a very much longer prompt than that"], num_inference_steps=4)
    torch.testing.assert_close(alone[0], beside[0], atol=1e-4, rtol=0)


def test_network_sees_at_most_a_batch(
    tiny: Pipeline, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline_module, "BATCH", 4)
    tiny(["gold", "water"], num_images_per_prompt=5, num_inference_steps=1, guidance_scale=1)
    assert calls == [4, 4, 2]


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_every_sampler_gives_pictures_within_range(tiny: Pipeline, sampler: str) -> None:
    pictures = tiny("gold", num_images_per_prompt=2, num_inference_steps=5, sampler=sampler)
    assert pictures.isfinite().all() and pictures.abs().max() <= 1
    assert pictures.std() > 0.01


def test_options_reach_the_sampler(tiny: Pipeline) -> None:
    draw = lambda **options: tiny("gold", num_inference_steps=4, **options)  # noqa: E731
    assert torch.equal(draw(sampler="ddim"), draw(sampler="ddim", eta=0.0))
    assert not torch.equal(draw(sampler="ddim"), draw(sampler="ddim", eta=1.0))
    torch.testing.assert_close(draw(sampler="ddim", eta=1.0), draw(sampler="ddpm"))


def test_timesteps_of_ones_own(tiny: Pipeline) -> None:
    grid = tiny.schedule.timesteps(4, shift=3.0)
    assert tiny.schedule.name == "straight" and grid == [1000, 900, 750, 500, 0]
    own = tiny("gold", num_images_per_prompt=2, timesteps=list(np.array(grid)))
    assert torch.equal(own, tiny("gold", num_images_per_prompt=2, num_inference_steps=4))
    assert [frame.t for frame in tiny.steps("gold", timesteps=[1000, 10, 0])] == [10, 0]
    with pytest.raises(ValueError, match=r"timesteps.*\[500, 600\]"):
        tiny.steps("gold", timesteps=[500, 600])
    again: Any  # an iterator can be walked only once, and a tensor's numbers are not Python's
    for again in (iter(grid), torch.tensor(grid), np.array(grid), tuple(grid)):
        assert torch.equal(own, tiny("gold", num_images_per_prompt=2, timesteps=again))


def test_its_parts_put_together_by_hand_draw_the_same(tiny: Pipeline) -> None:
    texts, noise = ["gold", "water"], [samplers.seeded_generator(0, 0) for _ in range(2)]
    x_T = samplers.standard_normal((2, 1, 16, 16), noise)
    guided = Guided(tiny.denoiser(texts), tiny.denoiser(), 3.0, clip=tiny.config.space.data_range)
    x = samplers.sample(guided, x_T, "ddpm", generator=noise, timesteps=tiny.timesteps(4))
    pictures = tiny(texts, sampler="ddpm", num_inference_steps=4)
    torch.testing.assert_close(tiny.config.space.to_images(x), pictures)


def test_progress_is_shown_only_when_asked_for(
    tiny: Pipeline, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny("gold", num_inference_steps=3)
    assert capfd.readouterr() == ("", "")
    tiny("gold", num_inference_steps=3, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "Drawing" in err and "/3 " in err
    tiny("gold", timesteps=[1000, 500, 200, 100, 0], progress=True)
    assert "/4 " in capfd.readouterr().err


# ------------------------------------------------------------------------------- guidance


def test_guidance_one_is_the_conditional_bit_for_bit(tiny: Pipeline, calls: list[int]) -> None:
    how: dict[str, Any] = {"num_inference_steps": 4, "sampler": "dpmpp_2m"}
    pictures = tiny("gold", num_images_per_prompt=2, guidance_scale=1, **how)
    assert len(calls) == 4, "the pass without text was run"
    text = Words().encode(["gold", "gold"])
    config = tiny.config
    denoiser = NetworkDenoiser(
        tiny.network,
        config.make_schedule(),
        config.prediction_type,
        clip=config.space.data_range,
        tokens=text.tokens,
        mask=text.mask,
    )
    noise = torch.cat([noise_of(0), noise_of(1)])
    grid = denoiser.schedule.timesteps(4, shift=3.0)
    by_hand = samplers.sample(denoiser, noise, "dpmpp_2m", timesteps=grid)
    assert torch.equal(pictures, config.space.to_images(by_hand))


def noise_of(index: int, seed: int = 0) -> Tensor:
    generator = samplers.seeded_generator(seed, index)
    return samplers.standard_normal((1, 1, 16, 16), generator)


@pytest.mark.parametrize(("sampler", "expected"), [("dpmpp_2m", 8), ("ddpm", 8), ("heun", 14)])
def test_guidance_asks_the_network_twice(
    tiny: Pipeline, calls: list[int], sampler: str, expected: int
) -> None:
    tiny("gold", num_inference_steps=4, guidance_scale=3, sampler=sampler)
    assert len(calls) == expected == 2 * samplers.evaluations(sampler, 4)


def test_without_any_text_guidance_costs_nothing(tiny: Pipeline, calls: list[int]) -> None:
    pictures = tiny("", num_inference_steps=4, guidance_scale=3)
    assert len(calls) == 4
    assert torch.equal(pictures, tiny("", num_inference_steps=4, guidance_scale=1))


def test_guidance_and_negative_prompt_change_the_picture(tiny: Pipeline) -> None:
    draw = lambda **how: tiny("gold", num_inference_steps=4, **how)  # noqa: E731
    assert (draw(guidance_scale=1) - draw(guidance_scale=3)).abs().max() > 1e-3
    assert (draw(guidance_scale=3) - draw(guidance_scale=0)).abs().max() > 1e-3
    assert (draw() - draw(negative_prompt="water")).abs().max() > 1e-3


def test_negative_prompt_does_nothing_at_scale_one(tiny: Pipeline) -> None:
    draw = lambda text: tiny("gold", num_inference_steps=3, guidance_scale=1, negative_prompt=text)  # noqa: E731
    with pytest.warns(UserWarning, match="'water' has no effect.*guidance_scale 1") as notices:
        away = draw("water")
    assert torch.equal(draw(""), away)
    assert len(notices) == 1 and notices[0].filename == __file__


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, 7.5])
def test_negative_prompt_equal_to_the_prompt_gives_the_conditional(
    tiny: Pipeline, scale: float
) -> None:
    conditional = tiny("gold", num_inference_steps=4, guidance_scale=1)
    guided = tiny("gold", num_inference_steps=4, guidance_scale=scale, negative_prompt="gold")
    torch.testing.assert_close(guided, conditional, atol=1e-4, rtol=0)


def test_scale_zero_is_the_negative_prompt_alone(tiny: Pipeline) -> None:
    away = tiny("gold", num_inference_steps=4, guidance_scale=0, negative_prompt="water")
    towards = tiny("water", num_inference_steps=4, guidance_scale=1)
    torch.testing.assert_close(away, towards, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------- step by step


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "ddpm"])
def test_last_frame_is_the_result(
    tiny: Pipeline, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    monkeypatch.setattr(pipeline_module, "BATCH", 2)
    how: dict[str, Any] = {
        "num_images_per_prompt": 3, "num_inference_steps": 4, "sampler": sampler, "seed": 3,
    }  # fmt: skip
    frames = list(tiny.steps("gold", **how))
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert [frame.t for frame in frames] == [900, 750, 500, 0]
    assert all(frame.images.shape == frame.predicted.shape == (3, 1, 16, 16) for frame in frames)
    assert all(frame.images.abs().max() <= 1 for frame in frames)
    assert torch.equal(frames[-1].images, tiny("gold", **how))
    assert not torch.equal(frames[0].images, frames[-1].images)


def test_the_last_prediction_is_the_result(tiny: Pipeline) -> None:
    *_, last = tiny.steps("gold", num_inference_steps=4, sampler="ddim")
    torch.testing.assert_close(last.images, last.predicted, atol=1e-5, rtol=0)


# ------------------------------------------------------------------------------- generators


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "ddpm"])
def test_one_generator_is_used_up_as_in_diffusers(
    tiny: Pipeline, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    """All noise comes from it in order, so neither batches nor the way of asking matter."""
    how: dict[str, Any] = {"num_images_per_prompt": 5, "num_inference_steps": 3}
    how["sampler"] = sampler
    source = generator(1)
    first = tiny("gold", generator=source, **how)
    assert not torch.equal(first, tiny("gold", generator=source, **how)), "it did not move on"
    monkeypatch.setattr(pipeline_module, "BATCH", 2)
    torch.testing.assert_close(tiny("gold", generator=generator(1), **how), first)
    *_, last = tiny.steps("gold", generator=generator(1), **how)
    torch.testing.assert_close(last.images, first)


def test_noise_of_one_generator_is_what_diffusers_draws(tiny: Pipeline) -> None:
    diffusers = pytest.importorskip("diffusers.utils.torch_utils")
    shape = (3, 1, 16, 16)
    for source in (generator(7), [generator(i) for i in range(3)]):
        ours = samplers.standard_normal(shape, source)
        again = generator(7) if isinstance(source, torch.Generator) else [*map(generator, range(3))]
        theirs = diffusers.randn_tensor(shape, generator=again, dtype=torch.float32)
        assert torch.equal(ours, theirs)


def test_a_list_of_generators_has_one_for_each_picture(tiny: Pipeline) -> None:
    how: dict[str, Any] = {"num_inference_steps": 3, "sampler": "ddpm"}
    several = tiny(
        ["gold", "gold"],
        num_images_per_prompt=2,
        generator=[generator(i) for i in range(4)],
        **how,
    )
    for i in range(4):
        alone = tiny("gold", generator=[generator(i)], **how)
        torch.testing.assert_close(several[i], alone[0], atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------- bad input

WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"sampler": "euler"}, ValueError, "unknown sampler 'euler'.*dpmpp_2m"),
    ({"num_inference_steps": 0}, ValueError, "from 1 to 1000.*got 0"),
    ({"num_inference_steps": 1001}, ValueError, "from 1 to 1000.*got 1001"),
    ({"num_inference_steps": 2.5}, ValueError, "num_inference_steps.*2.5"),
    ({"num_inference_steps": "20"}, ValueError, "num_inference_steps.*'20'"),
    ({"guidance_scale": float("nan")}, ValueError, "guidance_scale.*nan"),
    ({"guidance_scale": float("inf")}, ValueError, "guidance_scale.*inf"),
    ({"guidance_scale": -1}, ValueError, "guidance_scale.*-1"),
    ({"guidance_scale": "3"}, ValueError, "guidance_scale.*'3'"),
    ({"num_images_per_prompt": 0}, ValueError, "num_images_per_prompt.*0"),
    ({"num_images_per_prompt": -2}, ValueError, "num_images_per_prompt.*-2"),
    ({"num_images_per_prompt": 1.5}, ValueError, "num_images_per_prompt.*1.5"),
    ({"num_images_per_prompt": True}, ValueError, "num_images_per_prompt.*True"),
    ({"seed": 1.5}, ValueError, "seed.*1.5"),
    ({"seed": None}, ValueError, "seed.*None"),
    ({"prompt": []}, ValueError, 'no prompt.*"gold"'),
    ({"prompt": 7}, TypeError, "prompt must be a text.*7"),
    ({"prompt": None}, TypeError, "prompt must be a text.*None"),
    ({"prompt": b"gold"}, TypeError, "prompt must be a text.*b'gold'"),
    ({"prompt": ["gold", 3]}, TypeError, "prompt must be a text.*3"),
    ({"prompt": {"gold": 1}}, TypeError, "prompt must be a text.*gold"),
    ({"prompt": {"gold"}}, TypeError, "prompt must be a text.*gold"),
    ({"prompt": np.array([["gold"]])}, TypeError, "prompt must be a text.*gold"),
    ({"prompt": np.array("gold")}, TypeError, "prompt must be a text.*gold"),
    ({"prompt": np.array([b"gold"])}, TypeError, "prompt must be a text.*gold"),
    ({"prompt": ["gold", None]}, TypeError, "prompt must be a text.*None"),
    ({"negative_prompt": 3}, TypeError, "negative_prompt must be one text, got 3"),
    ({"negative_prompt": ["a"]}, TypeError, r"negative_prompt must be one text, got \['a'\]"),
    ({"negative_prompt": None}, TypeError, "negative_prompt must be one text, got None"),
    ({"guidance_scale": None}, ValueError, "guidance_scale must be a number .*, got None"),
    ({"guidance_scale": True}, ValueError, "guidance_scale must be a number .*, got True"),
    ({"guidance_scale": [3]}, ValueError, r"guidance_scale must be a number .*, got \[3\]"),
    ({"guidance_scale": torch.ones(2)}, ValueError, "guidance_scale must be .*, got tensor"),
    ({"guidance_scale": 10**400}, ValueError, "guidance_scale must be .*, got 1000"),
    (
        {"guidance_scale": 1e300},
        ValueError,
        r"guidance_scale must be a number from 0 to 1e6 .*, got 1e\+300",
    ),
    ({"sampler": []}, ValueError, r"unknown sampler \[\]: choose one of ddpm"),
    ({"timesteps": 5}, ValueError, "timesteps.*got 5"),
    ({"timesteps": []}, ValueError, r"timesteps.*got \[\]"),
    ({"timesteps": torch.tensor([5.0, 0.0])}, ValueError, "timesteps.*5"),
    ({"timesteps": "10"}, ValueError, "timesteps.*1.*0"),
    ({"generator": 0}, TypeError, "torch.Generator.*0.*seed"),
    ({"generator": []}, ValueError, "0 generators for 1 pictures"),
    ({"generator": [torch.Generator()] * 3}, ValueError, "3 generators for 1 pictures"),
    ({"sampler": "ddim", "etta": 0.5}, TypeError, "'etta'.*eta"),
    ({"eta": 0.5}, TypeError, "'dpmpp_2m_sde' has no option 'eta'"),
    ({"num_images": 2}, TypeError, "num_images"),
    ({"guidance": 2}, TypeError, "guidance"),
]


@pytest.mark.parametrize(("wrong", "kind", "message"), WRONG, ids=lambda x: str(x)[:40])
@pytest.mark.parametrize("way", ["call", "steps"])
def test_bad_input_is_named_at_once(
    way: str,
    wrong: dict[str, Any],
    kind: type[Exception],
    message: str,
    tiny: Pipeline,
    calls: list[int],
) -> None:
    asked = len(tiny.__dict__["text_encoder"].asked)
    draw = tiny if way == "call" else tiny.steps
    with pytest.raises(kind, match=message):
        draw(**{"prompt": "gold", **wrong})
    assert calls == [], "something was drawn first"
    assert len(tiny.__dict__["text_encoder"].asked) == asked, "the text was encoded first"


@pytest.mark.parametrize("images", [10_000, 10**12, 10**400])
def test_more_pictures_than_memory_holds(
    tiny: Pipeline, calls: list[int], monkeypatch: pytest.MonkeyPatch, images: int
) -> None:
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: SimpleNamespace(available=50 * 2**20, total=2**40)
    )
    with pytest.raises(ValueError, match=r"pictures need about .* GiB.*about [\d,]+ fit") as info:
        tiny("gold", num_images_per_prompt=images)
    fit = int(re.findall(r"about ([\d,]+) fit", str(info.value))[0].replace(",", ""))
    assert 100 < fit < 10_000 and calls == []
    with pytest.raises(ValueError, match="fit"):
        tiny.steps(["gold", "water"], num_images_per_prompt=fit // 2 + 1)
    assert len(tiny("gold", num_images_per_prompt=100, num_inference_steps=1)) == 100


# ------------------------------------------------------------------------------- text


def test_empty_prompt_does_not_load_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the text encoder was loaded")

    monkeypatch.setattr("minidiff.text.TextEncoder", refuse)
    network = tiny_network()
    pipeline = Pipeline(network, tiny_config(network), device="cpu")
    assert pipeline("", num_inference_steps=2).shape == (1, 1, 16, 16)
    assert pipeline(["", "  "], num_inference_steps=2).shape == (2, 1, 16, 16)
    with pytest.raises(AssertionError, match="loaded"):
        pipeline("gold", num_inference_steps=2)


def test_empty_prompts_among_others_mean_no_text(tiny: Pipeline) -> None:
    nothing = tiny("", num_inference_steps=3)
    beside = tiny(["gold", ""], num_inference_steps=3)
    torch.testing.assert_close(beside[1], nothing[0], atol=1e-4, rtol=0)


def test_model_without_text(without_text: Pipeline) -> None:
    pictures = without_text("", num_images_per_prompt=2, num_inference_steps=3)
    assert pictures.shape == (2, 1, 16, 16) and pictures.isfinite().all()
    wrong: list[dict[str, Any]] = [
        {"prompt": "gold"},
        {"prompt": ["", "gold"]},
        {"prompt": "", "negative_prompt": "gold"},
        {"prompt": "", "negative_prompt": "gold", "guidance_scale": 1},
    ]
    for how in wrong:
        with pytest.raises(
            ValueError, match=r"trained without text: leave the prompt empty.*negative_prompt too"
        ):
            without_text(**how)
    with pytest.raises(ValueError, match="trained without text"):
        without_text.denoiser("gold")


def test_checkpoint_of_another_encoder(tiny: Pipeline) -> None:
    network = tiny_network()
    config = tiny_config(network, text_fingerprint="0123456789abcdef")
    pipeline = Pipeline(network, config, device="cpu")
    with pytest.raises(CheckpointError, match=r"'minilm' \(0123456789abcdef\).*53aa51172d142c89"):
        pipeline("gold")


def test_repr_tells_what_it_is(tiny: Pipeline) -> None:
    assert re.fullmatch(r"Pipeline\(16 × 16, 0\.\d M parameters, cpu\)", repr(tiny))


# ------------------------------------------------------------------------------- glyph64

quick: dict[str, Any] = {"num_inference_steps": 1, "guidance_scale": 1}


@pytest.mark.parametrize("prompt", ["銀", "金銀 mountain", "золото", "asdf qwerx", "xqzvk"])
def test_prompt_that_is_not_english_warns_and_is_drawn(glyph64: Pipeline, prompt: str) -> None:
    with pytest.warns(UserWarning, match="reads English.*drawn all the same") as notices:
        assert glyph64(prompt, **quick).shape == (1, 1, 64, 64)
    assert len(notices) == 1
    assert notices[0].filename == __file__, "the notice should point at the caller"


@pytest.mark.parametrize("prompt", ["金", "白金", "水 木"])
def test_chinese_of_the_vocabulary_needs_no_notice(glyph64: Pipeline, prompt: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        glyph64(prompt, **quick)


def test_prompts_that_no_keyboard_writes(glyph64: Pipeline) -> None:
    with pytest.warns(UserWarning, match="knows no word") as notices:
        strange = ["gold \udce9", "\x00\x1c\x07", "gold\r\nfish", "\u202e", "\ud800" * 99]
        assert glyph64(strange, **quick).isfinite().all()
    said = "".join(str(notice.message) for notice in notices)
    assert said.isprintable() and r"\x00 \x07" in said and r"\ud800" in said


def test_negative_prompt_that_is_not_english_warns_too(glyph64: Pipeline) -> None:
    with pytest.warns(UserWarning, match="reads English"):
        glyph64("gold", negative_prompt="銀", num_inference_steps=1)


LONG = "a very long tale of " + "bird " * 40


def test_what_is_not_read_of_a_long_prompt_is_said(glyph64: Pipeline) -> None:
    """30 words and the encoder's two marks are read."""
    with pytest.warns(
        UserWarning, match=r"longer than 32 tokens; the last 15 words are"
    ) as notices:
        pictures = glyph64([LONG, LONG, "gold"], **quick)
    assert len(notices) == 1 and notices[0].filename == __file__
    with pytest.warns(UserWarning, match="the last 16 words are not read"):
        torch.testing.assert_close(pictures[:1], glyph64(LONG + "fish", **quick))
    with pytest.warns(UserWarning, match="longer than 32 tokens"):
        glyph64("gold", negative_prompt=LONG, num_inference_steps=1)


def test_words_of_the_training_need_no_notice(glyph64: Pipeline) -> None:
    of_one_s_own = Pipeline(glyph64.network, glyph64.config, {"words": ["xqzvk", "銀"]}, "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        of_one_s_own(["Xqzvk", "銀 of xqzvk"], **quick)
    with pytest.warns(UserWarning, match="鳥"):
        of_one_s_own("銀 鳥", **quick)


def test_a_prompt_given_twice_warns_once(glyph64: Pipeline) -> None:
    with pytest.warns(UserWarning, match="reads English") as notices:
        glyph64(["銀", "銀", "gold"], **quick)
    assert len(notices) == 1


def test_no_warning_for_words_that_the_model_was_trained_with(glyph64: Pipeline) -> None:
    words = sorted(words_of_the_definitions())
    assert {"gold", "water", "lithium"} <= set(words)
    some = [word for word in words[:: len(words) // 300] if word.isascii() and word.isalpha()]
    assert len(some) > 200
    definitions = [glyph.definition for glyph in load_glyphs()[::1000]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        glyph64._notice(["gold", "Gold", "a kind of fish", *some, *definitions])
        glyph64("gold", **quick)


def test_every_way_of_sampling_glyph64(glyph64: Pipeline) -> None:
    for sampler in samplers.SAMPLERS:
        pictures = glyph64("gold", num_inference_steps=2, sampler=sampler)
        assert pictures.isfinite().all() and pictures.abs().max() <= 1, sampler
        assert pictures.std() > 0.1, sampler


def test_pictures_do_not_depend_on_torch_s_default_dtype(glyph64: Pipeline) -> None:
    expected = glyph64("gold", num_inference_steps=2)
    with odd_defaults(device=None):
        loaded = minidiff.load(device="cpu")
        pictures = loaded("gold", num_inference_steps=2)
    assert all(p.dtype == torch.float32 for p in loaded.network.parameters())
    assert pictures.dtype == torch.float32 and torch.equal(pictures, expected)


def test_glyph64_heeds_the_text_and_not_the_number_of_pictures(glyph64: Pipeline) -> None:
    alone = glyph64("gold", num_inference_steps=4)
    several = glyph64(["gold", "water"], num_images_per_prompt=2, num_inference_steps=4)
    torch.testing.assert_close(several[0], alone[0], atol=1e-4, rtol=0)
    assert (several[0] - several[2]).abs().max() > 0.1


# ------------------------------------------------------------------------------- loading


def test_pretrained_lists_what_ships() -> None:
    cards = {card.name: card for card in minidiff.pretrained()}
    card = cards["glyph64"]
    assert card.image_size == 64
    assert 1e5 < card.parameters <= 4.9e6
    assert 0.1 < card.megabytes <= 10
    assert card.parameters == sum(p.numel() for p in minidiff.load().network.parameters())
    assert str(card).startswith(f"glyph64: 64 × 64, {card.parameters / 1e6:.2f} M parameters")


def test_measured_quality_is_shown() -> None:
    card = shelf.ModelCard("glyph64", 64, 4_000_000, 8.0, {"held-out loss": 0.12})
    assert str(card) == "glyph64: 64 × 64, 4.00 M parameters, 8.0 MB; held-out loss 0.12"


@pytest.mark.parametrize("name", ["glpyh64", "", "no/such/folder"])
def test_unknown_model_lists_those_that_ship(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"no model '{name}'.*glyph64"):
        minidiff.load(name)


@pytest.mark.parametrize("value", [2, True, float("inf"), None, b"glyph64", ["glyph64"], {}])
def test_what_is_no_model_is_named(value: Any) -> None:
    for act in (minidiff.load, shelf.find_model):
        with pytest.raises(TypeError, match="name_or_path must be a text or a pathlib") as error:
            act(value)
        assert repr(value) in str(error.value)
    with pytest.raises(ValueError, match="null character"):
        minidiff.load("a\0b")


def test_a_folder_with_the_name_of_a_model_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shipped = shelf.find_model("glyph64")
        assert shipped == shelf.find_model(Path("glyph64"))
        network = tiny_network(None)
        save_model("glyph64", network, tiny_config(network))
        for own in ("./glyph64", Path("glyph64"), tmp_path / "glyph64", "glyph64/"):
            assert minidiff.load(own).config.image_size == 16
    with pytest.warns(
        UserWarning, match=r"'glyph64' is taken.*folder here.*'\./glyph64'"
    ) as notices:
        assert minidiff.load("glyph64").config.image_size == 64
    assert len(notices) == 1 and notices[0].filename == __file__


@pytest.mark.parametrize(
    ("device", "kind", "named"),
    [
        ("tpu", ValueError, "device 'tpu' cannot be used here"),
        ("", ValueError, "device '' cannot be used here"),
        ("meta", ValueError, "device 'meta' cannot be used here"),
        ("cuda:77", ValueError, r"device 'cuda:77' cannot be used here.*give \"cpu\""),
        (5, TypeError, "device must be a text.*got 5"),
        (["cpu"], TypeError, r"device must be a text.*got \['cpu'\]"),
    ],
)
def test_a_device_that_is_not_here(device: Any, kind: type[Exception], named: str) -> None:
    for act in (minidiff.load, lambda device: TextEncoder(device=device)):
        with pytest.raises(kind, match=named) as error:
            act(device=device)
        assert len(str(error.value)) < 400 and "\n" not in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_cuda_where_there_is_none() -> None:
    for device in ("cuda", torch.device("cuda:0")):
        with pytest.raises(ValueError, match=r"device 'cuda.*cannot be used here \(.*give \"cpu\""):
            minidiff.load(device=device)


def test_load_takes_a_saved_model_and_draws_the_same(tiny: Pipeline, tmp_path: Path) -> None:
    folder = tmp_path / "a model 金"
    save_model(folder, tiny.network, tiny.config, dtype=torch.float32)
    for name in (folder, str(folder)):
        loaded = minidiff.load(name, device="cpu")
        assert loaded.config == tiny.config
        assert torch.equal(
            loaded("", num_inference_steps=2, seed=4), tiny("", num_inference_steps=2, seed=4)
        )


def test_load_of_a_run_takes_the_model_else_the_newest_checkpoint(tmp_path: Path) -> None:
    network = tiny_network(None)
    config = tiny_config(network)
    for step in (100, 200):
        save_model(tmp_path / "checkpoints" / f"step-{step:08d}", network, config, {"steps": step})
    (tmp_path / "checkpoints" / ".step-00000300-x1y2").mkdir()  # one that was never finished
    assert minidiff.load(tmp_path).record == {"steps": 200}
    save_model(tmp_path / "model", network, config, {"steps": 150})
    assert minidiff.load(tmp_path).record == {"steps": 150}
    assert minidiff.load(tmp_path / "checkpoints" / "step-00000100").record == {"steps": 100}


def test_load_of_other_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not a minidiff checkpoint.*config\.json"):
        minidiff.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a minidiff checkpoint"):
        minidiff.load(tmp_path)


@pytest.mark.parametrize("damage", ["cut short", "altered", "missing", "another network's"])
def test_damaged_model_is_refused(damage: str, tmp_path: Path) -> None:
    network = tiny_network(None)
    folder = tmp_path / "model"
    save_model(folder, network, tiny_config(network))
    weights = folder / "model.safetensors"
    payload = weights.read_bytes()
    if damage == "cut short":
        weights.write_bytes(payload[: len(payload) // 2])
    elif damage == "altered":
        weights.write_bytes(payload[:-1] + bytes([payload[-1] ^ 1]))
    elif damage == "missing":
        weights.unlink()
    else:
        other = UNet(UNetConfig(channels=(64,), attention=(False,), text_dim=None))
        info = {"model": json.loads((folder / "config.json").read_text("utf-8"))["model"]}
        write_folder(folder, {"model.safetensors": other.state_dict()}, info)
    with pytest.raises(CheckpointError, match=re.escape(str(folder))):
        minidiff.load(folder)


def test_a_prompt_at_guidance_0_is_noticed(tiny: Pipeline) -> None:
    with pytest.warns(
        UserWarning, match="'gold' has no effect, because guidance_scale is 0"
    ) as seen:
        tiny("gold", num_inference_steps=2, guidance_scale=0)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny("", num_inference_steps=2, guidance_scale=0, negative_prompt="water")


def test_a_denoiser_gives_the_notices_of_a_call(
    tiny: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Words, "overlong", lambda self, prompt: f"{prompt} is too long")
    with pytest.warns(UserWarning, match="gold is too long") as seen:
        tiny.denoiser("gold")
    assert seen[0].filename == __file__


def test_one_text_told_to_many_pictures(tiny: Pipeline) -> None:
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    one, each = (tiny.denoiser(p).output(x, 500) for p in ("gold", ["gold"] * 4))
    torch.testing.assert_close(one, each)
    with pytest.raises(ValueError, match=r"each of the 4 pictures.*got shape \(2, "):
        tiny.denoiser(["gold", "fish"]).output(x, 500)


def test_the_config_of_another_network(tiny: Pipeline) -> None:
    with pytest.raises(
        ValueError, match=r"network's shape is UNetConfig.*but that of config\.network"
    ):
        Pipeline(tiny_network(text_dim=9), tiny.config)


def test_timesteps_of_no_dimension(tiny: Pipeline) -> None:
    with pytest.raises(ValueError, match=r"timesteps must be two or more .*got tensor\(2\)"):
        tiny("gold", timesteps=torch.tensor(2))


def test_a_pipeline_is_saved_and_opened_again(tmp_path: Path) -> None:
    shape = UNetConfig(channels=(32,), attention=(False,), text_dim=None)
    torch.manual_seed(0)
    one = Pipeline(UNet(shape), ModelConfig(shape, image_size=8, shift=1.5), {"seed": 4})
    with torch.no_grad():
        for weight in one.network.parameters():
            weight.normal_().copy_(weight.half())  # nothing is lost by half precision
    one.save(tmp_path / "mine")
    again = minidiff.load(tmp_path / "mine")
    assert again.record == {"seed": 4} and again.config == one.config
    assert torch.equal(again(""), one(""))
    one.save(tmp_path / "mine")  # the same once more replaces it
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        one.save(tmp_path / "mine")


def test_a_pipeline_moves_to_a_device_with_its_encoder() -> None:
    pipeline = minidiff.load()
    before = pipeline.text_encoder
    assert pipeline.to("cpu") is pipeline and pipeline.text_encoder is not before
    with pytest.raises(ValueError, match="device"):
        pipeline.to("cuda:77")
    assert pipeline.device == torch.device("cpu")
