"""Ask PyPI, by way of pip-audit, whether a version in constraints.txt has a known vulnerability.

    python tools/audit.py      # exit status 1 if one has

A service that cannot be reached, or that knows nothing, must not look like a clean answer: it is
asked first about a release that has long been known to be vulnerable. Where it does not say so, one
line tells that nothing was checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONTROL = "jinja2==2.10"
# What is known, cannot be mended by another version, and does not concern us: id -> why.
IGNORED: dict[str, str] = {}


def ask(requirements: Path) -> tuple[list[dict[str, Any]], str]:
    """What pip-audit says of each package in a file of pins, and its last word on errors."""
    program = str(Path(sysconfig.get_path("scripts"), "pip-audit"))
    options = ["--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off"]
    command = [program, *options, "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    trouble = done.stderr.strip().rpartition("\n")[2]
    return (json.loads(done.stdout)["dependencies"] if done.stdout.strip() else []), trouble


def answers() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        control = Path(folder, "control.txt")
        control.write_text(CONTROL + "\n", encoding="utf-8")
        return any(package.get("vulns") for package in ask(control)[0])


def main() -> int:
    if not answers():
        print("pip-audit: no answer from the service, skipped")
        return 0
    packages, trouble = ask(ROOT / "constraints.txt")
    if not packages:
        print(f"pip-audit: {trouble}", file=sys.stderr)
        return 1
    found = 0
    for package in packages:
        if "skip_reason" in package:
            print(f"pip-audit: not checked: {package['skip_reason']}")
        for flaw in package.get("vulns", []):
            if not IGNORED.keys() & {flaw["id"], *flaw["aliases"]}:
                fixed = ", ".join(flaw["fix_versions"]) or "none yet"
                print(f"{package['name']} {package['version']}: {flaw['id']}, mended in {fixed}")
                found += 1
    print(f"pip-audit: {found} known vulnerabilities in {len(packages)} packages")
    return min(found, 1)


if __name__ == "__main__":
    sys.exit(main())
