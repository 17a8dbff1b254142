"""Change the weights that ship: one command, from a trained run to the book that shows them.

    python tools/release/release.py --model runs/x --training training.md --failures failures.md

1. evaluation   `minidiff evaluate --full` of the weights as they will ship: half an hour
2. comparison   with the model that ships now; asks, and without a yes nothing is changed
3. the model    weights, record and card into minidiff/models, the figures into README.md
4. notebooks    those that are stale, two at a time; a cell that fails holds up no other notebook
5. pictures     of README, book and dials, by the model and out of the chapters
6. benchmarks   of the quality (two hours of one core; --without-benchmarks), and their page
7. report       every cell that failed, its assert, and the prose around it: true no longer

Mend what the report names and give the same command again: it goes on where it stopped, and runs
the notebooks that failed. Figures, what is done, and what each step printed lie in runs/release;
the log to be committed, tools/release/log_NAME.md, tells of all runs with these weights. The exit
status is 1 if a cell still fails, or after a no.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import record_tables
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from minidiff.model import load_model, save_model
from minidiff.shelf import DEFAULT_MODEL, find_model
from minidiff.storage import read_info

ROOT = Path(__file__).resolve().parents[2]
# What the figures of an evaluation depend on, beside the weights.
JUDGES = (
    *("evaluation", "wanted", "metrics", "recogniser", "held_out", "captions", "glyphs"),
    *("pipeline", "frames", "samplers", "schedules", "denoisers", "unet", "spaces"),
)


def script(place: str) -> Any:
    """Another script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(Path(place).stem, ROOT / place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


notebooks = script("tools/book/notebooks.py")


class Release:
    """One change of weights, and how far it has come.

    Args:
        model: run or model folder.
        name: under which it ships.
        root: of the repository.

    Attributes:
        candidate: folder of the weights as they will ship.
        weights: their SHA-256.
        state: all that the log tells, kept in runs/release; of these weights only.

    Raises:
        SystemExit: for a model that reads no text.
    """

    def __init__(self, model: str, name: str = "glyph64", root: Path = ROOT) -> None:
        self.root, self.shipped = root, root / "minidiff" / "models" / name
        self.folder = root / "runs" / "release"
        self.network, self.config, self.record = load_model(find_model(model))
        if self.config.text_encoder is None and self.config.first_stage is None:
            raise SystemExit(
                f"{model} draws without text (its text_encoder is None), but most of what is "
                "measured is how it draws what a text says: give a model trained with texts"
            )
        self.candidate = self.folder / "candidate"
        save_model(self.candidate, self.network, self.config, self.record)
        self.weights = weights_of(self.candidate)
        kept = self.folder / "state.json"
        self.state = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
        if (self.state.get("name"), self.state.get("weights")) != (name, self.weights):
            machine = script("benchmarks/machine.py")
            self.state = {"name": name, "weights": self.weights, "steps": {}, "flagged": []}
            self.state["machine"] = machine.described(machine.machine())
            self.state["old"] = self._what_ships()

    def _what_ships(self) -> dict[str, Any] | None:
        """Digest, figures and size of the model that is to be replaced."""
        if not (self.shipped / "config.json").exists():
            return None
        return {
            "weights": weights_of(self.shipped),
            "figures": read_info(self.shipped)["record"].get("evaluation"),
            "size": record_tables.size(self.shipped),
        }

    def save(self) -> None:
        text = json.dumps(self.state, indent=1, ensure_ascii=False)
        (self.folder / "state.json").write_text(text, "utf-8")
        if self.state.get("agreed"):
            log = self.root / "tools" / "release" / f"log_{self.shipped.name}.md"
            log.write_text(record_tables.log(self.state), "utf-8")

    def step(self, name: str, action: Callable[[], object], depends_on: str = "") -> None:
        """Do it under its heading; with `depends_on` only if it is not done for the same yet.

        The seconds of all runs for the same are added up.
        """
        key = digest(self.weights, depends_on)
        done = self.state["steps"].get(name, {})
        same = done.get("key") == key
        print(f"\n## {name}", flush=True)
        if depends_on and same:
            print(f"done before, in {done['seconds']:,} s")
            return
        started = time.perf_counter()
        action()
        seconds = round(time.perf_counter() - started)
        before = done["seconds"] if same else 0
        self.state["steps"][name] = {"key": key, "seconds": before + seconds}
        self.save()
        print(f"{seconds:,} s")

    def run(self, *command: str, log: str, must: bool = True, threads: str = "") -> str:
        """Run Python with these arguments; what it prints goes into a log, and is returned.

        Warnings and errors go into a log of their own, and are returned only if it fails.

        Raises:
            SystemExit: if it must succeed and does not.
        """
        paths = [self.folder / f"{log}{end}" for end in (".log", ".errors.log")]
        print(f"{' '.join(command)}  (prints into {paths[0].relative_to(self.root)})", flush=True)
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
        if threads:
            environment["OMP_NUM_THREADS"] = threads
        with (
            paths[0].open("w", encoding="utf-8") as out,
            paths[1].open("w", encoding="utf-8") as err,
        ):
            done = subprocess.run(
                [sys.executable, *command],
                cwd=self.root,
                env=environment,
                stdout=out,
                stderr=err,
                check=False,
            )
        printed, errors = (path.read_text("utf-8", errors="replace") for path in paths)
        if not done.returncode:
            return printed
        if must:
            told = last_line(errors or printed)
            raise SystemExit(f"{' '.join(command)} failed: {told} (see {paths[1]})")
        return printed + errors

    def evaluate(self) -> dict[str, Any]:
        """The figures of the new weights, kept as long as what measures them stays as it is."""
        kept = self.folder / f"figures-{self.weights[:12]}.json"
        code = [notebooks.module_code(f"minidiff.{name}", ROOT / "minidiff") for name in JUDGES]
        key = digest(self.weights, code)

        def measure() -> None:
            command = ("-m", "minidiff", "evaluate", "--full", "--json", "--model")
            printed = self.run(*command, str(self.candidate), log="evaluation")
            figures = {"key": key, "figures": json.loads(printed)}
            kept.write_text(json.dumps(figures, indent=1), "utf-8")

        earlier = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
        if earlier.get("key") == key:
            print(f"\n## evaluation\nkept from before, in {kept.relative_to(self.root)}")
        else:
            self.state["steps"].pop("evaluation", None)  # of other code: not to be added up
            self.step("evaluation", measure)
        return dict(json.loads(kept.read_text("utf-8"))["figures"])

    def compare(self, figures: dict[str, Any], yes: bool) -> None:
        """Old and new side by side; ends the program unless the answer is yes."""
        new = {"figures": figures, "size": record_tables.size(self.candidate)}
        self.state["table"] = record_tables.comparison(self.state["old"], new)
        print("\n## comparison\n" + "\n".join(self.state["table"]))
        if not (yes or self.state.get("agreed") or said_yes()):
            raise SystemExit("not shipped, nothing is changed: answer yes or give --yes to go on")
        self.state["agreed"] = True
        self.save()

    def ship(self, figures: dict[str, Any], training: str, failures: str) -> None:
        """Weights, record and card; the figures of README.

        All texts are made before anything is written, so that one that cannot be made changes
        nothing.
        """
        quality = record_tables.quality(figures, self.record)
        record = {**self.record, "quality": quality, "evaluation": figures}
        size = record_tables.size(self.candidate)
        name, readme = self.shipped.name, self.root / "README.md"
        texts = {
            self.shipped / "README.md": record_tables.card(
                name, self.config, record, size, training, failures
            )
        }
        if name == DEFAULT_MODEL:
            texts[readme] = record_tables.readme(readme.read_text("utf-8"), record, size)
        (self.shipped / "README.md").unlink(missing_ok=True)  # of the model that is replaced
        save_model(self.shipped, self.network, self.config, record)
        for path, text in texts.items():
            path.write_text(text, "utf-8")

    def run_notebooks(self) -> None:
        """All that are stale; those that fail run once more, to the end, for all failed cells."""
        package = self.root / "minidiff"
        paths = sorted((self.root / "notebooks").glob("*.ipynb"))
        stale = [path for path in paths if notebooks.is_stale(path, package)]

        def printed_by(path: Path) -> str:
            return self.run("tools/book/notebooks.py", str(path), log=path.stem, must=False)

        with ThreadPoolExecutor(2) as pool:
            printed = dict(zip(stale, pool.map(printed_by, stale)))
        found = []
        for path in stale:
            if notebooks.is_stale(path, package):  # it was not stored
                found += failed_cells(path) or [flag(path, message=last_line(printed[path]))]
        self.state["flagged"] = with_mended(found, self.state["flagged"])

    def script(self, place: str, quick: bool = False, threads: str = "") -> None:
        """One script as a step; done again when the script has changed, a quick one every time."""
        source = "" if quick else (self.root / place).read_text("utf-8")
        self.step(place, lambda: self.run(place, log=Path(place).stem, threads=threads), source)


def digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode("utf-8")).hexdigest()


