"""Samplers: walks from noise x_T down to data x_0.

Every rule here makes the same move from t to an earlier s. Given an estimate of x_0, the noise in
x_t is eps = (x_t − alpha_t x_0) / sigma_t, and::

    x_s = alpha_s x_0 + sqrt(sigma_s² − fresh²) eps + fresh z,      z ~ N(0, I)

puts it together again with less noise, part of it old and part of it fresh. Samplers differ in two
choices only: which x_0 stands for the whole way from t to s, and how much of the noise is fresh
(none: an ordinary differential equation; as much as the noising chain has: a stochastic one)::

    rule            x_0                                fresh noise
    ddpm            the one at t                       as the chain
    ddim            the one at t                       eta times the chain's
    heun            mean of those at t and at s        none
    dpmpp_2m        extrapolated from the last two     none
    dpmpp_2m_sde    extrapolated from the last two     as the chain

At s = 0 there is no noise left to keep or to replace, so the last step returns x_0 itself.

A rule is a plain function, `rule(denoiser, now, s, history, noise, **options)`, that returns x_s:

- `now` is the `Prediction` at (x_t, t), with `now.x_t` and the whole number `now.t`;
- `s` is the timestep to go to, below `now.t`;
- `history` holds the predictions of the steps before, newest last: none at the first step, and
  never more than the last `HISTORY`, unless `rule.history` is another number;
- `noise()` draws fresh standard normal noise like x_t;
- keyword-only arguments, such as eta of `ddim`, are options.

It may ask `denoiser(x, s)` again, but never at s = 0. Hand it to `sample` in the place of a name,
or give it a name in `SAMPLERS`.
"""

from __future__ import annotations

import inspect
import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minidiff.denoisers import Denoiser, NetworkDenoiser, Prediction, checked_answer
from minidiff.schedules import Schedule, make_schedule, number_within, whole_number

Generators = torch.Generator | Sequence[torch.Generator] | None
Noise = Callable[[], Tensor]
History = Sequence[Prediction]

#: How many earlier predictions a rule sees (they stay in memory); a rule that looks further back
#: says so itself: `my_rule.history = 9`.
HISTORY = 4


@dataclass(frozen=True)
class Step:
    """One step of a walk."""

    index: int  #: 0 … N − 1
    t: int  #: the timestep just reached; 0 at the last step
    x: Tensor  #: (B, ...) the state there
    prediction: Prediction  #: made where the step began; .x0 is what the denoiser then imagined


