"""The check for known vulnerabilities: clean, vulnerable, and a service that does not answer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from helpers import load_script

FLAW = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"], "description": ""}
VULNERABLE = {"name": "jinja2", "version": "2.10", "vulns": [FLAW]}
CLEAN = {"name": "jinja2", "version": "3.9", "vulns": []}
UNKNOWN = {"name": "jinja2", "skip_reason": "Dependency not found on PyPI"}


@pytest.fixture
def audit() -> ModuleType:
    return load_script("tools/audit.py")


def pip_audit_says(
    monkeypatch: pytest.MonkeyPatch, control: dict[str, Any] | None, pins: dict[str, Any] | None
) -> None:
    """Let pip-audit say this of the control and of the pins; None: it finds no service."""

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        package = control if Path(command[-1]).name == "control.txt" else pins
        text = "" if package is None else json.dumps({"dependencies": [package]})
        return subprocess.CompletedProcess(command, 1, text, "ERROR: could not connect\n")

    monkeypatch.setattr(subprocess, "run", run)


def test_a_clean_answer_passes(audit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_audit_says(monkeypatch, VULNERABLE, CLEAN)
    assert audit.main() == 0


def test_a_vulnerability_fails_unless_it_is_ignored(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pip_audit_says(monkeypatch, VULNERABLE, VULNERABLE)
    assert audit.main() == 1
    assert "jinja2 2.10: PYSEC-1, mended in 2.0" in capsys.readouterr().out
    monkeypatch.setitem(audit.IGNORED, "CVE-1", "for this test")
    assert audit.main() == 0


@pytest.mark.parametrize("control", [None, UNKNOWN, CLEAN])
def test_no_answer_is_not_a_clean_one(
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    control: dict[str, Any] | None,
) -> None:
    pip_audit_says(monkeypatch, control, CLEAN)
    assert audit.main() == 0
    assert capsys.readouterr().out == "pip-audit: no answer from the service, skipped\n"


def test_an_answer_that_breaks_off_fails(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pip_audit_says(monkeypatch, VULNERABLE, None)
    assert audit.main() == 1
    assert "could not connect" in capsys.readouterr().err
