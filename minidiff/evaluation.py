"""What `minidiff evaluate` measures of a model of glyphs, and beside what.

Numbers of samples, prompts and timesteps are fixed, and so is the noise for a given seed, so that
figures of different models can be compared: those of the full form, which takes distances of 1,034
samples. Of fewer they flatter a model that has lost variety (see `metrics.frechet_distance`), so
those of the quick form are for a first look. Every distance has its scale beside it: the *floor* is
what held-out real glyphs get, as many as there are samples, and the yardsticks are the same real
glyphs after a blur, thickened, in a bolder weight, in a serif font.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from minidiff import metrics, samplers
from minidiff.captions import named, radical_name
from minidiff.glyphs import DATA, GlyphDataset, load_glyphs, to_float
from minidiff.held_out import HeldOut, chosen, loss_by_timestep
from minidiff.inputs import plain_torch
from minidiff.recogniser import RADICALS, Recogniser, load_recogniser
from minidiff.schedules import whole_number
from minidiff.storage import read_info, read_tensors
from minidiff.wanted import EVERYDAY, WANTED, shows

if TYPE_CHECKING:
    from minidiff.pipeline import Pipeline

STEPS = 20  #: of the default sampler; students have their own
#: What the text alone tells of the radical, see `tools/data/text_yardsticks.py`.
TEXT_YARDSTICKS = (
    "text classifier, sampled",
    "text classifier, arg-max",
    "nearest definition's glyph",
)
#: Sets whose distances to real glyphs are taken.
SETS = ("without text", "guidance 1", "default guidance")
TEXT = DATA / "text_yardsticks"  #: the folder where these are kept
#: Fonts that the shipped model was not trained on.
SERIF, BOLD = DATA / "NotoSerifSC-test.otf", DATA / "NotoSansSC-Bold-test.otf"
REFERENCE = 4096  #: training glyphs that distances are taken to
COMMON = 20  #: training glyphs from which on a radical counts as a common one
NAMED = "default guidance, radical named"  #: the definition, followed by its glyph's radical


@dataclass(frozen=True)
class Form:
    """How much is drawn: held-out definitions, pictures of each prompt, and without text.

    A model without text draws as many pictures as there are definitions, if none are asked for.
    """

    definitions: int
    per_prompt: int  #: pictures of each word of `WANTED`
    without_text: int
    with_guidance: bool  #: whether definitions are drawn with guidance, too, and with the radical
    per_everyday: int = 0  #: pictures of each word of `EVERYDAY`
    per_radical: int = 0  #: pictures of each of the 214 radicals, by its name


#: What `minidiff evaluate` draws, and what it draws with `--full`.
FORMS = {"quick": Form(192, 6, 0, False), "full": Form(1034, 64, 1034, True, 16, 8)}


@plain_torch()
def evaluate(
    pipeline: Pipeline, form: Form, seed: int = 0, progress: bool = False
) -> dict[str, Any]:
    """All measures of a model of glyphs as plain numbers, see `minidiff evaluate --help`.

    Of a student no loss, for it learns jumps; of a cascade that of its first stage.

    Args:
        pipeline: a model of glyphs of at least 64 × 64.
        form: how much to draw, see `FORMS`.
        seed: of the noise that the pictures start from.
        progress: show a bar with the time left.

    Raises:
        ValueError: for a model of other pictures than grey glyphs, and of smaller ones, which the
            recogniser cannot read.
        TypeError: for a form that is none.
    """
    if not isinstance(form, Form):
        raise TypeError(f"form must be a Form such as FORMS['quick'], got {form!r}")
    seed = whole_number("seed", seed)
    if (size := _check_glyphs(pipeline)) < 64:
        raise ValueError(
            f"this model draws {size} × {size} pixels, but the recogniser reads glyphs of at least "
            "64 × 64, so only the loss on held-out glyphs can be measured (--loss-only)"
        )
    recogniser, record = _recogniser()
    test = HeldOut(form.definitions)
    text = pipeline.config.text_encoder is not None
    wanted = _texts(form, test, text)
    total = sum(len(texts) for texts in wanted.values())
    bar = tqdm(total=total, unit=" glyphs", desc="Drawing", disable=not progress, leave=False)
    with bar:
        drawn = {}
        for name, texts in wanted.items():
            plain = name in ("without text", "guidance 1")
            options: dict[str, Any] = {"guidance_scale": 1.0} if plain else {}
            drawn[name] = draw(pipeline, texts, seed, bar, **options)
    sets = {name: drawn[name] for name in SETS if name in drawn}
    result: dict[str, Any] = {
        "samples": dataclasses.asdict(form),
        "num_inference_steps": pipeline.settled(None, None)[0],
        "seed": seed,
        "distances": _distances(recogniser, test, sets),
        "copying": _copying(sets),
        "recogniser": record["held_out"],
    }
    if pipeline.config.student is None:
        result |= {"held_out_loss": held_out_loss(pipeline), "paper": _paper(pipeline, seed)}
    else:
        result["built_in_guidance"] = list(pipeline.config.student.guidance)
    if text:
        by_definition = {name: drawn[name] for name in (*SETS[1:], NAMED) if name in drawn}
        result["faithfulness"] = _faithfulness(recogniser, test, by_definition)
    for name, words in (("prompts", WANTED), ("everyday", EVERYDAY)):
        if name in drawn:
            pictures = drawn[name].unflatten(0, (len(words), -1))
            result[name] = _prompts(recogniser, dict(zip(words, pictures)))
    if "radicals" in drawn:
        result["radicals"] = _named_radicals(recogniser, drawn["radicals"])
    return result


def _texts(form: Form, test: HeldOut, text: bool) -> dict[str, list[str]]:
    """All that a model with or without text is asked for, by its name in the result."""
    if not text:
        return {"without text": [""] * (form.without_text or form.definitions)}
    texts = {"without text": [""] * form.without_text, "guidance 1": test.texts}
    if form.with_guidance:
        texts["default guidance"] = test.texts
        texts[NAMED] = [named(glyph.definition, glyph.radical) for glyph in test.glyphs]
    texts["prompts"] = [word for word in WANTED for _ in range(form.per_prompt)]
    texts["everyday"] = [word for word in EVERYDAY for _ in range(form.per_everyday)]
    every = range(1, RADICALS + 1)
    texts["radicals"] = [named("", radical) for radical in every for _ in range(form.per_radical)]
    return {name: wanted for name, wanted in texts.items() if wanted}


@lru_cache(maxsize=1)
def _recogniser() -> tuple[Recogniser, dict[str, Any]]:
    """One for all evaluations: what it sees in the real glyphs is kept as long as it is."""
    return load_recogniser()


def _check_glyphs(pipeline: Pipeline) -> int:
    data = pipeline.record.get("data") or {}  # earlier releases did not remember it
    if data.get("kind", "glyphs") != "glyphs":
        raise ValueError(
            f"this model was trained on other pictures ({data.get('path') or 'of a program'}), and "
            "all that is measured here is how near it comes to glyphs: see the log.jsonl and the "
            "samples of its run"
        )
    if (channels := pipeline.config.channels) != 1:
        raise ValueError(f"this model draws in {channels} channels, and glyphs are grey")
    if not isinstance(size := pipeline.config.image_size, int):
        raise ValueError(f"this model draws pictures of {size} pixels, and glyphs are square")
    return size


# ------------------------------------------------------------------- drawing


def draw(
    pipeline: Pipeline,
    texts: Sequence[str],
    seed: int = 0,
    bar: Any = None,
    **options: Any,
) -> Tensor:
    """One picture of each text, each from noise of its own: (N, 1, 64, 64).

    Args:
        bar: a progress bar that is told of every picture.
        options: of the pipeline.

    Raises:
        TypeError: for one text instead of a list.
        ValueError: for no texts.
    """
    if isinstance(texts, str):
        raise TypeError(f"texts must be a list of texts, got the text {texts!r}")
    if not len(texts):
        raise ValueError("there are no texts to draw")
    parts = []
    for start in range(0, len(texts), 64):
        part = texts[start : start + 64]
        noise = [samplers.seeded_generator(seed, start + i) for i in range(len(part))]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is longer than")  # some definitions are
            parts.append(pipeline(part, generator=noise, **options))
        if bar is not None:
            bar.update(len(part))
    images = torch.cat(parts)
    return images if images.shape[-1] == 64 else F.interpolate(images, (64, 64), mode="area")


# ------------------------------------------------------------------- the measures


@plain_torch()
def held_out_loss(pipeline: Pipeline) -> dict[str, float]:
    """The loss by timestep on 512 held-out glyphs, see `minidiff.held_out.loss_by_timestep`.

    Raises:
        ValueError: for a model of other pictures than grey glyphs.
    """
    dataset = GlyphDataset(_check_glyphs(pipeline), "test")
    rows = chosen(len(dataset))
    images = to_float(dataset.images[rows]).to(pipeline.device)
    if pipeline.config.text_encoder is None:
        return loss_by_timestep(pipeline.network, pipeline.config, images)
    text = pipeline.text_encoder.encode([dataset.prompts[i][0] for i in rows.tolist()])
    return loss_by_timestep(
        pipeline.network, pipeline.config, images, tokens=text.tokens, mask=text.mask
    )


def _distances(
    recogniser: Recogniser, test: HeldOut, sets: dict[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Every set, and the yardsticks, against the same real glyphs of the training split."""
    real = real_features(recogniser)
    count = min(len(test.images), *(len(images) for images in sets.values()))
    pictures = {
        **sets,
        "floor (held-out real glyphs)": test.images,
        "the same, blurred by 1 pixel": metrics.blurred(test.images),
        "the same, 1 pixel thicker": metrics.dilated(test.images),
        "the same in bold": test.in_font(BOLD),
        "the same with serifs": test.in_font(SERIF),
    }
    return {name: _measures(recogniser, real, x[:count]) for name, x in pictures.items()}