def move(
    schedule: Schedule, x: Tensor, t: int | Tensor, s: int, x0: Tensor, noise: Noise, eta: float = 0
) -> Tensor:
    """From x_t to x_s as if x0 were right all the way (Song et al. 2021, DDIM, eq. 12 and 16).

    The variance of the fresh noise is eta² times that of q(x_s | x_t, x_0), sigma_s² (1 − e^−2h)
    with e^−h = (alpha_t / sigma_t) / (alpha_s / sigma_s). In this form it holds on the straight
    line too, and from alpha_t = 0.

    Args:
        x: (B, ...) x_t.
        t, s: from where to where, s < t.
        x0: (B, ...) the estimate.
        noise: called for standard normal noise like x, and only if eta is above 0.
        eta: from 0 (no fresh noise) to 1 (as the noising chain).

    Returns:
        (B, ...) x_s.

    Raises:
        ValueError: unless T ≥ t > s ≥ 0, both whole numbers, and for another eta.
    """
    eta = _checked_eta(eta)
    t, s = _checked_grid((t, s), schedule.num_train_timesteps)
    alpha_t, sigma_t = schedule.alpha[t].item(), schedule.sigma[t].item()
    alpha_s, sigma_s = schedule.alpha[s].item(), schedule.sigma[s].item()
    kept = (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2  # e^−2h
    fresh = eta * sigma_s * math.sqrt(1 - kept)
    of_x = math.sqrt(sigma_s**2 - fresh**2) / sigma_t
    x_s = of_x * x + (alpha_s - of_x * alpha_t) * x0
    return x_s + fresh * noise() if fresh > 0 else x_s


def ddim(
    denoiser: Denoiser, now: Prediction, s: int, history: History, noise: Noise, *, eta: float = 0.0
) -> Tensor:
    """Denoising diffusion implicit models (Song et al. 2021).

    With eta = 0 this is Euler's method for the probability-flow equation, which in the variables
    x / sigma and alpha / sigma reads d(x / sigma) / d(alpha / sigma) = x_0(x, t). With eta = 1 it
    is `ddpm`.
    """
    return move(denoiser.schedule, now.x_t, now.t, s, now.x0, noise, eta)


def ddpm(denoiser: Denoiser, now: Prediction, s: int, history: History, noise: Noise) -> Tensor:
    """Draw from q(x_s | x_t, x_0), the noising chain turned round (Ho et al. 2020, eq. 6 and 7).

    The estimate takes the place of the unknown x_0. Eq. 7 multiplied out is `move` with eta = 1,
    also where s is not t − 1: its beta is then that of the whole stride, 1 − ᾱ_t / ᾱ_s.
    """
    return move(denoiser.schedule, now.x_t, now.t, s, now.x0, noise, eta=1.0)


def heun(denoiser: Denoiser, now: Prediction, s: int, history: History, noise: Noise) -> Tensor:
    """Try a step, ask again where it ends, and go with the mean (Karras et al. 2022, alg. 1).

    This is the trapezoid rule in the variables of `ddim`, where alpha_T = 0 is harmless. Two
    evaluations a step; one at the last, because a denoiser is never asked at t = 0.
    """
    x_s = move(denoiser.schedule, now.x_t, now.t, s, now.x0, noise)
    if s == 0:
        return x_s
    x0 = (now.x0 + denoiser(x_s, s).x0) / 2
    return move(denoiser.schedule, now.x_t, now.t, s, x0, noise)


def extrapolated(schedule: Schedule, now: Prediction, s: int, history: History) -> Tensor:
    """x_0 halfway (in lambda = log alpha / sigma) from t to s, on the line through the last two.

    At the first step there is no such line, and to t = 0, where lambda is infinite, no halfway: the
    newest x_0 is returned. So it is after a step from alpha_T = 0, infinitely far behind.
    """
    if not history or s == 0:
        return now.x0
    last = history[-1]
    lambda_last, lambda_t, lambda_s = (schedule.log_snr[[last.t, now.t, s]] / 2).tolist()
    ratio = (lambda_s - lambda_t) / (lambda_t - lambda_last)
    return now.x0 + ratio / 2 * (now.x0 - last.x0)


def dpmpp_2m(denoiser: Denoiser, now: Prediction, s: int, history: History, noise: Noise) -> Tensor:
    """DPM-Solver++ (2M): second order at one evaluation a step (Lu et al. 2022, alg. 2)."""
    x0 = extrapolated(denoiser.schedule, now, s, history)
    return move(denoiser.schedule, now.x_t, now.t, s, x0, noise)


def dpmpp_2m_sde(
    denoiser: Denoiser, now: Prediction, s: int, history: History, noise: Noise
) -> Tensor:
    """SDE-DPM-Solver++ (2M): the same extrapolation in the step of DDPM (Lu et al. 2022)."""
    x0 = extrapolated(denoiser.schedule, now, s, history)
    return move(denoiser.schedule, now.x_t, now.t, s, x0, noise, eta=1.0)


#: What a rule is called with is told at the top of this module.
StepRule = Callable[..., Tensor]
#: The step rules by name.
SAMPLERS: dict[str, StepRule] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
}


def sample_steps(
    denoiser: Denoiser,
    x_T: Tensor,
    sampler: str | StepRule = "dpmpp_2m",
    num_inference_steps: int = 20,
    generator: Generators = None,
    timesteps: Sequence[int] | None = None,
    **options: float,
) -> Iterator[Step]:
    """Walk from x_T to x_0 and yield every step. No gradients are recorded.

    Args:
        denoiser: asked once per step (twice by heun).
        x_T: (B, ...) noise to start from, see `standard_normal`.
        sampler: a name in `SAMPLERS`, or a step rule of your own.
        num_inference_steps: N, from 1 to T, on the grid of the denoiser's schedule.
        generator: source of the fresh noise of the stochastic samplers; with a list of B generators
            picture i does not depend on how many others are drawn beside it.
        timesteps: a strictly falling grid of your own, used instead of num_inference_steps. It may
            end above 0: then the last state still holds noise.
        options: of the sampler, for instance eta of ddim.

    Raises:
        ValueError: for an unknown sampler, impossible steps or timesteps, or a list of generators
            that does not match the batch. Raised by the call itself, before the first step.
        TypeError: for an option that the sampler does not have.
    """
    rule = _rule(sampler, options)
    kept = getattr(rule, "history", HISTORY)
    if timesteps is None:
        grid = denoiser.schedule.timesteps(num_inference_steps)
    else:
        grid = _checked_grid(timesteps, denoiser.schedule.num_train_timesteps)
    generator = checked_generators(generator, len(x_T))

    def noise() -> Tensor:
        return standard_normal(x_T.shape, generator, x_T.device, x_T.dtype)

    def walk() -> Iterator[Step]:
        x, history = x_T, tuple[Prediction, ...]()
        for index, (t, s) in enumerate(itertools.pairwise(grid)):
            with torch.no_grad():  # not around the yield: the caller's own code keeps its gradients
                now = denoiser(x, t)
                x_s = rule(denoiser, now, s, history, noise, **options)
            x = checked_answer("the sampler", x_s, x)
            history = (*history, now)[-kept:]
            yield Step(index, s, x, now)

    return walk()


