"""Run the notebooks whose code, package or weights have changed, and store what they show.

    python tools/book/notebooks.py            # run those that are stale
    python tools/book/notebooks.py --check    # only list them; exit status 1 if there are any
    python tools/book/notebooks.py --all      # run every one

When a notebook runs, its metadata record which modules of the package it imported and which files
of the package it opened (definitions, font, the configuration of a model, which holds the digest of
the weights), with one key over all of these and over the code cells. It is stale when the key no
longer fits. Markdown, captions, comments and docstrings of the package do not count.
"""

from __future__ import annotations

import argparse
import ast
import base64
import copy
import hashlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from PIL import Image, ImageSequence

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "minidiff"
TIMEOUT = 600  # seconds a cell may take
PICTURES = ("image/png", "image/gif")
GREY_STEP = 17  # of 16 greys
TIPPED = 37  # one step of 8 greys, the coarsest that a picture here has
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}

# Cells around a notebook that note what it uses. They keep out of its name space. (An audit hook
# would be shorter, but torch raises so many events that everything takes four times as long.)
BEFORE = """
exec('''
import builtins, io
def noting(file, *arguments, _open=io.open, **settings):
    builtins.opened_files.add(str(file))
    return _open(file, *arguments, **settings)
builtins.opened_files = set()
builtins.open = io.open = noting
''', {})
"""
AFTER = """
import json, sys
import minidiff
modules = sorted(name for name in sys.modules if name.split(".")[0] == "minidiff")
print(json.dumps([minidiff.__file__, modules, sorted(opened_files)]))
"""


def read(path: Path) -> Any:
    return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


# ------------------------------------------------------------------------------- staleness


def is_stale(path: Path, package: Path = PACKAGE) -> bool:
    notebook = read(path)
    return bool(notebook.metadata.get("minidiff", {}).get("key") != key(notebook, package))


def key(notebook: Any, package: Path = PACKAGE) -> str:
    """One number for everything that the outputs depend on."""
    record = notebook.metadata.get("minidiff", {})
    parts = [
        [cell.source for cell in code_cells(notebook)],
        {name: module_code(name, package) for name in record.get("modules", [])},
        {name: file_digest(package / name) for name in record.get("files", [])},
    ]
    return hashlib.sha256(json.dumps(parts).encode("utf-8")).hexdigest()


