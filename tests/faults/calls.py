"""What a user hands over: command lines that are wrong, and any values in the public API."""

from __future__ import annotations

import io
import itertools
import math
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import minidiff
from faults import tiny
from faults.frame import Outcome, Tally, attempt, in_child, new_folder
from helpers import Result, awake
from minidiff import cli, denoisers, glyphs, plots, samplers, schedules
from minidiff.model import ModelConfig
from minidiff.pipeline import Pipeline
from minidiff.recipe import TrainingConfig
from minidiff.unet import UNet, UNetConfig

# ------------------------------------------------------------------------------ command lines


def command_line(words: list[str]) -> Result:
    """minidiff WORDS… in this process, as the command would have it."""
    status: Any
    sys.argv = ["minidiff", *words]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
        except Exception:  # as the interpreter would
            status = 1
            traceback.print_exc()
    return Result(status, out.getvalue(), err.getvalue())


# What is wrong, and a word that the message must hold.
BAD_LINES = """
sample | gold
sample gold --num-images -1 | -1
sample gold --num-images 1e3 | 1e3
sample gold --num-images nan | nan
sample gold --num-images | --num-images
sample gold --num-images 999999999999999999999999 | fit
sample gold --num-inference-steps -5 | -5
sample gold --num-inference-steps 1001 | 1001
sample gold --num-inference-steps 99999999999999999999 | 99999999999999999999
sample gold --num-inference-steps inf | inf
sample gold --num-inference-steps ten | ten
sample gold --guidance-scale inf | inf
sample gold --guidance-scale -inf | -inf
sample gold --guidance-scale nan | nan
sample gold --guidance-scale -0.5 | -0.5
sample gold --guidance-scale much | much
sample gold --guidance-scale 1e999 | inf
sample gold --sampler DDIM | DDIM
sample gold --sampler= | sampler
sample gold --sampler ddim,ddpm | ddim,ddpm
sample gold --seed 1.5 | 1.5
sample gold --seed x | x
sample gold --scale 100000 | 100000
sample gold --scale -1 | -1
sample gold --output x.jpg | .png
sample gold --output x.PNG.bak | .png
sample gold --output .png | .png
sample gold --output= | .png
sample gold --output file/ | file
sample gold --output no/no/ | no
sample gold --output no/x.png | no
sample gold --output file/x.png | file
sample gold --output folder.png | folder.png
sample gold --output /dev/null | .png
sample gold --output /proc/x.png | x.png
sample gold --output ../no/../x/y.png | y.png
sample --again no.png | no.png
sample --again file | file
sample --prompts no | no
sample --prompts file | file
sample gold --from file | file
sample gold --mask file | --from
sample gold --strength 2 | 2
sample gold --blend fish bird | gold
sample --blend fish | --blend
sample gold --model no | no
sample gold --model file | file
sample gold --model empty | empty
sample gold --model foreign | foreign
sample gold --model cut | model.safetensors
sample gold --model nested | config.json
sample gold --model ../.. | ..
sample gold --model= | model
sample gold --model /dev/null | /dev/null
sample gold --model plain | without text
sample gold --modle plain | --modle
sample gold --negative-prompt | --negative-prompt
sample gold --resume | --resume
train | --output
train --output | --output
train -o run gold | gold
train -o file | file
train -o file/run | file
train -o run --recipe no | no
train -o run --recipe no.toml | no.toml
train -o run --recipe bad.toml | bad.toml
train -o run --recipe folder.toml | folder.toml
train -o run --recipe ../recipe | ../recipe
train -o run --recipe unknown.toml | colour
train -o run --recipe wrong.toml | batch_size
train -o run --recipe shape.toml | unet
train -o run --steps 0 | steps
train -o run --steps -1 | -1
train -o run --steps 1.5 | 1.5
train -o run --batch-size 0 | batch_size
train -o run --batch-size x | x
train -o run --learning-rate nan | nan
train -o run --learning-rate inf | inf
train -o run --learning-rate 0 | learning_rate
train -o run --learning-rate -1 | learning_rate
train -o run --time-limit 0 | time_limit
train -o run --time-limit nan | nan
train -o run --time-limit -3 | -3
train -o run --seed x | x
train -o run --recipe small.toml --data no | no
train -o run --recipe small.toml --data file | file
train -o run --recipe small.toml --data empty | metadata.csv
train -o run --recipe small.toml --data data | gone.png
train -o run --recipe small.toml --data out | ../file
train -o run --recipe small.toml --data columns | text
train -o run --recipe small.toml --data pictures --resume | run
train -o run --recipe small.toml --data pictures --start no | no
train -o run --recipe small.toml --data pictures --start plain --resume | start
train -o run --recipe small.toml --data pictures --start foreign | foreign
train -o plain/config.json --recipe small.toml --data pictures | config.json
evaluate --full --loss-only | --full
evaluate --model no | no
evaluate --model plain | 64
evaluate --model foreign | foreign
evaluate --seed x | x
evaluate gold | gold
evaluate --json=yes | --json
evaluate --data no | no
evaluate --output x.gif | .png
evaluate --output x.png --loss-only | own pictures
data | folder
data no | no
data no --output x.jpg | .png
data no --image-size 3x | 3x
data no --time-limit soon | soon
smple gold | smple
--nonsense | --nonsense
--version=3 | --version
sample --help=me | --help
"""


