"""Trainings that are asked to end at random moments, and several that want the same folder."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from faults import tiny
from faults.frame import Child, Tally, in_child, new_folder
from helpers import names
from minidiff import load
from minidiff.endings import Ended, TrainingStopped
from minidiff.run_folder import latest_checkpoint

ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
CONFIG = dataclasses.replace(tiny.RECIPE, steps=8, save_every=3)


def train_until_asked(run: Path) -> int | None:
    """The step that was saved when it was asked to end; None where it was too early or late."""
    for number in ENDS:  # as in a terminal, whatever the parent's are
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, usual)
    try:
        tiny.train(run, CONFIG)
    except TrainingStopped as stopped:
        assert stopped.signal in ENDS and "; saved" in str(stopped), stopped
        return int(str(stopped).split("at step ")[1].split(";")[0])
    except (Ended, KeyboardInterrupt):
        assert not run.exists() or (run / "model").exists(), names(run)  # it was over already
        return None
    return CONFIG.steps


def polite_endings(tally: Tally, short: bool) -> None:
    """SIGTERM, SIGHUP and Ctrl-C at random moments: nothing is lost, and it goes on as if not."""
    chance = random.Random(0)
    with new_folder() as folder:
        started = time.monotonic()
        assert in_child(lambda: tiny.train(folder / "whole", CONFIG)).kind == "returned"
        length = time.monotonic() - started
        expected = tiny.end_state(folder / "whole")["files"]

        def check(run: Path, reached: int | None) -> None:
            newest = latest_checkpoint(run)
            if reached is not None:
                assert newest is not None and newest.name == f"step-{reached:08d}", newest
                assert ".lock" not in names(run)
            tiny.check_whole(run)
            tiny.go_on(run, CONFIG)
            assert tiny.end_state(run)["files"] == expected
            assert names(run) == ["checkpoints", "log.jsonl", "model"], names(run)

        for i in range(6 if short else 120):
            run, number = folder / str(i), ENDS[i % len(ENDS)]
            child = Child(lambda: train_until_asked(run))  # noqa: B023
            time.sleep(chance.uniform(0.2, 1.05) * length)
            for _ in range(chance.choice((1, 1, 2))):  # some launchers ask twice
                os.kill(child.process, number)
            # Killed: it was just being born, or over, and had no handler.
            outcome = child.end()
            if outcome.kind != "killed":
                tally.judge(f"{number.name} (#{i})", outcome)
            reached = outcome.value
            tally.judge(
                f"{number.name} at step {reached} (#{i})",
                in_child(lambda: check(run, reached)),  # noqa: B023
            )
            shutil.rmtree(run, ignore_errors=True)


def two_in_one_folder(tally: Tally, short: bool) -> None:
    """Of several trainings in a folder one trains, the others are told; a dead one bars nobody."""
    with new_folder() as folder:
        assert in_child(lambda: tiny.train(folder / "whole", CONFIG)).kind == "returned"
        expected = tiny.end_state(folder / "whole")
        for i in range(2 if short else 40):
            run = folder / str(i)
            several = [Child(lambda: tiny.train(run, CONFIG)) for _ in range(3)]  # noqa: B023
            ends = [child.end() for child in several]
            for k, outcome in enumerate(ends):
                says = ("is being trained in by", "already holds a run")
                tally.judge(f"new run, process {k} (#{i})", outcome, says)
            began = sum(outcome.kind == "returned" for outcome in ends)
            tally.judge(f"one of them has trained (#{i})", in_child(lambda: check_one(began)))  # noqa: B023
            tally.judge(f"its end (#{i})", in_child(lambda: check_end(run, expected)))  # noqa: B023
            shutil.rmtree(run)
        for i in range(1 if short else 10):
            a_killed_holder(tally, folder / f"killed {i}", expected)


def check_one(began: int) -> None:
    assert began == 1, f"{began} have trained"


def check_end(run: Path, expected: dict[str, Any]) -> None:
    assert tiny.end_state(run) == expected
    assert names(run) == ["checkpoints", "log.jsonl", "model"], names(run)


def a_killed_holder(tally: Tally, run: Path, expected: dict[str, Any]) -> None:
    """One trains and stands still, a second comes, a third reads; then the first is killed."""

    def stand_still(trainer: tiny.Trainer) -> None:
        if trainer.step_count == 5:
            (run.parent / "there").touch()
            time.sleep(100)

    config = dataclasses.replace(CONFIG, sample_every=1)
    first = Child(lambda: tiny.train(run, config, callback=stand_still))
    deadline = time.monotonic() + 60
    while not (run.parent / "there").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    logged = (run / "log.jsonl").read_bytes()
    says = (f"by process {first.process} on",)
    for what, options in (("resumed", {"resume": True}), ("new", {})):
        second = in_child(lambda: tiny.train(run, CONFIG, **options))  # noqa: B023
        tally.judge(f"{run.name}, a {what} run beside it", second, says)
    tally.judge(f"{run.name}, read", in_child(lambda: load(run)("", num_inference_steps=1)))

    def after() -> None:
        assert (run / "log.jsonl").read_bytes() == logged
        tiny.go_on(run, CONFIG)
        check_end(run, expected)

    first.kill()
    first.end()
    tally.judge(f"{run.name}, and then", in_child(after))
    (run.parent / "there").unlink()
