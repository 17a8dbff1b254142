"""The command line: what it writes, what it says, and that no mistake of a user's ends badly."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import minidiff
from helpers import MINILM, Result, awake, log_of, names, run_python
from minidiff import cli, cli_sample, cli_train, evaluation, plots, shell
from minidiff.model import ModelConfig, load_model, save_model
from minidiff.networks import build, describe
from minidiff.pipeline import Pipeline
from minidiff.samplers import SAMPLERS
from minidiff.training import Trainer
from minidiff.unet import UNet, UNetConfig

Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """minidiff ARGUMENTS… in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["minidiff", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert isinstance(end.value.code, int)
        return Result(end.value.code, *capsys.readouterr())

    return run


def run_apart(*arguments: object, **how: Any) -> Result:
    """minidiff ARGUMENTS… in a process of its own."""
    return run_python("-m", "minidiff", *map(str, arguments), **how)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder, with a space and Chinese characters in its path."""
    folder = tmp_path / "work 金"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder


def save_tiny(folder: Path, text: bool) -> Path:
    network = awake(
        UNetConfig(channels=(32, 32), attention=(False, True), text_dim=384 if text else None)
    )
    config = ModelConfig(
        network=network.config,
        image_size=16,
        text_encoder="minilm" if text else None,
        text_fingerprint=MINILM if text else None,
    )
    save_model(folder, network, config)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model without text, with random weights: 16 × 16."""
    return save_tiny(tmp_path_factory.mktemp("models") / "plain", text=False)


@pytest.fixture(scope="module")
def texted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "texted", text=True)


def is_one_line(result: Result) -> bool:
    """What a user's error looks like."""
    return (
        result.status == 2
        and result.out == ""
        and result.err.startswith("minidiff: ")
        and result.err.endswith("\n")
        and result.err.count("\n") == 1
    )


def pixels(path: Path, frame: int = 0) -> np.ndarray:
    with Image.open(path) as image:
        image.seek(frame)
        return np.asarray(image.convert("L")).astype(int)


QUICK = ("--num-images", 5, "--num-inference-steps", 3)

# ------------------------------------------------------------------------------- sample


def test_sample_png_is_the_grid_of_the_pictures(run: Run, here: Path, plain: Path) -> None:
    result = run("sample", "", *QUICK, "--seed", 3, "--model", plain, "--output", "x y.png")
    assert result == (0, "x y.png\n", "")
    images = minidiff.load(plain)("", num_images_per_prompt=5, num_inference_steps=3, seed=3)
    assert (pixels(here / "x y.png") == np.asarray(plots.grid(images, 3, 2))).all()
    assert names(here) == ["x y.png"]


def test_sample_npy_is_prompts_images_height_width(run: Run, here: Path, texted: Path) -> None:
    result = run("sample", "gold", "a kind of fish", *QUICK, "--model", texted, "-o", "x.npy")
    assert result == (0, "x.npy\n", "")
    array = np.load(here / "x.npy", allow_pickle=False)
    assert array.shape == (2, 5, 16, 16) and array.dtype == np.uint8
    images = minidiff.load(texted)(
        ["gold", "a kind of fish"], num_images_per_prompt=5, num_inference_steps=3
    )
    assert (array.reshape(10, 1, 16, 16) == plots.to_uint8(images).numpy()).all()
    assert (array[0] != array[1]).any(), "the prompt makes no difference"


@pytest.mark.parametrize("prompts", [[""], ["", " "]])
def test_sample_gif_ends_in_the_png(run: Run, here: Path, plain: Path, prompts: list[str]) -> None:
    for name in ("x.png", "x.gif"):
        assert run("sample", *prompts, *QUICK, "--model", plain, "-o", name).out == f"{name}\n"
    with Image.open(here / "x.gif") as gif:
        assert gif.n_frames == 3  # type: ignore[attr-defined]
    assert abs(pixels(here / "x.png") - pixels(here / "x.gif", 2)).max() <= 255 / 15 / 2
    assert abs(pixels(here / "x.gif", 0) - pixels(here / "x.gif", 2)).max() > 50


def test_options_reach_the_pipeline(
    run: Run, here: Path, texted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, dict[str, Any]]] = []

    def draw(self: Pipeline, prompt: Any, **how: Any) -> torch.Tensor:
        asked.append((prompt, how))
        return torch.zeros(6, 1, 16, 16)

    monkeypatch.setattr(Pipeline, "__call__", draw)
    run(
        "sample", "gold", "a fish", "--num-images", 3, "--num-inference-steps", 7,
        "--guidance-scale", 2.5, "--negative-prompt", "water", "--sampler", "heun", "--seed", 4,
        "--model", texted,
    )  # fmt: skip
    assert asked == [
        (
            ["gold", "a fish"],
            {
                "negative_prompt": "water",
                "num_images_per_prompt": 3,
                "num_inference_steps": 7,
                "guidance_scale": 2.5,
                "sampler": "heun",
                "seed": 4,
                "progress": False,
            },
        )
    ]


@pytest.mark.parametrize(
    ("images", "prompts", "size"),
    [
        (1, 1, (1, 1)),
        (16, 1, (4, 4)),
        (2, 1, (2, 1)),
        (5, 1, (3, 2)),
        (17, 1, (5, 4)),
        (3, 2, (3, 2)),
        (16, 2, (16, 2)),
        (20, 2, (10, 4)),  # two rows of ten for each
        (17, 3, (9, 6)),
    ],
)
def test_every_prompt_has_rows_of_its_own(images: int, prompts: int, size: tuple[int, int]) -> None:
    # Prompt p is drawn in grey level p, so that its cells can be told apart.
    greys = torch.linspace(-1, 0, prompts).repeat_interleave(images)
    sheet = cli_sample.sheet(
        greys[:, None, None, None].expand(-1, 1, 16, 16), ["gold"] * prompts, 1
    )
    columns, rows = size
    cell, line = 16 + plots.GAP, (sheet.height - plots.GAP) // rows
    assert sheet.width == columns * cell + plots.GAP
    shown = np.asarray(sheet).astype(int)
    cells = [
        shown[(row + 1) * line - 8, column * cell + plots.GAP + 8]
        for row in range(rows)
        for column in range(columns)
    ]
    each = plots.to_uint8(torch.linspace(-1, 0, prompts)).tolist()
    blank = columns * rows // prompts - images
    assert cells == [grey for p in each for grey in [p] * images + [255] * blank]


