"""Pictures of pictures: grids, animations, and the figures that the book uses again and again.

Grids and animations are drawn with Pillow, which starts at once; matplotlib is only loaded by the
functions that need axes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from minidiff.glyphs import as_pictures, check_pictures
from minidiff.inputs import as_path
from minidiff.schedules import whole_number
from minidiff.storage import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAP = 4  # white pixels between the cells of a grid
GIF_SIDE = 65_535  # pixels: a GIF has two bytes for each side


def to_uint8(images: Tensor) -> Tensor:
    """float in [-1, 1] (any shape) to uint8, 255 = white; what is uint8 already stays as it is.

    Raises:
        TypeError: for other whole numbers, which tell nothing of what is black and what is white.
    """
    check_pictures(images)
    if images.dtype == torch.uint8:
        return images
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def one_line(text: str) -> str:
    """A text as it can be drawn: line ends, tabs and what has no picture become single spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def grid(
    images: Tensor | Sequence[Tensor],
    columns: int = 8,
    scale: int = 1,
    labels: Sequence[Any] | None = None,
) -> Image.Image:
    """Pictures side by side on white.

    Args:
        images: (N, C, H, W) in [-1, 1], or values beyond it, which are cut off; or uint8. C is 1
            for grey, 3 for colour. A list of (C, H, W) will do.
        columns: pictures in a row.
        scale: each pixel becomes scale × scale.
        labels: a text above each row, or above the first ones, or None. Drawn on one line and cut
            where the row ends.

    Returns:
        a Pillow image, grey or in colour as they are.

    Raises:
        TypeError: for other whole numbers than uint8, or one text as labels.
        ValueError: for no pictures, another number of channels, more labels than rows, or a scale
            or columns below 1.
    """
    images = _checked(images)
    columns, scale = _at_least_1("columns", columns), _at_least_1("scale", scale)
    cells = to_uint8(images).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    height, width = cells.shape[2:]
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    labels = _texts("labels", labels)
    if len(labels) > rows:
        raise ValueError(f"{len(labels)} labels for {rows} rows: give at most one each")
    heading = 22 if labels else 0
    sheet = Image.new(
        "L" if cells.shape[1] == 1 else "RGB",
        (columns * (width + GAP) + GAP, rows * (height + GAP + heading) + GAP),
        "white",
    )
    for i, cell in enumerate(_last(cells).cpu().numpy()):
        row, column = divmod(i, columns)
        corner = (GAP + column * (width + GAP), GAP + heading + row * (height + GAP + heading))
        sheet.paste(Image.fromarray(cell), corner)
    if labels:
        draw, font = ImageDraw.Draw(sheet), _font(15)
        for row, label in enumerate(labels):
            corner = (GAP, GAP + row * (height + GAP + heading))
            draw.text(corner, _cut(label, font, sheet.width - 2 * GAP), fill="black", font=font)
    return sheet


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, with its end left out if it is wider than this many pixels."""
    kept = text[:width]  # no letter is narrower than a pixel
    if font.getlength(kept) <= width:
        return kept
    while kept and font.getlength(f"{kept}…") > width:
        kept = kept[:-1]
    return f"{kept.rstrip()}…"


def _at_least_1(name: str, value: int) -> int:
    if (number := whole_number(name, value)) < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return number


def _texts(name: str, texts: Sequence[Any] | None) -> list[str]:
    """As they are drawn: numbers as their digits, None as nothing."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable | None):
        raise TypeError(f"{name} must be a list of texts, got {texts!r}")
    several = [] if texts is None else texts
    return ["" if text is None else one_line(str(text)) for text in several]


