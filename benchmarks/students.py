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
from pathlib import Path
from typing import Any

import torch
from evaluations import COUNT, Judge
from machine import RESULTS, machine, write
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


def add(name: str, key: str, row: Any) -> None:
    path = RESULTS / f"{name}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write(name, {**before, key: row})


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
        add("students_study", way, row)
    if asked.student:
        student, teacher = load(asked.student), load("glyph64")
        weights = read_info(find_model(asked.student))["files"]["model.safetensors"]
        row = {"machine": machine(), "weights": weights, "samples": asked.samples}
        for steps in WALKS:
            row[f"student {steps}"] = judged(
                judge, lambda texts, n=steps: drawn(student, texts, n, "")
            )
        for evaluations in TEACHERS:
            row[f"teacher {evaluations}"] = judged(
                judge, lambda texts, n=evaluations // 2: draw(teacher, texts, num_inference_steps=n)
            )
        add("students", "rows", row)


if __name__ == "__main__":
    main()