def test_without_output_a_new_file_is_named_after_the_prompt(
    run: Run, here: Path, texted: Path
) -> None:
    for expected in ("made-of-gold.png", "made-of-gold-2.png", "made-of-gold-3.png"):
        before = {path: path.read_bytes() for path in here.iterdir()}
        result = run("sample", "made of gold", *QUICK, "--model", texted)
        assert result == (0, f"{expected}\n", "")
        assert (here / expected).stat().st_size > 0
        assert all(path.read_bytes() == old for path, old in before.items())


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("", "glyphs.png"),
        ("../../etc/passwd", "etc-passwd.png"),
        ("金", "金.png"),
        ("a" * 500, "a" * 40 + ".png"),
        ("--- ?", "glyphs.png"),
        ("caf\udce9", "caf.png"),  # broken bytes from a terminal
    ],
)
def test_names_of_new_files_are_harmless(here: Path, prompt: str, name: str) -> None:
    assert cli_sample.new_file(cli_sample.stem_of([prompt])) == Path(name)


def test_output_replaces_the_file_that_was_asked_for(run: Run, here: Path, plain: Path) -> None:
    (here / "X.PNG").write_bytes(b"old")
    result = run("sample", "", *QUICK, "--model", plain, "--output", here / "X.PNG")
    assert result.out == f"{here / 'X.PNG'}\n"
    assert pixels(here / "X.PNG").size and names(here) == ["X.PNG"]


def test_notice_is_one_line_and_the_picture_comes(run: Run, here: Path, texted: Path) -> None:
    result = run("sample", "銀", "銀", *QUICK, "--model", texted)
    assert result.status == 0 and result.out == "銀.png\n"
    assert result.err.startswith("minidiff: The text encoder 'minilm' reads English")
    assert result.err.count("\n") == 1


# ------------------------------------------------------------------------------- mistakes


EARLY: list[tuple[tuple[str, ...], list[str]]] = [
    (("sample", "gold", "--output", "x.jpg"), ["x.jpg", ".png, .gif, .npy"]),
    (("sample", "gold", "--output", "x"), ["x:", ".png, .gif, .npy"]),
    (("sample", "gold", "--output", "nowhere/x.png"), ["nowhere"]),
    (("sample", "gold", "--output", "file/x.png"), ["file"]),
    (("sample", "gold", "--output", "folder.png"), ["folder.png", "is a folder"]),
    (("sample", "gold", "--output", "a" * 250 + ".png"), ["too long", "--output"]),
    (("sample", "gold", "--num-images", "0"), ["--num-images", "0", "--help"]),
    (("sample", "gold", "--num-images", "x"), ["--num-images", "'x'"]),
    (("sample", "gold", "--num-inference-steps", "0"), ["--num-inference-steps", "0"]),
    (("sample", "gold", "--num-inference-steps", "2.5"), ["--num-inference-steps", "2.5"]),
    (("sample", "gold", "--scale", "0"), ["--scale", "0"]),
    (("sample", "gold", "--scale", "17"), ["--scale", "17"]),
    (("sample", "gold", "--sampler", "eulr"), ["eulr", "dpmpp_2m_sde"]),
    (("sample", "gold", "--num-image", "3"), ["--num-image", "--num-images"]),
    (("sample", "gold", "--seed", "--model", "x"), ["--seed"]),
    (("smple", "gold"), ["smple", "--help"]),
    (("--nonsense",), ["--nonsense"]),
    (("train",), ["--output"]),
    (("train", "--output", "run", "--recipe", "glyph65"), ["glyph65", "glyph64", ".toml"]),
    (("train", "--output", "run", "--recipe", "no.toml"), ["no.toml", "glyph64"]),
    (("train", "--output", "run", "--steps", "0"), ["steps", "0"]),
    (("train", "--output", "run", "--learning-rate", "nan"), ["learning_rate", "nan"]),
    (("train", "--output", "run", "--data", "nowhere"), ["nowhere"]),
    (("evaluate", "--full", "--loss-only"), ["--full", "--loss-only"]),
]
LATER: list[tuple[tuple[str, ...], list[str]]] = [
    (("sample",), ["minidiff sample gold"]),
    (("sample", "gold", "--model", "glpyh64"), ["glpyh64", "glyph64"]),
    (("sample", "gold", "--model", "foreign"), ["foreign", "not a minidiff checkpoint"]),
    (("sample", "gold", "--model", "empty"), ["empty", "config.json"]),
    (("sample", "gold", "--num-inference-steps", "1001"), ["1001", "1 to 1000"]),
    (("sample", "gold", "--guidance-scale", "nan"), ["guidance_scale", "nan"]),
    (("sample", "gold", "--guidance-scale", "-1"), ["guidance_scale", "-1"]),
    (("sample", "gold", "--num-images", "1" + "0" * 15), ["GiB", "fit"]),
    (("evaluate", "--model", "glpyh64"), ["glpyh64", "glyph64"]),
]


