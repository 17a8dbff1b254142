"""What all cases share: a process that may die, and a verdict on how it ended.

A case ends well in two ways: with the right result, or with a clear error. A clear error is one of
the kinds in `CLEAR` whose message names the file or the value that is wrong; on the command line it
is one line and a status that is not 0. Everything else is a fault: a wrong result, an error from
deep inside, a process that hangs.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from minidiff.endings import TrainingStopped

# The lock of all progress bars is by default one for parent and children: killed while it holds it,
# a child makes every later one hang. A thread's lock each process has for itself, free at the fork
# if the parent has no other thread, such as the bars' monitor.
tqdm.set_lock(threading.RLock())
tqdm.monitor_interval = 0

CLEAR = (ValueError, TypeError, OSError, ImportError, MemoryError, TrainingStopped)
Act = Callable[[], Any]


@dataclass
class Outcome:
    """How an attempt ended: "returned", "raised", "killed" or "hung"."""

    kind: str
    value: Any = None
    clear: bool = False  # raised: an error of the kinds that may be
    message: str = ""
    trace: str = ""
    ours: bool = False  # raised by a line of minidiff itself


def attempt(act: Act) -> Outcome:
    """Do it here."""
    try:
        return Outcome("returned", act())
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        return Outcome(
            "raised",
            clear=isinstance(error, CLEAR),
            message=f"{type(error).__name__}: {error}"[:2000],
            trace="".join(traceback.format_exception(error))[-3000:],
            ours=Path(last).parent.name in ("minidiff", "figures"),
        )


class Child:
    """Does it in a fork of this process, where everything is imported already."""

    def __init__(self, act: Act) -> None:
        self.reader, writer = os.pipe()
        self.process = os.fork()
        if self.process:
            os.close(writer)
            return
        try:
            os.close(self.reader)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nowhere, descriptor)
            answer = json.dumps(vars(attempt(act)), default=lambda _: None)
            os.write(writer, answer.encode("utf-8"))
        finally:
            os._exit(0)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGKILL)

    def end(self, timeout: float = 120.0) -> Outcome:
        """Wait for it."""
        deadline, answer, hung = time.monotonic() + timeout, b"", False
        while True:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self.reader], [], [], left)[0]:
                hung = True
                self.kill()
                break
            block = os.read(self.reader, 1 << 16)
            if not block:
                break
            answer += block
        os.close(self.reader)
        os.waitpid(self.process, 0)
        if answer and not hung:
            return Outcome(**json.loads(answer))
        return Outcome("hung" if hung else "killed")


def in_child(act: Act, timeout: float = 120.0) -> Outcome:
    return Child(act).end(timeout)


@dataclass
class Tally:
    """The results of one family of cases."""

    right: int = 0
    clear_error: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: str | None = None
    seconds: int = 0

    def judge(self, name: str, outcome: Outcome, says: Sequence[str] = ()) -> None:
        """Count a case; an error must hold one of `says`."""
        if outcome.kind == "returned":
            self.right += 1
        elif outcome.clear and any(word in outcome.message for word in says):
            self.clear_error += 1
        else:
            self.fail(name, outcome)

    def fail(self, name: str, outcome: Outcome) -> None:
        message = outcome.message or outcome.kind
        self.failed.append(f"{name}: {message}")
        print(f"  FAILED {name}: {message}\n{outcome.trace}", file=sys.stderr, flush=True)

    @property
    def cases(self) -> int:
        return self.right + self.clear_error + len(self.failed)


@contextmanager
def new_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        yield Path(folder)
