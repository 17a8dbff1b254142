"""Measure what running each chapter costs, and write the table of book/how_to_use.md.

    python tools/book/notebook_costs.py "two cores of an AMD EPYC"     # the machine, in words
    python tools/book/notebook_costs.py ... notebooks/03_noising.ipynb # only some; other rows stay

Every notebook runs in a kernel of its own and is not stored. The time is that of all its cells (the
start of the kernel included), the memory the largest that the kernel ever held.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "book" / "how_to_use.md"
TABLE = re.compile(r"(?s)(<!-- costs -->\n).*?(<!-- end of costs -->)")
ROW = re.compile(r"(?m)^\| \[\]\(\.\./notebooks/(\w+)\.ipynb\) \| (.*?) \| (.*?) \|$")
# In units of 1024 bytes on Linux, of one byte on macOS.
PROBE = """
import resource, sys
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak / (2**30 if sys.platform == "darwin" else 2**20))
"""


def cost(path: Path) -> tuple[float, float]:
    """Seconds and gigabytes (2³⁰ bytes) of running one notebook."""
    notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    probe = nbformat.v4.new_code_cell(PROBE.strip())
    notebook.cells.append(probe)
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    start = time.perf_counter()
    client.execute()
    return time.perf_counter() - start, float(probe.outputs[-1].text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure what running each chapter costs.")
    parser.add_argument("machine", help='in words, for instance "two cores of an AMD EPYC"')
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/")
    options = parser.parse_args(arguments)

    page = PAGE.read_text(encoding="utf-8")
    old = TABLE.search(page)
    if old is None:
        print(
            f"{PAGE} has lost its lines <!-- costs --> and <!-- end of costs -->", file=sys.stderr
        )
        return 1
    rows = {name: f"{seconds} | {memory}" for name, seconds, memory in ROW.findall(old[0])}

    for path in options.notebooks:
        if not path.is_file():
            parser.error(f"there is no notebook {path}")
    for path in options.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb")):
        seconds, memory = cost(path)
        print(f"{path.stem}: {seconds:.0f} s, {memory:.1f} GB", flush=True)
        rows[path.stem] = f"{seconds:.0f} s | {memory:.1f} GB"

    lines = ["| chapter | on a CPU | memory |", "|---|---|---|"]
    lines += [
        f"| [](../notebooks/{name}.ipynb) | {row} |"
        for name, row in sorted(rows.items())
        if (ROOT / "notebooks" / f"{name}.ipynb").is_file()
    ]
    lines += ["", f"CPU: {options.machine}."]
    PAGE.write_text(
        TABLE.sub(lambda m: m[1] + "\n".join(lines) + "\n" + m[2], page), encoding="utf-8"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
