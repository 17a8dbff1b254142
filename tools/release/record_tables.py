"""What a model's record says of its quality, in Markdown: its card, README's table, old and new.

Everything here is made of the "evaluation" that a record holds, which `minidiff evaluate --full
--json` prints, so that what is written in several places cannot disagree. A measure that an earlier
release did not take is left out.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from minidiff.model import ModelConfig
from minidiff.report import as_text
from minidiff.shelf import model_card

Figures = dict[str, Any]
FLOOR, BLURRED = "floor (held-out real glyphs)", "the same, blurred by 1 pixel"
BOLD, GUIDED = "the same in bold", "default guidance"
NAMED = "default guidance, radical named"
START, END = "<!-- figures of the record -->\n", "<!-- end of the figures -->"
TRAINED = re.compile(r"(\| training of the shipped model: )[\d,]+( glyphs seen \| )[^|]+( \|)")

CARD = """# {name}

Draws Chinese glyphs from English words: {size} × {size} pixels, {parameters:.2f} M parameters,
{megabytes:.1f} MB.

    import minidiff
    images = minidiff.load("{name}")("gold", num_images_per_prompt=16)

## Data
{training_images:,} characters with English definitions (Unihan 15.0), drawn in Noto Sans SC; 1,034
more are held out, families of variants and equal definitions as a whole. Text is read by
all-MiniLM-L6-v2.

## Training
{training}

## Figures
`minidiff evaluate --full --model {name}`, seed {seed}:

```text
{figures}
```

The recogniser that looks at them reads the radical of {recogniser:.1%} of held-out real glyphs.

## Known failures
{failures}

