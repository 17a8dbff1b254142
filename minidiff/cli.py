"""The command line: `minidiff sample`, `minidiff train`, `minidiff evaluate`.

A user's error ends in one line that names the value and the remedy, never in a traceback.
"""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from minidiff.pipeline import Pipeline
    from minidiff.training import Trainer, TrainingConfig

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train and sample a small text-to-image diffusion model of Chinese glyphs.",
)

Model = Annotated[
    str, typer.Option(help="a model that ships (glyph64), or a folder of yours: see `train`")
]
ENDINGS = (".png", ".gif", ".npy")


def main() -> None:
    """Entry point of the `minidiff` command."""
    warnings.showwarning = _show_warning
    try:
        app()
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, OSError) and error.filename and str(error.filename) not in text:
            text = f"{text}: {error.filename}"
        print(f"minidiff: {text or type(error).__name__}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("minidiff: interrupted", file=sys.stderr)
        sys.exit(130)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # Notices of ours are UserWarnings; what libraries warn their developers of is not for users.
    if issubclass(category, UserWarning):
        print(f"minidiff: {message}", file=sys.stderr)


# ---------------------------------------------------------------------------------- sample


@app.command()
def sample(
    prompt: Annotated[list[str], typer.Argument(help='what to draw, e.g. gold "water, river"')],
    num_images: Annotated[int, typer.Option(help="pictures of each prompt")] = 16,
    num_inference_steps: Annotated[
        int, typer.Option(help="steps from noise to picture; more is slower and better")
    ] = 20,
    guidance_scale: Annotated[
        float, typer.Option(help="1 = off; larger follows the text more closely")
    ] = 3.0,
    negative_prompt: Annotated[str, typer.Option(help="what to move away from")] = "",
    sampler: Annotated[
        str, typer.Option(help="ddpm, ddim, heun, dpmpp_2m or dpmpp_2m_sde")
    ] = "dpmpp_2m",
    seed: Annotated[int, typer.Option(help="the same seed gives the same pictures")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            help="file; its ending chooses: .png a grid, .gif the animation from noise to picture, "
            ".npy the numbers, uint8 (prompts, images, H, W). Without it: a new PNG here"
        ),
    ] = None,
    scale: Annotated[int, typer.Option(help="enlarge each pixel in a .png or .gif")] = 2,
    model: Model = "glyph64",
) -> None:
    """Draw pictures of one or several prompts.

    minidiff sample gold --output gold.gif
    """
    path = _checked_output(output) if output else _new_file(prompt[0])
    if not 1 <= scale <= 16:
        raise ValueError(f"--scale must be from 1 to 16, got {scale}")
    from minidiff import load, plots

    pipeline = load(model)
    arguments: dict[str, Any] = {
        "negative_prompt": negative_prompt,
        "num_images_per_prompt": num_images,
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "sampler": sampler,
        "seed": seed,
    }
    # A single prompt makes a square of pictures; several prompts make a row (or rows) each.
    columns = _columns(num_images, len(prompt))
    if path.suffix == ".gif":
        frames = [
            plots.grid(frame.images, columns, scale)
            for frame in _progress(pipeline.steps(prompt, **arguments), num_inference_steps)
        ]
        plots.save_picture(path, plots.animation(frames))
    else:
        images = pipeline(prompt, progress=True, **arguments)
        if path.suffix == ".npy":
            shape = (len(prompt), num_images, *images.shape[2:])
            plots.save_picture(path, plots.to_uint8(images).reshape(shape).numpy())
        else:
            plots.save_picture(path, plots.grid(images, columns, scale))
    print(path)


def _checked_output(path: Path) -> Path:
    """Refuse what could not be written before minutes are spent on drawing."""
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"--output {path}: the ending must be one of {', '.join(ENDINGS)}")
    if path.is_dir():
        raise ValueError(f"--output {path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise ValueError(f"--output {path}: there is no folder {path.parent}; make it first")
    _check_writable(path.parent)
    return path.with_suffix(path.suffix.lower())


def _check_writable(folder: Path) -> None:
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"cannot write into {folder.absolute()}: {error.strerror}") from error


def _new_file(prompt: str) -> Path:
    """A name that does not exist yet, after the prompt."""
    stem = re.sub(r"\W+", "-", prompt).strip("-")[:40] or "glyphs"
    _check_writable(Path())
    names = [f"{stem}.png", *(f"{stem}-{i}.png" for i in range(2, 10_000))]
    return next(Path(name) for name in names if not Path(name).exists())


def _columns(images: int, prompts: int) -> int:
    if prompts > 1:
        return min(images, 16)
    return min(max(1, round(images**0.5)), 16)