@pytest.mark.parametrize(("arguments", "said"), EARLY + LATER, ids=lambda x: " ".join(x)[:60])
def test_mistakes_are_one_line_and_write_nothing(
    run: Run,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: list[str],
) -> None:
    (here / "folder.png").mkdir()
    (here / "empty").mkdir()
    (here / "foreign").mkdir()
    (here / "foreign" / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (here / "file").write_bytes(b"")
    before = names(here)
    if (arguments, said) in EARLY:
        monkeypatch.setattr("minidiff.pipeline.load", refuse)
        monkeypatch.setattr("minidiff.glyphs.GlyphDataset", refuse)
    monkeypatch.setattr("minidiff.text.TextEncoder", refuse)
    ways: list[tuple[str, ...]] = [arguments]
    if arguments[0] == "sample" and "--output" not in arguments:
        ways.append((*arguments, "--output=x.gif"))
    for way in ways:
        result = run(*way)
        assert is_one_line(result), result
        assert all(part in result.err for part in said), result.err
        assert names(here) == before


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("something was loaded first")


def test_text_for_a_model_without_text(run: Run, here: Path, plain: Path) -> None:
    for words in (("gold",), ("", "gold"), ("--negative-prompt", "gold")):
        result = run("sample", *words, "--model", plain)
        assert is_one_line(result), result
        assert "this model was trained without text: give no prompt" in result.err
    assert names(here) == []


def test_a_model_without_text_needs_no_prompt(run: Run, here: Path, plain: Path) -> None:
    assert run("sample", *QUICK, "--model", plain) == (0, "glyphs.png\n", "")
    assert run("sample", "", *QUICK, "--model", plain) == (0, "glyphs-2.png\n", "")
    assert (pixels(here / "glyphs.png") == pixels(here / "glyphs-2.png")).all()


def test_more_pictures_than_memory_holds(
    run: Run, here: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**24))
    result = run("sample", "", "--num-images", 5000, "--model", plain)
    assert is_one_line(result) and "5,000 pictures" in result.err and "fit" in result.err


def test_animation_larger_than_a_gif(
    run: Run, here: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "GIF_SIDE", 50)
    result = run("sample", "", *QUICK, "--model", plain, "-o", "x.gif")
    assert is_one_line(result) and "50 pixels" in result.err and "PNG" in result.err
    assert names(here) == []


@pytest.mark.parametrize("damage", ["cut short", "altered", "another size"])
def test_damaged_model(run: Run, here: Path, damage: str) -> None:
    folder = save_tiny(here / "model", text=False)
    weights, config = folder / "model.safetensors", folder / "config.json"
    payload = weights.read_bytes()
    if damage == "cut short":
        weights.write_bytes(payload[:-100])
    elif damage == "altered":
        weights.write_bytes(payload[:-1] + bytes([payload[-1] ^ 1]))
    else:
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace('"image_size": 16', '"image_size": 17'), encoding="utf-8")
    result = run("sample", "", "--model", "model")
    assert is_one_line(result) and "model" in result.err
    assert names(here) == ["model"]


def test_checkpoint_of_another_encoder(run: Run, here: Path) -> None:
    folder = here / "model"
    network = UNet(UNetConfig(channels=(32,), attention=(False,)))
    save_model(folder, network, ModelConfig(network.config, 16, text_encoder="minilm"))
    result = run("sample", "gold", "--model", folder)
    assert is_one_line(result) and "text encoder 'minilm'" in result.err
    assert "install the one it was trained with" in result.err and names(here) == ["model"]


def unwritable(folder: Path) -> Path:
    """A folder that nobody can write into, be it root."""
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):
        folder = Path("/proc")
    if not folder.is_dir() or os.name == "nt":
        pytest.skip("no folder that cannot be written")
    return folder


