"""Where a picture comes from: what it was drawn with, kept in its own file.

A PNG carries it as text (an iTXt chunk called "minidiff"), a GIF as a comment, and beside x.npy
lies x.npy.json. It is one JSON object, a `Provenance`, so other programs can show it, and
`minidiff sample --again` can draw the picture anew. Most programs leave such texts out when they
save a picture, and whoever gets the file can read its prompt and its paths.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from minidiff.inputs import as_path, check_settings

KEYWORD = "minidiff"  # of the text in a PNG


@dataclass(frozen=True)
class Provenance:
    """All that it takes to draw a picture, or a sheet of them, anew.

    Attributes:
        minidiff: version of this package.
        model, weights: as it was given to `minidiff.load`, and the SHA-256 of its
            model.safetensors.
        prompts: a list of texts.
        negative_prompt, num_images, num_inference_steps, guidance_scale, sampler, seed: as in
            `Pipeline.steps`.
        scale: each pixel was enlarged so many times, 1 to 16.
        number: which of the `num_images` is shown, from 0; None: all of them.
        blend: whether the pictures go from the first of two prompts to the second.
        from_picture, from_sha256, strength: the file that was redrawn, and how much of it.
        mask, mask_sha256: the file that says where.

    Raises:
        ValueError: for a value of another type or out of range, naming it.
    """

    minidiff: str
    model: str
    weights: str
    prompts: Any
    negative_prompt: str
    num_images: int
    num_inference_steps: int
    guidance_scale: float
    sampler: str
    seed: int
    scale: int = 1
    number: int | None = None
    blend: bool = False
    from_picture: str | None = None
    from_sha256: str | None = None
    strength: float | None = None
    mask: str | None = None
    mask_sha256: str | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        texts = self.prompts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"prompts must be a list of texts, got {texts!r}")
        if self.blend and len(texts) != 2:
            raise ValueError(
                f"a blend is of two prompts, got {len(texts)}: {texts!r}; give both with --blend"
            )
        if not 1 <= self.scale <= 16:
            raise ValueError(f"scale must be from 1 to 16, got {self.scale}")
        if self.number is not None and not 0 <= self.number < self.num_images:
            raise ValueError(f"number {self.number} is none of {self.num_images} pictures")

    def to_json(self) -> str:
        """As one line, without what does not apply."""
        values = dataclasses.asdict(self)
        values = {k: v for k, v in values.items() if v is not None and v is not False}
        text = json.dumps(values, ensure_ascii=False)
        # A prompt that is not UTF-8 has lone surrogates: "\\udce9" means the same to JSON.
        return text.encode("utf-8", "backslashreplace").decode("utf-8")

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """The way back.

        Raises:
            ValueError: for anything else than what `to_json` writes.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or "minidiff" not in values:
            raise ValueError("it was not written by minidiff")
        known = {field.name: field for field in dataclasses.fields(cls)}
        if foreign := sorted(values.keys() - known.keys()):
            raise ValueError(
                f"minidiff {values['minidiff']} has noted {foreign[0]!r}, unknown here"
            )
        needed = [name for name, field in known.items() if field.default is dataclasses.MISSING]
        if lacking := [name for name in needed if name not in values]:
            raise ValueError(f"it lacks {lacking[0]!r}")
        return cls(**values)


def signed_png(picture: Image.Image, made: Provenance) -> bytes:
    """A picture as the bytes of a PNG that carries where it comes from."""
    texts, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    texts.add_itxt(KEYWORD, made.to_json())
    picture.save(buffer, "PNG", optimize=True, pnginfo=texts)
    return buffer.getvalue()


def signed_gif(payload: bytes, made: Provenance) -> bytes:
    """The bytes of a GIF with a comment, in front of its first frame, of where it comes from."""
    flags = payload[10]
    start = 13 + (3 * 2 ** (flags % 8 + 1) if flags & 128 else 0)  # behind the table of colours
    if payload[start : start + 2] == b"!\xff":
        start += 19  # "endless", which some viewers look for right there
    # Comments are ASCII, in blocks of at most 255 bytes.
    text = json.dumps(json.loads(made.to_json())).encode("ascii")
    blocks = (text[i : i + 255] for i in range(0, len(text), 255))
    comment = b"!\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
    return b"GIF89a" + payload[6:start] + comment + payload[start:]


def side_file(path: Path) -> Path:
    """The file that says where the numbers in x.npy come from: x.npy.json."""
    return path.with_name(f"{path.name}.json")


def read(path: str | Path) -> Provenance:
    """Where a picture comes from.

    Args:
        path: a .png, a .gif, or a .npy with its side file.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: for what is no path.
        ValueError: if it does not say, or not in a way that is known here.
    """
    path = as_path("path", path)
    with path.open("rb"):  # where there is no such file, say so and nothing else
        pass
    for text in _texts(path):
        try:
            return Provenance.from_json(text)
        except (ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"what {path} says of where it comes from cannot be used ({reason}): take a file "
                "as minidiff wrote it, or another version of minidiff"
            ) from error
    beside = f": there is no {side_file(path)}" if path.suffix.lower() == ".npy" else ""
    raise ValueError(
        f"{path} does not say where it comes from{beside}; only what `minidiff sample` wrote does, "
        "unless another program has saved it since"
    )


def _texts(path: Path) -> Iterator[str]:
    """What may be a `Provenance`: one text or none."""
    if path.suffix.lower() == ".npy":
        if side_file(path).is_file():
            yield side_file(path).read_bytes().decode("utf-8", "replace")
        return
    try:
        with Image.open(path, formats=["PNG", "GIF"]) as picture:
            comment = picture.info.get("comment", b"")
            text = picture.info.get(KEYWORD, "")
    except UnidentifiedImageError:
        return
    except Exception as error:  # whatever Pillow runs into
        raise ValueError(f"{path} cannot be read as a picture ({error})") from error
    if isinstance(comment, bytes) and comment.startswith(b'{"minidiff"'):
        yield comment.decode("ascii", "replace")
    elif isinstance(text, str) and text:
        yield text
