"""Logs as curves: what is read, drawn and said of runs that are whole, new, running or damaged."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from helpers import log_of, names, run_python
from minidiff import curves, run_folder, run_log
from minidiff.cli import app
from minidiff.recipe import TrainingConfig
from minidiff.run_folder import RunLock
from minidiff.storage import write_folder
from minidiff.unet import UNetConfig

T = ("62", "188", "312", "438", "562", "688", "812", "938")


def trained(step: int, **changes: Any) -> dict[str, Any]:
    """What a training logs of its loss, in the shape of `Trainer`."""
    return {
        "loss": round(1 / step**0.5, 5), "learning_rate": 1e-3, "images_per_second": 64.0,
        "seconds": step * 0.5, "device": "cpu", "processes": 1, **changes,
    }  # fmt: skip


def judged(factor: float) -> dict[str, Any]:
    losses = {t: round(factor * (0.1 + int(t) / 1000), 5) for t in T}
    return {"held_out_loss": {**losses, "mean": round(sum(losses.values()) / 8, 5)}}


def make_run(folder: Path, last: int = 1000, held_out: tuple[float, ...] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for step in range(100, last + 1, 100):
        run_folder.write_log(folder, step, trained(step))
    for i, factor in enumerate(held_out):
        run_folder.write_log(folder, last * (i + 1) // len(held_out), judged(factor))
    return folder


def add_checkpoint(folder: Path, step: int, **recipe: Any) -> None:
    """As much of one as says how long the run shall be."""
    write_folder(folder / "checkpoints" / f"step-{step:08d}", {}, {"training": recipe})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", held_out=(1.0, 0.5, 0.7))


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Path]:
    """A folder in which a training is going on."""
    folder = tmp_path / "training"
    with RunLock(folder):
        yield folder


# ------------------------------------------------------------------------------ reading


def test_what_is_read_is_what_was_logged(run: Path) -> None:
    for given in (run, str(run), run / "log.jsonl"):
        log = run_log.read(given)
        assert log.entries == log_of(run) and not log.running and not log.finished
    assert log.series("loss")[0] == list(range(100, 1001, 100))
    assert log.series("loss")[1][3] == 0.05
    assert [step for step, _ in log.held_out] == [333, 666, 1000]
    assert log.held_out[1][1]["62"] == 0.081
    assert log.series("device") == ([], []), "no number"
    assert (log.step, log.seconds) == (1000, 500.0)


def test_the_log_of_a_real_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the trainer writes is what is read here."""
    from minidiff.training import Trainer

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    network = UNetConfig(channels=(16,), attention=(False,), head_dim=16, text_dim=None)
    config = TrainingConfig(
        network=network, image_size=8, text_encoder=None, steps=4, batch_size=4, warmup=1,
        log_every=2, evaluate_every=2, save_every=4,
    )  # fmt: skip
    images = torch.arange(6 * 64).to(torch.uint8).reshape(6, 1, 8, 8)
    data = SimpleNamespace(images=images, prompts=[("",)] * 6)
    seen = []
    trainer = Trainer(config, data, tmp_path / "run", held_out=data)
    monkeypatch.setattr(trainer, "save", lambda: seen.append(run_log.read(tmp_path / "run")))
    trainer.run()
    log = run_log.read(tmp_path / "run")
    for key in ("loss", "learning_rate", "images_per_second", "seconds"):
        assert log.series(key)[0] == [2, 4], key
    assert [step for step, _ in log.held_out] == [2, 4]
    assert {*log.held_out[0][1]} >= {"62", "938", "mean"}
    assert seen[0].running and not seen[0].finished
    assert log.finished and not log.running
    assert "finished, step 4" in curves.text(log)


@pytest.mark.parametrize("rest", [b'{"step": 1100, "lo', b'{"step": 1100', b"\xe4\xb8", b"{"])
def test_half_a_last_line_is_left_out(run: Path, rest: bytes) -> None:
    before = run_log.read(run)
    with (run / "log.jsonl").open("ab") as file:
        file.write(rest)
    assert run_log.read(run).entries == before.entries
    assert curves.text(run) == curves.text(before)


