"""Own pictures: what is read, with the right values, and what is refused, with file and line."""

from __future__ import annotations

import io
import os
import random
import re
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from helpers import encoded
from minidiff import datasets, pictures
from minidiff.datasets import ImageFolder

GREY = Image.frombytes("L", (8, 8), bytes(range(0, 256, 4)))


def read(folder: Path, data: bytes, size: int = 8, name: str = "a.png") -> torch.Tensor:
    """One picture by way of a table, in grey: uint8 (size, size). No warning may come out."""
    (folder / name).write_bytes(data)
    (folder / "metadata.csv").write_text(f"file_name,text\n{name},x\n", encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ImageFolder(folder, size, 1).images[0, 0]


def picture_folder(folder: Path, table: str | bytes | None) -> Path:
    folder.mkdir(exist_ok=True)
    Image.new("L", (40, 20), 0).save(folder / "wide.png")
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(folder / "clear.png")
    Image.fromarray(np.full((9, 9), 30000, np.uint16)).save(folder / "deep.png")
    (folder / "broken.png").write_bytes((folder / "wide.png").read_bytes()[:40])
    Image.new("L", (8, 8), 0).save(folder.parent / "outside.png")
    if table is not None:
        data = table if isinstance(table, bytes) else table.encode("utf-8")
        (folder / "metadata.csv").write_bytes(data)
    return folder


# ------------------------------------------------------------------------------------- table


def test_own_pictures(tmp_path: Path) -> None:
    table = 'file_name,text\nwide.png,"black; wide"\nclear.png,\ndeep.png,grey\n'
    data = ImageFolder(picture_folder(tmp_path / "p", table.encode("utf-8-sig")), size=32)
    assert len(data) == 3 and data.images.shape == (3, 1, 32, 32)
    wide, clear, deep = data.images[:, 0]
    assert (wide[:8] == 255).all() and (wide[-8:] == 255).all() and (wide[9:23] == 0).all()
    assert (clear == 255).all(), "transparent is paper"
    assert (deep == 117).all(), "16 bits are scaled (30000 / 257 = 116.7), not clipped"
    assert data.prompts == [("black; wide", "black", "wide"), ("",), ("grey",)]
    assert data.file_names == ["wide.png", "clear.png", "deep.png"]
    assert data[0]["text"] == "black; wide" and data[1]["image"].min() == 1
    assert [item["text"] for item in data] == ["black; wide", "", "grey"]  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"dataset\[slice\(0, 3, None\)\]: give one whole number"):
        data[0:3]  # type: ignore[index]


