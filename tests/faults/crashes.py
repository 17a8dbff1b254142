"""SIGKILL: at every point where a file comes into being, and at random moments."""

from __future__ import annotations

import builtins
import dataclasses
import io
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from faults import tiny
from faults.frame import Child, Outcome, Tally, in_child, new_folder
from helpers import Pictures, awake, names
from minidiff import cache, plots
from minidiff.endings import TrainingStopped
from minidiff.model import load_model
from minidiff.run_folder import latest_checkpoint

Folder = Callable[[Path], Any]


class Crash:
    """Lists the moments at which a process could die, and dies at the one it is told.

    It watches from outside: what `os` and `open` are asked for within the folder.
    Before and in the middle: after one thing is before the next, and the last moment is the end.
    """

    def __init__(self, folder: Path, at: int | None = None) -> None:
        self.folder, self.at, self.moments = folder, at, list[str]()
        for name in ("rename", "replace", "unlink", "rmdir"):
            setattr(os, name, self.around(name, getattr(os, name)))
        self.open = io.open
        io.open = builtins.open = self.watched_open

    def moment(self, name: str) -> None:
        if len(self.moments) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.moments.append(name)

    def around(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            self.moment(f"before {name} {Path(str(arguments[0])).name}")
            return original(*arguments, **options)

        return watched

    def watched_open(self, file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        opened = self.open(file, mode, *arguments, **options)
        ours = isinstance(file, int) or str(file).startswith(str(self.folder))
        return WatchedFile(opened, str(file), self) if ours and set(mode) & set("wax") else opened


class WatchedFile:
    """A file, written in two halves."""

    def __init__(self, file: Any, name: str, crash: Crash) -> None:
        self.file, self.name, self.crash = file, Path(name).name, crash

    def write(self, payload: Any) -> int:
        half = len(payload) // 2
        self.crash.moment(f"before writing {self.name}")
        self.file.write(payload[:half])
        self.file.flush()
        self.crash.moment(f"in the middle of {self.name}")
        self.file.write(payload[half:])
        self.file.flush()
        return len(payload)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> WatchedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@dataclasses.dataclass
class Scene:
    """Something that writes: what is there before, what is done, and what must hold after it."""

    name: str
    prepare: Folder
    act: Folder
    check: Folder
    says: tuple[str, ...] = ()  # a check may also end in an error that says one of these


# ------------------------------------------------------------------------- what writes


def interrupt_at_once(folder: Path) -> None:
    """Ctrl-C after a resume and before the first step: the same step is saved once more."""

    class Impatient(tiny.Trainer):
        def step(self) -> None:
            raise KeyboardInterrupt

    try:
        Impatient(tiny.RECIPE, Pictures(), folder, resume=True).run()
    except TrainingStopped as stopped:
        assert "interrupted" in str(stopped)


def check_run(folder: Path) -> None:
    """Nothing half-written has a name, and the run ends as if nothing had happened."""
    run = folder / "run"
    tiny.check_whole(run)
    tiny.go_on(run)
    assert tiny.end_state(run) == tiny.end_state(folder.parent / "undisturbed")
    assert names(run) == ["checkpoints", "log.jsonl", "model"], names(run)
    saved = names(run / "checkpoints")
    assert saved[-2:] == ["step-00000004", "step-00000006"], saved
    assert all(name.startswith("step-") for name in saved), saved  # one too many does no harm


def check_model(folder: Path) -> None:
    """The model is the old one or the new one; it can be saved again."""
    try:
        unet, _, _ = load_model(folder / "model")
        weights = list(unet.parameters())
        known = [list(awake(tiny.SHAPE, seed).half().float().parameters()) for seed in (0, 1)]
        assert any(all(map(torch.equal, weights, other)) for other in known)
    finally:
        tiny.save_tiny_model(folder / "model", seed=1)
        load_model(folder / "model")


def with_cache(read: Callable[[Path], torch.Tensor]) -> tuple[Folder, Folder]:
    """Fill a cache; and see that what comes from it is right and is kept."""

    def act(folder: Path) -> None:
        os.environ["MINIDIFF_CACHE"] = str(folder / "cache")
        read(folder / "cache")

    def check(folder: Path) -> None:
        os.environ["MINIDIFF_CACHE"] = str(folder / "other")
        right = read(folder / "other")
        os.environ["MINIDIFF_CACHE"] = str(folder / "cache")
        assert torch.equal(read(folder / "cache"), right)
        assert {*names(folder / "other")} <= {*names(folder / "cache")}  # and it is kept now

    return act, check


def picture_payloads() -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (32, 32), dtype=torch.uint8, generator=draw).numpy()
    image = Image.fromarray(noise)
    frames = [image, image.rotate(90)]
    return {"x.png": image, "x.gif": plots.animation(frames), "x.npy": noise}


def write_pictures(folder: Path) -> None:
    for name, payload in picture_payloads().items():
        plots.save_picture(folder / name, payload)


def check_pictures(folder: Path) -> None:
    whole = folder / "whole"
    whole.mkdir()
    write_pictures(whole)
    for path in whole.iterdir():
        assert (folder / path.name).read_bytes() in (b"old", path.read_bytes()), path.name
    write_pictures(folder)


def old_pictures(folder: Path) -> None:
    for name in picture_payloads():
        (folder / name).write_bytes(b"old")


def scenes() -> list[Scene]:
    def warm_cache(folder: Path) -> None:
        """The folder is tried before it is watched."""
        cache._writable(folder / "cache")

    return [
        Scene("first training", lambda _: None, lambda f: tiny.train_to(f / "run", 2), check_run),
        Scene(
            "resumed training",
            lambda f: tiny.train_to(f / "run", 5),
            lambda f: tiny.train(f / "run", resume=True),
            check_run,
        ),
        Scene(
            "interrupted training",
            lambda f: tiny.train_to(f / "run", 3),
            lambda f: interrupt_at_once(f / "run"),
            check_run,
        ),
        Scene(
            "model replaced",
            lambda f: tiny.save_tiny_model(f / "model"),
            lambda f: tiny.save_tiny_model(f / "model", seed=1),
            check_model,
            ("has no config.json",),
        ),
        Scene("glyph cache", warm_cache, *with_cache(lambda _: tiny.few_glyphs())),
        Scene("text cache", warm_cache, *with_cache(tiny.few_texts)),
        Scene("pictures", old_pictures, write_pictures, check_pictures),
    ]


# ------------------------------------------------------------------------- the families


def crash_points(tally: Tally, short: bool) -> None:
    """Kill before, in the middle of and after every write, renaming and removal of a scene."""
    with new_folder() as folder:
        assert in_child(lambda: tiny.train(folder / "undisturbed")).kind == "returned"
        for scene in scenes():
            try_scene(tally, scene, folder, short)


def try_scene(tally: Tally, scene: Scene, folder: Path, short: bool) -> None:
    template = folder / "template"
    template.mkdir()
    prepared = in_child(lambda: scene.prepare(template))
    assert prepared.kind == "returned", prepared

    def act(copy: Path, at: int | None) -> list[str]:
        crash = Crash(copy, at)
        scene.act(copy)
        crash.moment("at the end")
        return crash.moments

    def once(at: int | None) -> Outcome:
        copy = folder / "copy"
        shutil.copytree(template, copy)
        try:
            outcome = in_child(lambda: act(copy, at))
            if at is not None:
                assert outcome.kind == "killed", outcome
                outcome = in_child(lambda: scene.check(copy))
            return outcome
        finally:
            shutil.rmtree(copy)

    moments = once(None).value
    if not short:
        print(f"  {scene.name}: {len(moments)} points", flush=True)
    total = len(moments)
    for at in range(total // 3, total, total // 2) if short else range(total):
        tally.judge(f"{scene.name}, {moments[at]} (#{at})", once(at), scene.says)
    shutil.rmtree(template)


def random_kills(tally: Tally, short: bool) -> None:
    """Kill a training at random moments, from its first line to its last."""
    chance = random.Random(0)
    config = dataclasses.replace(tiny.RECIPE, steps=8, save_every=1)
    with new_folder() as folder:
        started = time.monotonic()
        assert in_child(lambda: tiny.train(folder / "whole", config)).kind == "returned"
        length = time.monotonic() - started
        expected = tiny.end_state(folder / "whole")

        def check(run: Path) -> None:
            tiny.check_whole(run)
            tiny.go_on(run, config)
            assert tiny.end_state(run) == expected
            assert names(run) == ["checkpoints", "log.jsonl", "model"], names(run)
            saved = names(run / "checkpoints")
            assert all(name.startswith("step-") for name in saved) and len(saved) <= 3, saved

        for i in range(3 if short else 100):
            run, wait = folder / str(i), chance.uniform(0, 1.1 * length)
            child = Child(lambda: tiny.train(run, config))  # noqa: B023
            time.sleep(wait)
            child.kill()
            child.end()
            newest = latest_checkpoint(run)
            reached = "before the first checkpoint" if newest is None else f"after {newest.name}"
            tally.judge(f"killed {reached} (#{i})", in_child(lambda: check(run)))  # noqa: B023
            shutil.rmtree(run, ignore_errors=True)
