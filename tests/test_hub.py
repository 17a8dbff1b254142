"""Models of the Hugging Face Hub, from a small server here that answers as the Hub does."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import minidiff
from faults.calls import command_line
from helpers import names, printed_by
from minidiff import hub
from minidiff.model import ModelConfig, save_model
from minidiff.storage import CheckpointError, read_info
from minidiff.unet import UNet, UNetConfig

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    shape = UNetConfig(channels=(32,), attention=(False,), text_dim=None)
    data = {"kind": "folder", "path": "D:/ann/patients", "fingerprint": "0123"}
    record = {"training_images": 3, "seconds": 120, "recipe": {"steps": 7}, "device": "cpu"}
    record |= {"data": data, "words": ["secret"], "stages": [{"data": data, "words": ["secret"]}]}
    save_model(tmp_path / "model", UNet(shape), ModelConfig(shape, image_size=8), record)
    return tmp_path / "model"


class Hub:
    """Repositories by name, each its files; and what was asked for."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        parts = request.path.partition("?")[0].strip("/").split("/")
        of_api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if of_api else parts[:2])
        files, file = self.repositories.get(name), "/".join(parts[4:])
        revision = (parts[5:6] or ["main"])[0] if of_api else (parts[3:4] or [""])[0]
        payload, headers = b"", {}
        if files is None:
            status, headers = 404, {"X-Error-Code": "RepoNotFound"}
        elif revision not in ("main", COMMIT):
            status, headers = 404, {"X-Error-Code": "RevisionNotFound"}
        elif of_api:
            listed = [{"rfilename": name} for name in files]
            payload = json.dumps({"id": name, "sha": COMMIT, "siblings": listed}).encode()
            status, headers = 200, {"Content-Type": "application/json"}
        elif file in files:
            self.asked.append(file)
            status, payload = 200, files[file]
            tag = hashlib.sha1(payload, usedforsecurity=False).hexdigest()
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{tag}"'}
        else:
            status, headers = 404, {"X-Error-Code": "EntryNotFound"}
        request.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(payload))}.items():
            request.send_header(key, value)
        request.end_headers()
        if body:
            request.wfile.write(payload)


@pytest.fixture
def online() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def loaded(name: str, folder: Path, online: Hub, before: str = "", **places: str) -> Any:
    """What `minidiff.load` says in a process of its own: what it opened, or its error."""
    code = before + (
        "import json, minidiff, warnings\n"
        "warnings.simplefilter('ignore')  # it says that the Hub is asked\n"
        "try:\n"
        f"    found = [minidiff.load({name!r}).config.image_size]\n"
        "except Exception as error:\n"
        "    found = [type(error).__name__, str(error)]\n"
        "print(json.dumps(found))\n"
    )
    home = {"HF_ENDPOINT": online.address, "HF_HOME": str(folder), "HF_HUB_DISABLE_XET": "1"}
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "0"}
    patient = {"HF_HUB_ETAG_TIMEOUT": "120", "HF_HUB_DOWNLOAD_TIMEOUT": "120"}
    return json.loads(printed_by(code, folder, **{**home, **quiet, **patient, **places}))


def files_of(model: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in model.iterdir()}


def test_a_model_of_the_hub_is_fetched_once_and_is_there_without_a_network(
    tmp_path: Path, online: Hub, model: Path
) -> None:
    online.repositories["ann/digits"] = {**files_of(model), "evil.py": b"", "old.bin": b""}
    assert loaded("ann/digits", tmp_path, online) == [8]
    assert set(online.asked) == {"config.json", "model.safetensors"}  # and no code
    pinned = f"ann/digits@{COMMIT}"
    online.asked.clear()
    assert loaded(pinned, tmp_path, online) == [8]
    assert loaded("ann/digits", tmp_path, online, HF_HUB_OFFLINE="1") == [8]
    assert not online.asked
    online.server.shutdown()
    online.server.server_close()
    assert loaded("ann/digits", tmp_path, online) == [8]  # nobody answers: what was fetched before
    kind, told = loaded("ann/letters", tmp_path, online)
    assert kind == "FileNotFoundError" and "no folder ann/letters here, and the Hub" in told