@pytest.mark.parametrize(
    ("table", "texts"),
    [
        ("file_name,text\nwide.png,red\n\n  \n\n", ["red"]),
        ("\nfile_name,text\r\nwide.png,\r\ndeep.png, red ", ["", "red"]),
        ("\ufefffile_name,text\rwide.png,red\rdeep.png,blue", ["red", "blue"]),
        ('"file_name","text"\n"wide.png","red, ""5""\r\ncars"', ['red, "5"\r\ncars']),
        ("text,id,file_name\nred,7,wide.png\n,,deep.png\n", ["red", ""]),
        (",file_name,text\n0,wide.png,red\n1,deep.png,blue\n", ["red", "blue"]),  # pandas
        ("file_name,text,,\nwide.png,red,,\n", ["red"]),  # Excel
        ("file_name,text\nwide.png,red\nwide.png,wide\n", ["red", "wide"]),
        ("file_name,text\nwide.png,red\u2028car\x1c\n", ["red\u2028car"]),
    ],
)  # fmt: skip
def test_tables_that_are_right(tmp_path: Path, table: str, texts: list[str]) -> None:
    data = ImageFolder(picture_folder(tmp_path / "p", table), size=8)
    assert [several[0] for several in data.prompts] == texts


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ("", ValueError, "lacks the column file_name and text: it has nothing"),
        ("file_name,caption\nwide.png,x\n", ValueError, "lacks the column text.*'caption'"),
        ("File_name, Text\nwide.png,x\n", ValueError, "lacks.*'File_name', ' Text'.*file_name,"),
        ("wide.png,x\n", ValueError, "lacks the column.*begin it with the line file_name,text"),
        ("file_name,text,text\nwide.png,x,y\n", ValueError, "'text' twice"),
        ("file_name,text\n", ValueError, "lists no picture"),
        ("file_name;text\nwide.png;x\n", ValueError, "separated by ';', not by commas"),
        ('"file_name"\t"text"\nwide.png\tx\n', ValueError, r"separated by '\\t'"),
        ("sep=;\nfile_name;text\n", ValueError, "separated by ';'"),
        ("file_name,text\nwide.png,car, at night\n", ValueError,
         r"csv, line 2: the cells 'wide.png', 'car', ' at night' are not one for each .*in quotes"),
        ("file_name,text,\nwide.png,car, at night\n", ValueError, "line 2.*' at night'"),
        ("file_name,text\nwide.png\n", ValueError, "line 2: the cells 'wide.png' are not one"),
        ("file_name,text\nwide.png,red\ncar\n", ValueError, "line 3: the cells 'car' are not one"),
        ("file_name,text\nwide.png;x\n", ValueError, "line 2: .* separate them by ',', not by ';'"),
        ('file_name,text\n"wide.png,x"\n', ValueError, "line 2: .*marks around the whole row"),
        ('file_name,text\nwide.png,"red\ndeep.png,x\n', ValueError, "line 2 .*quotation.*'\"red'"),
        ('file_name,text\nwide.png,"red\ndeep.png,"x"\n', ValueError, "line 2 has a quotation"),
        ('file_name,text\nwide.png,a\nwide.png,"b" c\n', ValueError, "line 3 has a quotation mark"),
        ('file_name,text\nwide.png, "a"\n', ValueError, "line 2 .*' \"a\"'.*double those within"),
        ('file_name,text\nwide.png,say "hi"\n', ValueError, "line 2 has a quotation mark"),
        ("file_name,text\nwide.png,x\0\n", ValueError, "line 2 holds a NUL"),
        ("file_name,text\nwide.png,caf\xe9\n".encode("cp1252"), ValueError,
         "line 2 is not in UTF-8, near '.*caf\xe9.*CSV UTF-8"),
        ("file_name,text\nwide.png,x\n".encode("utf-16"), ValueError, "is in UTF-16: save it"),
        ("file_name,text\nwide.png,x\n".encode("utf-16-be"), ValueError, "line 1 holds a NUL"),
        (b"PK\3\4\x14\0", ValueError, "not a table: it seems to be an archive or an Office"),
        (b"version https://git-lfs.github.com/spec/v1\n", ValueError, "git lfs pull"),
        ("file_name,text\nwide.png,x\nno.png,y\n", FileNotFoundError, r"line 3: .*'no\.png'"),
        ("file_name,text\nbroken.png,x\n", ValueError, r"line 2: 'broken\.png' cannot be read"),
        ("file_name,text\nmetadata.csv,x\n", ValueError, "read as a picture: .*none of PNG, JPEG"),
        ("file_name,text\n../outside.png,x\n", ValueError, "name a file inside"),
        ("file_name,text\n/outside.png,x\n", ValueError, "name a file inside"),
        ("file_name,text\n,x\n", ValueError, "line 2: file_name is ''"),
        ("file_name,text\n,\n", ValueError, "line 2: file_name is ''"),
        ("file_name,text\n.,x\n", FileNotFoundError, "line 2: there is no picture"),
        (f"file_name,text\n{'x' * 5000},x\n", (ValueError, FileNotFoundError), "line 2: "),
        ('file_name,text\nwide.png,"two\nlines"\nno.png,\n', FileNotFoundError, "line 4"),
    ],
)  # fmt: skip
def test_tables_that_are_wrong(
    tmp_path: Path, table: str | bytes | None, error: Any, message: str
) -> None:
    folder = picture_folder(tmp_path / "p", table)
    with pytest.raises(error, match=f"(?s){message}") as raised:
        ImageFolder(folder, size=32)
    assert "metadata.csv" in str(raised.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links and pipes")
def test_links_and_pipes(tmp_path: Path) -> None:
    folder = picture_folder(tmp_path / "p", "file_name,text\nodd.png,x\n")
    for make, error in (
        (lambda path: path.symlink_to(path), (ValueError, FileNotFoundError)),
        (lambda path: path.symlink_to(tmp_path / "outside.png"), ValueError),
        (os.mkfifo, FileNotFoundError),  # opening it would wait for ever
    ):
        make(folder / "odd.png")
        with pytest.raises(error, match=r"line 2: .*'odd\.png'") as raised:
            ImageFolder(folder)
        leads = (folder / "odd.png").is_symlink() and error is ValueError
        assert ("is a link that leads outside" in str(raised.value)) == leads
        (folder / "odd.png").unlink()
    with pytest.raises(NotADirectoryError, match=r"csv is a file: give the folder, .*p$"):
        ImageFolder(folder / "metadata.csv")


def test_a_bar_where_one_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = picture_folder(tmp_path / "p", "file_name,text\n" + 40 * "wide.png,x\n")
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    ImageFolder(folder, 8)
    assert terminal.getvalue().strip() == "", "a handful of pictures is read without a bar"
    monkeypatch.setattr(datasets, "tqdm", lambda *a, **k: tqdm(*a, **{**k, "delay": 0}))
    ImageFolder(folder, 8)
    assert re.search(r"reading pictures.*/40 \[.*<", terminal.getvalue())


# ----------------------------------------------------------------------------------- formats


def postscript(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, Path]:
    """A program in PostScript, and the mark that a stand-in for Ghostscript leaves when it runs."""
    mark, program = folder / "executed", folder / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {mark}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return encoded(GREY.convert("RGB"), "EPS"), mark


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
@pytest.mark.parametrize("name", ["photo.png", "photo.eps", "photo.jpg"])
def test_postscript_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # looked for anew
    data, mark = postscript(tmp_path, monkeypatch)
    with pytest.raises(ValueError, match=f"line 2: '{name}'.*it seems to be PostScript"):
        read(tmp_path, data, name=name)
    assert not mark.exists()
    with pytest.raises(OSError):
        Image.open(tmp_path / name).load()
    assert mark.exists(), "Pillow by itself does run it"


@pytest.mark.parametrize("form", pictures.FORMATS)
def test_formats_are_known_by_what_is_in_them(tmp_path: Path, form: str) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    exact: dict[str, dict[str, Any]] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100},
        "AVIF": {"quality": 100},
    }
    found = read(tmp_path, encoded(GREY, form, **exact.get(form, {})), name="a.eps")
    assert (found.float() - torch.from_numpy(np.array(GREY)).float()).abs().max() <= 4
    assert set(pictures.formats()) <= set(pictures.FORMATS)


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"", "an empty file"),
        (bytes(1000), "nothing but zeros"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n{} loop", "PostScript"),
        (b"\xc5\xd0\xd3\xc6" + bytes(30), "PostScript"),
        (b"%PDF-1.7\n", "a PDF"),
        (b'<?xml version="1.0"?>\n<!-- x -->\n<svg xmlns="">', "an SVG"),
        (b"\n<!DOCTYPE html><html><svg>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1", "HEIC photo: save it as JPEG"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF, damaged or too new"),
        (b"\0\0\0\x1cftypisom\0\0\0\0", "a film"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"8BPS\0\1", "a Photoshop file"),
        (b"PK\3\4", "an archive"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "macOS"),
        (encoded(GREY, "ICO"), "ICO"),
        (encoded(GREY, "TGA"), "none of PNG, JPEG"),
        (encoded(GREY, "PCX"), "none of PNG, JPEG"),
        (b"some text", "none of PNG, JPEG"),
        (b"<!--" + b"--><!--" * 5000, "none of PNG, JPEG"),  # no pattern may run away
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, start: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=f"metadata.csv, line 2: 'a.png' cannot.*{said}"):
        read(tmp_path, start)


def test_a_format_that_pillow_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "FORMATS", ("PNG", "NONSENSE"))
    pictures.formats.cache_clear()
    try:
        assert read(tmp_path, encoded(GREY)).shape == (8, 8)
        with pytest.raises(ValueError, match=r"none of PNG as Pillow"):
            read(tmp_path, encoded(GREY, "JPEG"))
    finally:
        pictures.formats.cache_clear()


