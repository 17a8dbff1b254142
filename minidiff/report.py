"""What `minidiff.evaluation` has measured, as tables for reading."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

#: Measures of a set of pictures, by their keys, and what stands above them in two lines.
COLUMNS = {
    "frechet": ("frechet", "distance"),
    "kernel": ("kernel", "distance"),
    "precision": ("precision", "look real"),
    "recall": ("recall", "variety"),
    "edge_width": ("edges", "pixels"),
    "grey_share": ("grey", "of all"),
    "specks": ("specks", "a glyph"),
    "off_white": ("off-white", "of all"),
}
COMPARABLE = 1000  # samples; of fewer the bias of a distance tells more of variety than of quality


def as_text(result: dict[str, Any]) -> str:
    """What `minidiff.evaluation.evaluate` returned, as tables.

    The record of an earlier release lacks some measures: their tables are left out, and what lacks
    in a table is a dash.
    """
    tables = [table(result[name]) for name, table in _TABLES.items() if name in result]
    return "\n\n".join(["\n".join(lines) for lines in (_steps(result), *tables) if lines])


def _steps(result: dict[str, Any]) -> list[str]:
    steps = result.get("num_inference_steps")
    if steps is None:  # of a model's loss alone
        return []
    if "built_in_guidance" in result:
        return [f"{steps} steps of one evaluation each, with guidance, which is built in"]
    evaluations = f"{steps} evaluations a glyph, {2 * steps} with guidance"
    return [f"{steps} steps of the default sampler: {evaluations}"]


def _distance_table(distances: dict[str, dict[str, float]]) -> list[str]:
    samples = next(iter(distances.values()))["samples"]
    lines = [f"Against real glyphs, {samples:,} samples"]
    if samples < COMPARABLE:
        lines[0] += ": for a first look; distances of so few are not to be compared"
    for heading in zip(*COLUMNS.values()):
        lines.append(" " * 29 + "".join(f"{text:>10}" for text in heading))
    for name, row in distances.items():
        lines.append(f"{name:<29}" + "".join(f"{row.get(key, '–'):>10}" for key in COLUMNS))
    return [
        *lines,
        "precision: share of these that look like real ones; recall: share of the real ones that",
        "these come near to, and what it lacks of the floor's is lost variety",
    ]


def _full_size_table(rows: dict[str, dict[str, float]]) -> list[str]:
    columns = {key: COLUMNS[key] for key in ("edge_width", "grey_share", "specks", "off_white")}
    columns["seams"] = ("seams", "of 8")
    lines = [f"At full size, {next(iter(rows.values()))['samples']:,} samples"]
    for heading in zip(*columns.values()):
        lines.append(" " * 29 + "".join(f"{text:>10}" for text in heading))
    lines += [
        f"{n:<29}" + "".join(f"{row.get(key, '–'):>10}" for key in columns)
        for n, row in rows.items()
    ]
    said = "seams: how else than in real glyphs edges lie on a grid of 8 pixels; 0 is as in them"
    return [*lines, said]


def _interval(row: dict[str, Any], digits: int = 0) -> str:
    low, high = row["interval"]
    return f"({low:.{digits}%} to {high:.{digits}%})"


def _share_table(title: str) -> Callable[[dict[str, Any]], list[str]]:
    def table(rows: dict[str, Any]) -> list[str]:
        lines = [title]
        for name, row in rows.items():
            if isinstance(row, float):
                lines.append(f"{name:<44}{row:>7.1%}")
            else:
                lines.append(f"{name:<44}{row['share']:>7.1%}  {_interval(row, 1)}")
        return lines

    return table


def _others(prompts: dict[str, Any]) -> str:
    """What is to be said of the words that no radical has for a name."""
    others = prompts.get("mean_of_others")  # which an earlier release did not take apart
    return "" if others is None else f", {others:.1%} over those that name no radical"


def _prompt_table(prompts: dict[str, Any]) -> list[str]:
    words = prompts["words"]
    lines = [
        f"Shows what was asked for: {prompts['mean']:.1%} over {len(words)} words{_others(prompts)}"
    ]
    for word, row in words.items():
        lines.append(
            f"{word:<12}{row['share']:>7.1%}  {_interval(row):<15}{row['different']:>4} different"
        )
    return lines


def _everyday_table(everyday: dict[str, Any]) -> list[str]:
    words = everyday["words"]
    title = f"Shows what was asked for: {everyday['mean']:.1%} over {len(words)} everyday words"
    title += _others(everyday)
    return [f"{title}; the worst ten:", *_worst(words)]


def _radical_table(radicals: dict[str, Any]) -> list[str]:
    common, rare = radicals["common"], radicals["rare"]
    return [
        'Shows the radical that was asked for by its name ("heart radical"):',
        f"{common['mean']:.1%} over the {common['radicals']} radicals with at least 20 training "
        f"glyphs (real ones {common['real']:.1%}), worst {common['worst']:.1%}",
        f"{rare['mean']:.1%} over the {rare['radicals']} with fewer (real ones {rare['real']:.1%});"
        " the worst ten of all:",
        *_worst(radicals["rows"]),
    ]


def _worst(rows: dict[str, Any]) -> list[str]:
    """The ten with the smallest shares, in two columns."""
    worst = sorted(rows, key=lambda name: rows[name]["share"])[:10]
    cells = [f"{n:<20}{rows[n]['share']:>7.1%}  {_interval(rows[n]):<15}" for n in worst]
    half = (len(cells) + 1) // 2
    return ["  ".join(cells[i::half]).rstrip() for i in range(half)]


def _loss_table(losses: dict[str, float]) -> list[str]:
    return [
        "Loss on held-out glyphs, by timestep",
        "".join(f"{t:>8}" for t in losses),
        "".join(f"{loss:>8.3f}" for loss in losses.values()),
    ]


_TABLES: dict[str, Callable[[Any], list[str]]] = {
    "distances": _distance_table,
    "full_size": _full_size_table,
    "paper": lambda white: [f"Border without clipping (white paper = 1): {white:.3f}"],
    "faithfulness": _share_table("Radical of the character whose definition was asked for"),
    "radicals": _radical_table,
    "prompts": _prompt_table,
    "everyday": _everyday_table,
    "copying": _share_table("Nearer to a training glyph than 95 % of held-out real ones are"),
    "held_out_loss": _loss_table,
}


# ------------------------------------------------------------------- one's own pictures


def of_own(result: dict[str, Any]) -> str:
    """What `minidiff.own_evaluation` has measured, as tables."""
    tables = [table(result[name]) for name, table in _OWN.items() if result.get(name)]
    if "copying" in result and not result["copying"]:
        few = "Whether it copied cannot be said: there are too few pictures, or all are the same"
        tables.insert(2, [few])
    return "\n\n".join("\n".join(lines) for lines in tables)


def _own_losses(losses: dict[str, dict[str, float]]) -> list[str]:
    lines = ["Loss by timestep, with the same noise"]
    lines.append(f"{'':<12}" + "".join(f"{t:>8}" for t in losses["training"]))
    for name, row in losses.items():
        lines.append(f"{name:<12}" + "".join(f"{loss:>8.3f}" for loss in row.values()))
    if "held out" not in losses:
        return [
            *lines,
            "nothing was held out: train with --held-out 0.1 to see what it has not learnt",
        ]
    ratios = [held / max(losses["training"][t], 1e-9) for t, held in losses["held out"].items()]
    lines.append(f"{'ratio':<12}" + "".join(f"{ratio:>8.2f}" for ratio in ratios))
    return [*lines, "well above 1: it knows its training pictures by heart there"]


def _own_copying(copying: dict[str, Any]) -> list[str]:
    real = copying["real"]
    which = "held-out real ones" if real["held_out"] else "training pictures are to each other"
    lines = [
        f"Copies: nearer to a training picture than 95 % of {which}",
        f"{'':<30}{'copies':>8}{'':<20}{'nearer':>8}{'distance':>10}",
    ]
    for name, row in copying["rows"].items():
        lines.append(
            f"{name:<30}{row['share']:>8.1%}  {_interval(row, 1):<18}{row['nearer']:>8.2f}"
            f"{row['median_distance']:>10.3f}"
        )
    name = f"{real['pictures']} real ones"
    lines.append(f"{name:<30}{0.05:>8.1%}{'':<20}{0.5:>8.2f}{real['median_distance']:>10.3f}")
    lines.append(
        "nearer: how often, of a drawn and a real one, the drawn one is; 0.50 is no copying"
    )
    if real["line"] < 0.05:
        lines.append("real ones are so alike that copies cannot be told from new ones")
    if real["pictures"] < 100:
        lines.append(f"of {real['pictures']} real ones the line is a rough one: look at the sheet")
    if real["twins"]:
        lines.append(f"{real['twins']} real ones are there twice: their doubles were passed over")
    return lines


def _own_variety(variety: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "Variety: pictures of one text, and as many real ones of it",
        f"{'':<30}{'distance':>10}{'of real':>10}{'different':>12}{'of real':>10}",
    ]
    for name, row in variety.items():
        real = row["real"]
        shown = [f"{real[key]:{form}}" if real else "–" for key, form in _VARIOUS.items()]
        lines.append(
            f"{name:<30}{row['distance']:>10.3f}{shown[0]:>10}{row['different']:>12.0%}{shown[1]:>10}"
        )
    return lines


_VARIOUS = {"distance": ".3f", "different": ".0%"}


def _own_texts(texts: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["Texts: nearest to a real picture of the text that it was drawn for"]
    for name, row in texts.items():
        real = f"real ones {row['real']['share']:.1%}, " if "real" in row else ""
        beside = f"{real}chance {row['chance']:.1%}, {row['texts']} texts"
        lines.append(f"{name:<30}{row['share']:>8.1%}  {_interval(row, 1):<18}{beside}")
    return lines


def _own_words(words: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "Words: the nearest training picture has the word that was asked for",
        f"{'':<20}{'drawn':>8}{'':<16}{'real':>8}{'chance':>8}",
    ]
    for word, row in words.items():
        real = f"{row['real']['share']:.0%}" if row["real"] else "–"
        ours = f"{row['share']:>8.0%}  {_interval(row):<14}"
        lines.append(f"{word[:19]:<20}{ours}{real:>8}{row['chance']:>8.0%}")
    return lines


_OWN: dict[str, Callable[[Any], list[str]]] = {
    "pictures": lambda pictures: [
        f"{pictures['learnt']:,} pictures learnt, {pictures['held_out']:,} held out"
    ],
    "loss": _own_losses,
    "copying": _own_copying,
    "variety": _own_variety,
    "texts": _own_texts,
    "words": _own_words,
    "sheet": lambda path: [f"{path}: what was drawn, and the nearest training picture beside it"],
}


# ------------------------------------------------------------------- a folder, before training


def of_data(result: dict[str, Any]) -> str:
    """What `minidiff data` has found, as paragraphs with a heading each."""
    height, width = result["image_size"]
    tone = "colour" if result["channels"] == 3 else "grey"
    paragraphs = {
        "Pictures": f"{result['listed']:,} in {result['folder']}; texts: {result['texts_from']}",
        "Files": _data_files(result),
        "Learnt as": ". ".join([f"{height} × {width} pixels in {tone}", *result["notices"]]),
        "Refused": _data_refused(result),
        "Doubles": _data_doubles(result),
        "Texts": _data_texts(result["texts"]),
        "Recipe": result["why"],
    }
    wrap = textwrap.TextWrapper(98, subsequent_indent=" " * 11, break_on_hyphens=False)
    return "\n".join(wrap.fill(f"{name:<11}{_plain(text)}") for name, text in paragraphs.items())


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)


def _data_files(result: dict[str, Any]) -> str:
    sizes, longer = result["sizes"], result["longer_side"]
    most = f"{sizes[0]['height']} × {sizes[0]['width']}"
    said = f"all of {most} pixels (height × width)"
    if len(sizes) > 1:
        said = (
            f"{len(sizes):,} sizes, most often {most} pixels (height × width, "
            f"{sizes[0]['pictures']:,} pictures); longer side {longer['smallest']} to "
            f"{longer['largest']}, half of them up to {longer['median']}"
        )
    clear = result["transparent"]
    tail = f"; {clear:,} may be transparent and lie on paper" if clear else ""
    return f"{said}; {result['colour']:,} in colour, {result['grey']:,} grey{tail}"


def _data_refused(result: dict[str, Any]) -> str:
    refused = result["refused"]
    if not refused:
        return "none"
    first = "; ".join(f"{row['file_name']!r}: {row['reason']}" for row in refused[:5])
    if result["skip_unreadable"]:
        ends = "they are left out"
    else:
        ends = "training stops at once, unless --skip-unreadable is given"
    more = "; …" if len(refused) > 5 else ""
    return f"{len(refused):,} of {result['listed']:,}, and {ends}. {first}{more}"


def _data_doubles(result: dict[str, Any]) -> str:
    groups = result["equal"]
    if not groups:
        return "none"
    doubles = sum(len(group) - 1 for group in groups)
    other = result["equal_with_other_texts"]
    tail = f"; in {other:,} cases with different texts" if other else ""
    first = " = ".join(map(repr, groups[0][:2]))
    return f"{doubles:,} pictures are the same as another one at this size, first {first}{tail}"


def _data_texts(texts: dict[str, Any]) -> str:
    """Different ones, how many pictures each has, the longest, what is not read."""
    (most, count), fewest = next(iter(texts["most"].items())), texts["fewest_pictures"]
    each = f"for {fewest:,} to {count:,} pictures each, most for {most!r}"
    if fewest == count:
        each = f"for {count:,} picture{'s' * (count > 1)} each"
    said = [f"{texts['different']:,} different, {each}; the longest {texts['longest'][:200]!r}"]
    if texts["pictures_without"]:
        said.append(f"{texts['pictures_without']:,} pictures have none")
    if texts["max_tokens"] is None:
        return ". ".join([*said, "A model without text learns from them"])
    if cut := texts["cut"]:
        said.append(
            f"{len(cut):,} are longer than the {texts['max_tokens']} tokens that are read, first "
            f"{cut[0][:200]!r}"
        )
    if words := texts["unknown_words"]:
        several = ", ".join(words[:10]) + (", …" if len(words) > 10 else "")
        said.append(f"{len(words):,} words mean little to the text encoder: {several}")
    return ". ".join(said)
