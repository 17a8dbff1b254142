"""Files: a full disk, damage, pickles in their place, and a home that cannot be written."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from faults import crashes, tiny
from faults.frame import Outcome, Tally, attempt, in_child, new_folder
from helpers import names, small_disk
from minidiff import datasets, glyphs, plots, recogniser, storage, text
from minidiff.cache import cache_dir, cached
from minidiff.model import load_model
from minidiff.recipe import TrainingConfig
from minidiff.run_folder import all_checkpoints, latest_checkpoint

# ------------------------------------------------------------------------------ a full disk


def full_disk(tally: Tally, short: bool) -> None:
    """A disk that is full, or fills up half-way, while a checkpoint, cache or picture is saved."""
    with new_folder() as folder, small_disk(folder, "size=4m") as disk:
        assert in_child(lambda: tiny.train(folder / "whole")).kind == "returned"
        expected = tiny.end_state(folder / "whole")
        assert in_child(lambda: tiny.train_to(folder / "begun", 2)).kind == "returned"
        begun = next((folder / "begun" / "checkpoints").iterdir())
        size = sum(path.stat().st_size for path in begun.iterdir())
        run = disk / "run"

        def stopped() -> None:
            tiny.train(run, resume=True)
            raise AssertionError("it trained on without any room")

        def recovered() -> None:
            tiny.go_on(run)
            assert tiny.end_state(run) == expected

        for share in (0.5,) if short else (0.0, 0.2, 0.4, 0.6, 0.8, 0.95):
            shutil.copytree(folder / "begun", run)
            fill(disk, round(share * size))
            outcome = in_child(stopped)
            clear = "No space left" in outcome.message and "resume=True" in outcome.message
            tally.judge(
                f"checkpoint, {share:.0%} of it fits", outcome, (str(run),) if clear else ()
            )
            tally.judge(f"after {share:.0%} of it", attempt(lambda: tiny.check_whole(run)))
            (disk / "filler").unlink()
            tally.judge(f"resumed after {share:.0%} of it", in_child(recovered))
            shutil.rmtree(run)
        for share in (0.5,) if short else (0.0, 0.5, 0.9):
            for name, read in (("glyph", lambda _: tiny.few_glyphs()), ("text", tiny.few_texts)):
                cache_on_a_full_disk(tally, f"{name} cache, {share:.0%} fits", disk, share, read)
            pictures_on_a_full_disk(tally, f"{share:.0%} of it fits", disk, share)


def fill(disk: Path, left: int) -> None:
    (disk / "filler").write_bytes(bytes(max(0, shutil.disk_usage(disk).free - left)))


def cache_on_a_full_disk(
    tally: Tally, name: str, disk: Path, share: float, read: Callable[[Path], torch.Tensor]
) -> None:
    cache = disk / "cache"
    act, check = crashes.with_cache(read)

    def full() -> None:
        with warnings.catch_warnings(record=True) as noticed:
            warnings.simplefilter("always")
            act(disk)
        assert any(str(cache) in str(notice.message) for notice in noticed), "no warning"
        assert not names(cache), names(cache)

    in_child(lambda: act(disk))
    size = sum(path.stat().st_size for path in cache.iterdir())
    shutil.rmtree(cache)
    cache.mkdir()
    fill(disk, round(share * size))
    tally.judge(name, in_child(full))
    (disk / "filler").unlink()
    tally.judge(f"{name}, and then there is room", in_child(lambda: check(disk)))
    for path in (cache, disk / "other"):
        shutil.rmtree(path, ignore_errors=True)


def pictures_on_a_full_disk(tally: Tally, name: str, disk: Path, share: float) -> None:
    for file, payload in crashes.picture_payloads().items():
        path = disk / file
        path.write_bytes(b"old")
        # Pages are 4 kB: what has to be too large is a picture of several.
        large = payload if file == "x.gif" else np.tile(np.asarray(payload), (8, 8))
        large = large * 16 if isinstance(large, bytes) else large
        fill(disk, round(share * 16_000) // 4096 * 4096)
        outcome = attempt(lambda: plots.save_picture(path, large))  # noqa: B023
        if outcome.kind == "returned" or path.read_bytes() != b"old" or len(names(disk)) != 2:
            tally.fail(f"{file}, {name}", outcome)
        else:
            tally.judge(f"{file}, {name}", outcome, (str(path),))
        (disk / "filler").unlink()
        path.unlink()


# --------------------------------------------------------------------------- damaged files


def damages(payload: bytes, few: bool) -> Iterator[tuple[str, bytes | None]]:
    """A file cut short, with flipped bits, with a hole as after a power cut, too long, gone."""
    size, chance = len(payload), random.Random(len(payload))
    for cut in sorted({0, 1, 8, size // 2, size - 1} if few else {0, 1, 7, 8, 9, size // 4,
                       size // 2, 3 * size // 4, size - 8, size - 1}):  # fmt: skip
        if 0 <= cut < size:
            yield f"cut to {cut} bytes", payload[:cut]
    places = [chance.randrange(size) for _ in range(3 if few else 40)] if size else []
    for place in [*places, *range(0, min(size, 16), 5 if few else 1)]:
        flipped = bytearray(payload)
        flipped[place] ^= 1 << chance.randrange(8)
        yield f"byte {place} flipped", bytes(flipped)
    yield "second half zeros", payload[: size // 2] + bytes(size - size // 2)
    yield "a byte too many", payload + b"x"
    yield "gone", None


def damaged_files(tally: Tally, short: bool) -> None:
    """Every file of a model, a run, the caches and one's own pictures: cut, flipped, zeroed."""
    with new_folder() as folder:
        damaged_models(tally, short, folder)
        damaged_runs(tally, short, folder)
        damaged_caches(tally, short, folder)
        damaged_pictures(tally, short, folder)


