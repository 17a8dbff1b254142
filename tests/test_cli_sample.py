"""Pictures that know where they come from, folders of them, prompts from files, editing."""

from __future__ import annotations

import io
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import minidiff
from faults.calls import command_line
from helpers import MINILM, Result, awake, encoded, names, sha256
from minidiff import editing, plots, provenance
from minidiff.model import ModelConfig, save_model
from minidiff.provenance import Provenance
from minidiff.samplers import SAMPLERS
from minidiff.unet import UNetConfig

SIZE = 16


def save_tiny(folder: Path, seed: int = 0) -> Path:
    """A small model with text, with random weights."""
    shape = UNetConfig(channels=(32, 32), attention=(False, True), text_dim=384)
    config = ModelConfig(shape, SIZE, text_encoder="minilm", text_fingerprint=MINILM)
    save_model(folder, awake(shape, seed), config)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny 金")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "work 金"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [])
    yield folder


def run(*arguments: object) -> Result:
    """minidiff sample ARGUMENTS…"""
    return command_line(["sample", *map(str, arguments)])


def ran(*arguments: object) -> list[str]:
    """The files that it has written."""
    result = run(*arguments)
    assert result.status == 0 and result.err == "", result
    return result.out.splitlines()


def refused(*arguments: object) -> str:
    """The one line in which it says why not; nothing is written."""
    before = names(Path())
    result = run(*arguments)
    assert result.status == 2 and result.out == "" and result.err.count("\n") == 1, result
    assert result.err.startswith("minidiff: ") and names(Path()) == before
    return result.err


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.asarray(picture)


QUICK = ("--num-images", 3, "--num-inference-steps", 2)

# ------------------------------------------------------------------- what a picture carries


@pytest.mark.parametrize("name", ["x.png", "x.gif", "x.npy"])
def test_drawn_again_the_file_is_the_same(here: Path, model: Path, name: str) -> None:
    words = ("gold", 'a "kind" of \\ fish', "--negative-prompt", "water", "--seed", 7)
    how = ("--sampler", "ddim", "--guidance-scale", 2.5, "--scale", 3, "--model", model)
    assert ran(*words, *QUICK, *how, "-o", name) == [name]
    ran("--again", name, "-o", f"y{name[1:]}")
    assert sha256(here / name) == sha256(here / f"y{name[1:]}")
    made = provenance.read(name)
    assert made.prompts == ["gold", 'a "kind" of \\ fish'] and made.seed == 7
    assert (made.model, made.weights) == (str(model), sha256(model / "model.safetensors"))
    assert (made.num_images, made.num_inference_steps, made.guidance_scale) == (3, 2, 2.5)
    assert (made.sampler, made.negative_prompt) == ("ddim", "water")
    assert made.minidiff == minidiff.__version__


def test_any_program_can_read_it(here: Path, model: Path) -> None:
    for name in ("x.png", "x.gif", "x.npy"):
        run("金", *QUICK, "--model", model, "-o", name)  # which is drawn with a notice
    data = (here / "x.png").read_bytes()
    assert b"iTXtminidiff\0\0\0\0\0" in data and '"prompts": ["金"]'.encode() in data
    with Image.open("x.png") as png, Image.open("x.gif") as gif:
        texts = [png.info["minidiff"], gif.info["comment"].decode("ascii")]
    texts.append((here / "x.npy.json").read_text(encoding="utf-8"))
    for text in texts:
        values = json.loads(text)
        assert values["prompts"] == ["金"] and values["seed"] == 0 and "mask" not in values


def test_without_output_the_new_file_has_the_same_ending(here: Path, model: Path) -> None:
    for name in ("x.gif", "x.npy"):
        ran("gold", *QUICK, "--model", model, "-o", name)
        assert ran("--again", name) == [f"gold{name[1:]}"]
        assert sha256(here / name) == sha256(here / f"gold{name[1:]}")


