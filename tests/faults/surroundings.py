"""What is around a process: others like it, no network, odd folders, another locale."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import minidiff
from faults import crashes, tiny
from faults.calls import command_line
from faults.disks import save_pictures
from faults.frame import Child, Outcome, Tally, in_child, new_folder
from helpers import names
from minidiff import encoder_files, text


def two_trainings(tally: Tally, short: bool) -> None:
    """Two trainings into one folder at once: each ends well or says why, and nothing is spoilt."""
    chance = random.Random(0)
    with new_folder() as folder:
        assert in_child(lambda: tiny.train(folder / "whole")).kind == "returned"
        files = tiny.end_state(folder / "whole")["files"]
        assert in_child(lambda: tiny.train_to(folder / "begun", 2)).kind == "returned"
        for i in range(2 if short else 20):
            run, resume = folder / "run", bool(i % 2)
            if resume:
                shutil.copytree(folder / "begun", run)
            pair = []
            for _ in range(2):
                pair.append(Child(lambda: tiny.train(run, resume=resume)))  # noqa: B023
                time.sleep(chance.uniform(0, 0.3))
            for name, child in zip(("first", "second"), pair, strict=True):
                what = f"{name} of two {'resumed' if resume else 'new'} ones (#{i})"
                tally.judge(what, child.end(), (str(run),))

            def check() -> None:
                tiny.check_whole(run)  # noqa: B023
                tiny.go_on(run)  # noqa: B023
                assert tiny.end_state(run)["files"] == files  # noqa: B023

            tally.judge(f"what they leave (#{i})", in_child(check))
            shutil.rmtree(run)


def shared_cache(tally: Tally, short: bool) -> None:
    """Several processes fill one cache at once, and some are killed: all read the same from it."""
    chance = random.Random(0)
    readers = {"glyph": lambda _: tiny.few_glyphs(), "text": tiny.few_texts}
    with new_folder() as folder:
        for i in range(1 if short else 10):
            for name, read in readers.items():
                act, check = crashes.with_cache(read)
                several = [Child(lambda: act(folder)) for _ in range(4)]  # noqa: B023
                time.sleep(chance.uniform(0, 0.1))
                several.pop().kill()
                for k, child in enumerate(several):
                    tally.judge(f"{name} cache, process {k} (#{i})", child.end())
                outcome = in_child(lambda: check(folder))  # noqa: B023
                tally.judge(f"{name} cache, afterwards (#{i})", outcome)
                for place in ("cache", "other"):
                    shutil.rmtree(folder / place, ignore_errors=True)


def network_refused(tally: Tally, short: bool) -> None:
    """No connection can be made, and none is tried, unless an address on a hub is asked for."""
    asked: list[str] = []

    def refuse(*arguments: Any, **_: Any) -> None:
        asked.append(repr(arguments))
        raise OSError(101, "Network is unreachable")

    def quietly(act: Any) -> Any:
        def inner() -> None:
            for name in ("getaddrinfo", "create_connection", "gethostbyname"):
                setattr(socket, name, refuse)
            socket.socket.connect = socket.socket.connect_ex = refuse  # type: ignore[assignment, method-assign]
            act()
            assert not asked, asked

        return inner

    with new_folder() as folder:
        tiny.save_tiny_model(folder / "model")
        save_pictures(folder / "pictures")
        acts = {
            "a model of one's own": lambda: minidiff.load(folder / "model")("", seed=1),
            "the shipped model": lambda: minidiff.load()("gold", num_inference_steps=1),
            "glyphs": lambda: [os.environ.update(MINIDIFF_CACHE=str(folder)), tiny.few_glyphs()],
            "pictures": lambda: minidiff.ImageFolder(folder / "pictures", 8),
            "a training": lambda: tiny.train(folder / "run"),
            "the text encoder": lambda: text.TextEncoder("minilm").encode(["gold"]),
        }
        for name, act in acts.items():
            tally.judge(name, in_child(quietly(act)))
        for hub in ("t5-small", "nobody/nothing"):
            outcome = in_child(quietly(lambda: text.TextEncoder(hub)))  # noqa: B023
            if outcome.kind == "returned":  # it must not have one from elsewhere
                outcome = Outcome("raised", message="where did it come from?")
            tally.judge(f"the encoder {hub}", outcome, (hub, encoder_files.ENCODERS.get(hub, hub)))


ODD_NAMES = [
    "two words", "漢字 金", "émoji 😀", "-dash", "--help", "[a]*?", "%s{0}$HOME", "new\nline",
    "x" * 200, "back\\slash", "quote'\"", "caf\udce9", ".hidden", "trailing ", "~", "#;&|<>", "..x",
]  # fmt: skip


def odd_paths(tally: Tally, short: bool) -> None:
    """Train, resume, load and draw in folders with odd names."""
    with new_folder() as folder:
        for name in ODD_NAMES[:2] if short else ODD_NAMES:
            place = folder / name
            place.mkdir()
            os.environ["MINIDIFF_CACHE"] = str(place / "cache")
            tally.judge(f"{name!r}", in_child(lambda: everything_in(place)))  # noqa: B023
    del os.environ["MINIDIFF_CACHE"]


def everything_in(place: Path) -> None:
    os.chdir(place.parent)
    for there in (place / "run", Path(place.name) / "relative"):
        tiny.train_to(there, 3)
        tiny.train(there, resume=True)
        tiny.check_whole(there)
        shown = [f"--model={there}", f"--output={there}/x 金.gif", "--num-inference-steps=2"]
        result = command_line(["sample", *shown, "--", ""])
        assert result.status == 0 and (there / "x 金.gif").stat().st_size, result
    tiny.few_texts(place / "cache")
    assert torch.equal(tiny.few_texts(place / "cache"), tiny.few_texts(place / "other"))
    tiny.few_glyphs()
    assert any(name.startswith("glyphs") for name in names(place / "cache"))
    save_pictures(place / "pictures")
    minidiff.ImageFolder(place / "pictures", 8)


def c_locale(tally: Tally, short: bool) -> None:
    """A terminal that knows only ASCII: Chinese words and file names, in a new process each."""
    with new_folder() as folder:
        place = folder / "金 a"
        place.mkdir()
        tiny.save_tiny_model(place / "模型")
        save_pictures(place / "pictures")
        (place / "small.toml").write_text(
            "image_size = 8\nsteps = 1\nbatch_size = 2\ntext_encoder = false\n"
            "unet = { channels = [16], attention = [false], head_dim = 16 }\n",
            encoding="utf-8",
        )
        commands = {
            "sample": [
                "sample",
                "",
                "--model",
                "模型",
                "--num-inference-steps",
                "1",
                "-o",
                "火.png",
            ],
            "no such model": ["sample", "火", "--model", "沒有"],
            "train": ["train", "--recipe", "small.toml", "--data", "pictures", "-o", "訓練"],
            "no such folder": ["train", "--recipe", "small.toml", "--data", "火", "-o", "訓練"],
        }
        for name, words in list(commands.items())[: 1 if short else None]:
            ways = [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"}]
            for i, way in enumerate(ways[: 1 if short else None]):
                if name == "train":
                    shutil.rmtree(place / "訓練", ignore_errors=True)
                done = subprocess.run(
                    [sys.executable, "-m", "minidiff", *words], cwd=place, capture_output=True,
                    env={**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", **way},
                    timeout=200, check=False,
                )  # fmt: skip
                error, right = done.stderr.decode("utf-8", "replace"), not name.startswith("no ")
                kind = "returned" if done.returncode == 0 and right else "raised"
                line = done.returncode == 2 and "Traceback" not in error and not right
                outcome = Outcome(kind, clear=line, message=error.strip()[-500:])
                tally.judge(f"{name} (#{i})", outcome, ("minidiff: no",))
        if not short:
            assert (place / "火.png").exists() and (place / "訓練" / "model").exists()