def test_folder_that_cannot_be_written(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unwritable(here / "locked")
    monkeypatch.setattr("minidiff.pipeline.load", refuse)
    result = run("sample", "gold", "--output", folder / "x.png")
    assert is_one_line(result) and "cannot write x.png" in result.err and str(folder) in result.err
    monkeypatch.chdir(folder)
    result = run("sample", "gold")
    assert is_one_line(result) and "--output" in result.err


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
def test_disk_that_fills_up_while_writing(here: Path, plain: Path) -> None:
    """Files may not grow beyond 300 bytes: writing breaks off in the middle."""
    import resource

    name = "x.gif"
    (here / name).write_bytes(b"old")
    result = run_apart(
        "sample", "", *QUICK, "--model", plain, "--output", name,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300)),
        environment={"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert is_one_line(result), result
    assert f"cannot write {name}" in result.err
    assert names(here) == [name] and (here / name).read_bytes() == b"old"


def test_full_disk(run: Run, small_disk: Callable[[str], Path], plain: Path) -> None:
    disk = small_disk("4k")
    (disk / "other").write_bytes(b"x" * 4000)
    result = run("sample", "", *QUICK, "--model", plain, "--output", disk / "x.npy")
    assert is_one_line(result) and "No space left" in result.err
    assert names(disk) == ["other"]


# ------------------------------------------------------------------------------- Ctrl-C, pipes


def test_interrupted(run: Run, here: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "__call__", interrupt)
    assert run("sample", "", "--model", plain) == (130, "", "minidiff: interrupted\n")
    assert names(here) == []


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
def test_interrupted_by_a_signal(here: Path, plain: Path) -> None:
    code = (
        "import os, signal, sys, time\n"
        "from minidiff import cli, pipeline\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "def draw(*_, **__):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(30)\n"
        "pipeline.Pipeline.__call__ = draw\n"
        f"sys.argv = ['minidiff', 'sample', '', '--model', {str(plain)!r}]\n"
        "cli.main()\n"
    )
    result = run_python("-c", code, timeout=60)
    assert result == (130, "", "minidiff: interrupted\n")
    assert names(here) == []


@pytest.mark.skipif(os.name == "nt", reason="no such pipes")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_reader_that_has_gone(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        environment = {"PYTHONUNBUFFERED": unbuffered}
        result = run_apart("--version", environment=environment, stdout=writer)
    finally:
        os.close(writer)
    assert (result.status, result.err) == (1, "")


@pytest.mark.parametrize("error", [KeyError, TypeError, RuntimeError, AssertionError])
def test_mistakes_in_the_code_keep_their_traceback(
    here: Path, plain: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error("The size of tensor a (16) must match the size of tensor b (8)")

    monkeypatch.setattr(Pipeline, "__call__", broken)
    monkeypatch.setattr(sys, "argv", ["minidiff", "sample", "", "--model", str(plain)])
    with pytest.raises(error):
        cli.main()


def test_a_broken_network_shows_where(here: Path, plain: Path) -> None:
    code = (
        "import sys\n"
        "from minidiff import cli, unet\n"
        "def forward(self, x, *_):\n"
        "    return x + x.new_zeros(3, 5, 7, 11)\n"
        "unet.ResBlock.forward = forward\n"
        f"sys.argv = ['minidiff', 'sample', '', '--model', {str(plain)!r}]\n"
        "cli.main()\n"
    )
    result = run_python("-c", code)
    assert result.status == 1 and "Traceback" in result.err and "in forward" in result.err


def test_a_value_error_that_no_line_raises_shows_where(here: Path, plain: Path) -> None:
    Path("student.py").write_text(
        "import sys\n"
        "from minidiff import cli, unet\n"
        "def forward(self, x, *_):\n"
        "    b, c, h = x.shape\n"
        "unet.ResBlock.forward = forward\n"
        f"sys.argv = ['minidiff', 'sample', '', '--model', {str(plain)!r}]\n"
        "cli.main()\n",
        encoding="utf-8",
    )
    result = run_python("student.py")
    assert result.status == 1 and "too many values to unpack" in result.err
    assert "in forward" in result.err and "b, c, h = x.shape" in result.err


@pytest.mark.skipif(os.name == "nt", reason="no such shell")
def test_without_standard_output(here: Path, plain: Path) -> None:
    command = [sys.executable, "-m", "minidiff", "sample", "", *QUICK, "--model", str(plain)]
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join(map(str, command))} >&-"],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "") and Path("glyphs.png").exists()


def test_no_compiler_is_one_line(run: Run, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found in ...")

    monkeypatch.setattr(Pipeline, "__call__", broken)
    result = run("sample", "", "--model", plain)
    assert is_one_line(result) and "such as g++, or leave out --compile" in result.err


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (MemoryError(), ""),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "2.00 GiB"),
        (RuntimeError("MPS backend out of memory (used 8 GB). Tried to allocate 1 GB"), "1 GB"),
        (
            RuntimeError("[enforce fail at alloc.cpp:1] . DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 4000 bytes. Error code 12"), "4000 bytes"
        ),
    ],
)  # fmt: skip
def test_too_little_memory_is_one_line(
    run: Run, plain: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, size: str
) -> None:
    def large(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Pipeline, "__call__", large)
    result = run("sample", "", "--model", plain)
    assert is_one_line(result) and size in result.err, result
    assert "not enough memory" in result.err
    assert "--num-images" in result.err and "--batch-size" in result.err


# ------------------------------------------------------------------------------- terminals


@pytest.mark.parametrize(
    "terminal",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "cp1252"},
    ],
    ids=["ascii", "C locale", "Windows"],
)
def test_terminal_that_cannot_show_chinese(
    here: Path, plain: Path, terminal: dict[str, str]
) -> None:
    output = here / "金.png"
    result = run_apart("sample", "", *QUICK, "--model", plain, "-o", output, environment=terminal)
    assert result.status == 0 and result.err == "", result
    assert output.stat().st_size > 0
    result = run_apart("sample", "金", "-o", "銀/x.png", environment=terminal)
    assert is_one_line(result) and "there is no folder" in result.err
    result = run_apart("sample", "--help", environment=terminal)
    assert result.status == 0 and "--num-images" in result.out


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_lists_the_commands(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.status == 0 and result.err == ""
    for word in ("sample", "train", "data", "evaluate", "minidiff sample gold", "--version"):
        assert word in result.out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("sample", ["--num-images", "--guidance-scale", "--seed", ".gif", "minidiff sample gold"]),
        ("train", ["--recipe", "--resume", "--data", "metadata.csv", "accelerate launch"]),
        ("data", ["--image-size", "--skip-unreadable", "--json", "minidiff data my-pictures"]),
        ("evaluate", ["--model", "--full", "--json", "--loss-only", "--seed", "--data"]),
    ],
)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_of_a_command(run: Run, command: str, words: list[str], option: str) -> None:
    result = run(command, option)
    assert result.status == 0 and result.err == ""
    for word in words:
        assert word in result.out
    assert max(map(len, result.out.splitlines())) <= 100


def test_help_names_all_samplers(run: Run) -> None:
    text = " ".join(run("sample", "--help").out.split())
    for name in SAMPLERS:
        assert f" {name}" in text
    assert "[default: (dpmpp_2m_sde; ddim of a model that was made for few steps)]" in text


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"{minidiff.__version__}\n", "")


def test_python_m_minidiff() -> None:
    assert run_apart("--version") == (0, f"{minidiff.__version__}\n", "")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from minidiff import cli\n"
        "sys.argv = ['minidiff', 'sample', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'transformers', 'matplotlib', 'accelerate', 'PIL', 'rich'}\n"
        "sys.exit(f'loaded: {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)\n"
    )
    result = run_python("-c", code)
    assert result.status == 0, result.err


# ------------------------------------------------------------------------------- train


