"""The short form of tests/faults/run.py: no case may fail, and careless code must be found out.

Run as a program this file is the child that does both: it forks, which a process that has run
other tests should not.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parent
FEWEST = {  # cases of every family, also in the short form
    "crash points": 14, "random kills": 3, "full disk": 10, "damaged files": 100,
    "nothing executed": 20, "read-only home": 2, "polite endings": 6, "two in one folder": 14,
    "two trainings": 6, "shared cache": 8, "network refused": 8, "odd paths": 2, "C locale": 1,
    "odd pictures": 55, "odd tables": 40, "bad command lines": 15, "any values": 40,
}  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the processes that it kills"),
]


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, encoding="utf-8", timeout=580, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "said": done.stderr}


@pytest.mark.parametrize("family", FEWEST)
def test_no_case_fails(results: dict[str, Any], family: str) -> None:
    counts = results["families"][family]
    if "skipped" in counts:
        pytest.skip(counts["skipped"])
    assert counts["failed"] == 0, results["said"][-6000:]
    assert counts["right"] + counts["clear_error"] >= FEWEST[family]


def test_every_family_is_tried(results: dict[str, Any]) -> None:
    assert list(results["families"]) == list(FEWEST)


CARELESS = ["writer", "picture writer", "reader", "picture reader", "cache", "command"]


@pytest.mark.parametrize("careless", CARELESS)
def test_careless_code_is_found_out(results: dict[str, Any], careless: str) -> None:
    assert results["careless"][careless] > 0


def test_a_child_that_is_killed_while_a_bar_is_drawn_hangs_no_later_one() -> None:
    program = """if True:
        import time
        from faults.frame import Child, in_child
        from tqdm.auto import tqdm

        def hold():
            with tqdm.get_lock():
                time.sleep(60)

        list(tqdm(range(2)))  # the parent's own bar makes the lock
        child = Child(hold)
        time.sleep(0.5)
        child.kill()
        assert child.end().kind == "killed"
        print(in_child(lambda: list(tqdm(range(2))), timeout=10).kind)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=TESTS, capture_output=True,
        encoding="utf-8", timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout == "returned\n"


def main() -> None:
    import numpy as np
    import torch
    from PIL import Image, ImageOps
    from safetensors.torch import load_file, save

    import faults.run as kit
    from faults import calls, crashes, disks, frame, pictures
    from minidiff import cache, datasets, model, plots, shell, storage

    def write_in_place(folder: Path, files: dict[str, Any], info: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        info = {"format": storage.FORMAT, "version": storage.VERSION, **info, "files": {}}
        for name, tensors in files.items():
            payload = save({key: value.contiguous() for key, value in tensors.items()})
            with (folder / name).open("wb") as file:
                file.write(payload)
            info["files"][name] = hashlib.sha256(payload).hexdigest()
        info["sha256"] = storage.info_hash(info)
        with (folder / "config.json").open("w", encoding="utf-8") as file:
            file.write(json.dumps(info))

    def picture_in_place(path: Path, payload: Any) -> None:
        with path.open("wb") as file:
            file.write(bytes(payload if isinstance(payload, bytes) else payload.tobytes()))

    def read_anything(folder: Path, name: str, _: Any) -> Any:
        return torch.load(folder / name, weights_only=False)

    def read_unchecked(path: Path, *_: Any) -> Any:
        return load_file(path) if path.exists() else None

    def read_as_it_comes(root: Path, row: Any, _: Any) -> Any:
        with Image.open(root / row.file_name) as file:
            grey = ImageOps.exif_transpose(file).convert("L")
        page = ImageOps.pad(grey, (8, 8), color=255)
        return torch.from_numpy(np.array(page)).unsqueeze(0), False

    def failures(module: Any, name: str, careless: Any, act: Callable[[Any, Path], None]) -> int:
        """Of the cases of `act`, with careless code in the place of ours."""
        kept, tally = getattr(module, name), frame.Tally()
        setattr(module, name, careless)
        with frame.new_folder() as folder:
            act(tally, folder)
        setattr(module, name, kept)
        return len(tally.failed)

    def scene(number: int) -> Callable[[Any, Path], None]:
        return lambda tally, folder: crashes.try_scene(
            tally, crashes.scenes()[number], folder, short=False
        )

    def pickled_models(tally: Any, folder: Path) -> None:
        kept = disks.targets
        disks.targets = lambda folder: itertools.islice(kept(folder), 2)
        disks.nothing_executed(tally, short=True)
        disks.targets = kept

    families = kit.as_json(kit.run(short=True))
    careless = {
        "writer": failures(model, "write_folder", write_in_place, scene(3)),
        "picture writer": failures(plots, "save_picture", picture_in_place, scene(6)),
        "reader": failures(model, "read_tensors", read_anything, pickled_models),
        "picture reader": failures(
            datasets, "_load_picture", read_as_it_comes, lambda t, _: pictures.odd_pictures(t, True)
        ),
        "cache": failures(
            cache, "_read", read_unchecked, lambda t, f: disks.damaged_caches(t, True, f)
        ),
        "command": failures(
            shell, "USER_ERRORS", (OSError,), lambda t, _: calls.bad_command_lines(t, short=True)
        ),
    }
    print(json.dumps({"families": families, "careless": careless}))


if __name__ == "__main__":
    main()
