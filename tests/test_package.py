"""The package as a whole: light imports, one direction, no pickle or network, a wheel."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import minidiff
from helpers import ROOT, printed_by

PACKAGE = ROOT / "minidiff"
# Each module may import those before it, never those after it.
ORDER = [
    "schedules", "denoisers", "samplers", "unet", "dit", "student", "distillation", "matching",
    "autoencoder", "toys", "inputs", "storage", "cache", "captions", "glyphs", "pictures",
    "listings", "datasets", "splitting", "encoder_files", "text", "texts", "diffusers_networks",
    "networks", "spaces", "stages", "model", "recipe", "endings", "run_folder", "run_log", "hub",
    "shelf", "held_out",
    "augmentation", "latents", "redrawing", "second_stage", "batches", "lesson", "resume",
    "devices", "trackers", "training", "fitting", "frames", "cascade", "prompts", "pipeline",
    "diffusers_pipeline", "editing", "recogniser", "metrics", "wanted", "evaluation",
    "reconstruction", "large", "report", "plots", "figures", "likeness", "originals",
    "own_evaluation", "looking", "copying", "curves", "provenance", "shell", "cli_train",
    "cli_sample", "cli_more", "cli_data", "cli",
]  # fmt: skip


# ------------------------------------------------------------------------------- names


def test_version_is_that_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert minidiff.__version__ == project["version"]


def test_public_names_exist() -> None:
    assert sorted(minidiff.__all__) == sorted(minidiff._HOME)
    for name in minidiff.__all__:
        assert getattr(minidiff, name).__name__ == name
        assert name in dir(minidiff)


def test_misspelt_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'minidiff' has no attribute 'laod'"):
        minidiff.laod  # noqa: B018


# ------------------------------------------------------------------------------- imports


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import minidiff", "torch numpy PIL transformers accelerate matplotlib typer tqdm"),
        ("import minidiff; minidiff.load()", "transformers accelerate matplotlib typer"),
        ("import minidiff; minidiff.load()('', num_inference_steps=1)", "transformers accelerate"),
        ("import minidiff.training", "transformers accelerate matplotlib diffusers"),
        ("import minidiff.plots", "transformers accelerate matplotlib"),
        ("import minidiff.glyphs", "transformers accelerate matplotlib fontTools diffusers"),
        ("import minidiff.cli", "torch numpy PIL transformers accelerate matplotlib"),
        ("from minidiff import schedules, denoisers, samplers", "PIL transformers accelerate"),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(
    code: str, absent: str, tmp_path: Path
) -> None:
    print_loaded = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(printed_by(f"{code}\n{print_loaded}", tmp_path)))
    assert "minidiff" in loaded
    assert not loaded & set(absent.split())


def modules() -> list[Path]:
    return sorted(PACKAGE.glob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The modules of minidiff that a module imports, be it inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first, *rest = alias.name.split(".")
                if first == "minidiff":
                    yield rest[0] if rest else ""
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            first, *rest = (node.module or "").split(".")
            if first == "minidiff":
                yield from rest[:1] or [alias.name for alias in node.names]


def test_every_arrow_points_up_the_table() -> None:
    for path in modules():
        if path.stem.startswith("__"):
            continue
        assert path.stem in ORDER, f"{path.name} has no place in the order of modules"
        above = ORDER[: ORDER.index(path.stem)]
        if path.stem in ("cli", "copying"):
            above = [*above, ""]  # the package itself, for its version
        wrong = set(imported(path)) - set(above)
        assert not wrong, f"{path.name} imports {wrong}, which comes after it"


def test_training_knows_neither_plots_nor_pipeline() -> None:
    assert not set(imported(PACKAGE / "training.py")) & {"plots", "pipeline", "cli", "unet"}
    assert set(imported(PACKAGE / "training.py")) >= {"batches", "denoisers", "networks"}


def test_only_the_registry_and_the_default_recipe_name_a_network() -> None:
    named = {path.stem for path in modules() if "unet" in imported(path)}
    assert named - {"__init__"} == {"networks", "recipe"}


def test_importing_finds_what_is_there() -> None:
    """The helper above sees all forms of import that the package uses."""
    assert set(imported(PACKAGE / "pipeline.py")) >= {"samplers", "model", "text", "shelf"}
    assert set(imported(PACKAGE / "cli.py")) >= {"", "cli_data", "training", "shelf"}


def test_no_room_is_too_large_to_read() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path.name


# ------------------------------------------------------------------------------- no pickle

PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def unsafe(tree: ast.AST) -> Iterator[str]:
    """Whatever in a module may read or write a pickle, or run code that came with data."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in PICKLERS)
        elif isinstance(node, ast.ImportFrom):
            source = (node.module or "").split(".")[0]
            if source in PICKLERS:
                yield source
            if source == "torch":
                yield from (f"torch.{a.name}" for a in node.names if a.name in ("save", "load"))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name.startswith("torch.") and name.split(".")[-1] in (
                "save", "load", "load_state_dict_from_url",
            ):  # fmt: skip
                yield name
            if name.split(".")[-1] in ("save_state", "read_pickle", "to_pickle"):
                yield name
            if name in ("np.load", "np.save", "numpy.load", "numpy.save", "np.savez") and (
                given.get("allow_pickle") != "False" and not name.endswith("savez")
            ):
                yield f"{name} without allow_pickle=False"
            if given.get("trust_remote_code", "False") != "False":
                yield f"{name} with trust_remote_code"
            if name.endswith("Model.from_pretrained") and given.get("use_safetensors") != "True":
                yield f"{name} without use_safetensors=True"