RECIPE = """
image_size = 16
text_encoder = false
steps = 3
batch_size = 4
log_every = 1
save_every = 2
sample_every = 3

[unet]
channels = [32]
attention = [false]
"""


@pytest.fixture
def recipe(here: Path) -> Path:
    path = here / "tiny recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture
def data(here: Path) -> Path:
    """Four pictures of one's own."""
    folder = here / "my pictures 画"
    folder.mkdir()
    rows = ["file_name,text"]
    for i, text in enumerate(["gold", "silver", '"copper, tin"', "iron"]):
        Image.new("L", (20, 16), 60 * i).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{text}")
    (folder / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder


def test_train_resume_and_sample(run: Run, here: Path, recipe: Path, data: Path) -> None:
    arguments = ("train", "--recipe", recipe, "--data", data, "--output", "run 1")
    result = run(*arguments)
    folder = here / "run 1"
    assert result.status == 0, result.err
    assert result.out.startswith(f"{Path('run 1', 'model')}; draw with: minidiff sample")
    assert [entry["step"] for entry in log_of(folder)] == [1, 2, 3]
    assert names(folder / "samples") == ["step-00000003.png"]
    assert names(folder / "checkpoints")[-1] in ("step-00000002", "step-00000003")
    assert names(folder / "model") == ["config.json", "model.safetensors"]

    before = (folder / "model" / "model.safetensors").read_bytes()
    result = run(*arguments)
    assert is_one_line(result) and "--resume" in result.err and "run 1" in result.err
    result = run(*arguments, "--steps", 5, "--resume")
    assert result.status == 0, result.err
    assert [entry["step"] for entry in log_of(folder)][-2:] == [4, 5]
    assert (folder / "model" / "model.safetensors").read_bytes() != before

    result = run("sample", "", *QUICK, "--model", "run 1")
    assert result == (0, "glyphs.png\n", "")


def test_train_from_an_earlier_model_to_a_time_limit(
    run: Run, here: Path, recipe: Path, data: Path
) -> None:
    arguments = ("train", "--recipe", recipe, "--data", data)
    assert run(*arguments, "--output", "a").status == 0
    result = run(*arguments, "--output", "b", "--start", "a", "--seed", 1, "--time-limit", 1e-6)
    assert result.status == 0, result.err
    _, _, record = load_model(here / "b" / "model")
    assert record["steps"] == 1 and record["recipe"]["time_limit"] == 1e-6  # ends after a step
    assert [stage["steps"] for stage in record["stages"]] == [3]

    result = run(*arguments, "--output", "b", "--start", "a", "--seed", 1, "--resume")
    assert is_one_line(result) and "only a new run can start from" in result.err
    result = run("train", "--output", "b", "--resume", "--steps", 1000)
    assert result.status == 0 and "finished already; a larger --time-limit" in result.err
    result = run(*arguments, "--output", "c", "--start", "glyph46")
    assert is_one_line(result) and "no model 'glyph46'" in result.err
    result = run(*arguments, "--output", "c", "--start", "glyph64")
    assert is_one_line(result) and "cannot start from" in result.err and "unet" in result.err
    result = run(*arguments, "--output", "d", "--time-limit", 0)
    assert is_one_line(result) and "time_limit must be a number above 0" in result.err


def test_train_with_text_draws_the_pictures_own_texts(
    run: Run, here: Path, recipe: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.write_text(RECIPE.replace("text_encoder = false", ""), encoding="utf-8")
    labels: list[Any] = []
    grid = plots.grid

    def noted(*arguments: Any, **how: Any) -> Image.Image:
        labels.append(how["labels"])
        return grid(*arguments, **how)

    monkeypatch.setattr(plots, "grid", noted)
    result = run("train", "--recipe", recipe, "--data", data, "--output", "run")
    assert result.status == 0, result.err
    assert labels == [["gold", "silver", "copper, tin", "iron"]]
    assert "minidiff sample gold --model run" in result.out
    with Image.open(here / "run" / "samples" / "step-00000003.png") as sheet:
        assert sheet.width == 8 * (16 + plots.GAP) + plots.GAP


def test_train_interrupted_can_go_on(
    run: Run, here: Path, recipe: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def interrupt(self: Trainer) -> None:
        if self.step_count == 1:
            raise KeyboardInterrupt
        step(self)

    arguments = ("train", "--recipe", recipe, "--data", data, "--output", "run")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupt)
        result = run(*arguments)
    assert result.status == 130
    go_on = shlex.join(["minidiff", "train", "--resume", "--output", "run", "--data", str(data)])
    assert result.err.endswith(f"minidiff: interrupted at step 1; saved. Go on with {go_on}\n")
    assert "Traceback" not in result.err
    # The recipe need not be told again: it is in the checkpoint.
    assert run("train", "--data", data, "--output", "run", "--resume").status == 0
    assert [entry["step"] for entry in log_of(here / "run")][-1] == 3


def test_overrides_win_over_the_recipe(recipe: Path) -> None:
    overrides = {"steps": 7, "batch_size": 2, "learning_rate": None, "seed": 5}
    config = cli_train.config_of(str(recipe), None, overrides)
    assert (config.steps, config.batch_size, config.seed) == (7, 2, 5)
    assert config.learning_rate == minidiff.TrainingConfig().learning_rate
    assert config.text_encoder is None and config.network.text_dim is None


def test_shipped_recipes_are_valid() -> None:
    for path in (Path(cli.__file__).parent / "recipes").glob("*.toml"):
        config = minidiff.TrainingConfig.recipe(path.stem)
        with torch.device("meta"):
            parameters = sum(p.numel() for p in build(config.network).parameters())
        assert parameters <= (1.2e8 if path.stem == "article128" else 4.9e6)
        pictures_only = config.first or not describe(config.network).denoises
        assert config.text_encoder == (None if pictures_only else "minilm")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lerning_rate = 0.1", ["'lerning_rate'", "learning_rate"]),
        ("[unet]\nchanels = [32]", ["'chanels'", "channels"]),
        ("steps = 'many'", ["steps", "many"]),
        ("steps = 2.5", ["steps", "2.5"]),
        ("learning_rate = nan", ["learning_rate", "nan"]),
        ("schedule = 'bent'", ["bent", "straight"]),
        ("image_size = 30", ["image_size", "30"]),
        ("steps 3", ["TOML", "bad.toml"]),
        ("# caf\xe9", ["TOML", "bad.toml"]),
        ("text_encoder = 'minilm'\n[unet]\nchannels = [48]\nattention = [false]", ["48"]),
    ],
)
def test_bad_recipe(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: list[str]
) -> None:
    (here / "bad.toml").write_bytes(text.encode("latin-1"))
    monkeypatch.setattr("minidiff.glyphs.GlyphDataset", refuse)
    result = run("train", "--recipe", "bad.toml", "--output", "run")
    assert is_one_line(result), result
    assert all(part in result.err for part in said), result.err
    assert names(here) == ["bad.toml"]


