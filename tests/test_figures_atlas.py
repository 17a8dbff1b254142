"""The figures of pixel space, and the map of all glyphs that comes with the package."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from minidiff.figures import atlas
from minidiff.glyphs import load_glyphs, render, to_float

PAGE = Path(__file__).resolve().parents[1] / "book" / "_static" / "atlas"


def test_map_has_a_place_for_every_glyph() -> None:
    points = atlas.load_map()
    assert points.shape == (len(load_glyphs()), 2) and points.dtype == torch.float32
    assert len(points.unique(dim=0)) > 0.99 * len(points)
    # 16 bits are used to the full on the longer side
    stored = load_file(atlas.FOLDER / "umap.safetensors")["points"]
    assert stored.min() == 0 and stored.max() == atlas.LEVELS


def test_map_keeps_layouts_together() -> None:
    """What the chapter says of it: most neighbours on the map are built alike."""
    points, layouts = atlas.load_map()[::10], [glyph.layout for glyph in load_glyphs()[::10]]
    distances = torch.cdist(points, points).fill_diagonal_(torch.inf)
    same = [layouts[i] == layouts[j] for i, j in enumerate(distances.argmin(1).tolist())]
    assert sum(same) / len(same) > 0.9


@pytest.mark.parametrize("change", ["fewer", "order", "kind"])
def test_a_map_of_other_glyphs_is_refused(tmp_path: Path, change: str) -> None:
    shutil.copytree(atlas.FOLDER, tmp_path / "map")
    path = tmp_path / "map" / "umap.safetensors"
    points = load_file(path)["points"]
    if change == "order":
        about = json.loads((tmp_path / "map" / "umap.json").read_text(encoding="utf-8"))
        about["characters"] = atlas.digest_of(reversed([g.char for g in load_glyphs()]))
        (tmp_path / "map" / "umap.json").write_text(json.dumps(about), encoding="utf-8")
    else:
        save_file({"points": points[:-1] if change == "fewer" else points.astype(np.int32)}, path)
    with pytest.raises(ValueError, match="build_atlas"):
        atlas.load_map(tmp_path / "map")


def test_principal_directions_are_those_of_the_points() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, generator=generator) * torch.tensor([0.5, 3.0, 1.0]) + 7
    mean, variances, directions = atlas.principal(x)
    assert torch.allclose(mean, x.mean(0))
    assert torch.allclose(variances.sqrt(), torch.tensor([3.0, 1.0, 0.5]), rtol=0.1)
    assert torch.allclose(directions @ directions.T, torch.eye(3), atol=1e-5)
    assert directions[0].argmax() == 1 and directions[0, 1] > 0.99
    assert torch.allclose(((x - mean) @ directions.T).var(0), variances, rtol=1e-2)


def test_page_has_the_glyphs_of_the_package() -> None:
    text = (PAGE / "data.js").read_text(encoding="utf-8")
    match = re.search(r"window\.ATLAS=(.*);\n$", text)
    assert match
    data, glyphs = json.loads(match[1]), load_glyphs()
    assert data["chars"] == "".join(glyph.char for glyph in glyphs), "run tools/data/build_atlas.py"
    assert data["definitions"].split("\n") == [glyph.definition for glyph in glyphs]
    assert [ord(sign) - 0x100 for sign in data["radicals"]] == [glyph.radical for glyph in glyphs]
    points = np.frombuffer(base64.b64decode(data["points"]), "<u2").reshape(-1, 2)
    assert (points == load_file(atlas.FOLDER / "umap.safetensors")["points"]).all()
    assert data["names"][166][:2] == ["金", "gold"] and data["names"][166][2] == 736
    counts = np.bincount([int(digit) for digit in data["layouts"]])
    assert counts[0] == sum(glyph.layout == "left-right" for glyph in glyphs)


def test_page_is_small_and_needs_nothing_from_elsewhere() -> None:
    assert sum(path.stat().st_size for path in PAGE.iterdir()) < 6_000_000
    for name in ("index.html", "atlas.js"):
        text = (PAGE / name).read_text(encoding="utf-8")
        assert not re.search(r"https?://|fetch\(|type=.module|XMLHttpRequest", text), name
    for wanted in re.findall(
        r'(?:src=|url\()"([^"]+)"', (PAGE / "index.html").read_text(encoding="utf-8")
    ):
        assert (PAGE / wanted).is_file(), wanted


def test_vector_lists_the_pixels_row_by_row() -> None:
    image = to_float(render("田", 10))
    figure = atlas.vector(image)
    drawn = [axis.images[0].get_array() for part in figure.subfigs for axis in part.axes]
    assert [picture.shape for picture in drawn] == [(10, 10), (10, 10), (1, 100)]
    assert np.allclose(drawn[2][0], image.flatten())
    texts = [
        text.get_text() for part in figure.subfigs for axis in part.axes for text in axis.texts
    ]
    assert len(texts) == 110 and "row 10" in texts


def test_dots_lie_where_the_points_are() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    figure = atlas.by_layout({"": (points, ["left-right", "top-bottom", "surround"])}, cells=21)
    (picture,) = figure.axes[0].images
    pixels, (left, right, bottom, top) = picture.get_array(), picture.get_extent()
    assert pixels.shape == (21, 11, 3)
    assert (left + right, bottom + top) == pytest.approx((1, 2), abs=1e-6)
    assert [tuple(where) for where in np.argwhere((pixels < 1).any(2))] == [
        (0, 0),
        (0, 10),
        (20, 0),
    ]


def test_every_figure_can_be_drawn(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(60, 2, generator=generator)
    layouts = ["left-right", "top-bottom", "surround", "other"] * 15
    places = atlas.lattice(points, 20)
    assert places[0].min() < points[:, 0].min() and places[1].max() > points[:, 1].max()
    figures = [
        atlas.atlas(points, layouts, {0: "明"}),
        atlas.highlighted(points, {"water": torch.tensor([1, 2]), "fire": torch.tensor([3])}),
        atlas.pairs({"here": (points[:30], points[30:]), "there": (points, points)}),
        atlas.densities({"map": (places, torch.rand(20, 20, generator=generator))}),
        atlas.histograms({"one": points[:, 0], "two": points[:, 1]}, "distance"),
        atlas.spectrum({"glyphs": torch.tensor([0.5, 0.3, 0.2])}),
    ]
    for number, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{number}.png")
        assert figure.get_size_inches()[0] <= 7.2


def test_pairs_lie_inside_frames_of_their_own() -> None:
    near, far = torch.rand(40, 2), 9 + torch.rand(40, 2)
    figure = atlas.pairs({"near": (near, near + 1), "far": (near, far)})
    for axis, last in zip(figure.axes, (near + 1, far)):
        (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
        assert left < near[:, 0].min() and last[:, 0].max() < right
        assert low < near[:, 1].min() and last[:, 1].max() < high
        assert right - left == pytest.approx(high - low)
        assert all(spine.get_visible() for spine in axis.spines.values())


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    atlas.require_extra()
    monkeypatch.setattr(atlas, "EXTRA", {"nothing_like_it": "some-package", "json": "json"})
    with pytest.raises(ImportError, match=r"needs some-package: pip install .*\[notebooks\]"):
        atlas.require_extra()


def test_a_vector_of_bytes_is_that_of_the_picture() -> None:
    image = render("田", 10)
    figures = [atlas.vector(picture) for picture in (image, to_float(image))]
    listed = [
        [text.get_text() for part in figure.subfigs for axis in part.axes for text in axis.texts]
        for figure in figures
    ]
    assert listed[0] == listed[1]
