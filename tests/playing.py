"""The page that draws, built and served, for its tests."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from helpers import ROOT, load_script

AXE = ROOT / "_build" / "play" / "node_modules" / "axe-core" / "axe.min.js"  #: once it is built
# Models that do not ship yet, to be tried: NAME=DIR, with a comma between two.
INSTEAD = dict(
    pair.split("=", 1) for pair in os.environ.get("MINIDIFF_PLAY", "").split(",") if pair
)


def built_site() -> Path:
    """A folder like the built book's, as far as the page needs it; built once, then kept."""
    pytest.importorskip("onnxscript", reason='no onnxscript: pip install -e ".[play]"')
    site = ROOT / "_build" / "play" / "site"
    sys.path.insert(0, str(ROOT / "tools" / "play"))  # its scripts import each other
    site.mkdir(parents=True, exist_ok=True)
    with FileLock(site / "lock"):
        for name in ("play", "players", "atlas"):
            shutil.copytree(
                ROOT / "book" / "_static" / name, site / "_static" / name, dirs_exist_ok=True
            )
        load_script("tools/play/build_play.py").build(site / "_static" / "play", INSTEAD)
    return site


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder."""
    serve = load_script("tools/play/serve.py")
    server = serve.server(folder, handler=serve.Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/_static/play/index.html"
    finally:
        server.shutdown()
        server.server_close()