@lru_cache(maxsize=1)
@plain_torch()
def real_features(recogniser: Recogniser) -> Tensor:
    """(4096, 128): a fixed choice of training glyphs as the recogniser sees them."""
    train = GlyphDataset(64, "train").images
    choice = samplers.seeded_generator(0, "reference")
    order = torch.randperm(len(train), generator=choice)
    return metrics.features(recogniser, train[order[:REFERENCE]])


def _measures(recogniser: Recogniser, real: Tensor, images: Tensor) -> dict[str, float]:
    seen = metrics.features(recogniser, images)
    precision, recall = metrics.precision_recall(real[: len(seen)], seen)
    return {
        "frechet": round(metrics.frechet_distance(real, seen), 3),
        "kernel": round(metrics.kernel_distance(real, seen, min(256, len(seen))), 4),
        "precision": round(precision, 3),
        "recall": round(recall, 3),
        "edge_width": round(metrics.edge_width(images), 3),
        "grey_share": round(metrics.grey_share(images), 4),
        "specks": round(metrics.specks(images), 4),
        "off_white": round(metrics.off_white(images), 4),
        "samples": len(images),
    }


def _paper(pipeline: Pipeline, seed: int) -> float:
    """White of the border, +1 = paper, of 64 pictures drawn with no text and no clipping.

    By an even walk without fresh noise, which wanders outside the range more than the default does.
    """
    config = pipeline.config
    shape = (64, *config.shape)
    generators = [samplers.seeded_generator(seed, i) for i in range(64)]
    x = samplers.standard_normal(shape, generators, pipeline.device)
    grid = pipeline.schedule.timesteps(STEPS, shift=1)
    x = samplers.sample(pipeline.denoiser(), x, "dpmpp_2m", timesteps=grid)
    return round(metrics.border_white(config.space.to_images(x.cpu(), clip=False)), 4)


