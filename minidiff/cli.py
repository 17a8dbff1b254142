"""The command line: `minidiff sample`, `minidiff train`, `minidiff evaluate`.

Results go to standard output, everything else to standard error. What is heavy is imported inside
the functions, so that help and most mistakes are answered at once.
A user's error ends in one line that names the value and the remedy, never in a traceback.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import re
import shlex
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import minidiff
from minidiff.endings import RESUME, Ended, TrainingStopped, polite

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from minidiff.pipeline import Pipeline
    from minidiff.recipe import TrainingConfig
    from minidiff.training import PictureDataset, Trainer

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: quick to start, and readable on every terminal
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

Model = Annotated[
    str,
    typer.Option(help="a model that ships (glyph64), or the folder of a training run or a model"),
]
ENDINGS = (".png", ".gif", ".npy")
INTERRUPTED = 130  # the exit status that shells expect after Ctrl-C


def main() -> None:
    """Entry point of the `minidiff` command. Always ends in SystemExit."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by >&-
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        sys.exit(_run())


def _run() -> int:
    """The exit status: 0, 2 after an error of the user's, 128 + its number after a signal."""
    try:
        status: int = app(prog_name="minidiff", standalone_mode=False) or 0
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output (`| head`) has gone; the interpreter would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception as error:
        if not _is_users(error):
            raise
        print(f"minidiff: {_message(error)}", file=sys.stderr)
        # Training saves before it ends, in words of its own.
        number = error.signal if isinstance(error, TrainingStopped) else None
        return 2 if number is None else 128 + number
    except Ended as end:
        print(f"minidiff: ended by {signal.Signals(end.signal).name}", file=sys.stderr)
        return 128 + end.signal
    if status == INTERRUPTED:
        print("minidiff: interrupted", file=sys.stderr)
    return status


USER_ERRORS = (ValueError, OSError, ImportError, MemoryError, TrainingStopped)


def _is_users(error: Exception) -> bool:
    """Anything else is a mistake in the code, be it ours or that of who is changing it.

    So is a ValueError that no line raises, such as "too many values to unpack".
    """
    line = traceback.extract_tb(error.__traceback__)[-1].line
    if type(error) is ValueError and line and not line.startswith("raise"):
        return False
    kinds = _is_usage(error) or isinstance(error, USER_ERRORS)
    return kinds or _is_out_of_memory(error) or _lacks_compiler(error)


def _lacks_compiler(error: Exception) -> bool:
    """As torch.compile says it for a CPU and Triton for a GPU."""
    words = ("No working C++ compiler", "Failed to find C compiler")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _is_out_of_memory(error: Exception) -> bool:
    """Also where torch says so: of CUDA with an error of its own, of MPS and the CPU in words."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    torchs = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return torchs or isinstance(error, MemoryError)


def _is_usage(error: Exception) -> bool:
    """A misspelt option and the like. Old releases of typer raise click's errors, new ones own."""
    return hasattr(error, "format_message")


