"""Models and storage: what is saved comes back, and what is not whole is never taken for it."""

from __future__ import annotations

import ast
import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import minidiff
from helpers import awake, names, odd_defaults
from minidiff import storage
from minidiff.model import ModelConfig, load_model, model_info, save_model
from minidiff.spaces import Pixels
from minidiff.storage import CheckpointError
from minidiff.unet import UNet, UNetConfig

SHAPE = UNetConfig(channels=(32,), attention=(False,), head_dim=32, text_dim=12)
CONFIG = ModelConfig(
    network=SHAPE, image_size=8, space=Pixels(0.125, 0.7), text_encoder="a 字 encoder"
)
RECORD = {"steps": 12, "note": "“quoted” 字", "losses": [0.5, 1 / 3], "nested": {"a": None}}


@pytest.fixture(scope="module")
def network() -> UNet:
    return awake(SHAPE)


@pytest.fixture
def folder(network: UNet, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_model(folder, network, CONFIG, RECORD)
    return folder


def same_weights(a: nn.Module, b: nn.Module, dtype: torch.dtype = torch.float32) -> bool:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    return all(torch.equal(left[name].to(dtype), right[name].to(dtype)) for name in left)


def edit(folder: Path, change: Callable[[dict[str, Any]], object], rehash: bool = False) -> None:
    path = folder / "config.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    change(info)
    if rehash:
        info["sha256"] = storage.info_hash(info)
    path.write_text(json.dumps(info), encoding="utf-8")


# ------------------------------------------------------------------------------- round trip


def test_a_model_comes_back(network: UNet, folder: Path) -> None:
    loaded, config, record = load_model(folder)
    assert config == CONFIG and record == RECORD
    assert same_weights(loaded, network, torch.float16)
    assert not same_weights(loaded, network)  # half precision is what was saved
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    assert not loaded.training


def test_float32_is_exact(network: UNet, tmp_path: Path) -> None:
    save_model(tmp_path / "m", network, CONFIG, dtype=torch.float32)
    loaded, _, record = load_model(tmp_path / "m")
    assert same_weights(loaded, network) and record == {}
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1, 7])
    tokens = torch.randn(2, 3, 12)
    assert torch.equal(loaded(x, t, tokens), network(x, t, tokens))


