"""How good a model of one's own pictures is, and whether it only copied them.

Nothing here knows what the pictures show. What is drawn is set against the pictures that the model
was trained on, as `minidiff.likeness` sees them, and beside each figure stands the same of real
pictures: those that were held out, or each training picture against the others.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from minidiff import plots, samplers
from minidiff.batches import PictureDataset
from minidiff.glyphs import as_pictures
from minidiff.held_out import HELD_OUT, chosen, loss_by_timestep
from minidiff.inputs import plain_torch, sides
from minidiff.likeness import TWIN, Eye, Near, Yardstick, glance
from minidiff.metrics import wilson
from minidiff.schedules import whole_number
from minidiff.stages import halved

if TYPE_CHECKING:
    from PIL.Image import Image

    from minidiff.pipeline import Pipeline

STEPS = 20  #: of the sampler, everywhere
LINE = 0.05  #: share of real pictures that are nearer to a training picture than what is a copy
WORDS = 20  #: words at most whose pictures are looked at
LEARNT, HELD, WITHOUT = "texts it learnt", "held-out texts", "without text"


@dataclass(frozen=True)
class Form:
    """How much is drawn of each kind: texts it learnt, held-out texts, without text."""

    texts: int  #: different ones at most
    pictures: int


#: What `minidiff evaluate` draws, and what it draws with `--full`.
FORMS = {"quick": Form(16, 128), "full": Form(64, 1024)}


@dataclass(frozen=True)
class Drawn:
    """Pictures that were drawn.

    Attributes:
        images: (N, C, H, W) in [-1, 1].
        texts: what each was drawn for.
        looks: (N, C, h, w), see `minidiff.likeness.glance`.
        near: what is nearest to each among the training pictures.
    """

    images: Tensor
    texts: list[str]
    looks: Tensor
    near: Near


# -------------------------------------------------------------------- all of it


@plain_torch()
def evaluate(
    pipeline: Pipeline,
    train: PictureDataset,
    held_out: PictureDataset | None = None,
    form: Form = FORMS["quick"],
    seed: int = 0,
    progress: bool = False,
) -> tuple[dict[str, Any], Image]:
    """All measures as plain numbers, and a sheet of what was drawn beside what is nearest to it.

    Args:
        pipeline: a model of any pictures, in grey or in colour.
        train: those that it was trained on.
        held_out: others of the same kind, which it has not seen.
        form: how much to draw, see `FORMS`.
        seed: of the noise that the pictures start from.
        progress: show a bar with the time left.

    Raises:
        ValueError: for pictures of another size or with other channels than the model draws.
    """
    seed = whole_number("seed", seed)
    _check(pipeline, train, held_out)
    wanted = _wanted(pipeline, train, held_out, form)
    recipe = pipeline.record.get("recipe") or {}
    eye = Eye(bool(recipe.get("translate") or recipe.get("zoom")), bool(recipe.get("flips")))
    known, drawn = glance(train.images), dict[str, Drawn]()
    total = sum(len(texts) for texts in wanted.values())
    with tqdm(total=total, unit=" pictures", desc="Loss", disable=not progress, leave=False) as bar:
        loss = losses(pipeline, train, held_out)
        bar.set_description("Drawing")
        for name, texts in wanted.items():
            images = _draw(pipeline, texts, seed, bar)
            looks = glance(images)
            drawn[name] = Drawn(images, texts, looks, eye.nearest(looks, known))
    real = eye.yardstick(known, None if held_out is None else glance(held_out.images))
    result: dict[str, Any] = {
        "pictures": {
            "learnt": len(train.images),
            "held_out": 0 if held_out is None else len(held_out.images),
        },
        "samples": asdict(form),
        "num_inference_steps": STEPS,
        "seed": seed,
        "loss": loss,
        "forgiven": asdict(eye),
        "copying": None if real is None else _copying(drawn, real),
        "variety": _variety(eye, drawn, known, _texts(train), real),
        "texts": _found_again(eye, drawn, train, held_out),
        "words": _words(drawn, real, train, held_out),
    }
    return result, sheet(drawn, train.images, real, held_out)


def _check(pipeline: Pipeline, *several: PictureDataset | None) -> None:
    channels = pipeline.space.channels or pipeline.config.shape[0]
    wanted = (channels, *sides(pipeline.config.image_size))
    for dataset in several:
        if dataset is not None and tuple(dataset.images.shape[1:]) != wanted:
            raise ValueError(
                f"the model draws pictures of the shape {wanted}, and those given have "
                f"{tuple(dataset.images.shape[1:])}: load them at that size, with those channels"
            )


def _texts(dataset: PictureDataset | None) -> list[str]:
    """The whole text of each picture."""
    return [] if dataset is None else [several[0].strip() for several in dataset.prompts]


def _wanted(
    pipeline: Pipeline, train: PictureDataset, held_out: PictureDataset | None, form: Form
) -> dict[str, list[str]]:
    """What to draw, by kind: of each text equally many, one after another."""
    wanted = {WITHOUT: [""] * form.pictures}
    if pipeline.config.text_encoder is None:
        return wanted
    learnt = set(_texts(train))
    kinds = {LEARNT: learnt, HELD: set(_texts(held_out)) - learnt}
    for name, texts in kinds.items():
        several = sorted(texts - {""})
        draw = samplers.seeded_generator(0, name)
        order = torch.randperm(len(several), generator=draw)[: form.texts].tolist()
        if order:
            each = -(-form.pictures // len(order))
            wanted[name] = [several[i] for i in order for _ in range(each)]
    return {name: wanted[name] for name in (LEARNT, HELD, WITHOUT) if name in wanted}


def _draw(pipeline: Pipeline, texts: Sequence[str], seed: int, bar: Any) -> Tensor:
    """One picture of each text, each from noise of its own: (N, C, H, W)."""
    parts = []
    for start in range(0, len(texts), 64):
        part = list(texts[start : start + 64])
        noise = [samplers.seeded_generator(seed, start + i) for i in range(len(part))]
        with warnings.catch_warnings():  # of texts that it was trained with
            warnings.simplefilter("ignore", UserWarning)
            parts.append(pipeline(part, num_inference_steps=STEPS, generator=noise))
        bar.update(len(part))
    images = torch.cat(parts)
    return images if pipeline.second is None else halved(images)


# -------------------------------------------------------------------- the measures


@plain_torch()
def losses(
    pipeline: Pipeline, train: PictureDataset, held_out: PictureDataset | None = None
) -> dict[str, dict[str, float]]:
    """The loss by timestep on training pictures and on held-out ones, with the same noise.

    Of either 512 pictures, or fewer as often as it takes, each time with other noise. See
    `minidiff.held_out.loss_by_timestep`.
    """
    result = {}
    for name, dataset in (("training", train), ("held out", held_out)):
        if dataset is None:
            continue
        total = len(dataset.images)
        rows = chosen(total) if total >= HELD_OUT else torch.arange(HELD_OUT) % total
        images = as_pictures(dataset.images[rows]).to(pipeline.device)
        condition: dict[str, Any] = {}
        if pipeline.config.text_encoder is not None:
            texts = _texts(dataset)
            text = pipeline.text_encoder.encode([texts[i] for i in rows.tolist()])
            condition = {"tokens": text.tokens, "mask": text.mask}
        result[name] = loss_by_timestep(pipeline.network, pipeline.config, images, **condition)
    return result


def _share(right: Tensor) -> dict[str, Any]:
    """The share of (N,) that is true, and its interval (Wilson)."""
    low, high = wilson(int(right.sum()), len(right))
    share = round(right.float().mean().item(), 4)
    return {"share": share, "interval": [round(low, 4), round(high, 4)], "of": len(right)}


def _copying(drawn: dict[str, Drawn], real: Yardstick) -> dict[str, Any]:
    """How many stand nearer to a training picture than all but 5 % of the real ones do.

    5 % is what no copying looks like. The line is that of these real pictures; the interval is for
    the drawn ones, of which there could have been others. Also how often, of a drawn and a real
    one, the drawn one is the nearer: half the time where nothing is copied.
    """
    line, rows = real.near.ratio.quantile(LINE), {}
    for name, some in drawn.items():
        nearer = (some.near.ratio[:, None] < real.near.ratio).float().mean().item()
        rows[name] = {
            **_share(some.near.ratio < line),
            "nearer": round(nearer, 4),
            "median_distance": round(some.near.distance.median().item(), 4),
        }
    return {
        "real": {
            "held_out": real.held_out,
            "pictures": len(real.rows),
            "twins": real.twins,
            "line": round(line.item(), 4),
            "median_distance": round(real.near.distance.median().item(), 4),
        },
        "rows": rows,
    }


def _variety(
    eye: Eye, drawn: dict[str, Drawn], known: Tensor, texts: list[str], real: Yardstick | None
) -> dict[str, dict[str, Any]]:
    """How far pictures of one text are from each other, and how many of them are different.

    Two count as the same that are nearer than 95 % of real pictures are to their nearest. Beside it
    stand as many real pictures of the same texts, where there are two at least.
    """
    line = TWIN if real is None else real.near.distance.quantile(LINE).item()
    places, result = _places(texts), dict[str, dict[str, Any]]()
    for name, some in drawn.items():
        ours, theirs = [], []
        for text, rows in _places(some.texts).items():
            own = chosen(len(known)).tolist() if name == WITHOUT else places.get(text, [])
            if (count := min(len(rows), len(own))) > 1:
                ours.append(some.looks[rows[:count]])
                theirs.append(known[own[:count]])
        groups = ours or [some.looks[rows] for rows in _places(some.texts).values()]
        result[name] = {
            "pictures": sum(map(len, groups)),
            "texts": len(groups),
            **_various(eye, groups, line),
            "real": _various(eye, theirs, line) if theirs else None,
        }
    return result


def _various(eye: Eye, groups: Sequence[Tensor], line: float) -> dict[str, float]:
    """The mean over groups of pictures, of one text each."""
    apart = [eye.spread(looks) for looks in groups if len(looks) > 1]
    single = sum(eye.different(looks, line) for looks in groups)
    return {
        "distance": round(sum(apart) / max(len(apart), 1), 4),
        "different": round(single / sum(map(len, groups)), 4),
    }


def _places(texts: Sequence[str]) -> dict[str, list[int]]:
    """Where each text stands."""
    places: dict[str, list[int]] = {}
    for i, text in enumerate(texts):
        places.setdefault(text, []).append(i)
    return places


def _found_again(
    eye: Eye, drawn: dict[str, Drawn], train: PictureDataset, held_out: PictureDataset | None
) -> dict[str, dict[str, Any]]:
    """How many drawn pictures are nearest to a real one of the text that they were drawn for.

    Only the real pictures of the texts that were asked for take part: of texts it learnt the
    training pictures, of held-out texts those that were held out. Beside it how many of these real
    pictures are nearest to another one of their text, if there are two, and what chance would give.
    """
    result = {}
    for name, dataset in ((LEARNT, train), (HELD, held_out)):
        if name not in drawn or dataset is None:
            continue
        asked = _places(drawn[name].texts)
        places = {t: rows for t, rows in _places(_texts(dataset)).items() if t in asked}
        if len(places) < 2:
            continue
        rows = torch.tensor([i for several in places.values() for i in several])
        of = [text for text, several in places.items() for _ in several]
        looks, counts = glance(dataset.images[rows]), Counter(of)
        found = eye.nearest(drawn[name].looks, looks).row.tolist()
        right = [of[i] == text for i, text in zip(found, drawn[name].texts)]
        share = sum(counts[text] for text in drawn[name].texts) / len(of) / len(right)
        row = {"texts": len(places), **_share(torch.tensor(right)), "chance": round(share, 4)}
        twice = [i for i in chosen(len(of)).tolist() if counts[of[i]] > 1]
        if twice:
            itself = torch.zeros(len(twice), len(of), dtype=torch.bool)
            itself[torch.arange(len(twice)), twice] = True
            others = eye.nearest(looks[twice], looks, itself).row.tolist()
            row["real"] = _share(torch.tensor([of[i] == of[j] for i, j in zip(twice, others)]))
        result[name] = row
    return result


def _words(
    drawn: dict[str, Drawn],
    real: Yardstick | None,
    train: PictureDataset,
    held_out: PictureDataset | None,
) -> dict[str, dict[str, Any]]:
    """Of pictures that were asked for with a word: how often the nearest training picture has it.

    Of the words that were asked for most and that at least three training pictures have, but no
    more than half of them. Beside it the same of real pictures.
    """
    has = [_set_of_words(text) for text in _texts(train)]
    common = Counter(word for words in has for word in words)
    ours = _answers([(s.texts, s.near) for n, s in drawn.items() if n != WITHOUT], has)
    theirs: dict[str, list[bool]] = {}
    if real is not None:
        texts = _texts(held_out if real.held_out else train)
        theirs = _answers([([texts[i] for i in real.rows.tolist()], real.near)], has)
    fit = [word for word in ours if 3 <= common[word] <= len(has) / 2]
    most = sorted(fit, key=lambda word: (-len(ours[word]), word))[:WORDS]
    return {
        word: {
            **_share(torch.tensor(ours[word])),
            "real": _share(torch.tensor(theirs[word])) if word in theirs else None,
            "chance": round(common[word] / len(has), 4),
        }
        for word in most
    }


def _set_of_words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _answers(sets: list[tuple[list[str], Near]], has: list[set[str]]) -> dict[str, list[bool]]:
    """For every word of the texts, of each picture, whether the nearest one has it."""
    answers: dict[str, list[bool]] = {}
    for texts, near in sets:
        for text, row in zip(texts, near.row.tolist()):
            for word in _set_of_words(text):
                answers.setdefault(word, []).append(word in has[row])
    return answers


# -------------------------------------------------------------------- the sheet


def sheet(
    drawn: dict[str, Drawn],
    train: Tensor,
    real: Yardstick | None = None,
    held_out: PictureDataset | None = None,
) -> Image:
    """Pairs: what was drawn, and the training picture that is nearest to it.

    Of each kind two rows of four from the one that stands nearest to the one that stands farthest;
    last, real pictures in the same order.

    Args:
        train: (N, C, H, W) uint8, the training pictures.
    """
    shown = [(name, some.images, some.near) for name, some in drawn.items()]
    if real is not None:
        whole = held_out.images if real.held_out and held_out is not None else train
        name = "held out" if real.held_out else "each training picture"
        shown.append((name, whole[real.rows], real.near))
    cells, labels = [], list[str]()
    for name, images, near in shown:
        order = near.ratio.argsort()
        rows = order[torch.linspace(0, len(order) - 1, 8).long()]
        ours, theirs = plots.to_uint8(images[rows]), train[near.row[rows]]
        between, beside = torch.full_like(ours[..., :1], 128), torch.full_like(ours[..., :3], 255)
        cells.append(torch.cat([ours, between, theirs, beside], 3))
        labels += [f"{name} | nearest of training, most alike first", "… to the least alike"]
    scale = max(1, round(96 / train.shape[3]))
    return plots.grid(torch.cat(cells), 4, scale, labels)
