"""Many texts as one table: encoded once, kept in the cache, gathered into batches by their rows."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from minidiff.inputs import as_path, plain_torch
from minidiff.text import TextEncoder, TextTokens, checked_texts

__all__ = ["EncodedTexts", "different_texts", "encode_texts", "warn_of_alike"]


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
    texts = checked_texts("texts", texts)
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


def different_texts(*prompts: Iterable[Sequence[str]]) -> list[str]:
    """Every text among the prompts of one or more data sets once, sorted."""
    return sorted({text for data_set in prompts for several in data_set for text in several})


def warn_of_alike(texts: Sequence[str], encoder: TextEncoder) -> None:
    """Say of texts that they differ, but not to the encoder; large and small letters may."""
    first: dict[tuple[int, ...], str] = {}
    alike = []
    for text, ids in zip(texts, encoder.token_ids(texts)):
        other = first.setdefault(tuple(ids), text)
        if other.lower().split() != text.lower().split():
            alike.append((text, other))
    if alike:
        warnings.warn(
            f"{len(alike)} of {len(texts)} texts read the same as another, first {alike[0][0]!r} "
            f"as {alike[0][1]!r}: to the text encoder {encoder.name!r} they are one prompt, which "
            "draws the pictures of all of them. Write them in words that it knows, or take another "
            "text_encoder",
            stacklevel=2,
        )


def _warn_of_cut(texts: list[str], offsets: Tensor, encoder: TextEncoder) -> None:
    """Only a text that fills max_tokens may be longer: few are counted again."""
    full = (offsets.diff() == encoder.max_tokens).nonzero()[:, 0].tolist()
    if cut := sum(encoder.are_longer([texts[i] for i in full])):
        warnings.warn(
            f"{cut:,} of {len(texts):,} texts are longer than max_tokens = {encoder.max_tokens}; "
            "their last words are not read",
            stacklevel=3,
        )


@plain_torch()
def _build_table(texts: Sequence[str], encoder: TextEncoder) -> tuple[Tensor, Tensor]:
    """Encode to values (total_tokens, d) float16 and offsets (N + 1,), on the CPU."""
    token_ids = encoder.token_ids(texts)
    counts = torch.tensor([len(ids) for ids in token_ids], dtype=torch.long)
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    values = torch.empty(int(offsets[-1]), encoder.dim, dtype=torch.float16)
    # The bar counts tokens, as the work does, and only shows when there is something to wait for.
    bar = tqdm(
        total=len(values), desc=f"Encoding {len(texts)} texts", unit=" tokens", leave=False, delay=1
    )
    with bar:
        for rows, states in encoder.states(token_ids):
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
