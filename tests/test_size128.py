"""The benchmark of 128 × 128: what its measures of seams and of cost mean, and its table."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from helpers import ROOT
from minidiff.autoencoder import Autoencoder, AutoencoderConfig
from minidiff.model import ModelConfig, save_model


@pytest.fixture
def size128(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("size128")


def test_minutes_are_those_of_all_stages_and_cores(size128: Any) -> None:
    record = {
        "seconds": 120, "device": "cuda (H100, 4 threads)", "processes": 2,
        "stages": [
            {"seconds": 600, "device": "cpu (x86_64, 2 threads)"},
            {"seconds": 60, "device": "cpu (x86_64, 1 threads)", "processes": 3},
        ],
    }  # fmt: skip
    assert size128.minutes(record) == {"core_minutes": 23.0, "gpu_minutes": 4.0}


def test_cost_counts_every_part_once(size128: Any, tmp_path: Path) -> None:
    shape = AutoencoderConfig(latent_channels=3, widths=(8,), stem=2)
    network, record = Autoencoder(shape), {"images_seen_in_all": 7, "seconds": 60}
    for name in ("one", "two"):
        save_model(tmp_path / name, network, ModelConfig(shape, 8), record)
    cost = size128.cost([str(tmp_path / "one"), str(tmp_path / "two")])
    each = sum(x.numel() for x in network.state_dict().values())
    assert cost["parameters"] == 2 * each and cost["glyphs_seen"] == [7, 7]
    assert cost["core_minutes"] == 2 and cost["parts"]["two"]["parameters"] == each


def test_the_table_has_a_row_for_each_way(size128: Any) -> None:
    measures = {
        "excess": 1.25, "standard_error": 0.2, "recall": 0.7, "edge_width": 1.1, "specks": 0.02,
        "seams_8": 0.01, "words": 0.99, "parameters": 4_800_000, "glyphs_seen": [1000, 200],
        "core_minutes": 60, "gpu_minutes": 0, "evaluations": 40, "seconds_for_16": 5.0,
    }  # fmt: skip
    machine = importlib.import_module("machine").machine()
    result = {
        "machine": machine, "samples": 1034, "per_word": 16, "real": measures,
        "rows": {"latents": measures, "pixels": {**measures, "gpu_minutes": 9}},
    }  # fmt: skip
    lines = [x for x in size128.section(json.loads(json.dumps(result))).splitlines() if "|" in x]
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 5
    assert "| 1,000 + 200 | 60 |" in lines[2] and "| 60 (9) |" in lines[3]
