"""Own pictures: a folder of them with a table of texts, in the shape that training wants.

Whatever comes from outside is judged here, once: every row of the table and every picture is read
as it is meant, or refused with the file, the line and the remedy. Pictures are opened by what they
contain, whatever their names say, and only as one of `FORMATS`: Pillow knows many more, and for
PostScript it would run a program.
"""

from __future__ import annotations

import os
import re
import struct
import warnings
from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor
from tqdm import tqdm

from minidiff.captions import prompts_of
from minidiff.glyphs import Pictures, check_size
from minidiff.inputs import as_path, warn

#: What is opened, where the installed Pillow has it.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "PPM")


class ImageFolder(Pictures):
    """Your own pictures: a folder with `metadata.csv`, columns `file_name` and `text`.

    This is the `imagefolder` convention of Hugging Face datasets. The table is a CSV file in UTF-8
    with commas; other columns may stand in it, a text may be empty, and one that holds a comma, a
    quotation mark or a line break stands in quotes. Like a definition a text is cut at ";" and
    ",": "red car, at night" is learnt as a whole and, three times as often, by its parts, unless
    the recipe has `senses = 0`.

    Pictures (PNG, JPEG, GIF, WebP, AVIF, BMP, TIFF, PPM; of several in a file the first) become
    grey, lie as their EXIF says, and what is not square is fitted onto white paper, which also
    shows through what is transparent. Attributes and items are those of `GlyphDataset`, with
    `file_names` and the absolute path `folder` in place of `glyphs`.

    Args:
        folder: with the table and the pictures.
        size: height and width in pixels that they are brought to, 8 to 512.

    Raises:
        FileNotFoundError: for a missing table or picture.
        ValueError: for a table or picture that cannot be read, naming it and the line.

    Warns:
        UserWarning: for pictures that show something, of which next to nothing is left: white on a
            transparent ground, or a mask of small numbers.
    """

    def __init__(self, folder: str | os.PathLike[str], size: int = 64) -> None:
        self.size, root = check_size(size), as_path("folder", folder)
        self.folder = str(root.absolute())
        rows = _read_table(root / "metadata.csv")
        self.file_names = [row.file_name for row in rows]
        self.prompts = [prompts_of(row.text.strip()) for row in rows]
        pictures, blank = [], []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow says of tags that we do without
            # A bar where one waits for more than a moment, and (None) on a terminal only.
            for row in tqdm(rows, "reading pictures", disable=None, delay=1, leave=False):
                picture, is_blank = _load_picture(root, row, self.size)
                pictures.append(picture)
                if is_blank:
                    blank.append(row)
        self.images = torch.stack(pictures)
        if blank:
            warn(
                f"{len(blank)} of {len(rows)} pictures have next to no contrast in grey, first "
                f"{blank[0].file_name!r} ({blank[0].where}): multiply small numbers such as those "
                "of a mask up to 255, darken what is white on a transparent ground, crop what is "
                f"too fine for {self.size} pixels, or take out their rows."
            )


# ------------------------------------------------------------------------------------- table


class _Row(NamedTuple):
    """A row of the table, and the file and line that it stands in."""

    where: str
    file_name: str
    text: str


# One cell of a CSV file (RFC 4180), in quotes or not, and what ends it. Python's reader takes
# quotes in the middle of a cell, and does not tell which line a row begins on.
CELL = re.compile(r'(?:"([^"]*+(?:""[^"]*+)*+)"|([^",\r\n]*+))(,|\r\n|\r|\n|\Z)')
NEWLINE = re.compile(r"\r\n?|\n")