def test_options_beside_it_win(here: Path, model: Path) -> None:
    ran("gold", *QUICK, "--model", model, "--seed", 5, "--scale", 4, "-o", "x.png")
    ran("fish", *QUICK, "--model", model, "--seed", 6, "--scale", 4, "-o", "wanted.png")
    ran("fish", "--again", "x.png", "--seed", 6, "-o", "y.png")
    assert sha256(here / "y.png") == sha256(here / "wanted.png")
    # also where it is the value that it would have without
    ran("gold", *QUICK, "--model", model, "--scale", 4, "-o", "wanted.png")
    ran("--again", "x.png", "--seed", 0, "-o", "y.png")
    assert sha256(here / "y.png") == sha256(here / "wanted.png")


def made(**other: Any) -> Provenance:
    values = {
        "minidiff": "0.1.0", "model": "glyph64", "weights": "0" * 64, "prompts": ["gold"],
        "negative_prompt": "", "num_images": 2, "num_inference_steps": 2, "guidance_scale": 1.0,
        "sampler": "ddim", "seed": 0,
    }  # fmt: skip
    return Provenance(**{**values, **other})


def carrying(text: str) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("minidiff", text)
    return encoded(Image.new("L", (4, 4)), pnginfo=info)


@pytest.mark.parametrize("nothing", [0, 0.0, ""])
def test_nought_is_kept(nothing: Any) -> None:
    name = {int: "seed", float: "guidance_scale", str: "negative_prompt"}[type(nothing)]
    one = made(**{name: nothing}, number=0)
    assert Provenance.from_json(one.to_json()) == one


def test_a_prompt_of_broken_bytes_is_kept() -> None:
    one = made(prompts=["caf\udce9", "\0", "a\nb", "😀"])
    for data in (
        provenance.signed_png(Image.new("L", (4, 4)), one),
        provenance.signed_gif(plots.animation([Image.new("L", (4, 4))]), one),
    ):
        with Image.open(io.BytesIO(data)) as picture:
            text = picture.info.get("minidiff") or picture.info["comment"].decode()
        assert Provenance.from_json(text) == one


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("colours", [2, 16, 256])
def test_a_comment_leaves_the_animation_as_it_is(frames: int, colours: int) -> None:
    shades = [Image.new("L", (5, 4), 127 * i) for i in range(frames)]
    plain = plots.animation(shades, colours=colours)
    signed = provenance.signed_gif(plain, made(prompts=["a long prompt"] * 100))
    with Image.open(io.BytesIO(plain)) as one, Image.open(io.BytesIO(signed)) as other:
        assert other.info["loop"] == 0
        assert len(Provenance.from_json(other.info["comment"].decode()).prompts) == 100
        for a, b in itertools.zip_longest(*map(ImageSequence.Iterator, (one, other))):
            assert a.convert("L").tobytes() == b.convert("L").tobytes()
            assert a.info.get("duration") == b.info.get("duration")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.png", encoded(Image.new("L", (4, 4))), "does not say where it comes from"),
        ("x.jpg", encoded(Image.new("L", (4, 4)), "JPEG"), "does not say where it comes from"),
        ("x.gif", encoded(Image.new("L", (4, 4)), "GIF", comment=b"by GIMP"), "does not say"),
        ("x.png", b"no picture", "does not say where it comes from"),
        ("x.png", b"", "does not say where it comes from"),
        ("x.npy", b"", "there is no x.npy.json"),
        ("x.png", carrying('{"seed": 0}'), "was not written by minidiff"),
        ("x.png", carrying("[" * 100_000), "cannot be used"),
        ("x.png", carrying(made().to_json()[:-9]), "cannot be used"),
        ("x.png", carrying('{"minidiff": "9.0", "warmth": 1}'), "9.0 has noted 'warmth'"),
        ("x.png", carrying('{"minidiff": "0.1.0"}'), "lacks 'model'"),
        ("x.png", carrying(made().to_json().replace("[", "[3, ")), "must be a list of texts"),
        ("x.png", carrying(made(seed=41).to_json().replace("41", '"41"')), "seed must be"),
        ("x.png", carrying(made(seed=41).to_json().replace("41", "NaN")), "seed must be"),
        ("x.png", carrying(made(scale=7).to_json().replace("7", "70000")), "scale must be"),
        ("x.png", carrying(made(number=1).to_json().replace("1}", "2}")), "number 2 is none of 2"),
    ],
)
def test_files_that_do_not_say(here: Path, name: str, content: bytes, said: str) -> None:
    (here / name).write_bytes(content)
    message = refused("--again", name)
    assert said in message and name in message, message


