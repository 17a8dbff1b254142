"""The command line, continued: `minidiff copy`, `log`, `push` and `export`."""

from __future__ import annotations

import os
import re
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

Data = Annotated[
    Path | None,
    typer.Option(
        help="own pictures: a folder with metadata.csv or .jsonl (file_name, text), with a "
        "folder for each text, or with texts for file names; the run remembers where it is. "
        "Without --recipe one is chosen that fits them, this machine and 20 minutes (--time-limit)"
    ),
]
Paper = Annotated[
    str | None,
    typer.Option(help="of own pictures: a colour for what is transparent or beside them"),
]
CaptionColumn = Annotated[
    str | None, typer.Option(help="of own pictures: the table's column of texts, if not text")
]
SkipUnreadable = Annotated[
    bool | None,
    typer.Option("--skip-unreadable", help="leave out own pictures that cannot be read"),
]
HeldOut = Annotated[
    float | None,
    typer.Option(
        metavar="<share>",
        help="of own pictures: hold out so many of them, 0.1 is a tenth, to see whether it learns "
        "more than these by heart; the run remembers which",
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        metavar="<size>",
        help="pixels of a side, or height x width, as 64x48",
        show_default="the recipe's; of own pictures without a recipe: by their own sizes",
    ),
]
Flips = Annotated[
    bool | None, typer.Option("--flips", help="learn from pictures mirrored left to right as well")
]


def size_of(text: str | None) -> int | tuple[int, int] | None:
    """What --image-size says."""
    if text is None:
        return None
    sides = re.fullmatch(r"(\d{1,9})(?:[x×](\d{1,9}))?", text)
    if not sides:
        raise ValueError(
            f"--image-size {text}: give one number, as 64, or height x width, as 64x48"
        )
    height, width = int(sides[1]), int(sides[2] or sides[1])
    return height if height == width else (height, width)


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

    folder = find_model(model, online=False)
    with TemporaryDirectory() as place:
        if "first_stage" in read_info(folder)["model"]:  # others get both stages of a cascade
            from minidiff.pipeline import load

            load(folder).save(folder := Path(place) / "model")
        if show_card:
            typer.echo(hub.card(folder).replace("{name}", name))
        else:
            typer.echo(hub.push(folder, name, private))


def export(
    model: Annotated[
        str, typer.Argument(help="a model that ships, or the folder of a run or model")
    ],
    folder: Annotated[Path, typer.Argument(help="to be written; new or empty")],
    to: Annotated[str, typer.Option(help="the library that is to open it")] = "diffusers",
) -> None:
    """Write a model as a folder that another library opens.

    For diffusers it is opened with minidiff.diffusers_pipeline.MiniDiffPipeline.from_pretrained.

    minidiff export runs/mine for-diffusers
    """
    if to != "diffusers":
        raise ValueError(f"--to {to!r} is not known: give diffusers")
    from minidiff.diffusers_pipeline import save_diffusers
    from minidiff.pipeline import load
    from minidiff.shelf import find_model

    save_diffusers(load(find_model(model, online=False), device="cpu"), folder)
    typer.echo(folder)


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