def _read_table(path: Path) -> list[_Row]:
    """Its rows, each of which is exactly what the header says."""
    if path.parent.is_file():
        raise NotADirectoryError(f"{path.parent} is a file: give the folder, {path.parent.parent}")
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {path}: list the pictures there, with the columns file_name,text"
        )
    (_, columns), *records = _records(path, _decoded(path)) or [(1, [])]
    if missing := [name for name in ("file_name", "text") if name not in columns]:
        raise ValueError(
            f"{path} lacks the column {' and '.join(missing)}: it has "
            f"{', '.join(map(repr, columns)) or 'nothing'}; begin it with the line file_name,text"
        )
    if twice := [name for name in columns if name and columns.count(name) > 1]:
        raise ValueError(f"{path} has the column {twice[0]!r} twice: take one of them out")
    if not records:
        raise ValueError(f"{path} lists no picture: add a row for each")
    rows = []
    for line, cells in records:
        where = f"{path}, line {line}"
        # Under no name stand the row numbers of pandas, first, or what a comma too many cut off.
        nameless = any(cell for name, cell in zip(columns[1:], cells[1:]) if not name)
        if len(cells) != len(columns) or nameless:
            advice = 'put a text that holds commas in quotes, as "red car, at night"'
            if len(cells) == 1 and "," in cells[0]:
                advice = "take out the quotation marks around the whole row"
            elif len(cells) == 1 and (other := re.search(r"[;\t|]", cells[0])):
                advice = f"separate them by ',', not by {other[0]!r}"
            raise ValueError(
                f"{where}: the cells {str(cells)[1:-1][:200]} are not one for each column of "
                f"{','.join(columns)}; {advice}"
            )
        named = dict(zip(columns, cells))
        rows.append(_Row(where, named["file_name"], named["text"]))
    return rows


