"""Record what the dials of the chapters show, from the shipped model.

    python tools/book/dials.py              # some ten minutes on one core
    python tools/book/dials.py guidance     # only this one

For each dial it writes into book/_static/dials/ a strip NAME.webp, one row of pictures for each
value of the dial, and a still NAME.png of some of its rows, for readers without JavaScript. data.js
says what stands in the strips. The chapters draw the same things by the code beside them.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

import minidiff
from minidiff import plots
from minidiff.denoisers import Denoiser, Guided
from minidiff.glyphs import GlyphDataset, render, to_float
from minidiff.pipeline import Pipeline
from minidiff.recogniser import load_recogniser
from minidiff.samplers import evaluations, sample, seeded_generator, standard_normal
from minidiff.schedules import make_schedule
from minidiff.storage import write_file
from minidiff.wanted import shows

FOLDER = Path(__file__).resolve().parents[2] / "book" / "_static" / "dials"
OPENING = "// Written by tools/book/dials.py: what stands in the strips beside it.\nwindow.DIALS = "
SIZE = 64  # pixels of a picture
GREYS = 16
LIMIT = 600_000  # bytes of all strips, stills and data together


class Dial(NamedTuple):
    """A recorded dial.

    Attributes:
        label: what is turned.
        values: V of them, as texts.
        panels: P texts, what the pictures of a row are.
        pictures: (V, P, 1, 64, 64) in [-1, 1].
        start: the value shown at first.
        still: values that stand in the still.
        says: a text under each picture, V rows of P, or under each row, V of one.
    """

    label: str
    values: list[str]
    panels: list[str]
    pictures: Tensor
    start: str
    still: Sequence[str]
    says: Sequence[Sequence[str]] = ()


def noising() -> Dial:
    """The glyph of the chapter on noising, with the same noise, under the three schedules."""
    some = to_float(GlyphDataset(split="all").images[::20])
    mean, std = some.mean(), some.std()
    x0 = (to_float(render("馬")) - mean) / std
    eps = torch.randn(x0.shape, generator=seeded_generator(0))
    schedules = [make_schedule(name) for name in ("linear", "cosine", "straight")]
    times = range(0, 1001, 50)
    noisy = [
        torch.stack([s.add_noise(x0[None], eps[None], t)[0] for s in schedules]) for t in times
    ]
    says = [[f"α {s.alpha[t]:.2f}, σ {s.sigma[t]:.2f}" for s in schedules] for t in times]
    return Dial(
        label="timestep t",
        values=[str(t) for t in times],
        panels=[s.name for s in schedules],
        pictures=torch.stack(noisy) * std + mean,
        start="300",
        still=["100", "300", "500", "800"],
        says=says,
    )


def steps(pipeline: Pipeline) -> Dial:
    """A glyph without a prompt, as in the chapter on sampling, by four samplers."""
    counts, names = (1, 2, 3, 5, 10, 20, 50, 120, 250), ("ddpm", "ddim", "heun", "dpmpp_2m")
    rows, says = [], []
    for count in counts:
        grid = pipeline.schedule.timesteps(count, shift=1)  # evenly spaced
        drawn = [pipeline("", sampler=n, timesteps=grid, guidance_scale=1.0) for n in names]
        rows.append(torch.cat(drawn))
        asked = [evaluations(name, count) for name in names]
        says.append([f"network asked {'once' if n == 1 else f'{n} times'}" for n in asked])
    return Dial(
        label="steps",
        values=[str(count) for count in counts],
        panels=list(names),
        pictures=torch.stack(rows),
        start="5",
        still=["1", "5", "20", "120"],
        says=says,
    )


class Switch(Denoiser):
    """Asks one denoiser down to timestep `change`, and another one after it."""

    def __init__(self, first: Denoiser, second: Denoiser, change: int) -> None:
        super().__init__(first.schedule)
        self.first, self.second, self.change = first, second, change

    def estimate(self, x_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        answer = (self.first if int(t) > self.change else self.second)(x_t, t)
        return answer.x0, answer.eps


def switch(pipeline: Pipeline, before: str = "gold", after: str = "fish", count: int = 6) -> Dial:
    """The other word from step k of 20 on, as in the chapter on text to glyph."""
    grid, space = pipeline.timesteps(20), pipeline.config.space
    untold, recogniser = pipeline.denoiser(), load_recogniser()[0]
    first, second = (
        Guided(pipeline.denoiser(word), untold, 3.0, clip=space.data_range)
        for word in (before, after)
    )
    rows, says = [], []
    for change in grid:
        noise = [seeded_generator(0, i) for i in range(count)]
        x_T = standard_normal((count, *pipeline.config.shape), noise)
        denoiser = Switch(first, second, change)
        x = sample(denoiser, x_T, "dpmpp_2m_sde", generator=noise, timesteps=grid)
        rows.append(space.to_images(x))
        found = {w: int(shows(recogniser, rows[-1], w).sum()) for w in (before, after)}
        says.append([", ".join(f"{word} in {n} of {count}" for word, n in found.items())])
    return Dial(
        label=f"steps with {before}, then {after}",
        values=[str(k) for k in range(len(grid))],
        panels=[""] * count,
        pictures=torch.stack(rows),
        start="6",
        still=["0", "4", "7", "10", "20"],
        says=says,
    )


def guidance(pipeline: Pipeline) -> Dial:
    """Four words from one noise, as in the chapter on guidance."""
    words, scales = ["bird", "fish", "gold", "water"], [1 + i / 2 for i in range(19)]
    rows = [pipeline(words, guidance_scale=scale, seed=3) for scale in scales]
    return Dial(
        label="guidance scale",
        values=[f"{scale:g}" for scale in scales],
        panels=words,
        pictures=torch.stack(rows),
        start="3",
        still=["1", "2", "3", "5", "10"],
    )


DIALS: dict[str, Callable[..., Dial]] = {
    "noising": noising,
    "steps": steps,
    "switch": switch,
    "guidance": guidance,
}


def save(name: str, dial: Dial) -> dict[str, Any]:
    """Write strip and still, and return what data.js says of them."""
    values, panels = dial.pictures.shape[:2]
    levels = ((dial.pictures.clamp(-1, 1) + 1) / 2 * (GREYS - 1)).round() * (255 // (GREYS - 1))
    strip = levels[:, :, 0].permute(0, 2, 1, 3).reshape(values * SIZE, panels * SIZE)
    picture = Image.fromarray(strip.to(torch.uint8).numpy())
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, quality=100, method=6)
    write_file(FOLDER / f"{name}.webp", buffer.getvalue())

    chosen = [dial.values.index(value) for value in dial.still]
    labels = [f"{dial.label}: {value}" for value in dial.still]
    sheet = plots.grid(dial.pictures[chosen].flatten(0, 1), panels, 2, labels)
    plots.save_picture(FOLDER / f"{name}.png", sheet.quantize(GREYS, dither=Image.Dither.NONE))
    return {
        "label": dial.label,
        "values": dial.values,
        "panels": dial.panels,
        "says": dial.says,
        "start": dial.values.index(dial.start),
        "size": SIZE,
    }


def read_record() -> dict[str, Any]:
    """What data.js says: for each dial its name's entry of `save`."""
    text = (FOLDER / "data.js").read_text(encoding="utf-8")
    record: dict[str, Any] = json.loads(text.removeprefix(OPENING).rstrip(";\n"))
    return record


def main(names: Sequence[str]) -> int:
    path, record = FOLDER / "data.js", read_record() if names else {}
    pipeline = minidiff.load(device="cpu")
    for name in names or DIALS:
        record[name] = save(name, DIALS[name]() if name == "noising" else DIALS[name](pipeline))
        lines = [
            f'"{n}": {json.dumps(record[n], ensure_ascii=False)}' for n in DIALS if n in record
        ]
        write_file(path, (OPENING + "{\n" + ",\n".join(lines) + "\n};\n").encode())
        print(name, "recorded", flush=True)
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    print(f"{size / 1000:.0f} kB in all, at most {LIMIT / 1000:.0f}")
    return 1 if size > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