def _checked(images: Tensor | Sequence[Tensor]) -> Tensor:
    """The pictures, as floats or uint8; an array or a list of pictures is welcome, too."""
    try:
        if isinstance(images, list | tuple) and all(map(torch.is_tensor, images)):
            images = torch.stack([*images])
        images = torch.as_tensor(images)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"images must be tensors (C, H, W) of one size: {error}") from error
    check_pictures(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(
            "expected one or more pictures, grey (N, 1, H, W) or in colour (N, 3, H, W), "
            f"got shape {tuple(images.shape)}"
        )
    return images


def _last(images: Tensor) -> Tensor:
    """(…, C, H, W) as Pillow and matplotlib want it: (…, H, W) if grey, else (…, H, W, 3)."""
    return images.squeeze(-3) if images.shape[-3] == 1 else images.movedim(-3, -1)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The shipped font: it has Latin letters and all the glyphs."""
    from minidiff.glyphs import FONT

    return ImageFont.truetype(str(FONT), size)


def animation(
    frames: Iterable[Image.Image],
    milliseconds: int = 80,
    hold: int = 2000,
    colours: int | None = None,
) -> bytes:
    """Frames as the bytes of an endless GIF; the last one is held.

    Args:
        frames: pictures of one size. Neighbours that are alike become one that stays longer.
        milliseconds: each frame's time, in tens.
        hold: the last frame's time.
        colours: how many of them, or greys, 2 to 256. None: 16 greys, which keep it small, and 256
            colours, which each frame chooses.

    Raises:
        ValueError: for no frames, if they are larger than a GIF can be, or for times or colours
            that it cannot have.
    """
    for name, value, low, high in (
        ("milliseconds", milliseconds, 0, 655_350),
        ("hold", hold, 0, 655_350),
        ("colours", 2 if colours is None else colours, 2, 256),
    ):
        if not low <= whole_number(name, value) <= high:
            raise ValueError(f"{name} must be from {low} to {high:,}, got {value}")
    few = []
    for frame in frames:  # one at a time: the first one tells whether they are too large
        if max(frame.size) > GIF_SIDE:
            raise ValueError(
                f"a GIF is at most {GIF_SIDE:,} pixels wide and high, and these frames are "
                f"{frame.width:,} × {frame.height:,}: take fewer or smaller pictures, or a PNG"
            )
        if frame.mode == "RGB":
            few.append(frame.quantize(colours or 256, dither=Image.Dither.NONE))
        else:
            few.append(_few_greys(frame.convert("L"), colours or 16))
    if not few:
        raise ValueError("an animation needs at least one frame")
    durations = [milliseconds] * (len(few) - 1) + [hold]
    buffer = io.BytesIO()
    few[0].save(buffer, "GIF", save_all=True, append_images=few[1:], duration=durations, loop=0)
    return buffer.getvalue()


def _few_greys(frame: Image.Image, count: int) -> Image.Image:
    """In evenly spaced greys; Image.quantize does not always find the nearest."""
    index = (np.asarray(frame) * ((count - 1) / 255)).round().astype(np.uint8)
    few = Image.frombytes("P", frame.size, index.tobytes())
    few.putpalette(np.repeat(np.linspace(0, 255, count).round().astype(np.uint8), 3).tobytes())
    return few


def save_picture(path: str | Path, payload: bytes | Image.Image | np.ndarray) -> None:
    """Write an image as PNG, an array as .npy, or finished bytes: whole or not at all.

    Raises:
        TypeError: for anything else.
        OSError: where it cannot be written (full disk, no permission), naming the path; what lay
            there before is untouched then.
    """
    if isinstance(payload, Image.Image):
        buffer = io.BytesIO()
        payload.save(buffer, "PNG", optimize=True)
        payload = buffer.getvalue()
    elif isinstance(payload, np.ndarray):
        buffer = io.BytesIO()
        np.save(buffer, payload, allow_pickle=False)
        payload = buffer.getvalue()
    elif not isinstance(payload, bytes):
        raise TypeError(f"payload must be an image, an array or bytes, got {type(payload)}")
    write_file(as_path("path", path), payload)


def show(
    images: Tensor | Sequence[Tensor],
    titles: Sequence[Any] | None = None,
    columns: int = 8,
    size: float = 1.1,
) -> Figure:
    """A matplotlib figure of pictures, with a title over each if you like.

    Args:
        images: (N, C, H, W) in [-1, 1], or uint8; C is 1 for grey, 3 for colour. A list of
            (C, H, W) will do.
        titles: N of them, drawn as they stand; Chinese characters with the shipped font.
        size: of a picture in inches.

    Raises:
        TypeError: for other whole numbers than uint8, or one text as titles.
        ValueError: for no pictures, another number of channels, not as many titles, or columns
            below 1.
    """
    images, columns = _checked(images), _at_least_1("columns", columns)
    if titles is not None and len(titles := _texts("titles", titles)) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} pictures: give one each")
    import matplotlib.pyplot as plt

    use_glyph_font()
    rows, columns = -(-len(images) // columns), min(columns, len(images))
    height = size * (1.25 if titles else 1.0)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * size, rows * height), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image in zip(axes.flat, images):
        draw(axis, image)
    for i, axis in enumerate(axes.flat[: len(images)]):
        if titles:  # a prompt with two $ is no formula
            axis.set_title(titles[i], fontsize=10, parse_math=False)
    return figure


def draw(axis: Any, image: Tensor, reach: float = 1, **style: Any) -> Any:
    """A picture, grey (1, H, W) or (H, W), or in colour (3, H, W), on an axis of matplotlib.

    Args:
        image: floats or uint8.
        reach: ±reach are white and black.
        style: of `imshow`.
    """
    pixels = as_pictures(image.detach()).cpu()
    pixels = pixels.to(torch.promote_types(pixels.dtype, torch.float32))  # half is not drawn
    if image.ndim == 3 and len(image) == 3:
        return axis.imshow(((_last(pixels) / reach + 1) / 2).clamp(0, 1).numpy(), **style)
    pixels = pixels.reshape(image.shape[-2:])
    return axis.imshow(pixels.numpy(), cmap="gray", vmin=-reach, vmax=reach, **style)


def use_glyph_font() -> None:
    """Let matplotlib fall back on the shipped font for characters that its own lacks."""
    from matplotlib import font_manager, rcParams

    from minidiff.glyphs import FONT

    name = font_manager.FontProperties(fname=str(FONT)).get_name()
    if name not in font_manager.fontManager.get_font_names():
        font_manager.fontManager.addfont(str(FONT))
    family: list[Any] = list(rcParams["font.family"])
    if name not in family:
        rcParams["font.family"] = [*family, name]
