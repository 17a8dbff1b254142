"""The benchmarks: the page is fresh, and what is missing is said in one line."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import ROOT
from minidiff.recipe import TrainingConfig
from minidiff.unet import UNetConfig

BENCHMARKS = ROOT / "benchmarks"
PEERS = ("diffusers", "denoising_diffusion_pytorch", "smalldiffusion")
SCRIPTS = sorted(
    path.stem for path in BENCHMARKS.glob("*.py") if "def main" in path.read_text(encoding="utf-8")
)


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def no_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no other library were installed."""
    for name in list(sys.modules):
        if name.partition(".")[0] in PEERS:
            monkeypatch.delitem(sys.modules, name)
    for name in PEERS:
        monkeypatch.setitem(sys.modules, name, None)
    machine = importlib.import_module("machine")
    found = machine.find_spec
    monkeypatch.setattr(machine, "find_spec", lambda n: None if n in PEERS else found(n))


def start(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    """Run a benchmark as a program; what it ends with."""
    monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(name).main()
    return ended.value.code


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_needs_no_other_library(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    no_peers: None,
) -> None:
    assert start(name, monkeypatch, "--help") == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["step_and_forward", "time_to_quality", "sixteen_glyphs"])
def test_a_missing_library_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, no_peers: None
) -> None:
    message = start(name, monkeypatch)  # a text as code: it is printed, and the code is 1
    assert isinstance(message, str)
    assert "\n" not in message
    assert "diffusers" in message
    assert "benchmarks/requirements.txt" in message
    assert f"benchmarks/{name}.py" in message
    commands = (BENCHMARKS / "requirements.txt").read_text(encoding="utf-8")
    assert "-m venv benchmarks/.venv" in commands


def test_no_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "CUDA" in start("gpu", monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**30, 2**34))
    assert "1.0 of its 16.0 are free" in start("gpu", monkeypatch)


def test_what_a_gpu_would_do_runs() -> None:
    gpu = importlib.import_module("gpu")
    unet = UNetConfig(channels=(32, 32, 32), stem=2, text_dim=8)
    config = TrainingConfig(network=unet, image_size=16, batch_size=2)
    rows = []
    for precision in ("fp32", "bf16"):
        row = gpu.Row(config, torch.device("cpu"), precision, False, True)
        before = [p.clone() for p in row.network.parameters()]
        figures = row.measure(rounds=2)
        assert any(bool((a != b).any()) for a, b in zip(before, row.network.parameters()))
        for name in ("train", "sample"):
            figures[name]["megabytes"] = 1
        settings = {"precision": precision, "compiled": False, "channels_last": True}
        rows.append({**settings, **figures})
    rows.append({"precision": "fp32", "compiled": True, "channels_last": True})
    rows[-1]["out_of_memory"] = True
    machine = importlib.import_module("machine").machine()
    text = gpu.section({"machine": machine, "device": "T4", "batch": 2, "rounds": 2, "rows": rows})
    assert text.count("\n| bf16 | no | yes |") == 1
    assert "does not fit into memory" in text


def test_plain_attention_is_the_same_attention() -> None:
    ablation = importlib.import_module("ablation")
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 5, 8)
    mask = torch.rand(2, 1, 1, 5) < 0.7
    mask[..., 0] = True
    for some in (None, mask):
        expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, some)
        assert ablation.plain_attention(query, key, value, some).allclose(expected, atol=1e-6)


def test_measuring_knows_slow_from_quick() -> None:
    measuring = importlib.import_module("measuring")
    quick, slow = [1.0, 1.0, 2.0], [2.0, 3.0, 6.0]
    assert measuring.times_faster(quick, slow) == 3.0
    assert measuring.times_faster(slow, quick) == 0.333
    assert measuring.spread([1, 2, 3, 4, 5]) == {"median": 3.0, "quartiles": [2.0, 4.0]}
    calls: list[str] = []
    actions = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = measuring.in_turns(actions, 2, warm_up=1)
    assert calls == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_the_page_is_fresh() -> None:
    page = importlib.import_module("page")
    written = page.PAGE.read_text(encoding="utf-8")
    assert page.page() == written, "run python benchmarks/page.py"


def test_the_pictures_of_the_page_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = importlib.import_module("page")
    shown = re.findall(r"```\{image\} (\S+)\n:alt: \S", page.page())
    assert len(shown) == len(page.PICTURES)
    assert all((page.PAGE.parent / place).is_file() for place in shown), "run benchmarks/page.py"
    (tmp_path / "_static").mkdir()
    monkeypatch.setattr(page, "PAGE", tmp_path / "benchmarks.md")
    page.draw_pictures()
    assert all((tmp_path / place).stat().st_size > 5_000 for place in shown)


def test_the_page_has_only_numbers() -> None:
    page = importlib.import_module("page")
    for path in page.RESULTS.glob("*.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["machine"]
    for names in page.PARTS:
        text = page.part(*names)
        assert text.startswith("## ")
        assert not re.search(r"\b(nan|inf|None)\b(?! failed)", text), names
        widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
        assert all(width > 2 for width in widths)


def test_what_was_not_measured_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = importlib.import_module("page")
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    text = page.page()
    assert "Not yet measured on a GPU: `python benchmarks/gpu.py` does it." in text
    for _, module, heading in page.PARTS:
        assert f"## {heading}" in text
        path = "tests/faults/run.py" if module == "page" else f"benchmarks/{module}.py"
        assert f"`python {path}` does it." in text


def test_faults_are_counted() -> None:
    page = importlib.import_module("page")
    machine = importlib.import_module("machine").machine()
    row = {"right": 3, "clear_error": 4, "failed": 0}
    result = {"cases": {"disk": row}, "machine": machine, "command": "python tests/faults/run.py"}
    text = page.section(result)
    assert "None failed." in text
    assert "| disk | 3 | 4 | 0 |" in text
    row["failed"] = 2
    assert "2 failed." in page.section(result)


@pytest.mark.parametrize(("of_800", "above"), [(0.07, 800), (0.12, 500)])
def test_specks_are_said_to_arise_where_they_do(
    benchmarks: None, of_800: float, above: int
) -> None:
    strokes = importlib.import_module("strokes")
    rows = {"20": 0.0, "500": 0.01, "800": of_800, "900": 0.14, "1000": 0.18}
    said = strokes._verdict({t: {"specks": specks} for t, specks in rows.items()})
    assert f"arise above t = {above}:" in said
