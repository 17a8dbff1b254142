"""The fixtures that several test files use; plain functions are in helpers.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import helpers


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the package keeps what it can make again: a folder that does not exist yet."""
    monkeypatch.setenv("MINIDIFF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of a size such as "1m" and gives its folder, or skips the test."""
    with ExitStack() as mounted:

        def mount(size: str) -> Path:
            try:
                return mounted.enter_context(helpers.small_disk(tmp_path, f"size={size}"))
            except helpers.SkippedError as reason:
                pytest.skip(str(reason))

        yield mount


@pytest.fixture
def reading_on_cpu(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On the CPU, whatever the machine has; a cache of its own; the made-up encoder."""
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(helpers.text, "TextEncoder", helpers.Reader)
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
