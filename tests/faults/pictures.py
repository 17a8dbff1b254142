"""Own pictures and tables as people bring them: right, or refused with file, line and reason."""

from __future__ import annotations

import io
import os
import random
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import EpsImagePlugin, Image

from faults.frame import Outcome, Tally, attempt, in_child, new_folder
from helpers import encoded
from minidiff import datasets, pictures

GREY = Image.frombytes("L", (8, 8), bytes(range(0, 256, 4)))
WHOLE = np.array(GREY)


def read(folder: Path) -> torch.Tensor:
    """What the folder's table lists, without a word from Pillow."""
    with warnings.catch_warnings(record=True) as noticed:
        warnings.simplefilter("always")
        images = datasets.ImageFolder(folder, 8, 1).images
    assert all("next to no contrast" in str(notice.message) for notice in noticed), noticed
    assert images.shape[1:] == (1, 8, 8), images.shape
    return images


def judge(tally: Tally, name: str, outcome: Outcome, right: bool, says: str = "line 2: ") -> None:
    """Whether it ended as it should: in the right picture, or in an error that says this."""
    if right != (outcome.kind == "returned"):
        tally.fail(name, outcome)
    else:
        tally.judge(name, outcome, (says,))


# -------------------------------------------------------------------------------- pictures


def odd_pictures(tally: Tally, short: bool) -> None:
    """PostScript and other files named .png, broken EXIF, 16 bits, floats, damage, bombs."""
    with new_folder() as folder:
        (folder / "metadata.csv").write_text("file_name,text\na.png,x\n", encoding="utf-8")
        programs(tally, folder)
        for name, data, expected in [*values(), *(with_exif(7 if short else 1))]:
            (folder / "a.png").write_bytes(data)

            def right() -> None:
                found = read(folder)[0, 0].numpy().astype(int)
                assert np.abs(found - expected).max() <= 4, found  # noqa: B023

            judge(tally, name, attempt(right), right=True)
        for name, data in refused():
            (folder / "a.png").write_bytes(data)
            judge(tally, name, attempt(lambda: read(folder)), right=False)
        for name, data in damaged(2 if short else 100):
            (folder / "a.png").write_bytes(data)
            tally.judge(name, in_child(lambda: read(folder), 60), ("line 2: 'a.png' cannot be",))


def programs(tally: Tally, folder: Path) -> None:
    """PostScript, with a program in Ghostscript's place that leaves a mark when it is run."""
    mark, program, paths = folder / "executed", folder / "gs", os.environ["PATH"]
    program.write_text(f"#!/bin/sh\ntouch {mark}\n", encoding="utf-8")
    program.chmod(0o755)
    data, binary = encoded(GREY.convert("RGB"), "EPS"), EpsImagePlugin.gs_binary
    os.environ["PATH"] = f"{folder}{os.pathsep}{paths}"
    EpsImagePlugin.gs_binary = None  # to be looked for anew
    try:
        for name, start in (("PostScript", b""), ("PostScript behind a preview", preview(data))):
            (folder / "a.png").write_bytes(start + data)
            outcome = attempt(lambda: read(folder))
            if mark.exists():
                outcome = Outcome("raised", message="it was executed")
            judge(tally, name, outcome, right=False, says="it seems to be PostScript")
    finally:
        os.environ["PATH"], EpsImagePlugin.gs_binary = paths, binary


def preview(data: bytes) -> bytes:
    """The header of an EPS file of Windows, which says where the PostScript is."""
    return struct.pack("<4s7IH", b"\xc5\xd0\xd3\xc6", 32, len(data), 0, 0, 0, 0, 0xFFFF, 0)[:32]


