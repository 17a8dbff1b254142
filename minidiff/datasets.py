"""Own pictures, with a text for each, in the shape that training wants.

They come from a folder (`ImageFolder`) or from a data set that there is already (`Wrapped`).
Whatever comes from outside is judged here, once: every row of a table and every picture is read as
it is meant, or refused with the file, the line and the remedy. The cache keeps many pictures under
what their files hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import PIL
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset
from tqdm import tqdm

from minidiff.cache import cached
from minidiff.captions import prompts_of
from minidiff.glyphs import Pictures, check_size
from minidiff.inputs import Size, as_path, as_size, sides, warn
from minidiff.listings import Row, listed
from minidiff.pictures import BelowZeroError, as_colour, as_picture, opened, page_of, reason_of
from minidiff.storage import Tensors

LARGE = 1_000_000  #: bytes of all files together from which on their pictures are kept
READING = (
    1  # to be raised where pictures come out otherwise: it is part of what they are kept under
)
Load = Callable[[int], tuple[Tensor, bool]]  # of the picture i: the page, and whether it is blank


class _Own(Pictures):
    """What both kinds of own pictures have in common.

    Attributes:
        size: of the pictures in pixels.
        channels: 1 for grey, 3 for colour.
        options: how they are read where that is other than usual; arguments of the class.
    """

    def __init__(self, size: Size, channels: int | None, paper: str, skip_unreadable: bool) -> None:
        self.size = as_size("size", size)
        for side in sides(self.size):
            check_size(side)
        if channels not in (None, 1, 3):
            raise ValueError(
                f"channels is {channels!r}: give 1 for grey, 3 for colour, or None, for colour "
                "unless all pictures are grey"
            )
        self._asked, self._paper, self._skip = channels, as_colour(paper), bool(skip_unreadable)
        self.options: dict[str, Any] = {} if self._paper == (255,) * 3 else {"paper": paper}
        if self._skip:
            self.options["skip_unreadable"] = True

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    def __repr__(self) -> str:
        height, width = sides(self.size)
        tone = "in colour" if self.channels == 3 else "in grey"
        return f"{len(self)} pictures of {height} × {width} pixels {tone}"

    def _page(self, picture: Image.Image) -> tuple[Tensor, bool]:
        return page_of(picture, self.size, self._asked, self._paper)

    def _take(self, found: Tensors, total: int, name_of: Callable[[int], str], load: Load) -> None:
        """The pictures that were read; stop or warn where that is not all, or where one is blank.

        Args:
            found: see `_read_all`.
            total: of the pictures that there are.
            name_of: of the picture i, for a message.
        """
        self.images = found["images"]
        read = found["read"].nonzero()[:, 0].tolist()
        if lost := total - len(read):
            first = next(i for i in range(total) if i >= len(read) or read[i] != i)
            error = _error_of(load, first)
            said = f"{lost:,} of {total:,} pictures cannot be read"
            if not read or not self._skip:
                leave = "skip_unreadable=True, --skip-unreadable"
                advice = f"({leave} leaves them out)" if read else "(none is left)"
                raise type(error)(f"{said} {advice}, first {error}") from error
            warn(f"{said} and are left out, first {error}")
        if blank := found["blank"].nonzero()[:, 0].tolist():
            height, width = sides(self.size)
            warn(
                f"{len(blank)} of {total} pictures have next to no contrast at this size, first "
                f"{name_of(read[blank[0]])}: multiply small numbers such as those of a mask up to "
                "255, darken what is white on a transparent ground or give another paper, crop "
                "what is too fine for "
                f"{height if height == width else f'{height} × {width}'} pixels, or take them out."
            )
        self._read = read


class ImageFolder(_Own):
    """Your own pictures: a folder of them, with a text for each.

    The texts come from the first of these that the folder has:

    - `metadata.csv`, with the columns `file_name` and `text`: CSV in UTF-8, with commas and quotes;
    - `metadata.jsonl`, with a line `{"file_name": "a.png", "text": "red car"}` for each (both are
      the `imagefolder` convention of Hugging Face datasets, and may have more columns);
    - folders of pictures, whose names are the texts;
    - the names of the files: `red_car-012.png` is a "red car".

    Like a definition a text is cut at ";" and ",": "red car, at night" is learnt as a whole and,
    three times as often, by its parts, unless the recipe has `senses = 0`. It may be empty.

    Pictures (PNG, JPEG, GIF, WebP, AVIF, BMP, TIFF, PPM; of several in a file the first) lie as
    their EXIF says, and what has another shape is fitted onto paper, which also shows through what
    is transparent. `dataset[i]` is {"image": float32 (C, H, W) in [-1, 1], "text": the whole text}.

    Args:
        folder: with the pictures.
        size: height and width in pixels, each 8 to 512, or one number for a square.
        channels: 1 for grey, 3 for colour; None: grey if all pictures are, else colour.
        paper: a colour by its name ("white") or as "#ffeedd".
        caption_column: the column of the table that holds the texts.
        skip_unreadable: leave out pictures that cannot be read, with a warning, instead of
            stopping.

    Attributes:
        images: uint8 (N, C, H, W), 255 = white.
        prompts: for each picture the texts that may stand for it, the whole text first.
        file_names: of each, in the folder.
        folder: its absolute path.
        source: what the texts were taken from: "metadata.csv", "metadata.jsonl", "names of folders"
            or "names of files".

    Raises:
        FileNotFoundError, ValueError: for a table or picture that is missing or cannot be read,
            naming it and the line and, of pictures, how many there are.

    Warns:
        UserWarning: for pictures of which next to nothing is left, and those that are left out.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        size: Size = 64,
        channels: int | None = None,
        *,
        paper: str = "white",
        caption_column: str = "text",
        skip_unreadable: bool = False,
    ) -> None:
        super().__init__(size, channels, paper, skip_unreadable)
        root = as_path("folder", folder)
        self.folder = str(root.absolute())
        self.source, rows = listed(root, caption_column)
        if caption_column != "text":
            self.options["caption_column"] = caption_column

        def load(i: int) -> tuple[Tensor, bool]:
            return _load_picture(root, rows[i], self._page)

        told = [*sides(self.size), channels, self._paper]
        found = _kept(_name_of_files(root, rows, told), lambda: _read_all(len(rows), load))
        if _can_be_read_now(found, load):
            found = _read_all(len(rows), load)
        self._take(found, len(rows), lambda i: f"{rows[i].file_name!r} ({rows[i].where})", load)
        rows = [rows[i] for i in self._read]
        self.file_names = [row.file_name for row in rows]
        self.prompts = [prompts_of(row.text) for row in rows]

    def __repr__(self) -> str:
        return f"{super().__repr__()} from {self.folder}, their texts from {self.source}"