def damaged_models(tally: Tally, short: bool, folder: Path) -> None:
    model, reader = folder / "model", folder / "recogniser"
    tiny.save_tiny_model(model)
    right = list(load_model(model)[0].parameters())
    recogniser.save_recogniser(recogniser.Recogniser(("金",)), {}, reader)

    def load() -> None:
        found = load_model(model)[0].parameters()
        assert all(map(torch.equal, found, right))

    for path in sorted(model.iterdir()):
        try_damages(tally, short, path, lambda: attempt(load), "model")
    for path in sorted(reader.iterdir()):
        act = lambda: recogniser._load.__wrapped__(reader)  # noqa: E731
        try_damages(tally, True, path, lambda: attempt(act), "recogniser")  # noqa: B023


def try_damages(tally: Tally, few: bool, path: Path, act: Callable[[], Outcome], what: str) -> None:
    payload = path.read_bytes()
    for name, damaged in damages(payload, few):
        path.unlink(missing_ok=True)
        if damaged is not None:
            path.write_bytes(damaged)
        tally.judge(f"{what}, {path.name}: {name}", act(), (str(path.parent), path.name))
    path.write_bytes(payload)


def damaged_runs(tally: Tally, short: bool, folder: Path) -> None:
    """The newest checkpoint is named, with the one to go on from; a damaged log stops nothing."""
    assert in_child(lambda: tiny.train(folder / "whole")).kind == "returned"
    expected = tiny.end_state(folder / "whole")
    assert in_child(lambda: tiny.train_to(folder / "begun", 4)).kind == "returned"
    newest = latest_checkpoint(folder / "begun")
    assert newest is not None
    older = str(all_checkpoints(folder / "begun")[0]).replace("begun", "run")
    for path in [*sorted(newest.iterdir()), folder / "begun" / "log.jsonl"]:
        for i, (name, damaged) in enumerate(damages(path.read_bytes(), few=True)):
            if short and i % 6:
                continue
            run = folder / "run"
            shutil.copytree(folder / "begun", run)
            target = run / path.relative_to(folder / "begun")
            target.unlink()
            if damaged is not None:
                target.write_bytes(damaged)

            def resume() -> None:
                tiny.train(run, resume=True)  # noqa: B023
                files = tiny.end_state(run)["files"]  # noqa: B023
                assert files == expected["files"]

            outcome = in_child(resume)
            named = target.name if "delete" in outcome.message and older in outcome.message else ""
            tally.judge(f"run, {path.name}: {name}", outcome, (named or str(target),))
            shutil.rmtree(run)