def test_files_that_are_not_there(here: Path) -> None:
    for name in ("x.png", "x.npy"):
        assert name in refused("--again", name)


# ----------------------------------------------------------------------- with which weights


def test_a_model_that_is_not_here(here: Path) -> None:
    folder = save_tiny(here / "one")
    ran("gold", *QUICK, "--model", "one", "-o", "x.png")
    wanted = sha256(folder / "model.safetensors")
    folder.rename(here / "two")
    message = refused("--again", "x.png")
    assert "'one'" in message and wanted in message and "--model" in message
    ran("--again", "x.png", "--model", "two", "-o", "y.png")
    assert (pixels("y.png") == pixels("x.png")).all()


def test_other_weights(here: Path) -> None:
    ran("gold", *QUICK, "--model", save_tiny(here / "one"), "-o", "x.png")
    wanted = sha256(here / "one" / "model.safetensors")
    found = sha256(save_tiny(here / "one", seed=1) / "model.safetensors")
    message = refused("--again", "x.png")
    assert wanted in message and found in message and "--model" in message
    result = run("--again", "x.png", "--model", here / "one", "-o", "y.png")  # on purpose
    assert result.status == 0 and result.err.count("\n") == 1
    assert wanted in result.err and found in result.err
    assert (pixels("y.png") != pixels("x.png")).any()
    assert provenance.read("y.png").weights == found


@pytest.mark.parametrize("place", [r"\\host\share\model", "//host/share/model", r"\/host\x"])
def test_a_picture_leads_to_no_other_machine(here: Path, place: str) -> None:
    (here / "x.png").write_bytes(carrying(made(model=place).to_json()))
    assert "on a network: give --model" in refused("--again", "x.png")


# ------------------------------------------------------------------------ one file a picture


def test_a_folder_of_pictures(here: Path, model: Path) -> None:
    prompts = ["gold", "CON", "a/b: <fish>?"]
    files = ran(*prompts, *QUICK, "--model", model, "-o", "out/")
    stems = ["1-gold", "2-CON", "3-a-b-fish"]
    assert [Path(file).name for file in files] == [f"{s}-{i}.png" for s in stems for i in (1, 2, 3)]
    assert files == sorted(files) and names(here / "out") == sorted(Path(f).name for f in files)
    pipeline = minidiff.load(model)
    for i, prompt in enumerate(prompts):
        images = pipeline(prompt, num_images_per_prompt=3, num_inference_steps=2)
        for k, image in enumerate(plots.to_uint8(images[:, 0]).numpy()):
            assert (pixels(files[3 * i + k]) == image).all()


def test_a_picture_of_a_folder_is_drawn_again(here: Path, model: Path) -> None:
    files = ran("gold", "fish", *QUICK, "--seed", 2, "--model", model, "--output", "out/")
    ran("--again", files[4], "-o", "x.png")
    assert sha256(here / "x.png") == sha256(here / files[4])
    # with more pictures it is a sheet of all
    ran("--again", files[4], "--num-images", 4, "-o", "y.png")
    assert pixels("y.png").shape == tuple(2 * (SIZE + plots.GAP) + plots.GAP for _ in range(2))
    assert ran("--again", files[4], "-o", "z.npy") and np.load("z.npy").shape == (1, 1, SIZE, SIZE)
    assert (np.load("z.npy")[0, 0] == pixels("x.png")).all()


def test_what_lies_in_the_folder_is_never_replaced(here: Path, model: Path) -> None:
    (here / "out").mkdir()
    first = ran("gold", *QUICK, "--model", model, "-o", "out")
    before = {path: sha256(path) for path in (here / "out").iterdir()}
    second = ran("gold", *QUICK, "--model", model, "-o", "out", "--seed", 1, "--scale", 2)
    assert [Path(file).name for file in second] == [f"gold-{i}-2.png" for i in (1, 2, 3)]
    assert not set(first) & set(second)
    assert all(sha256(path) == old for path, old in before.items())
    assert pixels(second[0]).shape == (2 * SIZE, 2 * SIZE)


