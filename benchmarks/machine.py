"""What every benchmark writes beside its figures, and what it says when a library is missing."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine(*packages: str) -> dict[str, Any]:
    """Processor, cores, the GPU if there is one, and versions."""
    import torch

    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **gpu,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", *packages)},
    }


def need(*packages: str) -> None:
    """End with one line if a library to compare with is not installed."""
    missing = [name for name in packages if find_spec(name.replace("-", "_")) is None]
    if missing:
        sys.exit(
            f"{' and '.join(missing)} to compare with cannot be imported: make the environment "
            f"benchmarks/.venv by the commands at the top of benchmarks/requirements.txt, then: "
            f"benchmarks/.venv/bin/python {' '.join(sys.argv)}"
        )


def described(machine: dict[str, Any]) -> str:
    """The machine of a result in words: "AMD EPYC, 1 thread, torch 2.13.0"."""
    threads = machine["threads"]
    hardware = ("processor", "cores", "threads", "gpu")
    versions = {k: v for k, v in machine.items() if k not in hardware}
    return ", ".join(
        [
            machine["processor"],
            f"{threads} thread{'s' if threads > 1 else ''}",
            *([machine["gpu"]] if "gpu" in machine else []),
            *(f"{name} {str(v).partition('+')[0]}" for name, v in versions.items()),
        ]
    )


def write(name: str, result: dict[str, Any]) -> None:
    """Keep a result as benchmarks/results/<name>.json and show it."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=2, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