def weights_of(folder: Path) -> str:
    return str(read_info(folder)["files"]["model.safetensors"])


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it printed nothing"])[-1]


def said_yes() -> bool:
    try:
        return input("Ship these weights? yes or no: ").strip().lower() == "yes"
    except EOFError:  # nobody is there
        return False


# ------------------------------------------------------------------- failed cells


def failed_cells(path: Path) -> list[dict[str, Any]]:
    """Every cell of a notebook that fails when all of them are run, and the prose around it."""
    notebook = notebooks.read(path)
    client = NotebookClient(
        notebook,
        timeout=notebooks.TIMEOUT,
        kernel_name=notebooks.KERNEL["name"],
        allow_errors=True,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute(env={**os.environ, "OMP_NUM_THREADS": "1"})  # as in notebooks.py
    except (CellTimeoutError, DeadKernelError) as error:
        return [flag(path, message=last_line(str(error)))]
    found = []
    for place, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                code = failed_statement(cell.source, "\n".join(output.traceback))
                message = f"{output.ename}: {output.evalue}".rstrip(": ")
                found.append(flag(path, code, message, prose_around(notebook.cells, place)))
    return found


def flag(path: Path, code: str = "", message: str = "", prose: Any = ()) -> dict[str, Any]:
    told = {"notebook": path.stem, "code": code, "message": message, "prose": [*prose]}
    return {**told, "mended": False}


def with_mended(found: list[dict[str, Any]], before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cells that fail now, and those of earlier runs that fail no more, marked as mended."""
    now = {(cell["notebook"], cell["code"]) for cell in found}
    gone = [cell for cell in before if (cell["notebook"], cell["code"]) not in now]
    return [*found, *({**cell, "mended": True} for cell in gone)]


def failed_statement(source: str, traceback: str) -> str:
    """The assert of a cell at which its traceback points; of another error the line."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", traceback)
    found = re.search(r"(?m)^-+> (\d+) ", plain)  # the first is the cell's, then what it called
    lines = source.splitlines()
    if found is None or int(found[1]) > len(lines):
        return lines[-1]
    number = int(found[1])
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:  # a magic
        nodes = []
    for node in nodes:
        if isinstance(node, ast.Assert) and node.lineno <= number <= (node.end_lineno or 0):
            return ast.get_source_segment(source, node) or ""
    return lines[number - 1].strip()


def prose_around(cells: list[Any], place: int) -> list[str]:
    """The nearest cell of Markdown before a cell, its caption, the nearest Markdown after it."""
    before = [cell.source for cell in cells[:place] if cell.cell_type == "markdown"]
    after = [cell.source for cell in cells[place + 1 :] if cell.cell_type == "markdown"]
    caption = cells[place].metadata.get("mystnb", {}).get("figure", {}).get("caption")
    return [*before[-1:], *([caption] if caption else []), *after[:1]]


# ------------------------------------------------------------------- all of it


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="run or model folder")
    parser.add_argument("--name", default="glyph64", help="under which it ships (glyph64)")
    parser.add_argument("--training", type=Path, required=True, help="text: how it was trained")
    parser.add_argument("--failures", type=Path, required=True, help="text: what it does badly")
    parser.add_argument("--yes", action="store_true", help="ship without asking")
    parser.add_argument(
        "--without-benchmarks", action="store_true", help="leave out the two hours of step 6"
    )
    options = parser.parse_args(arguments)
    for path in (options.training, options.failures):
        if not path.is_file():
            parser.error(f"there is no file {path}")
    texts = [path.read_text("utf-8").strip() for path in (options.training, options.failures)]
    release = Release(options.model, options.name, root)
    figures = release.evaluate()
    release.compare(figures, options.yes)
    release.step("the model", lambda: release.ship(figures, *texts))
    release.step("notebooks", release.run_notebooks)
    release.script("tools/book/pictures.py")
    release.script("tools/book/dials.py")
    release.script("tools/book/contents_pictures.py", quick=True)
    if not options.without_benchmarks:
        # In this order, for the second takes cells of the first; both go on where they stopped.
        release.script("benchmarks/evaluations.py", threads="1")
        release.script("benchmarks/sixteen_glyphs.py", threads="1")
        release.script("benchmarks/strokes.py", threads="1")
    release.script("benchmarks/page.py", quick=True)
    flagged = release.state["flagged"]
    print("\n## report\n" + "\n".join(record_tables.report(flagged)))
    return 0 if all(cell["mended"] for cell in flagged) else 1


if __name__ == "__main__":
    sys.exit(main())
