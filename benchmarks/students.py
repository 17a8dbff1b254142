"""Drawing in few evaluations: students and their teacher, and which way of teaching is best.

    python benchmarks/students.py --study jumps            # one row of the study
    python benchmarks/students.py --student runs/fast      # a student beside its teacher

Each student is judged by what it draws in 1, 2, 4 and 8 evaluations with guidance 3: the excess
Fréchet distance and recall of all 1,034 held-out definitions, the 20 words × 64, and how many of 64
glyphs of a word are different. The study trains each way of teaching on as
many glyphs; rows may come from different machines: the table says which.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from evaluations import COUNT, Judge
from machine import RESULTS, described, machine, write
from torch import Tensor

from minidiff import evaluation, samplers
from minidiff.cli_train import pictures_of
from minidiff.distillation import Distillation, jump
from minidiff.evaluation import draw
from minidiff.pipeline import Pipeline, load
from minidiff.recipe import TrainingConfig
from minidiff.shelf import find_model
from minidiff.storage import read_info
from minidiff.training import Trainer
from minidiff.wanted import WANTED

ROOT = Path(__file__).resolve().parents[1]
IMAGES, PER_WORD, GUIDANCE = 150_000, 64, 3.0
WALKS, TEACHERS = (1, 2, 4, 8), (4, 8, 20, 40)


class OwnWalks(Distillation):
    """Half of the jumps begin where the student's own average has walked to, from noise."""

    def loss(self, network: Any, x0: Tensor, eps: Tensor, draw: Tensor, **condition: Any) -> Tensor:
        self.told = draw, condition
        return super().loss(network, x0, eps, draw, **condition)

    def start(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        noised, (draw, condition) = super().start(x0, eps, t), self.told
        low, high = self.student.guidance
        scale, grid = low + (high - low) * draw[1], self.grid.to(x0.device)
        kinds = torch.tensor(self.student.evaluations, device=x0.device).flip(0)
        steps = kinds.repeat_interleave(-(-len(x0) // len(kinds)))[: len(x0)]
        x, place = eps, torch.zeros_like(steps)
        denoiser = self._told(self.averaged, scale, steps, condition)
        for _ in range(self.student.evaluations[-1] - 1):
            going = (grid[place] > t)[:, None, None, None]
            after = torch.where(going[:, 0, 0, 0], place + self.finest // steps, place)
            # Where it stays, the jump is not taken; it is asked all the same.
            ahead = grid[(place + self.finest // steps).clamp(max=self.finest)]
            x = torch.where(going, jump(self.schedule, denoiser(x, grid[place]), ahead).float(), x)
            place = after
        own = (torch.arange(len(x0), device=x0.device) % 2 == 0)[:, None, None, None]
        return torch.where(own, x, noised)


class Consistency(Distillation):
    """From every t the student learns to go to the end, as its average does from a step further on.

    Song et al. 2023; drawing, it goes to the end, noises that to the next t, and goes on.
    """

    def loss(self, network: Any, x0: Tensor, eps: Tensor, draw: Tensor, **condition: Any) -> Tensor:
        low, high = self.student.guidance
        scale, grid = low + (high - low) * draw[1], self.grid.to(x0.device)
        place = (draw[0] * self.finest).long()
        t, s, steps = grid[place], grid[place + 1], torch.ones_like(place)
        x_t = self.schedule.add_noise(x0, eps, t)
        with torch.no_grad():
            near = self._small_step(x_t, place, scale, condition)
            told = self._told(self.averaged, scale, steps, condition)
            ahead = told.estimate(near, s.clamp(min=1))[0]
            x_0 = torch.where((s == 0)[:, None, None, None], near, ahead).float()
        answer = self._told(network, scale, steps, condition).estimate(x_t, t)[0]
        return (answer.float() - x_0).square().flatten(1).mean(1)

    def _small_step(
        self, x: Tensor, place: Tensor, scale: Tensor, condition: dict[str, Any]
    ) -> Tensor:
        import minidiff.distillation as distillation

        kept, distillation.SMALL = distillation.SMALL, 1
        try:
            return self._taught(x, place, scale, condition)
        finally:
            distillation.SMALL = kept


def renoised(denoiser: Any, now: Any, s: int, history: Any, noise: Any) -> Tensor:
    """The walk of a consistency model: to the end, and back to s with other noise."""
    return now.x0 if s == 0 else denoiser.schedule.add_noise(now.x0, noise(), s)


# name: (what it is, the class)
WAYS: dict[str, tuple[str, type[Distillation]]] = {
    "jumps": ("jumps of two jumps, all at once", Distillation),
    "own_walks": ("the same, half of them from its own walks", OwnWalks),
    "consistency": ("consistency: always to the end", Consistency),
}


def drawn(pipeline: Pipeline, texts: Sequence[str], steps: int, way: str) -> Tensor:
    """One picture of each text in so many evaluations, by a student."""
    if way != "consistency":
        return draw(pipeline, texts, num_inference_steps=steps, guidance_scale=GUIDANCE)
    student, parts = pipeline.config.student, []
    assert student is not None
    numbers = student.numbers(torch.tensor([GUIDANCE]), torch.tensor([1.0])).to(pipeline.device)
    for start in range(0, len(texts), 64):
        part = list(texts[start : start + 64])
        noise = [samplers.seeded_generator(0, start + i) for i in range(len(part))]
        x = samplers.standard_normal((len(part), *pipeline.config.shape), noise, pipeline.device)
        told = pipeline.denoiser(part)
        told = told.given(numbers=numbers, **told.condition)
        x = samplers.sample(told, x, renoised, steps, noise)
        parts.append(pipeline.space.to_images(x).float().cpu())
    return torch.cat(parts)


def judged(judge: Judge, make: Any) -> dict[str, Any]:
    """The measures of what `make(texts)` draws."""
    texts = [word for word in WANTED for _ in range(PER_WORD)]
    words = make(texts).unflatten(0, (len(WANTED), PER_WORD))
    shown = evaluation._prompts(judge.recogniser, dict(zip(WANTED, words)))
    return {**judge(make(judge.test.texts)), "words": shown}


def study(
    way: str, judge: Judge, images: int, batch: int, runs: Path, **more: Any
) -> dict[str, Any]:
    """Train a student in one way, and judge it."""
    config = TrainingConfig.recipe(
        "glyph64-fast", batch_size=batch, steps=images // batch, save_every=10**6,
        sample_every=10**6, **more,
    )  # fmt: skip
    config, dataset, _, _ = pictures_of(config, None)
    trainer = Trainer(config, dataset, runs / way)
    lesson = trainer.lesson
    assert lesson is not None and lesson.distillation is not None
    old = lesson.distillation
    lesson.distillation = WAYS[way][1](
        old.student, old.teacher, old.averaged, old.schedule, old.prediction_type, old.clip
    )
    started, processor = time.monotonic(), time.process_time()
    trainer.run()
    row = {
        "machine": machine(),
        "images": trainer.step_count * batch,
        "batch": batch,
        "seconds": round(time.monotonic() - started),
        "processor_seconds": round(time.process_time() - processor),
    }
    pipeline = load(runs / way)
    for steps in WALKS:
        row[str(steps)] = judged(judge, lambda texts, n=steps: drawn(pipeline, texts, n, way))
        print(
            way,
            steps,
            row[str(steps)]["words"]["mean"],
            {k: v for k, v in row[str(steps)].items() if k != "words"},
            flush=True,
        )
    return row


# Rows of the table that are no ways of the study: the lessons of the student that ships.
LESSONS = {
    "first_lesson": "jumps: the first lesson of glyph64-fast",
    "second_lesson": "distribution matching, after it: its second",
}


def add(way: str, row: Any) -> None:
    path = RESULTS / "students_study.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else {}
    write("students_study", {"machine": machine(), "rows": {**rows, way: row}})


def compare(student: str, judge: Judge, samples: int) -> None:
    """A student beside its teacher; rows that are known of the same weights are kept."""
    pipelines = {"student": load(student), "teacher": load("glyph64")}
    weights = {
        name: read_info(find_model(place))["files"]["model.safetensors"]
        for name, place in (("student", student), ("teacher", "glyph64"))
    }
    path = RESULTS / "students.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    result = {
        "machine": machine(), "samples": samples, "per_word": PER_WORD, "seed": 0,
        "guidance_scale": GUIDANCE, "weights": weights, "rows": {}, "seconds_for_16": {},
    }  # fmt: skip
    for who, counts in (("student", WALKS), ("teacher", TEACHERS)):
        same = before.get("samples") == samples and before["weights"][who] == weights[who]
        for evaluations in counts:
            name, pipeline = f"{who} {evaluations}", pipelines[who]
            steps = evaluations if who == "student" else evaluations // 2
            options = {"num_inference_steps": steps, "guidance_scale": GUIDANCE}
            row = before["rows"].get(name) if same else None
            if name == f"teacher {TEACHERS[-1]}" and samples == COUNT:
                row = row or known(pipeline, weights[who])
            result["rows"][name] = row or judged(judge, partial(draw, pipeline, **options))
            result["seconds_for_16"][name] = seconds(pipeline, options)
            write("students", result)


def record_lesson(record: dict[str, Any]) -> None:
    """Keep what a student draws as what its last lesson has brought."""
    rows = json.loads((RESULTS / "students.json").read_text(encoding="utf-8"))["rows"]
    lesson = "second_lesson" if record["recipe"]["student_matches"] else "first_lesson"
    row = {name: record[name] for name in ("images_seen", "seconds", "device")}
    row |= {"machine": {"processor": row.pop("device")}, "images": row.pop("images_seen")}
    add(lesson, {**row, **{str(n): rows[f"student {n}"] for n in WALKS}})


def known(teacher: Pipeline, weights: str) -> dict[str, Any] | None:
    """The teacher's own default, which benchmarks/evaluations.py and its record have measured."""
    result = json.loads((RESULTS / "quality_guidance.json").read_text(encoding="utf-8"))
    if (
        result["weights"] != weights
        or teacher.record["evaluation"]["samples"]["per_prompt"] != PER_WORD
    ):
        return None
    cell = {key: x for key, x in result["cells"][str(GUIDANCE)].items() if key != "words_shown"}
    return {**cell, "words": teacher.record["evaluation"]["prompts"]}


def seconds(pipeline: Pipeline, options: dict[str, Any]) -> float:
    """Processor seconds to draw 16 glyphs of a word, the second time."""
    pipeline("gold", **options)
    before = time.process_time()
    pipeline("gold", num_images_per_prompt=16, **options)
    return round(time.process_time() - before, 2)


def section(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    lines = [
        "The student that ships, glyph64-fast, beside its teacher, glyph64 with the default "
        f"sampler: {result['samples']:,} held-out definitions and the 20 words × "
        f"{result['per_word']}, all with guidance {result['guidance_scale']:g} "
        f"({described(result['machine'])}; seed 0). The teacher is asked twice a step. The excess "
        "is the Fréchet distance beyond that of as many real glyphs, ± its standard error; seconds "
        "are the processor's. Repeat it with `python benchmarks/students.py --student "
        "glyph64-fast`.",
        "",
        "| | evaluations | excess | recall | edge, pixels | words | different of 64, fewest "
        "| 16 glyphs, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        who, evaluations = name.split()
        words = row["words"]
        lines.append(
            f"| {who} | {evaluations} | {row['excess']:.1f} ± {row['standard_error']:.1f} "
            f"| {row['recall']:.2f} | {row['edge_width']:.2f} | {words['mean']:.1%} "
            f"| {words['fewest_different']} | {result['seconds_for_16'][name]:.1f} |"
        )
    return "\n".join(lines) + "\n\n" + _study()


def _study() -> str:
    """Which way of teaching was chosen, and by what."""
    rows = json.loads((RESULTS / "students_study.json").read_text(encoding="utf-8"))["rows"]
    lines = [
        "Ways of teaching, from the teacher's weights: the excess after 1, 2, 4 and 8 evaluations, "
        "the 20 words after 4. The first rows saw as many glyphs each; the last are both lessons "
        "of the student that ships. Repeat a row with `python benchmarks/students.py "
        "--study jumps`.",
        "",
        "| way | glyphs | minutes | 1 | 2 | 4 | 8 | words |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way, row in rows.items():
        excess = " | ".join(f"{row[str(n)]['excess']:.1f}" if str(n) in row else "" for n in WALKS)
        device = row["machine"].get("gpu", row["machine"]["processor"])
        what = LESSONS.get(way) or WAYS[way][0]
        words = f"{row['4']['words']['mean']:.1%}" if "4" in row else ""
        lines.append(
            f"| {what} | {row['images']:,} | {row['seconds'] / 60:.0f}, {device} "
            f"| {excess} | {words} |"
        )
    return "\n".join(lines) + "\n"


def picture(result: dict[str, Any]) -> Any:
    """Excess and recall by evaluations: the student and its teacher."""
    from minidiff.figures import BLUE, ORANGE, new

    figure, axes = new(1, 2, size=(7.0, 2.9))
    measures = {
        "excess Fréchet distance": lambda row: row["excess"],
        "recall": lambda row: row["recall"],
    }
    for axis, (label, value) in zip(axes, measures.items()):
        for who, colour in (("student", ORANGE), ("teacher", BLUE)):
            rows = {int(k.split()[1]): r for k, r in result["rows"].items() if k.startswith(who)}
            values = [value(row) for row in rows.values()]
            axis.plot(list(rows), values, color=colour, marker="o", label=who)
        ticks = sorted({*WALKS, *TEACHERS})
        axis.set(xlabel="evaluations of the network", ylabel=label, xscale="log")
        axis.set(xticks=ticks, xticklabels=ticks)
        axis.minorticks_off()
    axes[0].set(yscale="log", yticks=(2, 4, 8, 16, 32), yticklabels=(2, 4, 8, 16, 32))
    axes[0].minorticks_off()
    axes[1].set(ylim=(0, 0.8))
    axes[1].legend(frameon=False, loc="lower right")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--study", nargs="+", choices=list(WAYS), default=[])
    parser.add_argument("--student", help="a model that ships, or a folder")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--samples", type=int, default=COUNT)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "students")
    asked = parser.parse_args()
    judge = Judge(asked.samples)
    for way in asked.study:
        more = {"learning_rate": asked.rate, "compile": asked.compile}
        row = study(way, judge, asked.images, asked.batch, asked.runs, **more)
        add(way, row)
    if asked.student:
        compare(asked.student, judge, asked.samples)
        record_lesson(load(asked.student).record)


if __name__ == "__main__":
    main()