def test_what_is_no_model_of_ours_is_not_downloaded(
    tmp_path: Path, online: Hub, model: Path
) -> None:
    online.repositories["ann/pickle"] = {"config.json": b"{}", "pytorch_model.bin": b"x"}
    kind, told = loaded("ann/pickle", tmp_path, online)
    assert kind == "CheckpointError"
    assert "it lacks model.safetensors; pytorch_model.bin is a pickle" in told
    assert not online.asked
    foreign = {"architectures": ["Bert"], "auto_map": {"AutoModel": "evil.Model"}}
    weights = files_of(model)["model.safetensors"]
    for config in (json.dumps(foreign).encode(), b"not json"):
        online.repositories["ann/bert"] = {"config.json": config, "model.safetensors": weights}
        online.asked.clear()
        folder = tmp_path / str(len(config))
        folder.mkdir()
        kind, told = loaded("ann/bert", folder, online)
        assert kind == "CheckpointError" and "a model of another library" in told
        assert set(online.asked) == {"config.json"}
    info = json.loads(files_of(model)["config.json"])
    for encoder in ("ann/encoder", "//server/encoder", "encoder"):
        reads = {**info, "model": {**info["model"], "text_encoder": encoder}}
        asks = {"config.json": json.dumps(reads).encode(), "model.safetensors": weights}
        online.repositories["ann/asks"] = asks
        online.asked.clear()
        folder = tmp_path / str(len(encoder))
        folder.mkdir()
        kind, told = loaded("ann/asks", folder, online)
        assert kind == "CheckpointError" and f"{encoder!r}, which nobody here has asked for" in told
        assert set(online.asked) == {"config.json"}
    altered = weights[:-1] + bytes([weights[-1] ^ 1])
    online.repositories["ann/altered"] = {**files_of(model), "model.safetensors": altered}
    kind, told = loaded("ann/altered", tmp_path, online)
    assert kind == "CheckpointError" and "model.safetensors" in told


def test_what_another_program_has_cached_is_looked_at_as_well(
    tmp_path: Path, online: Hub, model: Path
) -> None:
    files = files_of(model)
    info = json.loads(files["config.json"])
    asks = {**info, "model": {**info["model"], "text_encoder": "ann/encoder"}}
    for name, config, told in (
        ("ann/asks", asks, "'ann/encoder', which nobody here has asked for"),
        ("ann/bert", {"architectures": ["Bert"]}, "a model of another library"),
    ):
        online.repositories[name] = {**files, "config.json": json.dumps(config).encode()}
        fetched = (
            "from huggingface_hub import hf_hub_download\n"
            "for file in ('config.json', 'model.safetensors'):\n"
            f"    hf_hub_download({name!r}, file)\n"
        )
        assert loaded(name, tmp_path, online, before=fetched)[0] == "CheckpointError"
        online.asked.clear()
        for wanted in (f"{name}@{COMMIT}", name):  # from the cache alone
            kind, said = loaded(wanted, tmp_path, online, HF_HUB_OFFLINE="1")
            assert kind == "CheckpointError" and told in said and "in the Hub's cache" in said
        assert not online.asked


def test_the_hub_is_not_asked_for_slips_in_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "fetch", lambda name: pytest.fail(f"asked for {name}"))
    for words in (
        ["train", "--start", "runs/x", "--output", "more"],
        ["push", "runs/x", "ann/digits", "--show-card"],
    ):
        result = command_line(words)
        assert result.status and "no model 'runs/x': give one that ships" in result.err
        assert 'minidiff.load("owner/model").save(folder)' in result.err
    assert names(tmp_path) == []


