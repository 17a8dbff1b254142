"""Build ``minidiff/data/emoji.tar.xz``: emoji in colour, 32 × 32 pixels, with their names.

Run from the root of the repository (needs ``pip install resvg-py==0.5.0``; takes a minute)::

    npm pack @iconify-json/noto@1.2.9
    python tools/data/make_emoji.py iconify-json-noto-1.2.9.tgz

Source: the drawings of Noto Emoji (Apache License 2.0), as the npm package has them: SVG by name.

Result (the same bytes for the same source, renderer and liblzma): a folder as
``minidiff.ImageFolder`` reads it, packed. ``metadata.csv`` has the columns file_name, text,
category and skin_tone; ``LICENSE`` is that of the drawings, from ``NOTICE`` beside the archive.

Decisions
    * **Texts** are the names: "woman-firefighter" is "woman firefighter". A skin tone comes last,
      after a comma ("waving hand, dark skin tone"), so that training sees both parts alone, too.
    * **Skin tones**: a drawing with one is kept in all five, half of the archive, and marked in
      skin_tone, for they are near twins: whoever holds pictures out leaves them out. Drawings of
      two people with a tone each (some 380) are left out: 25 twins of each.
    * **Left out** are also names that the package hides, old ones of the same drawing. Of drawings
      that are equal here (the helmet of an astronaut hides who it is) the one with the shortest
      name is kept. No other kind hurts: of flags there are nine, without those of countries.
    * **Paper** is white, for what is drawn here is drawn on paper, and three channels are smaller.
    * **Levels**: 128 of each colour instead of 256, which no eye tells apart; it saves 0.3 MB.
    * **PNG without compression, then xz**: all pictures packed at once are half as large as zipped.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import lzma
import re
import struct
import tarfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from PIL import Image

DATA = Path(__file__).resolve().parents[2] / "minidiff" / "data"
SIZE, DRAWN = 32, 128  # pixels of the pictures, and of what they are averaged from
LEVELS, LIMIT = 128, 2_000_000  # of a colour; bytes
TONES = ("light", "medium-light", "medium", "medium-dark", "dark")
TONE = re.compile(r"-(?:(medium-light|medium-dark|medium|light|dark)-skin-tone|tone([1-5]))(?=-|$)")
COLUMNS = ("file_name", "text", "category", "skin_tone")


def text_of(name: str) -> tuple[str, str]:
    """The caption of an icon, and its skin tone or ""."""
    found = TONE.search(name)
    words = TONE.sub("", name).replace("-", " ")
    if found is None:
        return words, ""
    tone = (found[1] or TONES[int(found[2]) - 1]).replace("-", " ")
    return f"{words}, {tone} skin tone", tone


def drawing(icon: dict[str, Any], width: int, height: int) -> np.ndarray:
    """An icon on white paper: uint8 (SIZE, SIZE, 3), in LEVELS levels, white among them."""
    box = [icon.get(key, usual) for key, usual in zip(("left", "top"), (0, 0))]
    box += [icon.get("width", width), icon.get("height", height)]
    head = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = f'<svg {head} viewBox="{" ".join(map(str, box))}">{icon["body"]}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=DRAWN, height=DRAWN, background="#ffffff")
    with Image.open(io.BytesIO(bytes(png))) as picture:
        small = np.asarray(picture.convert("RGB").reduce(DRAWN // SIZE)) / 255
    return np.round(np.round(small * (LEVELS - 1)) / (LEVELS - 1) * 255).astype(np.uint8)


def as_png(picture: np.ndarray) -> bytes:
    """A PNG of bare rows: Pillow's filters would hide from xz what pictures have in common."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    height, width, _ = picture.shape
    head = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)  # 8 bits each, RGB
    rows = b"".join(b"\0" + row.tobytes() for row in picture)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def pictures_of(package: tarfile.TarFile) -> dict[str, np.ndarray]:
    """By name, of the icons that are kept."""
    icons = json.loads(member(package, "icons.json"))
    shown = [
        name
        for name, icon in sorted(icons["icons"].items(), key=lambda pair: (len(pair[0]), pair[0]))
        if not icon.get("hidden") and len(TONE.findall(name)) < 2
    ]
    kept: dict[bytes, tuple[str, np.ndarray]] = {}
    for name in shown:  # the shortest name first
        picture = drawing(icons["icons"][name], icons["width"], icons["height"])
        kept.setdefault(picture.tobytes(), (name, picture))
    return dict(sorted(kept.values(), key=lambda pair: pair[0]))


def member(package: tarfile.TarFile, name: str) -> str:
    file = package.extractfile(f"package/{name}")
    if file is None:
        raise SystemExit(f"no {name} in the package: fetch it with 'npm pack' (see --help)")
    return file.read().decode("utf-8")


def table(names: list[str], categories: dict[str, list[str]]) -> str:
    """metadata.csv of these icons."""
    category = {name: kind for kind, members in categories.items() for name in members}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name in names:
        text, tone = text_of(name)
        writer.writerow([f"{name}.png", text, category[name], tone])
    return file.getvalue()


def licence() -> str:
    notice = (DATA / "NOTICE").read_text(encoding="utf-8")
    start = notice.find("emoji.tar.xz: Noto Emoji")
    if start < 0:
        raise SystemExit("the NOTICE in minidiff/data lacks the licence of Noto Emoji")
    return notice[start:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path, help="the .tgz that 'npm pack' fetched")
    parser.add_argument("--output", type=Path, default=DATA / "emoji.tar.xz")
    args = parser.parse_args()
    with tarfile.open(args.package) as package:
        pictures = pictures_of(package)
        categories = json.loads(member(package, "metadata.json"))["categories"]
    metadata = table(list(pictures), categories)
    files = {"LICENSE": licence().encode("utf-8"), "metadata.csv": metadata.encode("utf-8")}
    files |= {f"{name}.png": as_png(picture) for name, picture in pictures.items()}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    small = lzma.compress(packed.getvalue(), preset=9 | lzma.PRESET_EXTREME)
    if len(small) > LIMIT:
        raise SystemExit(f"{len(small):,} bytes are more than {LIMIT:,}: leave something out")
    args.output.write_bytes(small)
    rows = list(csv.DictReader(io.StringIO(metadata)))
    print(f"{len(rows):,} emoji, {sum(not row['skin_tone'] for row in rows):,} without a skin tone")
    print(*(f"{n:5,} {kind}" for kind, n in Counter(r["category"] for r in rows).items()), sep="\n")
    print(f"{len(small):,} bytes")


if __name__ == "__main__":
    main()