class Wrapped(_Own):
    """A data set of others: one of torch or of Hugging Face, `random_split` or `Subset` of any.

    Args:
        dataset: it has a length, and item i is a dictionary with "text" and "image": a Pillow
            picture, or an array or tensor of uint8 or of floats in 0 … 1 or -1 … 1. A tensor is
            (C, H, W), an array (H, W, C); either may be (H, W). A `Subset` of pictures of this
            package keeps all their prompts.
        size, channels, paper, skip_unreadable: as for `ImageFolder`.

    Attributes:
        images, prompts: as those of `ImageFolder`.

    Raises:
        TypeError: for a data set without length, and an item that is not as it should be.
        ValueError: for pictures that cannot be read, naming the first and how many there are.

    Warns:
        UserWarning: as `ImageFolder`.
    """

    def __init__(
        self,
        dataset: Any,
        size: Size = 64,
        channels: int | None = None,
        *,
        paper: str = "white",
        skip_unreadable: bool = False,
    ) -> None:
        super().__init__(size, channels, paper, skip_unreadable)
        base, rows = _unwrapped(dataset)
        if isinstance(base, Pictures):
            self._take_from(base, rows)
            return

        def load(low: int, texts: list[str], i: int) -> tuple[Tensor, bool]:
            page, texts[i] = _load_item(base, rows[i], low, self._page)
            return page

        def make(low: int) -> Tensors:
            texts = [""] * len(rows)
            found = _read_all(len(rows), partial(load, low, texts))
            kept = bytearray(json.dumps(texts).encode("utf-8"))
            also = {"texts": torch.frombuffer(kept, dtype=torch.uint8), "low": torch.tensor([low])}
            return {**found, **also}

        name, fingerprint = None, getattr(base, "_fingerprint", None)
        # Hugging Face's, of the items and all that was done to them.
        if isinstance(fingerprint, str):
            told = [*sides(self.size), channels, self._paper, fingerprint, list(rows)]
            name = _name(hashlib.sha256(), told)
        try:
            found = _kept(name, partial(make, 0))
        except BelowZeroError:
            found = _kept(name, partial(make, -1))
        texts = json.loads(found["texts"].numpy().tobytes())
        again = partial(load, int(found["low"]), texts)
        self._take(found, len(rows), lambda i: f"item {rows[i]}", again)
        self.prompts = [prompts_of(texts[i].strip()) for i in self._read]

    def _take_from(self, base: Pictures, rows: Sequence[int]) -> None:
        """Some of the pictures of this package, as they are."""
        shape = (self._asked or base.images.shape[1], *sides(self.size))
        if tuple(base.images.shape[1:]) != shape:
            raise ValueError(
                f"these pictures have the shape {tuple(base.images.shape[1:])}, and {shape} was "
                f"asked for: make the {type(base).__name__} with that size and those channels"
            )
        index = torch.tensor(list(rows), dtype=torch.long)
        self.images, self.prompts = base.images[index], [base.prompts[i] for i in rows]
        if (named := getattr(base, "name_radicals", None)) is not None:
            self.name_radicals = named


# ------------------------------------------------------------------------------- reading many


