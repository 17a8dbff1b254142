"""What a folder of pictures holds, seen before anything is trained.

Each picture is read once, by `minidiff.datasets`. Of the files only the heads are opened again, for
the size and the kind that they had.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from minidiff import plots
from minidiff.datasets import ImageFolder
from minidiff.glyphs import FONT
from minidiff.inputs import Size, sides
from minidiff.listings import listed
from minidiff.pictures import GREY, formats, opened, page_of, reason_of

if TYPE_CHECKING:
    from minidiff.recipe import TrainingConfig

ORIENTATION = 274  # a tag of EXIF: from 5 on the picture lies on its side
SHOWN = 40  #: pictures on the sheet
LINE = 16  # pixels from one line of text to the next


@dataclass(frozen=True)
class Files:
    """What the files of a folder are.

    Attributes:
        listed: how many pictures there should be.
        refused: name and reason of each that cannot be read.
        sizes: how many pictures have which (height, width), as they were made.
        transparent: how many may be transparent: they have an alpha channel or a colour for it.
    """

    listed: int
    refused: list[tuple[str, str]]
    sizes: Counter[tuple[int, int]]
    transparent: int

    @property
    def sides(self) -> tuple[int, int, int]:
        """The longer side in pixels: of the smallest, the median and the largest picture."""
        longer = sorted(max(size) for size in self.sizes.elements())
        return longer[0], longer[len(longer) // 2], longer[-1]


@dataclass(frozen=True)
class Texts:
    """What the texts of the pictures are.

    Attributes:
        pictures: how many pictures have which text.
        cut: texts of which a text encoder does not read the end.
        unknown: words of which it makes little.
        max_tokens: that it reads of a text; None: there is no encoder.
    """

    pictures: Counter[str]
    cut: list[str]
    unknown: list[str]
    max_tokens: int | None

    @property
    def longest(self) -> str:
        """The text with the most words."""
        return max(self.pictures, key=lambda text: (len(text.split()), len(text)))


def read(
    folder: Path, size: Size, channels: int | None = None, **reading: Any
) -> tuple[ImageFolder, list[str]]:
    """The pictures of a folder that can be read, and what is to be said of the others and of them.

    Args:
        folder, size, channels, reading: of `minidiff.datasets.ImageFolder`.

    Raises:
        FileNotFoundError, ValueError: as `ImageFolder`, but for single pictures that cannot be
            read: see `files_of`.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        dataset = ImageFolder(folder, size, channels, **{**reading, "skip_unreadable": True})
    said = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    return dataset, [notice for notice in said if "cannot be read" not in notice]


def files_of(dataset: ImageFolder) -> Files:
    """What the files are that a data set comes from, and which of them it could not read."""
    root, known = Path(dataset.folder), set(dataset.file_names)
    _, rows = listed(root, dataset.options.get("caption_column", "text"))
    lost = [row.file_name for row in rows if row.file_name not in known]
    refused = [(name, _reason(root, name, dataset.size)) for name in lost]
    sizes, transparent = Counter[tuple[int, int]](), 0
    for name in dataset.file_names:
        with (root / name).open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a picture that was read
            size, clear = _head(file)
        sizes[size] += 1
        transparent += clear
    return Files(len(rows), refused, sizes, transparent)


def _reason(root: Path, name: str, size: Size) -> str:
    """Why a picture could not be read."""
    path = root / name
    try:
        if not path.is_file():
            return "there is no such file"
        with path.open("rb") as file:
            page_of(opened(file), size, None, (255, 255, 255))
    except Exception as error:  # whatever Pillow runs into
        return reason_of(error)
    return f"it lies outside {root}"


def _head(file: Any) -> tuple[tuple[int, int], bool]:
    """Height and width of a picture as it is seen, and whether it may be transparent."""
    picture: Image.Image
    try:
        picture = Image.open(file, formats=formats())
    except Exception:  # for what stands beside the picture
        picture = opened(file)
    width, height = picture.size
    if picture.info.get("exif") and picture.format != "PNG":  # of a PNG all would be read for it
        try:
            lying = picture.getexif().get(ORIENTATION, 1) >= 5
        except Exception:  # a broken tag
            lying = False
        width, height = (height, width) if lying else (width, height)
    return (height, width), picture.has_transparency_data


def coloured(images: Tensor) -> int:
    """How many of the pictures (N, C, H, W), uint8, are not grey."""
    if images.shape[1] == 1:
        return 0
    spans = [part.amax(1) - part.amin(1) for part in images.split(512)]
    return sum(int((span.flatten(1).amax(1) > GREY).sum()) for span in spans)


