"""Prepare the small folder that training on a machine without network needs.

    python tools/gpu/prepare_gpu.py     # writes gpu/, some 30 MB

Font, definitions and pictures are in the package itself. What a bare machine with PyTorch may lack:

- the text encoder, 83 MB as a wheel. The folder gets a copy of it in half precision that knows only
  the words of the definitions, a third of the size, in files of at most 16 MiB. The copy says which
  weights it was made from and is taken for them (see `minidiff.encoder_files`), so that the
  trained model draws with the real encoder afterwards. What justifies that is checked here and
  written into gpu/minilm/copy.json: every text is cut into the same tokens, and their vectors
  differ by a thousandth of their size, where rounding them to float16, as training does in any
  case, makes a fifth of a thousandth.
- small packages: their wheels.

tools/gpu/train_on_gpu.sh uses the folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import string
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from minidiff.cli_train import SAMPLE_PROMPTS
from minidiff.encoder_files import COPY, MINILM_SHA256, locate
from minidiff.glyphs import GlyphDataset
from minidiff.text import TextEncoder
from minidiff.texts import different_texts

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 16 * 2**20  # bytes a file
WHEELS = ("platformdirs",)
# The root mean square of the difference, as a share of that of the vectors. Half precision makes
# 0.0009; a wrong row or a lost layer would make about 1.
TOLERANCE = 2e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=ROOT / "gpu", help="the folder to make")
    parser.add_argument(
        "--wheel", action="append", metavar="NAME",
        help=f"a package to carry along (default: {', '.join(WHEELS)}); give it for each",
    )  # fmt: skip
    parser.add_argument(
        "--texts", type=int, default=2000, help="compare the vectors of so many texts"
    )
    arguments = parser.parse_args()
    texts = all_texts()
    result = copy_encoder(texts, arguments.output / "minilm", arguments.texts)
    print(json.dumps(result, indent=2))
    for name in arguments.wheel if arguments.wheel is not None else WHEELS:
        fetch_wheel(name, arguments.output / "wheels")
    total = check_sizes(arguments.output)
    print(f"{arguments.output}: {total / 2**20:.1f} MiB. Next: tools/gpu/train_on_gpu.sh smoke")


def all_texts() -> list[str]:
    """Every text that training or its sample grid may ask for."""
    datasets = (GlyphDataset(64, "all", name_radicals) for name_radicals in (False, True))
    return different_texts(*(dataset.prompts for dataset in datasets), [SAMPLE_PROMPTS])


def copy_encoder(texts: Sequence[str], folder: Path, compare: int) -> dict[str, Any]:
    """Write the encoder, cut down to the tokens of `texts`, in half precision.

    Args:
        compare: check the vectors of so many of the texts (the tokens of all are checked).

    Returns:
        what copy.json then holds.

    Raises:
        ValueError: if the copy does not do what the original does.
    """
    whole = TextEncoder("minilm", max_tokens=512)
    kept = _tokens_of(whole, texts)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _write_tokenizer(kept, folder)
    _write_weights(whole, kept, folder)
    for path in folder.iterdir():
        path.chmod(0o644)
    small = TextEncoder(folder, max_tokens=512)
    result = {
        "copy_of": MINILM_SHA256,
        "sha256": _hash(folder),
        "made_by": "tools/gpu/prepare_gpu.py: float16, the tokens of the definitions",
        "tokens": len(kept),
        "texts_with_the_same_tokens": _check_tokens(whole, small, kept, texts),
        **_check_states(whole, small, texts[:: max(1, len(texts) // max(1, compare))]),
    }
    (folder / COPY).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _tokens_of(encoder: TextEncoder, texts: Sequence[str]) -> list[int]:
    """Numbers of the tokens that the texts need, and of those that spell any other English word.

    A text is cut into the longest tokens that fit, from left to right. With fewer tokens to choose
    from nothing longer can fit, and what fitted is still there: so it is cut in the same way.
    """
    vocabulary = encoder._tokenizer.get_vocab()
    letters = string.ascii_lowercase + string.digits + string.punctuation
    spelling = [*letters, *(f"##{letter}" for letter in letters)]
    kept = {vocabulary[token] for token in spelling if token in vocabulary}
    kept.update(encoder._tokenizer.all_special_ids)
    kept.update(token for ids in encoder.token_ids(texts) for token in ids)
    return sorted(kept)


def _write_tokenizer(kept: list[int], folder: Path) -> None:
    """The tokenizer's files with the kept tokens renumbered 0, 1, …"""
    source = locate("minilm")
    number = {old: new for new, old in enumerate(kept)}
    values = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = values["model"]["vocab"]
    pairs = {token: number[old] for token, old in vocabulary.items() if old in number}
    values["model"]["vocab"] = pairs
    for token in values["added_tokens"]:
        token["id"] = number[token["id"]]
    for token in values["post_processor"]["special_tokens"].values():
        token["ids"] = [number[old] for old in token["ids"]]
    text = json.dumps(values, ensure_ascii=False)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    lines = sorted(pairs, key=pairs.__getitem__)
    (folder / "vocab.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(source / name, folder / name)


def _write_weights(encoder: TextEncoder, kept: list[int], folder: Path) -> None:
    from transformers import AutoModelForTextEncoding

    config = type(encoder._model.config)(**encoder._model.config.to_dict())
    config.vocab_size = len(kept)
    model = AutoModelForTextEncoding.from_config(config, add_pooling_layer=False).eval()
    weights = dict(encoder._model.state_dict())
    name = "embeddings.word_embeddings.weight"
    weights[name] = weights[name][torch.tensor(kept)]
    model.load_state_dict(weights)
    model.half().save_pretrained(folder, max_shard_size="12MB")


def _hash(folder: Path) -> str:
    """As `minidiff.text` takes it: of all the weights' files together."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("model*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _check_tokens(
    whole: TextEncoder, small: TextEncoder, kept: list[int], texts: Sequence[str]
) -> int:
    """How many texts have the same tokens, which must be all of them."""
    for text, old, new in zip(texts, whole.token_ids(texts), small.token_ids(texts)):
        if [kept[i] for i in new] != old:
            raise ValueError(f"the copy cuts {text!r} into other tokens")
    return len(texts)


def _check_states(
    whole: TextEncoder, small: TextEncoder, texts: Sequence[str]
) -> dict[str, float | int]:
    """How far the vectors of the tokens differ, beside what rounding them to float16 changes."""
    a, b = whole.encode(texts), small.encode(texts)
    expected, found = a.tokens[a.mask], b.tokens[b.mask]
    size = expected.square().mean().sqrt()
    difference = float((found - expected).square().mean().sqrt() / size)
    rounding = float((expected.half().float() - expected).square().mean().sqrt() / size)
    if not difference < TOLERANCE:
        raise ValueError(f"the vectors of the copy differ by {difference:.2g} of their size")
    return {
        "texts_compared": len(texts),
        "difference": float(f"{difference:.3g}"),  # root mean square, as a share of the vectors'
        "largest_difference": float(f"{(found - expected).abs().max():.3g}"),
        "of_values_up_to": float(f"{expected.abs().max():.3g}"),
        "rounding_to_float16_alone": float(f"{rounding:.3g}"),
    }


def fetch_wheel(name: str, folder: Path) -> None:
    """Put the wheel of a package, in the version that is installed here, into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{name.replace('-', '_')}-*.whl"):
        old.unlink()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", str(folder)]
    done = subprocess.run(
        [*command, f"{name}=={version(name)}"], capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise OSError(f"cannot fetch the wheel of {name}: {done.stderr.strip()[-300:]}")
    found = next(folder.glob(f"{name.replace('-', '_')}-*.whl"))
    if not found.name.endswith("-none-any.whl"):
        print(f"{found.name} holds compiled code: it fits machines and Pythons like this one only")


def check_sizes(folder: Path) -> int:
    """Bytes in all.

    Raises:
        ValueError: for a file that is too large to carry.
    """
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    for path, size in sizes.items():
        if size > LARGEST:
            raise ValueError(f"{path} has {size / 2**20:.1f} MiB, more than {LARGEST / 2**20:.0f}")
    return sum(sizes.values())


if __name__ == "__main__":
    main()