def _read_all(total: int, load: Load) -> Tensors:
    """The pictures that can be read (M, C, H, W); which of all these are, and which are blank."""
    pages, blank, read = [], [], torch.zeros(total, dtype=torch.bool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow says of tags that we do without
        # A bar where one waits for more than a moment, and (None) on a terminal only.
        bar = tqdm(range(total), "reading pictures", disable=None, delay=1, leave=False)
        for i in bar:
            try:
                page, is_blank = load(i)
            except (FileNotFoundError, ValueError):
                continue
            read[i] = True
            pages.append(page)
            blank.append(is_blank)
    channels = max((len(page) for page in pages), default=1)
    images = [page.expand(channels, -1, -1) for page in pages]
    stacked = torch.stack(images) if images else torch.empty(0, 1, 1, 1, dtype=torch.uint8)
    return {"images": stacked, "read": read, "blank": torch.tensor(blank, dtype=torch.bool)}


def _error_of(load: Load, i: int) -> Exception:
    """Why a picture cannot be read: of those that are kept in the cache it is not known."""
    try:
        load(i)
    except (FileNotFoundError, ValueError) as error:
        return error
    return ValueError(f"number {i}, which now can: start again")


def _can_be_read_now(found: Tensors, load: Load) -> bool:
    """Whether the first picture that could not be read, when they were kept, can be."""
    lost = (~found["read"]).nonzero()[:, 0].tolist()
    try:
        return bool(lost) and load(lost[0]) is not None
    except (FileNotFoundError, ValueError):
        return False


def _kept(name: str | None, make: Callable[[], Tensors]) -> Tensors:
    """From the cache, if there is a name for them."""
    if name is None:
        return make()
    return cached(name, make, lambda found: found.keys() >= {"images", "read", "blank"})


def _name(digest: Any, told: Any) -> str:
    """What pictures are kept under: all that they depend on."""
    digest.update(json.dumps([*told, READING, PIL.__version__]).encode("utf-8"))
    return f"pictures-{digest.hexdigest()[:24]}"


def _name_of_files(root: Path, rows: Sequence[Row], told: Any) -> str | None:
    """The name for these files, by what they hold; None for few, and where one cannot be read."""
    digest, size = hashlib.sha256(), 0
    try:
        for row in rows:
            with _path(root, row).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
                size += file.tell()
    except (OSError, ValueError):
        return None
    return _name(digest, told) if size >= LARGE else None


# ------------------------------------------------------------------------------- reading one


def _load_picture(
    root: Path, row: Row, page: Callable[[Image.Image], tuple[Tensor, bool]]
) -> tuple[Tensor, bool]:
    """The picture of a row on a page, and whether nothing is left of what it shows."""
    path = _path(root, row)
    try:
        with path.open("rb") as file:
            return page(opened(file))
    except Exception as error:  # whatever Pillow runs into
        raise ValueError(
            f"{row.where}: {row.file_name!r} cannot be read as a picture: {reason_of(error)}"
        ) from error


def _path(root: Path, row: Row) -> Path:
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


def _unwrapped(dataset: Any) -> tuple[Any, Sequence[int]]:
    """The data set that a `Subset`, or one of a `Subset`, is of, and which of its items it has."""
    if isinstance(dataset, Subset):
        base, rows = _unwrapped(dataset.dataset)
        return base, [rows[int(i)] for i in dataset.indices]
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise TypeError(
            f"the data set must have a length and items by number, got a {type(dataset).__name__}: "
            "if it is an iterator give list(…) of it, if it is streamed load it whole"
        )
    if len(dataset) == 0:
        raise ValueError("the data set is empty: give one with pictures")
    return dataset, range(len(dataset))


def _load_item(
    dataset: Any, i: int, low: int, page: Callable[[Image.Image], tuple[Tensor, bool]]
) -> tuple[tuple[Tensor, bool], str]:
    """As `_load_picture`, of an item whose floats begin at `low`; and its text."""
    try:
        item = dataset[i]
    except Exception as error:  # whatever the data set runs into
        raise ValueError(f"item {i} cannot be read: {reason_of(error)}") from error
    if not hasattr(item, "keys") or not {"image", "text"} <= set(item.keys()):
        got = list(item.keys()) if hasattr(item, "keys") else f"a {type(item).__name__}"
        raise TypeError(
            f'item {i} must be a dictionary with "image" and "text", got {got}: rename its '
            'columns, or give [{"image": picture, "text": caption} for picture, caption in …]'
        )
    if not isinstance(item["text"], str):
        raise TypeError(
            f"the text of item {i} must be a text, got {item['text']!r}: of a class give the name"
        )
    try:
        return page(as_picture(item["image"], low)), item["text"]
    except (BelowZeroError, TypeError) as error:
        raise type(error)(f"the image of item {i} {error}") from error
    except Exception as error:
        raise ValueError(f"the image of item {i} cannot be read: {reason_of(error)}") from error