def _message(error: Exception) -> str:
    """What is wrong, on one line."""
    if _is_usage(error):
        text = error.format_message()  # type: ignore[attr-defined]
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "minidiff"
        reason: Any = error.__cause__  # new releases leave out the value, but pydantic has it
        got = f", got {reason.errors()[0]['input']!r}" if hasattr(reason, "errors") else ""
        text = f"{text.rstrip('.')}{got}; see {command} --help"
    elif _lacks_compiler(error):
        text = (
            "torch.compile finds no compiler: install a C++ compiler such as g++, or leave out "
            "--compile"
        )
    elif _is_out_of_memory(error):
        size = re.search(r"allocate ([\d.]+ \w+)", str(error))
        text = (
            f"there is not enough memory{f' for another {size[1]}' if size else ''}: draw fewer "
            "pictures at a time (--num-images), or train with a smaller --batch-size"
        )
    else:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, OSError) and error.filename and str(error.filename) not in text:
            text = f"{text}: {error.filename}"
    return " ".join(text.split()) or type(error).__name__


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # Notices of ours are UserWarnings; what libraries warn their developers of is not for users.
    if issubclass(category, UserWarning):
        from tqdm import tqdm

        # Not into the middle of a progress bar.
        tqdm.write(f"minidiff: {' '.join(str(message).split())}", file=sys.stderr)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False,
) -> None:
    """Text to picture: a small diffusion model of Chinese glyphs.

    Start with: minidiff sample gold
    """
    if version:
        print(minidiff.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


# ---------------------------------------------------------------------------------- sample


@app.command()
def sample(
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            help="what to draw, in English; quote a prompt of several words. None for a model "
            "that was trained without text"
        ),
    ] = None,
    num_images: Annotated[
        int, typer.Option(min=1, metavar="<int>", help="pictures of each prompt")
    ] = 16,
    num_inference_steps: Annotated[
        int,
        typer.Option(
            min=1, metavar="<int>", help="steps from noise to picture; more is slower and better"
        ),
    ] = 20,
    guidance_scale: Annotated[
        float, typer.Option(help="1 = off; larger follows the text more closely")
    ] = 3.0,
    negative_prompt: Annotated[str, typer.Option(help="what to move away from")] = "",
    sampler: Annotated[
        str, typer.Option(help="ddpm, ddim, heun, dpmpp_2m or dpmpp_2m_sde; the last draws best")
    ] = "dpmpp_2m_sde",
    seed: Annotated[int, typer.Option(help="the same seed gives the same pictures")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="file; its ending chooses: .png a grid, .gif the animation from noise to picture, "
            ".npy the numbers, uint8 (prompts, images, H, W). Without it: a new PNG here",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        int,
        typer.Option(min=1, max=16, metavar="<int>", help="enlarge each pixel in a .png or .gif"),
    ] = 2,
    model: Model = "glyph64",
) -> None:
    """Draw pictures of one or several prompts. Prints the file that they are in.

    minidiff sample gold

    minidiff sample fish "made of bamboo" --num-images 8 --output fish.gif
    """
    _check_output(output or Path("glyphs.png"))
    from minidiff import plots
    from minidiff.pipeline import load
    from minidiff.samplers import SAMPLERS

    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}: choose one of {', '.join(SAMPLERS)}")
    pipeline = load(model)
    prompt = _checked_prompts(prompt, negative_prompt, pipeline)
    arguments: dict[str, Any] = {
        "negative_prompt": negative_prompt,
        "num_images_per_prompt": num_images,
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "sampler": sampler,
        "seed": seed,
    }
    ending = output.suffix.lower() if output else ".png"
    payload: Any
    if ending == ".gif":
        steps = _progress(pipeline.steps(prompt, **arguments), num_inference_steps)
        frames = (_sheet(frame.images, prompt, scale) for frame in steps)
        payload = plots.animation(frames)
    else:
        images = pipeline(prompt, progress=sys.stderr.isatty(), **arguments)
        if ending == ".npy":
            shape = (len(prompt), num_images, *images.shape[2:])
            payload = plots.to_uint8(images).reshape(shape).numpy()
        else:
            payload = _sheet(images, prompt, scale)
    path = output or _new_file(prompt[0])
    plots.save_picture(path, payload)
    print(path)


def _checked_prompts(prompts: list[str] | None, negative: str, pipeline: Pipeline) -> list[str]:
    """What to draw, if the model can: one without text needs no prompt, and can follow none."""
    if pipeline.config.text_encoder is not None:
        if not prompts:
            raise ValueError("nothing to draw: give a prompt, for instance: minidiff sample gold")
        return prompts
    if any(text.strip() for text in [*(prompts or []), negative]):
        raise ValueError("this model was trained without text: give no prompt")
    return prompts or [""]