def test_names_and_revisions_that_are_not_there(tmp_path: Path, online: Hub, model: Path) -> None:
    online.repositories["ann/digits"] = files_of(model)
    kind, told = loaded("ann/nobody", tmp_path, online)
    assert kind == "FileNotFoundError" and "neither a folder ann/nobody here nor a model" in told
    kind, told = loaded("ann/digits@v9", tmp_path, online)
    assert kind == "FileNotFoundError" and "ann/digits has no revision 'v9'" in told
    (tmp_path / "runs").mkdir()  # a slip in a path asks nobody
    kind, told = loaded("runs/digist", tmp_path, online)
    assert kind == "FileNotFoundError" and "no model 'runs/digist': give one that ships" in told


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("ann/digits", True), ("ann/digits@main", True), (f"ann/a.b-c@{COMMIT}", True),
        ("glyph64", False), ("a/b/c", False), ("../model", False), ("/etc/model", False),
        ("ann/", False), ("ann/digits@", False), ("C:\\runs\\x", False),
    ],
)  # fmt: skip
def test_what_may_be_a_name_on_the_hub(text: str, fits: bool) -> None:
    assert hub.is_name(text) is fits


def test_a_card_says_what_the_record_knows(model: Path) -> None:
    text = hub.card(model)
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    assert "library_name: minidiff" in head and "unconditional-image-generation" in head
    assert "8 × 8 pixels, without text" in body and "| pictures it learnt from | 3 |" in body
    assert "| minutes | 2 |" in body and '"steps": 7' in body and "None" not in body


def test_giving_a_model_to_others_needs_a_login(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(PermissionError, match="hf auth login"):
        hub.push(model, "ann/digits")
    with pytest.raises(ValueError, match="'digits' is no name on the Hub: give owner/model"):
        hub.push(model, "digits")


def test_a_push_is_one_commit_of_the_files_and_a_card(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, dict[str, bytes]]] = []

    class Api:
        def create_repo(self, name: str, private: bool, exist_ok: bool) -> None:
            assert private and exist_ok

        def file_exists(self, name: str, file: str) -> bool:
            return bool(done)

        def create_commit(self, name: str, adds: list[Any], commit_message: str) -> Any:
            done.append((name, {add.path_in_repo: add.path_or_fileobj for add in adds}))
            return type("Commit", (), {"commit_url": f"https://hub/{name}/commit/1"})

    monkeypatch.setattr("huggingface_hub.get_token", lambda: "a token")
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert hub.push(model, "ann/digits", private=True) == "https://hub/ann/digits/commit/1"
    name, files = done[0]
    assert name == "ann/digits" and set(files) == {*hub.FILES, "README.md"}
    assert b'minidiff.load("ann/digits")' in files["README.md"]
    assert files["model.safetensors"] == (model / "model.safetensors").read_bytes()
    config = files["config.json"].decode()
    assert "patients" not in config and "secret" not in config and '"seconds": 120' in config
    (model.parent / "got").mkdir()
    for place, content in files.items():
        (model.parent / "got" / place).write_bytes(content)
    assert minidiff.load(model.parent / "got").record["device"] == "cpu"  # it opens elsewhere
    hub.push(model, "ann/digits", private=True)  # a card that somebody has written stays
    assert set(done[1][1]) == set(hub.FILES)
    (model / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        hub.push(model, "ann/digits", private=True)
    assert len(done) == 2
    assert read_info(model)["record"]["device"] == "cpu"


def test_the_command_shows_the_card_and_sends_nothing(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "push", lambda *_: pytest.fail("it was sent"))
    result = command_line(["push", str(model), "ann/digits", "--show-card"])
    assert result.status == 0 and 'minidiff.load("ann/digits")' in result.out
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    result = command_line(["push", str(model), "ann/digits"])
    assert result.status and "hf auth login" in result.err and "Traceback" not in result.err
