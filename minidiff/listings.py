"""What a folder of pictures holds: their files, and a text for each.

The texts are taken from the first of these that is there: the table metadata.csv, the table
metadata.jsonl, the names of the folders that the pictures lie in, their own names. The tables are
those of the `imagefolder` convention of Hugging Face datasets.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from minidiff.pictures import seems

PICTURES = frozenset(
    [".png", ".jpg", ".jpeg", ".jpe", ".gif", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm",
     ".pgm", ".pbm", ".pnm",
     ".heic", ".heif", ".jxl", ".jp2", ".svg", ".ico", ".psd"]  # these to be refused by name
)  # fmt: skip
TABLES = frozenset([".csv", ".tsv", ".jsonl", ".parquet", ".xls", ".xlsx", ".ods"])


class Row(NamedTuple):
    """A picture: where it is listed (file and line, or folder), its file there, and its text."""

    where: str
    file_name: str
    text: str


def listed(root: Path, caption_column: str = "text") -> tuple[str, list[Row]]:
    """What the texts were taken from ("metadata.csv", …, "file names"), and the pictures.

    Args:
        root: the folder.
        caption_column: of the table, the column with the texts.

    Raises:
        FileNotFoundError: if there are no pictures.
        NotADirectoryError: for a file.
        ValueError: for a table that cannot be read, naming the line, and one of another name.
    """
    if root.is_file():
        raise NotADirectoryError(f"{root} is a file: give the folder, {root.parent}")
    for name, read in (("metadata.csv", _csv_rows), ("metadata.jsonl", _json_rows)):
        if (root / name).is_file():
            return name, read(root / name, caption_column)
    found = _pictures(root)
    others = [p.name for p in root.iterdir() if p.suffix.lower() in TABLES] if found else []
    if others:
        raise ValueError(
            f"{root} has no metadata.csv, but {min(others)}: give it that name and the columns "
            "file_name,text, or take it out to have the names of folders or files as texts"
        )
    if not found:
        raise FileNotFoundError(
            f"no file {root / 'metadata.csv'} and no pictures in {root}: list the pictures there, "
            "with the columns file_name,text, or give the folder that they lie in"
        )
    if caption_column != "text":
        raise ValueError(
            f"caption_column is {caption_column!r}, but there is no metadata.csv or metadata.jsonl "
            f"in {root}: add one, or leave it out"
        )
    return _named(root, found)


# ------------------------------------------------------------------------------------- names


def _pictures(root: Path) -> list[str]:
    """Files that seem to be pictures, by their endings, in order; what is hidden is left out."""
    found = []
    for folder, below, files in os.walk(root):
        below[:] = [name for name in below if name[0] != "." and name != "__MACOSX"]
        for name in files:
            if name[0] != "." and Path(name).suffix.lower() in PICTURES:
                found.append((Path(folder) / name).relative_to(root).as_posix())
    return sorted(found)


def _named(root: Path, found: list[str]) -> tuple[str, list[Row]]:
    """Rows of folders as classes, or of files with telling names."""
    folders = ["/" in name for name in found]
    if any(folders) and not all(folders):
        beside = found[folders.index(False)]
        raise ValueError(
            f"{root} holds pictures as well as folders of pictures: put {beside!r} into a folder "
            "whose name is its text, or list all in metadata.csv, with the columns file_name,text"
        )
    where = str(root)
    if any(folders):
        return "names of folders", [Row(where, n, _words(n.split("/")[-2])) for n in found]
    return "names of files", [Row(where, n, _words(_unnumbered(Path(n).stem))) for n in found]


def _words(name: str) -> str:
    """red_car -> red car."""
    return " ".join(re.split(r"[\s_-]+", name)).strip()


def _unnumbered(stem: str) -> str:
    """red_car-012, red_car.12, red_car (12) -> red_car; co2 stays; nothing of a number alone."""
    return re.sub(r"(^|[\s_.-]+)\d+$|\s*\(\d+\)$", "", stem)


# ------------------------------------------------------------------------------------ tables

# One cell of a CSV file (RFC 4180), in quotes or not, and what ends it. Python's reader takes
# quotes in the middle of a cell, and does not tell which line a row begins on.
CELL = re.compile(r'(?:"([^"]*+(?:""[^"]*+)*+)"|([^",\r\n]*+))(,|\r\n|\r|\n|\Z)')
NEWLINE = re.compile(r"\r\n?|\n")


def _csv_rows(path: Path, caption_column: str) -> list[Row]:
    """The rows of a table, each of which is exactly what the header says."""
    text = _decoded(path, "save it as CSV in UTF-8 (in Excel: 'CSV UTF-8')")
    header = NEWLINE.split(text.strip(), maxsplit=1)[0]
    for separator in ";\t|":
        if separator in header and "," not in header:
            raise ValueError(
                f"{path} is separated by {separator!r}, not by commas: {header[:200]!r}; choose "
                "the comma as field separator where you save it"
            )
    (_, columns), *records = _records(path, text) or [(1, [])]
    begin = f"begin it with the line file_name,{caption_column}"
    _check_columns(path, columns, caption_column, begin)
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
        rows.append(Row(where, named["file_name"], named[caption_column].strip()))
    return rows


def _json_rows(path: Path, caption_column: str) -> list[Row]:
    """The rows of a table with an object a line: {"file_name": "a.png", "text": "red car"}."""
    rows = []
    for line, text in enumerate(NEWLINE.split(_decoded(path, "save it in UTF-8")), 1):
        if not text.strip():
            continue
        where = f"{path}, line {line}"
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{where} is not JSON ({error}): {text[:200]!r}; write one object a line, as "
                '{"file_name": "a.png", "text": "red car"}'
            ) from None
        if not isinstance(values, dict):
            raise ValueError(f"{where} is no object such as {{…}}: {text[:200]!r}")
        _check_columns(where, list(values), caption_column, "give both in every line")
        text = values[caption_column]
        found = [values["file_name"], "" if text is None else text]
        for name, value in zip(("file_name", caption_column), found):
            if not isinstance(value, str):
                raise ValueError(f'{where}: {name} is {value!r}: give a text in quotes, as "7"')
        rows.append(Row(where, found[0], found[1].strip()))
    if not rows:
        raise ValueError(f"{path} lists no picture: add a line for each")
    return rows


def _check_columns(where: Any, columns: list[str], caption_column: str, remedy: str) -> None:
    """See that both columns are there."""
    missing = [name for name in ("file_name", caption_column) if name not in columns]
    if missing:
        if missing == [caption_column] and (others := [n for n in columns if n != "file_name"]):
            remedy += f", or say which one holds the texts, as caption_column={others[-1]!r}"
        raise ValueError(
            f"{where} lacks the column {' and '.join(missing)}: it has "
            f"{', '.join(map(repr, columns)) or 'nothing'}; {remedy}"
        )


def _decoded(path: Path, remedy: str) -> str:
    """The text of a table; the newline conventions are left as they are."""
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path} is in UTF-16: {remedy}")
    if data and (kind := seems(data[:1000])):
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