def _check_output(path: Path) -> None:
    """Refuse what could not be written before minutes are spent on drawing."""
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"--output {path}: the ending must be one of {', '.join(ENDINGS)}")
    if path.is_dir():
        raise ValueError(f"--output {path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise ValueError(f"--output {path}: there is no folder {path.parent}; make it first")
    import tempfile

    try:  # the same name as when it is saved, so that one that is too long fails now
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}-", dir=path.parent):
            pass
    except OSError as error:
        folder = path.parent.absolute()
        raise ValueError(
            f"cannot write {path.name} into {folder} ({error.strerror}): choose another --output"
        ) from error


def _new_file(prompt: str) -> Path:
    """A name that does not exist yet, after the prompt."""
    stem = re.sub(r"\W+", "-", prompt).strip("-")[:40] or "glyphs"
    names = [f"{stem}.png", *(f"{stem}-{i}.png" for i in range(2, 10_000))]
    return next(Path(name) for name in names if not Path(name).exists())


def _sheet(images: Tensor, prompts: Sequence[str], scale: int) -> Image:
    """The pictures of one prompt as a square; those of several in rows of their own, with headings.

    images: (prompts × images, 1, H, W).
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


def _progress(steps: Any, total: int) -> Any:
    from tqdm.auto import tqdm

    return tqdm(
        steps, "Drawing", total, unit=" steps", leave=False, disable=not sys.stderr.isatty()
    )


# ---------------------------------------------------------------------------------- train


@app.command()
def train(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="run folder: checkpoints, log, sample grids, model"),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            help="glyph64, glyph64-gpu (four times the work), or a .toml file with "
            "settings of minidiff.TrainingConfig (text_encoder = false: without text)",
            show_default="glyph64; with --resume the run's own, with --start the model's",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on where the run stopped")] = False,
    start: Annotated[
        str | None,
        typer.Option(
            help="begin with the weights of an earlier model: one that ships, or the folder of a "
            "run or a model. Give another --seed than it had, or the same noise comes again"
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="instead of the recipe's")] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(
            metavar="<minutes>",
            help="end after so long, interruptions not counted, if the steps have not; the "
            "learning rate falls to 0 in time",
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="instead of the recipe's")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="instead of the recipe's")] = None,
    seed: Annotated[int | None, typer.Option(help="instead of the recipe's")] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="torch.compile: starts slowly, then runs faster")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help="own pictures: a folder with metadata.csv (columns file_name,text); the run "
            "remembers where it is"
        ),
    ] = None,
) -> None:
    """Train a model; stop it with Ctrl-C and go on with --resume.

    It saves what it has when it is stopped, also by SIGTERM, with which clusters end a job, or by a
    closed terminal. A run remembers its settings and its pictures.

    minidiff train --recipe glyph64 --output runs/glyph64

    minidiff train --resume --output runs/glyph64

    On several GPUs: accelerate launch -m minidiff train --output runs/glyph64
    """
    overrides = {
        "steps": steps,
        "time_limit": time_limit,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "compile": compile or None,
    }
    from minidiff.pipeline import find_model
    from minidiff.training import Trainer

    source = None if start is None else find_model(start)
    config = _config(recipe, output if resume else None, overrides, source)
    own = ["--data", _as_path(data)] if data else []
    if resume and data is None:
        data = _remembered(output)
    with polite(), _told_to_go_on("train", "--resume", "--output", _as_path(output), *own):
        dataset, held_out, prompts = _pictures(config, data)
        trainer = Trainer(config, dataset, output, held_out, SampleGrids(prompts), resume, source)
        main = trainer.accelerator.is_main_process
        if trainer.finished and main:
            over = "--steps" if trainer.step_count >= config.steps else "--time-limit"
            longer = f"a larger {over} makes it longer"
            print(f"minidiff: this run was finished already; {longer}", file=sys.stderr)
        trainer.run()
    if main:
        example = _example(prompts[0] if config.text_encoder else None, output)
        print(f"{output / 'model'}; draw with: {example}")


def _pictures(
    config: TrainingConfig, data: Path | None
) -> tuple[PictureDataset, PictureDataset | None, Sequence[str]]:
    """What is learnt from, what is held out, and prompts for the sample sheets."""
    from minidiff.datasets import ImageFolder
    from minidiff.glyphs import GlyphDataset

    dataset: PictureDataset
    held_out: PictureDataset | None = None
    prompts: Sequence[str] = SAMPLE_PROMPTS
    if data is not None:
        dataset = ImageFolder(data, config.image_size)
        texts = dict.fromkeys(_cleaned(several[0]) for several in dataset.prompts)
        prompts = [text for text in texts if text][: len(prompts)]
    else:
        dataset = GlyphDataset(config.image_size, "train")
        held_out = GlyphDataset(config.image_size, "test")
    return dataset, held_out, (prompts if config.text_encoder and prompts else [""])


def _remembered(output: Path) -> Path | None:
    """The folder of own pictures that a run began with; None for the glyphs."""
    from minidiff.run_folder import newest_info

    known = newest_info(output)[1].get("data", {})  # earlier releases did not remember it
    if known.get("kind") == "other":
        raise ValueError(
            f"the pictures of {output} came from a program, not from a folder: go on with that "
            "program, or give --data"
        )
    folder = None if known.get("path") is None else Path(known["path"])
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(
            f"the pictures of {output} were in {folder}, which is not there any more: give the "
            "folder that they are in now with --data"
        )
    return folder


# --------------------------------------------------------- commands that can be pasted


@contextmanager
def _told_to_go_on(*words: str) -> Iterator[None]:
    """Where an error says in Python's words how to go on, put the command in their place."""
    try:
        yield
    except (OSError, TrainingStopped) as error:
        launch = ["accelerate", "launch", "-m"] if "LOCAL_RANK" in os.environ else []
        command = _command(*launch, "minidiff", *words)
        error.args = tuple(
            part.replace(RESUME, command) if isinstance(part, str) else part for part in error.args
        )
        raise


