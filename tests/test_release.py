"""The change of weights: what the record says stands everywhere; what turned untrue is found."""

from __future__ import annotations

import copy
import functools
import importlib
import json
import operator
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

import minidiff
from helpers import ROOT, awake, load_script
from minidiff import evaluation, shelf
from minidiff.evaluation import FORMS
from minidiff.model import ModelConfig, load_model, save_model
from minidiff.report import as_text
from minidiff.shelf import find_model
from minidiff.stages import FirstStage
from minidiff.storage import read_info
from minidiff.unet import UNetConfig

SHIPPED = find_model("glyph64")
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def folder_of_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "release"))


@pytest.fixture
def tables() -> Any:
    return importlib.import_module("record_tables")


@pytest.fixture
def tool() -> Any:
    return importlib.import_module("release")


@pytest.fixture
def record() -> dict[str, Any]:
    return dict(read_info(SHIPPED)["record"])


# ------------------------------------------------------------------- figures that agree


def test_readme_says_what_the_record_says(tables: Any, record: dict[str, Any]) -> None:
    size = tables.size(SHIPPED)
    assert tables.readme(README, record, size) == README, "run python tools/release/release.py"


def test_card_chapter_and_list_of_models_say_what_the_record_says(
    tables: Any, record: dict[str, Any]
) -> None:
    figures = record["evaluation"]
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert as_text(figures) in card
    chapter = nbformat.read(ROOT / "notebooks" / "13_how_good.ipynb", as_version=4)
    (table,) = [c.outputs[0].text for c in chapter.cells if c.id == "record"]
    for name, key in (("guidance 1", "guidance 1"), ("guidance 3", tables.GUIDED)):
        (line,) = re.findall(rf"(?m)^drawn, {name} +(.*)$", table)
        row = figures["distances"][key]
        keys = ("frechet", "precision", "recall", "specks", "edge_width")
        assert [float(cell) for cell in line.split()] == [round(row[k], 2) for k in keys]
    (listed,) = [card for card in minidiff.pretrained() if card.name == "glyph64"]
    assert listed.quality == tables.quality(figures, record)


