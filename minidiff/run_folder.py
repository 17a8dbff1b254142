"""A run folder: what a training leaves on the disk, so that it can be watched and go on.

log.jsonl            a line every time something is logged
checkpoints/step-…/  the newest two: all that a resumed run needs
model/               the finished model, which `minidiff.load` opens
.lock                while a process trains there: which one
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from minidiff import storage
from minidiff.endings import RESUME, TrainingStopped, uninterrupted
from minidiff.inputs import is_file

__all__ = ["RunLock", "latest_checkpoint"]

KEPT = 2  # checkpoints: should the newest be damaged, there is one to go on from


def all_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints of a run folder, oldest first; copies under other names are not ours."""
    names = (folder / "checkpoints").glob("step-*")
    ours = [path for path in names if re.fullmatch(r"step-\d{8,}", path.name)]
    return sorted(ours, key=lambda path: int(path.name.removeprefix("step-")))


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run folder, or None."""
    return next(reversed(all_checkpoints(folder)), None)


def newest_info(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint of a run and what its config.json says.

    Raises:
        FileNotFoundError: if there is nothing to resume.
        BlockingIOError: if there is nothing yet, but another process is at it.
        CheckpointError: if it is damaged, or a model only.
    """
    newest = latest_checkpoint(folder)
    if newest is None:
        if not _held and (folder / ".lock").exists():
            with RunLock(folder):  # which is free if its holder was killed
                pass
        if (log := folder / "log.jsonl").exists():
            raise FileNotFoundError(
                f"the run in {folder} has saved nothing yet, so there is nothing to resume: "
                f"delete {log} and start a new run"
            )
        raise FileNotFoundError(f"there is no checkpoint to resume in {folder}: start a new run")
    with older_named(folder):
        info = storage.read_info(newest)
        if "training" not in info:
            raise storage.CheckpointError(f"{newest} holds a model but no run to go on with")
    return newest, info


@contextlib.contextmanager
def older_named(folder: Path) -> Iterator[None]:
    """Where the newest checkpoint turns out to be damaged, name the one to go on from."""
    try:
        yield
    except storage.CheckpointError as error:
        pair = all_checkpoints(folder)[-KEPT:]
        if len(pair) < 2:
            raise
        raise storage.CheckpointError(
            f"{error}; or delete {pair[1]} and go on from {pair[0]}"
        ) from error


def check_new(folder: Path) -> None:
    """See that no run is in the folder.

    Raises:
        FileExistsError: if one is.
    """
    log, newest = folder / "log.jsonl", latest_checkpoint(folder)
    if newest is not None or log.exists():
        remedy = f"delete {log}" if newest is None else f"go on with {RESUME}"
        raise FileExistsError(f"{folder} already holds a run: choose another folder, or {remedy}")


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"unet": {"stem": 2}} -> {"unet.stem": 2}"""
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = flat(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        found |= {f"{prefix}{name}": value} if inner is None else inner
    return found


# --------------------------------------------------------------------- one process at a time

_held: set[int] = set()  # descriptors of the locks that this process holds


def _forget() -> None:
    """In a forked child: the lock is the parent's and must end with the parent."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class RunLock:
    """The right to write into a run folder, as a context; the folder is made if need be.

    It is the system's own lock on a file there, so it goes with the process, however that ends.
    Where the file system has no locks nothing is locked. The folders that were made for it go again
    at its end, unless something is in them.

    Raises:
        BlockingIOError: if a training holds it, naming that.
        NotADirectoryError: if a file is in the folder's place.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / ".lock"
        self._made: list[Path] = []  # innermost first
        self._descriptor = -1

    def __enter__(self) -> None:
        for place in (self.folder, *self.folder.parents):
            if is_file(place):
                raise NotADirectoryError(
                    f"cannot make the folder {self.folder}, for {place} is a file: choose another"
                )
        try:
            for _ in range(100):  # whoever had the file may just be removing it, and the folder
                self._made += [p for p in (self.folder, *self.folder.parents) if not p.exists()]
                self.folder.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError), uninterrupted():
                    if self._take():
                        return
        except BaseException:
            self._release()
            raise

    def __exit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        with uninterrupted():
            if self._descriptor in _held:  # it is not in a child that was forked in between
                _held.remove(self._descriptor)
                with contextlib.suppress(OSError):
                    self.path.unlink()
                os.close(self._descriptor)
                self._descriptor = -1
                if os.name == "nt":  # there a file that is open cannot be removed
                    with contextlib.suppress(OSError):
                        self.path.unlink()
            for folder in self._made:
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def _take(self) -> bool:
        """Open the file, lock it and say who we are; False if it was removed meanwhile."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._lock(descriptor)
            if not os.path.samestat(os.fstat(descriptor), self.path.stat()):
                os.close(descriptor)
                return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _held.add(descriptor)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps(holder).encode("utf-8"))
        return True

    def _lock(self, descriptor: int) -> None:
        try:
            _lock(descriptor)
        except (BlockingIOError, PermissionError):
            raise BlockingIOError(self._held_by()) from None
        except OSError:
            return  # no locks on this file system

    def _held_by(self) -> str:
        try:
            holder = json.loads(self.path.read_text(encoding="utf-8"))
            who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError, TypeError):  # it is about to say so
            who = "another process"
        return (
            f"{self.folder} is being trained in by {who}: wait for its end or end it, "
            "or choose another folder"
        )


def _lock(descriptor: int) -> None:
    """Lock an open file for this process, at once or not at all."""
    if os.name == "nt":
        import msvcrt

        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # a locked byte cannot be read by others
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


# ------------------------------------------------------------------------------ what is written


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process has left half-written."""
    storage.remove_parts(folder / "checkpoints", "step-*")
    storage.remove_parts(folder, "model")


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
            storage.write_folder(place, files, info)
    for old in all_checkpoints(folder)[:-KEPT]:
        storage.remove_folder(old)


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
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
        raise TrainingStopped(
            f"could not write {path} ({error.strerror}). {'Free some space' if full else 'Mend it'}"
            f", then go on with {RESUME}"
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
        storage.write_file(path, kept)


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Say of a full or broken disk that the run can go on once it is mended."""
    try:
        yield
    except OSError as error:
        raise TrainingStopped(f"{error.strerror or error}, then go on with {RESUME}") from error