def _decoded(path: Path) -> str:
    """The text of a table; the newline conventions are left as they are."""
    data = path.read_bytes()
    remedy = "save it as CSV in UTF-8 (in Excel: 'CSV UTF-8')"
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path} is in UTF-16: {remedy}")
    if data and (kind := _seems(data[:1000])):
        raise ValueError(f"{path} is not a table: it seems to be {kind}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + len(NEWLINE.findall(data[: error.start].decode("latin-1")))
        shown = data[max(0, error.start - 20) : error.start + 20].decode("cp1252", "replace")
        raise ValueError(f"{path}, line {line} is not in UTF-8, near {shown!r}: {remedy}") from None
    if "\0" in text:
        line = 1 + len(NEWLINE.findall(text[: text.index("\0")]))
        raise ValueError(f"{path}, line {line} holds a NUL character: {remedy}")
    header = NEWLINE.split(text.strip(), maxsplit=1)[0]
    for separator in ";\t|":
        if separator in header and "," not in header:
            raise ValueError(
                f"{path} is separated by {separator!r}, not by commas: {header[:200]!r}; choose "
                "the comma as field separator where you save it"
            )
    return text


def _records(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """The rows of a CSV file, without blank lines, and the line that each begins on."""
    records: list[tuple[int, list[str]]] = []
    cells: list[str] = []
    line = first = 1
    position, end = 0, ","
    while end:
        match = CELL.match(text, position)
        if match is None:
            shown = NEWLINE.split(text[position:], maxsplit=1)[0][:200]
            raise ValueError(
                f"{path}, line {line} has a quotation mark in the wrong place: {shown!r}; begin "
                'and end the cell with one and double those within ("say ""hi"" twice")'
            )
        quoted, plain, end = match.groups()
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        line += len(NEWLINE.findall(match[0]))
        position = match.end()
        if end != ",":
            if len(cells) > 1 or cells[0].strip():
                records.append((first, cells))
            cells, first = [], line
    return records


# ---------------------------------------------------------------------------------- pictures

# What people take for a picture, by its first bytes, and what to do.
SEEMING = {
    rb"\Z": "an empty file: copy it again",
    rb"\0{64}": "nothing but zeros, as a copy that broke off leaves them: copy it again",
    rb"%!PS|\xc5\xd0\xd3\xc6": "PostScript, which is a program: save it as PNG",
    rb"%PDF": "a PDF document: save its page as PNG",
    rb"(?i)\s*<(!doctype html|html|head|body)": "a web page: download the file itself",
    rb"(?is)\s*<(.*<)?svg\b": "an SVG drawing: save it as PNG",
    rb"version https://git-lfs": "a Git LFS pointer: fetch the file with `git lfs pull`",
    rb"(?s)....ftyp(hei|hev|mif1|msf1)": "a HEIC photo: save it as JPEG",
    rb"(?s)....ftypavi": "AVIF, damaged or too new for the installed Pillow: save it as PNG",
    rb"(?s)....ftyp": "a film: save a picture of it as PNG",
    rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51": "JPEG 2000: save it as PNG",
    rb"\0\0\0\x0cJXL |\xff\x0a": "JPEG XL: save it as PNG",
    rb"8BPS": "a Photoshop file: save it as PNG",
    rb"\0\0\x01\0": "an icon (ICO): save it as PNG",
    rb"\0\x05\x16\x07": "a side file of macOS (._name): take its row out",
    rb"PK\x03\x04": "an archive or an Office document: unpack it, or save what it holds",
}
# What turns a picture of the EXIF orientations 2 to 8 upright.
UPRIGHT = (
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)  # fmt: skip
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"  # how they begin
BITS, PHOTOMETRIC, ORIENTATION, SAMPLE_FORMAT = 258, 262, 274, 339  # tags of TIFF and EXIF


def _seems(start: bytes) -> str | None:
    """What a file is that begins so, if it is no picture of `FORMATS`."""
    return next((kind for sign, kind in SEEMING.items() if re.match(sign, start)), None)


@cache
def _formats() -> list[str]:
    """Of `FORMATS` those that the installed Pillow has; for another its open() has a KeyError."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _load_picture(root: Path, row: _Row, size: int) -> tuple[Tensor, bool]:
    """Grey and fitted, uint8 (1, size, size); and whether nothing is left of what it shows."""
    path = _path(root, row)
    try:
        with path.open("rb") as file:
            picture = _opened(file)
        grey = _grey(picture)
        if size * min(grey.size) < max(grey.size):
            raise ValueError(f"{grey.width} × {grey.height} pixels are too narrow: crop it")
        fitted = ImageOps.contain(grey, (size, size), Image.Resampling.LANCZOS)
        blank = np.ptp(np.asarray(fitted)) < 32 and not _is_uniform(picture)
        page = ImageOps.pad(fitted, (size, size), Image.Resampling.LANCZOS, color=255)
    except Exception as error:  # whatever Pillow runs into
        reason = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            known = ", ".join(_formats())
            reason = f"it is damaged, or none of {known} as Pillow knows them: save it as PNG"
        raise ValueError(
            f"{row.where}: {row.file_name!r} cannot be read as a picture: {reason}"
        ) from error
    return torch.from_numpy(np.array(page)).unsqueeze(0), blank


def _path(root: Path, row: _Row) -> Path:
    """The file of a row, which lies in the folder."""
    path, name = root / row.file_name, row.file_name
    try:
        inside, found = path.resolve().is_relative_to(root.resolve()), path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, or a link to itself
        raise ValueError(f"{row.where}: file_name is {name!r}: {error}") from error
    if not inside and ".." not in Path(name).parts and not Path(name).is_absolute():
        raise ValueError(
            f"{row.where}: {name!r} is a link that leads outside {root}: copy its picture there"
        )
    if not name or not inside:
        raise ValueError(f"{row.where}: file_name is {name!r}: name a file inside {root}")
    if not found:
        raise FileNotFoundError(f"{row.where}: there is no picture {name!r} in {root}")
    return path


def _opened(file: BinaryIO) -> Image.Image:
    """The picture in a file, upright."""
    try:
        return _upright(Image.open(file, formats=_formats()))
    except Exception as error:
        file.seek(0)
        start = file.read(1000)
        if kind := _seems(start):
            raise ValueError(f"it seems to be {kind}") from error
        if not start.startswith((PNG, JPEG)):
            raise
        # Perhaps it is only what stands beside the picture, which viewers pass over.
        bare, exif = _bare(start + file.read())
        picture = Image.open(BytesIO(bare), formats=_formats())
        picture.info["exif"] = exif
        return _upright(picture)


def _bare(data: bytes) -> tuple[bytes, bytes]:
    """A PNG or JPEG without texts, profiles and the like; and its EXIF."""
    position = len(PNG if data.startswith(PNG) else JPEG)
    kept, exif = [data[:position]], b""
    if data.startswith(PNG):
        while head := data[position : position + 8]:
            chunk = data[position : position + 12 + int.from_bytes(head[:4], "big")]
            position += len(chunk)
            if head[4:] in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
                kept.append(chunk)
            elif head[4:] == b"eXIf":
                exif = chunk[8:-4]
    else:  # up to the first scan
        while (head := data[position : position + 4])[1:2] not in (b"", b"\xda"):
            segment = data[position : position + 2 + int.from_bytes(head[2:], "big")]
            position += len(segment)
            if not (0xE1 <= head[1] <= 0xED or head[1] in (0xEF, 0xFE)):  # APP1 … 13, 15, COM
                kept.append(segment)
            elif segment[4:10] == b"Exif\0\0":
                exif = segment[4:]
    return b"".join([*kept, data[position:]]), exif


def _upright(picture: ImageFile) -> Image.Image:
    """Loaded, and turned as its EXIF says, where that can be read."""
    if isinstance(picture, TiffImageFile):
        # It turns itself while it is loaded, and would read all other tags for that.
        exif = Image.Exif()
        exif[ORIENTATION] = picture.tag_v2.get(ORIENTATION)
        picture.getexif = lambda: exif  # type: ignore[method-assign]
        picture.info.pop("xmp", None)
    picture.load()
    try:
        value: Any = picture.getexif().get(ORIENTATION)
    except Exception:  # a tag of a wrong type
        value = None
    if value is None:
        value = _orientation(picture.info.get("exif", b""))
    return picture.transpose(UPRIGHT[int(value) - 2]) if value in range(2, 9) else picture


def _orientation(exif: bytes) -> int | None:
    """As Pillow, which gives up on all tags behind a broken one."""
    data = exif.removeprefix(b"Exif\0\0")
    order = "<" if data.startswith(b"II") else ">"
    with suppress(struct.error):
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", data, place)
            if (tag, kind) == (ORIENTATION, 3):  # an unsigned short
                return int(value)
    return None


def _grey(picture: Image.Image) -> Image.Image:
    """8 bits of grey, on white paper."""
    tags = picture.tag_v2 if isinstance(picture, TiffImageFile) else {}
    if picture.mode[0] in "IF" or tags.get(SAMPLE_FORMAT) == (2,):
        return _eight_bits(picture, tags)
    if picture.mode == "La":  # this alone has one way out only
        picture = picture.convert("LA")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture if picture.mode == "L" else picture.convert("RGB").convert("L")


def _eight_bits(picture: Image.Image, tags: Any) -> Image.Image:
    """Grey of signed numbers, or of more than 8 bits: the range of its type becomes 0 … 255.

    That of a float is 0 … 1. 32 bits hold one of 16, or nobody could tell what is white.
    """
    values = np.asarray(picture)
    bits, signed = tags.get(BITS, (16,))[0], tags.get(SAMPLE_FORMAT) == (2,)
    if picture.mode == "L":
        values = values.view(np.int8)
    top = 1 if picture.mode == "F" else 2 ** (bits - signed if bits <= 16 else 16) - 1
    low, high = values.min(), values.max()
    said = f"its values go from {low:g} to {high:g}, those of its type from 0 to {top}"
    if not 0 <= low <= high <= top:
        raise ValueError(f"{said}: bring them into that range, or save it with 8 bits a pixel")
    if top > 255 and 0 < high <= top // 4:  # of 8, 12 or 14 bits, or a mask: nearly black
        other = ", or save it with 8 bits a pixel" if high > 63 else ""
        raise ValueError(f"{said}: multiply them, so that white is {top}{other}")
    if tags.get(PHOTOMETRIC) == 0:  # white is 0, which Pillow sees to with 8 bits only
        values = top - values
    levels = np.rint(values * (255 / top)).astype(np.uint8)
    levels[values == picture.info.get("transparency", -1)] = 255
    return Image.fromarray(levels)


def _is_uniform(picture: Image.Image) -> bool:
    """Whether all its pixels are the same."""
    values = np.asarray(picture)
    return bool((values == values[0, 0]).all())
