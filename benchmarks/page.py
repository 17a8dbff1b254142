"""Write book/benchmarks.md from what lies in benchmarks/results.

    python benchmarks/page.py

Each measurement makes its own section of the page from its result; one that has not been made yet
is named there with its command. Needs none of the libraries that are compared with.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
from pathlib import Path
from typing import Any

from machine import RESULTS, described

PAGE = Path(__file__).resolve().parents[1] / "book" / "benchmarks.md"
START = """<!-- Made by `python benchmarks/page.py` from benchmarks/results; do not edit. -->

# Benchmarks

What was measured about this package: how fast it is beside others, what each decision brought, how
cost grows, and how good the glyphs are for how much work. Every section names the machine, the seed
and the command that repeats it; the figures behind it lie in `benchmarks/results`. Where ours is
not faster or not better, that stands there, too. With one thread, seconds are the processor's, not
the clock's, so that other work on the same core counts for little; ratios come from turns in one
process.
"""

# (result, module with its `section`, heading)
PARTS = (
    ("step_and_forward", "step_and_forward", "The network against other libraries'"),
    ("ablation", "ablation", "What each step brought"),
    ("sampling_loop", "sampling_loop", "The sampling loop, and the shipped network"),
    ("growth", "growth", "How cost grows"),
    ("gpu", "gpu", "On a GPU"),
    ("time_to_quality", "time_to_quality", "Quality after so many minutes of training"),
    ("sixteen_glyphs", "sixteen_glyphs", "Sixteen glyphs, in turns"),
    ("study", "study", "What a setting of the training gains or loses"),
    ("captions", "captions", "Captions that name the radical"),
    ("unet_or_dit", "unet_or_dit", "A U-Net or a transformer, at equal operations"),
    ("strokes", "strokes", "Where strokes go wrong"),
    ("quality_samplers", "evaluations", "Quality by sampler and evaluations"),
    ("quality_guidance", "evaluations", "Quality by guidance"),
    ("students", "students", "Few evaluations: a student and its teacher"),
    ("size128", "size128", "Three ways to 128 × 128"),
    ("play", "play", "The page that draws"),
    ("faults", "page", "Faults that were provoked"),
)
# What a picture shows, for those who cannot see it; drawn by `picture` of the part's module.
PICTURES = {
    "time_to_quality": "Distance from real glyphs by minutes of training, on a logarithmic scale: "
    "our recipe lies far below diffusers' recipe, with either network, at every moment.",
    "quality_samplers": "Distance from real glyphs by evaluations of the network, a line for each "
    "of six ways to take the steps, and a line for real glyphs after a blur of one pixel.",
    "quality_guidance": "By guidance. Left: the shares of words and of radicals that are right. "
    "Right: the distance from real glyphs.",
    "students": "By evaluations of the network, a student and its teacher. Left: the distance from "
    "real glyphs. Right: recall, how much of their variety is there.",
}
COMMANDS = {"faults": "tests/faults/run.py"}  # else benchmarks/<module>.py
MISSING = {"gpu": "Not yet measured on a GPU: "}


def section(result: dict[str, Any]) -> str:
    """The faults in Markdown; tests/faults/run.py writes the result and no text."""
    cases = result["cases"]
    failed = sum(row["failed"] for row in cases.values())
    lines = [
        "What happens when something goes wrong: a case is right if the work ended well in spite "
        "of the fault, a clear error if it ended with a line that names the cause, failed if it "
        f"did neither ({described(result['machine'])}). {failed or 'None'} failed. Repeat it with "
        f"`{result['command']}`.",
        "",
        "| cases of | right | clear error | failed | left out |",
        "|---|---|---|---|---|",
    ]
    for name, row in cases.items():
        counts = [str(row[key]) for key in ("right", "clear_error", "failed")]
        lines.append(f"| {name} | {' | '.join(counts)} | {row.get('skipped', '')} |")
    return "\n".join(lines) + "\n"


def part(name: str, module: str, heading: str) -> str:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        command = COMMANDS.get(name, f"benchmarks/{module}.py")
        text = f"{MISSING.get(name, 'Not yet measured: ')}`python {command}` does it.\n"
    else:
        result = json.loads(path.read_text(encoding="utf-8"))
        make = section if module == "page" else importlib.import_module(module).section
        text = shown(name) + make(result)
    return f"## {heading}\n\n{text}"


def shown(name: str) -> str:
    if name not in PICTURES:
        return ""
    return f"```{{image}} _static/benchmarks/{name}.png\n:alt: {PICTURES[name]}\n```\n\n"


def draw_pictures() -> None:
    folder = PAGE.parent / "_static" / "benchmarks"
    folder.mkdir(exist_ok=True)
    for name, module, _ in PARTS:
        path = RESULTS / f"{name}.json"
        if name in PICTURES and path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
            figure = importlib.import_module(module).picture(result)
            # Without the version of matplotlib, the same figures give the same bytes.
            figure.savefig(folder / f"{name}.png", metadata={"Software": None}, dpi=150)


def page() -> str:
    text = "\n".join([START, *(part(*names).rstrip("\n") + "\n" for names in PARTS)])
    return re.sub(r"(\d)%", r"\1 %", text)  # as the book writes it


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    PAGE.write_text(page(), encoding="utf-8")
    draw_pictures()


if __name__ == "__main__":
    main()