def test_benchmarks_draw_what_the_evaluation_draws(
    record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    benchmark = importlib.import_module("evaluations")
    assert record["evaluation"]["num_inference_steps"] == benchmark.STEPS == evaluation.STEPS
    assert benchmark.STEPS in benchmark.EVALUATIONS
    assert FORMS["full"].definitions == benchmark.COUNT


# Of a result of benchmarks/: its heading on their page, and a cell that the evaluation draws, too.
TWICE = {
    "quality_guidance": ("Quality by guidance", ("3.0",), "default guidance"),
    "quality_samplers": ("Quality by sampler and eval.*?", ("dpmpp_2m_sde", "20"), "guidance 1"),
    "sixteen_glyphs": ("Sixteen .*?", ("ours, 20 steps (the default)",), "guidance 1"),
}


@pytest.mark.parametrize("name", TWICE)
def test_benchmarks_agree_with_the_record_or_say_whose_they_are(
    tables: Any, record: dict[str, Any], name: str
) -> None:
    heading, keys, drawn = TWICE[name]
    page = (ROOT / "book" / "benchmarks.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"(?ms)^## {heading}\n(.*?)(?=^## |\Z)", page)
    place = ROOT / "benchmarks" / "results" / f"{name}.json"
    result = json.loads(place.read_text(encoding="utf-8"))
    if result["samples"] < 1000:  # of fewer glyphs a distance flatters: only times are told
        assert "held-out" not in section and "excess" not in section, "python benchmarks/page.py"
        return
    assert f" {result['samples']} held-out definitions" in section
    of_shipped = result["weights"] == read_info(SHIPPED)["files"]["model.safetensors"]
    assert of_shipped != ("weights shipped earlier" in section), "python benchmarks/page.py"
    distances = record["evaluation"]["distances"]
    if of_shipped and result["samples"] == distances[tables.FLOOR]["samples"]:
        cell = functools.reduce(operator.getitem, keys, result["cells"])
        assert cell["recall"] == pytest.approx(distances[drawn]["recall"], abs=0.01)
        excess = tables.excess(record["evaluation"], drawn)
        assert cell["excess"] == pytest.approx(excess, abs=0.1)


def row(text: str, start: str) -> str:
    """The one row of a table that starts so."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return line


COMMON = "20 common words × 64: the wanted component is there | "


def test_readme_keeps_all_but_the_figures(tables: Any, record: dict[str, Any]) -> None:
    other = copy.deepcopy(record)
    other["evaluation"]["prompts"]["mean"] = 9.87  # more than there can be
    other["images_seen_in_all"] = 7_654_321_000
    size = {"parameters": 1.25, "megabytes": 2.5}
    text = tables.readme(README, other, size)
    assert row(text, COMMON).startswith(f"| {COMMON}987 % | ")
    assert "7,654,321,000 glyphs seen" in row(text, "training of the shipped model: ")
    assert "| 1.25 M; 2.5 MB |" in row(text, "parameters; weights on disk")
    assert tables.readme(text, record, size) == tables.readme(README, record, size)
    assert tables.readme(text, other, size) == text
    figures = r"(?s:<!-- fig.*?<!-- end)|\| training of the shipped model.*"
    around = [re.sub(figures, "", t) for t in (text, README)]
    assert around[0] == around[1]
    for lost in (tables.START, tables.END, "training of the shipped model"):
        with pytest.raises(ValueError, match=r"README\.md has lost"):
            tables.readme(README.replace(lost, ""), record, size)


def test_measures_that_an_earlier_release_did_not_take_are_left_out(
    tables: Any, record: dict[str, Any]
) -> None:
    size = {"parameters": 1.25, "megabytes": 2.5}
    new, old = ({"figures": copy.deepcopy(record["evaluation"]), "size": size} for _ in range(2))
    for name in ("everyday", "radicals"):
        old["figures"].pop(name, None)
    old["figures"]["faithfulness"].pop(tables.NAMED, None)
    for row in old["figures"]["distances"].values():
        row.pop("specks", None), row.pop("off_white", None)

    new["figures"]["samples"] |= {"per_everyday": 16, "per_radical": 8}
    new["figures"]["faithfulness"][tables.NAMED] = {"share": 0.961, "interval": [0.95, 0.97]}
    words = {"eye": {"share": 0.75, "different": 9}, "river": {"share": 1.0, "different": 8}}
    new["figures"]["everyday"] = {"mean": 0.875, "fewest_different": 8, "words": words}
    many = {"mean": 0.99, "worst": 0.625, "real": 0.95, "radicals": 170}
    few = {"mean": 0.51, "worst": 0.0, "real": 0.8, "radicals": 44}
    new["figures"]["radicals"] = {"common": many, "rare": few, "rows": {}}
    for name, row in new["figures"]["distances"].items():
        row |= {"specks": 0.01, "off_white": 0.016}
        if name == tables.GUIDED:
            row |= {"specks": 0.03, "off_white": 0.0312}

    lines = tables.comparison(old, new)
    for start in (
        "| the same with the radical named | – | 96 % | 91 % for the real glyphs",
        "| 2 everyday words × 16: the wanted component is there | – | 88 % | eye 75 %, the worst |",
        "| 170 radicals by name × 8, those with at least 20 training glyphs | – | 99 % | 95 %",
        "| specks: blobs of ink of fewer than 20 pixels, a glyph | – | 0.03 | 0.01 for real",
        "| pixels that are not quite white | – | 3.1 % | 1.6 % for real glyphs |",
    ):
        assert sum(line.startswith(start) for line in lines) == 1, start
    assert len(tables.rows(**new)) == len(tables.rows(**old)) + 5
    rows = tables.comparison(None, new)[2:]
    assert rows and all(re.match(r"\| .+ \| – \| [^–]+ \| .* \|$", row) for row in rows)


# ------------------------------------------------------------------- cells that fail


def test_every_failed_cell_is_reported_with_its_prose(
    tool: Any, tables: Any, tmp_path: Path
) -> None:
    markdown, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    drawn = code("%time\nx = 2\nassert (\n    x == 3\n), f'it looks at {x}'")
    plain = code("def check(y):\n    assert y > 9\n\ncheck(x)")
    shown = code("x + 1\nassert x == 4")
    shown.metadata["mystnb"] = {"figure": {"caption": "Four fish.", "name": "fig-x"}}
    cells = [
        *(markdown("Far away."), markdown("The network looks at *fish*."), drawn),
        *(markdown("It does.\n\nAs one sees."), code("assert x == 2"), plain, shown),
    ]
    path = tmp_path / "03_fish.ipynb"
    path.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells)), encoding="utf-8")
    before = path.read_bytes()
    found = tool.failed_cells(path)
    assert path.read_bytes() == before
    assert [cell["notebook"] for cell in found] == ["03_fish"] * 3
    assert found[0]["message"] == "AssertionError: it looks at 2"
    assert found[0]["prose"] == ["The network looks at *fish*.", "It does.\n\nAs one sees."]
    assert found[1]["code"] == "check(x)"
    assert found[2]["code"] == "assert x == 4"
    assert found[2]["prose"] == ["It does.\n\nAs one sees.", "Four fish."]
    text = "\n".join(tables.report(found))
    assert text.startswith("3 cells failed, open: 3;")
    assert "> The network looks at *fish*.\n\n> It does.\n>\n> As one sees.\n" in text


# ------------------------------------------------------------------- the command


PICTURES = ["tools/book/pictures.py", "tools/book/dials.py"]
QUICK = ["tools/book/contents_pictures.py", "benchmarks/page.py"]
BENCHMARKS = [f"benchmarks/{name}.py" for name in ("evaluations", "sixteen_glyphs", "strokes")]


class House:
    """A repository in which nothing takes long: a tiny model ships, another is to replace it."""

    def __init__(self, root: Path, tool: Any, record: dict[str, Any], monkeypatch: Any) -> None:
        self.root, self.tool = root, tool
        self.commands: list[str] = []
        unet = UNetConfig(channels=(32, 32, 32), stem=2, text_dim=8)
        config = ModelConfig(unet, image_size=16, text_encoder="minilm", text_fingerprint="0")
        self.shipped = root / "minidiff" / "models" / "glyph64"
        for seed, place in enumerate((self.shipped, root / "runs" / "new")):
            save_model(place, awake(unet, seed), config, record)
        (self.shipped / "README.md").write_text("the old card", encoding="utf-8")
        (root / "README.md").write_text(README, encoding="utf-8")
        (root / "notebooks").mkdir()
        for name in ("training", "failures"):
            (root / name).write_text(f"the {name} of it", encoding="utf-8")
        for script in (*PICTURES, *QUICK, *BENCHMARKS):
            (root / script).parent.mkdir(parents=True, exist_ok=True)
            (root / script).write_text("print(1)", encoding="utf-8")
        (root / "tools" / "release").mkdir()
        self.figures = copy.deepcopy(record["evaluation"])
        self.figures["prompts"]["mean"] = 9.87  # more than there can be
        monkeypatch.setattr(tool.Release, "run", self.run)

    def run(self, *command: str, **_: Any) -> str:
        """In place of `Release.run`."""
        self.commands.append(command[0] if command[0] != "-m" else command[2])
        return json.dumps(self.figures)

    def release(self, *more: str, status: int = 0) -> list[str]:
        """Start the command; which programs it ran."""
        self.commands.clear()
        texts = [str(x) for n in ("training", "failures") for x in (f"--{n}", self.root / n)]
        arguments = ["--model", str(self.root / "runs" / "new"), *texts, *more]
        assert self.tool.main(arguments, self.root) == status
        return self.commands

    def kept(self) -> dict[Path, bytes]:
        """All files but those that the command keeps for itself."""
        every = [p for p in self.root.rglob("*") if p.is_file() and "runs" not in p.parts]
        return {path: path.read_bytes() for path in every}

    def log(self) -> str:
        return (self.root / "tools" / "release" / "log_glyph64.md").read_text(encoding="utf-8")


@pytest.fixture
def house(
    tmp_path: Path, tool: Any, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> House:
    return House(tmp_path, tool, record, monkeypatch)


def test_one_command_ships_and_goes_on_where_it_stopped(
    house: House, tables: Any, record: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    old = read_info(house.shipped)["files"]["model.safetensors"]
    first = house.release("--yes", "--without-benchmarks")
    assert first == ["evaluate", *PICTURES, *QUICK]
    info = read_info(house.shipped)
    new = info["files"]["model.safetensors"]
    assert new != old and info["record"]["evaluation"] == house.figures
    assert info["record"]["quality"]["20 words shown"] == "987 %"
    card = (house.shipped / "README.md").read_text(encoding="utf-8")
    for part in (as_text(house.figures), "the training of it", "the failures of it"):
        assert part in card
    before = tables.percent(record["evaluation"]["prompts"]["mean"])
    log = house.log()
    for text in (capsys.readouterr().out, log):
        assert row(text, COMMON).startswith(f"| {COMMON}{before} | 987 % | ")
    readme = (house.root / "README.md").read_text(encoding="utf-8")
    assert row(readme, COMMON).startswith(f"| {COMMON}987 % | ")
    for part in (f"{new}\n- in place of: {old}", "| notebooks | ", "No cell"):
        assert part in log
    assert str(house.root) not in log

    files = [path.read_bytes() for path in sorted(house.shipped.iterdir())]
    assert house.release("--without-benchmarks") == QUICK  # and asks no more
    assert files == [path.read_bytes() for path in sorted(house.shipped.iterdir())]
    assert f"in place of: {old}" in house.log()
    assert house.release() == [QUICK[0], *BENCHMARKS, QUICK[1]]
    (house.root / "tools/book/pictures.py").write_text("print(2)", encoding="utf-8")
    assert house.release() == ["tools/book/pictures.py", *QUICK]


@pytest.mark.parametrize("answer", ["no", "", EOFError])
def test_without_a_yes_nothing_is_changed(
    house: House, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    def asked(_: str) -> str:
        if answer is EOFError:
            raise EOFError
        return str(answer)

    monkeypatch.setattr("builtins.input", asked)
    before = house.kept()
    with pytest.raises(SystemExit, match=r"nothing is changed.*--yes"):
        house.release()
    assert house.kept() == before and house.commands == ["evaluate"]
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    assert "evaluate" not in house.release("--without-benchmarks")  # the figures were kept
    assert house.kept() != before


def test_what_cannot_be_written_ships_nothing(house: House, tables: Any) -> None:
    readme = house.root / "README.md"
    readme.write_text(README.replace(tables.END, ""), encoding="utf-8")
    before = house.kept()
    with pytest.raises(ValueError, match=r"README\.md has lost"):
        house.release("--yes", "--without-benchmarks")
    log = house.root / "tools" / "release" / "log_glyph64.md"
    assert {path: text for path, text in house.kept().items() if path != log} == before


def test_a_model_without_text_is_refused_at_once(house: House) -> None:
    unet = UNetConfig(channels=(32, 32, 32), stem=2, text_dim=None)
    config = ModelConfig(unet, image_size=16)
    save_model(house.root / "runs" / "new", awake(unet), config, {})
    with pytest.raises(SystemExit, match=r"without text .*trained with texts"):
        house.release("--yes")
    assert not house.commands


def test_a_cascade_ships_with_the_size_of_both_stages(
    house: House, tables: Any, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "MODELS", house.shipped.parent)
    first = FirstStage("glyph64", read_info(house.shipped)["files"]["model.safetensors"])
    unet = UNetConfig(channels=(32, 32, 32), stem=2, text_dim=None, condition_channels=3)
    config = ModelConfig(unet, image_size=32, first_stage=first)
    seen = {"images_seen_in_all": 1_000, "training_images": 19_475}
    save_model(house.root / "runs" / "new", awake(unet), config, seen)
    house.release("--yes", "--without-benchmarks", "--name", "glyph128")
    both = sum(map(_parameters, (house.shipped, house.root / "runs" / "new")))
    folder = house.shipped.with_name("glyph128")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "# glyph128" in card and "32 × 32 pixels" in card and f"{both / 1e6:.2f} M" in card
    assert tables.size(folder)["parameters"] == both / 1e6
    assert (house.root / "README.md").read_text(encoding="utf-8") == README  # of glyph64 alone
    assert "# Release of glyph128" in (
        house.root / "tools" / "release" / "log_glyph128.md"
    ).read_text(encoding="utf-8")


def _parameters(folder: Path) -> int:
    return sum(parameter.numel() for parameter in load_model(folder)[0].parameters())


def test_what_a_program_warns_of_is_kept_apart(tool: Any, tmp_path: Path) -> None:
    release = object.__new__(tool.Release)
    release.root = release.folder = tmp_path
    code = "import sys; print('{oops', file=sys.stderr); print('{}'); sys.exit(int(sys.argv[1]))"
    assert json.loads(release.run("-c", code, "0", log="x")) == {}
    assert "{oops" in (tmp_path / "x.errors.log").read_text(encoding="utf-8")
    assert "{oops" in release.run("-c", code, "1", log="x", must=False)
    with pytest.raises(SystemExit, match=r"failed: \{oops"):
        release.run("-c", code, "1", log="x")


def test_a_failed_notebook_is_reported_until_it_is_mended(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("assert False")])
    for name in ("a", "b"):
        path = house.root / "notebooks" / f"{name}.ipynb"
        path.write_text(nbformat.writes(notebook), encoding="utf-8")

    def failed(path: Path) -> list[dict[str, Any]]:
        found = [house.tool.flag(path, "assert False", "m", ["Is true."])]
        return found if path.stem == "a" else []

    monkeypatch.setattr(house.tool, "failed_cells", failed)
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(house.tool.time, "perf_counter", lambda: next(clock))
    house.release("--yes", "--without-benchmarks", status=1)
    assert house.commands.count("tools/book/notebooks.py") == 2
    assert house.commands[-1] == "benchmarks/page.py"
    for text in (house.log(), capsys.readouterr().out):
        assert "### a, open\n\n```python\nassert False\n```\n\nm\n\n> Is true." in text
        assert "2 cells failed, open: 2;" in text and "### b, open" in text
    assert row(house.log(), "notebooks") == "| notebooks | 10 |"

    (house.root / "notebooks" / "a.ipynb").unlink()
    house.release("--without-benchmarks", status=1)
    for text in (house.log(), capsys.readouterr().out):
        assert "2 cells failed, open: 1;" in text
        assert "### b, open" in text and "### a, mended" in text
    (house.root / "notebooks" / "b.ipynb").unlink()
    assert house.release("--without-benchmarks") == QUICK
    for text in (house.log(), capsys.readouterr().out):
        assert "2 cells failed, open: none;" in text and "> Is true." in text
        assert "### a, mended" in text and "### b, mended" in text
    assert row(house.log(), "notebooks") == "| notebooks | 30 |"  # of all three runs
    assert row(house.log(), "tools/book/pictures.py") == "| tools/book/pictures.py | 10 |"


def test_help_teaches(tool: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        tool.main(["--help"])
    text = capsys.readouterr().out
    for part in ("--model runs/", "--without-benchmarks", "asks", "goes on where it stopped"):
        assert part in text


def test_a_text_that_is_not_there_is_named(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        house.release("--training", "nowhere.md")
    assert "nowhere.md" in capsys.readouterr().err and not house.commands


# ------------------------------------------------------------------- the picture


def test_readme_names_the_words_of_its_picture() -> None:
    words = load_script("tools/book/pictures.py").PROMPTS
    (text,) = re.findall(r"!\[([^\]]+)\]\(book/_static/glyphs\.png\)", README)
    assert text.endswith(f": {', '.join(words)}.")
    assert len(words) == 8 and {"heart", "hand"} <= set(words)


def test_nearly_all_is_not_all() -> None:
    tables = load_script("tools/release/record_tables.py")
    assert [tables.percent(share) for share in (0, 0.004, 0.5, 0.996, 1)] == [
        "0 %", "0.4 %", "50 %", "99.6 %", "100 %"
    ]  # fmt: skip
