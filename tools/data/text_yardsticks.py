"""What the text alone tells of a character's radical: three minutes on one core.

    python tools/data/text_yardsticks.py

`minidiff evaluate` asks how often a drawn glyph has the radical of the character whose definition
was the prompt. No model can be right always, for most definitions fit several radicals. So a
classifier of texts is trained here (linear, on the mean of the text encoder's tokens beside
weighted counts of words; the number of passes chosen on a tenth of the training families), and for
every held-out character is kept: the probability it gives to the right radical, which is what a
perfect sampler would score; whether its likeliest radical is right; and whether the training
definition that is nearest in meaning belongs to a character with that radical.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from minidiff.cache import cache_dir
from minidiff.evaluation import TEXT, TEXT_YARDSTICKS
from minidiff.glyphs import GlyphDataset
from minidiff.recogniser import RADICALS
from minidiff.storage import write_folder
from minidiff.text import TextEncoder
from minidiff.texts import encode_texts

PASSES, RATE, BATCH = 20, 0.01, 512


def words(dataset: GlyphDataset) -> list[set[str]]:
    return [set(re.findall(r"\w+", glyph.definition.lower())) for glyph in dataset.glyphs]


def meanings(*datasets: GlyphDataset) -> list[Tensor]:
    """For each data set (N, d): the mean of the tokens of every definition, at unit length."""
    texts = sorted({text for d in datasets for several in d.prompts for text in several})
    table = encode_texts(texts, TextEncoder("minilm"), cache_dir())  # as in training: cached
    result = []
    for dataset in datasets:
        parts = []
        for rows in table.rows([several[0] for several in dataset.prompts]).split(512):
            text = table.batch(rows)
            mask = text.mask[..., None].float()
            parts.append((text.tokens * mask).sum(1) / mask.sum(1).clamp(min=1))
        result.append(F.normalize(torch.cat(parts), dim=1))
    return result


def counts_of_words(train: GlyphDataset, test: GlyphDataset) -> list[Tensor]:
    """Both as (N, vocabulary), rare words weighing more, at unit length."""
    number = Counter(word for each in words(train) for word in each)
    place = {word: i for i, word in enumerate(sorted(w for w, n in number.items() if n > 1))}
    weight = torch.tensor([len(train) / number[word] for word in place]).log()
    tables = []
    for dataset in (train, test):
        table = torch.zeros(len(dataset), len(place))
        for row, each in zip(table, words(dataset)):
            row[[place[word] for word in each if word in place]] = 1
        tables.append(F.normalize(table * weight, dim=1))
    return tables


def classifier(x: Tensor, y: Tensor, chosen: Tensor) -> torch.nn.Linear:
    """A linear classifier, stopped where it is best on `chosen` (N,) bool, which it never sees."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(x.shape[1], RADICALS)
    optimizer = torch.optim.Adam(layer.parameters(), lr=RATE)
    seen = (~chosen).nonzero()[:, 0]
    best, least = copy.deepcopy(layer), float("inf")
    for _ in tqdm(range(PASSES), "Training"):
        for index in seen[torch.randperm(len(seen))].split(BATCH):
            loss = F.cross_entropy(layer(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            now = F.cross_entropy(layer(x[chosen]), y[chosen]).item()
        if now < least:
            best, least = copy.deepcopy(layer), now
    return best


def main() -> None:
    train, test = GlyphDataset(64, "train"), GlyphDataset(64, "test")
    truth, unseen = (torch.tensor([g.radical - 1 for g in d.glyphs]) for d in (train, test))
    mean, mean_of_test = meanings(train, test)
    count, count_of_test = counts_of_words(train, test)
    tenth = [hashlib.sha256(g.family.encode("utf-8")).digest()[5] < 26 for g in train.glyphs]

    layer = classifier(torch.cat([mean, count], 1), truth, torch.tensor(tenth))
    with torch.no_grad():
        chances = layer(torch.cat([mean_of_test, count_of_test], 1)).softmax(1)
    columns = (
        chances[torch.arange(len(unseen)), unseen],
        chances.argmax(1) == unseen,
        truth[(mean_of_test @ mean.T).argmax(1)] == unseen,
    )
    tensors = {name: column.float() for name, column in zip(TEXT_YARDSTICKS, columns)}
    means = {name: round(column.mean().item(), 4) for name, column in tensors.items()}
    print(means)
    write_folder(TEXT, {"yardsticks.safetensors": tensors}, {"record": {"means": means, "seed": 0}})


if __name__ == "__main__":
    main()
