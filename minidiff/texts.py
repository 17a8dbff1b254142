"""Many texts as one table: encoded once, kept in the cache, gathered into batches by their rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from minidiff.cache import cached
from minidiff.inputs import as_path, plain_torch, warn
from minidiff.storage import Tensors
from minidiff.text import TextEncoder, TextTokens, checked_texts


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
    if cache is None:
        table = _build_table(unique, encoder)
    else:
        key = hashlib.sha256(json.dumps(unique).encode("utf-8")).hexdigest()[:16]
        table = cached(
            f"text-{encoder.fingerprint}-{encoder.max_tokens}-{key}",
            make=lambda: _build_table(unique, encoder),
            fits=lambda found: _is_table(found, len(unique), encoder.dim),
            folder=as_path("cache", cache),
        )
    values, offsets = table["values"], table["offsets"]
    _warn_of_cut(unique, offsets, encoder)
    return EncodedTexts(values, offsets, index)


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
        warn(
            f"{len(alike)} of {len(texts)} texts read the same as another, first {alike[0][0]!r} "
            f"as {alike[0][1]!r}: to the text encoder {encoder.name!r} they are one prompt, which "
            "draws the pictures of all of them. Write them in words that it knows, or take another "
            "text_encoder"
        )


def _warn_of_cut(texts: list[str], offsets: Tensor, encoder: TextEncoder) -> None:
    """Only a text that fills max_tokens may be longer: few are counted again."""
    full = (offsets.diff() == encoder.max_tokens).nonzero()[:, 0].tolist()
    if cut := sum(encoder.are_longer([texts[i] for i in full])):
        warn(
            f"{cut:,} of {len(texts):,} texts are longer than max_tokens = {encoder.max_tokens}; "
            "their last words are not read"
        )


@plain_torch()
def _build_table(texts: Sequence[str], encoder: TextEncoder) -> Tensors:
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
    return {"values": values, "offsets": offsets}


def _is_table(found: Tensors, rows: int, dim: int) -> bool:
    """Whether tensors are a table of this many texts, in vectors of this width."""
    if found.keys() != {"values", "offsets"} or found["offsets"].shape != (rows + 1,):
        return False
    return found["values"].shape == (int(found["offsets"][-1]), dim)
