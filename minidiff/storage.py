"""Storage: files and folders that are written whole or not at all, and checked when they are read.

A checked folder holds safetensors and one JSON file, config.json, that says what they are; what
they mean is for others to know. Nothing here reads or writes a pickle, so a folder from anywhere
can be opened without running anything. What is written goes under another name and is renamed when
it is complete, so what is found under its own name is whole. The SHA-256 of every file, and of the
JSON itself, stands in the JSON and is checked: what a disk or an editor has changed is not taken
for what was saved.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from minidiff.inputs import as_path, is_file

FORMAT = "minidiff"
VERSION, READ = 2, (1, 2)  # what is written, and what can be read
Tensors = dict[str, Tensor]


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, altered or not ours."""


def write_file(path: Path, payload: bytes) -> None:
    """Write a file beside its place, then rename it: no reader and no second writer sees half.

    Raises:
        OSError: where it cannot be written (full disk, no permission), naming the path; what lay
            there before is untouched then.
    """
    # Not mkstemp: its files are for one user only, but a folder may be shared.
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with part.open("xb") as file:
            file.write(payload)
        part.replace(path)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_folder(folder: str | Path, files: dict[str, Tensors], info: dict[str, Any]) -> None:
    """Write `files` (name -> tensors) and `info` (as config.json) as one whole, or not at all.

    An older folder of that name is replaced only once the new one is complete.

    Raises:
        FileExistsError: as `check_replaceable`.
        OSError: where it cannot be written (full disk, no permission); nothing is changed then.
        ValueError: for an `info` that JSON cannot hold.
    """
    folder, part = as_path("folder", folder), None
    check_replaceable(folder)
    try:  # as it will be read: JSON has texts for the numbers that are keys
        info = json.loads(json.dumps(info, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the record of {folder} does not fit into JSON ({error}): leave that out, or make it "
            "a text"
        ) from error
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = _part_folder(folder)
        hashes = {}
        for name, tensors in files.items():
            # Copies, for weights that share their memory cannot be stored.
            plain = torch.contiguous_format
            copies = {n: x.detach().cpu().clone(memory_format=plain) for n, x in tensors.items()}
            payload = save(copies)
            hashes[name] = hashlib.sha256(payload).hexdigest()
            _write_through(part / name, payload)
        info = {"format": FORMAT, "version": VERSION, **info, "files": hashes}
        info["sha256"] = info_hash(info)
        text = json.dumps(info, indent=2, ensure_ascii=False)
        # A path that is not UTF-8 has lone surrogates: "\\udce9" means the same to JSON.
        _write_through(part / "config.json", text.encode("utf-8", "backslashreplace"))
        part.chmod(0o755)  # a temporary folder is private; a checkpoint need not be
        _replace(part, folder)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OSError(
            error.errno,
            f"could not save {folder} ({error.strerror or error}); what was saved before is "
            f"intact. {'Free some space or choose' if full else 'Choose'} another folder",
        ) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """See that what would be replaced is nothing, or was saved here.

    Raises:
        FileExistsError: naming what would be lost.
    """
    if not folder.is_dir():
        foreign = folder.name if folder.exists() else None
    else:
        ours = {"config.json", *(path.name for path in folder.glob("*.safetensors"))}
        others = sorted(path.name for path in folder.iterdir() if path.name not in ours)
        foreign = others[0] if others else _foreign_config(folder)
    if foreign is not None:
        raise FileExistsError(
            f"{folder} would be replaced, and {foreign!r} there was not saved by minidiff: move it "
            "away, or choose another folder"
        )


def _foreign_config(folder: Path) -> str | None:
    """config.json where it is that of another program; one that is damaged may be ours."""
    try:
        info = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return next((path.name for path in folder.iterdir()), None)
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(info, dict) and info.get("format") == FORMAT
    return None if ours else "config.json"


def _part_folder(folder: Path) -> Path:
    """A new folder beside `folder`, under a name that `remove_parts` knows."""
    return Path(tempfile.mkdtemp(prefix=f".{folder.name}.part-", dir=folder.parent))


def _replace(part: Path, folder: Path) -> None:
    """Let `part` take the place of `folder`; if that fails, all is as before."""
    if not folder.exists():
        part.rename(folder)
        return
    retired = _part_folder(folder)
    old = retired / "old"
    try:
        folder.rename(old)
        part.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        retired.rmdir()
        raise
    shutil.rmtree(retired, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Delete a checkpoint. Whatever interrupts this, no half of it stays under its own name."""
    with contextlib.suppress(OSError):
        folder = folder.rename(folder.with_name(f".{folder.name}.part-old"))
    shutil.rmtree(folder, ignore_errors=True)


def remove_parts(parent: Path, name: str) -> None:
    """Clear what a killed process has left half-written for folders called `name` (a pattern)."""
    for part in parent.glob(f".{name}.part-*"):
        shutil.rmtree(part, ignore_errors=True)


def info_hash(info: dict[str, Any]) -> str:
    """SHA-256 of the values in config.json, however they are laid out there."""
    values = {key: value for key, value in info.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("utf-8")).hexdigest()


def _write_through(path: Path, payload: bytes) -> None:
    with path.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())  # renamed too early, a power cut could leave an empty file


def read_info(folder: str | Path) -> dict[str, Any]:
    """The JSON of a checkpoint folder, checked to be ours.

    Raises:
        CheckpointError: saying what is wrong with it.
        TypeError: for a folder that is no path.
    """
    folder = as_path("folder", folder)
    path = folder / "config.json"
    if not is_file(path):
        raise CheckpointError(
            f"{folder} is not a minidiff checkpoint: it has no config.json. Give the folder that "
            "holds config.json and model.safetensors"
        )
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): use another copy") from error
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise CheckpointError(
            f"{folder} is not a minidiff checkpoint: {path} is of another kind. Give a folder that "
            "minidiff has saved"
        )
    if info.get("version") not in READ:
        raise CheckpointError(
            f"{folder} has checkpoint version {info.get('version')!r}, this minidiff reads "
            f"{' and '.join(map(str, READ))}: install a matching minidiff"
        )
    if info.get("sha256") != info_hash(info):
        raise CheckpointError(
            f"{path} is not what was saved (its SHA-256 differs): it was damaged or edited; copy "
            "it again or use another checkpoint"
        )
    return info


def read_tensors(folder: str | Path, name: str, info: dict[str, Any]) -> Tensors:
    """The tensors of one file of a checkpoint folder, checked against its SHA-256.

    Raises:
        CheckpointError: if the file is missing, cut short or altered.
    """
    folder = as_path("folder", folder)
    try:
        payload = (folder / as_path("name", name)).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{folder} lacks {name} ({error.strerror}): copy it again") from error
    hashes = info.get("files")
    expected = hashes.get(name) if isinstance(hashes, dict) else None
    if hashlib.sha256(payload).hexdigest() != expected:
        raise CheckpointError(
            f"{folder / name} is not what was saved (its SHA-256 differs): it was cut short or "
            "altered; copy it again or use another checkpoint"
        )
    try:
        return load(payload)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{folder / name} holds no tensors ({error}): use another checkpoint"
        ) from error
