"""What several test files need: small models, data and encoders, folders, processes.

Plain functions and classes, so that tests/faults, which pytest does not run, can use them too; the
fixtures are in conftest.py.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from minidiff import encoder_files, text
from minidiff.schedules import make_schedule
from minidiff.unet import UNet, UNetConfig

ROOT = Path(__file__).resolve().parents[1]
MINILM = encoder_files.MINILM_SHA256[:16]  # the fingerprint of the encoder that ships
WIDTH = 12  # of the made-up text encoder
SCHEDULES = {
    "linear": make_schedule("linear"),
    "linear, zero SNR": make_schedule("linear", zero_terminal_snr=True),
    "cosine": make_schedule("cosine"),
    "cosine, zero SNR": make_schedule("cosine", zero_terminal_snr=True),
    "straight": make_schedule("straight"),
}


# --------------------------------------------------------------------- numbers, networks, data


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def awake(config: UNetConfig, seed: int = 0) -> UNet:
    """A network whose layers that start at zero are random: every part of it counts."""
    torch.manual_seed(seed)
    network = UNet(config).eval()
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return network


class Pictures:
    """A data set: black bars on white, with a few prompts for each."""

    def __init__(self, count: int = 20, size: int = 8, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.full((count, 1, size, size), 255, dtype=torch.uint8)
        for i, (row, column) in enumerate(torch.randint(size, (count, 2), generator=generator)):
            self.images[i, 0, row] = 0
            self.images[i, 0, :, column] = int(torch.randint(255, (), generator=generator))
        # 4 tokens the whole, 1 and 2 the senses; every other picture has one prompt of 3 tokens
        several = [(f"bar number {i} black", "bar", f"number {i}") for i in range(count)]
        self.prompts: list[tuple[str, ...]] = [
            p if i % 2 else (f"only bar {i}",) for i, p in enumerate(several)
        ]


class Words(text.TextEncoder):
    """A text encoder that knows nothing: a fixed random vector for every word."""

    def __init__(self, name: str | Path = "words", max_tokens: int = 32, device: Any = "cpu"):
        self.name, self.max_tokens, self.device = str(name), max_tokens, torch.device(device)
        self.fingerprint, self.dim = "0123", WIDTH
        vectors = torch.randn(997, WIDTH, generator=torch.Generator().manual_seed(0))
        vectors = vectors.to(self.device)
        self._model = lambda input_ids, **_: SimpleNamespace(last_hidden_state=vectors[input_ids])

    def token_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        return [
            [zlib.crc32(w.encode()) % 997 for w in p.split()][: self.max_tokens] for p in prompts
        ]

    def unknown_words(self, texts: Iterable[str]) -> list[str]:
        return sorted({word for text in texts for word in text.split() if word.startswith("b")})


class Reader(Words):
    """Makes something of every prompt, and reads it to its end."""

    def understands(self, *_: Any) -> None: ...

    def overlong(self, *_: Any) -> None: ...


# ------------------------------------------------------------------------------ files, folders


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The bytes of a picture's file."""
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def names(folder: Path) -> list[str]:
    """What lies in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The lines that a training has logged."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]


def full_disk(*_: Any, **__: Any) -> None:
    """In place of what writes a file or gives it its name."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class SkippedError(Exception):
    """Something cannot be tried here; the message says why."""


@contextmanager
def small_disk(parent: Path, options: str) -> Iterator[Path]:
    """A disk of its own, in memory.

    Raises:
        SkippedError: where this process may not mount one.
    """
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        raise SkippedError("needs root on Linux, to mount a small disk")
    disk = parent / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise SkippedError(f"no right to mount a small disk: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# -------------------------------------------------------------------------- programs, settings


class Result(NamedTuple):
    """How a program ended, and what it printed."""

    status: int
    out: str
    err: str


def run_python(*arguments: str, environment: dict[str, str] | None = None, **how: Any) -> Result:
    """Python in a process of its own, without what was set for these tests."""
    # `make test` asks for warnings that are for developers; libraries give some too.
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONWARNDEFAULTENCODING" and not name.startswith("HF_")
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**kept, **(environment or {})},
        encoding="utf-8",
        check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how},
    )
    return Result(done.returncode, done.stdout, done.stderr)


def printed_by(code: str, folder: Path | None = None, **environment: str) -> str:
    """What `code` prints in a process of its own, which must end well and complain of nothing."""
    environment = {"PYTHONIOENCODING": "utf-8", **environment}
    result = run_python("-c", code, cwd=folder, environment=environment)
    assert result.status == 0 and not result.err, result.err
    return result.out.strip()


def load_script(place: str) -> ModuleType:
    """A script of the repository as a module: load_script("tools/audit.py")."""
    spec = importlib.util.spec_from_file_location(Path(place).stem, ROOT / place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def odd_defaults(device: str | None = "meta") -> Iterator[None]:
    """float64, and a device that computes nothing, wherever code does not name its own."""
    torch.set_default_dtype(torch.float64)
    torch.set_default_device(device)
    try:
        yield
    finally:
        assert torch.get_default_dtype() == torch.float64, "nobody else may set it"
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