def test_numbers_are_as_long_as_the_longest(here: Path, model: Path) -> None:
    files = ran(
        "gold", "--num-images", 11, "--num-inference-steps", 1, "--model", model, "-o", "x/"
    )
    assert files == sorted(files) and Path(files[0]).name == "gold-01.png"


@pytest.mark.parametrize("name", ["con", "Aux", "COM1", "lpt9", "nul"])
def test_names_that_windows_takes_for_devices(here: Path, model: Path, name: str) -> None:
    assert run(name, *QUICK, "--model", model).out == f"{name}-.png\n"


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("file/", "is a file, not a folder"),
        ("no/such/", "there is no folder no"),
        ("folder.png", "end it with a /"),
        ("x", "or a slash for a folder"),
        ("", "or a slash for a folder"),
    ],
)
def test_folders_that_cannot_be(
    here: Path, monkeypatch: pytest.MonkeyPatch, output: str, said: str
) -> None:
    (here / "file").write_bytes(b"")
    (here / "folder.png").mkdir()
    monkeypatch.setattr("minidiff.pipeline.load", None)
    assert said in refused("gold", "--output", output)


# ------------------------------------------------------------------------ prompts from a file


TEXT = "\ufeffgold\r\n\r\n  a kind of fish \r\nwater"


@pytest.mark.parametrize("stdin", [False, True])
def test_prompts_from_a_file(
    here: Path, model: Path, monkeypatch: pytest.MonkeyPatch, stdin: bool
) -> None:
    (here / "p.txt").write_bytes(TEXT.encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode()), "ascii"))
    ran("bird", "--prompts", "-" if stdin else "p.txt", *QUICK, "--model", model, "-o", "x.npy")
    assert provenance.read("x.npy").prompts == ["bird", "gold", "a kind of fish", "water"]
    images = minidiff.load(model)(
        ["bird", "gold", "a kind of fish", "water"], num_images_per_prompt=3, num_inference_steps=2
    )
    assert (np.load("x.npy") == plots.to_uint8(images).view(4, 3, SIZE, SIZE).numpy()).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"gold\ncaf\xe9\n", ["line 2", "UTF-8"]),
        ("gold\n".encode("utf-16"), ["line 1", "UTF-8"]),
        (b"\n \n", ["holds no prompt"]),
        (b"", ["holds no prompt"]),
        (None, ["p.txt"]),
    ],
)
def test_files_without_prompts(
    here: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, said: list[str]
) -> None:
    if content is not None:
        (here / "p.txt").write_bytes(content)
    monkeypatch.setattr("minidiff.pipeline.load", None)
    message = refused("--prompts", "p.txt")
    assert all(part in message for part in [*said, "p.txt"]), message


# ---------------------------------------------------------------------------------- editing


@pytest.fixture
def sketch(here: Path) -> Path:
    """Grey on white, with a dark bar, and as large as the pictures of the model."""
    picture = Image.new("L", (SIZE, SIZE), 255)
    picture.paste(90, (2, 3, 9, 6))
    picture.save("sketch.png")
    return Path("sketch.png")