def damaged_caches(tally: Tally, short: bool, folder: Path) -> None:
    os.environ["MINIDIFF_CACHE"] = str(folder / "cache")
    try:
        for what, read in (("text", tiny.few_texts), ("glyph", small_glyphs)):
            right = read(folder / "cache")
            (path,) = (folder / "cache").glob(f"{what}*")

            def again() -> None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    assert torch.equal(read(folder / "cache"), right)  # noqa: B023

            try_damages(tally, short, path, lambda: attempt(again), f"{what} cache")
    finally:
        del os.environ["MINIDIFF_CACHE"]


def small_glyphs(_: Path) -> torch.Tensor:
    """As `glyphs.glyph_images` goes about it, for one character."""
    return cached(
        "glyphs",
        make=lambda: {"images": glyphs.render("金", 16)},
        fits=lambda found: [*found] == ["images"] and found["images"].shape == (1, 16, 16),
    )["images"]


def damaged_pictures(tally: Tally, short: bool, folder: Path) -> None:
    """What a damaged picture shows nobody can know; it loads with its shape or is named."""
    pictures = folder / "pictures"
    save_pictures(pictures)

    def load() -> None:
        found = datasets.ImageFolder(pictures, 8, 1)
        assert len(found) and found.images.shape[1:] == (1, 8, 8), found.images.shape

    for path in sorted(pictures.iterdir()):
        try_damages(tally, short, path, lambda: attempt(load), "pictures")


def save_pictures(folder: Path) -> None:
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in ("a.png", "b.jpg"):
        noise = draw.integers(0, 256, (12, 8), dtype=np.uint8)
        Image.fromarray(noise).save(folder / name)
    table = 'file_name,text\na.png,"one, first"\nb.jpg,金\n'
    (folder / "metadata.csv").write_text(table, encoding="utf-8")


# ------------------------------------------------------------------------ nothing executed


