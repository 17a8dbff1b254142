"""What a training runs on: the devices and processes that there are, and nothing else around it.

What the environment or a notebook has set for other work would change what is learnt, so it is put
aside or, where that cannot be, refused by name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from minidiff.inputs import plain_torch

if TYPE_CHECKING:
    from accelerate import Accelerator


@contextlib.contextmanager
def usual_torch() -> Iterator[None]:
    """Train as ever, whatever a notebook has set for all of torch before."""
    with contextlib.ExitStack() as usual:
        usual.enter_context(plain_torch())
        usual.enter_context(torch.inference_mode(False))
        usual.enter_context(torch.enable_grad())
        yield


# What `accelerate config` can ask for and `accelerate launch` sets, but training here cannot do.
SHARDED = (
    "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG",
)  # fmt: skip


def accelerator(log_with: Sequence[str] = (), folder: Path | None = None) -> Accelerator:
    """One that the environment can only tell which devices and processes there are.

    Args:
        log_with: names of trackers, see `minidiff.trackers`.
        folder: where tensorboard finds them; wandb has a folder of its own.
    """
    from accelerate import Accelerator
    from accelerate.utils import GradientAccumulationPlugin, parse_flag_from_env

    for name in SHARDED:
        if parse_flag_from_env(name):
            raise ValueError(
                f"{name} is set, but here every process keeps the whole network: unset it, or "
                "launch without it (accelerate launch --multi_gpu)"
            )
    once = GradientAccumulationPlugin(num_steps=1)
    made = Accelerator(
        mixed_precision=precision(),
        gradient_accumulation_plugin=once,
        dynamo_backend="no",
        log_with=list(log_with) or None,
        project_dir=folder,
    )
    # torchrun does not say to accelerate that they shall share a CPU.
    if int(os.environ.get("WORLD_SIZE", "1")) > made.num_processes:
        raise ValueError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but each process would train alone: set "
            "ACCELERATE_USE_CPU=true to share the work on CPUs, or launch one process"
        )
    return made


def precision() -> str:
    """bf16 where the GPU has it, fp16 (with loss scaling) on older ones, else float32."""
    from accelerate.utils import parse_flag_from_env

    if not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU"):
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


@contextlib.contextmanager
def bfloat16_on_cpu(wanted: bool) -> Iterator[None]:
    """Compute in bf16 where that is wanted and the processor has it (AVX-512 BF16).

    A training step then takes two thirds of its time.
    """
    has_it = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    if not wanted or not has_it():
        yield
        return
    with torch.autocast("cpu", torch.bfloat16), _Wide():
        yield


class _Wide(TorchFunctionMode):
    """Attention and group norm in float32: on a CPU bf16 makes them three to ten times slower."""

    FUNCTIONS = (F.scaled_dot_product_attention, F.group_norm)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in self.FUNCTIONS:
            return func(*args, **kwargs)

        def wide(x: Any) -> Any:
            return x.float() if getattr(x, "dtype", None) == torch.bfloat16 else x

        with torch.autocast("cpu", enabled=False):
            return func(*map(wide, args), **{name: wide(x) for name, x in kwargs.items()})
