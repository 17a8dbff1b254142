"""Noise schedules: how much signal and how much noise there is at each timestep.

Everything in this package rests on one line::

    x_t = alpha_t * x_0 + sigma_t * eps,        eps ~ N(0, I)

where t = 0 is the data (alpha = 1, sigma = 0) and t = T is the noise. A `Schedule` is the table of
alpha and sigma for t = 0 … T, so it has T + 1 entries, and a sampler's last step is looked up like
any other.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def whole_number(name: str, value: Any) -> int:
    """As an int; numpy's and torch's integers are welcome too, True and 3.0 are not.

    Raises:
        ValueError: naming what it was for.
    """
    try:
        if isinstance(value, bool) or getattr(value, "dtype", None) == torch.bool:
            raise TypeError
        return operator.index(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None


def is_finite(value: Any) -> bool:
    """Whether it is a finite number: Python's, numpy's or torch's. True is none."""
    try:
        return not isinstance(value, bool) and math.isfinite(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return False


def number_within(low: float, high: float, value: Any, wanted: str) -> float:
    """As a Python float, known to lie in low … high; numpy's and torch's count with fewer digits.

    Raises:
        ValueError: saying what was wanted.
    """
    if not (is_finite(value) and low <= value <= high):
        raise ValueError(f"{wanted}, got {value!r}")
    return float(value)


class Schedule:
    """Tables of alpha_t and sigma_t for t = 0 … T, in float64 on the CPU.

    Args:
        name: what the schedule is called in a configuration.
        alpha: (T + 1,) share of the data left at t; alpha[0] = 1.
        sigma: (T + 1,) standard deviation of the noise at t; sigma[0] = 0.
        shift: how its grids are spaced where nothing else is asked for, see `timesteps`.

    Raises:
        ValueError: if the tables do not start at the data, if the signal-to-noise ratio does not
            fall at every step, or for a shift outside 1e-6 … 1e6.
    """

    def __init__(self, name: str, alpha: Tensor, sigma: Tensor, shift: float = 1.0) -> None:
        alpha, sigma = (
            torch.as_tensor(x, dtype=torch.float64).cpu().clone() for x in (alpha, sigma)
        )
        if alpha.ndim != 1 or alpha.shape != sigma.shape or len(alpha) < 2:
            shapes = f"{tuple(alpha.shape)} and {tuple(sigma.shape)}"
            raise ValueError(f"alpha and sigma must be two tables of T + 1 numbers, got {shapes}")
        start = alpha[0].item(), sigma[0].item()
        if start != (1, 0):
            wanted = "t = 0 is the data: alpha[0] must be 1 and sigma[0] must be 0"
            raise ValueError(f"{wanted}, got {start[0]} and {start[1]}")
        ratio = alpha[1:] / sigma[1:]  # at t = 0 it is infinite
        falls = torch.isfinite(ratio).all() and (ratio >= 0).all() and (ratio.diff() < 0).all()
        if not (falls and (sigma[1:] > 0).all()):
            raise ValueError(f"schedule {name!r}: alpha / sigma must fall at each step, to >= 0")
        self.name, self.alpha, self.sigma = name, alpha, sigma
        self.shift = self._checked_shift(shift)
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    @staticmethod
    def _checked_shift(shift: Any) -> float:
        return number_within(1e-6, 1e6, shift, "shift must be from 1e-6 to 1e6 (1 = evenly spaced)")

    def __repr__(self) -> str:
        return f"Schedule({self.name!r}, num_train_timesteps={self.num_train_timesteps})"

    @property
    def num_train_timesteps(self) -> int:
        """T, the number of noising steps."""
        return len(self.alpha) - 1

    @property
    def is_variance_preserving(self) -> bool:
        """Whether alpha² + sigma² = 1 at every t (not so on the straight line)."""
        return bool(((self.alpha**2 + self.sigma**2 - 1).abs() <= 1e-6).all())

    @property
    def alphas_cumprod(self) -> Tensor:
        """(T + 1,) alpha_t², written ᾱ_t by Ho et al. 2020; entry 0 is 1.

        Raises:
            ValueError: on a schedule for which alpha² + sigma² is not 1.
        """
        if not self.is_variance_preserving:
            why = "has alpha² + sigma² ≠ 1, so betas and alphas_cumprod do not describe it"
            raise ValueError(f"schedule {self.name!r} {why}: use .alpha and .sigma")
        return self.alpha**2

    @property
    def betas(self) -> Tensor:
        """(T,) variance of the noise added from t − 1 to t, for t = 1 … T (Ho et al. 2020).

        Raises:
            ValueError: as `alphas_cumprod`.
        """
        cumprod = self.alphas_cumprod
        return 1 - cumprod[1:] / cumprod[:-1]

    @property
    def log_snr(self) -> Tensor:
        """(T + 1,) log(alpha² / sigma²), +inf at t = 0, −inf where nothing of the data is left."""
        return 2 * (self.alpha.log() - self.sigma.log())

    def coefficients(self, t: int | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t in the dtype and on the device of `like`, shaped to multiply it.

        Args:
            t: one timestep, or (B,) timesteps, whole numbers in 0 … T.
            like: (B, ...) tensor that the result will be multiplied with.

        Returns:
            two tensors of shape (B or 1, 1, ..., 1) with as many dimensions as `like`.

        Raises:
            ValueError: as `checked`, for another number of timesteps than `like` has rows, and for
                whole numbers in `like`: a share of the data is none of them.
        """
        if not like.is_floating_point():
            raise ValueError(f"data must be floats, pictures in [-1, 1]; these are {like.dtype}")
        index = self.checked(t)
        if len(like) > 1 and len(index) not in (1, len(like)):
            raise ValueError(f"{len(index)} timesteps for {len(like)} examples: give one, or each")
        # One small table per device, made once: training then never waits for a transfer.
        kind = like.device, like.dtype
        if kind not in self._tables:  # the cast first: MPS has no float64
            alpha, sigma = (x.to(like.dtype).to(like.device) for x in (self.alpha, self.sigma))
            self._tables[kind] = alpha, sigma
        alpha, sigma = self._tables[kind]
        index, shape = index.to(like.device), (-1,) + (1,) * (like.ndim - 1)
        return alpha[index].view(shape), sigma[index].view(shape)

    def checked(self, t: int | Tensor, lowest: int = 0) -> Tensor:
        """t as a tensor (1,) or (B,) of int64, known to lie in lowest … T.

        On a GPU only the dtype is looked at: to see the values the host would have to wait for it.

        Raises:
            ValueError: for what is not a whole number (0.5 would be cut to 0) or lies outside (−1
                would mean T).
        """
        try:
            index = t if isinstance(t, Tensor) else torch.as_tensor(t, device="cpu")
            whole = torch.can_cast(index.dtype, torch.long) and index.dtype != torch.bool
        except (TypeError, ValueError, RuntimeError):  # a text, None, numbers that are too large
            whole = False
        if whole and index.device.type == "cpu" and index.numel():
            low, high = (end.item() for end in index.long().aminmax())
            whole = lowest <= low and high <= self.num_train_timesteps
        if not whole:
            wanted = f"t must be whole numbers from {lowest} to {self.num_train_timesteps}"
            raise ValueError(f"{wanted}, got {t!r}")
        return index.long().reshape(-1)

    def add_noise(self, x0: Tensor, eps: Tensor, t: int | Tensor) -> Tensor:
        """x_t = alpha_t x_0 + sigma_t eps, the whole noising chain at once (Ho et al. 2020, eq. 4).

        Args:
            x0: (B, ...) data.
            eps: (B, ...) standard normal noise.
            t: one timestep or (B,) of them.

        Returns:
            (B, ...) x_t.

        Raises:
            ValueError: for timesteps that are not whole numbers in 0 … T, or noise of another shape
                (one row may serve for several).
        """
        if x0.shape[1:] != eps.shape[1:] or (len(x0) != len(eps) and 1 not in (len(x0), len(eps))):
            raise ValueError(f"x0 is {tuple(x0.shape)} but eps {tuple(eps.shape)}: give both alike")
        alpha, sigma = self.coefficients(t, like=x0)
        return alpha * x0 + sigma * eps

    def timesteps(self, num_inference_steps: int, shift: float | None = None) -> list[int]:
        """The walk of a sampler: num_inference_steps + 1 falling integers from T down to 0.

        With a shift of 1 they are evenly spaced and rounded ("trailing" spacing, Lin et al. 2024,
        table 2). The walk always starts at pure noise and always ends exactly at the data.

        Args:
            num_inference_steps: N, from 1 to T.
            shift: above 1 the steps lie closer together where there is much noise: u = t / T
                becomes shift · u / (1 + (shift − 1) u) (Esser et al. 2024, eq. 23). None takes the
                schedule's own.

        Raises:
            ValueError: if num_inference_steps is not in 1 … T, or shift not in 1e-6 … 1e6.
        """
        steps, last = whole_number("num_inference_steps", num_inference_steps), len(self.alpha) - 1
        if not 1 <= steps <= last:
            wanted = f"num_inference_steps must be from 1 to {last} (the steps of the schedule)"
            raise ValueError(f"{wanted}, got {steps}")
        shift, grid = self.shift if shift is None else self._checked_shift(shift), list[int]()
        for i in range(steps + 1):
            u = (steps - i) / steps
            t = round(last * shift * u / (1 + (shift - 1) * u))
            # No step may be empty, nor leave too few for those that follow.
            grid.append(max(min(t, grid[-1] - 1), steps - i) if grid else last)
        return grid


def linear(num_train_timesteps: int = 1000) -> Schedule:
    """Linearly growing betas, 0.0001 … 0.02 over 1000 steps (Ho et al. 2020, section 4).

    With another number of steps each stands for 1000 / T of those, so that the noise at the end is
    the same.
    """
    betas = torch.linspace(1e-4, 0.02, num_train_timesteps, dtype=torch.float64)
    return _from_betas("linear", 1 - (1 - betas) ** (1000 / num_train_timesteps))


def cosine(num_train_timesteps: int = 1000) -> Schedule:
    """alphas_cumprod falls like a squared cosine (Nichol & Dhariwal 2021, eq. 17).

    As in the paper the betas stay below 0.999, so a trace of the data is left at t = T.
    """
    u = torch.arange(num_train_timesteps + 1, dtype=torch.float64) / num_train_timesteps
    cumprod = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return _from_betas("cosine", (1 - cumprod[1:] / cumprod[:-1]).clamp(max=0.999))


def straight(num_train_timesteps: int = 1000) -> Schedule:
    """The straight line from data to noise: alpha = 1 − t / T, sigma = t / T.

    This is the path of flow matching (Lipman et al. 2023; Liu et al. 2023, rectified flow).
    """
    u = torch.arange(num_train_timesteps + 1, dtype=torch.float64) / num_train_timesteps
    return Schedule("straight", 1 - u, u)


def _from_betas(name: str, betas: Tensor) -> Schedule:
    cumprod = torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])
    return Schedule(name, cumprod.sqrt(), (1 - cumprod).sqrt())


def rescale_zero_terminal_snr(schedule: Schedule) -> Schedule:
    """Shift and stretch sqrt(ᾱ) so that no data is left at t = T (Lin et al. 2024, alg. 1).

    Without it the network learns that even the noisiest picture still shows how bright the paper
    is, and samples that start from pure noise come out grey. As in the article, the entry at t = 1
    is kept.

    Args:
        schedule: a variance-preserving schedule.

    Raises:
        ValueError: for one that is not.
    """
    root = schedule.alphas_cumprod.sqrt()
    first, last = root[1], root[-1]
    alpha = (root - last) * first / (first - last)
    alpha[0] = 1.0  # t = 0 is the data, outside the paper's table
    return Schedule(schedule.name, alpha, (1 - alpha**2).clamp(min=0).sqrt(), schedule.shift)


#: The schedules by name; each is called with T.
SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "linear": linear,
    "cosine": cosine,
    "straight": straight,
}


def make_schedule(
    name: str, num_train_timesteps: int = 1000, zero_terminal_snr: bool = False, shift: float = 1.0
) -> Schedule:
    """Build a schedule by name.

    Args:
        name: "linear", "cosine" or "straight".
        num_train_timesteps: T.
        zero_terminal_snr: rescale it so that alpha_T = 0 (the straight line ends there anyway).
        shift: of its grids, see `Schedule.timesteps`.

    Raises:
        ValueError: for an unknown name, a T that is not a whole number of at least 2, a
            zero_terminal_snr that is not True or False, or a shift outside 1e-6 … 1e6.
    """
    if not isinstance(name, str) or name not in SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}: choose one of {', '.join(sorted(SCHEDULES))}")
    steps = whole_number("num_train_timesteps", num_train_timesteps)
    if steps < 2:
        raise ValueError(f"num_train_timesteps must be at least 2, got {steps}")
    if not isinstance(zero_terminal_snr, bool):
        raise ValueError(f"zero_terminal_snr must be True or False, got {zero_terminal_snr!r}")
    schedule = SCHEDULES[name](steps)
    if zero_terminal_snr and name != "straight":
        schedule = rescale_zero_terminal_snr(schedule)
    return Schedule(schedule.name, schedule.alpha, schedule.sigma, shift)
