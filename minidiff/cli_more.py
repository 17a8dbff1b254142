"""The command line, continued: `minidiff copy` and `minidiff log`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def copy(
    modules: Annotated[
        list[str], typer.Argument(help="such as samplers, unet, training; what they need comes too")
    ],
    to: Annotated[
        Path, typer.Option(help="folder, made if need be; or a .py file that then holds them all")
    ],
    force: Annotated[bool, typer.Option("--force", help="overwrite what is there")] = False,
) -> None:
    """Copy modules into your own work, where they need no minidiff.

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
