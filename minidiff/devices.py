"""What a training runs on: the devices and processes that there are, and nothing else around it.

What the environment or a notebook has set for other work would change what is learnt, so it is put
aside or, where that cannot be, refused by name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

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


def accelerator() -> Accelerator:
    """One that the environment can only tell which devices and processes there are."""
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
        mixed_precision=precision(), gradient_accumulation_plugin=once, dynamo_backend="no"
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
