"""Three ways to 128 × 128 pixels side by side: in two stages, in latents, and in folded pixels.

    python benchmarks/size128.py cascade=runs/cascade+glyph64 \\
        latents=runs/latents128+runs/autoencoder128 pixels=runs/pixels128

Each row is a name and the folder of its model, wherever that was trained; what it is built on (a
first stage, an autoencoder) follows behind a +, and counts with its parameters and its training.
Every row draws the same texts from the same seeds: 1,034 held-out definitions without guidance,
and the 20 words with it. Pictures are judged twice: at 64 × 64, where the recogniser reads them,
brought there by averaging 2 × 2; and at full size, for edges, specks and seams. Beside them stand
real held-out glyphs, and with --scaled-up a model of 64 × 64 whose pictures are enlarged. A row
whose weights and settings have not changed is not drawn again. A row takes one core 10 minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from evaluations import COUNT, Judge
from machine import RESULTS, described, machine, write
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from minidiff import metrics, samplers
from minidiff.denoisers import NetworkDenoiser
from minidiff.evaluation import STEPS
from minidiff.glyphs import GlyphDataset, to_float
from minidiff.pipeline import load
from minidiff.shelf import find_model
from minidiff.storage import read_info
from minidiff.wanted import WANTED, shows

NAME, SIZE = "size128", 128
PERIODS = (2, 4, 8)  # of what a stem or a latent grid could leave behind


# ------------------------------------------------------------------- what it has cost


def cost(folders: Sequence[str]) -> dict[str, Any]:
    """Parameters, megabytes, glyphs seen and minutes of all parts, and of each."""
    parts: dict[str, dict[str, float]] = {}
    for place in folders:
        folder = find_model(place)
        files = sorted(folder.glob("*.safetensors"))
        own = [f for f in files if len(folders) == 1 or f.name != "autoencoder.safetensors"]
        record = read_info(folder)["record"]
        parts[Path(place).name] = {
            "parameters": sum(map(parameters, own)),
            "megabytes": round(sum(path.stat().st_size for path in own) / 1e6, 1),
            "glyphs_seen": record["images_seen_in_all"],
            **minutes(record),
        }
    names = ("parameters", "megabytes", "core_minutes", "gpu_minutes")
    sums = {name: round(sum(part[name] for part in parts.values()), 1) for name in names}
    return {**sums, "glyphs_seen": [part["glyphs_seen"] for part in parts.values()], "parts": parts}


def parameters(path: Path) -> int:
    with safe_open(path, framework="pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return sum(math.prod(shape) for shape in shapes)


def minutes(record: dict[str, Any]) -> dict[str, float]:
    """Of processor cores and of GPUs, over all stages of a training."""
    spent = {"core_minutes": 0.0, "gpu_minutes": 0.0}
    for stage in (record, *record.get("stages", ())):
        device, passed = stage.get("device", "cpu"), stage.get("seconds", 0) / 60
        threads = re.search(r"(\d+) threads", device)
        many = stage.get("processes", 1)
        if device.startswith("cpu"):
            spent["core_minutes"] += passed * many * int(threads[1] if threads else 1)
        else:
            spent["gpu_minutes"] += passed * many
    return {name: round(value, 1) for name, value in spent.items()}


# ------------------------------------------------------------------- what it draws


def draw(pipeline: Any, texts: Sequence[str], **options: Any) -> Tensor:
    """One picture of each text, each from noise of its own: (N, 1, 128, 128)."""
    parts = []
    for start in tqdm(range(0, len(texts), 64), "Drawing", leave=False):
        part = list(texts[start : start + 64])
        noise = [samplers.seeded_generator(0, start + i) for i in range(len(part))]
        with warnings.catch_warnings():  # some definitions are longer than a model reads
            warnings.filterwarnings("ignore", ".*is longer than")
            parts.append(pipeline(part, num_inference_steps=STEPS, generator=noise, **options))
    images = torch.cat(parts)
    if images.shape[-1] == SIZE:
        return images
    return F.interpolate(images, (SIZE, SIZE), mode="bilinear").clamp(-1, 1)


@contextmanager
def counted() -> Iterator[list[int]]:
    """How often networks are asked, with how many pictures."""
    asked: list[int] = []
    answer = NetworkDenoiser.output

    def output(self: NetworkDenoiser, x_t: Tensor, t: int | Tensor) -> Tensor:
        asked.append(len(x_t))
        return answer(self, x_t, t)

    with patch.object(NetworkDenoiser, "output", output):
        yield asked


def sixteen(pipeline: Any) -> dict[str, float]:
    """Seconds to draw 16 glyphs of a word as a user does, the second time, and evaluations."""
    pipeline("gold", num_images_per_prompt=1, num_inference_steps=2)
    with counted() as asked:
        clock, processor = time.perf_counter(), time.process_time()
        pipeline("gold", num_images_per_prompt=16)
        spent = time.perf_counter() - clock, time.process_time() - processor
    return {
        "evaluations": len(asked),
        "seconds_for_16": round(spent[0], 2),
        "processor_seconds_for_16": round(spent[1], 2),
    }


# ------------------------------------------------------------------- how good it is


def halved(images: Tensor) -> Tensor:
    """(N, 1, 128, 128) -> (N, 1, 64, 64), the mean of each 2 × 2 pixels."""
    return F.avg_pool2d(images, 2)


@cache
def training_glyphs() -> Tensor:
    """(2435, 1, 128, 128): every eighth."""
    return to_float(GlyphDataset(SIZE, "train").images[::8])


def full_size(images: Tensor) -> dict[str, float]:
    """What can be seen at 128 × 128 only. A speck is as small as one at 64 × 64, in glyphs."""
    return {
        "edge_width": round(metrics.edge_width(images), 3),
        "grey_share": round(metrics.grey_share(images), 4),
        "specks": round(metrics.specks(halved(images)), 4),
        "specks_of_fewer_than_20_pixels": round(metrics.specks(images), 4),
        **{f"seams_{n}": round(metrics.seams(images, training_glyphs(), n), 4) for n in PERIODS},
    }


def judged(judge: Judge, pipeline: Any, per_word: int, guidance_scale: float) -> dict[str, Any]:
    """All measures of one way to draw."""
    images = draw(pipeline, judge.test.texts, guidance_scale=guidance_scale)
    words = [word for word in WANTED for _ in range(per_word)]
    shown = halved(draw(pipeline, words)).split(per_word)
    share = {w: shows(judge.recogniser, x, w).float().mean().item() for w, x in zip(WANTED, shown)}
    return {
        **judge(halved(images)),
        **full_size(images),  # its edge width, not that at 64 × 64
        "words": round(sum(share.values()) / len(share), 4),
        "worst_word": min(share, key=lambda word: share[word]),
        **sixteen(pipeline),
    }


def section(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    real = result["real"]
    lines = [
        f"Glyphs of 128 × 128 pixels, drawn in {STEPS} steps from the same texts and seeds "
        f"({described(result['machine'])}; seed 0; {result['samples']:,} held-out definitions "
        f"without guidance, {result['per_word']} glyphs of each of the 20 words with it). "
        "Distance, recall and words at 64 × 64 pixels, by averaging; edges and seams at full size: "
        "seams are how else than in real glyphs edges lie on a grid of 8 pixels, that of a fold or "
        "of latents. "
        "Parts of a model are added up. Repeat it with `python benchmarks/size128.py`.",
        "",
        "| way | parameters | glyphs seen | core-minutes (GPU) | evaluations | 16 glyphs, s "
        "| excess | recall | edge, pixels | specks | seams | words |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        seen = " + ".join(f"{count:,}" for count in row["glyphs_seen"])
        gpu = f" ({row['gpu_minutes']:.0f})" if row["gpu_minutes"] else ""
        lines.append(
            f"| {name} | {row['parameters'] / 1e6:.1f} M | {seen} | {row['core_minutes']:.0f}{gpu} "
            f"| {row['evaluations']} | {row['seconds_for_16']:.1f} "
            f"| {row['excess']:.1f} ± {row['standard_error']:.1f} | {row['recall']:.2f} "
            f"| {row['edge_width']:.2f} | {row['specks']:.2f} | {row['seams_8']:.1%} "
            f"| {row['words']:.1%} |"
        )
    lines.append(
        f"| real glyphs | | | | | | 0 | {real['recall']:.2f} | {real['edge_width']:.2f} "
        f"| {real['specks']:.2f} | {real['seams_8']:.1%} | |"
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="+", metavar="name=folder[+folder]")
    parser.add_argument("--scaled-up", metavar="model", help="of 64 × 64, such as glyph64")
    parser.add_argument("--samples", type=int, default=COUNT, help="held-out definitions")
    parser.add_argument("--per-word", type=int, default=16)
    parser.add_argument("--guidance-scale", type=float, default=1.0, help="of the definitions")
    arguments = parser.parse_args()
    wanted = dict(row.partition("=")[::2] for row in arguments.rows)
    if arguments.scaled_up:
        wanted["scaled up"] = arguments.scaled_up
    settings = {
        "samples": arguments.samples,
        "per_word": arguments.per_word,
        "guidance_scale": arguments.guidance_scale,
    }
    folders = {name: parts.split("+") for name, parts in wanted.items()}
    weights = {  # all are looked for before minutes go into the first
        name: [read_info(find_model(place))["files"] for place in places]
        for name, places in folders.items()
    }
    path = RESULTS / f"{NAME}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known = before.get("rows", {}) if before.get("settings") == settings else {}

    judge = Judge(arguments.samples)
    dataset = GlyphDataset(SIZE, "test")
    real = to_float(dataset.images[judge.test.rows])
    result = {
        "machine": machine(), "seed": 0, "settings": settings, **settings,
        "real": {**judge(halved(real)), **full_size(real)},
        "rows": {name: row for name, row in known.items() if name not in wanted},
    }  # fmt: skip
    for name, places in folders.items():
        if (row := known.get(name)) and row["weights"] == weights[name]:
            result["rows"][name] = row
            continue
        measured = judged(judge, load(places[0]), arguments.per_word, arguments.guidance_scale)
        result["rows"][name] = {"weights": weights[name], **cost(places), **measured}
        write(NAME, result)
    write(NAME, result)


if __name__ == "__main__":
    main()
