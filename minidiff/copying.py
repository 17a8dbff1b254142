"""Copies of modules that stand alone, for coursework: they need no installed minidiff.

A module may use only modules above it (see CONTRIBUTING.md), so what one needs is found by reading
its imports, and a copy differs from the original in these lines and in a first line that says where
it came from.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import minidiff
from minidiff.inputs import as_path, is_file
from minidiff.storage import write_file

PACKAGE = Path(__file__).resolve().parent
HOME = "https://github.com/minidiff/minidiff"
LICENCE, GUIDE = "LICENSE-minidiff", "README-minidiff.md"  # coursework has a README of its own
#: Files and folders that a module opens, below the package and so below the copy.
DATA = {
    "evaluation": (
        "data/text_yardsticks", "data/NotoSerifSC-test.otf", "data/NotoSansSC-Bold-test.otf",
    ),
    "figures.atlas": ("data/atlas",),
    "figures.words": ("data/embeddings",),
    "glyphs": ("data/NotoSansSC-subset.otf", "data/glyphs.tsv.xz"),
    "recipe": ("recipes",),
    "recogniser": ("data/recogniser",),
    "shelf": ("models",),
}  # fmt: skip
# What is imported under another name than it is installed by.
INSTALLED = {"PIL": "pillow", "sklearn": "scikit-learn", "umap": "umap-learn"}
_FIRST = re.compile(r"^# From minidiff (\S+): minidiff/(\S+),", re.MULTILINE)


class Copied(NamedTuple):
    """What was copied."""

    modules: list[Path]  #: in the order in which they could be pasted one after another
    data: list[Path]  #: files that they read
    papers: list[Path]  #: licence, and how to cite
    needs: list[str]  #: packages that must be installed


def copy(names: Sequence[str], to: str | Path, force: bool = False) -> Copied:
    """Write modules, and what they need, as plain modules that import each other.

    Args:
        names: such as ["samplers", "unet"].
        to: a folder, made if need be; or a file that ends in .py, which then holds them all.
        force: overwrite what is there. A file that is the same already is never in the way.

    Raises:
        ValueError: for an unknown name, naming the known; or for modules that do not fit into one
            file.
        FileExistsError: if something would be overwritten; nothing is written then.
        OSError: where a file cannot be written, naming it.
    """
    to = as_path("to", to)
    modules = needed(names)
    if PACKAGE in (to.resolve(), *to.resolve().parents):
        raise ValueError(f"{to} is minidiff itself: choose another folder")
    if to.suffix == ".py":
        folder, files = to.parent, {to: one_file(modules).encode("utf-8")}
    else:
        folder = to
        files = {to / _place(name): (_first(name) + plain(name)).encode() for name in modules}
    data = {folder / place: (PACKAGE / place).read_bytes() for place in data_of(modules)}
    papers = {folder / LICENCE: licence().encode("utf-8")}
    everything = files | data | papers
    there = [
        str(p) for p, content in everything.items() if is_file(p) and p.read_bytes() != content
    ]
    if there and not force:
        raise FileExistsError(
            f"{', '.join(there)} would be overwritten: choose another folder, or overwrite with "
            "force (--force)"
        )
    for path, content in everything.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
    write_file(folder / GUIDE, guide(folder).encode("utf-8"))
    return Copied([*files], [*data], [*papers, folder / GUIDE], foreign(modules))


# ------------------------------------------------------------------------------ what is needed


@cache
def known() -> list[str]:
    """Modules that can be copied: all but the command line and this one."""
    paths = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    names = (".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths)
    return sorted(n for n in names if not re.match(r"__|cli|shell$|copying$", n))


def needed(names: Sequence[str]) -> list[str]:
    """The modules and all that they import, each behind those that it imports.

    Raises:
        ValueError: for an unknown name, naming the known; or for none.
    """
    if isinstance(names, str) or not names:
        raise ValueError(f"names must be a list of modules such as ['samplers'], got {names!r}")
    found: list[str] = []

    def add(name: str) -> None:
        for other in _ours(name):
            if other not in found:
                add(other)
        found.append(name)

    for given in names:
        name = str(given).removeprefix("minidiff.").removesuffix(".py")
        if name not in known():
            raise ValueError(f"unknown module {given!r}: choose from {', '.join(known())}")
        if name not in found:
            add(name)
    return found


def data_of(modules: Sequence[str]) -> list[str]:
    """The files that modules open, with the licences of what is others' work."""
    places = [place for name in modules for place in DATA.get(name, ())]
    paths = [
        p for place in places for p in (PACKAGE / place, *sorted((PACKAGE / place).rglob("*")))
    ]
    files = [path.relative_to(PACKAGE).as_posix() for path in paths if path.is_file()]
    return [*files, "data/NOTICE"] if any(file.startswith("data/") for file in files) else files