def values() -> Iterator[tuple[str, bytes, Any]]:
    """Pictures of all types of number, and what they show."""
    deep = Image.fromarray(WHOLE.astype(np.uint16) * 257)
    yield "16 bits", encoded(deep), WHOLE
    yield "16 bits, TIFF", encoded(deep, "TIFF"), WHOLE
    yield "32 bits, TIFF", encoded(Image.fromarray(WHOLE.astype(np.int32) * 257), "TIFF"), WHOLE
    yield "floats", encoded(Image.fromarray(WHOLE.astype(np.float32) / 255), "TIFF"), WHOLE
    yield "CMYK", encoded(GREY.convert("CMYK"), "TIFF"), WHOLE
    yield "a transparent ground", encoded(Image.new("LA", (8, 8), (0, 51))), 204
    data = encoded(GREY)
    for kind, body in ((b"zTXt", b"a\0\0" + zlib.compress(bytes(5_000_000))), (b"iCCP", b"x")):
        chunk = struct.pack(">I", len(body)) + kind + body + bytes(4)
        yield f"a broken {kind.decode()}", data[:33] + chunk + data[33:], WHOLE


def with_exif(step: int) -> Iterator[tuple[str, bytes, Any]]:
    """A JPEG on its side, with a tag of a wrong type beside that which says so."""
    data = encoded(GREY, "JPEG", quality=100)
    after = 4 + int.from_bytes(data[4:6], "big")
    cases = [(tag, kind) for tag in (271, 282, 306, 700, 34665, 40965) for kind in range(1, 18)]
    for tag, kind in cases[::step]:
        first, second = sorted([
            struct.pack("<HHII", tag, kind, 1, 2), struct.pack("<HHIHH", 274, 3, 1, 3, 0),
        ], key=lambda entry: int.from_bytes(entry[:2], "little"))  # fmt: skip
        body = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + first + second + bytes(4)
        segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
        name = f"EXIF: tag {tag} of type {kind}"
        yield name, data[:2] + segment + data[after:], WHOLE[::-1, ::-1]


def refused() -> Iterator[tuple[str, bytes]]:
    tall = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    yield "floats up to 255", encoded(Image.fromarray(255 * tall), "TIFF")
    yield "negative floats", encoded(Image.fromarray(tall - 1), "TIFF")
    yield "no numbers", encoded(Image.fromarray(tall * np.nan), "TIFF")
    yield "70,000", encoded(Image.fromarray((70_000 * tall).astype(np.int32)), "TIFF")
    yield "1 : 1000", encoded(Image.new("L", (2, 2000)))
    header = struct.pack(">4sIIBBBBB", b"IHDR", 30_000, 30_000, 8, 0, 0, 0, 0)
    bomb = bytearray(encoded(GREY))
    bomb[12:33] = header + struct.pack(">I", zlib.crc32(header))
    yield "a bomb", bytes(bomb)
    starts = {
        "nothing": b"", "zeros": bytes(500), "PDF": b"%PDF-1.7", "SVG": b"<svg xmlns=''/>",
        "a web page": b"<!DOCTYPE html>", "Git LFS": b"version https://git-lfs.github.com/spec/v1",
        "HEIC": b"\0\0\0\x18ftypheic", "ICO": encoded(GREY, "ICO"), "TGA": encoded(GREY, "TGA"),
        "text": b"gold", "comments": b"<!--" + b"--><!--" * 3000,
    }  # fmt: skip
    yield from starts.items()


def damaged(count: int) -> Iterator[tuple[str, bytes]]:
    chance = random.Random(0)
    options = {"GIF": GREY.convert("P"), "WEBP": GREY.convert("RGBA"), "MPO": GREY.convert("RGB")}
    for form in [*pictures.formats(), "MPO"]:
        data = encoded(options.get(form, GREY), form)
        for i in range(count):
            changed = bytearray(data)
            for _ in range(chance.randrange(1, 5)):
                changed[chance.randrange(min(len(data), 200))] = chance.choice([0, 1, 127, 255])
            yield f"{form}, damaged (#{i})", bytes(changed[: chance.randrange(1, 2 * len(data))])


# ---------------------------------------------------------------------------------- tables