def _progress(steps: Any, total: int) -> Any:
    from tqdm.auto import tqdm

    return tqdm(steps, "Drawing", total, unit=" steps", leave=False)


# ---------------------------------------------------------------------------------- train


@app.command()
def train(
    output: Annotated[Path, typer.Option(help="run folder: checkpoints, log, sample grids, model")],
    recipe: Annotated[
        str, typer.Option(help="glyph64, or a .toml file with settings of TrainingConfig")
    ] = "glyph64",
    resume: Annotated[bool, typer.Option("--resume", help="go on where the run stopped")] = False,
    steps: Annotated[int | None, typer.Option(help="instead of the recipe's")] = None,
    batch_size: Annotated[int | None, typer.Option(help="instead of the recipe's")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="instead of the recipe's")] = None,
    seed: Annotated[int | None, typer.Option(help="instead of the recipe's")] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="torch.compile: starts slowly, then runs faster")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="own pictures: a folder with metadata.csv (columns file_name,text)"),
    ] = None,
) -> None:
    """Train a model; stop it with Ctrl-C and go on with --resume.

    minidiff train --recipe glyph64 --output runs/glyph64

    On several GPUs: accelerate launch -m minidiff train --output runs/glyph64
    """
    config = _recipe(
        recipe,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        compile=compile or None,
    )
    from minidiff.glyphs import GlyphDataset, ImageFolder
    from minidiff.training import Trainer

    dataset: GlyphDataset | ImageFolder
    if data is not None:
        dataset, held_out = ImageFolder(data, config.image_size), None
    else:
        dataset = GlyphDataset(config.image_size, "train")
        held_out = GlyphDataset(config.image_size, "test")
    trainer = Trainer(config, dataset, output, held_out, callback=draw_samples, resume=resume)
    trainer.run()
    print(f"{output / 'model'}  (draw with: minidiff sample gold --model {output})")


def _recipe(name: str, **overrides: Any) -> TrainingConfig:
    """A recipe by name or from a file, with what the command line says instead."""
    import tomllib

    from minidiff.training import TrainingConfig

    folder = Path(__file__).parent / "recipes"
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        raise ValueError(f"no recipe {name!r}: give one of {known}, or a .toml file")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from error
    return TrainingConfig.from_dict(
        {**values, **{key: value for key, value in overrides.items() if value is not None}}
    )


SAMPLE_PROMPTS = ("gold", "water", "tree", "bird", "fire", "hand", "a kind of fish", "to speak")


def draw_samples(trainer: Trainer) -> None:
    """A grid of what the averaged weights draw now: <run>/samples/step-….png."""
    from minidiff import plots
    from minidiff.pipeline import Pipeline

    pipeline = Pipeline(trainer.averaged, trainer.model_config, device=trainer.device)
    prompts = SAMPLE_PROMPTS if trainer.config.text_encoder else ("",)
    images = pipeline(prompts, num_images_per_prompt=8)
    folder = trainer.folder / "samples"
    folder.mkdir(exist_ok=True)
    sheet = plots.grid(images, columns=8, labels=prompts)
    plots.save_picture(folder / f"step-{trainer.step_count:08d}.png", sheet)


# ---------------------------------------------------------------------------------- evaluate


@app.command()
def evaluate(
    model: Model = "glyph64",
    num_images: Annotated[int, typer.Option(help="held-out glyphs to measure on")] = 512,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Loss on held-out glyphs, by timestep: how well noise is told from ink that was never seen."""
    import json

    from minidiff import load

    losses = _held_out_losses(load(model), num_images)
    if as_json:
        print(json.dumps(losses))
        return
    print(f"{'t':>6}  loss on held-out glyphs")
    for t, loss in losses.items():
        print(f"{t:>6}  {loss:.4f}")


def _held_out_losses(pipeline: Pipeline, num_images: int) -> dict[str, float]:
    from minidiff.glyphs import GlyphDataset, to_float
    from minidiff.training import loss_by_timestep

    dataset = GlyphDataset(pipeline.config.image_size, "test")
    if not 1 <= num_images <= len(dataset):
        raise ValueError(f"--num-images must be from 1 to {len(dataset)}, got {num_images}")
    images = to_float(dataset.images[:num_images]).to(pipeline.device)
    if pipeline.config.text_encoder is None:
        return loss_by_timestep(pipeline.network, pipeline.config, images)
    text = pipeline.text_encoder.encode([dataset.prompts[i][0] for i in range(num_images)])
    return loss_by_timestep(pipeline.network, pipeline.config, images, text.tokens, text.mask)