def test_bombs_are_refused(tmp_path: Path) -> None:
    bomb = bytearray(encoded(GREY))
    bomb[16:24] = struct.pack(">II", 20_000, 20_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    with pytest.raises(ValueError, match=r"line 2: 'a\.png'.*decompression bomb"):
        read(tmp_path, bytes(bomb))


# ------------------------------------------------------------------ what stands beside a picture


def ifd(*entries: tuple[int, int, int, bytes], after: bytes = b"", order: str = "<") -> bytes:
    """A TIFF of these tags, types, counts and values, which is also what EXIF is made of."""
    count = len(entries)
    table, rest = b"", b""
    for tag, kind, number, value in sorted(entries):
        if len(value) > 4:
            place = 8 + 2 + 12 * count + 4 + len(rest)
            value, rest = struct.pack(f"{order}I", place), rest + value
        table += struct.pack(f"{order}HHI", tag, kind, number) + value.ljust(4, b"\0")
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, count)
    return start + table + bytes(4) + rest + after


def tiff(
    values: Any, bits: int, sample_format: int = 1, photometric: int = 1, order: str = "<",
    more: Sequence[tuple[int, int, int, bytes]] = (), shape: tuple[int, int] = (0, 0),
) -> bytes:  # fmt: skip
    """A grey TIFF without compression, of any type."""
    data = values if isinstance(values, bytes) else values.tobytes()
    height, width = shape if isinstance(values, bytes) else values.shape

    def short(tag: int, value: int) -> tuple[int, int, int, bytes]:
        return tag, 3, 1, struct.pack(f"{order}H", value)

    def tags(place: int) -> list[tuple[int, int, int, bytes]]:
        return [
            short(256, width), short(257, height), short(258, bits), short(259, 1),
            short(262, photometric), (273, 4, 1, struct.pack(f"{order}I", place)), short(277, 1),
            short(278, height), (279, 4, 1, struct.pack(f"{order}I", len(data))),
            short(339, sample_format), *more,
        ]  # fmt: skip

    return ifd(*tags(len(ifd(*tags(0), order=order))), after=data, order=order)


