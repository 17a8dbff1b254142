"""The command line, continued: `minidiff copy`, `minidiff log` and `minidiff push`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

#: Of `minidiff train`, which leaves it to `minidiff.trackers`.
LogWith = Annotated[
    list[str] | None,
    typer.Option(
        metavar="<tracker>",
        help="tensorboard or wandb, beside log.jsonl; both stay on this machine (unless "
        "WANDB_MODE=online); give it again with --resume",
    ),
]


def copy(
    modules: Annotated[
        list[str], typer.Argument(help="such as samplers, unet, training; what they need comes too")
    ],
    to: Annotated[
        Path, typer.Option(help="folder, made if need be; or a .py file that then holds them all")
    ],
    force: Annotated[bool, typer.Option("--force", help="overwrite what is there")] = False,
) -> None:
    """Copy modules so that they work without minidiff.

    They import each other, nothing of the installed package; the licence and a README that says how
    to cite them lie beside. A single .py file can be pasted into one cell of a notebook.

    minidiff copy samplers unet --to coursework/

    minidiff copy samplers unet --to diffusion.py
    """
    from minidiff import copying

    copied = copying.copy(modules, to, force)
    for path in (*copied.modules, *copied.data, *copied.papers):
        typer.echo(path)
    data = [f"{path.name} {copying.size(path.stat().st_size)}" for path in copied.data]
    told = f"these read {', '.join(data)}; " if data else ""
    needs, guide = ", ".join(copied.needs), copied.papers[-1]
    typer.echo(f"minidiff: {told}to be installed: {needs}; how to cite: {guide}", err=True)


def log(
    run: Annotated[list[str], typer.Argument(help="folder of a run, or several to compare")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="a .png to draw the curves into", show_default=False),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="keep looking until the training ends")
    ] = False,
) -> None:
    """Show how a training goes, or went.

    Its loss as a chart, the newest figures, the held-out loss by t, the time left; with --output
    all of it as curves.

    minidiff log runs/mine

    minidiff log runs/mine --follow

    minidiff log runs/mine runs/more --output curves.png
    """
    if output is not None and output.suffix.lower() != ".png":
        raise ValueError(f"--output {output}: the ending must be .png")
    from minidiff import curves, plots
    from minidiff.run_log import read

    for logs in curves.watched(*run) if follow else [[read(each) for each in run]]:
        if output is not None:
            plots.save_picture(output, curves.png(curves.figure(*logs)))
        if output is None or follow:
            _show(curves.text(*logs, width=min(shutil.get_terminal_size().columns, 100)), follow)
    if output is not None:
        typer.echo(output)


def push(
    model: Annotated[
        str, typer.Argument(help="a model that ships, or the folder of a run or model")
    ],
    name: Annotated[str, typer.Argument(help="owner/model; made on the Hub if there is none")],
    private: Annotated[
        bool, typer.Option("--private", help="only its owner may see one that is made")
    ] = False,
    show_card: Annotated[
        bool, typer.Option("--show-card", help="print the card that would go with it; send nothing")
    ] = False,
) -> None:
    """Give a model to others on the Hugging Face Hub.

    It takes its weights, its config and a card; others then draw with minidiff.load("owner/model").
    Log in before with `hf auth login`.

    minidiff push runs/mine ann/icons --private
    """
    from tempfile import TemporaryDirectory

    from minidiff import hub
    from minidiff.shelf import find_model
    from minidiff.storage import read_info

    folder = find_model(model)
    with TemporaryDirectory() as place:
        if "first_stage" in read_info(folder)["model"]:  # others get both stages of a cascade
            from minidiff.pipeline import load

            load(folder).save(folder := Path(place) / "model")
        if show_card:
            typer.echo(hub.card(folder).replace("{name}", name))
        else:
            typer.echo(hub.push(folder, name, private))


def _show(text: str, follow: bool) -> None:
    """Print a page; one that follows another takes its place where a terminal can do that."""
    from minidiff.curves import PLAIN

    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = text.translate(PLAIN)
    if follow and sys.stdout.isatty() and os.name != "nt":
        typer.echo("\x1b[H\x1b[2J", nl=False)
    typer.echo(text)
