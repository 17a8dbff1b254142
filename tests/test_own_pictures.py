"""Own pictures as people have them: colour, rectangles, all kinds of texts, other data sets."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, random_split

import minidiff
from faults.calls import command_line
from helpers import log_of, names
from minidiff import cli_train, datasets, plots
from minidiff.batches import check_dataset
from minidiff.cli_train import SampleGrids
from minidiff.datasets import ImageFolder, Wrapped
from minidiff.recipe import TrainingConfig
from minidiff.training import Trainer
from minidiff.unet import UNetConfig

COLOURS = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "grey": (128, 128, 128)}


@pytest.fixture(autouse=True)
def surroundings(own_cache: Path) -> Iterator[None]:
    """A cache of its own, and no warning that is not asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


def save(folder: Path, *files: str, size: tuple[int, int] = (8, 8)) -> Path:
    """Pictures of one colour, which is the first word of the file's name or of its folder's."""
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        words = name.replace("/", " ").replace("_", " ").replace(".", " ").replace("-", " ")
        colour = next(COLOURS[word] for word in words.split() if word in COLOURS)
        Image.new("RGB", size, colour).save(path)
    return folder


def colours(data: Any) -> list[tuple[int, ...]]:
    """Of the pixel in the middle of each picture."""
    height, width = data.images.shape[2:]
    return [tuple(p.tolist()) for p in data.images[:, :, height // 2, width // 2]]


def texts(data: Any) -> list[str]:
    return [several[0] for several in data.prompts]


# ------------------------------------------------------------------------------ colour, paper


def test_channels_are_those_of_the_pictures_unless_told(tmp_path: Path) -> None:
    data = ImageFolder(save(tmp_path / "a", "grey_car.png", "red_car.png"), 8)
    assert data.images.shape == (2, 3, 8, 8) and data.channels == 3
    assert colours(data) == [(128, 128, 128), (255, 0, 0)]
    assert data[1]["image"].shape == (3, 8, 8) and "in colour" in repr(data)
    assert colours(ImageFolder(tmp_path / "a", 8, 1)) == [(128,), (76,)]  # 0.299 · 255
    grey = save(tmp_path / "b", "grey.png", "grey_2.png")
    assert ImageFolder(grey, 8).images.shape == (2, 1, 8, 8)
    assert colours(ImageFolder(grey, 8, 3)) == [(128, 128, 128)] * 2
    for wrong in (2, "3", 4):
        with pytest.raises(ValueError, match=f"channels is {wrong!r}: give 1 for grey, 3 for"):
            ImageFolder(grey, 8, wrong)  # type: ignore[arg-type]


def test_grey_is_the_same_whether_asked_for_or_found(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for i, mode in enumerate(["L", "RGB", "LA", "RGBA"]):
        picture = Image.fromarray(draw.integers(0, 256, (13, 17), dtype=np.uint8)).convert(mode)
        if mode in ("LA", "RGBA"):
            picture.putalpha(Image.fromarray(draw.integers(0, 256, (13, 17), dtype=np.uint8)))
        picture.save(tmp_path / f"{i}.png")
    asked, found = (ImageFolder(tmp_path, 16, channels).images for channels in (1, None))
    assert torch.equal(asked, found)


@pytest.mark.parametrize(("pixel", "channels"), [((100, 102, 101), 1), ((100, 103, 100), 3)])
def test_a_trace_of_colour_in_one_pixel(
    tmp_path: Path, pixel: tuple[int, int, int], channels: int
) -> None:
    picture = Image.new("RGB", (8, 8), (100, 100, 100))
    picture.putpixel((2, 3), pixel)
    picture.putpixel((0, 0), (0, 0, 0))
    picture.save(tmp_path / "a.png")
    assert ImageFolder(tmp_path, 8).channels == channels


def test_what_is_transparent_lies_on_the_paper(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (16, 8), (0, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 8, 8))
    clear.save(tmp_path / "a.png")
    for paper, shown in (("white", (255, 255, 255)), ("#ff8000", (255, 128, 0))):
        picture = ImageFolder(tmp_path, 16, paper=paper).images[0]
        assert picture[:, 8, 3].tolist() == [0, 0, 255]
        assert picture[:, 8, 13].tolist() == list(shown), "through the picture"
        assert picture[:, 0, 3].tolist() == list(shown), "above it"
    assert ImageFolder(tmp_path, 16, 1, paper="#ff8000").images[0, 0, 0, 3] == 151
    for wrong in ("snow white", "#ff000080", 255, None):
        with pytest.raises(ValueError, match=f"paper is {wrong!r}: give the name of a colour"):
            ImageFolder(tmp_path, 16, paper=wrong)  # type: ignore[arg-type]


def test_rectangles(tmp_path: Path) -> None:
    folder = save(tmp_path, "red.png", size=(40, 40))
    data = ImageFolder(folder, (16, 24))
    assert data.images.shape == (1, 3, 16, 24) and "16 × 24 pixels" in repr(data)
    assert (data.images[0, 1, :, 4:20] == 0).all(), "as large as it fits"
    assert (data.images[0, 1, :, :4] == 255).all() and (data.images[0, 1, :, 20:] == 255).all()
    assert ImageFolder(folder, [16, 16]).size == 16  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size must be a whole number, or two"):
        ImageFolder(folder, (16, 24, 3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size is 4: give a whole number of pixels from 8 to 512"):
        ImageFolder(folder, (4, 24))
    save(tmp_path / "narrow", "red.png", size=(3, 60))
    with pytest.raises(ValueError, match="3 × 60 pixels are too narrow"):
        ImageFolder(tmp_path / "narrow", (16, 24))


# -------------------------------------------------------------------------- where texts are


def test_texts_come_from_the_first_that_is_there(tmp_path: Path) -> None:
    folder = save(tmp_path, "red_car/1.png", "blue-bird/2.JPG", "blue-bird/deep/green_fish/3.png")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    save(folder / ".hidden", "red.png")
    data = ImageFolder(folder, 8)
    assert data.source == "names of folders"
    assert dict(zip(data.file_names, texts(data))) == {
        "blue-bird/2.JPG": "blue bird",
        "blue-bird/deep/green_fish/3.png": "green fish",
        "red_car/1.png": "red car",
    }
    lines = [
        {"file_name": "red_car/1.png", "text": "a car, red\u2028 ", "id": 3},
        {"file_name": "blue-bird/2.JPG", "text": None},
    ]
    table = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n\n"
    (folder / "metadata.jsonl").write_text(table, encoding="utf-8-sig")
    data = ImageFolder(folder, 8)
    assert data.source == "metadata.jsonl" and data.source in repr(data)
    assert data.prompts == [("a car, red", "a car", "red"), ("",)]
    (folder / "metadata.csv").write_text(
        "file_name,text,name\nred_car/1.png,x,my car\n", encoding="utf-8"
    )
    assert texts(ImageFolder(folder, 8)) == ["x"]
    data = ImageFolder(folder, 8, caption_column="name")
    assert texts(data) == ["my car"] and data.source == "metadata.csv"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("red_car.png", "red car"),
        ("red-car-012.png", "red car"),
        ("red_car (3).png", "red car"),
        ("red.12.png", "red"),
        ("red__wide-car-7.png", "red wide car"),
        ("red_co2.png", "red co2"),
        ("3 red cars.png", "3 red cars"),
    ],
)
def test_names_of_files_are_texts(tmp_path: Path, name: str, text: str) -> None:
    data = ImageFolder(save(tmp_path, name), 8)
    assert texts(data) == [text] and data.source == "names of files"


def test_a_number_alone_is_no_text(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "0012.png")
    assert texts(ImageFolder(tmp_path, 8)) == [""]
    (tmp_path / "7").mkdir()
    (tmp_path / "0012.png").rename(tmp_path / "7" / "0012.png")
    assert texts(ImageFolder(tmp_path, 8)) == ["7"], "a class may be a number"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("{'file_name': 'red.png'}\n", r"line 1 is not JSON .*write one object a line"),
        ('\n["red.png", "red"]\n', "line 2 is no object"),
        ('{"file_name": "red.png"}\n', "line 1 lacks the column text: .*give both in every line"),
        ('{"file_name": "red.png", "text": 7}\n', "line 1: text is 7: give a text in quotes"),
        ('{"file_name": null, "text": ""}\n', "line 1: file_name is None: give a text"),
        ('{"file_name": "../red.png", "text": ""}\n', "line 1: .*name a file inside"),
        ("\n", "lists no picture"),
        ('{"file_name": "red.png", "caption": "x"}\n', "say which one .*caption_column='caption'"),
    ],
)  # fmt: skip
def test_lines_of_json_that_are_wrong(tmp_path: Path, table: str, said: str) -> None:
    save(tmp_path, "red.png")
    (tmp_path / "metadata.jsonl").write_text(table, encoding="utf-8")
    with pytest.raises(ValueError, match=f"(?s){said}") as raised:
        ImageFolder(tmp_path, 8)
    assert "metadata.jsonl" in str(raised.value)


def test_folders_that_could_mean_two_things(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*metadata\.csv and no pictures in"):
        ImageFolder(tmp_path / "nowhere")
    folder = save(tmp_path / "a", "red.png")
    with pytest.raises(
        ValueError, match=r"caption_column is 'name', but there is no metadata\.csv"
    ):
        ImageFolder(folder, 8, caption_column="name")
    (folder / "Labels.CSV").write_text("file_name,text\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"no metadata\.csv, but Labels\.CSV: give it that name"):
        ImageFolder(folder, 8)
    (folder / "Labels.CSV").unlink()
    save(folder, "more/blue.png")
    with pytest.raises(ValueError, match=r"as well as folders of pictures: put 'red\.png' into"):
        ImageFolder(folder, 8)


# -------------------------------------------------------------------- unreadable, and the cache


def test_pictures_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    folder = save(tmp_path, "red.png", "green.png", "blue.png")
    (folder / "a.png").write_bytes(b"")
    (folder / "cat.heic").write_bytes(b"\0\0\0\x18ftypheic")
    said = r"2 of 5 pictures cannot be read .*, first .*'a\.png' .*an empty file"
    with pytest.raises(ValueError, match=f"^{said}") as raised:
        ImageFolder(folder, 8)
    assert "skip_unreadable=True" in str(raised.value)
    with pytest.warns(UserWarning, match=said):
        data = ImageFolder(folder, 8, skip_unreadable=True)
    assert texts(data) == ["blue", "green", "red"]
    assert colours(data) == [COLOURS[name] for name in ("blue", "green", "red")]
    rows = "file_name,text\nno.png,x\nred.png,y\n"
    (folder / "metadata.csv").write_text(rows, encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"^1 of 2 .*line 2: there is no picture 'no\.png'"):
        ImageFolder(folder, 8)
    with pytest.warns(UserWarning, match="1 of 2"):
        assert texts(ImageFolder(folder, 8, skip_unreadable=True)) == ["y"]
    (folder / "metadata.csv").write_text("file_name,text\na.png,x\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"1 of 1 pictures cannot be read \(none is left\)"):
        ImageFolder(folder, 8, skip_unreadable=True)


def test_many_pictures_are_read_once(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    load = datasets._load_picture

    def noted(root: Path, row: Any, page: Any) -> Any:
        read.append(row.file_name)
        return load(root, row, page)

    monkeypatch.setattr(datasets, "_load_picture", noted)
    folder = save(tmp_path / "p", "red.png", "green.png")
    first = ImageFolder(folder, 8)
    assert not own_cache.exists() and len(read) == 2, "few are not worth it"
    monkeypatch.setattr(datasets, "LARGE", 1)
    for _ in range(2):
        assert torch.equal(ImageFolder(folder, 8).images, first.images)
    assert len(read) == 4 and len(names(own_cache)) == 1
    for other in ({"size": 16}, {"channels": 1}, {"paper": "black"}):
        before = len(read)
        ImageFolder(folder, **{"size": 8, **other})  # type: ignore[arg-type]
        assert len(read) == before + 2, other
    save(folder, "green.png", size=(9, 8))  # another picture under the same name
    before = len(read)
    ImageFolder(folder, 8)
    assert len(read) == before + 2
    (folder / "bad.png").write_bytes(b"x")
    for _ in range(2):  # read and not; told anew each time
        with pytest.warns(UserWarning, match=r"1 of 3 .*first .*'bad\.png'"):
            assert len(ImageFolder(folder, 8, skip_unreadable=True)) == 2
        with pytest.raises(ValueError, match=r"1 of 3 .*first .*'bad\.png'"):
            ImageFolder(folder, 8)


# ---------------------------------------------------------------------------- other data sets


def items(*images: Any) -> list[dict[str, Any]]:
    return [{"image": image, "text": f"number {i}; x"} for i, image in enumerate(images)]


ORANGE = Image.new("RGB", (8, 8), (255, 128, 0))
ARRAY = np.array(ORANGE)
TENSOR = torch.from_numpy(ARRAY.copy()).permute(2, 0, 1)


@pytest.mark.parametrize(
    "image",
    [
        ORANGE,
        ORANGE.convert("RGBA"),
        ARRAY,
        ARRAY.transpose(2, 0, 1),
        TENSOR,
        TENSOR / 255,
        TENSOR.double() / 127.5 - 1,
        (TENSOR / 255).numpy(),
        torch.cat([TENSOR, torch.full((1, 8, 8), 255, dtype=torch.uint8)]),
    ],
)
def test_items_of_all_kinds(image: Any) -> None:
    data = Wrapped(items(image, image), 8)
    assert data.images.shape == (2, 3, 8, 8) and colours(data) == [(255, 128, 0)] * 2
    assert data.prompts[1] == ("number 1; x", "number 1", "x")


def test_one_float_below_zero_tells_of_all() -> None:
    half, black = torch.full((1, 8, 8), 0.0), torch.full((8, 8), -1.0)
    assert colours(Wrapped(items(half, black), 8)) == [(128,), (0,)]
    assert colours(Wrapped(items(half, half), 8)) == [(0,), (0,)]
    assert colours(Wrapped(items(half > 0, half < 1), 8)) == [(0,), (255,)]
    beyond = torch.full((3, 8, 8), 1.02)  # as sharpening leaves it
    assert colours(Wrapped(items(beyond), 8)) == [(255,)]


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (iter([]), TypeError, "must have a length .*got a list_iterator: .*list"),
        ([], ValueError, "the data set is empty"),
        ([(ORANGE, "x")], TypeError, "item 0 must be a dictionary .*got a tuple: rename"),
        ([{"img": ORANGE, "label": 3}], TypeError, r"got \['img', 'label'\]: rename"),
        ([{"image": ORANGE, "text": 3}], TypeError, "text of item 0 must be a text, got 3"),
        ([{"image": "a.png", "text": ""}], TypeError, "image of item 0 must be a Pillow picture"),
        (items(TENSOR.int()), TypeError, "got int32: bring its values to 0 … 255"),
        (items(torch.zeros(2, 8, 8)), TypeError, r"item 0 has the shape \(2, 8, 8\): give 1, 3"),
        (items(TENSOR.float()), ValueError, "1 of 1 .*item 0 .*from 0 to 255: give floats in 0"),
        (items(TENSOR / 50 - 2), ValueError, "leave out what brings them to mean 0"),
        (items(ORANGE, Image.new("L", (1, 900))), ValueError, "1 of 2 .*item 1 .*too narrow"),
    ],
)  # fmt: skip
def test_items_that_are_wrong(given: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        Wrapped(given, 8)


def test_a_data_set_with_a_fingerprint_is_read_once(own_cache: Path) -> None:
    class Counted(list[Any]):
        asked = 0
        _fingerprint = "12ab"  # as Hugging Face's have it

        def __getitem__(self, i: Any) -> Any:
            self.asked += 1
            if i == 2:
                raise OSError("truncated")
            return super().__getitem__(i)

    data: Any = Counted(items(TENSOR, TENSOR.float() / 127.5 - 1, None))
    for _ in range(2):
        with pytest.warns(UserWarning, match="1 of 3 pictures .*first item 2 .*: truncated"):
            wrapped = Wrapped(data, 8, skip_unreadable=True)
        assert texts(wrapped) == ["number 0; x", "number 1; x"] and len(wrapped) == 2
    assert data.asked < 10 and len(names(own_cache)) == 1
    part = Wrapped(Subset(data, [1]), 8)
    assert texts(part) == ["number 1; x"] and len(names(own_cache)) == 2


def test_parts_of_our_own_keep_what_they_have(tmp_path: Path) -> None:
    folder = save(tmp_path, *(f"{name}/{i}.png" for name in COLOURS for i in range(3)))
    data = ImageFolder(folder, 8)
    parts = random_split(data, [9, 3], torch.Generator().manual_seed(0))
    train, test = (Wrapped(part, 8) for part in parts)
    rows = [*parts[0].indices, *parts[1].indices]
    assert sorted(rows) == list(range(12)) and len(test) == 3
    assert torch.equal(torch.cat([train.images, test.images]), data.images[rows])
    assert [*train.prompts, *test.prompts] == [data.prompts[i] for i in rows]
    assert len(Wrapped(Subset(parts[0], [2, 3]), 8)) == 2
    with pytest.raises(ValueError, match=r"\(3, 8, 8\), and \(3, 16, 16\) was asked .*ImageFolder"):
        Wrapped(parts[0], 16)
    glyphs = minidiff.GlyphDataset(16, "test", name_radicals=True)
    few = Wrapped(Subset(glyphs, [5, 6]), 16)
    assert few.prompts == glyphs.prompts[5:7] and few.name_radicals


# ---------------------------------------------------------------------------------- training


def recipe(**settings: Any) -> TrainingConfig:
    network = UNetConfig(
        in_channels=3, channels=(32, 32), attention=(False, True), text_dim=None, stem=2
    )
    usual = {
        "network": network, "image_size": 16, "text_encoder": None, "steps": 2, "batch_size": 4,
        "log_every": 1, "save_every": 1, "sample_every": 2, "evaluate_every": 2,
    }  # fmt: skip
    return TrainingConfig(**{**usual, **settings})


@pytest.mark.parametrize("size", [16, (16, 24)])
def test_colours_are_learnt_resumed_and_drawn(tmp_path: Path, size: Any) -> None:
    folder = save(tmp_path / "p", *(f"{name}/{i}.png" for name in COLOURS for i in range(3)))
    data, run, config = ImageFolder(folder, size), tmp_path / "run", recipe(image_size=size)
    height, width = (size, size) if size == 16 else size
    trainer = Trainer(config, data, run, data, SampleGrids([""]))
    assert trainer.batches(0).x0.shape == (4, 3, height, width)
    trainer.run()
    longer = TrainingConfig.from_dict(json.loads(json.dumps({**config.to_dict(), "steps": 4})))
    Trainer(longer, ImageFolder(folder, size), run, data, SampleGrids([""]), resume=True).run()
    whole = Trainer(longer, data, tmp_path / "whole", data)
    whole.run()
    weights = [path / "model" / "model.safetensors" for path in (run, tmp_path / "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes(), "as if never interrupted"
    assert [entry["step"] for entry in log_of(run) if "loss" in entry] == [1, 2, 3, 4]

    pipeline = minidiff.load(run, device="cpu")
    images = pipeline("", num_images_per_prompt=3, num_inference_steps=2)
    assert images.shape == (3, 3, height, width) and images.abs().max() <= 1
    assert f"Pipeline({height} × {width}, " in repr(pipeline)
    with Image.open(run / "samples" / "step-00000004.png") as sheet:
        drawn = plots.grid(images[[0] * 8], labels=[""])
        assert sheet.mode == "RGB" and sheet.size == drawn.size
    stored = json.loads((run / "model" / "config.json").read_text("utf-8"))["model"]
    assert stored["image_size"] == (16 if size == 16 else [16, 24])


def test_sizes_in_recipes(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    network = "text_encoder = false\n[unet]\nchannels = [32]\nattention = [false]\nstem = 4\n"
    path.write_text(f"image_size = [64, 96]\n{network}", encoding="utf-8")
    config = TrainingConfig.recipe(path)
    assert config.image_size == (64, 96) and hash(config)
    again = TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    path.write_text(f"image_size = [64, 64]\n{network}", encoding="utf-8")
    assert TrainingConfig.recipe(path).image_size == 64, "a square is one number"
    for size, said in (
        ("[64, 98]", r"image_size must be a multiple of 4 .*got \(64, 98\)"),
        ("[64, 0]", r"image_size must be above 0, got \(64, 0\)"),
        (
            "[64]",
            r"image_size must be a whole number, or two of them: \[height, width\], got \[64\]",
        ),
        ("[64, 9999999999]", r"image_size must be below 2\*\*31"),
    ):
        path.write_text(f"image_size = {size}\n{network}", encoding="utf-8")
        with pytest.raises(ValueError, match=said):
            TrainingConfig.recipe(path)
    data = ImageFolder(save(tmp_path / "p", "red.png"), (96, 64), 1)
    with pytest.raises(ValueError, match=r"64 × 96 pixels \(height × width\).*\(1, 96, 64\): set"):
        check_dataset(config, data)
    with pytest.raises(ValueError, match=r"image_size is \[64, 96\], but glyphs are square"):
        cli_train.pictures_of(config, None)


def test_how_a_folder_was_read_is_remembered(tmp_path: Path) -> None:
    folder = save(tmp_path / "p", "red.png", "blue.png")
    data, run = ImageFolder(folder, 16, paper="black"), tmp_path / "run"
    Trainer(recipe(), data, run).run()
    config = cli_train.config_of(None, run, {"steps": 3})
    reading = cli_train.how_to_read(config, None, run, None)
    assert reading == {"channels": 3, "paper": "black"}
    _, again, *_ = cli_train.pictures_of(config, folder, **reading)
    Trainer(config, again, run, resume=True).run()
    plain = ImageFolder(folder, 16)
    Trainer(recipe(), plain, tmp_path / "plain").run()
    known = json.loads((tmp_path / "plain/model/config.json").read_text("utf-8"))["record"]["data"]
    assert known.keys() == {"kind", "path", "fingerprint"}, "nothing is said of what is usual"


def test_options_of_own_pictures_want_own_pictures(tmp_path: Path) -> None:
    result = command_line(["train", "--paper", "black", "--output", str(tmp_path / "run")])
    assert result.status and "--paper is of own pictures: give --data" in result.err
    assert not (tmp_path / "run").exists()


def test_a_picture_that_can_be_read_again_is(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        noise = np.random.default_rng(number).integers(0, 256, (500, 500, 3), dtype=np.uint8)
        noise[:, :200] = 0
        Image.fromarray(noise).save(tmp_path / f"noise_{number}.png")
    broken = tmp_path / "noise_1.png"
    broken.write_bytes(broken.read_bytes()[:-9000])
    with pytest.raises(ValueError, match=r"1 of 4 pictures .*--skip-unreadable"):
        ImageFolder(tmp_path, 8)
    assert names(own_cache)  # it is kept that one was lost
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    assert len(ImageFolder(tmp_path, 8)) == 4
