"""A run folder: what a training leaves on the disk, so that it can be watched and go on.

log.jsonl            a line every time something is logged
checkpoints/step-…/  the newest two: all that a resumed run needs
model/               the finished model, which `minidiff.load` opens
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from minidiff import checkpoints

__all__ = ["TrainingStopped", "latest_checkpoint"]

KEPT = 2  # checkpoints: should the newest be damaged, there is one to go on from


class TrainingStopped(RuntimeError):
    """Training cannot go on; the message says why and what to try."""


def all_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a run folder, oldest first."""
    return sorted((folder / "checkpoints").glob("step-*"))


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run folder, or None."""
    return next(reversed(all_checkpoints(folder)), None)


def open_folder(folder: Path, resume: bool) -> None:
    """Make the folder of a new run, or see that there is something to resume.

    Raises:
        FileExistsError: for a new run, if there is one already.
        FileNotFoundError: if there is nothing to resume.
    """
    newest = latest_checkpoint(folder)
    if resume and newest is None:
        raise FileNotFoundError(
            f"there is no checkpoint to resume in {folder}: start without --resume"
        )
    log = folder / "log.jsonl"
    if not resume and (newest is not None or log.exists()):
        remedy = f"delete {log}" if newest is None else "go on with --resume"
        raise FileExistsError(f"{folder} already holds a run: {remedy}, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process has left half-written."""
    checkpoints.remove_parts(folder / "checkpoints", "step-*")
    checkpoints.remove_parts(folder, "model")


def save_checkpoint(
    folder: Path, step: int, files: dict[str, dict[str, Tensor]], info: dict[str, Any]
) -> None:
    """Write the checkpoint of a step, unless it is there, and remove those that are too old.

    Raises:
        TrainingStopped: if it cannot be written.
    """
    place = folder / "checkpoints" / f"step-{step:08d}"
    if not place.exists():  # Ctrl-C right after a save or a resume: it is there already
        with disk_errors():
            checkpoints.write_folder(place, files, info)
    for old in all_checkpoints(folder)[:-KEPT]:
        checkpoints.remove_folder(old)


def write_log(folder: Path, step: int, entry: dict[str, Any]) -> None:
    """Add a line to the log.

    Raises:
        TrainingStopped: if it cannot be written.
    """
    path = folder / "log.jsonl"
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **entry}) + "\n")
    except OSError as error:
        raise TrainingStopped(
            f"could not write {path} ({error.strerror}). Free some space, then go on with --resume"
        ) from error


def trim_log(folder: Path, step: int) -> None:
    """Take out what was logged after a step, and the line that a crash cut short."""
    path = folder / "log.jsonl"
    if not path.exists():
        return
    logged, kept = path.read_bytes(), b""
    for line in logged.splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):  # damaged
            if json.loads(line.decode("utf-8"))["step"] <= step:
                kept += line + b"\n"
    if kept != logged:  # also where only the last line's end is missing
        part = path.with_name("log.jsonl.part")
        part.write_bytes(kept)
        part.replace(path)


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Say of a full or broken disk that the run can go on once it is mended."""
    try:
        yield
    except OSError as error:
        raise TrainingStopped(f"{error.strerror}, then go on with --resume") from error