def _example(prompt: str | None, output: Path) -> str:
    """The command that draws with a new model; one without text needs no prompt."""
    words = ["--model", _as_path(output)]
    if prompt is not None:
        if len(prompt) > 80:
            prompt = textwrap.shorten(prompt, 80, placeholder="") or prompt[:80]
        # behind "--" it is not taken for an option
        words = [*words, "--", prompt] if prompt.startswith("-") else [prompt, *words]
    return _command("minidiff", "sample", *words)


def _as_path(path: Path) -> str:
    """A path that is taken neither for an option nor for a model that ships."""
    from minidiff.inputs import is_file
    from minidiff.pipeline import MODELS

    misread = str(path).startswith("-") or is_file(MODELS / path / "config.json")
    return f".{os.sep}{path}" if misread and not path.is_absolute() else str(path)


def _cleaned(prompt: str) -> str:
    """A prompt as the text encoder reads it, without line ends and control characters."""
    shown = (c for c in prompt if c.isprintable() or c.isspace())
    return " ".join("".join(shown).split())


def _command(*words: str) -> str:
    """The words as one line for the shell that is usual here."""
    return " ".join(_quoted_for_windows(w) if os.name == "nt" else _quoted(w) for w in words)


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    # Control characters and bytes that are no text.
    plain = (
        chr(b) if 32 <= b < 127 and b not in b"\\'" else f"\\x{b:02x}" for b in os.fsencode(word)
    )
    return f"$'{''.join(plain)}'"


def _quoted_for_windows(word: str) -> str:
    if re.fullmatch(r"[\w./\\:=+-]+", word):
        return word
    word = re.sub(r'(\\*)"', r'\1\1\\"', word)  # backslashes count only before a quotation mark
    word = re.sub(r"(\\+)$", r"\1\1", word)
    return f'"{word}"'