SHAPE = np.array([[0, 255, 255], [0, 0, 255], [0, 255, 0], [0, 255, 255]], np.uint8)
STORED = {  # how a file holds it, by the orientation that its EXIF then says
    1: SHAPE, 2: SHAPE[:, ::-1], 3: SHAPE[::-1, ::-1], 4: SHAPE[::-1], 5: SHAPE.T,
    6: np.rot90(SHAPE, 1), 7: SHAPE[::-1, ::-1].T, 8: np.rot90(SHAPE, -1),
}  # fmt: skip


def with_exif(stored: np.ndarray[Any, Any], exif: bytes) -> dict[str, bytes]:
    """The picture, each point of it 8 pixels wide, in all formats that carry EXIF."""
    picture = Image.fromarray(stored.repeat(8, 0).repeat(8, 1))
    jpeg = encoded(picture, "JPEG", quality=95)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif
    start = 4 + int.from_bytes(jpeg[4:6], "big")  # without JFIF, as from a camera
    return {
        "JPEG": jpeg[:2] + segment + jpeg[start:],
        "PNG": encoded(picture, exif=b"Exif\0\0" + exif),
        "WEBP": encoded(picture, "WEBP", lossless=True, exif=b"Exif\0\0" + exif),
    }


def orientation(value: int) -> tuple[int, int, int, bytes]:
    return 274, 3, 1, struct.pack("<H", value)