def lines() -> list[tuple[list[str], str]]:
    pairs = [line.rsplit(" | ", 1) for line in BAD_LINES.strip().splitlines()]
    return [(line.split(), word) for line, word in pairs]


def set_the_table(folder: Path) -> None:
    """What the bad command lines name."""
    from faults.disks import save_pictures

    for name in (
        "folder.png",
        "folder.toml",
        "empty",
        "foreign",
        "nested",
        "data",
        "out",
        "columns",
    ):
        (folder / name).mkdir()
    tiny.save_tiny_model(folder / "plain")
    tiny.save_tiny_model(folder / "cut")
    weights = folder / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    save_pictures(folder / "pictures")
    small = "image_size = 8\nsteps = 1\nbatch_size = 2\ntext_encoder = false\n[unet]\n"
    shape = "channels = [16]\nattention = [false]\nhead_dim = 16\n"
    texts = {
        "file": "", "foreign/config.json": '{"model_type": "bert"}', "bad.toml": "steps = = 1",
        "nested/config.json": "[" * 100_000, "unknown.toml": "colour = true",
        "wrong.toml": 'batch_size = "many"', "shape.toml": "unet = 3",
        "small.toml": small + shape, "data/metadata.csv": "file_name,text\ngone.png,gone\n",
        "out/metadata.csv": "file_name,text\n../file,x\n", "columns/metadata.csv": "a,b\n1,2\n",
    }  # fmt: skip
    for name, content in texts.items():
        (folder / name).write_text(content, encoding="utf-8")


def bad_command_lines(tally: Tally, short: bool) -> None:
    """Wrong numbers, files and options: one line that names them, nothing written, no waiting."""
    with new_folder() as folder:
        set_the_table(folder)
        before = sorted(folder.rglob("*"))

        def act(words: list[str], word: str) -> None:
            os.chdir(folder)
            os.environ["MINIDIFF_CACHE"] = str(folder.parent / f"{folder.name}-cache")
            result = command_line(words)
            one = result.err.startswith("minidiff: ") and result.err.count("\n") == 1
            assert result.status in (1, 2) and one and not result.out, result
            raise ValueError(result.err)

        for words, word in lines()[:: 6 if short else 1]:
            outcome = in_child(lambda: act(words, word), timeout=60)  # noqa: B023
            after = sorted(folder.rglob("*"))
            if after != before:
                left = [path for path in after if path not in before]
                outcome = Outcome("raised", message=f"left behind: {left}, {outcome.message}")
                for path in reversed(left):
                    path.rmdir() if path.is_dir() else path.unlink()
            tally.judge(" ".join(words), outcome, (word,))


# ---------------------------------------------------------------------------- the public API

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 1, 2, 3, 7, 10**20, -(10**20), 0.5, 2.0, math.nan, math.inf, -math.inf,
     1e300, "", "x", "1", b"1", (), [1], {}, float("1e-320"), 1000, 1001, np.int64(3),
     np.float32(0.5), np.bool_(True), torch.tensor(2), torch.tensor(0.5)]
)  # fmt: skip
TEXT = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", " ", "\0", "a\0b", "金", "😀" * 50, "\udce9", "long " * 2000, "\u202e", "x\n"]
    ),
)
PROMPT = st.one_of(TEXT, st.lists(TEXT, max_size=3), ODD)
SAMPLER = st.one_of(st.sampled_from([*samplers.SAMPLERS]), TEXT, ODD)
STEPS = st.one_of(st.integers(1, 4), st.integers(-3, 1200).filter(lambda n: n > 900 or n < 9), ODD)
SCALE = st.one_of(st.floats(), st.floats(0, 10), ODD)
TIMES = [
    torch.tensor([1, 1000]), torch.tensor([0.5, 3.0]), [5, 6], [5.0, 6.0], torch.tensor([-1, 2]),
    torch.tensor([1, 2, 3]), torch.tensor([True, False]), np.arange(2), np.arange(2.0),
]  # fmt: skip
GRID = st.one_of(
    st.none(), st.lists(st.integers(-2, 1002), max_size=5),
    st.lists(st.integers(0, 1000), min_size=2, max_size=5, unique=True).map(
        lambda grid: sorted(grid, reverse=True)), ODD,
)  # fmt: skip