class Bomb:
    """Whoever unpickles it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def bombs(marker: Path) -> dict[str, bytes]:
    zipped, array = io.BytesIO(), io.BytesIO()
    torch.save(Bomb(marker), zipped)
    np.save(array, np.array([Bomb(marker)], dtype=object), allow_pickle=True)
    script = f"import os; os.mkdir({str(marker)!r})\n".encode()
    plain = pickle.dumps(Bomb(marker))
    return {"pickle": plain, "torch": zipped.getvalue(), "npy": array.getvalue(), "py": script}


def nothing_executed(tally: Tally, short: bool) -> None:
    """Pickles and programs in place of every file: never opened as what they are."""
    with new_folder() as folder:
        marker = folder / "executed"
        payloads = bombs(marker)
        pickle.loads(payloads["pickle"])
        marker.rmdir()
        for what, file, act in targets(folder):
            original = file.read_bytes() if file.exists() else None
            for kind, payload in payloads.items():
                if short and kind != "torch":
                    continue
                file.write_bytes(payload)
                vouch(file)
                outcome = in_child(act)
                if marker.exists():
                    outcome = Outcome("raised", message="it was executed")
                    marker.rmdir()
                says = (file.name, str(file.parent))
                tally.judge(f"{kind} as {what}, {file.name}", outcome, says)
            file.unlink()
            if original is not None:
                file.write_bytes(original)
                vouch(file)


def vouch(file: Path) -> None:
    """Whoever can write the file can write the digest too."""
    path = file.parent / "config.json"
    if file.suffix != ".safetensors" or not path.exists():
        return
    info = json.loads(path.read_text(encoding="utf-8"))
    if "files" in info:
        info["files"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
        info["sha256"] = storage.info_hash(info)
        path.write_text(json.dumps(info), encoding="utf-8")


def targets(folder: Path) -> Iterator[tuple[str, Path, Callable[[], Any]]]:
    """What it is, the file, and what opens it."""
    model, run, cache = folder / "model", folder / "run", folder / "cache"
    tiny.save_tiny_model(model)
    for name in names(model):
        yield "model", model / name, lambda: load_model(model)
    yield "beside a model", model / "pytorch_model.bin", lambda: load_model(model)
    assert in_child(lambda: tiny.train_to(run, 2)).kind == "returned"
    newest = latest_checkpoint(run)
    assert newest is not None
    for path in [*sorted(newest.iterdir()), run / "log.jsonl"]:
        yield "run", path, lambda: resume_copy(run)
    in_child(lambda: crashes.with_cache(lambda _: tiny.few_glyphs())[0](folder))
    in_child(lambda: crashes.with_cache(tiny.few_texts)[0](folder))
    for path in sorted(cache.iterdir()):
        read = tiny.few_texts if path.name.startswith("text") else lambda _: tiny.few_glyphs()
        yield "cache", path, lambda: crashes.with_cache(read)[1](folder)  # noqa: B023
    pictures = folder / "pictures"
    save_pictures(pictures)
    for path in sorted(pictures.iterdir()):
        yield "picture", path, lambda: datasets.ImageFolder(pictures, 8, 1)
    font, recipe = folder / "font.otf", folder / "recipe.toml"
    yield "font", font, lambda: glyphs.render("金", 16, font)
    yield "recipe", recipe, lambda: TrainingConfig.recipe(recipe)
    encoder = folder / "encoder"
    save_encoder(encoder)
    for name in [*names(encoder), "pytorch_model.bin", "modeling.py"]:
        yield "encoder", encoder / name, lambda: text.TextEncoder(str(encoder))


def resume_copy(run: Path) -> None:
    copy = run.with_name("copy of a run")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    try:
        tiny.train(copy, resume=True)
    except ValueError as error:
        raise ValueError(str(error).replace(str(copy), str(run))) from error


def save_encoder(folder: Path) -> None:
    """A tiny T5 with a tokenizer of a few words, which says that its code lies beside it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    vocabulary = {word: i for i, word in enumerate(("<pad>", "</s>", "<unk>", "gold"))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    shape = T5Config(vocab_size=8, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5EncoderModel(shape).save_pretrained(folder)
    path = folder / "config.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    info["auto_map"] = dict.fromkeys(("AutoConfig", "AutoModel"), "modeling.Anything")
    path.write_text(json.dumps(info), encoding="utf-8")


# -------------------------------------------------------------------------- read-only home


def read_only_home(tally: Tally, short: bool) -> None:
    """No home, one that cannot be written, or a cache folder that is a file: all works, noticed."""
    with new_folder() as folder, small_disk(folder, "ro,size=4m") as locked:
        (folder / "file").touch()
        homes = {"HOME": [locked, "/dev/null", folder / "file"], "MINIDIFF_CACHE": [
            locked / "cache", folder / "file", "/proc/nothing"]}  # fmt: skip
        for variable, places in homes.items():
            for place in places[:1] if short else places:
                temporary = folder / "temporary"
                temporary.mkdir()
                act = lambda: train_at_home(variable, str(place), temporary)  # noqa: B023, E731
                tally.judge(f"{variable} is {Path(str(place)).name}", in_child(act))
                shutil.rmtree(temporary)


def train_at_home(variable: str, place: str, temporary: Path) -> None:
    for name in ("MINIDIFF_CACHE", "XDG_CACHE_HOME"):
        os.environ.pop(name, None)
    os.environ |= {variable: place, "TMPDIR": str(temporary)}
    tempfile.tempdir = None
    with warnings.catch_warnings(record=True) as noticed:
        warnings.simplefilter("always")
        first = tiny.few_glyphs()
        assert torch.equal(glyphs.glyph_images(16), first)
        tiny.few_texts(cache_dir())
        tiny.train(temporary / "run")
    said = [str(notice.message) for notice in noticed if "cache folder" in str(notice.message)]
    assert len(said) == 1 and place in said[0] and "MINIDIFF_CACHE" in said[0], said
