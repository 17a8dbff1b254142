"""What callers hand over, checked where it comes in: each error names the value and what is wanted.

Python, torch and the libraries below have errors of their own for most of this. They come late,
differ from version to version, and speak of something else than what was given.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch


def as_path(name: str, value: Any) -> Path:
    """A path from a text or a `pathlib.Path`.

    Args:
        name: what it is called by the caller.

    Raises:
        TypeError: for anything else.
        ValueError: for a text that no path can be.
    """
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str):
        raise TypeError(f"{name} must be a text or a pathlib.Path, got {value!r}")
    if "\0" in path:
        raise ValueError(f"{name} must not hold a null character, got {value!r}")
    return Path(path)


def on_network(path: str) -> bool:
    """Whether a path is of another machine: Windows logs in there as soon as it is asked for."""
    return path.replace("\\", "/").startswith(("//", "/??/"))


# Unlike those of Path, which until Python 3.12 raise for a name that is too long, they say no.
is_folder, is_file = os.path.isdir, os.path.isfile


def warn(message: str) -> None:
    """A UserWarning that points at the line from which this package was called."""
    level, frame = 1, sys._getframe()
    ours = ("minidiff", "contextlib", "functools")  # decorators of ours stand in between
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in ours:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def warn_of_namesake(name: str, path: Path, kind: str) -> None:
    """Names come before files: say so where a file or folder here has the name as well."""
    if is_folder(path) or is_file(path):
        what = "folder" if is_folder(path) else "file"
        warn(
            f"{name!r} is taken for the {kind} of that name; for the {what} here write "
            f"{f'./{path}'!r}"
        )


def as_device(device: Any) -> torch.device:
    """A device that is here.

    Raises:
        TypeError: for anything but a text or a torch.device.
        ValueError: for one that this machine does not have, or that torch does not know.
    """
    if not isinstance(device, str | torch.device):
        raise TypeError(
            f'device must be a text such as "cpu" or "cuda", or a torch.device, got {device!r}'
        )
    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # torch has both for a GPU that is not here
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise ValueError(
            f'device {str(device)!r} cannot be used here ({reason}): give "cpu", or leave it out'
        ) from error
    return torch.device(device)


#: Of pictures, in pixels: the side of a square, or height and width.
Size = int | tuple[int, int]


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def as_size(name: str, value: Any) -> Size:
    """A size from a whole number or a pair of them; a square's is one number.

    Raises:
        ValueError: for anything else.
    """
    plain = value.tolist() if hasattr(value, "tolist") else value
    pair = list(plain) if isinstance(plain, list | tuple) else [plain, plain]
    both = [side.tolist() if hasattr(side, "tolist") else side for side in pair]
    if len(both) != 2 or not all(type(side) is int for side in both):
        raise ValueError(f"{name} must be {WANTED['Size']}, got {value!r}")
    height, width = both
    return height if height == width else (height, width)


# What the annotation of a setting asks for, in words.
WANTED = {
    "Size": "a whole number, or two of them: [height, width]",
    "int": "a whole number",
    "int | None": "a whole number or None",
    "float": "a finite number",
    "float | None": "a number above 0",
    "bool": "true or false",
    "str": "a text",
    "str | None": "a text or None",
}


def check_settings(settings: Any) -> None:
    """Hold every field of a frozen dataclass to its annotation.

    Numbers of numpy and torch become Python's: settings are compared, and written as JSON.

    Raises:
        ValueError: for a value of another type, naming the field.
    """
    for field in dataclasses.fields(settings):
        given, kind = getattr(settings, field.name), str(field.type)
        value = given.tolist() if hasattr(given, "tolist") else given
        if kind == "Size":
            value = as_size(field.name, given)
        elif not _fits(value, kind):
            raise ValueError(f"{field.name} must be {WANTED.get(kind, f'a {kind}')}, got {given!r}")
        object.__setattr__(settings, field.name, value)


def _fits(value: Any, kind: str) -> bool:
    if kind.endswith(" | None"):
        return value is None or _fits(value, kind.removesuffix(" | None"))
    if kind == "float":
        try:
            return type(value) in (int, float) and math.isfinite(value)
        except OverflowError:  # a whole number that is too large for one
            return False
    # Not isinstance: True is no number.
    return kind == "Any" or type(value).__name__ == kind


@contextlib.contextmanager
def plain_torch() -> Iterator[None]:
    """Float32 on the CPU, whatever torch.set_default_dtype, set_default_device and autocast say.

    Also a decorator.
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    with contextlib.ExitStack() as plain:
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                plain.enter_context(torch.autocast(kind, enabled=False))
        if dtype != torch.float32 or device.type != "cpu":
            plain.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
            plain.enter_context(torch.device("cpu"))
        yield