def sample(denoiser: Denoiser, x_T: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The (B, ...) end of `sample_steps`, which takes the same arguments."""
    for step in sample_steps(denoiser, x_T, *args, **kwargs):
        x = step.x
    return x


def evaluations(sampler: str | StepRule, num_inference_steps: int, **options: float) -> int:
    """How often a sampler asks the denoiser on the way to t = 0, counted on a walk of one number.

    Times `denoiser.evaluations` this is the number of function evaluations (NFE): guidance runs the
    network twice each time.

    Args:
        sampler, num_inference_steps, options: as in `sample_steps`.

    Raises:
        ValueError, TypeError: as there.
    """
    asked = []

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        asked.append(t)
        return x_t

    T = max(1000, whole_number("num_inference_steps", num_inference_steps))
    denoiser = NetworkDenoiser(network, make_schedule("straight", T), "x0")
    own = torch.Generator()  # counting leaves the global random state alone
    sample(denoiser, torch.zeros(1, 1, 1, 1), sampler, num_inference_steps, own, **options)
    return len(asked)


def standard_normal(
    shape: Sequence[int],
    generator: Generators = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal noise of this shape, (B, ...).

    Noise is drawn on the generator's own device and then moved, so a generator of the CPU gives the
    same pictures on every machine.

    Args:
        generator: one for all, or a list of B, one per picture. Without one the global random state
            of the device is used.

    Raises:
        ValueError: if a list of generators does not hold one per picture.
    """

    def draw(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
        where = device if generator is None else generator.device
        return torch.randn(tuple(shape), generator=generator, device=where, dtype=dtype).to(device)

    generator = checked_generators(generator, shape[0])
    if generator is None or isinstance(generator, torch.Generator):
        return draw(shape, generator)
    return torch.stack([draw(shape[1:], one) for one in generator])


def seeded_generator(
    seed: int, *purpose: int | str, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator for one purpose, which words and whole numbers name: (0, "held out"), (0, 7).

    No two purposes see the same numbers. (seed, i) is the noise of picture i.

    Raises:
        ValueError: for a seed that is no whole number, or a purpose of anything else.
    """
    words = (p if isinstance(p, str) else whole_number("seed", p) for p in purpose)
    key = (whole_number("seed", seed), *words)  # numpy's numbers as Python's own
    # Python's own generator mixes them well: neighbouring seeds give unrelated noise.
    return torch.Generator(device).manual_seed(random.Random(repr(key)).getrandbits(63))


def checked_generators(generator: Any, pictures: int) -> Generators:
    """None, one generator, or a list of one per picture.

    Raises:
        TypeError: for anything else.
        ValueError: if a list does not hold one per picture.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    several = list(generator) if isinstance(generator, Iterable) else [generator]
    for one in several:
        if not isinstance(one, torch.Generator):
            wanted = "generator must be a torch.Generator or a list of them"
            raise TypeError(f"{wanted}, got {one!r} (a number goes into seed or seeded_generator)")
    if len(several) != pictures:
        raise ValueError(f"{len(several)} generators for {pictures} pictures: give one, or each")
    return several


def _rule(sampler: str | StepRule, options: dict[str, float]) -> StepRule:
    """The step rule of this name, once its options are known to exist."""
    if callable(sampler):
        rule, name = sampler, getattr(sampler, "__name__", repr(sampler))
    elif isinstance(sampler, str) and sampler in SAMPLERS:
        rule, name = SAMPLERS[sampler], sampler
    else:
        raise ValueError(f"unknown sampler {sampler!r}: choose one of {', '.join(SAMPLERS)}")
    parameters = inspect.signature(rule).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            has = ", ".join(known) or "none"
            raise TypeError(f"sampler {name!r} has no option {option!r}; it has {has}")
    if rule is ddim:
        _checked_eta(**options)
    return rule


def _checked_eta(eta: float = 0.0) -> float:
    return number_within(0, 1, eta, "eta must be from 0 (no fresh noise) to 1 (as in DDPM)")


def _checked_grid(timesteps: Sequence[Any], last: int) -> list[int]:
    try:
        grid = [whole_number("timesteps", t) for t in timesteps]
    except (TypeError, ValueError):
        grid = []
    falls = all(t > s for t, s in itertools.pairwise([last + 1, *grid, -1]))
    if len(grid) < 2 or not falls:
        wanted = f"timesteps must be two or more whole numbers from {last} to 0"
        raise ValueError(f"{wanted}, each smaller than the one before, got {timesteps!r}")
    return grid
