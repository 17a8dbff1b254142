"""Build the map of all glyphs: its coordinates in the package and the interactive page of the book.

    python tools/data/build_atlas.py           # both: two minutes for UMAP, one for the font
    python tools/data/build_atlas.py --page    # only the page, from the coordinates as they are

Needs ``pip install umap-learn fonttools brotli``.

minidiff/data/atlas
    * ``umap.safetensors``: uint16 coordinates of the 20,509 glyphs. UMAP sees the glyphs at 32
      pixels through their first 50 principal components.
    * ``umap.json``: scale, parameters, versions and the fingerprints of what it was made from.

book/_static/atlas (index.html and atlas.js there are written by hand)
    * ``data.js``: characters, definitions, radicals, layouts and coordinates for the page.
    * ``glyphs.woff2``: the package's font without what the page does not need, at 250 units per em,
      which is enough for any screen and halves it.
    * ``LICENCE.txt``: what these are made from, and the licences.

With the same seed and the same versions UMAP gives the same map on the same machine; elsewhere
rounding may lead to another one that is as good.
"""

from __future__ import annotations

import argparse
import base64
import json
import unicodedata
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from minidiff.figures.atlas import FOLDER, LEVELS, digest_of, principal
from minidiff.glyphs import FONT, glyph_images, load_glyphs, to_float

PAGE = Path(__file__).resolve().parents[2] / "book" / "_static" / "atlas"
SIZE, COMPONENTS = 32, 50
UMAP_SETTINGS = {"n_neighbors": 15, "min_dist": 0.1, "random_state": 0, "n_jobs": 1}
UNITS = 250  # per em
LAYOUTS = ("left-right", "top-bottom", "surround", "other")


def build_map() -> None:
    import umap

    x = to_float(glyph_images(SIZE)).flatten(1)
    mean, _, directions = principal(x)
    components = ((x - mean) @ directions[:COMPONENTS].T).numpy()
    points = umap.UMAP(**UMAP_SETTINGS).fit_transform(components)
    low = points.min(0)
    step = float((points - low).max()) / LEVELS
    FOLDER.mkdir(exist_ok=True)
    stored = ((points - low) / step).round().astype(np.uint16)
    path = FOLDER / "umap.safetensors"
    save_file({"points": stored}, path)
    path.chmod(0o644)  # safetensors writes it for one user only
    about = {
        "low": [float(value) for value in low],
        "step": step,
        "pixels": SIZE,
        "principal components": COMPONENTS,
        "umap": UMAP_SETTINGS,
        "versions": {name: version(name) for name in ("umap-learn", "numba", "numpy")},
        "characters": digest_of(glyph.char for glyph in load_glyphs()),
    }
    text = json.dumps(about, indent=2) + "\n"
    (FOLDER / "umap.json").write_text(text, encoding="utf-8", newline="\n")


def radical_names() -> list[list[str]]:
    """The character of each Kangxi radical and its English name, both from Unicode."""
    signs = [chr(0x2F00 + number) for number in range(214)]
    plain = [unicodedata.normalize("NFKC", sign) for sign in signs]
    names = [unicodedata.name(sign).removeprefix("KANGXI RADICAL ").lower() for sign in signs]
    return [[sign, name.replace("color", "colour")] for sign, name in zip(plain, names)]


def build_data() -> None:
    glyphs = load_glyphs()
    points = load_file(FOLDER / "umap.safetensors")["points"]
    if len(points) != len(glyphs):
        raise SystemExit(f"{len(points)} coordinates for {len(glyphs)} glyphs: run without --page")
    counts = Counter(glyph.radical for glyph in glyphs)
    data = {
        "chars": "".join(glyph.char for glyph in glyphs),
        "definitions": "\n".join(glyph.definition for glyph in glyphs),
        # one character each, so that 20,509 numbers take no commas
        "radicals": "".join(chr(0x100 + glyph.radical) for glyph in glyphs),
        "layouts": "".join(str(LAYOUTS.index(glyph.layout)) for glyph in glyphs),
        "points": base64.b64encode(points.astype("<u2").tobytes()).decode("ascii"),
        "names": [[*names, counts[i]] for i, names in enumerate(radical_names(), start=1)],
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    header = (
        "// Made by tools/data/build_atlas.py. Definitions and radicals: Unihan database, Unicode "
        "licence; layouts: cjk-decomp, MIT licence (LICENCE.txt).\n"
    )
    script = f"{header}window.ATLAS={text};\n"
    (PAGE / "data.js").write_text(script, encoding="utf-8", newline="\n")


def build_font() -> None:
    from fontTools import subset
    from fontTools.ttLib import TTFont
    from fontTools.ttLib.scaleUpem import scale_upem

    options = subset.Options()
    options.hinting, options.layout_features, options.notdef_outline = False, [], True
    font = TTFont(FONT, recalcTimestamp=False)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=[ord(glyph.char) for glyph in load_glyphs()])
    subsetter.subset(font)
    scale_upem(font, UNITS)
    font.flavor = "woff2"
    font.save(PAGE / "glyphs.woff2")


LICENCE = """\
Made by tools/data/build_atlas.py from the package minidiff:

glyphs.woff2  Noto Sans SC Regular: NotoSansSC-subset.otf of the package, reduced again and scaled
              to 250 units per em. SIL Open Font License 1.1.
data.js       glyphs.tsv.xz of the package: definitions and radicals of the Unihan database,
              Unicode licence; layouts of cjk-decomp, MIT licence. Names of the radicals: Unicode
              Character Database, Unicode licence. Coordinates: UMAP of the glyphs' pictures.

The page itself is under the licences of minidiff. What follows is the package's own note.

"""


def build_licence() -> None:
    text = LICENCE + (FONT.parent / "NOTICE").read_text(encoding="utf-8")
    (PAGE / "LICENCE.txt").write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the map of all glyphs.")
    parser.add_argument("--page", action="store_true", help="keep the coordinates")
    if not parser.parse_args().page:
        build_map()
    PAGE.mkdir(exist_ok=True)
    build_data()
    build_font()
    build_licence()
    for path in sorted([*FOLDER.iterdir(), *PAGE.iterdir()]):
        print(f"{path.stat().st_size / 1000:7.0f} kB  {path.name}")


if __name__ == "__main__":
    main()
