"""Curves: what a run has logged, as a figure, as text for a terminal, and live while it trains.

The loss of training is that of the timesteps that training picks and of the newest weights, the
held-out loss one of evenly spread timesteps and of averaged weights: compare how they move, not
their height.
"""

from __future__ import annotations

import contextlib
import io
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidiff.run_log import Log, read

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLOCKS = " ▁▂▃▄▅▆▇█"
PLAIN = str.maketrans("▁▂▃▄▅▆▇█│└–…", "..::++##|+-~")  #: for terminals that lack the blocks


# ------------------------------------------------------------------------------ a figure


def figure(*runs: str | Path | Log) -> Figure:
    """Loss, held-out loss by t, learning rate and speed; of several runs in one.

    Args:
        runs: folders of runs, their log.jsonl, or what `minidiff.run_log.read` gave.

    Raises:
        ValueError, FileNotFoundError: as `minidiff.run_log.read`; or for no run.
    """

    from minidiff import figures

    logs = _all(runs)
    colours = [figures.BLUE, figures.ORANGE, figures.GREEN, figures.DARK, figures.GREY]
    drawn, axes = figures.new(2, 2, size=(7.0, 5.2))
    losses, by_t, rates, speeds = axes.flat
    for i, (log, name) in enumerate(zip(logs, _names(logs))):
        style = {"color": colours[i % len(colours)], "ls": "-" if i < len(colours) else ":"}
        steps, loss = log.series("loss")
        losses.plot(steps, loss, alpha=0.3, lw=0.8, **style)
        losses.plot(*_smooth(steps, loss), label=name, **style)
        if evaluations := log.held_out:
            means = [x["mean"] for _, x in evaluations]
            losses.plot([s for s, _ in evaluations], means, "o--", ms=3, lw=1, color=style["color"])
            best = evaluations[means.index(min(means))]
            by_t.plot(*_by_t(evaluations[-1][1]), "o-", ms=3, color=style["color"])
            if best is not evaluations[-1]:
                by_t.plot(*_by_t(best[1]), "--", lw=1, alpha=0.6, color=style["color"])
        rates.plot(*log.series("learning_rate"), **style)
        speeds.plot(*log.series("images_per_second"), **style)
    for axis, title in zip(
        axes.flat, ("loss (dashed: held-out)", "held-out loss by t", "learning rate", "images/s")
    ):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("t, newest (dashed: lowest mean)" if axis is by_t else "step")
        if axis in (losses, by_t) and axis.has_data():
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")  # 0.2, not 2 × 10⁻¹
            axis.yaxis.set_minor_formatter("{x:g}")
        elif axis.has_data():
            axis.set_ylim(bottom=0)
    if not by_t.has_data():
        by_t.text(0.5, 0.5, "none yet", ha="center", color=figures.GREY, transform=by_t.transAxes)
    if len(logs) > 1:
        figures.legend_below(drawn, losses)
    return drawn


def _all(runs: Sequence[str | Path | Log]) -> list[Log]:
    if not runs:
        raise ValueError("no run: give the folder of at least one")
    return [read(run) for run in runs]


def _names(logs: Sequence[Log]) -> list[str]:
    """Short names, if they tell the runs apart."""
    paths = [Path(log.name) for log in logs]
    folders = [path.parent if path.suffix == ".jsonl" else path for path in paths]
    short = [folder.name or log.name for folder, log in zip(folders, logs)]
    return short if len(set(short)) == len(short) else [log.name for log in logs]