def right_pictures(images: torch.Tensor, count: int) -> None:
    assert images.shape == (count, 1, 8, 8), images.shape
    assert images.isfinite().all() and images.min() >= -1 and images.max() <= 1


def calls(pipeline: Pipeline, folder: Path) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Name -> what is called, and with what."""

    def draw(prompt: Any, count: Any, steps: Any, grid: Any, **options: Any) -> None:
        if isinstance(steps, int) and 4 < steps <= 1000 and grid is None:
            steps = 4  # what is possible is only slow
        if isinstance(count, int) and 4 < count < 10**6:
            count = 4
        if grid is not None:
            options["timesteps"] = grid
        images = pipeline(prompt, num_images_per_prompt=count, num_inference_steps=steps, **options)
        prompts = 1 if isinstance(prompt, str) else len(list(prompt))
        right_pictures(images, prompts * int(count))

    def walk(sampler: Any, steps: Any, grid: Any, name: str, size: int, eta: Any) -> None:
        schedule = minidiff.make_schedule(name, 1000)
        ideal = denoisers.IdealDenoiser(schedule, torch.tensor([[-1.0, 1.0], [1.0, 0.5]]))
        if isinstance(steps, int) and 9 < steps <= 1000:
            steps = 9
        options = {} if eta is None else {"eta": eta}
        x = samplers.sample(
            ideal, torch.ones(size, 2), sampler, steps,
            generator=torch.Generator().manual_seed(0), timesteps=grid, **options,
        )  # fmt: skip
        assert x.shape == (size, 2) and x.isfinite().all(), x

    def schedule(name: Any, count: Any, zero: bool, steps: Any, shift: Any) -> None:
        if isinstance(count, int) and count > 10**6:
            return
        made = minidiff.make_schedule(name, count, zero)
        assert made.alpha.isfinite().all() and made.sigma.isfinite().all()
        grid = made.timesteps(steps, shift)
        assert grid[0] == count and grid[-1] == 0 and len(grid) == steps + 1
        assert all(t > s for t, s in itertools.pairwise(grid))

    def network(**shape: Any) -> None:
        sizes = [shape["blocks"], shape["stem"], shape["head_dim"], *list(shape["channels"])]
        if any(isinstance(size, int) and size > 64 for size in sizes):
            UNetConfig(**shape)  # large is allowed, only not here
            return
        unet = UNet(UNetConfig(**shape))
        side = 2 * unet.config.multiple
        if side > 64:
            return
        x = unet(torch.zeros(1, 1, side, side), torch.tensor([1]))
        assert x.shape == (1, 1, side, side)

    def recipe(name: str, value: Any) -> None:
        config = TrainingConfig.from_dict({name: value})
        assert TrainingConfig.from_dict({name: getattr(config, name)}) == config

    def table(content: str, size: Any) -> None:
        (folder / "metadata.csv").write_text(content, encoding="utf-8", errors="replace")
        assert len(minidiff.ImageFolder(folder, size)) > 0

    def noised(t: Any, name: str) -> None:
        made, x = minidiff.make_schedule(name), torch.ones(2, 1, 3, 3, dtype=torch.float64)
        x_t = made.add_noise(x, 3 * x, t)
        for row, one in zip(x_t, torch.as_tensor(t).expand(2).tolist(), strict=True):
            assert one in range(1001) and type(one) is int
            expected = made.alpha[one] + 3 * made.sigma[one]
            assert torch.allclose(row, expected.expand_as(row))

    def sheet(label: str, dtype: torch.dtype, columns: Any, scale: Any) -> None:
        pictures = torch.ones(2, 1, 8, 8).to(dtype) * (255 if dtype == torch.uint8 else 1)
        made = np.asarray(plots.grid(pictures, columns, scale, [label, label]))
        assert (made[: plots.GAP] == 255).all() and (made[-plots.GAP - 8 :] == 255).all()

    def seed(key: Any, again: Any) -> None:
        first, second = samplers.seeded_generator(key), samplers.seeded_generator(again)
        assert (first.initial_seed() == second.initial_seed()) == (int(key) == int(again))

    def glyph(chars: str, size: Any) -> None:
        images = glyphs.render(chars, size)
        assert images.shape == (len(chars), size, size)

    number, names = st.one_of(st.integers(-1, 4), ODD), st.sampled_from([*schedules.SCHEDULES])
    cells = st.sampled_from(["file_name", "text", "a.png", "\0", "..", ",", "\n", '"', "x", "金"])
    channels = st.lists(st.one_of(st.sampled_from([8, 16, 32]), ODD), max_size=3)
    fields = st.sampled_from([*TrainingConfig.__dataclass_fields__, "nonsense"])
    return {
        "pipeline": (draw, {
            "prompt": PROMPT, "negative_prompt": st.one_of(TEXT, ODD), "count": number,
            "steps": STEPS, "guidance_scale": SCALE, "sampler": SAMPLER,
            "seed": st.one_of(st.integers(), ODD), "grid": GRID}),
        "pipeline, nearly right": (draw, {
            "prompt": TEXT, "count": st.integers(1, 3), "steps": st.integers(1, 3),
            "guidance_scale": st.floats(0, 1e6), "seed": st.integers(), "grid": GRID,
            "sampler": st.sampled_from([*samplers.SAMPLERS])}),
        "samplers": (walk, {
            "sampler": SAMPLER, "steps": STEPS, "grid": GRID, "name": names,
            "size": st.integers(0, 3), "eta": st.one_of(st.none(), st.floats(0, 1))}),
        "make_schedule": (schedule, {
            "name": st.one_of(names, TEXT), "count": st.one_of(st.integers(-2, 2000), ODD),
            "zero": st.booleans(), "steps": STEPS, "shift": SCALE}),
        "add_noise": (noised, {
            "t": st.one_of(st.integers(-5, 1005), ODD, st.sampled_from(TIMES)), "name": names}),
        "grid": (sheet, {
            "label": TEXT, "columns": number, "scale": number, "dtype": st.sampled_from(
                [torch.float32, torch.uint8, torch.float16, torch.int64, torch.bool])}),
        "seeded_generator": (seed, {
            "key": st.one_of(st.integers(), ODD), "again": st.one_of(st.integers(), ODD)}),
        "UNet": (network, {
            "channels": channels, "attention": st.lists(st.booleans(), max_size=3),
            "blocks": number, "head_dim": st.sampled_from([8, 16, 0, -1, 7]), "stem": number,
            "text_dim": st.none()}),
        "TrainingConfig": (recipe, {"name": fields, "value": st.one_of(ODD, TEXT)}),
        "ImageFolder": (table, {
            "content": st.lists(cells, max_size=12).map(",".join), "size": st.just(8)}),
        "render": (glyph, {"chars": st.text(max_size=3), "size": st.one_of(
            st.integers(6, 20), st.integers(510, 515), ODD)}),
        "load": (minidiff.load, {"name_or_path": st.one_of(TEXT.filter(bool), ODD)}),
    }  # fmt: skip


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def too_long(*_: object) -> None:
        raise AssertionError(f"no answer within {seconds} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def any_values(tally: Tally, short: bool) -> None:
    """Hypothesis over the public API: a finite result of the right shape, or an error that says."""
    shape = UNetConfig(channels=(16,), attention=(True,), head_dim=16, text_dim=384)
    config = ModelConfig(shape, 8, text_encoder="minilm", text_fingerprint=FINGERPRINT)
    pipeline = Pipeline(awake(shape), config, device="cpu")
    with new_folder() as folder:
        for name, (act, arguments) in calls(pipeline, folder).items():
            try_values(tally, name, act, arguments, 5 if short else 100)


FINGERPRINT = "53aa51172d142c89"


def try_values(
    tally: Tally, name: str, act: Callable[..., Any], arguments: dict[str, Any], examples: int
) -> None:
    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.fixed_dictionaries(arguments))
    def one(values: dict[str, Any]) -> None:
        with warnings.catch_warnings(), within(60):
            warnings.simplefilter("ignore")
            outcome = attempt(lambda: act(**values))
        # An error that a line of ours has raised was thought of; any other must name a value.
        said = [repr(value)[:60] for value in values.values()]
        said += [str(value)[:60] for value in values.values() if str(value)]
        for value in values.values():
            said += [f"not {type(value).__name__}", f"not {type(value)}"]
        if outcome.ours and outcome.message.rstrip().count(" ") >= 3:
            said = [outcome.message]
        tally.judge(f"{name} {ascii(values)[:300]}", outcome, said)

    with tempfile.TemporaryDirectory() as folder:
        here = Path.cwd()
        os.chdir(folder)  # names that are drawn are not those of anything here
        try:
            one()
        finally:
            os.chdir(here)
