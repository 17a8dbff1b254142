"""What can go wrong, tried: killed processes, full disks, damaged files, bad input.

    python tests/faults/run.py                         # everything; six minutes on a busy machine
    python tests/faults/run.py --short                 # a few cases of every family, as in tests
    python tests/faults/run.py --only "crash points"   # one family

Every case must end in the right result or in a clear error; nothing half-written may ever be
loaded, and nothing be executed from a file. What that means is in `frame.py`. The long form
writes benchmarks/results/faults.json, for one family its entry. Needs a system that can fork.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
# On the CPU, with one thread, which a fork survives; before torch is imported.
os.environ |= {
    "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}  # fmt: skip
os.environ.pop("MINIDIFF_CACHE", None)
# For the processes that are started elsewhere, where minidiff need not be installed.
places = [str(ROOT), os.environ.get("PYTHONPATH")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))

import torch  # noqa: E402

from faults import calls, crashes, disks, endings, pictures, surroundings, tiny  # noqa: E402
from faults.frame import Tally  # noqa: E402
from helpers import SkippedError  # noqa: E402

FAMILIES: dict[str, Callable[[Tally, bool], None]] = {
    "crash points": crashes.crash_points,
    "random kills": crashes.random_kills,
    "full disk": disks.full_disk,
    "damaged files": disks.damaged_files,
    "nothing executed": disks.nothing_executed,
    "read-only home": disks.read_only_home,
    "polite endings": endings.polite_endings,
    "two in one folder": endings.two_in_one_folder,
    "two trainings": surroundings.two_trainings,
    "shared cache": surroundings.shared_cache,
    "network refused": surroundings.network_refused,
    "odd paths": surroundings.odd_paths,
    "C locale": surroundings.c_locale,
    "odd pictures": pictures.odd_pictures,
    "odd tables": pictures.odd_tables,
    "bad command lines": calls.bad_command_lines,
    "any values": calls.any_values,
}


def run(only: str | None = None, short: bool = False) -> dict[str, Tally]:
    """Try the families, or one of them; a line for each as it ends."""
    torch.set_num_threads(1)
    tiny.warm_up()
    results = {}
    for name, family in FAMILIES.items():
        if only not in (None, name):
            continue
        print(f"{name}: {family.__doc__}", flush=True)
        tally, started = Tally(), time.monotonic()
        try:
            family(tally, short)
        except SkippedError as reason:
            tally.skipped = str(reason)
        tally.seconds = round(time.monotonic() - started)
        results[name] = tally
        print(f"  {tally.cases} cases, {tally.seconds} s", flush=True)
    return results


def table(results: dict[str, Tally]) -> str:
    lines = [f"{'':24}{'cases':>7}{'right':>7}{'clear error':>13}{'failed':>8}"]
    for name, tally in results.items():
        counts = f"{tally.right:>7}{tally.clear_error:>13}{len(tally.failed):>8}"
        note = f"  skipped: {tally.skipped}" if tally.skipped else ""
        lines.append(f"{name:24}{tally.cases:>7}{counts}{note}")
    return "\n".join(lines)


def as_json(results: dict[str, Tally]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "right": tally.right,
            "clear_error": tally.clear_error,
            "failed": len(tally.failed),
            "seconds": tally.seconds,
            **({"skipped": tally.skipped} if tally.skipped else {}),
        }
        for name, tally in results.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="What can go wrong, tried.")
    parser.add_argument("--short", action="store_true", help="a few cases of every family")
    parser.add_argument("--only", metavar="FAMILY", choices=FAMILIES, help=", ".join(FAMILIES))
    options = parser.parse_args()
    results = run(options.only, options.short)
    print(f"\n{table(results)}")
    for name, tally in results.items():
        for case in tally.failed:
            print(f"FAILED {name}: {case.splitlines()[0]}")
    if not options.short:
        write(results)
    return 1 if any(tally.failed for tally in results.values()) else 0


def write(results: dict[str, Tally]) -> None:
    """Put these families into the file, beside what it holds of the others."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from machine import RESULTS, machine  # type: ignore[import-not-found]

    path = RESULTS / "faults.json"
    known = json.loads(path.read_text(encoding="utf-8"))["cases"] if path.exists() else {}
    known |= as_json(results)
    cases = {name: known[name] for name in FAMILIES if name in known}
    result = {
        "machine": machine("safetensors", "accelerate"),
        "command": "python tests/faults/run.py",
        "seconds": sum(row["seconds"] for row in cases.values()),
        "cases": cases,
    }
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
