"""The parts of `minidiff sample`: what is asked for, what is drawn, and where it goes.

What is heavy is imported inside the functions: most mistakes are answered before that.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from minidiff.frames import Frames
    from minidiff.pipeline import Pipeline
    from minidiff.provenance import Provenance

ENDINGS = (".png", ".gif", ".npy")
# Windows takes these for devices, whatever their ending.
DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)[\d¹²³]", re.IGNORECASE)


def sample(
    asked: dict[str, Any], given: set[str], again: Path | None, output: str | None, version: str
) -> Iterator[Path]:
    """Draw what is asked for, and say which files it is in as they are written.

    Args:
        asked: values for the fields of `Provenance` that the user can choose.
        given: those that the user has chosen; the others are the command's own.
        again: a file whose own values take the place of those that were not given.
        version: of this package.
    """
    from minidiff.provenance import Provenance, read
    from minidiff.samplers import SAMPLERS

    noted = None if again is None else read(again)
    values = settled(asked, given, noted)
    if values["sampler"] not in (None, *SAMPLERS):
        known = ", ".join(SAMPLERS)
        raise ValueError(f"unknown sampler {values['sampler']!r}: choose one of {known}")
    wanted = None if noted is None else noted.weights
    if values["from_picture"] is None and (values["mask"] or values["strength"]):
        raise ValueError("--mask and --strength are of a picture: give it with --from")
    pipeline, weights = open_model(values["model"], wanted, "model" in given)
    how = "num_inference_steps", "sampler"
    values.update(zip(how, pipeline.settled(*(values[name] for name in how))))
    if (channels := pipeline.config.channels) not in (1, 3):
        raise ValueError(
            f"this model draws pictures in {channels} channels, and only grey (1) and "
            "colour (3) can be written: draw in Python, minidiff.load(...)(...)"
        )
    values["prompts"] = checked_prompts(values["prompts"], values["negative_prompt"], pipeline)
    picture, values["from_sha256"] = read_picture("from_picture", values, given, noted, pipeline)
    mask, values["mask_sha256"] = read_picture("mask", values, given, noted, pipeline)
    if picture is not None and values["strength"] is None:
        values["strength"] = 0.8 if mask is None else 1.0
    made = Provenance(minidiff=version, weights=weights, **values)
    artist = Artist(pipeline, picture, None if mask is None else mask > 127)
    if output is None or not means_folder(output):
        ending = again.suffix.lower() if again and again.suffix.lower() in ENDINGS else ".png"
        shown = made.prompts if made.blend else made.prompts[:1]
        path = Path(output) if output else new_file(stem_of(shown), ending)
        yield write(path, payload(artist, made, path.suffix.lower()), made)
    else:
        yield from one_file_a_picture(artist, made, Path(output))


LARGEST = 64 << 20  # bytes of a picture to start from, or of a mask
# Fields of a `Provenance` that are paths, and their options.
PLACES = {"model": "--model", "from_picture": "--from", "mask": "--mask"}

# ------------------------------------------------------------------------- what is asked for


def read_prompts(name: str) -> list[str]:
    """The lines of a file in UTF-8, or of standard input for "-"; blank ones are left out."""
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data[: error.start].count(b"\n")
        raise ValueError(
            f"--prompts {name}: line {line} is not in UTF-8: save the file as UTF-8"
        ) from error
    prompts = [line.strip() for line in re.split(r"\r\n?|\n", text) if line.strip()]
    if not prompts:
        raise ValueError(f"--prompts {name} holds no prompt: write one a line")
    return prompts


def settled(asked: dict[str, Any], given: set[str], again: Provenance | None) -> dict[str, Any]:
    """What is asked for; where nothing was `given`, as the picture was drawn that comes `again`."""
    from minidiff import hub

    known = {} if again is None else dataclasses.asdict(again)
    noted = {name: known[name] for name in known.keys() & asked.keys() - given}
    for name, value in noted.items():
        # Whose picture it is decides which machine Windows would log in to.
        place = str(value).replace("\\", "/")
        if name in PLACES and place.startswith(("//", "/??/")):
            raise ValueError(f"the picture names {value!r}, on a network: give {PLACES[name]} too")
        # Nor does a picture decide what is downloaded.
        if name == "model" and hub.is_name(value) and not Path(value).is_dir():
            raise ValueError(f"the picture names {value!r}, which is not here: give --model too")
    values = {**asked, **noted}
    if {"num_images", "blend"} & given:
        values["number"] = None  # one of so many pictures it was among others
    return values


def open_model(model: str, wanted: str | None, given: bool) -> tuple[Pipeline, str]:
    """A model and the SHA-256 of its weights.

    Args:
        wanted: the SHA-256 that they should have; None: any.
        given: whether the user named the model: then others will do, with a notice.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: if it has other weights.
    """
    from minidiff.inputs import warn
    from minidiff.pipeline import load
    from minidiff.shelf import find_model
    from minidiff.storage import read_info

    remedy = "give the folder of the model that has them with --model"
    try:
        folder = find_model(model)
    except FileNotFoundError as error:
        if wanted is None or given:
            raise
        raise FileNotFoundError(
            f"the picture was drawn by the model {model!r}, weights {wanted} (SHA-256), which is "
            f"not here: {remedy}"
        ) from error
    pipeline = load(folder)  # reads the weights and checks them against their hash
    found = read_info(folder)["files"]["model.safetensors"]
    if wanted not in (None, found):
        differ = f"the picture was drawn with the weights {wanted} (SHA-256), and {model!r} has"
        if not given:
            raise ValueError(f"{differ} {found}: {remedy}, or draw with these by --model {model}")
        warn(f"{differ} {found}: another picture comes")
    return pipeline, found


def read_picture(
    name: str,
    values: dict[str, Any],
    given: set[str],
    noted: Provenance | None,
    pipeline: Pipeline,
) -> tuple[Tensor | None, str | None]:
    """The picture to start from or the mask, uint8 (C, H, W), and its SHA-256; None: there is none.

    Raises:
        OSError, ValueError: if it cannot be read, is of another size than the model draws, or is
            not the one that was noted.
    """
    import hashlib
    import io

    import numpy as np
    import torch

    from minidiff.editing import checked_size
    from minidiff.pictures import as_colour, flat, opened, reason_of

    if values[name] is None:
        return None, None
    said = f"{PLACES[name]} {values[name]}"
    if (path := Path(values[name])).exists() and not path.is_file():  # a pipe may never end
        raise ValueError(f"{said} is no file: give a picture")
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"{said} has more than {LARGEST >> 20} MB: resize it to what is drawn")
    found = hashlib.sha256(data).hexdigest()
    wanted = None if noted is None or name in given else getattr(noted, f"{name[:4]}_sha256")
    if wanted not in (None, found):
        raise ValueError(
            f"the picture was drawn with the file {wanted} (SHA-256), and {said} is {found}: give "
            f"that file with {PLACES[name]}"
        )
    try:
        picture = opened(io.BytesIO(data))
        if picture.mode[0] in "IF":
            raise ValueError("it has more than 8 bits a pixel")
        mode = "L" if name == "mask" or pipeline.config.channels == 1 else "RGB"
        pixels = torch.from_numpy(np.array(flat(picture, as_colour("white")).convert(mode)))
    except Exception as error:  # whatever Pillow runs into
        raise ValueError(f"{said} cannot be read ({reason_of(error)}): save it as PNG") from error
    planes = pixels[None] if mode == "L" else pixels.movedim(2, 0)
    return checked_size(said, planes, pipeline), found


def checked_prompts(prompts: Sequence[str], negative: str, pipeline: Pipeline) -> list[str]:
    """What to draw, if the model can: one without text needs no prompt, and can follow none."""
    if pipeline.config.text_encoder is not None:
        if not prompts:
            raise ValueError("nothing to draw: give a prompt, for instance: minidiff sample gold")
        return list(prompts)
    if any(text.strip() for text in [*prompts, negative]):
        raise ValueError("this model was trained without text: give no prompt")
    return list(prompts) or [""]


# ---------------------------------------------------------------------------- where it goes


def means_folder(output: str) -> bool:
    """Whether one file a picture is wanted: a folder that is here, or a name with a slash."""
    if output.endswith(("/", os.sep)):
        return True
    return bool(output) and Path(output).suffix.lower() not in ENDINGS and Path(output).is_dir()


def check_output(output: str) -> None:
    """Refuse what could not be written before minutes are spent on drawing."""
    path, name = Path(output), Path(output).name
    if means_folder(output):
        if path.exists() and not path.is_dir():
            raise ValueError(f"--output {output}: {path} is a file, not a folder")
        place = path if path.is_dir() else path.parent
    elif path.suffix.lower() not in ENDINGS:
        wanted = f"the ending must be one of {', '.join(ENDINGS)}, or a slash for a folder"
        raise ValueError(f"--output {output}: {wanted}")
    elif path.is_dir():
        raise ValueError(f"--output {output} is a folder: name a file in it, or end it with a /")
    else:
        place = path.parent
    if not place.is_dir():
        raise ValueError(f"--output {output}: there is no folder {place}; make it first")
    import tempfile

    try:  # the same name as when it is saved, so that one that is too long fails now
        with tempfile.NamedTemporaryFile(prefix=f".{name}-", dir=place):
            pass
    except OSError as error:
        raise ValueError(
            f"cannot write {name} into {place.absolute()} ({error.strerror}): choose another "
            "--output"
        ) from error


def new_file(stem: str, ending: str = ".png", folder: Path | None = None) -> Path:
    """A name that does not exist yet, and that every system takes."""
    stem = f"{stem}-" if DEVICES.fullmatch(stem) else stem
    names = [f"{stem}{ending}", *(f"{stem}-{i}{ending}" for i in range(2, 10_000))]
    return next(path for name in names if not (path := (folder or Path()) / name).exists())


def stem_of(prompts: Sequence[str]) -> str:
    """Prompts as part of the name of a file."""
    return re.sub(r"\W+", "-", " ".join(prompts)).strip("-")[:40].rstrip("-") or "glyphs"


def write(path: Path, payload: Any, made: Provenance) -> Path:
    """An image as .png, the bytes of a .gif or an array as .npy, and where it comes from."""
    import numpy as np
    from PIL.Image import Image

    from minidiff import plots, provenance

    if isinstance(payload, np.ndarray):
        plots.save_picture(path, payload)
        side = provenance.side_file(path)
        side.unlink(missing_ok=True)  # should the disk be full, better none than that of another
        plots.save_picture(side, made.to_json().encode("utf-8"))
    elif isinstance(payload, Image):
        plots.save_picture(path, provenance.signed_png(payload, made))
    else:
        plots.save_picture(path, provenance.signed_gif(payload, made))
    return path


# ----------------------------------------------------------------------------- what is drawn


@dataclasses.dataclass(frozen=True)
class Artist:
    """Draws; `picture` is what is started from, and `mask` is true where it is drawn anew."""

    pipeline: Pipeline
    picture: Tensor | None
    mask: Tensor | None

    def frames(self, made: Provenance) -> Frames:
        """All moments of the way."""
        from minidiff import editing

        how = self.arguments(made)
        if self.picture is None and not made.blend:
            return self.pipeline.steps(made.prompts, **how)
        if made.strength is not None:
            how.update(picture=self.picture, mask=self.mask, strength=made.strength)
        return editing.steps(self.pipeline, made.prompts, blend=made.blend, **how)

    def images(self, made: Provenance) -> Tensor:
        """Its end: (prompts × images, C, H, W)."""
        if self.picture is None and not made.blend:
            return self.pipeline(made.prompts, **self.arguments(made))
        for frame in self.frames(made):
            last = frame
        return last.images

    @staticmethod
    def arguments(made: Provenance) -> dict[str, Any]:
        return {
            "negative_prompt": made.negative_prompt,
            "num_images_per_prompt": made.num_images,
            "num_inference_steps": made.num_inference_steps,
            "guidance_scale": made.guidance_scale,
            "sampler": made.sampler,
            "seed": made.seed,
            "progress": sys.stderr.isatty(),
        }


def one_file_a_picture(artist: Artist, made: Provenance, folder: Path) -> Iterator[Path]:
    """PNG files whose names sort as they were drawn: 1-gold-01.png; nothing is replaced."""
    folder.mkdir(exist_ok=True)
    # Prompt by prompt: what stands beside a picture in its batch changes its last digits.
    parts = [made]
    if not made.blend:
        parts = [dataclasses.replace(made, prompts=[prompt]) for prompt in made.prompts]
    for i, part in enumerate(parts, start=1):
        place = f"{i:0{len(str(len(parts)))}}-" if len(parts) > 1 else ""
        images = artist.images(part)
        for number in range(made.num_images) if made.number is None else [made.number]:
            single = dataclasses.replace(part, number=number)
            stem = f"{place}{stem_of(part.prompts)}-{number + 1:0{len(str(made.num_images))}}"
            yield write(new_file(stem, ".png", folder), page(images, single), single)


def payload(artist: Artist, made: Provenance, ending: str) -> Any:
    """What stands in one file of this ending."""
    from minidiff import plots

    if ending == ".gif":
        return plots.animation(page(frame.images, made) for frame in artist.frames(made))
    images = artist.images(made)
    if ending == ".npy":
        return plots.to_uint8(chosen(images, made)).movedim(2, -1).squeeze(-1).numpy()
    return page(images, made)


def chosen(images: Tensor, made: Provenance) -> Tensor:
    """As (prompts, images, C, H, W), of which all or one is shown; a blend is one row."""
    each = images.unflatten(0, (1 if made.blend else len(made.prompts), -1))
    return each if made.number is None else each[:, made.number : made.number + 1]


def page(images: Tensor, made: Provenance) -> Image:
    """All pictures on a sheet, or the one that is shown, without a margin."""
    import PIL.Image

    from minidiff import plots

    each = chosen(images, made)
    if made.number is None and made.blend:
        return plots.grid(images, 8, made.scale)
    if made.number is None or len(each) > 1:
        return sheet(each.flatten(0, 1), made.prompts, made.scale)

    pixels = plots.to_uint8(each[0, 0]).permute(1, 2, 0).squeeze(2)
    for side in (0, 1):
        pixels = pixels.repeat_interleave(made.scale, side)
    return PIL.Image.fromarray(pixels.numpy())


def sheet(images: Tensor, prompts: Sequence[str], scale: int) -> Image:
    """The pictures of one prompt as a square; those of several in rows of their own, with headings.

    images: (prompts × images, C, H, W).
    """
    import torch

    from minidiff import plots

    count = len(images) // len(prompts)
    if len(prompts) == 1:
        return plots.grid(images, min(math.ceil(count**0.5), 16), scale)
    rows = -(-count // 16)
    columns = -(-count // rows)
    each = images.unflatten(0, (len(prompts), count))
    paper = each.new_ones(len(prompts), rows * columns - count, *images.shape[1:])
    headings = [text for prompt in prompts for text in (prompt, *[""] * (rows - 1))]
    return plots.grid(torch.cat([each, paper], 1).flatten(0, 1), columns, scale, headings)