def is_upright(found: torch.Tensor) -> bool:
    """Whether a picture of 32 pixels shows SHAPE in its middle."""
    shown = found[:, 4:28].unfold(0, 8, 8).unfold(1, 8, 8).float().mean((2, 3))
    return bool(((shown - torch.from_numpy(SHAPE.copy())).abs() < 40).all())


@pytest.mark.parametrize("value", STORED)
def test_pictures_are_turned_as_their_exif_says(tmp_path: Path, value: int) -> None:
    for data in with_exif(STORED[value], ifd(orientation(value))).values():
        assert is_upright(read(tmp_path, data, 32))
    stored = np.ascontiguousarray(STORED[value]).repeat(8, 0).repeat(8, 1)
    assert is_upright(read(tmp_path, tiff(stored, 8, more=[orientation(value)]), 32))


SIZES = {  # bytes of a value, by its type
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 99: 1
}  # fmt: skip
WRONG = {5: bytes(8), 10: struct.pack("<ii", -1, 0), 11: struct.pack("<f", float("nan"))}


def wrong_tags() -> Iterator[tuple[int, int, int, bytes]]:
    """Tags that Pillow looks at or writes back, of every type and of several lengths."""
    for tag in (271, 282, 306, 700, 34665, 40965):
        for kind, size in SIZES.items():
            for count in (1, 3):
                yield tag, kind, count, WRONG.get(kind, b"\xff" * size) * count


def test_tags_of_wrong_types_do_not_stop_a_picture(tmp_path: Path) -> None:
    inch = (296, 3, 1, struct.pack("<H", 2))
    stored = np.ascontiguousarray(STORED[6]).repeat(8, 0).repeat(8, 1)
    for tag in wrong_tags():
        tags = [tag, orientation(6), *([inch] if tag[0] == 282 else [])]
        for form, data in with_exif(STORED[6], ifd(*tags)).items():
            assert is_upright(read(tmp_path, data, 32)), (form, tag)
        assert is_upright(read(tmp_path, tiff(stored, 8, more=tags), 32)), ("TIFF", tag)


def test_an_orientation_behind_a_broken_tag(tmp_path: Path) -> None:
    for order in "<>":
        exif = ifd((274, 3, 1, struct.pack(f"{order}H", 6)), order=order)
        broken = struct.pack(f"{order}HHII", 271, 2, 2000, 9_999_999)  # a text that is not there
        exif = exif[:8] + struct.pack(f"{order}H", 2) + broken + exif[10:]
        for form, data in with_exif(STORED[6], exif).items():
            assert is_upright(read(tmp_path, data, 32)), form
    second = ifd(after=ifd(orientation(6))[8:])  # of the thumbnail, not of the picture
    second = second[:10] + struct.pack("<I", 14) + second[14:]
    for form, data in with_exif(SHAPE, second).items():
        assert is_upright(read(tmp_path, data, 32)), form


@pytest.mark.parametrize("kind", SIZES)
def test_an_orientation_that_cannot_be_read_is_ignored(tmp_path: Path, kind: int) -> None:
    for count in (1, 3):
        tag = (274, kind, count, WRONG.get(kind, b"\xff" * SIZES[kind]) * count)
        for form, data in with_exif(SHAPE, ifd(tag)).items():
            assert is_upright(read(tmp_path, data, 32)), form
        stored = SHAPE.repeat(8, 0).repeat(8, 1)
        assert is_upright(read(tmp_path, tiff(stored, 8, more=[tag]), 32))


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    found = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", found)


@pytest.mark.parametrize(
    "beside",
    [
        chunk(b"tEXt", b"a\0b", crc=0),
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(5_000_000))),
        chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(5_000_000))),
        chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(5_000_000))),
        chunk(b"iCCP", b"no profile"),
        chunk(b"pHYs", b"x"),
        chunk(b"gAMA", b""),
        chunk(b"cHRM", b"xyz"),
        chunk(b"eXIf", b"nonsense", crc=0),
        chunk(b"acTL", b""),
    ],
)
def test_a_png_is_read_whatever_stands_beside_it(tmp_path: Path, beside: bytes) -> None:
    data = encoded(GREY)
    exif = chunk(b"eXIf", ifd(orientation(3)))
    for place in (33, len(data) - 12):  # behind the header, before the end
        changed = data[:place] + beside + data[place:]
        assert np.array_equal(read(tmp_path, changed), np.array(GREY))
        if beside[4:8] != b"eXIf":
            turned = read(tmp_path, data[:33] + exif + data[33:place] + beside + data[place:])
            assert np.array_equal(turned, np.array(GREY)[::-1, ::-1])