def test_the_loaded_weights_keep_the_memory_order(folder: Path) -> None:
    loaded, _, _ = load_model(folder)
    weight = loaded.get_parameter("conv_in.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_only_safetensors_and_json_are_written(folder: Path) -> None:
    assert names(folder) == ["config.json", "model.safetensors"]
    assert names(folder.parent) == ["model"]
    assert (folder / "model.safetensors").read_bytes()[8:9] == b"{"  # after the header's length


def test_saving_again_replaces_the_whole_folder(network: UNet, folder: Path) -> None:
    (folder / "left over.safetensors").write_text("", encoding="utf-8")
    save_model(folder, UNet(SHAPE), CONFIG, {"steps": 13})
    loaded, _, record = load_model(folder)
    assert record == {"steps": 13}
    assert not same_weights(loaded, network, torch.float16)
    assert names(folder) == ["config.json", "model.safetensors"]
    assert names(folder.parent) == ["model"]


@pytest.mark.parametrize(
    "theirs",
    [
        {"thesis.txt": "years of work"},
        {"config.json": '{"model_type": "t5"}', "model.safetensors": "weights of others"},
        {"model.safetensors": "weights of others"},
        {"config.json": "[1]"},
        {"inner/x": ""},
    ],
)
def test_what_others_have_saved_is_never_replaced(
    network: UNet, tmp_path: Path, theirs: dict[str, str]
) -> None:
    for name, content in theirs.items():
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_text(content, encoding="utf-8")
    first = sorted(name.split("/")[0] for name in theirs)[0]
    with pytest.raises(FileExistsError, match=f"'{first}' there was not saved by minidiff: move"):
        save_model(tmp_path / "m", network, CONFIG)
    for name, content in theirs.items():
        assert (tmp_path / "m" / name).read_text(encoding="utf-8") == content
    assert names(tmp_path) == ["m"]
    with pytest.raises(FileExistsError, match="'x' there was not saved"):
        (tmp_path / "x").write_text("a file", encoding="utf-8")
        save_model(tmp_path / "x", network, CONFIG)


def test_an_empty_folder_and_a_damaged_model_are_replaced(network: UNet, folder: Path) -> None:
    (folder / "config.json").write_text('{"format": "min', encoding="utf-8")
    save_model(folder, network, CONFIG)
    (folder.parent / "empty").mkdir()
    save_model(folder.parent / "empty", network, CONFIG)
    assert names(folder) == names(folder.parent / "empty")


def test_a_new_folder_is_made_with_its_parents(network: UNet, tmp_path: Path) -> None:
    save_model(tmp_path / "a b" / "字" / "m", network, CONFIG)
    assert load_model(tmp_path / "a b" / "字" / "m")[1] == CONFIG


def test_taking_the_hash_out_does_not_pass_an_edited_json(folder: Path) -> None:
    edit(folder, lambda info: info.pop("sha256"))
    with pytest.raises(CheckpointError, match=r"config\.json is not what was saved"):
        load_model(folder)


def test_the_layout_of_the_json_does_not_matter(folder: Path) -> None:
    path = folder / "config.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    backwards = dict(reversed(info.items()))
    path.write_text(json.dumps(backwards, ensure_ascii=True), encoding="utf-8")
    assert load_model(folder)[1] == CONFIG


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": None}, r"config of a known one \(unet, .*, diffusers_unet\), got None"),
        ({"space": "pixels"}, "space must be one of pixels, latents, got 'pixels'"),
        ({"shift": 0.0}, "shift must be from .*got 0.0"),
        ({"image_size": "64"}, "image_size must be a whole number, or two.*, got '64'"),
        ({"image_size": 0}, "image_size must be a multiple of 1 .*got 0"),
        ({"network": dataclasses.replace(SHAPE, stem=3)}, "image_size must be a multiple of 3"),
        ({"schedule": ["straight"]}, r"schedule must be a text, got \['straight'\]"),
        ({"schedule": "bent"}, "unknown schedule 'bent'"),
        ({"num_train_timesteps": 1}, "num_train_timesteps.*got 1"),
        ({"num_train_timesteps": 10**12}, "num_train_timesteps must be at most 1,000,000"),
        ({"num_train_timesteps": 1e3}, "num_train_timesteps must be a whole number, got 1000.0"),
        ({"zero_terminal_snr": "false"}, "zero_terminal_snr must be true or false, got 'false'"),
        ({"zero_terminal_snr": 0}, "zero_terminal_snr must be true or false, got 0"),
        ({"prediction_type": "noise"}, "unknown prediction_type 'noise'"),
        ({"prediction_type": "eps"}, "'eps' cannot be used"),
        ({"text_encoder": ""}, "text_encoder is ''"),
        ({"text_encoder": None}, "text_encoder is None but unet.text_dim is 12"),
        (
            {"network": dataclasses.replace(SHAPE, text_dim=None)},
            "text_encoder is 'a 字 encoder' but unet.text_dim is None",
        ),
        ({"text_encoder": 5}, "text_encoder must be a text or None, got 5"),
        ({"text_fingerprint": 5}, "text_fingerprint must be a text or None, got 5"),
        ({"max_tokens": 0}, "max_tokens must be from 1 to 65,536, got 0"),
        ({"max_tokens": None}, "max_tokens must be a whole number, got None"),
    ],
)
def test_a_model_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize("value", [None, 2, True, b"model", ["model"], {}, 0.5])
def test_what_is_no_path_is_named(value: Any, network: UNet, folder: Path) -> None:
    info = storage.read_info(folder)
    acts: list[Callable[[], object]] = [
        lambda: save_model(value, network, CONFIG),
        lambda: load_model(value),
        lambda: storage.read_info(value),
        lambda: storage.read_tensors(value, "model.safetensors", info),
        lambda: storage.read_tensors(folder, value, info),
        lambda: storage.write_folder(value, {}, {}),
    ]
    for act in acts:
        with pytest.raises(TypeError, match=r"must be a text or a pathlib\.Path, got ") as error:
            act()
        assert repr(value) in str(error.value)


def test_what_torch_is_set_to_does_not_matter(network: UNet, tmp_path: Path) -> None:
    with odd_defaults():
        save_model(tmp_path / "m", network, CONFIG, dtype=torch.float32)
        loaded, config, _ = load_model(tmp_path / "m")
        schedule = config.make_schedule()
    assert same_weights(loaded, network) and torch.equal(
        schedule.alpha, CONFIG.make_schedule().alpha
    )
    assert all(p.dtype == torch.float32 for p in loaded.parameters())