@lru_cache(maxsize=1)
def _nearest_of_real() -> Tensor:
    """(1034,) how far held-out real glyphs are from the nearest training glyph."""
    test, train = (GlyphDataset(64, split).images for split in ("test", "train"))
    return metrics.nearest_distance(test, train)


def _copying(sets: dict[str, Tensor]) -> dict[str, dict[str, Any]]:
    """How many are nearer to a training glyph than all but 5 % of held-out real glyphs are.

    Variants of a character are in one split with it, so a real held-out glyph is near to a training
    glyph only by chance; 5 % is what no copying at all looks like. The line is that of these real
    glyphs; the interval is for the drawn ones, of which there could have been others.
    """
    train, real = GlyphDataset(64, "train").images, _nearest_of_real()
    result: dict[str, dict[str, Any]] = {}
    for name, images in sets.items():
        distance = metrics.nearest_distance(images, train)
        result[name] = {
            **_share(distance < real.quantile(0.05)),
            "median_distance": round(distance.median().item(), 4),
            "median_distance_of_real": round(real.median().item(), 4),
        }
    return result


def _faithfulness(recogniser: Recogniser, test: HeldOut, sets: dict[str, Tensor]) -> dict[str, Any]:
    """Share of pictures whose radical is that of the character whose definition was asked for.

    Beside it what can be expected: a classifier of texts, whose radicals are drawn in proportion
    (which is what a perfect sampler does) or taken where they are most likely, and the glyph of the
    training definition that is nearest in meaning.
    """
    truth = torch.tensor([glyph.radical for glyph in test.glyphs])
    yardsticks = read_tensors(TEXT, "yardsticks.safetensors", read_info(TEXT))
    result: dict[str, Any] = {
        name: round(yardsticks[name][test.rows].mean().item(), 4) for name in TEXT_YARDSTICKS
    }
    pictures = {"real glyphs, as the recogniser reads them": test.images, **sets}
    for name, images in pictures.items():
        result[name] = _share(radicals(recogniser, images) == truth)
    return result