def test_run_folder_that_cannot_be_made(run: Run, here: Path, recipe: Path, data: Path) -> None:
    (here / "file").write_bytes(b"")
    for output in ("file", "file/run", unwritable(here / "locked") / "run"):
        result = run("train", "--recipe", recipe, "--data", data, "--output", output)
        assert is_one_line(result) and str(output) in result.err, result


def test_run_folders_of_odd_names(run: Run, here: Path, recipe: Path, data: Path) -> None:
    arguments = ("train", "--recipe", recipe, "--data", data, "--output")
    (here / "afile").touch()
    result = run(*arguments, "afile")
    assert is_one_line(result) and "afile is a file: choose another" in result.err
    result = run(*arguments, "x" * 300)
    assert is_one_line(result) and "models" not in result.err


def test_nothing_to_resume(run: Run, here: Path, recipe: Path, data: Path) -> None:
    result = run("train", "--recipe", recipe, "--data", data, "--output", "run", "--resume")
    assert is_one_line(result) and "start a new run" in result.err
    assert not (here / "run").exists()


def pasted(line: str) -> list[str]:
    """The arguments that a shell makes of a line that was printed."""
    script = f"minidiff() {{ printf '%s\\0' \"$@\"; }}\n{line}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]


@pytest.mark.skipif(os.name == "nt", reason="another shell")
@pytest.mark.parametrize(
    "output",
    [
        "glyph64", "-run", "--resume", "two words", "it's \"quoted\"", "$HOME", "a&b;c", "~", "火",
        "line\nend", "tab\tand\x07bell", "back\\slash", "deep/er", ".", "absolute",
    ],
)  # fmt: skip
def test_the_printed_command_draws_with_the_new_model(
    run: Run, here: Path, recipe: Path, data: Path, output: str
) -> None:
    place = here / output if output != "absolute" else here / "x" / "run"
    given = str(place) if output == "absolute" else output
    result = run("train", "--recipe", recipe, "--data", data, "--output", given, "--steps", 1)
    assert result.status == 0, result.err
    line = result.out.split("; draw with: ")[1].rstrip("\n")
    quick = ("--num-images", 1, "--num-inference-steps", 1, "--scale", 1)
    assert run(*pasted(line), *quick) == (0, "glyphs.png\n", ""), line
    with Image.open(here / "glyphs.png") as picture:
        side = 16 + 2 * plots.GAP  # it is not the model that ships
        assert picture.size == (side, side)


def test_a_name_that_a_shipped_model_has_is_told_from_it(
    run: Run, here: Path, recipe: Path, data: Path
) -> None:
    arguments = ("train", "--recipe", recipe, "--data", data, "--output", "glyph64")
    assert f"--model .{os.sep}glyph64\n" in run(*arguments).out
    result = run(*arguments)
    go_on = shell.command("minidiff", "train", "--resume", "--output", f".{os.sep}glyph64")
    assert is_one_line(result) and go_on in result.err


@pytest.mark.skipif(os.name == "nt", reason="another shell")
@pytest.mark.parametrize(
    ("prompt", "line"),
    [
        ("gold", "minidiff sample gold --model run"),
        ("-dash", "minidiff sample --model run -- -dash"),
        ("--help", "minidiff sample --model run -- --help"),
        ("", "minidiff sample '' --model run"),
        ("it's", """minidiff sample 'it'"'"'s' --model run"""),
        (None, "minidiff sample --model run"),
        ("a red car " * 20, f"minidiff sample '{('a red car ' * 8).strip()}' --model run"),
        ("x" * 500, f"minidiff sample {'x' * 80} --model run"),
    ],
)
def test_the_example_is_one_that_can_be_pasted(prompt: str | None, line: str) -> None:
    assert shell.example(prompt, Path("run")) == line


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("gold", "gold"),
        ("runs\\a", "runs\\a"),
        ("C:\\my runs\\", '"C:\\my runs\\\\"'),
        ("", '""'),
        ('say "hi"', '"say \\"hi\\""'),
        ('back\\"', '"back\\\\\\""'),
        ("a&b", '"a&b"'),
        ("it's", '"it\'s"'),
    ],
)
def test_words_quoted_for_windows(word: str, line: str) -> None:
    assert shell._quoted_for_windows(word) == line


