"""The command line: `minidiff sample` and `minidiff train`; cli_data, cli_more have the rest.

Results go to standard output, everything else to standard error. What is heavy is imported inside
the functions, so that help and most mistakes are answered at once.
A user's error ends in one line that names the value and the remedy, never in a traceback.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

import minidiff
from minidiff import cli_data, cli_more, shell
from minidiff.endings import Ended, TrainingStopped, polite

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: quick to start, and readable on every terminal
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

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
        warnings.showwarning = shell.show_warning
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
        if not shell.is_users(error):
            raise
        print(f"minidiff: {shell.message(error)}", file=sys.stderr)
        # Training saves before it ends, in words of its own.
        number = error.signal if isinstance(error, TrainingStopped) else None
        return 2 if number is None else 128 + number
    except Ended as end:
        print(f"minidiff: ended by {signal.Signals(end.signal).name}", file=sys.stderr)
        return 128 + end.signal
    if status == INTERRUPTED:
        print("minidiff: interrupted", file=sys.stderr)
    return status


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
    context: typer.Context,
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            help="what to draw, in English; quote a prompt of several words. It may name the part, "
            "too: 'dragon, water radical'. None for a model that was trained without text"
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="<path>", help="a text file of more, one a line; - is standard input"),
    ] = None,
    num_images: Annotated[
        int, typer.Option(min=1, metavar="<int>", help="pictures of each prompt")
    ] = 16,
    num_inference_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="<int>",
            help="steps from noise to picture; more is slower and better",
            show_default="20; 4 of a model that was made for few",
        ),
    ] = None,
    guidance_scale: Annotated[
        float, typer.Option(help="1 = off; larger follows the text more closely")
    ] = 3.0,
    negative_prompt: Annotated[str, typer.Option(help="what to move away from")] = "",
    sampler: Annotated[
        str | None,
        typer.Option(
            help="ddpm, ddim, heun, dpmpp_2m or dpmpp_2m_sde; the last draws best",
            show_default="dpmpp_2m_sde; ddim of a model that was made for few steps",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="the same seed gives the same pictures")] = 0,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="<path>",
            help="file; its ending chooses: .png a grid, .gif the animation from noise to picture, "
            ".npy the numbers, uint8 (prompts, images, H, W; in colour then 3). A folder, or a "
            "name with a / at its end: one PNG a picture. Without it: a new PNG here",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=16,
            metavar="<int>",
            help="enlarge each pixel in a .png or .gif",
            show_default="2; 1 in a folder",
        ),
    ] = None,
    from_picture: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="<path>",
            help="a picture to start from, as large as those of the model, instead of noise",
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1,
            metavar="<float>",
            help="how much noise is laid over it: little only tidies it, 1 leaves nothing of it",
            show_default="0.8; 1 with --mask",
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="<path>",
            help="a picture of the same size: where it is white, that of --from is drawn anew, "
            "where it is black, it stays",
        ),
    ] = None,
    blend: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="<str> <str>", help="two prompts; the pictures go from the first to the second"
        ),
    ] = None,
    again: Annotated[
        Path | None,
        typer.Option(
            help="draw this picture anew, from what its file says of how it was drawn; options "
            "beside it win"
        ),
    ] = None,
    model: cli_data.Model = "glyph64",
) -> None:
    """Draw pictures of one or several prompts. Prints the files that they are in.

    What they were drawn with stands in the files; in x.npy.json for x.npy.

    minidiff sample gold

    minidiff sample "dragon, water radical"

    minidiff sample fish "made of bamboo" --num-images 8 --output fish.gif

    minidiff sample gold --model glyph128

    minidiff sample --again gold.png --seed 1

    minidiff sample fish --from sketch.png --strength 0.8
    """
    from minidiff import cli_sample

    cli_sample.check_output("glyphs.png" if output is None else output)
    texts = [*(prompt or []), *(cli_sample.read_prompts(prompts) if prompts else [])]
    if blend and texts:
        raise ValueError(f"--blend has its two prompts, and there are others: {texts[0]!r}")
    asked: dict[str, Any] = {
        "prompts": list(blend or texts),
        "blend": blend is not None,
        "num_images": num_images,
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "negative_prompt": negative_prompt,
        "sampler": sampler,
        "seed": seed,
        "scale": scale or (1 if output and cli_sample.means_folder(output) else 2),
        "number": None,
        "from_picture": from_picture,
        "strength": strength,
        "mask": mask,
        "model": model,
    }
    sources = {name: context.get_parameter_source(name) for name in asked}
    given = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    given |= {"prompts"} if prompt or blend else set()
    for path in cli_sample.sample(asked, given, again, output, minidiff.__version__):
        print(path)


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
            help="glyph64, glyph64-fast (a student that draws in few steps) and then "
            "glyph64-fast-match, upscale128 (a second stage), autoencoder128 and then latents128, "
            "pixels128, small; with -gpu behind the name for one GPU; or a .toml file with "
            "settings of minidiff.TrainingConfig (text_encoder = false: without text)",
            show_default="glyph64; --data: what fits; --resume: the run's; --start: the model's",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on where the run stopped")] = False,
    start: Annotated[
        str | None,
        typer.Option(
            help="begin with the weights of an earlier model: one that ships, or the folder of a "
            "run or a model. Give another --seed than it had, or the same noise comes again. Own "
            "pictures are learnt at its size and in its colours: from glyph64 in grey, 64 x 64"
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
    data: cli_more.Data = None,
    paper: cli_more.Paper = None,
    caption_column: cli_more.CaptionColumn = None,
    skip_unreadable: cli_more.SkipUnreadable = None,
    held_out: cli_more.HeldOut = None,
    image_size: cli_more.ImageSize = None,
    flips: cli_more.Flips = None,
    log_with: cli_more.LogWith = None,
) -> None:
    """Train a model; stop it with Ctrl-C and go on with --resume.

    It saves what it has when it is stopped, also by SIGTERM, with which clusters end a job, or by a
    closed terminal. A run remembers its settings and its pictures.

    minidiff train --recipe glyph64 --output runs/glyph64

    minidiff train --resume --output runs/glyph64

    minidiff train --data my-pictures --output runs/mine

    On several GPUs: accelerate launch -m minidiff train --output runs/glyph64
    """
    overrides = {
        "steps": steps,
        "time_limit": time_limit,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "compile": compile or None,
        "flips": flips,
        "image_size": cli_more.size_of(image_size),
    }
    from minidiff import cli_train
    from minidiff.shelf import find_model
    from minidiff.training import Trainer

    source = None if start is None else find_model(start, online=False)
    running = output if resume else None
    to_fit = None if recipe is not None or running or source else data
    if to_fit:
        recipe = cli_train.begin_fitting(to_fit, output, caption_column, overrides)
    config = cli_train.config_of(recipe, running, overrides, source)
    reading = cli_train.how_to_read(config, recipe, running, source)
    options: dict[str, Any] = {"skip_unreadable": skip_unreadable, "held_out": held_out}
    options |= {"paper": paper, "caption_column": caption_column}
    given = {name: value for name, value in options.items() if value is not None}
    if given and data is None and not resume:
        raise ValueError(f"--{min(given).replace('_', '-')} is of own pictures: give --data")
    reading |= given
    own = ["--data", shell.as_path(data)] if data else []
    own += [word for name in log_with or () for word in ("--log-with", name)]
    if resume and data is None:
        data = cli_train.remembered(output)
    with (
        polite(),
        shell.told_to_go_on("train", "--resume", "--output", shell.as_path(output), *own),
    ):
        config, dataset, apart, prompts = cli_train.pictures_of(config, data, **reading)
        config = cli_train.fitted(dataset, overrides) if to_fit else config
        grids, told = cli_train.SampleGrids(prompts), log_with or ()
        trainer = Trainer(config, dataset, output, apart, grids, resume, source, told)
        main = trainer.accelerator.is_main_process
        if main and data is not None:
            print(f"minidiff: {dataset}", file=sys.stderr)
        if trainer.finished and main:
            over = "--steps" if trainer.step_count >= config.steps else "--time-limit"
            longer = f"a larger {over} makes it longer"
            print(f"minidiff: this run was finished already; {longer}", file=sys.stderr)
        trainer.run()
    if main:
        print(f"{output / 'model'}; {grids.what_next(trainer)}")


several = (cli_more.log, cli_more.copy, cli_more.push, cli_more.export)
for more in (cli_data.data, cli_data.evaluate, *several):
    app.command()(more)