def _share(right: Tensor, digits: int = 4) -> dict[str, Any]:
    """The share of (N,) that is true, and its interval."""
    low, high = metrics.wilson(int(right.sum()), len(right))
    share = round(right.float().mean().item(), 4)
    return {"share": share, "interval": [round(low, digits), round(high, digits)]}


@torch.inference_mode()
def radicals(recogniser: Recogniser, images: Tensor) -> Tensor:
    """(N,) the likeliest radical of each picture (N, 1, 64, 64), 1 to 214."""
    logits = recogniser.logits(metrics.features(recogniser, images))[0]
    return logits.argmax(1) + 1


@lru_cache(maxsize=1)
def _known(recogniser: Recogniser) -> Tensor:
    """(20509, 128): all real glyphs as the recogniser sees them; takes some ten seconds."""
    return metrics.features(recogniser, GlyphDataset(64, "all").images)


def _prompts(recogniser: Recogniser, words: dict[str, Tensor]) -> dict[str, Any]:
    """For every prompt how many show what was asked for, and how many different glyphs they are."""
    known = _known(recogniser)
    names = {radical_name(i + 1) for i in range(RADICALS)}  # may have been prompts in training
    rows: dict[str, Any] = {}
    for word, images in words.items():
        closest = torch.cdist(metrics.features(recogniser, images), known).argmin(1)
        share = _share(shows(recogniser, images, word), digits=3)
        rows[word] = {**share, "different": len(closest.unique())}
    fewest, result = min(row["different"] for row in rows.values()), {}
    for name, some in (("mean", [*rows]), ("mean_of_others", [*(rows.keys() - names)])):
        result[name] = round(sum(rows[word]["share"] for word in some) / len(some), 4)
    return {**result, "fewest_different": fewest, "words": rows}


@torch.inference_mode()
def _named_radicals(recogniser: Recogniser, images: Tensor) -> dict[str, Any]:
    """How many pictures show the radical whose name was asked for: its yes-or-no question.

    Beside it what the recogniser answers for all real glyphs of that radical, which is less than 1
    where the radical is only a dictionary's choice or hardly to be seen (as in 丈, radical "one").

    Args:
        images: (214 · n, 1, 64, 64), n of each radical.
    """
    glyphs = load_glyphs()
    truth = torch.tensor([glyph.radical for glyph in glyphs])
    in_training = torch.tensor([glyph.split == "train" for glyph in glyphs])
    known = recogniser.logits(_known(recogniser))[0] > 0
    drawn = recogniser.logits(metrics.features(recogniser, images))[0] > 0
    rows: dict[str, dict[str, Any]] = {}
    for i, shown in enumerate(drawn.unflatten(0, (RADICALS, -1))):
        having = truth == i + 1
        rows[radical_name(i + 1)] = {
            **_share(shown[:, i], digits=3),
            "real": round(known[having, i].float().mean().item(), 4),
            "radical": i + 1,
            "training_glyphs": int((having & in_training).sum()),
        }

    def summary(some: list[dict[str, Any]]) -> dict[str, float]:
        shares, real = ([row[key] for row in some] for key in ("share", "real"))
        mean, mean_of_real = (round(sum(x) / len(x), 4) for x in (shares, real))
        return {"mean": mean, "worst": min(shares), "real": mean_of_real, "radicals": len(some)}

    common = [row for row in rows.values() if row["training_glyphs"] >= COMMON]
    rare = [row for row in rows.values() if row["training_glyphs"] < COMMON]
    return {"common": summary(common), "rare": summary(rare), "rows": rows}
