"""What `minidiff.evaluation` has measured, as tables for reading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def as_text(result: dict[str, Any]) -> str:
    """What `minidiff.evaluation.evaluate` returned, as tables."""
    tables = [table(result[name]) for name, table in _TABLES.items() if name in result]
    return "\n\n".join("\n".join(lines) for lines in tables)


def _distance_table(distances: dict[str, dict[str, float]]) -> list[str]:
    samples = next(iter(distances.values()))["samples"]
    head = f"Against real glyphs, {samples} samples"
    columns = ("frechet", "kernel", "precision", "recall", "edge_width", "grey_share")
    lines = [f"{head:<32}" + "".join(f"{name.replace('_', ' '):>12}" for name in columns)]
    for name, row in distances.items():
        lines.append(f"{name:<32}" + "".join(f"{row[column]:>12}" for column in columns))
    return lines


def _share_table(title: str) -> Callable[[dict[str, Any]], list[str]]:
    def table(rows: dict[str, Any]) -> list[str]:
        lines = [title]
        for name, row in rows.items():
            if isinstance(row, float):
                lines.append(f"{name:<44}{row:>7.1%}")
            else:
                low, high = row["interval"]
                lines.append(f"{name:<44}{row['share']:>7.1%}  ({low:.1%} to {high:.1%})")
        return lines

    return table


def _prompt_table(prompts: dict[str, Any]) -> list[str]:
    lines = [f"Shows what was asked for: {prompts['mean']:.1%} over 20 words"]
    for word, row in prompts["words"].items():
        low, high = row["interval"]
        interval = f"({low:.0%} to {high:.0%})"
        lines.append(
            f"{word:<12}{row['share']:>7.1%}  {interval:<15}{row['different']:>4} different"
        )
    return lines


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
    "paper": lambda white: [f"Border without clipping (white paper = 1): {white:.3f}"],
    "faithfulness": _share_table("Radical of the character whose definition was asked for"),
    "prompts": _prompt_table,
    "copying": _share_table("Nearer to a training glyph than 95 % of held-out real ones are"),
    "held_out_loss": _loss_table,
}
