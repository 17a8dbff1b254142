"""The command line, continued: `minidiff data` and `minidiff evaluate`.

What there is to learn from, and how good is what was learnt.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from minidiff import cli_more, cli_sample, shell

Model = Annotated[
    str,
    typer.Option(
        help="a model that ships: glyph64, glyph64-fast (in 4 evaluations), glyph128 (twice as "
        "large), latents128; the folder of a run or a model; or owner/model of the Hugging Face "
        "Hub"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]


def data(
    folder: Annotated[
        Path,
        typer.Argument(
            help="of pictures: with metadata.csv or .jsonl (file_name, text), with a folder for "
            "each text, or with texts for file names"
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="a .png for some of the pictures, with their texts",
            show_default="a new data.png here",
        ),
    ] = None,
    paper: Annotated[
        str | None, typer.Option(help="a colour for what is transparent or beside them")
    ] = None,
    caption_column: Annotated[
        str | None, typer.Option(help="the table's column of texts, if not text")
    ] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="as in training: do without such pictures")
    ] = False,
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="<int>|<int>x<int>",
            help="pixels of a side, or height x width, as 64x48, at which they would be learnt",
            show_default="by their own sizes",
        ),
    ] = None,
    time_limit: Annotated[
        float, typer.Option(metavar="<minutes>", help="that a training may take")
    ] = 20.0,
    as_json: Json = False,
) -> None:
    """Look at own pictures before a model is trained on them.

    What the files are, as what they would be learnt, which cannot be read and why, which are there
    twice; what the texts are, what of them is cut or means nothing to the text encoder; the recipe
    that `minidiff train --data` would take, and how long that takes on this machine.

    minidiff data my-pictures

    minidiff data my-pictures --caption-column title --image-size 48
    """
    path = _sheet(output, "data")
    from minidiff import looking, plots
    from minidiff.fitting import as_toml, fit, size_for
    from minidiff.report import of_data

    size = cli_more.size_of(image_size) or size_for(folder, caption_column or "text")
    given = {"paper": paper, "caption_column": caption_column}
    reading: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    dataset, notices = looking.read(folder, size, **reading)
    files, fitted = looking.files_of(dataset), fit(dataset, time_limit)
    texts = looking.texts_of(dataset.prompts, fitted.config)
    plots.save_picture(path, looking.sheet(dataset))
    result = {
        **looking.as_dict(dataset, files, texts),
        "notices": notices,
        "skip_unreadable": skip_unreadable,
        "recipe": fitted.config.to_dict(),
        "images_per_second": round(fitted.images_per_second, 1),
        "minutes": round(fitted.minutes, 2),
        "why": fitted.why,
        "sheet": str(path),
    }
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    typer.echo(of_data(result))
    typer.echo(f"\nThe recipe, which in a .toml file --recipe takes:\n\n{as_toml(fitted.config)}")
    words = [word for name, value in reading.items() for word in (_option(name), str(value))]
    words += ["--image-size", image_size] if image_size else []
    words += ["--skip-unreadable"] if skip_unreadable and files.refused else []
    words += ["--time-limit", f"{time_limit:g}"] if time_limit != 20 else []
    run = shell.as_path(Path("runs") / (folder.resolve().name or "mine"))
    command = shell.command(
        "minidiff", "train", "--data", shell.as_path(folder), *words, "--output", run
    )
    typer.echo(f"{path} shows some of them; train with: {command}")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _sheet(output: Path | None, stem: str) -> Path:
    """Where a sheet goes, if that can be written: found out before minutes are spent."""
    if output is not None and output.suffix.lower() != ".png":
        raise ValueError(f"--output {output}: the ending must be .png")
    path = cli_sample.new_file(stem) if output is None else output
    cli_sample.check_output(str(path))
    return path


# ---------------------------------------------------------------------------------- evaluate


def evaluate(
    model: Model = "glyph64",
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="draw many more pictures: of glyphs on two cores some twenty-five minutes, not "
            "one and a half; of own pictures 1,024 of each kind, not 128",
        ),
    ] = False,
    loss_only: Annotated[
        bool, typer.Option("--loss-only", help="draw nothing; works for models of any size")
    ] = False,
    seed: Annotated[int, typer.Option(help="of the noise that the pictures start from")] = 0,
    data: Annotated[
        Path | None,
        typer.Option(
            help="own pictures: the folder that the model was trained on",
            show_default="where they were then",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="of own pictures: a .png for what was drawn beside what is nearest to it",
            show_default="a new nearest.png here",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how good a model is, and whether it only copied.

    Of glyphs: distances to real glyphs in the eyes of a recogniser (Frechet, kernel, precision,
    recall), with those of real glyphs, blurred ones and other fonts beside; sharpness, whiteness
    and specks; whether the radical fits definitions that were held out; whether 20 words bring what
    they mean; whether glyphs were copied; and the loss by timestep on glyphs that were held out.
    With --full also 60 everyday words, all radicals by their names, and definitions with the
    radical named. Only the distances of --full, of 1,034 glyphs, can be compared with those of
    other models.

    Of own pictures, each beside the same of real ones: the loss by timestep on training pictures
    and on those that were held out; how many of the drawn pictures stand nearer to a training
    picture than real ones do, so that they are copies, with a sheet to see it; variety; and whether
    texts and single words bring what they mean.

    minidiff evaluate

    minidiff evaluate --full --json --model runs/glyph64 > figures.json

    minidiff evaluate --model runs/mine --output copies.png
    """
    if full and loss_only:
        raise ValueError("--full and --loss-only contradict each other: give one of them")
    path = None if output is None else _sheet(output, "")
    from minidiff import evaluation, large
    from minidiff.originals import is_own
    from minidiff.pipeline import load
    from minidiff.report import as_text, of_own

    pipeline, form, progress = load(model), "full" if full else "quick", sys.stderr.isatty()
    result: dict[str, Any]
    if data is not None or is_own(pipeline):
        result = _of_own(pipeline, data, None if loss_only else form, seed, path)
        typer.echo(json.dumps(result, indent=2) if as_json else of_own(result))
        return
    if path is not None:
        raise ValueError("--output is of own pictures, and this model draws glyphs: leave it out")
    if loss_only and pipeline.config.student is not None:
        raise ValueError("this model is a student, which learns jumps: leave out --loss-only")
    if loss_only:
        result = {"held_out_loss": evaluation.held_out_loss(pipeline)}
    else:
        result = evaluation.evaluate(pipeline, evaluation.FORMS[form], seed, progress=progress)
        result |= large.also(pipeline, 16 if full else 4, seed)
    typer.echo(json.dumps(result, indent=2) if as_json else as_text(result))


def _of_own(
    pipeline: Any, folder: Path | None, form: str | None, seed: int, path: Path | None
) -> dict[str, Any]:
    """All measures and the file of the sheet; without a form the losses alone."""
    from minidiff import own_evaluation, plots
    from minidiff.originals import originals

    train, held_out = originals(pipeline, folder)
    if form is None:
        return {"loss": own_evaluation.losses(pipeline, train, held_out)}
    path = path or _sheet(None, "nearest")
    how = own_evaluation.FORMS[form]
    result, sheet = own_evaluation.evaluate(
        pipeline, train, held_out, how, seed, progress=sys.stderr.isatty()
    )
    plots.save_picture(path, sheet)
    return {**result, "sheet": str(path)}