def test_numbers_that_are_none_are_left_out(run: Path) -> None:
    run_folder.write_log(run, 1100, trained(1100, loss=float("nan"), seconds=None))
    run_folder.write_log(run, 1200, {"held_out_loss": None})
    run_folder.write_log(run, 1300, {"something": "else"})
    log = run_log.read(run)
    assert log.step == 1300 and log.series("loss")[0][-1] == 1000 and len(log.held_out) == 3
    assert "not running, step 1,300" in curves.text(log)
    curves.figure(log)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"there is no log in .*mine: give the folder of a run, which holds log\.jsonl"),
        ("", r"log\.jsonl is empty: give the folder of a run that has logged something"),
        ("\n\n", "is empty"),
        ("step,loss\n1,2\n", "holds no line that a training has logged"),
        ('{"loss": 1}\n[1]\n"step"\n{"step": "1"}\n', "holds no line that a training has logged"),
        ('{"step": 1', "holds no line"),
    ],
)
def test_folders_without_a_log(tmp_path: Path, content: str | None, message: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    if content is not None:
        (folder / "log.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        curves.text(folder)


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"there is no folder .*nowhere: give that of a run"
    ):
        run_log.read(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"there is no log in .*log\.jsonl"):
        run_log.read(tmp_path / "log.jsonl")
    with pytest.raises(TypeError, match="run must be a text"):
        run_log.read(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no run: give the folder"):
        curves.figure()


# ------------------------------------------------------------------------------ how far it is


def test_a_run_that_has_just_begun(training: Path) -> None:
    assert curves.text(training).startswith(f"{training}: running, nothing logged yet")
    curves.figure(training)
    make_run(training, 100)
    assert "running, step 100, 50 s so far" in curves.text(training)


def test_a_lock_without_a_process_is_none(run: Path) -> None:
    holder = {"pid": 2**22 + 1, "host": socket.gethostname(), "since": "now"}
    (run / ".lock").write_text(json.dumps(holder), encoding="utf-8")
    assert not run_log.read(run).running
    holder["pid"] = os.getpid()
    (run / ".lock").write_text(json.dumps(holder), encoding="utf-8")
    assert run_log.read(run).running


def test_looking_leaves_the_folder_as_it_is(training: Path) -> None:
    before = names(training), (training / ".lock").read_bytes()
    curves.text(training)
    assert (names(training), (training / ".lock").read_bytes()) == before


def test_time_left(training: Path) -> None:
    make_run(training, 1000)  # half a second a step
    assert run_log.read(training).seconds_left is None, "nobody knows how long it shall be"
    add_checkpoint(training, 900, steps=3000, time_limit=None)
    assert run_log.read(training).seconds_left == 1000
    assert "running, step 1,000 of 3,000, 8 min so far, 17 min left" in curves.text(training)
    add_checkpoint(training, 950, steps=3000, time_limit=10)
    assert run_log.read(training).seconds_left == 100
    add_checkpoint(training, 960, steps=900, time_limit=None)
    assert run_log.read(training).seconds_left == 0


def test_time_left_goes_by_the_pace_of_late(tmp_path: Path) -> None:
    """Slow until step 100, as on a busy machine, then a second a step."""
    for step in range(10, 301, 10):
        seconds = 100.0 * step if step <= 100 else 10_000.0 + step - 100
        run_folder.write_log(tmp_path, step, trained(step, seconds=seconds))
    add_checkpoint(tmp_path, 300, steps=400, time_limit=None)
    assert run_log.read(tmp_path).seconds_left == 100


def test_time_left_after_the_first_line(tmp_path: Path) -> None:
    run_folder.write_log(tmp_path, 10, trained(10, seconds=20))
    add_checkpoint(tmp_path, 10, steps=30, time_limit=None)
    assert run_log.read(tmp_path).seconds_left == 40


def test_a_damaged_checkpoint_is_nothing_to_stop_for(run: Path) -> None:
    add_checkpoint(run, 900, steps=3000)
    (run / "checkpoints" / "step-00000900" / "config.json").write_text("{", encoding="utf-8")
    assert "step 1,000, 8 min" in curves.text(run)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(4.4, "4 s"), (59, "59 s"), (90, "2 min"), (3599, "1 h 00 min"), (3900, "1 h 05 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert curves.duration(seconds) == words


# ------------------------------------------------------------------------------ as text


def bars(page: str) -> list[str]:
    return [line.split("│")[1] for line in page.split("\n") if "│" in line]


def test_the_chart_falls_as_the_loss_does(run: Path) -> None:
    page = curves.text(run, width=60)
    chart = bars(page)
    filled = [sum(row[i : i + 1] not in ("", " ") for row in chart) for i in range(50)]
    assert filled[0] == len(chart) == 8, "the highest loss reaches the top"
    assert filled == sorted(filled, reverse=True) and filled[-1] == 1
    assert max(map(len, chart)) <= 50
    assert "  0.1 │█" in page and "0.0316 │" in page and "step 0 to 1,000" in page


def test_the_newest_figures_are_said(run: Path) -> None:
    page = curves.text(run)
    assert re.search(r"^run +1,000 +0\.0316 +1\.0e-03 +64\.0$", page, re.MULTILINE)
    assert re.search(r"^held-out loss, t = +62 .* 938 +mean$", page, re.MULTILINE)
    assert re.search(r"^run, 1,000 +0\.113 .* 0\.727 +0\.420$", page, re.MULTILINE)
    assert re.search(r"^  lowest: 666 +0\.081 ", page, re.MULTILINE), "it has risen since"


def test_several_runs_are_compared(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", 500, held_out=(2.0,))
    page = curves.text(run, other)
    assert f"{run}: not running, step 1,000" in page and f"{other}: not running, step 500" in page
    widths = [len(row) for row in bars(page)]
    assert len(widths) == 8 and widths[7] == widths[3] // 2, "steps are as wide in both"
    assert re.search(r"^run +1,000 .*\nother +500 ", page, re.MULTILINE)
    assert re.search(r"^run, 1,000 .*\n  lowest: 666 .*\nother, 500 ", page, re.MULTILINE)


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    page = curves.text(make_run(tmp_path / "a" / "x"), make_run(tmp_path / "b" / "x"))
    assert "…" in page or str(tmp_path / "a" / "x") in page.split("newest")[1]


def test_one_line_and_a_loss_that_stays(tmp_path: Path) -> None:
    run_folder.write_log(tmp_path, 1, trained(1, loss=0.5))
    assert len(bars(curves.text(tmp_path))) == 8
    run_folder.write_log(tmp_path, 2, trained(2, loss=0.0))
    assert len(bars(curves.text(tmp_path))) == 8


# ------------------------------------------------------------------------------ as a figure


def drawn(line: Any) -> Any:
    return line.get_xdata().tolist(), line.get_ydata().tolist()


def test_the_figure_shows_the_numbers(run: Path) -> None:
    losses, by_t, rates, speeds = curves.figure(run).axes
    log = run_log.read(run)
    assert drawn(losses.lines[0]) == log.series("loss")
    assert drawn(losses.lines[2])[1] == [x["mean"] for _, x in log.held_out]
    newest, lowest = map(drawn, by_t.lines)
    assert newest == ([int(t) for t in T], [log.held_out[2][1][t] for t in T])
    assert lowest[1] == [log.held_out[1][1][t] for t in T]
    assert drawn(rates.lines[0])[1] == [1e-3] * 10
    assert drawn(speeds.lines[0])[1] == [64.0] * 10
    assert "loss" in losses.get_title() and by_t.get_title() == "held-out loss by t"


def test_a_run_without_held_out_pictures(tmp_path: Path) -> None:
    figure = curves.figure(make_run(tmp_path))
    assert [text.get_text() for text in figure.axes[1].texts] == ["none yet"]
    assert "held-out" not in curves.text(tmp_path)
    assert curves.png(figure).startswith(b"\x89PNG")


def test_the_figure_of_several_runs_has_a_legend(run: Path, tmp_path: Path) -> None:
    figure = curves.figure(run, make_run(tmp_path / "other"))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["run", "other"]
    colours = {line.get_color() for line in figure.axes[2].lines}
    assert len(colours) == 2
    assert not curves.figure(run).legends


def test_the_smooth_curve_is_a_mean_of_what_came_before() -> None:
    steps, values = list(range(80)), [float(i % 2) for i in range(80)]
    assert curves._smooth(steps, values)[1] == [0.0, *[0.5] * 79]
    assert curves._smooth([1, 2], [3.0, 4.0]) == ([1, 2], [3.0, 4.0])


# ------------------------------------------------------------------------------ the command


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["log", *map(str, words)])


def test_the_command_prints_or_draws(run: Path, tmp_path: Path) -> None:
    result = invoke(run)
    assert result.exit_code == 0 and "held-out loss, t =" in result.stdout and "█" in result.stdout
    path = tmp_path / "curves.png"
    result = invoke(run, "--output", path)
    assert result.stdout == f"{path}\n" and path.read_bytes().startswith(b"\x89PNG")
    assert isinstance(invoke(run, "--output", tmp_path / "curves.jpg").exception, ValueError)
    assert isinstance(invoke(tmp_path / "nowhere").exception, FileNotFoundError)
    assert names(tmp_path) == ["curves.png", "run"]


def test_mistakes_end_in_one_line(tmp_path: Path) -> None:
    result = run_python("-m", "minidiff", "log", str(tmp_path))
    told = "give the folder of a run, which holds log.jsonl"
    assert result == (2, "", f"minidiff: there is no log in {tmp_path}: {told}\n")


def test_a_terminal_without_blocks(run: Path) -> None:
    environment = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    result = run_python("-m", "minidiff", "log", str(run), environment=environment)
    assert result.status == 0 and "0.1 |#" in result.out and "\\u" not in result.out


def test_following_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    lock = RunLock(folder)
    lock.__enter__()
    steps = iter([100, 200])

    def pause(_: float) -> None:
        step = next(steps, None)
        if step is None:
            lock.__exit__()
        else:
            run_folder.write_log(folder, step, trained(step))

    monkeypatch.setattr(curves.watched, "__kwdefaults__", {"every": 5.0, "pause": pause})
    result = invoke(folder, "--follow", "--output", tmp_path / "curves.png")
    assert re.findall(r"run: (.*?)(?:,.*)?\n", result.stdout) == [
        "running", "running", "running", "not running"
    ]  # fmt: skip
    assert "step 200" in result.stdout and result.stdout.endswith("curves.png\n")


# ------------------------------------------------------------------------------ watching


def test_watching_tells_of_news_only(training: Path) -> None:
    looks = 0

    def pause(seconds: float) -> bool:
        nonlocal looks
        looks += 1
        if looks == 3:
            make_run(training, 100)
        assert seconds == 2.5
        return looks == 6

    logs = list(curves.watched(training, every=2.5, pause=pause))
    assert [len(each[0].entries) for each in logs] == [0, 1]


class Place:
    """A place in a notebook: what was shown there."""

    def __init__(self) -> None:
        self.shown: list[bytes] = []
        self.news = threading.Event()

    def update(self, data: dict[str, bytes], raw: bool) -> None:
        assert raw
        self.shown.append(data["image/png"])
        self.news.set()


def test_live_follows_a_run_that_begins_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place()
    monkeypatch.setattr(curves, "_display", lambda words: place)
    stop = curves.live(tmp_path / "run", every=0.02)
    assert not stop.wait(0.1) and not place.shown
    with RunLock(tmp_path / "run"):
        make_run(tmp_path / "run", 200)
        assert place.news.wait(30)
        place.news.clear()
        run_folder.write_log(tmp_path / "run", 300, trained(300))
        assert place.news.wait(30)
    assert stop.wait(30), "it ends with the run"
    assert len({*place.shown}) >= 2 and all(x.startswith(b"\x89PNG") for x in place.shown)


def test_live_can_be_stopped(training: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "_display", lambda words: Place())
    curves.live(training, every=60.0).set()
    for thread in threading.enumerate():
        if thread.name == "minidiff.curves.live":
            thread.join(30)
            assert not thread.is_alive()


def test_live_outside_a_notebook_says_what_to_do_there(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match="draws in a notebook: in a terminal use minidiff log"):
        curves.live(run)
    monkeypatch.setitem(sys.modules, "IPython", None)
    with pytest.raises(RuntimeError, match="draws in a notebook"):
        curves.live(run)
