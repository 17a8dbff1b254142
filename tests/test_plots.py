"""Grids, animations and files of pictures."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from minidiff import plots
from minidiff.glyphs import render

matplotlib.use("Agg")


def pictures(count: int, size: int = 8) -> torch.Tensor:
    """Different greys, one a picture: (count, 1, size, size)."""
    return torch.linspace(-1, 1, count)[:, None, None, None].expand(-1, 1, size, size).clone()


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


# ------------------------------------------------------------------------------- numbers


def test_to_uint8_maps_black_to_0_and_white_to_255() -> None:
    given = torch.tensor([-1.0, 0.0, 1.0, -3.0, 3.0])
    assert plots.to_uint8(given).tolist() == [0, 128, 255, 0, 255]
    assert plots.to_uint8(given).dtype == torch.uint8


def test_to_uint8_takes_every_grey_back() -> None:
    greys = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(plots.to_uint8(greys.float() / 127.5 - 1), greys)
    assert plots.to_uint8(torch.zeros(2, 3, dtype=torch.float16)).shape == (2, 3)


# ------------------------------------------------------------------------------- grid


def test_grid_puts_pictures_side_by_side_on_white() -> None:
    sheet = plots.grid(pictures(5), columns=3)
    gap = plots.GAP
    assert sheet.mode == "L" and sheet.size == (3 * (8 + gap) + gap, 2 * (8 + gap) + gap)
    shown = pixels(sheet)
    for i, grey in enumerate(plots.to_uint8(torch.linspace(-1, 1, 5)).tolist()):
        row, column = divmod(i, 3)
        top, left = gap + row * (8 + gap), gap + column * (8 + gap)
        assert (shown[top : top + 8, left : left + 8] == grey).all()
        shown[top : top + 8, left : left + 8] = 255
    assert (shown == 255).all(), "something stands outside the cells"


def test_grid_enlarges_without_blurring() -> None:
    picture = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    small, large = (pixels(plots.grid(picture, scale=scale)) for scale in (1, 3))
    gap = plots.GAP
    assert (large[gap:-gap, gap:-gap] == np.kron(small[gap:-gap, gap:-gap], np.ones((3, 3)))).all()


def test_grid_is_no_wider_than_its_pictures() -> None:
    assert plots.grid(pictures(2), columns=8).size == plots.grid(pictures(2), columns=2).size


def test_labels_stand_above_their_rows() -> None:
    plain = plots.grid(torch.ones(4, 1, 64, 64), columns=2)
    labelled = plots.grid(torch.ones(4, 1, 64, 64), columns=2, labels=["gold", "金"])
    assert labelled.width == plain.width and labelled.height > plain.height
    ink = np.any(pixels(labelled) < 128, axis=1).tolist()
    heading = (labelled.height - plain.height) // 2
    second = plots.GAP + 64 + plots.GAP + heading
    assert any(ink[plots.GAP : plots.GAP + heading]), "the first label is not there"
    assert any(ink[second : second + heading]), "the second label is not there"
    assert sum(ink) < 2 * heading, "a label reaches into the pictures"


def test_an_empty_label_leaves_its_row_blank() -> None:
    sheet = plots.grid(torch.ones(2, 1, 32, 32), columns=1, labels=["", ""])
    assert (pixels(sheet) == 255).all()


@pytest.mark.parametrize("shape", [(0, 1, 8, 8), (2, 2, 8, 8), (2, 4, 8, 8), (2, 8, 8)])
def test_grid_of_what_are_no_pictures(shape: tuple[int, ...]) -> None:
    for act in (plots.grid, plots.show):
        said = r"grey \(N, 1, H, W\) or in colour \(N, 3, H, W\), got shape \(\d, "
        with pytest.raises(ValueError, match=said):
            act(torch.zeros(shape))


# Red, green, blue and white, 2 × 3 pixels each.
COLOURS = torch.tensor([[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]]).float()
COLOURED = COLOURS[:, :, None, None].expand(4, 3, 2, 3)


def test_grid_in_colour_of_rectangles(tmp_path: Path) -> None:
    sheet, gap = plots.grid(COLOURED, columns=2, scale=4, labels=["a", "b"]), plots.GAP
    assert sheet.mode == "RGB" and sheet.width == 2 * (12 + gap) + gap
    plots.save_picture(tmp_path / "a.png", sheet)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGB"
        shown = pixels(image)
    heading = (sheet.height - gap) // 2 - 8 - gap
    for i, colour in enumerate(plots.to_uint8(COLOURS).tolist()):
        top = (i // 2 + 1) * (gap + heading) + i // 2 * 8
        left = gap + i % 2 * (12 + gap)
        assert (shown[top : top + 8, left : left + 12] == colour).all()
    assert (shown[0] == 255).all() and (shown[:, -1] == 255).all(), "the ground is white"


def test_show_and_animate_in_colour() -> None:
    import matplotlib.pyplot as plt

    for given in (COLOURED, plots.to_uint8(COLOURED), [*COLOURED]):
        figure = plots.show(given)
        drawn = [axis.images[0].get_array() for axis in figure.axes]
        for array, colour in zip(drawn, COLOURS):
            assert np.asarray(array).shape == (2, 3, 3)
            assert (np.asarray(array)[1, 2] == (colour.numpy() + 1) / 2).all()
        plt.close(figure)
    frames = [plots.grid(picture[None], scale=4) for picture in COLOURED]
    with Image.open(io.BytesIO(plots.animation(frames))) as gif:
        for i, frame in enumerate(frames):
            gif.seek(i)
            assert (pixels(gif.convert("RGB")) == pixels(frame)).all()


@pytest.mark.parametrize(("columns", "scale"), [(0, 1), (3, 0), (-1, 1)])
def test_grid_with_impossible_layout(columns: int, scale: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, got {min(columns, scale)}"):
        plots.grid(pictures(2), columns, scale)


# What spreadsheets, terminals and file names in other encodings put into a text.
ODD_LABELS = {
    "a red car\r\nat night": "a red car at night",
    "gold\r": "gold",
    "\x1cgold\x00\x1b[31m": "gold [31m",
    "gold\n\nfish\tbird": "gold fish bird",
    "right\u202eto left\u2028end\ufeff": "right to left end",
    "caf\udce9": "caf",
    "\r\n": "",
    "金 gold": "金 gold",
}


@pytest.mark.parametrize(("text", "drawn"), ODD_LABELS.items(), ids=[ascii(t) for t in ODD_LABELS])
def test_a_label_is_drawn_on_one_line(text: str, drawn: str) -> None:
    assert plots.one_line(text) == drawn
    empty = torch.ones(1, 1, 64, 64)
    sheet = plots.grid(empty, scale=4, labels=[text])
    assert (pixels(sheet) == pixels(plots.grid(empty, scale=4, labels=[drawn]))).all()
    assert (pixels(sheet)[2 * plots.GAP + 22 :] == 255).all(), "it is drawn over the picture"


def test_a_label_ends_where_its_row_does() -> None:
    long = "a very long description of what should be seen " * 40
    for text in (long, "W" * 5000, "x" * 300):
        sheet = pixels(plots.grid(torch.ones(2, 1, 64, 64), columns=2, labels=[text]))
        assert (sheet[:, -plots.GAP :] == 255).all() and (sheet < 128).any()
    short = plots.grid(torch.ones(2, 1, 64, 64), columns=2, labels=["short enough"])
    assert (pixels(short) != sheet).any()


@pytest.mark.parametrize("text", ["$5 and $6", "$\\frac{$", "a\r\nb", "100 % _of_ ^it"])
def test_a_title_is_no_formula(text: str) -> None:
    import matplotlib.pyplot as plt

    figure = plots.show(pictures(1), [text])
    figure.canvas.draw()
    assert figure.axes[0].get_title() == plots.one_line(text)
    assert not figure.axes[0].title.get_parse_math()
    plt.close(figure)


def test_bytes_are_pictures_too() -> None:
    import matplotlib.pyplot as plt

    data = render("金木", 16).unsqueeze(1)
    as_floats = data.float() / 127.5 - 1
    assert torch.equal(plots.to_uint8(data), data)
    expected = pixels(plots.grid(as_floats))
    for given in (data, data.numpy(), as_floats.numpy(), as_floats.double(), as_floats.half()):
        # half precision has 11 bits: a grey may come out one level off
        assert np.abs(pixels(plots.grid(given)) - expected).max() <= 1  # type: ignore[arg-type]
    figure = plots.show(data)
    assert (np.asarray(figure.axes[0].images[0].get_array()) == as_floats[0, 0].numpy()).all()
    plt.close(figure)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.int8, torch.complex64])
def test_other_numbers_are_refused_by_name(dtype: torch.dtype) -> None:
    given = torch.ones(1, 1, 8, 8, dtype=dtype)
    for call in (plots.grid, plots.show, plots.to_uint8):
        with pytest.raises(TypeError, match=f"or of uint8 .255 = white., got {dtype}"):
            call(given)


# ------------------------------------------------------------------------------- animation


def frames_of(payload: bytes) -> list[np.ndarray]:
    with Image.open(io.BytesIO(payload)) as gif:
        shown = []
        for i in range(gif.n_frames):  # type: ignore[attr-defined]
            gif.seek(i)
            shown.append(pixels(gif.convert("L")))
    return shown


def noisy(count: int) -> list[Image.Image]:
    source = np.random.default_rng(0)
    return [Image.fromarray(source.integers(0, 256, (20, 30), np.uint8)) for _ in range(count)]


def test_animation_keeps_every_frame_to_its_greys() -> None:
    frames = noisy(5)
    shown = frames_of(plots.animation(frames))
    assert len(shown) == 5
    for frame, seen in zip(frames, shown):
        assert abs(pixels(frame) - seen).max() <= 255 / 15 / 2
        assert len(np.unique(seen)) <= 16


def test_black_and_white_stay_black_and_white() -> None:
    frames = [Image.new("L", (8, 8), grey) for grey in (0, 255)]
    black, white = frames_of(plots.animation(frames))
    assert (black == 0).all() and (white == 255).all()


def test_animation_turns_for_ever_and_holds_its_end() -> None:
    payload = plots.animation(iter(noisy(3)), milliseconds=50, hold=1500)
    with Image.open(io.BytesIO(payload)) as gif:
        assert gif.info["loop"] == 0
        times = []
        for i in range(3):
            gif.seek(i)
            times.append(gif.info["duration"])
    assert times == [50, 50, 1500]


def test_alike_frames_take_their_time_all_the_same() -> None:
    first, last = noisy(2)
    payload = plots.animation([first, first, last, last], milliseconds=50, hold=1000)
    with Image.open(io.BytesIO(payload)) as gif:
        total = 0
        for i in range(gif.n_frames):  # type: ignore[attr-defined]
            gif.seek(i)
            total += gif.info["duration"]
    assert total == 50 * 3 + 1000


def test_single_frame_is_a_gif_too() -> None:
    assert len(frames_of(plots.animation(noisy(1)))) == 1


def test_animation_of_nothing_and_of_too_much() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        plots.animation([])
    with pytest.raises(ValueError, match=r"at most 65,535 pixels.*8 × 70,000"):
        plots.animation([Image.new("L", (8, 70_000))])


# ------------------------------------------------------------------------------- files


def test_save_picture_writes_png_npy_and_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "a folder 金"
    folder.mkdir()
    sheet = plots.grid(pictures(3))
    plots.save_picture(folder / "金.png", sheet)
    with Image.open(folder / "金.png") as image:
        assert image.format == "PNG" and (pixels(image) == pixels(sheet)).all()
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    plots.save_picture(folder / "x.npy", array)
    assert np.array_equal(np.load(folder / "x.npy", allow_pickle=False), array)
    plots.save_picture(folder / "x.gif", b"GIF89a...")
    assert (folder / "x.gif").read_bytes() == b"GIF89a..."
    assert sorted(path.name for path in folder.iterdir()) == ["x.gif", "x.npy", "金.png"]


def test_save_picture_refuses_objects_that_need_a_pickle(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pickle"):
        plots.save_picture(tmp_path / "x.npy", np.array([object()]))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_picture_can_be_read_by_others(tmp_path: Path) -> None:
    plots.save_picture(tmp_path / "x.gif", b"...")
    assert (tmp_path / "x.gif").stat().st_mode & 0o777 == 0o644


def test_full_disk_keeps_the_old_picture_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.gif"
    plots.save_picture(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match=r"cannot write .*x\.gif: No space left on device"):
        plots.save_picture(path, b"new")
    assert path.read_bytes() == b"old" and [*tmp_path.iterdir()] == [path]


def test_save_into_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cannot write .*no.x\.gif: No such file"):
        plots.save_picture(tmp_path / "no" / "x.gif", b"new")


# ------------------------------------------------------------------------------- matplotlib


def test_show_draws_every_picture_with_its_title() -> None:
    import matplotlib.pyplot as plt

    glyphs = render("金木水", 32).unsqueeze(1).float() / 127.5 - 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "Glyph 37329 missing from font(s)"
        figure = plots.show(glyphs, ["金", "wood 木", "water"], columns=2)
        figure.canvas.draw()
    drawn = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in drawn] == ["金", "wood 木", "water"]
    assert len(figure.axes) == 4 and not any(axis.axison for axis in figure.axes)
    assert (np.asarray(drawn[1].images[0].get_array()) == glyphs[1, 0].numpy()).all()
    assert drawn[0].images[0].get_clim() == (-1, 1)
    plt.close(figure)


def test_show_wants_a_title_for_each() -> None:
    with pytest.raises(ValueError, match="2 titles for 3 pictures"):
        plots.show(pictures(3), ["a", "b"])


def test_the_shipped_font_is_added_once() -> None:
    from matplotlib import font_manager

    plots.use_glyph_font()
    family, known = list(matplotlib.rcParams["font.family"]), len(font_manager.fontManager.ttflist)
    plots.use_glyph_font()
    assert matplotlib.rcParams["font.family"] == family
    assert len(font_manager.fontManager.ttflist) == known


def test_grids_need_no_matplotlib() -> None:
    code = (
        "import sys, torch; from minidiff import plots;"
        "plots.animation([plots.grid(torch.zeros(2, 1, 8, 8), labels=['gold'])]);"
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_texts_that_are_no_list_or_too_many() -> None:
    acts: tuple[tuple[Any, str], ...] = ((plots.grid, "labels"), (plots.show, "titles"))
    for act, name in acts:
        with pytest.raises(TypeError, match=f"{name} must be a list of texts, got 'gold'"):
            act(pictures(4), **{name: "gold"})
        with pytest.raises(TypeError, match=f"{name} must be a list of texts, got 5"):
            act(pictures(4), **{name: 5})
    with pytest.raises(ValueError, match="3 labels for 2 rows"):
        plots.grid(pictures(4), columns=2, labels=["a", "b", "c"])
    numbered = plots.grid(pictures(3), columns=1, labels=[1, None, 2.5])
    assert (pixels(numbered) == pixels(plots.grid(pictures(3), 1, labels=["1", "", "2.5"]))).all()
    assert plots.show(pictures(2), [7, None]).axes[0].get_title() == "7"


def test_a_list_of_pictures() -> None:
    listed = plots.grid([*pictures(3)])
    assert (pixels(listed) == pixels(plots.grid(pictures(3)))).all()
    assert len(plots.show([*pictures(3)]).axes) == 3
    several: list[Any] = [[pictures(1)[0], torch.ones(1, 3, 3)], [{"image": pictures(1)}], []]
    for wrong in several:
        with pytest.raises(ValueError, match=r"images must be tensors .* of one size|expected one"):
            plots.grid(wrong)


@pytest.mark.parametrize("columns", [0, 2.0, "2"])
def test_show_with_impossible_columns(columns: Any) -> None:
    with pytest.raises(ValueError, match=r"^columns must be .*, got "):
        plots.show(pictures(2), columns=columns)


@pytest.mark.parametrize(
    "wrong",
    [{"hold": -1}, {"hold": 10**6}, {"milliseconds": -5}, {"colours": 1}, {"colours": 257}],
)
def test_an_animation_that_no_gif_can_hold(wrong: dict[str, int]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name} must be from .* to .*, got {wrong[name]}"):
        plots.animation([plots.grid(pictures(1))], **wrong)