def _smooth(steps: list[int], values: list[float]) -> tuple[list[int], list[float]]:
    """Means of a fortieth of the values each time."""
    span = max(len(values) // 40, 1)
    windows = [values[max(i - span, 0) : i] for i in range(1, len(values) + 1)]
    return steps, [sum(window) / len(window) for window in windows]


def _by_t(losses: dict[str, float]) -> tuple[list[int], list[float]]:
    at = sorted((int(t), loss) for t, loss in losses.items() if t.isdigit())
    return [t for t, _ in at], [loss for _, loss in at]


def png(drawn: Figure) -> bytes:
    """A figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


# ------------------------------------------------------------------------------ text


def text(*runs: str | Path | Log, width: int = 80) -> str:
    """The same for a terminal: a chart of each run's loss, and the newest figures of all.

    Raises:
        ValueError, FileNotFoundError: as `minidiff.run_log.read`; or for no run.
    """
    logs = _all(runs)
    every = [loss for log in logs for loss in log.series("loss")[1]]
    lines: list[str] = []
    for log in logs:
        lines.append(f"{log.name}: {state(log)}")
        if log.series("loss")[1]:
            last, rows = max(each.step for each in logs), 8 if len(logs) == 1 else 4
            lines += _chart(*log.series("loss"), last, (min(every), max(every)), rows, width - 10)
    names = [name if len(name) <= 24 else f"{name[:23]}…" for name in _names(logs)]
    lines += ["", *_newest(logs, names), *_evaluations(logs, names)]
    return "\n".join(lines).rstrip()


def state(log: Log) -> str:
    """How far a run is, in words."""
    if not log.entries:
        return "running, nothing logged yet"
    total = log.recipe.get("steps")
    parts = [
        "running" if log.running else "finished" if log.finished else "not running",
        f"step {log.step:,}" + (f" of {total:,}" if total and not log.finished else ""),
    ]
    if log.seconds:
        parts.append(f"{duration(log.seconds)} so far" if log.running else duration(log.seconds))
    if log.running and log.seconds_left is not None:
        parts.append(f"{duration(log.seconds_left)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """As people say it: 40 s, 12 min, 1 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _chart(
    steps: list[int],
    values: list[float],
    last: int,
    bounds: tuple[float, float],
    rows: int,
    columns: int,
) -> list[str]:
    """Bars of blocks, on a scale of logarithms where all is above 0."""
    low, high = bounds
    scale: Callable[[float], float] = math.log if low > 0 else float
    span = (scale(high) - scale(low)) or 1.0
    heights = []
    for column in range(columns):
        first, end = last * column / columns, last * (column + 1) / columns
        inside = [value for step, value in zip(steps, values) if first < step <= end]
        # What is logged is a mean since the line before, so it holds for the steps up to it.
        inside = inside or [value for step, value in zip(steps, values) if step > end][:1]
        share = (scale(sum(inside) / len(inside)) - scale(low)) / span if inside else 0.0
        heights.append(1 + round(share * (8 * rows - 1)) if inside else 0)
    lines = []
    for row in reversed(range(rows)):
        label = f"{high:.3g}" if row == rows - 1 else f"{low:.3g}" if row == 0 else ""
        bars = "".join(BLOCKS[min(max(height - 8 * row, 0), 8)] for height in heights)
        lines.append(f"{label:>7} │{bars.rstrip()}")
    return [*lines, f"{'loss':>7} └ step 0 to {last:,}"]


def _newest(logs: Sequence[Log], names: Sequence[str]) -> list[str]:
    rows = [["newest", "step", "loss", "learning rate", "images/s"]]
    forms = {"loss": "{:.4f}", "learning_rate": "{:.1e}", "images_per_second": "{:.1f}"}
    for log, name in zip(logs, names):
        last = {key: log.series(key)[1][-1:] for key in forms}
        shown = [form.format(*last[key]) if last[key] else "–" for key, form in forms.items()]
        rows.append([name, f"{log.step:,}", *shown])
    return _table(rows)


def _evaluations(logs: Sequence[Log], names: Sequence[str]) -> list[str]:
    """The newest held-out losses by t, and those with the lowest mean if they are others."""
    tables: dict[tuple[int, ...], list[list[str]]] = {}  # models may have other timesteps
    for log, name in zip(logs, names):
        if not (evaluations := log.held_out):
            continue
        best = min(evaluations, key=lambda evaluation: evaluation[1]["mean"])
        for step, losses in [evaluations[-1], *([best] if best is not evaluations[-1] else [])]:
            at, values = _by_t(losses)
            head = ["held-out loss, t =", *map(str, at), "mean"]
            what = f"{name}, {step:,}" if step == evaluations[-1][0] else f"  lowest: {step:,}"
            figures = [f"{loss:.3f}" for loss in [*values, losses["mean"]]]
            tables.setdefault(tuple(at), [head]).append([what, *figures])
    return [line for rows in tables.values() for line in ["", *_table(rows)]]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    wide = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join([f"{row[0]:<{wide[0]}}", *(f"{c:>{w}}" for c, w in zip(row[1:], wide[1:]))])
        for row in rows
    ]


# ------------------------------------------------------------------------------ live


def watched(
    *runs: str | Path, every: float = 5.0, pause: Callable[[float], Any] = time.sleep
) -> Iterator[list[Log]]:
    """The logs of runs, and again whenever there is something new, until none of them is running.

    Args:
        every: seconds between looks.
        pause: waits for so many seconds; the watch ends if it answers True.
    """
    shown = None
    while True:
        logs = _all(runs)
        if logs != shown:
            yield logs
        shown = logs
        if not any(log.running for log in logs) or pause(every):
            return


def live(*runs: str | Path, every: float = 10.0) -> threading.Event:
    """Show the figure in a notebook and keep it new while the runs train, there or elsewhere.

    Call it before `Trainer.run`: it does not wait. It ends with the runs.

    Args:
        runs: folders, also of runs that have not begun.
        every: seconds between looks.

    Returns:
        An event that ends it before: `stop = curves.live(folder)`, later `stop.set()`.

    Raises:
        RuntimeError: outside a notebook.
    """
    handle = _display(f"waiting for the first line of {', '.join(map(str, runs))}")
    stop = threading.Event()

    def follow() -> None:
        begun = False
        while not stop.is_set():
            # Nothing to see yet: that is no error here.
            with contextlib.suppress(FileNotFoundError, ValueError):
                for logs in watched(*runs, every=every, pause=stop.wait):
                    if stop.is_set():
                        return
                    begun = begun or any(log.running for log in logs)
                    if any(log.entries for log in logs):
                        handle.update({"image/png": png(figure(*logs))}, raw=True)
                if begun or all(log.finished for log in logs):
                    stop.set()
            stop.wait(every)

    threading.Thread(target=follow, name="minidiff.curves.live", daemon=True).start()
    return stop


def _display(words: str) -> Any:
    """A place in the notebook's output that can be drawn anew."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        shell = None
    else:
        shell = get_ipython()
    if shell is None:
        raise RuntimeError(
            "curves.live draws in a notebook: in a terminal use minidiff log RUN --follow"
        )
    return display({"text/plain": words}, raw=True, display_id=True)