def foreign(modules: Sequence[str]) -> list[str]:
    """The packages of others that modules import, as they are called for pip."""
    tops = {name.split(".")[0] for module in modules for name in _imported(_tree(module))}
    tops -= {"minidiff", *sys.stdlib_module_names}
    return sorted(INSTALLED.get(name, name.replace("_", "-")) for name in tops)


def _place(name: str) -> str:
    """Where a module lies in the package, and in the copy."""
    path = name.replace(".", "/")
    return f"{path}/__init__.py" if (PACKAGE / path).is_dir() else f"{path}.py"


def _source(name: str) -> str:
    return (PACKAGE / _place(name)).read_text(encoding="utf-8")


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse(_source(name))


def _imported(node: ast.AST) -> Iterator[str]:
    """Dotted names that are imported when code runs, so not those for type checkers alone."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield node.module or ""
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        for child in ast.iter_child_nodes(node):
            yield from _imported(child)


def _ours(name: str) -> list[str]:
    """The modules of the package that one imports, be it inside a function."""
    names = (each.removeprefix("minidiff.") for each in _imported(_tree(name)))
    return [each for each in dict.fromkeys(names) if each in known() and each != name]


# ------------------------------------------------------------------------------ what is written


def plain(name: str) -> str:
    """The source of a module with `from minidiff.x import y` as `from x import y`."""
    lines = _source(name).split("\n")
    for node in _internal(name):
        first, last, indent = node.lineno - 1, node.end_lineno, " " * node.col_offset
        if not isinstance(node, ast.ImportFrom) or node.module != "minidiff":
            lines[first] = re.sub(r"\b(from|import) minidiff\.", r"\1 ", lines[first], count=1)
        elif node.lineno == last:
            lines[first] = lines[first].replace("from minidiff import ", "import ", 1)
        else:  # `import` has no parentheses
            lines[first:last] = [f"{indent}import {ast.unparse(alias)}" for alias in node.names]
    return "\n".join(lines)


def one_file(modules: Sequence[str]) -> str:
    """Modules one after another, without the imports from each other: for a notebook's cell.

    Raises:
        ValueError: if one is imported as a whole, or if two give different things one name.
    """
    meanings: dict[str, str] = {}
    parts = ["".join(map(_first, modules)), "from __future__ import annotations\n"]
    for name in modules:
        parts.append(_without_imports(name))
        for thing, meaning in _names(name):
            if meanings.setdefault(thing, meaning) != meaning:
                raise ValueError(
                    f"{thing} means one thing in {name} and another in a module above it, so they "
                    "do not fit into one file: copy them into a folder"
                )
    return "\n".join(parts)


def _without_imports(name: str) -> str:
    lines = _source(name).split("\n")
    for node in _internal(name):
        alias = next((a.name for a in node.names if a.asname), None)
        if alias or not isinstance(node, ast.ImportFrom) or node.module == "minidiff":
            raise ValueError(
                f"{name} imports {alias or node.names[0].name} as a whole or by another name, so "
                "it does not fit into one file: copy it into a folder"
            )
        first, last = node.lineno - 1, node.end_lineno
        lines[first:last] = [" " * node.col_offset + "pass"] if node.col_offset else []
    text = "\n".join(lines).replace("\nfrom __future__ import annotations\n", "", 1)
    return f"\n# {'-' * 20} {name}\n\n{text}"


def _internal(name: str) -> list[ast.Import | ast.ImportFrom]:
    """The statements that import from this package, last first, so that lines can be replaced."""
    found = [
        node
        for node in ast.walk(_tree(name))
        if (isinstance(node, ast.ImportFrom) and re.match(r"minidiff\b", node.module or ""))
        or (isinstance(node, ast.Import) and re.match(r"minidiff\b", node.names[0].name))
    ]
    return sorted(found, key=lambda node: -node.lineno)


def _names(name: str) -> Iterator[tuple[str, str]]:
    """What the names at the top of a module mean: something of its own, or where it comes from."""
    for node in _tree(name).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            stored = (n for target in targets for n in ast.walk(target))
            yield from ((n.id, name) for n in stored if isinstance(n, ast.Name))
        elif isinstance(node, ast.Import):
            yield from ((a.asname or a.name.split(".")[0], a.name) for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node not in _internal(name):
            yield from ((a.asname or a.name, f"{node.module}.{a.name}") for a in node.names)


def _first(name: str) -> str:
    """The line that stands above a copy, wherever it may be carried."""
    version = minidiff.__version__
    return f"# From minidiff {version}: minidiff/{_place(name)}, MIT licence, {HOME}\n"


def licence() -> str:
    """The text of the licence: it lies beside the package's metadata, or beside its source."""
    source = PACKAGE.parent / "LICENSE"
    if not (PACKAGE.parent / "pyproject.toml").is_file():
        found = metadata.distribution("minidiff").read_text("licenses/LICENSE")
        if found is not None:
            return found
    return source.read_text(encoding="utf-8")


