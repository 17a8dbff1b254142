"""Trackers: what a run logs, in the tools in which people already look at curves.

They are filled by way of accelerate and stand beside log.jsonl, which stays as it is. Nothing
leaves the machine unless WANDB_MODE says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidiff.inputs import warn
from minidiff.run_folder import flat

if TYPE_CHECKING:
    from accelerate import Accelerator

#: The names of `log_with`: tensorboard --logdir RUN shows the first, wandb sync the second.
TRACKERS = ("tensorboard", "wandb")


def checked(names: Sequence[str]) -> list[str]:
    """Names of trackers that are here, each once.

    Raises:
        ValueError: for another name.
        ImportError: for one that is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"unknown tracker {name!r}: choose from {', '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise ImportError(
                f'{name} is not installed: pip install "minidiff[trackers]", or leave out log_with '
                "(--log-with); log.jsonl and minidiff log need nothing"
            )
    return list(dict.fromkeys(names))


@contextmanager
def tracked(
    accelerator: Accelerator, folder: Path, recipe: dict[str, Any], step: int
) -> Iterator[None]:
    """Trackers are open within the block, if the accelerator was made with any.

    Args:
        recipe: the settings, kept as the hyperparameters of the run.
        step: what was seen after it, in a run that goes on, is not shown any more.
    """
    if not accelerator.log_with:
        yield
        return
    # A list or None is no hyperparameter there.
    settings = {
        n: v if type(v) in (int, float, bool, str) else str(v) for n, v in flat(recipe).items()
    }
    mode = os.environ.get("WANDB_MODE", "offline")
    how = {
        "tensorboard": {"purge_step": step + 1} if step else {},
        "wandb": {"dir": str(folder), "name": folder.name, "mode": mode},
    }
    accelerator.init_trackers("minidiff", settings, how)
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            with suppress(Exception):  # nothing may stand in the way of what is saved
                tracker.finish()
        accelerator.trackers.clear()


def track(accelerator: Accelerator, step: int, entry: dict[str, Any]) -> None:
    """Tell the trackers the numbers of an entry of the log; trouble with them ends no training."""
    numbers = {n.replace(".", "/"): v for n, v in flat(entry).items() if type(v) in (int, float)}
    try:
        accelerator.log(numbers, step)
    except Exception as error:
        accelerator.trackers.clear()
        warn(f"the trackers failed, training goes on without: {type(error).__name__}: {error}")