def _config(
    recipe: str | None, running: Path | None, overrides: dict[str, Any], source: Path | None = None
) -> TrainingConfig:
    """The settings: of the recipe, else of the run or the model to go on from, else of glyph64."""
    from minidiff.checkpoints import read_info
    from minidiff.recipe import TrainingConfig
    from minidiff.run_folder import newest_info

    known: dict[str, Any] | None = None
    if running is not None:
        known = newest_info(running)[1]["training"]
    elif source is not None:
        info = read_info(source)
        known = {**info.get("record", {}).get("recipe", {}), **info["model"]}
        # How long that run was allowed to take and what it wrote when say nothing of the model.
        names = {f.name for f in dataclasses.fields(TrainingConfig)} - {"time_limit", "compile"}
        known = {n: v for n, v in known.items() if n in names and not n.endswith("_every")}
    given = {name: value for name, value in overrides.items() if value is not None}
    if recipe is None and known is not None:
        return TrainingConfig.from_dict({**known, **given})
    return TrainingConfig.recipe(recipe or "glyph64", **given)


SAMPLE_PROMPTS = ("gold", "water", "tree", "bird", "fire", "hand", "a kind of fish", "to speak")


class SampleGrids:
    """What the averaged weights draw now, a row a prompt: <run>/samples/step-….png.

    One that fails does not end the training; the first is told of.
    """

    def __init__(self, prompts: Sequence[str] = SAMPLE_PROMPTS) -> None:
        self.prompts = prompts
        self.pipeline: Pipeline | None = None  # kept: its text encoder takes seconds to load
        self.failed = False

    def __call__(self, trainer: Trainer) -> None:
        try:
            self.draw(trainer)
        except Exception as error:  # hours of training are worth more than a picture of them
            if not self.failed:
                self.failed = True
                if not _is_users(error):
                    traceback.print_exception(error)
                warnings.warn(
                    f"a sample sheet failed, training goes on: {type(error).__name__}: {error}",
                    stacklevel=2,
                )

    def draw(self, trainer: Trainer) -> None:
        from minidiff import plots
        from minidiff.pipeline import Pipeline

        if self.pipeline is None:
            self.pipeline = Pipeline(
                trainer.averaged, trainer.model_config, trainer.record(), trainer.device
            )
        images = self.pipeline(self.prompts, num_images_per_prompt=8)
        folder = trainer.folder / "samples"
        folder.mkdir(exist_ok=True)
        sheet = plots.grid(images, columns=8, labels=self.prompts)
        plots.save_picture(folder / f"step-{trainer.step_count:08d}.png", sheet)


# ---------------------------------------------------------------------------------- evaluate


@app.command()
def evaluate(
    model: Model = "glyph64",
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="draw many more glyphs: on two cores some twelve minutes, not one and a half",
        ),
    ] = False,
    loss_only: Annotated[
        bool, typer.Option("--loss-only", help="draw nothing; works for models of any size")
    ] = False,
    seed: Annotated[int, typer.Option(help="of the noise that the glyphs start from")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Measure how good a model of glyphs is.

    Distances to real glyphs in the eyes of a recogniser (Frechet, kernel, precision, recall), with
    those of real glyphs, blurred ones and other fonts beside; sharpness and whiteness; whether
    the radical fits held-out definitions; whether 20 words bring what they mean; whether glyphs
    were copied; and the loss on held-out glyphs by timestep.

    minidiff evaluate

    minidiff evaluate --full --json --model runs/glyph64 > figures.json
    """
    import json

    from minidiff import evaluation
    from minidiff.pipeline import load
    from minidiff.report import as_text

    if full and loss_only:
        raise ValueError("--full and --loss-only contradict each other: give one of them")
    pipeline = load(model)
    if loss_only:
        result: dict[str, Any] = {"held_out_loss": evaluation.held_out_loss(pipeline)}
    else:
        form = evaluation.FORMS["full" if full else "quick"]
        result = evaluation.evaluate(pipeline, form, seed, progress=sys.stderr.isatty())
    print(json.dumps(result, indent=2) if as_json else as_text(result))