def equal(dataset: ImageFolder) -> list[list[int]]:
    """Places of pictures that are the same, pixel by pixel, as they are learnt: of each its group.

    Those that stand alone are left out.
    """
    groups: dict[bytes, list[int]] = {}
    for i, image in enumerate(dataset.images.numpy()):
        groups.setdefault(image.tobytes(), []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def texts_of(prompts: Sequence[tuple[str, ...]], config: TrainingConfig) -> Texts:
    """What the texts are, and what the text encoder of a recipe would make of them.

    Args:
        prompts: of each picture, the whole text first.
    """
    pictures, name = Counter(several[0] for several in prompts), config.text_encoder
    if name is None:
        return Texts(pictures, [], [], None)
    from minidiff.text import TextEncoder

    encoder, texts = TextEncoder(name, config.max_tokens), list(pictures)
    cut = [text for text, longer in zip(texts, encoder.are_longer(texts)) if longer]
    return Texts(pictures, cut, encoder.unknown_words(texts), config.max_tokens)


def as_dict(dataset: ImageFolder, files: Files, texts: Texts) -> dict[str, Any]:
    """All of it as plain values, for `minidiff.report.of_data` and as JSON."""
    groups, total = equal(dataset), len(dataset)
    colours, prompts = coloured(dataset.images), dataset.prompts
    return {
        "folder": dataset.folder,
        "texts_from": dataset.source,
        "listed": files.listed,
        "refused": [{"file_name": name, "reason": reason} for name, reason in files.refused],
        "sizes": [
            {"height": height, "width": width, "pictures": count}
            for (height, width), count in files.sizes.most_common()
        ],
        "longer_side": dict(zip(("smallest", "median", "largest"), files.sides)),
        "colour": colours,
        "grey": total - colours,
        "transparent": files.transparent,
        "image_size": list(sides(dataset.size)),
        "channels": dataset.channels,
        "equal": [[dataset.file_names[i] for i in group] for group in groups],
        "equal_with_other_texts": sum(len({prompts[i][0] for i in g}) > 1 for g in groups),
        "texts": {
            "different": len(texts.pictures),
            "pictures_without": texts.pictures[""],
            "most": dict(texts.pictures.most_common(5)),
            "fewest_pictures": min(texts.pictures.values()),
            "longest": texts.longest,
            "max_tokens": texts.max_tokens,
            "cut": texts.cut,
            "unknown_words": texts.unknown,
        },
    }


# ------------------------------------------------------------------------------- the sheet


def sheet(dataset: ImageFolder, count: int = SHOWN, columns: int = 8) -> Image.Image:
    """Some pictures as they are learnt, each above its text.

    Args:
        count: how many, spread evenly over the folder; all if there are fewer.
    """
    rows = torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().long().tolist()
    scale = max(1, round(150 / sides(dataset.size)[1]))
    cells = [_cell(dataset.images[i], dataset.prompts[i][0], scale) for i in rows]
    columns = min(columns, len(cells))
    size = (columns * cells[0].width, -(-len(cells) // columns) * cells[0].height)
    page = Image.new("RGB", size, "white")
    for i, cell in enumerate(cells):
        page.paste(cell, (i % columns * cell.width, i // columns * cell.height))
    return page


def _cell(image: Tensor, text: str, scale: int) -> Image.Image:
    """A picture above its text, of which two lines are shown."""
    picture = plots.grid(image[None], 1, scale)
    width, height = picture.size
    cell = Image.new("RGB", (width + 8, height + 2 * LINE + 8), "white")
    cell.paste(picture, (4, 0))
    draw, font = ImageDraw.Draw(cell), ImageFont.truetype(str(FONT), 13)
    edge = plots.GAP - 1  # of the picture: its paper may be as white as the sheet
    draw.rectangle((4 + edge, edge, 3 + width - edge, height - 1 - edge), outline="#cccccc")
    for i, line in enumerate(_wrapped(plots.one_line(text), font, width, 2)):
        draw.text((4 + plots.GAP, height + i * LINE - 2), line, "black", font)
    return cell


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, lines: int) -> list[str]:
    """A text in lines of so many pixels; what is too much is left out."""
    found, text = [], text[: lines * width // 2]  # few letters are narrower than two pixels
    while text:
        fits = len(text)
        while fits > 1 and font.getlength(text[:fits]) > width:
            fits = max(text.rfind(" ", 0, fits), fits * 9 // 10 if " " not in text[:fits] else 1)
        found.append(text[:fits].strip())
        text = text[fits:].strip()
    return [*found[: lines - 1], "…".join([found[lines - 1], ""])] if len(found) > lines else found