def module_code(name: str, package: Path) -> Any:
    path = package.joinpath(*name.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return shape(ast.parse(path.read_text(encoding="utf-8"))) if path.is_file() else "missing"


def file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


def shape(node: Any) -> Any:
    """A syntax tree without docstrings and places, the same in every version of Python.

    (`ast.dump` changes between versions, and so do the fields that are empty.)
    """
    if isinstance(node, list):
        return [shape(child) for child in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: shape(value) for name, value in ast.iter_fields(node) if value != []}
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = shape(node.body[1:])
    return [type(node).__name__, fields]


# --------------------------------------------------------------------------------- running


def run(path: Path, package: Path = PACKAGE) -> None:
    """Run one notebook and store it; if a cell fails, the file stays as it is."""
    old = read(path)
    new = copy.deepcopy(old)
    probes = [nbformat.v4.new_code_cell(source.strip()) for source in (BEFORE, AFTER)]
    new.cells = [probes[0], *new.cells, probes[1]]
    NotebookClient(
        new,
        timeout=TIMEOUT,
        kernel_name=KERNEL["name"],
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    new.cells = new.cells[1:-1]
    file, modules, opened = json.loads(probes[1].outputs[-1].text)
    if not Path(file).parent.samefile(package):
        raise RuntimeError(
            f"the notebooks import minidiff from {Path(file).parent}, not from this checkout: "
            "run this tool with the Python in which `make` or `pip install -e .` installed it"
        )
    used = {Path(name) for name in opened if Path(name).is_relative_to(package)}
    files = [p.relative_to(package).as_posix() for p in used if p.suffix not in (".py", ".pyc")]
    new.metadata["minidiff"] = {"modules": modules, "files": sorted(files)}
    new.metadata["minidiff"]["key"] = key(new, package)
    tidy(new)
    keep_pictures(new, old)
    write(path, new)


def tidy(notebook: Any) -> None:
    """Leave out what differs from run to run and from machine to machine."""
    mine = notebook.metadata.get("minidiff", {})
    notebook.metadata = {"kernelspec": KERNEL, "language_info": LANGUAGE, "minidiff": mine}
    for number, cell in enumerate(code_cells(notebook), start=1):
        cell.metadata.pop("execution", None)
        cell.execution_count = number
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
            data = output.get("data", {})
            if "image/png" in data:
                data.pop("image/jpeg", None)  # Pillow's pictures come as both
                data["image/png"] = encode(plain_png(base64.b64decode(data["image/png"])))


def plain_png(data: bytes) -> bytes:
    """The picture without metadata, in 256 colours, or in 16 greys: that halves it and more."""
    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode == "P" and not picture.info:
            return data  # it is plain already
        pixels = np.asarray(picture.convert("RGBA"))
    bits = 8
    if (pixels[..., 3] == 255).all():
        pixels = pixels[..., :3]
    plain = Image.fromarray(pixels)
    if pixels.shape[2] == 3 and (pixels == pixels[..., :1]).all():
        bits = 4
        plain = Image.fromarray((pixels[..., 0] / GREY_STEP).round().astype(np.uint8))
        plain.putpalette(np.repeat(np.arange(0, 256, GREY_STEP, dtype=np.uint8), 3).tobytes())
    elif pixels.shape[2] == 3:
        plain = plain.quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    plain.save(buffer, "PNG", optimize=True, bits=bits)
    return buffer.getvalue()


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii") + "\n"


def keep_pictures(new: Any, old: Any) -> None:
    """Where a picture looks as before, keep its bytes: a fresh run need not fill the history."""
    before = {cell.id: cell.outputs for cell in code_cells(old)}
    for cell in code_cells(new):
        for output, previous in zip(cell.outputs, before.get(cell.id, []), strict=False):
            for kind in PICTURES:
                pair = [part.get("data", {}).get(kind) for part in (output, previous)]
                if all(pair) and same_picture(*map(base64.b64decode, pair)):
                    output.data[kind] = previous.data[kind]


def same_picture(one: bytes, other: bytes) -> bool:
    """Same frames, but for the last digit of a calculation, which may tip a few pixels over."""
    frames, others = pixels_of(one), pixels_of(other)
    if [(time, a.shape) for time, a in frames] != [(time, b.shape) for time, b in others]:
        return False
    differences = [np.abs(a - b) for (_, a), (_, b) in zip(frames, others)]
    return all(d.max() <= TIPPED and (d > 0).mean() < 1e-3 for d in differences)


def pixels_of(data: bytes) -> list[tuple[Any, np.ndarray]]:
    """(milliseconds, pixels) of every frame."""
    with Image.open(io.BytesIO(data)) as picture:
        return [
            (frame.info.get("duration"), np.asarray(frame.convert("RGBA"), np.int16))
            for frame in ImageSequence.Iterator(picture)
        ]


def write(path: Path, notebook: Any) -> None:
    """All or nothing, and always the same text for the same content."""
    handle, part = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(as_text(notebook))
        Path(part).chmod(0o644)
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)


def as_text(notebook: Any) -> str:
    return str(nbformat.writes(notebook)).rstrip("\n") + "\n"


# -------------------------------------------------------------------------------- main


def main(arguments: list[str] | None = None) -> int:
    # Sums come out the same to the last digit only with the same number of threads: one, as in the
    # tests, on every machine.
    os.environ["OMP_NUM_THREADS"] = "1"
    parser = argparse.ArgumentParser(description="Run the notebooks that are stale.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="list stale ones; exit 1 if any")
    choice.add_argument("--all", action="store_true", help="run fresh ones too")
    options = parser.parse_args(arguments)
    paths = options.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb"))
    wanted = [path for path in paths if options.all or is_stale(path)]
    if options.check:
        for path in wanted:
            print(f"{path.name} is stale: make notebooks")
        return 1 if wanted else 0
    failed = False
    for path in wanted:
        print(f"{path.name} ...", flush=True)
        try:
            run(path)
            print(f"{path.name}: stored, {path.stat().st_size / 1000:.0f} kB")
        except (CellExecutionError, CellTimeoutError, DeadKernelError, RuntimeError) as error:
            failed = True
            print(f"{path.name}: not stored, as a cell failed:\n{error}", file=sys.stderr)
    if not wanted:
        print("Every notebook is up to date.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