def test_a_jpeg_is_read_whatever_stands_beside_it(tmp_path: Path) -> None:
    data = encoded(GREY, "JPEG")
    expected = read(tmp_path, data)
    for marker in (0xE1, 0xE2, 0xED, 0xEE, 0xFE):
        for body in (b"Exif\0\0", b"MPF\0MM", b"ICC_PROFILE\0", b"Photoshop 3.0\x008BIM\4", b""):
            segment = bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
            changed = data[:20] + segment + data[20:]
            assert torch.equal(read(tmp_path, changed), expected), (marker, body)


def test_damaged_pictures_are_read_or_named(tmp_path: Path) -> None:
    chance = random.Random(0)
    info = PngInfo()
    info.add_text("a", "b" * 50, zip=True)
    seeds = [encoded(GREY, form) for form in pictures.formats() if form != "AVIF"]
    seeds += [encoded(GREY, "TIFF", compression="tiff_lzw"), encoded(GREY, pnginfo=info)]
    seeds += [encoded(GREY.convert("P"), "GIF"), encoded(GREY.convert("RGBA"), "WEBP")]
    ends = {"read": 0, "refused": 0}
    for data in seeds:
        for _ in range(60):
            changed = bytearray(data)
            for _ in range(chance.randrange(4)):
                changed[chance.randrange(min(len(data), 150))] = chance.randrange(256)
            if chance.random() < 0.3:
                del changed[chance.randrange(len(data)) :]
            try:
                assert read(tmp_path, bytes(changed)).shape == (8, 8)
                ends["read"] += 1
            except UserWarning as warning:
                assert "next to no contrast" in str(warning)
            except ValueError as error:
                assert "metadata.csv, line 2: 'a.png' cannot be read" in str(error)
                ends["refused"] += 1
    assert min(ends.values()) > 100, ends


# ------------------------------------------------------------------------------------- values


def lab(*values: int) -> Image.Image:
    return Image.frombytes("LAB", (1, 1), bytes(values))


@pytest.mark.parametrize(
    ("picture", "form", "grey"),
    [
        # L = 0.299 R + 0.587 G + 0.114 B; what is see-through lies on 255
        (Image.new("1", (1, 1), 1), "PNG", 255),
        (Image.new("1", (1, 1), 0), "TIFF", 0),
        (Image.new("L", (1, 1), 77), "PNG", 77),
        (Image.new("RGB", (1, 1), (255, 0, 0)), "PNG", 76),
        (Image.new("RGB", (1, 1), (0, 255, 0)), "BMP", 150),
        (Image.new("RGB", (1, 1), (0, 0, 255)), "PPM", 29),
        (Image.new("RGB", (1, 1), (0, 255, 0)).quantize(2), "GIF", 150),
        (Image.new("LA", (1, 1), (55, 51)), "PNG", 215),  # 0.2 · 55 + 0.8 · 255
        (Image.new("LA", (1, 1), (55, 51)), "TIFF", 215),
        (Image.new("RGBA", (1, 1), (0, 0, 0, 128)), "PNG", 127),
        (Image.new("RGBA", (1, 1), (0, 0, 0, 128)), "TIFF", 127),
        (Image.new("RGBX", (1, 1), (9, 9, 9, 0)), "TIFF", 9),  # the fourth value means nothing
        (Image.new("CMYK", (1, 1), (0, 0, 0, 155)), "TIFF", 100),
        (Image.new("CMYK", (1, 1), (0, 0, 0, 155)), "JPEG", 100),
        (Image.new("YCbCr", (1, 1), (90, 128, 128)), "JPEG", 90),
        (lab(255, 0, 0), "TIFF", 255),
        (lab(0, 0, 0), "TIFF", 0),
        (lab(136, 0, 0), "TIFF", 127),  # L* = 53.3: sRGB 127.5
    ],
)
def test_every_mode_becomes_grey(
    tmp_path: Path, picture: Image.Image, form: str, grey: int
) -> None:
    found = read(tmp_path, encoded(picture, form))
    assert (found.int() - grey).abs().max() <= 1