def test_captions_are_cleaned_for_the_example(
    run: Run, here: Path, recipe: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.write_text(RECIPE.replace("text_encoder = false", ""), encoding="utf-8")
    rows = 'file_name,text\n0.png,\n1.png,"a red\r\ncar\x1c \x07at night"\n2.png,-dash\n'
    (data / "metadata.csv").write_text(rows, encoding="utf-8", newline="")
    monkeypatch.setattr(cli_train.SampleGrids, "draw", lambda self, _: seen.append(self.prompts))
    seen: list[Any] = []
    result = run("train", "--recipe", recipe, "--data", data, "--output", "run")
    assert result.status == 0, result.err
    assert seen == [["a red car at night", "-dash"]]
    assert result.out.endswith(shell.example("a red car at night", Path("run")) + "\n")


@pytest.mark.parametrize("error", [RuntimeError, OSError, MemoryError, TypeError, KeyError])
def test_a_sample_sheet_that_fails_warns_once(
    run: Run, recipe: Path, data: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error("raqm_layout() failed")

    monkeypatch.setattr(plots, "grid", fail)
    recipe.write_text(RECIPE.replace("sample_every = 3", "sample_every = 1"), encoding="utf-8")
    result = run("train", "--recipe", recipe, "--data", data, "--output", "run")
    assert result.status == 0 and result.out.startswith(str(Path("run", "model")))
    assert result.err.count("a sample sheet failed, training goes on") == 1
    assert error.__name__ in result.err and "raqm_layout() failed" in result.err
    assert result.err.count("Traceback") == (error not in (OSError, MemoryError))


def test_ctrl_c_in_a_sample_sheet_is_no_failure(
    run: Run, recipe: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plots, "grid", interrupt)
    result = run("train", "--recipe", recipe, "--data", data, "--output", "run")
    assert result.status == 130 and "interrupted at step 3; saved" in result.err


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_saves_and_says_how_to_go_on(
    run: Run, here: Path, recipe: Path, data: Path, name: str
) -> None:
    (here / "stop.py").write_text(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # the tests may run under nohup
        "from minidiff import cli, training, text\n"
        "step = training.Trainer.step\n"
        "def ask(self):\n"
        "    step(self)\n"
        f"    if self.step_count == 2: os.kill(os.getpid(), signal.{name})\n"
        "training.Trainer.step = ask\n"
        "cli.main()\n",
        encoding="utf-8",
    )
    arguments = ("train", "--recipe", str(recipe), "--data", str(data), "--output", "my run")
    result = run_python("stop.py", *arguments)
    assert result.status == 128 + getattr(signal, name), result.err
    said = f"minidiff: interrupted by {name} at step 2; saved. Go on with "
    line = result.err.splitlines()[-1]
    assert line.startswith(said) and "Traceback" not in result.err
    assert run(*pasted(line.removeprefix(said))).status == 0
    assert [entry["step"] for entry in log_of(here / "my run")][-1] == 3


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
def test_a_signal_before_the_first_step_leaves_nothing(
    here: Path, recipe: Path, data: Path
) -> None:
    code = (
        "import os, signal, sys\n"
        "from minidiff import cli, training\n"
        "training.encode_prompts = lambda *_: os.kill(os.getpid(), signal.SIGTERM)\n"
        "cli.main()\n"
    )
    words = ("train", "--recipe", str(recipe), "--data", str(data), "--output", "deep/run")
    result = run_python("-c", code, *words)
    assert result == (143, "", "minidiff: ended by SIGTERM\n")
    assert not (here / "deep").exists()


def test_a_resumed_run_opens_the_pictures_that_it_began_with(
    run: Run, here: Path, recipe: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = ("train", "--recipe", recipe, "--data", data.name, "--output", "run")
    assert run(*begin).status == 0
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    go_on = ("train", "--resume", "--output", here / "run")
    result = run(*go_on, "--steps", 4)
    assert result.status == 0, result.err
    result = run(*go_on)
    assert result.status == 0 and "finished already; a larger --steps makes" in result.err

    for steps in (2, 0):
        result = run(*go_on, "--steps", steps)
        assert is_one_line(result) and "steps" in result.err and str(steps) in result.err
    Image.new("L", (20, 16), 77).save(data / "0.png")
    result = run(*go_on, "--steps", 6)
    assert is_one_line(result) and str(data) in result.err and "put them back" in result.err
    data.rename(here / "moved")
    result = run(*go_on, "--steps", 6)
    assert is_one_line(result) and str(data) in result.err and "--data" in result.err
    Image.new("L", (20, 16), 0).save(here / "moved" / "0.png")
    assert run(*go_on, "--steps", 6, "--data", here / "moved").status == 0


def test_a_run_of_a_program_is_not_taken_for_one_of_glyphs(
    run: Run, here: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = SimpleNamespace(images=torch.zeros(4, 1, 16, 16, dtype=torch.uint8), prompts=[])
    Trainer(minidiff.TrainingConfig.recipe(recipe), pictures, here / "run").run()
    monkeypatch.setattr("minidiff.glyphs.GlyphDataset", refuse)
    result = run("train", "--resume", "--output", "run", "--steps", 5)
    assert is_one_line(result) and "program" in result.err and "--data" in result.err


def test_damaged_settings_name_the_older_checkpoint(
    run: Run, here: Path, recipe: Path, data: Path
) -> None:
    arguments = ("--data", data, "--output", "run")
    assert run("train", "--recipe", recipe, *arguments).status == 0
    older, last = sorted((here / "run" / "checkpoints").iterdir())
    (last / "config.json").write_text("{", encoding="utf-8")
    for more in ((), ("--recipe", recipe)):
        result = run("train", "--resume", *arguments, *more)
        assert is_one_line(result), result
        said = f"delete {last.relative_to(here)} and go on from {older.relative_to(here)}"
        assert said in result.err


def test_a_start_brings_its_own_settings(run: Run, here: Path, recipe: Path, data: Path) -> None:
    arguments = ("train", "--data", data)
    assert run(*arguments, "--recipe", recipe, "--output", "a").status == 0
    result = run(*arguments, "--output", "b", "--start", "a", "--seed", 1, "--steps", 2)
    assert result.status == 0, result.err
    recipes = [load_model(here / name / "model")[2]["recipe"] for name in "ab"]
    ours = {name for name in recipes[0] if not name.endswith("_every")}
    assert {n: recipes[1][n] for n in ours} == {n: recipes[0][n] for n in ours} | {
        "seed": 1, "steps": 2,
    }  # fmt: skip
    plain = save_tiny(here / "plain", text=False)  # it has no record of how it came about
    config = cli_train.config_of(None, None, {"steps": 5}, plain)
    assert config.network == load_model(plain)[1].network and config.image_size == 16
    assert config.text_encoder is None and config.steps == 5
    config = cli_train.config_of(None, None, {}, Path(cli.__file__).parent / "models" / "glyph64")
    assert config.sample_every == 500 and config.time_limit is None


def test_pictures_of_two_channels_are_not_a_matter_of_size(
    run: Run, here: Path, recipe: Path, data: Path
) -> None:
    text = RECIPE.replace("[unet]", "[unet]\nin_channels = 2")
    recipe.write_text(text, encoding="utf-8")
    result = run("train", "--recipe", recipe, "--data", data, "--output", "run")
    assert is_one_line(result) and "set in_channels = 1 or 3 under [unet]" in result.err
    assert not (here / "run").exists()


def test_channels_are_those_of_the_pictures_unless_the_recipe_says(
    run: Run, here: Path, recipe: Path, data: Path
) -> None:
    Image.new("RGB", (20, 16), (200, 30, 30)).save(data / "0.png")
    colour = ("train", "--recipe", recipe, "--data", data, "--output", "colour")
    result = run(*colour)
    assert result.status == 0 and "4 pictures of 16 × 16 pixels in colour from" in result.err
    assert "their texts from metadata.csv" in result.err
    assert load_model(here / "colour" / "model")[1].shape == (3, 16, 16)
    for again, steps in ((("train", "--output", "colour"), 4), (colour, 5)):
        assert run(*again, "--resume", "--steps", steps).status == 0
    with Image.open(here / "colour" / "samples" / "step-00000005.png") as sheet:
        assert sheet.mode == "RGB"
    recipe.write_text(RECIPE.replace("[unet]", "[unet]\nin_channels = 1"), encoding="utf-8")
    assert run("train", "--recipe", recipe, "--data", data, "--output", "grey").status == 0
    assert load_model(here / "grey" / "model")[1].shape == (1, 16, 16)
    result = run("train", "--data", data, "--output", "more", "--start", "grey", "--seed", 1)
    assert result.status == 0 and "in grey from" in result.err, "as the model has it"


def test_a_second_training_is_told_who_is_there(
    run: Run, here: Path, recipe: Path, data: Path
) -> None:
    from minidiff.run_folder import RunLock

    arguments = ("train", "--recipe", recipe, "--data", data, "--output", "run")
    assert run(*arguments).status == 0
    with RunLock(here / "run"):
        result = run(*arguments, "--resume", "--steps", 5)
        assert is_one_line(result) and f"by process {os.getpid()} on " in result.err
        assert run("sample", *QUICK, "--model", "run").status == 0
    assert run(*arguments, "--resume", "--steps", 5).status == 0


# ------------------------------------------------------------------------------- evaluate


def test_loss_of_a_model_without_text(run: Run, plain: Path) -> None:
    table = run("evaluate", "--loss-only", "--model", plain)
    assert table.status == 0 and table.err == ""
    heading, timesteps, losses = (line.split() for line in table.out.splitlines())
    assert " ".join(heading) == "Loss on held-out glyphs, by timestep"
    as_json = json.loads(run("evaluate", "--loss-only", "--model", plain, "--json").out)
    expected = as_json["held_out_loss"]
    assert timesteps == [*expected] == [
        "62", "188", "312", "438", "562", "688", "812", "938", "mean",
    ]  # fmt: skip
    assert [float(x) for x in losses] == pytest.approx([*expected.values()], abs=1e-3)


def test_evaluate_pictures_that_cannot_be_read(run: Run, plain: Path) -> None:
    result = run("evaluate", "--model", plain)
    assert is_one_line(result)
    for word in ("16 × 16", "64 × 64", "--loss-only"):
        assert word in result.err


def test_a_model_of_other_pictures_is_measured_by_them(
    run: Run, here: Path, recipe: Path, data: Path
) -> None:
    assert run("train", "--recipe", recipe, "--data", data, "--output", "run").status == 0
    result = run("evaluate", "--loss-only", "--model", "run")
    assert result.status == 0 and result.err == "" and "glyphs" not in result.out
    assert "training" in result.out and "--held-out" in result.out
    data.rename(here / "elsewhere")
    for options in ((), ("--loss-only",), ("--full",)):
        result = run("evaluate", *options, "--model", "run")
        assert is_one_line(result) and str(data) in result.err and "--data" in result.err


def test_help_says_how_long_evaluating_takes(run: Run) -> None:
    text = " ".join(run("evaluate", "--help").out.split())
    assert "twenty-five minutes, not one and a half" in text


def test_evaluate_in_both_forms(run: Run, texted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command hands on what it was asked for; the measures have tests of their own."""
    asked = []

    def evaluate(pipeline: Any, form: Any, seed: int, progress: bool) -> dict[str, Any]:
        asked.append((form, seed))
        return {"paper": 0.75}

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    assert "0.750" in run("evaluate", "--model", texted).out
    assert json.loads(run("evaluate", "--full", "--seed", 3, "--json", "--model", texted).out)
    assert asked == [(evaluation.FORMS["quick"], 0), (evaluation.FORMS["full"], 3)]
