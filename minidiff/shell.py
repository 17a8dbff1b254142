"""How the command line speaks: an error in one line, notices, and commands that can be pasted.

A user's error names the value and the remedy, and is never a traceback.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minidiff.endings import RESUME, TrainingStopped

USER_ERRORS = (ValueError, OSError, ImportError, MemoryError, TrainingStopped)


def is_users(error: Exception) -> bool:
    """Anything else is a mistake in the code, be it ours or that of who is changing it.

    So is a ValueError that no line raises, such as "too many values to unpack".
    """
    line = traceback.extract_tb(error.__traceback__)[-1].line
    if type(error) is ValueError and line and not line.startswith("raise"):
        return False
    kinds = _is_usage(error) or isinstance(error, USER_ERRORS)
    return kinds or _is_out_of_memory(error) or _lacks_compiler(error)


def _lacks_compiler(error: Exception) -> bool:
    """As torch.compile says it for a CPU and Triton for a GPU."""
    words = ("No working C++ compiler", "Failed to find C compiler")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _is_out_of_memory(error: Exception) -> bool:
    """Also where torch says so: of CUDA with an error of its own, of MPS and the CPU in words."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    torchs = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return torchs or isinstance(error, MemoryError)


def _is_usage(error: Exception) -> bool:
    """A misspelt option and the like. Old releases of typer raise click's errors, new ones own."""
    return hasattr(error, "format_message")


def message(error: Exception) -> str:
    """What is wrong, on one line."""
    if _is_usage(error):
        text = error.format_message()  # type: ignore[attr-defined]
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "minidiff"
        reason: Any = error.__cause__  # new releases leave out the value, but pydantic has it
        got = f", got {reason.errors()[0]['input']!r}" if hasattr(reason, "errors") else ""
        text = f"{text.rstrip('.')}{got}; see {command} --help"
    elif _lacks_compiler(error):
        text = (
            "torch.compile finds no compiler: install a C++ compiler such as g++, or leave out "
            "--compile"
        )
    elif _is_out_of_memory(error):
        size = re.search(r"allocate ([\d.]+ \w+)", str(error))
        text = (
            f"there is not enough memory{f' for another {size[1]}' if size else ''}: draw fewer "
            "pictures at a time (--num-images), or train with a smaller --batch-size"
        )
    else:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, OSError) and error.filename and str(error.filename) not in text:
            text = f"{text}: {error.filename}"
    return " ".join(text.split()) or type(error).__name__


def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # Notices of ours are UserWarnings; what libraries warn their developers of is not for users.
    if issubclass(category, UserWarning):
        from tqdm import tqdm

        # Not into the middle of a progress bar.
        tqdm.write(f"minidiff: {' '.join(str(message).split())}", file=sys.stderr)


# --------------------------------------------------------- commands that can be pasted


@contextmanager
def told_to_go_on(*words: str) -> Iterator[None]:
    """Where an error says in Python's words how to go on, put the command in their place."""
    try:
        yield
    except (OSError, TrainingStopped) as error:
        launch = ["accelerate", "launch", "-m"] if "LOCAL_RANK" in os.environ else []
        again = command(*launch, "minidiff", *words)
        error.args = tuple(
            part.replace(RESUME, again) if isinstance(part, str) else part for part in error.args
        )
        raise


def example(prompt: str | None, output: Path) -> str:
    """The command that draws with a new model; one without text needs no prompt."""
    words = ["--model", as_path(output)]
    if prompt is not None:
        if len(prompt) > 80:
            prompt = textwrap.shorten(prompt, 80, placeholder="") or prompt[:80]
        # behind "--" it is not taken for an option
        words = [*words, "--", prompt] if prompt.startswith("-") else [prompt, *words]
    return command("minidiff", "sample", *words)


def as_path(path: Path) -> str:
    """A path that is taken neither for an option nor for a model that ships."""
    from minidiff.inputs import is_file
    from minidiff.shelf import MODELS

    misread = str(path).startswith("-") or is_file(MODELS / path / "config.json")
    return f".{os.sep}{path}" if misread and not path.is_absolute() else str(path)


def cleaned(prompt: str) -> str:
    """A prompt as the text encoder reads it, without line ends and control characters."""
    shown = (c for c in prompt if c.isprintable() or c.isspace())
    return " ".join("".join(shown).split())


def command(*words: str) -> str:
    """The words as one line for the shell that is usual here."""
    return " ".join(_quoted_for_windows(w) if os.name == "nt" else _quoted(w) for w in words)


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    # Control characters and bytes that are no text.
    plain = (
        chr(b) if 32 <= b < 127 and b not in b"\\'" else f"\\x{b:02x}" for b in os.fsencode(word)
    )
    return f"$'{''.join(plain)}'"


def _quoted_for_windows(word: str) -> str:
    if re.fullmatch(r"[\w./\\:=+-]+", word):
        return word
    word = re.sub(r'(\\*)"', r'\1\1\\"', word)  # backslashes count only before a quotation mark
    word = re.sub(r"(\\+)$", r"\1\1", word)
    return f'"{word}"'
