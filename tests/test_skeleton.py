"""The repository's frame: what is declared in two places agrees, and what is named exists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from helpers import ROOT

# conda-forge's names where they differ from PyPI's
CONDA_NAMES = {
    "brotli-python": "brotli",
    "matplotlib-base": "matplotlib",
    "python-build": "build",
    "pytorch": "torch",
}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))["project"]


def declared() -> dict[str, Requirement]:
    """Required packages and those of all extras, by name."""
    lines = list(project()["dependencies"])
    for extra in project()["optional-dependencies"].values():
        lines += extra
    requirements: dict[str, Requirement] = {}
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        same = requirements.setdefault(name, requirement)
        assert same.specifier == requirement.specifier, f"{name} has two different bounds"
    return requirements


def pins() -> dict[str, list[Requirement]]:
    pinned: dict[str, list[Requirement]] = {}
    for line in read("constraints.txt").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            pinned.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return pinned


def pinned_version(requirement: Requirement) -> Version:
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", f"{requirement} is not pinned"
    return Version(specifier.version)


def tracked_files() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    names = listing.stdout.decode("utf-8").split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def make_targets() -> set[str]:
    """The plain rules of the Makefile."""
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", read("Makefile"), flags=re.MULTILINE))


def run_make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # the make that runs these tests passes its own flags and variables on
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def workflows() -> dict[str, dict[Any, Any]]:
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    return {file.name: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}


def test_required_packages_have_lower_bounds_only() -> None:
    for line in project()["dependencies"]:
        operators = [specifier.operator for specifier in Requirement(line).specifier]
        assert operators == [">="], f"{line}: an upper bound would replace Colab's own version"


def test_environment_yml_and_pyproject_name_the_same_packages() -> None:
    environment = yaml.safe_load(read("environment.yml"))
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (by_pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert by_pip[-1] == "-e ."
    bounds: dict[str, SpecifierSet] = {}
    for requirement in map(Requirement, conda + by_pip[:-1]):
        name = CONDA_NAMES.get(requirement.name, requirement.name)
        bounds[canonicalize_name(name)] = requirement.specifier
    assert bounds.pop("python") == project()["requires-python"]
    assert bounds.pop("pip") == ""
    assert bounds == {name: requirement.specifier for name, requirement in declared().items()}


def test_constraints_pin_every_declared_package_within_its_bounds() -> None:
    pinned = pins()
    for name, requirement in declared().items():
        assert name in pinned, f"{name} is missing in constraints.txt"
        for pin in pinned[name]:
            assert pinned_version(pin) in requirement.specifier, f"{pin} is outside {requirement}"


def test_constraints_hold_exact_public_versions() -> None:
    for name, requirements in pins().items():
        for requirement in requirements:
            assert requirement.url is None, f"{requirement} is a path or an address"
            assert pinned_version(requirement).local is None, f"{requirement} is a local build"
        if len(requirements) > 1:
            assert all(requirement.marker for requirement in requirements), f"{name} stands twice"


def test_make_installs_exactly_the_extras_that_exist() -> None:
    extras = re.findall(r'-e "\.\[([a-z,]+)\]"', read("Makefile"))
    assert [sorted(names.split(",")) for names in extras] == [
        sorted(project()["optional-dependencies"])
    ]


def test_no_target_of_the_makefile_is_a_file() -> None:
    phony = re.findall(r"^\.PHONY: (help .*)$", read("Makefile"), flags=re.MULTILINE)
    assert [set(names.split()) for names in phony] == [make_targets()]


def test_makefile_keeps_to_make_3_81_and_to_relative_paths() -> None:
    text = read("Makefile")
    for construct in (".ONESHELL", "!=", "::=", "&:", "$(file ", "$(CURDIR)", "$(abspath"):
        assert construct not in text, f"{construct} fails in GNU make 3.81 or in a path with spaces"


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_without_a_target_prints_help() -> None:
    done = run_make(ROOT)
    assert done.returncode == 0, done.stderr
    for target in make_targets():
        assert target == "help" or f"make {target}" in done.stdout


@pytest.mark.skipif(
    os.name == "nt" or shutil.which("make") is None, reason="needs make and a POSIX shell"
)
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("#!/bin/sh\nexit 1\n", "needs Python 3.11 or newer"),
        # new enough, but cannot import venv
        ('#!/bin/sh\ncase "$2" in *venv*) exit 1;; esac\n', "apt install python3-venv"),
    ],
)
def test_make_says_what_to_install(tmp_path: Path, script: str, expected: str) -> None:
    """In a path with spaces, with a Python that is too old or has no venv module."""
    folder = tmp_path / "a path with spaces"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    python = folder / "fake python"
    python.write_text(script, encoding="utf-8")
    python.chmod(0o755)
    done = run_make(folder, "book", f"PYTHON={python}")
    assert done.returncode != 0
    assert expected in done.stderr
    assert "PYTHON=" in done.stderr
    assert not (folder / ".venv").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("script", [".ci/run", "tools/gpu/train_on_gpu.sh"])
def test_scripts_can_be_started(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


def test_workflows_parse_and_name_what_exists() -> None:
    found = workflows()
    for name, workflow in found.items():
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        for action in [step["uses"] for step in steps if "uses" in step]:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", action), f"{name}: {action}"
        for command in [step["run"] for step in steps if "run" in step]:
            used = set(re.findall(r"\bmake ([a-z]+)", command))
            assert used <= make_targets(), f"{name}: {command}"
    matrix = found["tests.yml"]["jobs"]["test"]["strategy"]["matrix"]
    tested = {f"Programming Language :: Python :: {python}" for python in matrix["python"]}
    named = {line for line in project()["classifiers"] if re.search(r":: Python :: 3\.\d+$", line)}
    assert tested == named


def test_windows_commands_install_what_make_installs() -> None:
    extras = re.findall(r'-e "\.\[([a-z,]+)\]"', read(".github/workflows/tests.yml"))
    assert extras == re.findall(r'-e "\.\[([a-z,]+)\]"', read("Makefile"))


def test_table_of_contents_names_files_that_exist() -> None:
    contents = yaml.safe_load(read("_toc.yml"))
    chapters = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    for page in [contents["root"], *chapters]:
        assert any((ROOT / f"{page}{ending}").is_file() for ending in (".md", ".ipynb")), page


def test_the_configuration_of_the_book_names_files_that_exist() -> None:
    config = yaml.safe_load(read("_config.yml"))
    sphinx = config["sphinx"]["config"]
    (static,) = sphinx["html_static_path"]
    assert (ROOT / static / sphinx["mathjax_path"]).is_file()
    for file in config["bibtex_bibfiles"]:
        assert (ROOT / file).is_file(), file


def test_repository_address_is_the_same_everywhere() -> None:
    address = yaml.safe_load(read("_config.yml"))["repository"]["url"]
    assert project()["urls"]["Repository"] == address
    assert yaml.safe_load(read("CITATION.cff"))["repository-code"] == address


def test_citation_has_the_package_version() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert str(citation["version"]) == project()["version"]


def test_licences_and_notices_stand() -> None:
    assert read("LICENSE").startswith("MIT License")
    assert "Creative Commons Attribution 4.0 International Public License" in read("LICENSE-PROSE")
    for name in ("SIL Open Font License", "Unicode", "Noto Emoji", "all-MiniLM-L6-v2", "MathJax"):
        assert name in read("NOTICE"), name
    patterns = project()["license-files"]
    assert all(list(ROOT.glob(pattern)) for pattern in patterns), patterns


def test_no_tracked_file_names_a_path_of_somebodys_machine() -> None:
    homes = re.compile(rb"(?<![\w.:/-])/(?:home|Users|root)/\w[^\s\"']*")
    here = [str(path).encode() for path in (ROOT, Path.home()) if len(path.parts) > 2]
    for file in tracked_files():
        content = file.read_bytes()
        if b"\0" in content:
            continue
        found = homes.findall(content) + [path for path in here if path in content]
        assert not found, f"{file.relative_to(ROOT)}: {found[:3]}"


def test_every_script_that_is_named_exists() -> None:
    named = re.compile(rb"\b(?:tools|tests|benchmarks)/[\w/]+\.(?:py|sh)\b")
    for file in tracked_files():
        for name in named.findall(file.read_bytes()):
            assert (ROOT / name.decode()).is_file(), f"{file.relative_to(ROOT)}: {name.decode()}"


def test_every_tool_has_its_line_in_the_tree() -> None:
    tree = read("tools/README.md")
    for path in (ROOT / "tools").rglob("*"):
        if path.suffix in (".py", ".sh") and "unfinished" not in path.parts:
            assert f" {path.name} " in tree, f"{path.relative_to(ROOT)} is not in tools/README.md"
