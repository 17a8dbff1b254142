"""What a run has logged so far, read by those who watch it: the run itself is not touched."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minidiff import run_folder
from minidiff.inputs import as_path, is_file, is_folder
from minidiff.storage import CheckpointError, read_info


@dataclass(frozen=True)
class Log:
    """What a run has logged so far.

    Attributes:
        name: the folder, as it was given.
        entries: the lines of log.jsonl, oldest first.
        running: whether a process trains there now.
        finished: whether the model is written.
        recipe: the settings of the run, as its newest checkpoint has them; empty before the first.
    """

    name: str
    entries: list[dict[str, Any]]
    running: bool = False
    finished: bool = False
    recipe: dict[str, Any] = field(default_factory=dict)

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """The steps at which a number was logged, and the numbers; key: "loss", …"""
        found = [(e["step"], e[key]) for e in self.entries if _is_number(e.get(key))]
        return [step for step, _ in found], [value for _, value in found]

    @property
    def held_out(self) -> list[tuple[int, dict[str, float]]]:
        """For each evaluation its step and {"62": loss at t = 62, …, "mean": mean}."""
        each = [(e["step"], e.get("held_out_loss")) for e in self.entries]
        return [(s, x) for s, x in each if isinstance(x, dict) and _is_number(x.get("mean"))]

    @property
    def step(self) -> int:
        """The newest step that was logged."""
        return self.entries[-1]["step"] if self.entries else 0

    @property
    def seconds(self) -> float:
        """Of training so far."""
        return next(reversed(self.series("seconds")[1]), 0.0)

    @property
    def seconds_left(self) -> float | None:
        """Until the last step or the time limit, at the pace of late; None if nobody can know."""
        steps, seconds = (numbers[-10:] for numbers in self.series("seconds"))
        if "steps" not in self.recipe or not steps:
            return None
        if len(steps) == 1:
            steps, seconds = [0, *steps], [0.0, *seconds]
        pace = (seconds[-1] - seconds[0]) / max(steps[-1] - steps[0], 1)
        limit = self.recipe.get("time_limit")
        until = math.inf if limit is None else 60 * limit - seconds[-1]
        return max(min((self.recipe["steps"] - steps[-1]) * pace, until), 0.0)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def read(run: str | Path | Log) -> Log:
    """The log of a run, from its folder or from the file itself.

    A last line that is just being written is left out.

    Raises:
        FileNotFoundError: if there is no log, unless a training has just begun there.
        ValueError: for a file that holds no line of a log, unless likewise.
    """
    if isinstance(run, Log):
        return run
    given = as_path("run", run)
    folder = given if is_folder(given) or not given.suffix else given.parent
    path = folder / "log.jsonl" if folder == given else given
    running = _is_held(folder)  # asked before reading: what is read of a run that ended is all
    if not is_file(path) and not running:
        raise FileNotFoundError(
            f"there is no log in {given}: give the folder of a run, which holds log.jsonl"
            if is_folder(folder)
            else f"there is no folder {folder}: give that of a run, which holds log.jsonl"
        )
    lines = path.read_bytes().split(b"\n") if is_file(path) else []
    entries = [entry for line in lines if (entry := _entry(line)) is not None]
    if not entries and not running:
        what = "is empty" if not any(lines) else "holds no line that a training has logged"
        raise ValueError(f"{path} {what}: give the folder of a run that has logged something")
    finished = is_file(folder / "model" / "config.json") and not running
    return Log(str(given), entries, running, finished, _recipe(folder))


def _entry(line: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):  # damaged, or half of it written
        entry = json.loads(line.decode("utf-8"))
        if isinstance(entry, dict) and type(entry.get("step")) is int:
            return entry
    return None


def _is_held(folder: Path) -> bool:
    """Whether a process trains in a folder. Its lock is not tried: the run must not meet us."""
    try:
        holder = json.loads((folder / ".lock").read_text(encoding="utf-8"))
        host, pid = holder["host"], int(holder["pid"])
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):  # it is about to say who it is
        return True
    import socket

    import psutil

    return host != socket.gethostname() or psutil.pid_exists(pid)


def _recipe(folder: Path) -> dict[str, Any]:
    newest = run_folder.latest_checkpoint(folder)
    with contextlib.suppress(CheckpointError):
        recipe = read_info(newest).get("training") if newest else None
        return recipe if isinstance(recipe, dict) else {}
    return {}
