"""The reference: what is public is on its pages and explained, for Sphinx leaves out, without a
word, what has no docstring.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

import minidiff
from helpers import ROOT
from minidiff.cli import app

INDEX = (ROOT / "book" / "reference.md").read_text(encoding="utf-8")
FIGURES = (ROOT / "book" / "reference_figures.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "book" / "command_line.txt").read_text(encoding="utf-8")
# Of the command line its own help is shown, and the package itself is a table.
COMMAND = {
    f"minidiff.{name}"
    for name in ("__main__", "cli", "cli_data", "cli_more", "cli_sample", "cli_train", "shell")
}
LEFT_OUT = {"minidiff"} | COMMAND


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / "minidiff").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return {name: path for name, path in found.items() if name not in LEFT_OUT}


MODULES = modules()


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def documented(node: ast.ClassDef | ast.FunctionDef, prefix: str = "") -> dict[str, bool]:
    """Whether a function, or a class and each of its public methods, has a docstring."""
    has = {prefix + node.name: ast.get_docstring(node) is not None}
    if isinstance(node, ast.ClassDef):
        for child in node.body:
            if isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
                has |= documented(child, f"{node.name}.")
    return has


def definitions(name: str) -> dict[str, bool]:
    nodes = [n for n in tree_of(name).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    public = [node for node in nodes if not node.name.startswith("_")]
    return {key: has for node in public for key, has in documented(node).items()}


def constants(name: str) -> dict[str, bool]:
    """Whether a value of a module has a comment that begins with #:, on or above its line."""
    lines = MODULES[name].read_text(encoding="utf-8").splitlines()
    has = {}
    for node in tree_of(name).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            above, line = lines[node.lineno - 2], lines[node.lineno - 1]
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            for part in ast.walk(target):
                if isinstance(part, ast.Name):
                    has[part.id] = above.startswith("#:") or "  #: " in line
    return has


def test_every_module_is_on_one_page() -> None:
    listed = re.findall(r"^\.\. automodule:: (\S+)$", INDEX + FIGURES, re.MULTILINE)
    assert sorted(listed) == sorted(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_what_is_public_is_explained(name: str) -> None:
    assert ast.get_docstring(tree_of(name))
    # What every denoiser and network has is explained once, at the class where it is first found.
    again = (".estimate", ".forward")
    silent = [key for key, has in definitions(name).items() if not has and not key.endswith(again)]
    assert not silent


def test_what_the_chapters_use_is_explained() -> None:
    used = set()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text = path.read_text(encoding="utf-8")
        for module, names in re.findall(r'"from (minidiff\.[.\w]*) import ([\w, ]+)', text):
            used |= {(module, name.split(" as ")[0]) for name in names.split(", ")}
    assert used
    for module, name in used:
        assert f"{module}.{name}" in MODULES or (definitions(module) | constants(module))[name]


def test_the_table_is_what_the_package_offers() -> None:
    shown = re.findall(r"^\| \{py:obj\}`~(minidiff\.\w+)\.(\w+)`", INDEX, re.MULTILINE)
    assert sorted(name for _, name in shown) == sorted(minidiff.__all__)
    for module, name in shown:
        assert name in definitions(module)


def test_the_command_line_is_as_help_says() -> None:
    said = []
    commands = ("sample", "train", "data", "evaluate", "log", "copy", "push", "export")
    for words in ((), *((name,) for name in commands)):
        result = CliRunner().invoke(app, [*words, "--help"], prog_name="minidiff")
        assert result.exit_code == 0
        said += ["$", "minidiff", *words, "--help", *result.stdout.split()]
    # Compared word by word: lines are as long as the page is wide here, the terminal there.
    assert COMMANDS.split() == said
