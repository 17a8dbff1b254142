"""Pictures of others: opened by what they contain, brought to one shape, in grey or in colour.

Whatever their names say, files are opened only as one of `FORMATS`: Pillow knows many more, and for
PostScript it would run a program.
"""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from functools import cache
from io import BytesIO
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from PIL import Image, ImageChops, ImageColor, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from minidiff.inputs import Size, sides

#: What is opened, where the installed Pillow has it.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF", "PPM")
GREY = 2  #: of 255: a pixel whose red, green and blue differ by no more than that is grey
Colour = tuple[int, int, int]

# ----------------------------------------------------------------------------------- opening

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


def seems(start: bytes) -> str | None:
    """What a file is that begins so, if it is no picture of `FORMATS`."""
    return next((kind for sign, kind in SEEMING.items() if re.match(sign, start)), None)


@cache
def formats() -> list[str]:
    """Of `FORMATS` those that the installed Pillow has; for another its open() has a KeyError."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def opened(file: BinaryIO) -> Image.Image:
    """The picture in a file, upright."""
    try:
        return upright(Image.open(file, formats=formats()))
    except Exception as error:
        file.seek(0)
        start = file.read(1000)
        if kind := seems(start):
            raise ValueError(f"it seems to be {kind}") from error
        if not start.startswith((PNG, JPEG)):
            raise
        # Perhaps it is only what stands beside the picture, which viewers pass over.
        bare, exif = _bare(start + file.read())
        picture = Image.open(BytesIO(bare), formats=formats())
        picture.info["exif"] = exif
        return upright(picture)


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


def upright(picture: Image.Image) -> Image.Image:
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


# ------------------------------------------------------------------------------------ shaping


def as_colour(paper: Any) -> Colour:
    """Red, green and blue, 0 … 255, of a colour's name.

    Raises:
        ValueError: for what is none.
    """
    with suppress(AttributeError, TypeError, ValueError):
        colour = ImageColor.getrgb(paper)
        if len(colour) == 3:  # a fourth number would make it transparent itself
            return colour
    raise ValueError(
        f'paper is {paper!r}: give the name of a colour, such as "white", or "#ffeedd"'
    )


def page_of(
    picture: Image.Image, size: Size, channels: int | None, paper: Colour
) -> tuple[Tensor, bool]:
    """A picture on paper, as large as it fits there.

    Args:
        size: of the page in pixels.
        channels: 1 for grey, 3 for colour; None: 3 unless the page is grey.
        paper: shows beside the picture, and through what is transparent.

    Returns:
        uint8 (channels, H, W), and whether next to nothing is left of what the picture shows.

    Raises:
        ValueError: for values whose range nobody can tell, and a picture too narrow to be seen.
    """
    (height, width), mode = sides(size), "L" if channels == 1 else "RGB"
    toned = flat(picture, paper).convert(mode)
    if toned.height * width < toned.width or toned.width * height < toned.height:
        raise ValueError(f"{toned.width} × {toned.height} pixels are too narrow: crop it")
    fitted = ImageOps.contain(toned, (width, height), Image.Resampling.LANCZOS)
    blank = all(_span(band) < 32 for band in fitted.split()) and not _is_uniform(picture)
    ground: Any = Image.new("RGB", (1, 1), paper).convert(mode).getpixel((0, 0))
    page = ImageOps.pad(fitted, (width, height), Image.Resampling.LANCZOS, color=ground)
    if channels is None and _is_grey(*page.split()):
        page = page.convert("L")
    values = np.array(page).reshape(height, width, -1)
    return torch.from_numpy(values.transpose(2, 0, 1).copy()), blank


def reason_of(error: Exception) -> str:
    """Why a picture could not be read, in words."""
    if isinstance(error, UnidentifiedImageError):
        known = ", ".join(formats())
        return f"it is damaged, or none of {known} as Pillow knows them: save it as PNG"
    return str(error) or type(error).__name__


def flat(picture: Image.Image, paper: Colour) -> Image.Image:
    """On paper where it is transparent; 8 bits of grey (mode L) or of each colour (RGB)."""
    tags = picture.tag_v2 if isinstance(picture, TiffImageFile) else {}
    if picture.mode[0] in "IF" or tags.get(SAMPLE_FORMAT) == (2,):
        return _eight_bits(picture, tags, paper)
    if picture.mode == "La":  # this alone has one way out only
        picture = picture.convert("LA")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, paper), picture)
    return picture if picture.mode == "L" else picture.convert("RGB")


def _eight_bits(picture: Image.Image, tags: Any, paper: Colour) -> Image.Image:
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
    grey, clear = Image.fromarray(levels), values == picture.info.get("transparency", -1)
    if clear.any():
        grey = grey.convert("RGB")
        grey.paste(paper, mask=Image.fromarray(clear.astype(np.uint8) * 255))
    return grey


def _span(band: Image.Image) -> int:
    """From the least value to the largest; numpy would take five times as long."""
    low, high = cast(tuple[int, int], band.getextrema())
    return high - low


def _is_grey(red: Image.Image, green: Image.Image, blue: Image.Image) -> bool:
    """Whether no pixel has a colour; see `GREY`."""
    light = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    dark = ImageChops.darker(ImageChops.darker(red, green), blue)
    coloured = ImageChops.subtract(light, dark, offset=-GREY)  # held at 0
    return coloured.getbbox() is None


def _is_uniform(picture: Image.Image) -> bool:
    """Whether all its pixels are the same."""
    values = np.asarray(picture)
    return bool((values == values[0, 0]).all())


# ------------------------------------------------------------------------------------- arrays


class BelowZeroError(Exception):
    """A float below 0: so all of these pictures are in -1 … 1."""


def as_picture(image: Any, low: int) -> Image.Image:
    """A Pillow picture of what is one, of an array (H, W, C) or of a tensor (C, H, W).

    Args:
        low: where its floats begin, 0 or -1. They end at 1.

    Raises:
        BelowZeroError: for floats below 0 where they should begin there.
        TypeError: for anything else.
        ValueError: for other floats.
    """
    if isinstance(image, Image.Image):
        return upright(image)
    kinds = "a Pillow picture, or an array or tensor of uint8 or floats"
    if isinstance(image, Tensor):
        plain = image.detach().cpu()
        values = (plain.float() if plain.is_floating_point() else plain).numpy()
    elif isinstance(image, np.ndarray):
        values = image
    else:
        raise TypeError(f"must be {kinds}, got a {type(image).__name__}")
    first = isinstance(image, Tensor) or (values.ndim == 3 and values.shape[-1] not in (1, 3, 4))
    if first and values.ndim == 3:
        values = values.transpose(1, 2, 0)
    if values.ndim not in (2, 3) or values.shape[2:] not in ((), (1,), (3,), (4,)):
        raise TypeError(f"has the shape {tuple(image.shape)}: give 1, 3 or 4 channels")
    if values.dtype == bool:
        values = values * np.uint8(255)
    elif np.issubdtype(values.dtype, np.floating):
        values = _levels(values, low)
    elif values.dtype != np.uint8:
        raise TypeError(f"must be {kinds}, got {values.dtype}: bring its values to 0 … 255")
    values = values[..., 0] if values.shape[2:] == (1,) else values
    return Image.fromarray(np.ascontiguousarray(values))


def _levels(values: np.ndarray[Any, Any], low: int) -> np.ndarray[Any, Any]:
    """Floats in low … 1 as uint8. Enlarging and sharpening go a little beyond either end."""
    least, most = (float(end) for end in (values.min(initial=1), values.max(initial=low)))
    if low == 0 and -1.1 <= least < -0.1:
        raise BelowZeroError
    if not low - 0.1 <= least <= most <= 1.1:
        raise ValueError(
            f"goes from {least:.3g} to {most:.3g}: give floats in 0 … 1 or -1 … 1, or uint8; leave "
            "out what brings them to mean 0 and deviation 1"
        )
    share = (values.astype(np.float64) - low) / (1 - low)
    return np.rint(share.clip(0, 1) * 255).astype(np.uint8)