@pytest.fixture
def mask(here: Path) -> Path:
    """White in its left half."""
    picture = Image.new("L", (SIZE, SIZE), 0)
    picture.paste(255, (0, 0, SIZE // 2, SIZE))
    picture.save("mask.png")
    return Path("mask.png")


ONE = ("--num-images", 1, "--num-inference-steps", 4, "-o", "out/")


def test_more_strength_leaves_less_of_the_picture(model: Path, sketch: Path) -> None:
    drawn = [
        pixels(ran("gold", "--from", sketch, "--strength", s, "--model", model, *ONE)[0]).astype(
            int
        )
        for s in (0.01, 0.5, 0.99, 1)
    ]
    change = [np.abs(picture - pixels(sketch)).mean() for picture in drawn]
    assert change[0] < 10 and change[0] < change[1] < change[2]
    # at 1 nothing of it is left
    assert np.abs(drawn[3] - pixels(ran("gold", "--model", model, *ONE)[0])).max() <= 1
    default = pixels(ran("gold", "--from", sketch, "--model", model, *ONE)[0])
    same = ran("gold", "--from", sketch, "--strength", 0.8, "--model", model, *ONE)
    assert (default == pixels(same[0])).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_black_in_the_mask_stays(
    model: Path, sketch: Path, mask: Path, sampler: str
) -> None:
    how = ("--from", sketch, "--mask", mask, "--sampler", sampler, "--model", model)
    (file,) = ran("gold", *how, *ONE)
    left, right = np.hsplit(pixels(file), 2)
    assert (right == np.hsplit(pixels(sketch), 2)[1]).all()
    assert (left != np.hsplit(pixels(sketch), 2)[0]).any()


def test_a_blend_goes_from_one_prompt_to_the_other(here: Path, model: Path) -> None:
    how = ("--num-images", 3, "--num-inference-steps", 3, "--model", model, "--seed", 4)
    ran("--blend", "gold", "a kind of fish", *how, "-o", "x.npy")
    (row,) = np.load("x.npy").astype(int)
    pipeline = minidiff.load(model)
    ends = plots.to_uint8(pipeline(["gold", "a kind of fish"], num_inference_steps=3, seed=4))
    first, last = ends[:, 0].numpy().astype(int)
    assert np.abs(row[0] - first).max() <= 1 and np.abs(row[2] - last).max() <= 1
    assert (row[1] != row[0]).any() and (row[1] != row[2]).any()
    files = ran("--blend", "gold", "a kind of fish", *how, "-o", "out/")
    assert [Path(file).name for file in files] == [
        f"gold-a-kind-of-fish-{i}.png" for i in (1, 2, 3)
    ]
    assert all((pixels(file) == picture).all() for file, picture in zip(files, row))


def test_more_pictures_than_the_network_sees_at_a_time(
    model: Path, sketch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw() -> torch.Tensor:
        picture = torch.from_numpy(pixels(sketch).copy())[None]
        how: dict[str, Any] = {"num_inference_steps": 4, "negative_prompt": "water"}
        frames = editing.steps(minidiff.load(model), ["", "fish"], picture=picture, **how,
                               num_images_per_prompt=3)  # fmt: skip
        *_, last = frames
        blended = editing.steps(minidiff.load(model), ["gold", "fish"], blend=True, **how,
                                num_images_per_prompt=3)  # fmt: skip
        *_, other = blended
        assert len(frames) < len(blended) == 4
        return torch.cat([last.images, other.images])

    whole = draw()
    monkeypatch.setattr(editing, "BATCH", 2)
    assert whole.shape == (9, 1, SIZE, SIZE) and torch.allclose(draw(), whole, atol=1e-4)


@pytest.mark.parametrize(
    "how",
    [
        ("gold", "--from", "sketch.png", "--strength", 0.6),
        ("gold", "fish", "--from", "sketch.png", "--mask", "mask.png"),
        ("--blend", "gold", "fish"),
        ("--blend", "gold", "fish", "--from", "sketch.png"),
    ],
)
def test_what_was_edited_is_drawn_again(
    model: Path, sketch: Path, mask: Path, how: tuple[Any, ...]
) -> None:
    how = (*how, *QUICK, "--model", model)
    for name in ("x.png", "x.gif", ran(*how, "-o", "out/")[1]):
        if name[0] == "x":
            ran(*how, "-o", name)
        (again,) = ran("--again", name)
        assert Path(again).read_bytes() == Path(name).read_bytes()


def test_a_picture_that_is_no_longer_the_same(model: Path, sketch: Path) -> None:
    ran("gold", "--from", sketch, *QUICK, "--model", model, "-o", "x.png")
    wanted = sha256(sketch)
    Image.new("L", (SIZE, SIZE), 200).save(sketch)
    message = refused("--again", "x.png")
    assert all(part in message for part in (wanted, sha256(sketch), "--from sketch.png"))
    ran("--again", "x.png", "--from", sketch, "-o", "y.png")  # on purpose
    sketch.unlink()
    assert "sketch.png" in refused("--again", "x.png")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_pictures_of_any_kind_are_taken(model: Path, sketch: Path, mode: str) -> None:
    with Image.open(sketch) as picture:
        picture.convert("1").save("plain.png")
        picture.convert("1").convert("RGBA" if mode == "P" else mode).convert(mode).save("x.png")
    how = ("gold", "--strength", 0.3, "--model", model, *ONE)
    (one,), (other,) = ran(*how, "--from", "plain.png"), ran(*how, "--from", "x.png")
    assert (pixels(one) == pixels(other)).all()


def test_pictures_that_cannot_be_started_from(model: Path, sketch: Path, mask: Path) -> None:
    Image.new("L", (20, 12)).save("large.png")
    Image.new("L", (SIZE, SIZE)).save("black.png")
    Image.new("I;16", (SIZE, SIZE)).save("deep.png")
    Path("no.png").write_bytes(b"no picture")
    start, prompt = ("--from", sketch), ("gold", "--model", model)
    for words, said in (
        ((*prompt, "--from", "large.png"), ["--from large.png", "20 × 12", "16 × 16", "resize"]),
        ((*prompt, *start, "--mask", "large.png"), ["--mask large.png", "20 × 12", "16 × 16"]),
        ((*prompt, "--from", "no.png"), ["no.png", "cannot be read"]),
        ((*prompt, "--from", "deep.png"), ["deep.png", "8 bits"]),
        ((*prompt, "--from", "gone.png"), ["gone.png"]),
        ((*prompt, *start, "--mask", "black.png"), ["nothing to draw", "white"]),
        ((*prompt, "--mask", mask), ["--from"]),
        ((*prompt, "--strength", 0.5), ["--from"]),
        ((*prompt, *start, "--strength", 0), ["--strength", "0.01"]),
        ((*prompt, *start, "--strength", "nan"), ["nan"]),
        ((*prompt, *start, "--num-images", 10**15), ["GiB", "fit"]),
        ((*prompt, "--blend", "bird", "fish"), ["--blend", "'gold'"]),
        (("--blend", "bird"), ["--blend"]),
    ):
        message = refused(*words)
        assert all(part in message for part in said), message


# ---------------------------------------------------------------------------- colour, the Hub


def test_colour_goes_into_every_kind_of_file(here: Path) -> None:
    shape = UNetConfig(in_channels=3, channels=(32,), attention=(False,), text_dim=None)
    save_model(Path("colour"), awake(shape, 0), ModelConfig(shape, (8, 16)))
    for ending in ("png", "gif", "npy"):
        name = f"x.{ending}"
        ran("--model", "colour", "--num-images", 2, "--scale", 1, "--output", name)
    images = np.load("x.npy")
    assert images.shape == (1, 2, 8, 16, 3) and images.dtype == np.uint8
    with Image.open("x.png") as sheet:
        assert sheet.mode == "RGB"
        assert any(np.ptp(np.asarray(sheet).astype(int), axis=2).ravel() > 9)
    ran("--model", "colour", "--num-images", 2, "--output", "each/")
    with Image.open(sorted(Path("each").glob("*.png"))[0]) as single:
        assert (np.asarray(single) == images[0, 0]).all()
        single.save("start.png")
    ran("--model", "colour", "--from", "start.png", "--strength", 0.1, "--output", "y.npy")
    again = np.load("y.npy")[0, 0]
    assert again.shape == (8, 16, 3)


def test_a_picture_does_not_decide_what_is_downloaded(here: Path, model: Path) -> None:
    ran("gold", "--model", model, "--output", "x.npy")
    side = Path("x.npy.json")
    noted = json.loads(side.read_text("utf-8"))
    side.write_text(json.dumps({**noted, "model": "ann/digits"}), "utf-8")
    result = run("--again", "x.npy", "--output", "y.npy")
    assert result.status and "names 'ann/digits', which is not here: give --model too" in result.err
    ran("--again", "x.npy", "--output", "y.npy", "--model", model)
    assert (np.load("x.npy") == np.load("y.npy")).all()