@pytest.mark.parametrize("folder", ["minidiff", "tools"])
def test_no_pickle_is_ever_read_or_written(folder: str) -> None:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    for path in paths:
        found = list(unsafe(ast.parse(path.read_text(encoding="utf-8"))))
        assert not found, f"{path.relative_to(ROOT)}: {found}"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "from torch import load",
        "torch.load(path)",
        "torch.save(x, path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.save(path, x)",
        "accelerator.save_state(path)",
        "AutoModel.from_pretrained(name)",
        "AutoTokenizer.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_check_for_pickles_finds_them(code: str) -> None:
    assert list(unsafe(ast.parse(code)))


# ------------------------------------------------------------------------------- no network

WATCHED = """
import json, sys
seen = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        seen.append([event, str(arguments[:2])])
        raise OSError("there is no network here")
    if event == "pickle.find_class":
        seen.append([event, str(arguments)])
sys.addaudithook(watch)
"""


def test_drawing_asks_nothing_of_the_network_and_opens_no_pickle(tmp_path: Path) -> None:
    """Also on a machine where nothing was ever cached, and nobody has said "offline"."""
    code = (
        f"{WATCHED}\n"
        "import minidiff\n"
        "images = minidiff.load()('gold', num_inference_steps=2)\n"
        "assert images.shape == (1, 1, 64, 64) and images.isfinite().all()\n"
        "print(json.dumps(seen))\n"
    )
    home = str(tmp_path)
    places = {"HOME": home, "USERPROFILE": home, "XDG_CACHE_HOME": home, "MINIDIFF_CACHE": home}
    assert json.loads(printed_by(code, tmp_path, **places)) == []


def test_the_watch_sees_the_network(tmp_path: Path) -> None:
    code = (
        f"{WATCHED}\n"
        "import pickle, urllib.request\n"
        "for ask in (lambda: urllib.request.urlopen('http://localhost:9/'),\n"
        "            lambda: pickle.loads(pickle.dumps(len))):\n"
        "    try:\n        ask()\n    except OSError:\n        pass\n"
        "print(json.dumps([event for event, _ in seen]))\n"
    )
    seen = json.loads(printed_by(code, tmp_path))
    assert "urllib.Request" in seen and "pickle.find_class" in seen


# ------------------------------------------------------------------------------- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the repository stays as it is."""
    pytest.importorskip("build")
    source = tmp_path_factory.mktemp("source with spaces")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(PACKAGE, source / "minidiff", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(source)],
        check=True,
        capture_output=True,
    )
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.mark.slow
def test_wheel_holds_the_whole_package_and_the_licences(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    info = f"minidiff-{minidiff.__version__}.dist-info"
    assert {name for name in names if not name.startswith(info)} == ours
    assert {"minidiff/py.typed", "minidiff/models/glyph64/model.safetensors"} <= ours
    licences = {"LICENSE", "NOTICE", "minidiff/data/NOTICE"}
    assert {f"{info}/licenses/{name}" for name in licences} <= names
    assert wheel.stat().st_size < 50e6  # four models are 37 MB of it


@pytest.mark.slow
def test_wheel_works_away_from_the_repository(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target",
         str(target), str(wheel)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    code = (
        "import importlib.metadata, sys\n"
        "opened = []\n"
        "def watch(event, arguments):\n"
        f"    if event == 'open' and str(arguments[0]).startswith({str(PACKAGE)!r}):\n"
        "        opened.append(arguments[0])\n"
        "sys.addaudithook(watch)\n"
        "import minidiff\n"
        "from minidiff import cli, cli_train, glyphs\n"
        "assert importlib.metadata.version('minidiff') == minidiff.__version__\n"
        "assert len(glyphs.load_glyphs()) == 20509\n"
        "assert glyphs.render('金').float().std() > 50\n"
        "assert cli_train.config_of('glyph64', None, {}).image_size == 64\n"
        "assert 'glyph64' in [card.name for card in minidiff.pretrained()]\n"
        "sys.argv = ['minidiff', 'sample', 'gold', '--num-images', '1',\n"
        "            '--num-inference-steps', '2']\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not opened, opened\n"
        "print(minidiff.__file__)\n"
    )
    picture, place = printed_by(code, elsewhere, PYTHONPATH=str(target)).splitlines()
    assert Path(place).is_relative_to(target), "another minidiff was imported"
    assert picture == "gold.png" and (elsewhere / picture).stat().st_size > 100
    assert list((target / "bin").glob("minidiff*")) or os.name == "nt"
