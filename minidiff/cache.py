"""The cache: what takes a while to make and can be made again; checked when it is read."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from minidiff.inputs import warn
from minidiff.storage import Tensors, write_file


def cached(
    name: str,
    make: Callable[[], Tensors],
    fits: Callable[[Tensors], bool],
    folder: Path | None = None,
) -> Tensors:
    """Tensors by name: those kept under `name`, else those that `make` makes, which are then kept.

    Several processes may ask at once.

    Args:
        name: says all that the tensors depend on.
        fits: whether tensors that were found are of the right names and shapes.
        folder: where they are kept; `cache_dir()` if None.

    Warns:
        UserWarning: for a file that is damaged, which is made anew, and where nothing can be kept.
    """
    path = (folder or cache_dir()) / f"{name}.safetensors"
    found = _read(path, fits)
    if found is not None:
        return found
    made = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, save(made, metadata={"sha256": _digest(made)}))
    except (OSError, SafetensorError) as error:  # a full disk: what was made is fine
        warn(f"{path} is not kept for the next time: {error}")
    return made


def _read(path: Path, fits: Callable[[Tensors], bool]) -> Tensors | None:
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            expected = (file.metadata() or {}).get("sha256")
        if fits(found) and _digest(found) == expected:
            return found
        reason = "its content is not what was written"
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError) as error:
        reason = str(error)
    warn(f"the cache file {path} is damaged and is made anew ({reason})")
    return None


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors, reverse=True):  # the order of the files that lie there already
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()


def cache_dir() -> Path:
    """Where pictures and encoded texts are kept.

    The folder in the environment variable MINIDIFF_CACHE, else the user's cache folder of the
    system; if it cannot be written, a temporary folder (with a warning, once).
    """
    chosen = os.environ.get("MINIDIFF_CACHE")
    if not chosen:
        from platformdirs import user_cache_dir

        chosen = user_cache_dir("minidiff", appauthor=False)
    return _writable(Path(chosen).expanduser().absolute())


@cache
def _writable(folder: Path) -> Path:
    """The folder, made if need be; where nothing can be written, a temporary one and a warning."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        fallback = _temporary()
        warn(
            f"the cache folder {folder} cannot be written ({error}); using {fallback} instead. "
            "Set the environment variable MINIDIFF_CACHE to a folder that can be written."
        )
        return fallback


def _temporary() -> Path:
    """A folder that the next process of the same user finds again, so that the work is not lost."""
    user = os.getuid() if hasattr(os, "getuid") else None  # Windows: already the user's own
    shared = Path(tempfile.gettempdir()) / f"minidiff-{user or 0}"
    try:
        shared.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryFile(dir=shared):
            # One that somebody else has put there is not to be trusted.
            if user is None or (shared.stat().st_uid == user and not shared.is_symlink()):
                return shared
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="minidiff-"))
