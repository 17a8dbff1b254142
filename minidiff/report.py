"""What `minidiff.evaluation` has measured, as tables for reading."""

from __future__ import annotations

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
    return "\n\n".join("\n".join(lines) for lines in tables)


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
    keys = ("edge_width", "grey_share", "specks", "off_white")
    lines = [f"At full size, {next(iter(rows.values()))['samples']:,} samples"]
    for heading in zip(*(COLUMNS[key] for key in keys)):
        lines.append(" " * 29 + "".join(f"{text:>10}" for text in heading))
    lines += [f"{n:<29}" + "".join(f"{row[key]:>10}" for key in keys) for n, row in rows.items()]
    return lines


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
    "num_inference_steps": lambda steps: [
        f"{steps} steps of the default sampler: {steps} evaluations a glyph, "
        f"{2 * steps} with guidance"
    ],
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