## Licence
The weights: MIT, like the code. They were trained on pictures of a font under the SIL Open Font
License 1.1 and on definitions under the Unicode licence; see NOTICE in the package's data folder.
"""


class Row(NamedTuple):
    """A measure, what the model has, and what to hold it against."""

    measure: str
    drawn: str
    beside: str


def percent(share: float, digits: int = 0) -> str:
    """In words; 99.6 % is not 100 %, nor 0.4 % nought."""
    if not digits and 0 < share < 1 and round(share, 2) in (0, 1):
        digits = 1
    return f"{100 * share:.{digits}f} %"


def excess(figures: Figures, name: str) -> float:
    """Fréchet distance beyond that of as many real glyphs."""
    distance = {key: row["frechet"] for key, row in figures["distances"].items()}
    return distance[name] - distance[FLOOR]


def quality(figures: Figures, record: dict[str, Any]) -> dict[str, Any]:
    """The few figures that `minidiff.pretrained()` prints."""
    blurs = excess(figures, "guidance 1") / excess(figures, BLURRED)
    loss = figures.get("held_out_loss")  # a student has none
    return {
        "20 words shown": percent(figures["prompts"]["mean"]),
        "radical of held-out definitions": percent(figures["faithfulness"][GUIDED]["share"]),
        "excess distance / 1-pixel blur": round(blurs, 2),
        **({"held-out loss": loss["mean"]} if loss else {}),
        "images seen": record["images_seen_in_all"],
    }


def rows(figures: Figures, size: dict[str, float]) -> list[Row]:
    """The measures that tell most, each with its scale beside it.

    Args:
        figures: the "evaluation" of a record.
        size: see `size`.
    """
    parameters = Row(
        "parameters; weights on disk",
        f"{size['parameters']:.2f} M; {size['megabytes']:.1f} MB",
        "two bytes a parameter",
    )
    return [*_of_distances(figures), *_of_texts(figures), *_of_strokes(figures), parameters]


def _of_distances(figures: Figures) -> list[Row]:
    distances, copying = figures["distances"], figures["copying"]
    drawn, real, blurred = (distances[name] for name in ("guidance 1", FLOOR, BLURRED))
    shares = [row["share"] for row in copying.values()]
    highest = max(row["interval"][1] for row in copying.values())
    return [
        Row(
            "Fréchet distance beyond that of real glyphs, without guidance",
            f"{excess(figures, 'guidance 1'):.1f}",
            f"{excess(figures, BLURRED):.1f} for real glyphs after a blur of one pixel, "
            f"{excess(figures, BOLD):.1f} for bold ones",
        ),
        Row(
            "kernel distance, without guidance",
            f"{drawn['kernel']:.3f}",
            f"{real['kernel']:.3f} for real glyphs, {blurred['kernel']:.3f} after the blur",
        ),
        Row(
            "recall, without guidance: how much of the variety is there",
            f"{drawn['recall']:.2f}",
            f"{real['recall']:.2f} for real glyphs",
        ),
        Row(
            "nearer to a training glyph than all but 5 % of unseen real ones",
            " to ".join(percent(share, 1) for share in sorted({min(shares), max(shares)})),
            f"5 % means no copying; the intervals end at {percent(highest, 1)}",
        ),
    ]


def _of_texts(figures: Figures) -> list[Row]:
    faithful, words = figures["faithfulness"], figures["prompts"]["words"]
    sampled, likeliest, nearest = (
        percent(faithful[name])
        for name in (
            "text classifier, sampled",
            "text classifier, arg-max",
            "nearest definition's glyph",
        )
    )
    result = [
        Row(
            "radical of a held-out definition's character, without guidance",
            percent(faithful["guidance 1"]["share"]),
            f"{sampled} for a classifier of texts, sampled",
        ),
        Row(
            "the same with guidance 3",
            percent(faithful[GUIDED]["share"]),
            f"{likeliest} for its likeliest answer, {nearest} for the nearest definition's glyph",
        ),
    ]
    if NAMED in faithful:
        read = faithful["real glyphs, as the recogniser reads them"]["share"]
        result.append(
            Row(
                "the same with the radical named",
                percent(faithful[NAMED]["share"]),
                f"{percent(read)} for the real glyphs, as the recogniser reads them",
            )
        )
    samples = figures["samples"]
    if "radicals" in figures:
        common, rare = figures["radicals"]["common"], figures["radicals"]["rare"]
        result.append(
            Row(
                f"{common['radicals']} radicals by name × {samples['per_radical']}, those with at "
                "least 20 training glyphs",
                percent(common["mean"]),
                f"{percent(common['real'])} for their real glyphs, {percent(common['worst'])} for "
                f"the worst, {percent(rare['mean'])} for the {rare['radicals']} rarer ones",
            )
        )
    per_word = samples["per_prompt"]
    result.append(_of_words(f"{len(words)} common words × {per_word}", figures["prompts"]))
    if "everyday" in figures:
        count = len(figures["everyday"]["words"])
        what = f"{count} everyday words × {samples['per_everyday']}"
        result.append(_of_words(what, figures["everyday"]))
    fewest = min(words, key=lambda word: words[word]["different"])
    different = str(words[fewest]["different"])
    result.append(Row(f"different glyphs of {per_word}, the word with fewest", different, fewest))
    return result


def _of_words(what: str, result: dict[str, Any]) -> Row:
    words = result["words"]
    worst = min(words, key=lambda word: words[word]["share"])
    return Row(
        f"{what}: the wanted component is there",
        percent(result["mean"]),
        f"{worst} {percent(words[worst]['share'])}, the worst",
    )


def _of_strokes(figures: Figures) -> list[Row]:
    drawn, real, blurred = (figures["distances"][n] for n in (GUIDED, FLOOR, BLURRED))
    result = []
    if "specks" in drawn:
        result.append(
            Row(
                "specks: blobs of ink of fewer than 20 pixels, a glyph",
                f"{drawn['specks']:.2f}",
                f"{real['specks']:.2f} for real glyphs",
            )
        )
    if "off_white" in drawn:
        result.append(
            Row(
                "pixels that are not quite white",
                percent(drawn["off_white"], 1),
                f"{percent(real['off_white'], 1)} for real glyphs",
            )
        )
    edge = f"{real['edge_width']:.2f} in the font, {blurred['edge_width']:.2f} after the blur"
    result.append(Row("edge of a stroke, pixels", f"{drawn['edge_width']:.2f}", edge))
    if "paper" in figures:
        result.append(Row("white of the border before clipping", f"{figures['paper']:.3f}", "1"))
    return result + _at_full_size(figures)


def _at_full_size(figures: Figures) -> list[Row]:
    if "full_size" not in figures:
        return []
    drawn, real, enlarged = figures["full_size"].values()
    names = {"edge_width": "edge of a stroke, pixels", "specks": "specks a glyph"}
    return [
        Row(
            f"at full size: {name}",
            f"{drawn[key]:.2f}",
            f"{real[key]:.2f} for real glyphs, {enlarged[key]:.2f} for them at 64 × 64, enlarged",
        )
        for key, name in names.items()
    ]


# ------------------------------------------------------------------- where they stand


def size(folder: Path) -> dict[str, float]:
    """Millions of parameters and megabytes of a model in a folder, with all that it draws with."""
    whole = model_card(folder)
    return {"parameters": whole.parameters / 1e6, "megabytes": whole.megabytes}


def card(
    name: str,
    config: ModelConfig,
    record: dict[str, Any],
    size: dict[str, float],
    training: str,
    failures: str,
) -> str:
    """The model card; `training` and `failures` are its parts that no figure tells."""
    figures = record["evaluation"]
    return CARD.format(
        **size,
        name=name,
        size=config.image_size,
        training_images=record["training_images"],
        training=training,
        failures=failures,
        seed=figures["seed"],
        figures=as_text(figures),
        recogniser=figures["recogniser"]["sans"]["radical"],
    )


def section(figures: Figures, size: dict[str, float]) -> str:
    """What README says between the two comments: how it was measured, and the table."""
    steps, samples = figures["num_inference_steps"], figures["distances"][FLOOR]["samples"]
    read = percent(figures["recogniser"]["sans"]["radical"])
    how = (
        f"{steps} steps of the default sampler ({steps} evaluations a glyph without guidance, "
        f"{2 * steps} with guidance 3), seed {figures['seed']}; {samples:,} glyphs for every "
        f"distance. A recogniser that has seen only real glyphs, and reads the radical of {read} "
        "of characters it never saw, looks at everything."
    )
    lines = [
        *textwrap.wrap(how, 100),
        "",
        "| measure | drawn | beside it |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows(figures, size)),
        "",
    ]
    return "\n".join(lines) + "\n"


def readme(text: str, record: dict[str, Any], size: dict[str, float]) -> str:
    """README with what a record says in its places.

    Raises:
        ValueError: if a place is missing.
    """
    head, start, rest = text.partition(START)
    _, end, tail = rest.partition(END)
    if not (start and end and TRAINED.search(text)):
        raise ValueError(
            f"README.md has lost the line {START.strip()}, the line {END} or the row "
            '"training of the shipped model: … glyphs seen": put it back'
        )
    text = head + start + section(record["evaluation"], size) + end + tail
    stages = [*record.get("stages", []), record]
    hours = sum(stage["seconds"] for stage in stages) / 3600
    where = "CPU" if all(stage["device"].startswith("cpu") for stage in stages) else "CPU and GPU"
    seen = f"{record['images_seen_in_all']:,}"
    return TRAINED.sub(rf"\g<1>{seen}\g<2>{hours:.1f} hours, {where}\g<3>", text)


def comparison(old: dict[str, Any] | None, new: dict[str, Any]) -> list[str]:
    """Old | new in lines of Markdown; "–" for what was not measured.

    Args:
        old, new: {"figures": …, "size": …} of two models; no `old` where none ships yet, and no
            figures in it where it was never measured.
    """
    measured = rows(old["figures"], old["size"]) if old and old["figures"] else []
    before = {row.measure: row.drawn for row in measured}
    lines = ["| measure | old | new | beside it |", "|---|---|---|---|"]
    for row in rows(new["figures"], new["size"]):
        cells = (row.measure, before.get(row.measure, "–"), row.drawn, row.beside)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def report(flagged: list[dict[str, Any]]) -> list[str]:
    """Every cell that failed, in lines of Markdown: what it asserts, and the prose around it.

    Those that were mended since stand there, too, with the prose as it was.
    """
    if not flagged:
        return ["No cell failed: what the prose asserts of the weights is true."]
    many = "1 cell" if len(flagged) == 1 else f"{len(flagged)} cells"
    still = sum(not cell["mended"] for cell in flagged)
    if still:
        lines = [f"{many} failed, open: {still}; the prose around those may be true no longer:"]
    else:
        lines = [f"{many} failed, open: none; what the prose asserts of the weights is true now."]
    for cell in flagged:
        where = f"### {cell['notebook']}, {'mended' if cell['mended'] else 'open'}"
        lines += ["", where, "", "```python", cell["code"], "```", ""]
        lines += [cell["message"], ""]
        for text in cell["prose"]:
            lines += [*(f"> {line}".rstrip() for line in text.splitlines()), ""]
    return lines


def log(state: dict[str, Any]) -> str:
    """What is kept of a release, in Markdown: machine, weights, table, times, failed cells."""
    old = state["old"]["weights"] if state["old"] else "none"
    lines = [
        f"# Release of {state['name']}",
        "",
        "Written by `python tools/release/release.py`.",
        "",
        f"- machine: {state['machine']}",
        f"- weights, SHA-256: {state['weights']}",
        f"- in place of: {old}",
        "",
        "## Old and new",
        "",
        *state["table"],
        "",
        "## Steps",
        "",
        "| step | seconds |",
        "|---|---|",
        *(f"| {name} | {done['seconds']:,} |" for name, done in state["steps"].items()),
        "",
        "## Failed cells",
        "",
        *(report(state["flagged"]) if "notebooks" in state["steps"] else ["Not run yet."]),
    ]
    return "\n".join(lines).rstrip() + "\n"
