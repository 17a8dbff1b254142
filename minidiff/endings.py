"""How a training ends before its time: asked to by the system, or because it cannot go on.

Ctrl-C, and the signals by which clusters, `timeout` and a closed terminal end a process, become
exceptions that a training can catch to save what it has. Where half a thing must not be seen, in
the middle of an update or a save, they wait.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

#: How messages say in Python how to go on; the command line puts its own command in this place.
RESUME = "resume=True"


class TrainingStopped(RuntimeError):
    """Training cannot go on; the message says why and what to try.

    Attributes:
        signal: the number of the signal that ended it (that of Ctrl-C, too), or None.
    """

    def __init__(self, message: str, signal: int | None = None) -> None:
        super().__init__(message)
        self.signal = signal


class Ended(SystemExit):
    """The system asked the process to end. Nobody need catch it: the exit status is right.

    Attributes:
        signal: the number of the signal.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(128 + signal)
        self.signal = signal


# Some clusters announce the end with SIGUSR1, SIGUSR2 or, of processor time, SIGXCPU.
ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK", "SIGUSR1", "SIGUSR2", "SIGXCPU")
# What ends a process, and who deals with it as long as nobody has chosen otherwise. A signal that
# is ignored (nohup) or has a handler of the user's own is left alone.
_USUAL: dict[int, Any] = {
    number: signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    for name in ENDING
    if (number := getattr(signal, name, None)) is not None
}
_waiting: list[list[int]] = []  # while nothing may be interrupted: the signals that came


def _end(number: int, _: Any) -> None:
    if _waiting:
        _waiting[0].append(number)
    elif number == signal.SIGINT:
        raise KeyboardInterrupt
    else:
        raise Ended(number)


@contextlib.contextmanager
def polite() -> Iterator[None]:
    """Raise `Ended` within the block where a signal would end the process at once.

    In the main thread only; no other can.
    """
    taken = {}
    if threading.current_thread() is threading.main_thread():
        taken = {n: usual for n, usual in _USUAL.items() if signal.getsignal(n) == usual}
    try:
        for number in taken:
            signal.signal(number, _end)
        yield
    finally:
        for number, usual in taken.items():
            signal.signal(number, usual)


@contextlib.contextmanager
def uninterrupted() -> Iterator[list[int]]:
    """Let Ctrl-C and its like wait until the block is done.

    Yields:
        The signals that came, to be cleared where they need not be heard of any more.
    """
    came: list[int] = []
    if _waiting or threading.current_thread() is not threading.main_thread():
        yield came
        return
    with polite():
        _waiting.append(came)
        try:
            yield came
        finally:
            _waiting.clear()
        if came:
            _end(came[0], None)