@pytest.mark.parametrize("dtype", [None, "float16", float, torch.int8])
def test_a_dtype_that_weights_cannot_have(dtype: Any, network: UNet, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="dtype must be one of floats"):
        save_model(tmp_path / "m", network, CONFIG, dtype=dtype)


# ------------------------------------------------------------------------- what is not whole


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def truncate(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    # what is done to it, what the error must name, and the remedy
    "no folder": (shutil.rmtree, "config.json", "Give the folder"),
    "no json": (lambda f: (f / "config.json").unlink(), "config.json", "Give the folder"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors", "copy it"),
    "half the weights": (lambda f: truncate(f / "model.safetensors", 0.5), "cut short", "copy it"),
    "no byte of the weights": (lambda f: truncate(f / "model.safetensors", 0), "cut short", "copy"),
    "a bit of the header": (lambda f: flip(f / "model.safetensors", 20), "altered", "copy it"),
    "a bit of a weight": (lambda f: flip(f / "model.safetensors", -100), "altered", "copy it"),
    "half the json": (lambda f: truncate(f / "config.json", 0.5), "cannot be read", "another copy"),
    "an empty json": (lambda f: truncate(f / "config.json", 0), "cannot be read", "another copy"),
    "a json that is no text": (
        lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00{"), "cannot be read", "another",
    ),
    "a json of another kind": (
        lambda f: (f / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8"),
        "another kind", "Give a folder",
    ),
    "a json that is a list": (
        lambda f: (f / "config.json").write_text("[1]", encoding="utf-8"),
        "another kind", "Give a folder",
    ),
    "a newer version": (
        lambda f: edit(f, lambda i: i.update(version=3), rehash=True), "version 3", "install",
    ),
    "an unknown network": (
        lambda f: edit(f, lambda i: i["model"].update(cnn=i["model"].pop("unet")), rehash=True),
        "unknown network 'cnn'", "known are unet",
    ),
    "an unknown space": (
        lambda f: edit(f, lambda i: i["model"].update(code=i["model"].pop("pixels")), rehash=True),
        "unknown space .*'code'", "known are pixels",
    ),
    "another prediction": (
        lambda f: edit(f, lambda i: i["model"].update(prediction_type="v")), "edited", "copy",
    ),
    "another mean": (
        lambda f: edit(f, lambda i: i["model"].update(image_size=9)), "edited", "copy",
    ),
    "another record": (lambda f: edit(f, lambda i: i["record"].update(steps=99)), "edited", "copy"),
    "no hashes": (
        lambda f: edit(f, lambda i: i.pop("files"), rehash=True), "altered", "copy it",
    ),
    "hashes of another kind": (
        lambda f: edit(f, lambda i: i.update(files=["x"]), rehash=True), "altered", "copy it",
    ),
    "no model": (
        lambda f: edit(f, lambda i: i.pop("model"), rehash=True), "not describe", "another",
    ),
    "an unknown setting": (
        lambda f: edit(f, lambda i: i["model"].update(colour="red"), rehash=True),
        "colour", "another",
    ),
    "a lost setting": (
        lambda f: edit(f, lambda i: i["model"].pop("image_size"), rehash=True),
        "image_size", "another",
    ),
    "an unknown schedule": (
        lambda f: edit(f, lambda i: i["model"].update(schedule="bent"), rehash=True),
        "bent", "another",
    ),
    "a wider network": (
        lambda f: edit(f, lambda i: i["model"]["unet"].update(channels=[64]), rehash=True),
        "do not fit.*size mismatch", "another",
    ),
    "a deeper network": (
        lambda f: edit(f, lambda i: i["model"]["unet"].update(blocks=2), rehash=True),
        "do not fit", "another",
    ),
    "no network at all": (
        lambda f: edit(f, lambda i: i["model"]["unet"].update(channels=["x"]), rehash=True),
        "whole number", "another",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_what_is_not_whole_is_refused(folder: Path, case: str) -> None:
    damage, names_it, remedy = DAMAGE[case]
    load_model(folder)
    damage(folder)
    with pytest.raises(CheckpointError, match=names_it) as error:
        load_model(folder)
    assert str(folder) in str(error.value) and remedy in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_file_that_holds_no_tensors_is_refused(folder: Path) -> None:
    """Even when its hash is right."""
    import hashlib

    (folder / "model.safetensors").write_bytes(b"not tensors")
    digest = hashlib.sha256(b"not tensors").hexdigest()
    edit(folder, lambda i: i.update(files={"model.safetensors": digest}), rehash=True)
    with pytest.raises(CheckpointError, match=r"model\.safetensors holds no tensors.*another"):
        load_model(folder)


def test_weights_of_another_network_are_refused(network: UNet, tmp_path: Path) -> None:
    unet = dataclasses.replace(SHAPE, text_dim=None)
    other = dataclasses.replace(CONFIG, network=unet, text_encoder=None)
    with pytest.raises(ValueError, match=r"weight .* has the shape \(64, 32\) where None is"):
        save_model(tmp_path / "m", network, other)
    assert names(tmp_path) == []
    weights = {"model.safetensors": network.state_dict()}
    storage.write_folder(tmp_path / "m", weights, model_info(other, {}))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_model(tmp_path / "m")


def test_a_wrapped_network_is_saved_as_itself(network: UNet, tmp_path: Path) -> None:
    wraps: tuple[Any, ...] = (torch.compile, nn.DataParallel)
    for i, wrap in enumerate(wraps):
        state = torch.get_rng_state()
        save_model(tmp_path / f"{i}", wrap(network), CONFIG, dtype=torch.float32)
        assert torch.equal(torch.get_rng_state(), state)
        assert same_weights(load_model(tmp_path / f"{i}")[0], network)


# ----------------------------------------------------------------------- when writing fails


def out_of_space(after: int = 0) -> Callable[[Path, bytes], None]:
    """A `_write_through` for which the disk is full from the given file on."""
    written: list[Path] = []

    def write(path: Path, payload: bytes) -> None:
        if len(written) == after:
            path.write_bytes(payload[: len(payload) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        path.write_bytes(payload)
        written.append(path)

    return write


@pytest.mark.parametrize("after", [0, 1])
def test_a_full_disk_leaves_what_was_there(
    network: UNet, folder: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(storage, "_write_through", out_of_space(after))
    for target in (folder, folder.with_name("new")):
        with pytest.raises(OSError, match=r"No space left.*intact\. Free some space") as error:
            save_model(target, UNet(SHAPE), CONFIG)
        assert error.value.errno == errno.ENOSPC and str(target) in str(error.value)
        assert names(folder.parent) == ["model"]
    loaded, _, record = load_model(folder)
    assert record == RECORD and same_weights(loaded, network, torch.float16)


@pytest.mark.parametrize("stop", [OSError(errno.EIO, "broken"), KeyboardInterrupt()])
def test_a_replacement_that_fails_brings_the_old_folder_back(
    network: UNet, folder: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    rename = Path.rename
    calls: list[Path] = []

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:  # the old one has just been moved out of the way
            assert not folder.exists()
            raise stop
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(type(stop)):
        save_model(folder, UNet(SHAPE), CONFIG)
    assert len(calls) == 3
    loaded, _, record = load_model(folder)
    assert record == RECORD and same_weights(loaded, network, torch.float16)
    assert names(folder.parent) == ["model"]


def test_a_parent_that_is_a_file_is_named(network: UNet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OSError, match=r"could not save .*file.m") as error:
        save_model(tmp_path / "file" / "m", network, CONFIG)
    assert "another folder" in str(error.value)


def test_what_json_cannot_hold_leaves_nothing_behind(network: UNet, tmp_path: Path) -> None:
    records: list[dict[Any, Any]] = [
        {"loss": float("nan")}, {"loss": torch.ones(1)}, {"path": tmp_path}, {(1,): 2},
    ]  # fmt: skip
    for record in records:
        with pytest.raises(ValueError, match=r"record of .*m does not fit into JSON .*leave that"):
            save_model(tmp_path / "m", network, CONFIG, record)
        assert names(tmp_path) == []


def test_numbers_as_keys_of_a_record_become_texts(network: UNet, tmp_path: Path) -> None:
    save_model(
        tmp_path / "m", network, CONFIG, {"loss": {62: 0.1, 125: 0.2, 1000: 0.3}, "few": (1,)}
    )
    record = load_model(tmp_path / "m")[2]
    assert record == {"loss": {"62": 0.1, "125": 0.2, "1000": 0.3}, "few": [1]}


def test_a_record_of_a_path_that_is_not_utf_8(network: UNet, tmp_path: Path) -> None:
    record = {"data": "fotos/caf\udce9 “字” \\udce9"}
    save_model(tmp_path / "m", network, CONFIG, record)
    assert load_model(tmp_path / "m")[2] == record


@pytest.mark.parametrize(
    ("code", "full"),
    [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EACCES, False), (errno.EIO, False)],
)
def test_only_a_full_disk_needs_space(
    code: int, full: bool, network: UNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(storage, "_write_through", fail)
    with pytest.raises(OSError, match="another folder") as error:
        save_model(tmp_path / "m", network, CONFIG)
    assert ("Free some space" in str(error.value)) is full
    assert os.strerror(code) in str(error.value)


def test_a_disk_that_is_really_full(network: UNet, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("1m")
    folder = disk / "model"
    save_model(folder, network, CONFIG, RECORD)
    size = (folder / "model.safetensors").stat().st_size
    assert 100_000 < size < 500_000
    free = shutil.disk_usage(disk).free
    (disk / "filler").write_bytes(bytes(free - size // 2))
    with pytest.raises(OSError, match=r"No space left.*intact"):
        save_model(folder, UNet(SHAPE), CONFIG)
    assert names(disk) == ["filler", "model"]
    assert same_weights(load_model(folder)[0], network, torch.float16)
    (disk / "filler").unlink()
    save_model(folder, UNet(SHAPE), CONFIG)  # and once there is room again it works
    assert not same_weights(load_model(folder)[0], network, torch.float16)


def test_a_save_is_on_the_disk_before_it_has_its_name(
    network: UNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor: int) -> None:
        events.append("fsync")
        fsync(descriptor)

    def noted_rename(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    save_model(tmp_path / "m", network, CONFIG)
    assert events == ["fsync", "fsync", "rename"]


def test_leftovers_are_cleared_and_nothing_else(folder: Path) -> None:
    parent = folder.parent
    left = storage._part_folder(parent / "step-00000007")
    (left / "model.safetensors").write_bytes(b"half")
    for kept in ("step-00000007", ".step-notes", "model.part-1", "step-00000007.part-x"):
        (parent / kept).mkdir()
    before = names(parent)
    storage.remove_parts(parent, "step-*")
    assert sorted({*before} - {left.name}) == names(parent)
    storage.remove_folder(folder)
    assert "model" not in names(parent) and len(names(parent)) == len(before) - 2


# ---------------------------------------------------------------------------------- pickle


PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def pickling(tree: ast.AST) -> list[str]:
    """Places where a module could read or write a pickle."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in PICKLES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module or ""] if (node.module or "").split(".")[0] in PICKLES else []
            if node.module == "torch":
                found += [a.name for a in node.names if a.name in ("save", "load")]
        elif isinstance(node, ast.Attribute):
            of_torch = isinstance(node.value, ast.Name) and node.value.id == "torch"
            if of_torch and node.attr in ("save", "load", "hub", "jit"):
                found.append(f"torch.{node.attr}")
            if node.attr in ("save_state", "load_state", "read_pickle", "to_pickle"):
                found.append(node.attr)
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found += [] if isinstance(node.value, ast.Constant) and not node.value.value else ["np"]
        elif isinstance(node, ast.keyword) and node.arg == "use_safetensors":
            found += [] if isinstance(node.value, ast.Constant) and node.value.value else ["hf"]
    return found


def test_the_package_never_pickles() -> None:
    modules = sorted(Path(minidiff.__file__).parent.glob("**/*.py"))
    assert len(modules) >= 10
    for path in modules:
        assert pickling(ast.parse(path.read_text(encoding="utf-8"))) == [], path.name


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "torch.save(x, 'f')", "torch.load('f')",
        "from torch import load", "accelerator.save_state('f')", "np.load('f', allow_pickle=True)",
    ],
)  # fmt: skip
def test_a_pickle_would_be_found(code: str) -> None:
    assert pickling(ast.parse(code))


def test_a_model_of_version_1_is_read(folder: Path) -> None:
    def older(info: dict[str, Any]) -> None:
        pixels = info["model"].pop("pixels")
        info["model"] |= {"data_mean": pixels["mean"], "data_std": pixels["std"]}
        del info["model"]["shift"]
        info["version"] = 1

    edit(folder, older, rehash=True)
    assert load_model(folder)[1] == CONFIG


def test_the_grid_is_part_of_a_model() -> None:
    assert CONFIG.shift == 3.0 and CONFIG.make_schedule().shift == 3.0  # the straight line
    other = dataclasses.replace(CONFIG, schedule="cosine", shift=None)
    assert other.make_schedule().timesteps(4) == [1000, 750, 500, 250, 0]