@pytest.mark.parametrize("where", [{"transparency": 0}, {"transparency": b"\0\x80"}])
def test_palettes_may_be_transparent(tmp_path: Path, where: dict[str, Any]) -> None:
    picture = Image.new("P", (8, 8))
    picture.putpalette([0, 0, 0, 55, 55, 55])
    picture.paste(1, (4, 0, 8, 8))
    found = read(tmp_path, encoded(picture, **where))
    second = 55 if where["transparency"] == 0 else 155  # 128 / 255 of 55, the rest 255
    assert found[4, 0] == 255 and abs(int(found[4, 7]) - second) <= 1


def test_a_transparent_grey_of_16_bits(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 30000]], np.uint16).repeat(8, 0).repeat(4, 1))
    data = encoded(picture)
    found = read(tmp_path, data[:33] + chunk(b"tRNS", b"\0\0") + data[33:])
    assert (found[:, 0] == 255).all() and (found[:, 7] == 117).all()


RAMP16 = np.array([[0, 257, 12850, 32896, 65535]])  # 0, 1, 50, 128, 255


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(Image.fromarray(RAMP16.astype(np.uint16))), [0, 1, 50, 128, 255]),
        (b"P5 5 1 65535\n" + RAMP16.astype(">u2").tobytes(), [0, 1, 50, 128, 255]),
        (tiff(RAMP16.astype("<u2"), 16), [0, 1, 50, 128, 255]),
        (tiff(RAMP16.astype(">u2"), 16, order=">"), [0, 1, 50, 128, 255]),
        (tiff(RAMP16.astype("<u2"), 16, photometric=0), [255, 254, 205, 127, 0]),
        (tiff(RAMP16.astype("<i4"), 32, 2), [0, 1, 50, 128, 255]),
        (tiff(RAMP16.astype(">i4"), 32, 2, order=">"), [0, 1, 50, 128, 255]),
        (tiff(RAMP16.astype("<u4"), 32), [0, 1, 50, 128, 255]),
        (tiff((RAMP16 // 2).astype("<i2"), 16, 2), [0, 1, 50, 128, 255]),
        (tiff((RAMP16 // 2).astype(">i2"), 16, 2, order=">"), [0, 1, 50, 128, 255]),
        (tiff(np.array([[0, 50, 127]], "i1"), 8, 2), [0, 100, 255]),
        # 0, 4095, 2048, 803 of 12 bits, two in three bytes
        (tiff(bytes.fromhex("000fff800323"), 12, shape=(1, 4)), [0, 255, 128, 50]),
        (tiff(np.array([[0.0, 0.2, 0.5, 1.0]], "<f4"), 32, 3), [0, 51, 128, 255]),
        (tiff(np.array([[0.0, 0.2, 0.5, 1.0]], ">f4"), 32, 3, order=">"), [0, 51, 128, 255]),
        (tiff(np.array([[0.0, 0.2, 1.0]], "<f4"), 32, 3, photometric=0), [255, 204, 0]),
        (tiff(np.array([[0, 50, 255]], "u1"), 8, photometric=0), [255, 205, 0]),
        (encoded(Image.fromarray(np.array([[0, 0.2, 1]], np.float32)), "TIFF",
                 compression="tiff_lzw"), [0, 51, 255]),
        (encoded(Image.fromarray(RAMP16.astype(np.uint16)), "TIFF", compression="tiff_lzw"),
         [0, 1, 50, 128, 255]),
    ],
)  # fmt: skip
def test_values_are_scaled_by_the_range_of_their_type(
    tmp_path: Path, data: bytes, expected: list[int]
) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with (tmp_path / "a.png").open("rb") as file:
        grey = pictures.flat(pictures.opened(file), (255, 255, 255))
    assert np.abs(np.array(grey, int)[0] - expected).max() <= 1, list(grey.getdata())
    assert grey.mode == "L"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (tiff(np.array([[0, 128, 255]], "<f4"), 32, 3), "from 0 to 255, .* from 0 to 1: bring"),
        (tiff(np.array([[-1, 0, 1]], "<f4"), 32, 3), "from -1 to 1"),
        (tiff(np.array([[0, np.nan, 1]], "<f4"), 32, 3), "from nan to nan"),
        (tiff(np.array([[0, np.inf, 1]], "<f4"), 32, 3), "from 0 to inf"),
        (tiff(np.array([[0, 70000]], "<i4"), 32, 2), "from 0 to 70000, .* 65535: .*8 bits"),
        (tiff(np.array([[-5, 9]], "<i2"), 16, 2), "from -5 to 9, .* 32767"),
        (tiff(np.array([[-5, 9]], "i1"), 8, 2), "from -5 to 9, .* 127"),
        (tiff(np.array([[0, 200, 255]], "<u2"), 16), "from 0 to 255, .*save it with 8 bits"),
        (tiff(np.array([[0, 1]], "<u2"), 16), "multiply them, so that white is 65535$"),
        (tiff(np.array([[0, 4095]], "<u2"), 16), "multiply .* 65535, or save it with 8 bits"),
        (tiff(np.array([[0, 16383]], "<u2"), 16), "from 0 to 16383, .*multiply"),
        (tiff(np.array([[0, 4095]], "<i2"), 16, 2), "multiply .* 32767"),
        (tiff(np.array([[0, 200, 255]], "<i4"), 32, 2), "from 0 to 255, .*save it with 8 bits"),
    ],
)
def test_values_that_nobody_can_scale_are_refused(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=f"line 2: 'a.png' cannot.*{said}"):
        read(tmp_path, data)


@pytest.mark.parametrize(("width", "height"), [(1, 9), (9, 1), (3, 1000), (2000, 20)])
def test_pictures_too_narrow_to_be_seen_are_refused(
    tmp_path: Path, width: int, height: int
) -> None:
    with pytest.raises(ValueError, match=f"'a.png' cannot.*{width} × {height} .*too narrow"):
        read(tmp_path, encoded(Image.new("L", (width, height))))


@pytest.mark.parametrize(("width", "height"), [(1, 8), (8, 1), (30, 240), (1000, 125)])
def test_narrow_pictures_keep_a_pixel(tmp_path: Path, width: int, height: int) -> None:
    found = read(tmp_path, encoded(Image.new("L", (width, height))))
    assert (found == 0).sum() == 8


def test_pictures_of_which_nothing_is_left_are_counted(tmp_path: Path) -> None:
    icon = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    icon.paste((255, 255, 255, 255), (2, 2, 6, 6))
    icon.save(tmp_path / "icon.png")  # white on a transparent ground
    faint = np.full((800, 800), 255, np.uint8)
    faint[400, 400] = 0
    Image.fromarray(faint).save(tmp_path / "faint.png")  # a point in the snow
    Image.new("L", (9, 9), 255).save(tmp_path / "white.png")  # has nothing to lose
    Image.new("RGBA", (9, 9), 0).save(tmp_path / "clear.png")
    GREY.save(tmp_path / "grey.png")
    table = "file_name,text\ngrey.png,\nwhite.png,\nicon.png,\nclear.png,\nfaint.png,\nmask.png,\n"
    (tmp_path / "metadata.csv").write_text(table, encoding="utf-8")
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 21).save(tmp_path / "mask.png")
    said = r"^3 of 6 pictures have next to no contrast .* 'icon.png' \(.*csv, line 4\).* 8 pixels"
    with pytest.warns(UserWarning, match=said) as noticed:
        ImageFolder(tmp_path, 8)
    assert len(noticed) == 1 and noticed[0].filename == __file__
