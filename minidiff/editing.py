"""Editing: a model that draws from noise starts from a picture, fills in a part, blends two words::

    for frame in steps(pipeline, "fish", picture=sketch, strength=0.8):
        images = frame.images                                     # (1, 1, 64, 64)

None of it takes training or a sampler of its own: only another start, the mean of two guesses, or
steps after which what is known is put back. The chapter on editing explains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from minidiff.cascade import RULE
from minidiff.denoisers import Denoiser, Guided, Prediction
from minidiff.frames import Frames
from minidiff.inputs import sides
from minidiff.pipeline import BATCH, Pipeline
from minidiff.samplers import SAMPLERS, StepRule, sample_steps, seeded_generator, standard_normal
from minidiff.schedules import Schedule, whole_number
from minidiff.stages import halved


class Blend(Denoiser):
    """The weighted mean of two guesses.

    Args:
        first, second: what is asked, of one schedule.
        share: (B, 1, 1, 1) weight of the second, from 0 to 1.
    """

    def __init__(self, first: Denoiser, second: Denoiser, share: Tensor) -> None:
        super().__init__(first.schedule, first.clip)
        self.first, self.second, self.share = first, second, share
        self.evaluations = first.evaluations + second.evaluations

    def estimate(self, x_t: Tensor, t: int | Tensor) -> tuple[Tensor, Tensor]:
        pairs = zip(self.first.estimate(x_t, t), self.second.estimate(x_t, t))
        x0, eps = (torch.lerp(a, b, self.share) for a, b in pairs)
        return x0, eps


def put_back(rule: StepRule, schedule: Schedule, known: Tensor, keep: Tensor) -> StepRule:
    """A step rule after whose steps the known part is back, as noisy as the rest.

    This is the inpainting of RePaint (Lugmayr et al. 2022, eq. 8), without its steps back up.

    Args:
        rule: how the rest is drawn.
        known: (1, C, H, W) in the network's units.
        keep: like it, or (1, 1, H, W): true where it is known.
    """

    def step(
        denoiser: Denoiser, now: Prediction, s: int, history: Sequence[Prediction], noise: Any
    ) -> Tensor:
        x_s = rule(denoiser, now, s, history, noise)
        return torch.where(keep, schedule.add_noise(known.expand_as(x_s), noise(), s), x_s)

    return step


def steps(
    pipeline: Pipeline,
    prompt: str | Sequence[str],
    *,
    picture: Tensor | None = None,
    strength: float = 0.8,
    mask: Tensor | None = None,
    blend: bool = False,
    negative_prompt: str = "",
    num_images_per_prompt: int = 1,
    num_inference_steps: int = 20,
    guidance_scale: float = 3.0,
    sampler: str = "dpmpp_2m_sde",
    seed: int = 0,
    progress: bool = False,
) -> Frames:
    """Draw from a picture, or between two texts; the rest is as in `Pipeline.steps`.

    Args:
        picture: (C, H, W) to start from, in [-1, 1] or uint8: it is noised up to t = strength · T
            and drawn to an end from there (SDEdit, Meng et al. 2022). Of the steps only those
            below t are walked.
        strength: above 0, the picture stays, to 1, nothing of it is left (if alpha_T is 0).
        mask: (1, H, W), true where the picture is drawn anew; the rest of it stays as it is.
        blend: go from the first of two prompts to the second, in num_images_per_prompt pictures
            from one and the same noise, by the weighted mean of what the network guesses for each.

    Raises:
        ValueError: for a picture or a mask of another size than the model draws, naming both, a
            mask without a picture or with nothing to draw, a strength out of range, or a blend of
            other than two prompts; and for what `sample_steps` refuses.
    """
    if pipeline.config.student is not None:
        raise ValueError(
            "this model has learnt to jump from noise, not to go on from a picture or between two "
            "prompts: take its teacher, such as glyph64"
        )
    texts = [prompt] if isinstance(prompt, str) else list(prompt)
    count = whole_number("num_images_per_prompt", num_images_per_prompt)
    if count < 1:
        raise ValueError(f"num_images_per_prompt must be at least 1, got {count}")
    if blend and len(texts) != 2:
        raise ValueError(f"a blend is of two prompts, got {len(texts)}: {texts!r}")
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}: choose one of {', '.join(SAMPLERS)}")
    pipeline.check_memory(count if blend else count * len(texts))

    numbers = [0] * count if blend else [i for _ in texts for i in range(count)]
    sources = [seeded_generator(seed, i) for i in numbers]
    x = standard_normal((len(numbers), *pipeline.config.shape), sources, pipeline.device)
    grid, rule = pipeline.timesteps(num_inference_steps), SAMPLERS[sampler]
    second, enlarging = pipeline.second, SAMPLERS[RULE]
    if picture is not None:
        whole = checked_size("picture", picture, pipeline)[None]
        known = pipeline.space.to_data(whole if second is None else halved(whole)).to(x)
        t = _starting_time(strength, grid[0])
        x = pipeline.schedule.add_noise(known.expand_as(x), x, t)
        grid = [t, *(s for s in grid if s < t)]
        if mask is not None:
            keep = _kept(mask, pipeline)
            if second is not None:
                large = second.space.to_data(whole).to(x)
                enlarging = put_back(enlarging, second.schedule, large, keep)
                keep = halved(keep.float()) == 1  # of what is partly kept, all is drawn anew
            rule = put_back(rule, pipeline.schedule, known, keep)
    elif mask is not None:
        raise ValueError("a mask says what is drawn anew of a picture: give the picture, too")

    if not "".join([*texts, negative_prompt]).strip():
        guidance_scale = 1.0  # nothing to follow: both passes would say the same
    each = [text for text in texts for _ in range(count)]
    shares = (torch.linspace(0, 1, count) if count > 1 else torch.tensor([0.5])).to(x)
    without, walks = pipeline.denoiser(negative_prompt), []
    for start in range(0, len(x), BATCH):
        part = slice(start, start + BATCH)
        told: Denoiser = pipeline.denoiser(texts[0] if blend else each[part])
        if blend:
            told = Blend(told, pipeline.denoiser(texts[1]), shares[part].view(-1, 1, 1, 1))
        guided = Guided(told, without, guidance_scale, clip=pipeline.space.data_range)
        walks.append(sample_steps(guided, x[part], rule, generator=sources[part], timesteps=grid))
    bar = tqdm(zip(*walks), "Drawing", len(grid) - 1, False, unit=" steps", disable=not progress)
    frames = Frames(len(grid) - 1, iter(bar), pipeline.space)
    if second is None:
        return frames
    sources = [seeded_generator(seed, "second stage", i) for i in numbers]
    how = second.settings({})
    return second.after(frames, pipeline.space, sources, **how, rule=enlarging, progress=progress)


def _starting_time(strength: float, last: int) -> int:
    if not 0 < strength <= 1:
        raise ValueError(f"strength must be above 0 and at most 1, got {strength}")
    return max(1, round(strength * last))


def _kept(mask: Tensor, pipeline: Pipeline) -> Tensor:
    """(1, 1, H, W) in the sizes of x_0, true where the picture stays."""
    drawn = checked_size("mask", mask, pipeline).bool()[None].to(pipeline.device)
    # A place of latents is drawn anew as soon as one of its pixels is.
    keep = F.max_pool2d(drawn.float(), pipeline.space.factor) == 0
    if keep.all():
        raise ValueError("the mask leaves nothing to draw: it is white where the picture changes")
    return keep


def checked_size(what: str, picture: Tensor, pipeline: Pipeline) -> Tensor:
    """A picture or a mask (C, H, W), known to be of the size that the model draws.

    Raises:
        ValueError: naming it and both sizes.
    """
    height, width = sides(pipeline.image_size)
    if picture.shape[-2:] != (height, width):
        given = " × ".join(map(str, reversed(picture.shape[-2:])))
        raise ValueError(
            f"{what} has {given} pixels, and the model draws {width} × {height}: crop or resize it "
            f"to {width} × {height} (width × height)"
        )
    return picture