def guide(folder: Path) -> str:
    """What a folder holds of minidiff, from which version, and how to cite it."""
    rows, modules, versions = list[str](), list[str](), set[str]()
    for path in sorted((*folder.glob("*.py"), *folder.glob("figures/*.py"))):
        text = path.read_text(encoding="utf-8", errors="replace")
        for version, place in _FIRST.findall(text):
            name = ".".join(Path(place).with_suffix("").parts).removesuffix(".__init__")
            if name not in known():
                continue
            modules.append(name)
            versions.add(version)
            what = (ast.get_docstring(_tree(name)) or "").split("\n")[0]
            copied = path.relative_to(folder).as_posix()
            rows.append(f"| `{copied}` | `minidiff/{place}`, version {version} | {what} |")
    version = ", ".join(sorted(versions))
    data = [place for place in data_of(modules) if (folder / place).is_file()]
    sizes = [f"- `{place}`, {size((folder / place).stat().st_size)}" for place in data]
    files = ["## Data\n", "The modules read these files:\n", *sizes, ""] if data else []
    others = " The data have licences of their own: `data/NOTICE`." if data else ""
    return "\n".join([
        f"# Files of minidiff {version}\n",
        "Made by `minidiff copy`. The modules import each other and nothing of an installed",
        "minidiff; but for that and the line at their head they are as they were. Run Python in",
        "this folder, or put the folder on `sys.path`. Imports below `if TYPE_CHECKING:` never run",
        "and may name modules that were not needed here.\n",
        f"They need Python 3.11 or newer and `pip install {' '.join(foreign(modules))}`.\n",
        "| file | copied from | what it is |", "|---|---|---|", *rows, "",
        *files,
        "## Licence\n",
        f"MIT, see `{LICENCE}`: it stays with the files, and so does their first line.{others}\n",
        "## To cite\n",
        "```bibtex", "@software{minidiff,", "  title = {minidiff: diffusion models from scratch},",
        "  author = {{the minidiff authors}},", "  year = {2026},", f"  version = {{{version}}},",
        f"  url = {{{HOME}}},", "  license = {MIT},", "}", "```", "",
    ])  # fmt: skip


def size(count: int) -> str:
    """A number of bytes as people say it."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
