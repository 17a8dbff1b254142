"""The page that draws, without its page: tokens, noise, grids and steps are those of the package.

They run in a real browser, on made-up networks; nothing has to be built for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from browser import chromium
from helpers import ROOT
from minidiff import samplers
from minidiff.denoisers import Guided, NetworkDenoiser
from minidiff.encoder_files import locate
from minidiff.glyphs import load_glyphs
from minidiff.schedules import make_schedule
from minidiff.text import TextEncoder

PLAY = ROOT / "book" / "_static" / "play"
ODD = [
    "", " ", "\t\n", "a", "I", "Gold", "naïve café", "Ångström", "ÉTÉ", "İstanbul", "straße",
    "ΣΑΣ", "fi ﬁ ½ ² Ⅷ", "don't", "e.g. this; that, (10,000)", "a-b_c/d\\e|f", "…“quoted”—dash",
    "$5 + 3% = €", "x\u0301y", "\u200bzero\u200dwidth\ufeff", "tab\tand\nline\r\nend",
    "\x00\x07control\x7f", "\u00a0no-break\u3000space", "金", "gold 金 and 水銀", "ㄅㄆㄇ",
    "カタカナ", "한국어", "привет мир", "שלום", "مرحبا", "हिन्दी", "ไทย", "😀",
    "👩‍👩‍👧 family", "🇩🇪", "𝔊𝔬𝔩𝔡", "𠀀𪜀", "[CLS] gold [SEP]", "[MASK]", "[unk] [UNK]x",
    "##ing ing", "<script>alert(1)</script>", "&amp; &lt;", "%20%", "a" * 100, "a" * 101,
    "word " * 5000, "water, river, " * 40, "\ufffd?", "١٢٣ 123", "ŉ ǆ", "Ωμέγα", "ı", "K",
    "\U000e0001tag", "\ue000private", "half \ud800 letter", "\udc00", "٪؟", "¿qué?", "«a»",
    "x́̂̃", "ﷺ", "〜〡", "a\u2028b", "\x1c", "\ufeff",
]  # fmt: skip


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with chromium() as opened:
        page = opened.new_page()
        for name in ("noise.js", "wordpiece.js", "sampling.js"):
            page.add_script_tag(content=(PLAY / name).read_text(encoding="utf-8"))
        yield page


def test_tokens_are_those_of_transformers(page: Any) -> None:
    vocabulary = (locate("minilm") / "vocab.txt").read_text(encoding="utf-8")
    texts = [glyph.definition for glyph in load_glyphs()[::20]] + ODD
    assert len(texts) > 1000
    # Lone halves of letters cannot travel to the browser as they are.
    given = [[ord(letter) for letter in text] for text in texts]
    read = """([vocabulary, texts]) => {
        const pieces = new WordPiece(vocabulary);
        const text = (codes) => codes.map((code) => String.fromCodePoint(code)).join("");
        return texts.map((codes) => pieces.read(text(codes)));
    }"""
    found = page.evaluate(read, [vocabulary, given])
    wanted = TextEncoder("minilm").token_ids(texts)
    for text, ours, theirs in zip(texts, found, wanted, strict=True):
        assert ours == theirs, ascii(text[:60])


@pytest.mark.parametrize("purpose", [(0, 0), (1, 3), (987654321, 0), (0, "second stage", 2)])
def test_noise_is_that_of_the_package(page: Any, purpose: tuple[Any, ...]) -> None:
    draw = """(purpose) => {
        const source = seededNoise(...purpose);
        return [source.normal(4096), source.normal(4096)].map((x) => Array.from(x));
    }"""
    found = torch.tensor(page.evaluate(draw, list(purpose)))
    generator = samplers.seeded_generator(*purpose)
    wanted = torch.stack([torch.randn(1, 64, 64, generator=generator).flatten() for _ in range(2)])
    assert torch.allclose(found, wanted, atol=2e-6)


@pytest.mark.parametrize("shift", [1.0, 2.0, 2.1, 0.5])
def test_grids_are_those_of_the_package(page: Any, shift: float) -> None:
    schedule = make_schedule("straight", shift=shift)
    counts = [1, 2, 3, 4, 6, 7, 8, 16, 20, 32, 33, 50, 80, 160, 200, 250, 999, 1000]
    found = page.evaluate(f"(all) => all.map((n) => timesteps(1000, n, {shift}))", counts)
    assert found == [schedule.timesteps(n) for n in counts]


WALK = """async ({ x, noises, grid, sampler, scale, range }) => {
    const one = (v, i, told) => Math.tanh(told * v + i / 32 - 0.5);
    const network = (x, t, told) => x.map((v, i) => one(v, i, told) * (t / 1000));
    const ask = async (x, t) => {
        const told = guess(x, network(x, t, 1.3), t, 1000);
        return clipped(guided(told, guess(x, network(x, t, 0.2), t, 1000), scale), range);
    };
    let drawn = 0;
    const noise = () => Float32Array.from(noises[drawn++]);
    const steps = [];
    for await (const step of walk({ ask, x: Float32Array.from(x), grid, T: 1000, sampler, noise }))
        steps.push({ t: step.t, x: Array.from(step.x), x0: Array.from(step.x0) });
    return steps;
}"""


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpmpp_2m", "dpmpp_2m_sde"])
@pytest.mark.parametrize("steps", [1, 5, 20])
def test_every_step_of_a_walk_is_that_of_the_package(page: Any, sampler: str, steps: int) -> None:
    schedule, numbers = make_schedule("straight", shift=2.0), torch.arange(32) / 32
    generator = torch.Generator().manual_seed(0)
    x_T, *noises = (torch.randn(1, 1, 1, 32, generator=generator) for _ in range(steps + 1))

    def network(told: float) -> NetworkDenoiser:
        def answer(x: Tensor, t: Tensor) -> Tensor:
            return torch.tanh(told * x + numbers - 0.5) * (t / 1000).view(-1, 1, 1, 1)

        return NetworkDenoiser(answer, schedule, "flow")

    denoiser = Guided(network(1.3), network(0.2), 3.0, clip=(-1.5, 0.7))
    generator = torch.Generator().manual_seed(0)
    torch.randn(1, 1, 1, 32, generator=generator)  # x_T
    wanted = list(samplers.sample_steps(denoiser, x_T, sampler, steps, generator))
    given: dict[str, Any] = {
        "x": x_T.flatten().tolist(),
        "noises": [z.flatten().tolist() for z in noises],
    }
    given |= {"grid": schedule.timesteps(steps), "sampler": sampler, "scale": 3.0}
    found = page.evaluate(WALK, {**given, "range": [-1.5, 0.7]})
    assert [step["t"] for step in found] == [step.t for step in wanted]
    for ours, theirs in zip(found, wanted):
        assert torch.allclose(torch.tensor(ours["x"]), theirs.x.flatten(), atol=1e-4)
        assert torch.allclose(torch.tensor(ours["x0"]), theirs.prediction.x0.flatten(), atol=1e-4)