RIGHT = {
    "as it should be": b"file_name,text\na.png,red car\n",
    "commas, quotes and lines in quotes": b'file_name,text\r\na.png,"a ""b"",\r\nc"\r\n',
    "a BOM, a column more, blank lines": b"\xef\xbb\xbfid,file_name,text\n1,a.png,\n\n \n\n",
    "from pandas": b",file_name,text\n0,a.png,x\n",
    "lines of an old Mac": b"file_name,text\ra.png,x",
}
WRONG = {  # and what the error names
    "nothing": (b"", "lacks the column"),
    "a header only": (b"file_name,text\n", "lists no picture"),
    "no header": (b"a.png,x\n", "begin it with the line file_name,text"),
    "other names": (b"File_Name, Text\na.png,x\n", "' Text'"),
    "a column twice": (b"file_name,text,text\na.png,x,y\n", "'text' twice"),
    "semicolons": (b"file_name;text\na.png;x\n", "separated by ';'"),
    "tabs": (b"file_name\ttext\na.png\tx\n", "separated by"),
    "a comma": (b"file_name,text\na.png,red car, at night\n", "line 2: the cells"),
    "a comma too many in the header": (b"file_name,text,\na.png,red, at night\n", "line 2: "),
    "a cell too few": (b"file_name,text\na.png,x\nb.png\n", "line 3: the cells"),
    "a quotation mark that stays open": (b'file_name,text\na.png,"x\na.png,y\n', "line 2 has"),
    "one that swallows a row": (b'file_name,text\na.png,"x\na.png,"y"\n', "line 2 has"),
    "one in the middle": (b'file_name,text\na.png,a 5" disk\n', "line 2 has a quotation mark"),
    "one behind a space": (b'file_name,text\na.png, "x"\n', "line 2 has a quotation mark"),
    "a NUL": (b"file_name,text\na.png,x\0\n", "line 2 holds a NUL"),
    "UTF-16": ("file_name,text\na.png,x\n".encode("utf-16"), "is in UTF-16"),
    "as Excel writes it": (b"file_name,text\na.png,caf\xe9\n", "line 2 is not in UTF-8"),
    "an Excel file": (b"PK\3\4" + bytes(30), "an Office document"),
    "a row without a picture": (b"file_name,text\n,x\n", "line 2: file_name is ''"),
    "a picture that is not there": (b"file_name,text\nb.png,x\n", "line 2: there is no picture"),
    "one outside": (b"file_name,text\n../a.png,x\n", "line 2: file_name is '../a.png'"),
}


def odd_tables(tally: Tally, short: bool) -> None:
    """Tables with commas, quotes, separators and encodings of all kinds: no row read wrongly."""
    with new_folder() as folder:
        GREY.save(folder / "a.png")
        for name, data in RIGHT.items():
            (folder / "metadata.csv").write_bytes(data)
            judge(tally, name, attempt(lambda: read(folder)), right=True)
        for name, (data, says) in WRONG.items():
            (folder / "metadata.csv").write_bytes(data)
            judge(tally, name, attempt(lambda: read(folder)), right=False, says=says)
        chance = random.Random(0)
        for i in range(20 if short else 2000):
            cells = [odd_text(chance) for _ in range(2 * chance.randrange(1, 4))]
            table = io.StringIO(newline="")
            rows = [["file_name", "text"], *(["a.png", text] for text in cells)]
            table.writelines(",".join(quoted(cell, chance) for cell in row) + "\n" for row in rows)
            (folder / "metadata.csv").write_bytes(table.getvalue().encode("utf-8"))

            def texts() -> None:
                found = [several[0] for several in datasets.ImageFolder(folder, 8).prompts]
                assert found == [text.strip() for text in cells], (found, cells)  # noqa: B023

            judge(tally, f"quoted by the rules (#{i})", attempt(texts), right=True)


def odd_text(chance: random.Random) -> str:
    return "".join(chance.choice(',"\r\n;\t a金é\u2028') for _ in range(chance.randrange(9)))


def quoted(cell: str, chance: random.Random) -> str:
    needed = any(sign in cell for sign in ',"\r\n')
    return '"' + cell.replace('"', '""') + '"' if needed or chance.random() < 0.3 else cell
