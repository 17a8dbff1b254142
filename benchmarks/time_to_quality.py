"""How good the glyphs are after so many minutes of training: diffusers' recipe and ours.

    python benchmarks/time_to_quality.py     # 100 minutes of training, half as long again to judge

Three trainings on the same glyphs and texts, judged at several moments by 256 held-out
definitions as in evaluations.py, with averaged weights, 20 steps and no guidance:

* diffusers: the settings of its example train_unconditional.py (linear betas, 1000 steps, eps,
  AdamW at 1e-4 after 500 steps of warm-up, batches of 16, its average of the weights), a
  UNet2DConditionModel of about our number of parameters, one of a glyph's texts at random as in
  train_text_to_image.py, and none for a tenth as in train_instruct_pix2pix.py. The learning rate
  then stays, so that no moment finds it half way down, and glyphs are not mirrored. Sampled with
  DPM-Solver++ as it comes (with fresh noise on the way it did worse after 5 minutes).
* our network, diffusers' recipe: the same, only with our U-Net as shipped. The network alone.
* ours: the recipe glyph64 in batches of 32, with the warm-up and decay of study.py; the learning
  rate falls to 0 over the second half of the time, so its earlier moments are worse than a shorter
  training would be.

Minutes are those of two cores: processor time over two, of training alone, so that other work
beside counts less, and two candidates may train at once, each with OMP_NUM_THREADS=1 (`--only`).
Every moment is written when it is there; stopped, it goes on from the last one. Weights stay in
runs/time_to_quality.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import time
import tomllib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import machine
import torch
import torch.nn.functional as F
from evaluations import Judge
from torch import Tensor, nn
from tqdm import tqdm

import minidiff
from minidiff import storage
from minidiff.cache import cache_dir
from minidiff.evaluation import draw
from minidiff.glyphs import GlyphDataset, to_float
from minidiff.model import save_model
from minidiff.pipeline import load
from minidiff.recipe import TrainingConfig
from minidiff.run_folder import latest_checkpoint
from minidiff.samplers import seeded_generator, standard_normal
from minidiff.text import TextEncoder
from minidiff.texts import EncodedTexts, encode_texts
from minidiff.training import Trainer
from minidiff.unet import UNet

ROOT = Path(__file__).resolve().parents[1]
NAME, SEED, STEPS = "time_to_quality", 0, 20
COUNT = 256  # definitions to judge by: these differences are large
CORES = 2  # whose minutes are counted, however many threads there are
RECIPE = Path(minidiff.__file__).parent / "recipes" / "glyph64.toml"


class Training(Protocol):
    """What `follow` needs of a candidate."""

    seconds: float  # of training so far

    def step(self) -> None:
        """One update."""

    def save(self, place: Path) -> None:
        """Keep all that is needed to go on, and at `place` the averaged weights with a record."""


# Pictures of texts by the weights at a place.
Pictures = Callable[[Path, Sequence[str]], Tensor]


# ------------------------------------------------------------------- diffusers' recipe


class DiffusersUNet(nn.Module):
    """Their network, called as ours is: 64 × 64 to 8 × 8, attention at the lower two levels."""

    def __init__(self) -> None:
        from diffusers import UNet2DConditionModel

        super().__init__()
        plain, text = "DownBlock2D", "CrossAttnDownBlock2D"
        channels = (32, 64, 96, 96)
        self.network = UNet2DConditionModel(
            sample_size=64,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=channels,
            down_block_types=(plain, plain, text, text),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            cross_attention_dim=384,
            attention_head_dim=tuple(c // 32 for c in channels),  # heads, in spite of its name
        )

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.network(x, t, tokens, encoder_attention_mask=mask).sample


def our_network() -> UNet:
    return UNet(recipe().network)


@lru_cache(maxsize=1)
def glyphs() -> tuple[GlyphDataset, EncodedTexts]:
    """The training glyphs, and all texts encoded (the same table that `Trainer` makes)."""
    train, test = GlyphDataset(64, "train"), GlyphDataset(64, "test")
    texts = sorted({text for several in (*train.prompts, *test.prompts) for text in several})
    return train, encode_texts(texts, TextEncoder("minilm"), cache_dir())


class Peer:
    """diffusers' documented training loop around a network."""

    FILES = tuple(f"{name}.safetensors" for name in ("weights", "average", "optimizer"))

    def __init__(self, folder: Path, network: Callable[[], nn.Module]) -> None:
        from diffusers import DDPMScheduler
        from diffusers.training_utils import EMAModel

        torch.manual_seed(SEED)
        self.network, self.state = network(), folder / "state"
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6
        )
        self.schedule = DDPMScheduler(num_train_timesteps=1000)  # linear betas, eps
        self.average = EMAModel(
            self.network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75
        )
        self.step_count, self.seconds = 0, 0.0
        self.train, self.texts = glyphs()
        if self.state.exists():
            self._load()

    def step(self) -> None:
        x0, tokens, mask, draw = self._batch()
        eps = torch.randn(x0.shape, generator=draw)
        t = torch.randint(0, 1000, (len(x0),), generator=draw)
        loss = F.mse_loss(self.network(self.schedule.add_noise(x0, eps, t), t, tokens, mask), eps)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-4 * min(1.0, self.step_count / 500)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.step(self.network.parameters())
        self.step_count += 1

    def _batch(self, size: int = 16) -> tuple[Tensor, Tensor, Tensor, torch.Generator]:
        """Glyphs in the order of their epoch, tokens and mask, and a generator for the rest."""
        epoch, place = divmod(self.step_count, len(self.train.images) // size)
        order = torch.randperm(
            len(self.train.images), generator=seeded_generator(SEED, "order", epoch)
        )
        index = order[place * size : (place + 1) * size]
        draw = seeded_generator(SEED, "choices", self.step_count)
        chosen = []
        for i, (which, without) in zip(index.tolist(), torch.rand(size, 2, generator=draw)):
            texts = self.train.prompts[i]
            chosen.append("" if without < 0.1 else texts[int(which * len(texts))])
        text = self.texts.batch(self.texts.rows(chosen))
        return to_float(self.train.images[index]), text.tokens, text.mask, draw

    def save(self, place: Path) -> None:
        weights = self.network.state_dict()
        averaged = copy.deepcopy(self.network)
        self.average.copy_to(averaged.parameters())
        moments = {
            f"{i}/{key}": value
            for i, state in self.optimizer.state_dict()["state"].items()
            for key, value in state.items()
        }
        average = {str(i): value for i, value in enumerate(self.average.shadow_params)}
        record = {"steps": self.step_count, "seconds": self.seconds}
        files = dict(zip(self.FILES, (weights, average, moments)))
        storage.write_folder(self.state, files, record)
        record |= {
            "images": 16 * self.step_count,
            "parameters": sum(p.numel() for p in self.network.parameters()),
        }
        files = {"model.safetensors": averaged.state_dict()}
        storage.write_folder(place, files, {"record": record})

    def _load(self) -> None:
        info = storage.read_info(self.state)
        weights, average, moments = (
            storage.read_tensors(self.state, name, info) for name in self.FILES
        )
        self.network.load_state_dict(weights)
        self.average.shadow_params = [average[str(i)] for i in range(len(average))]
        self.average.optimization_step = self.step_count = info["steps"]
        self.seconds = info["seconds"]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in moments.items():
            i, key = name.split("/")
            state.setdefault(int(i), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


@torch.inference_mode()
def diffusers_pictures(
    network: Callable[[], nn.Module], place: Path, texts: Sequence[str]
) -> Tensor:
    """Drawn with DPM-Solver++, x_0 held within [-1, 1] as theirs does for pixels."""
    from diffusers import DPMSolverMultistepScheduler

    model, (_, table) = network().eval(), glyphs()
    model.load_state_dict(
        storage.read_tensors(place, "model.safetensors", storage.read_info(place))
    )
    scheduler, parts = DPMSolverMultistepScheduler(thresholding=True), []
    for start in tqdm(range(0, len(texts), 64), "Drawing", leave=False):
        part = texts[start : start + 64]
        text = table.batch(table.rows(part))
        generators = [seeded_generator(SEED, start + i) for i in range(len(part))]
        x = standard_normal((len(part), 1, 64, 64), generators)
        scheduler.set_timesteps(STEPS)
        for t in scheduler.timesteps:
            eps = model(x, t.expand(len(x)), text.tokens, text.mask)
            x = scheduler.step(eps, t, x).prev_sample
        parts.append(x.clamp(-1, 1))
    return torch.cat(parts)


# ------------------------------------------------------------------- ours


def recipe(minutes: float | None = None) -> TrainingConfig:
    """glyph64, scaled to so many minutes; the time ends it, not the steps.

    With texts and numbers as theirs: no radical named, no token hidden, float32. Timesteps as when
    it was measured first.
    """
    config = TrainingConfig.from_dict(tomllib.loads(RECIPE.read_text(encoding="utf-8")))
    scaled = {"batch_size": 32, "warmup": 100, "decay": 0.5, "steps": 10**9, "seed": SEED}
    same = {"senses": 0.5, "name_radicals": False, "hidden_tokens": 0.0, "bfloat16_on_cpu": False}
    same |= {"timestep_mean": 0.5, "timestep_std": 1.6}
    return dataclasses.replace(config, **scaled, **same, time_limit=minutes)


class Ours:
    """Our trainer, whose clock is set by `train`."""

    def __init__(self, folder: Path, minutes: float) -> None:
        train, test = GlyphDataset(64, "train"), GlyphDataset(64, "test")
        again = latest_checkpoint(folder) is not None
        self.trainer = Trainer(recipe(minutes), train, folder, test, resume=again)

    @property
    def seconds(self) -> float:
        return self.trainer.seconds

    @seconds.setter
    def seconds(self, value: float) -> None:
        self.trainer.seconds = value

    def step(self) -> None:
        self.trainer.step()

    def save(self, place: Path) -> None:
        trainer = self.trainer
        trainer.save()
        record = {
            "steps": trainer.step_count,
            "seconds": trainer.seconds,
            "images": trainer.step_count * trainer.config.batch_size,
            "parameters": sum(p.numel() for p in trainer.network.parameters()),
        }
        save_model(place, trainer.averaged, trainer.model_config, record)


def our_pictures(place: Path, texts: Sequence[str]) -> Tensor:
    return draw(load(place, "cpu"), texts, SEED, guidance_scale=1.0)


# ------------------------------------------------------------------- following them


def train(run: Training, until: float) -> None:
    """Train until so many seconds, of processor time over cores."""
    before, started = run.seconds, time.process_time()
    with tqdm(total=round(until), initial=round(before), unit=" s", desc="Training") as bar:
        while run.seconds < until:
            run.step()
            run.seconds = before + (time.process_time() - started) / CORES
            bar.update(min(round(run.seconds), bar.total) - bar.n)


def follow(
    make: Callable[[], Training],
    pictures: Pictures,
    folder: Path,
    moments: Sequence[float],
    judge: Judge,
    cells: dict[str, Any],
    keep: Callable[[], None],
) -> None:
    """Train from moment to moment, and judge each; what is in the folder or in cells is taken.

    Args:
        make: the run, from the state it was saved in last.
        moments: in minutes, rising.
        keep: called when a cell is added.
    """
    run = None
    for minutes in moments:
        place, key = folder / f"minutes-{minutes:g}", f"{minutes:g}"
        if not place.exists():
            run = run or make()
            train(run, 60 * minutes)
            run.save(place)
        if key not in cells:
            record = storage.read_info(place)["record"]
            judged = judge(pictures(place, judge.test.texts))
            cells[key] = {**record, "seconds": round(record["seconds"], 1), **judged}
            keep()


def moments(minutes: float, peer_minutes: float) -> tuple[list[float], list[float]]:
    """Of every candidate, and of diffusers, which may train for longer."""
    common = [minutes / 4, minutes / 2, minutes]
    longer = [x for x in (peer_minutes * 2 / 3, peer_minutes) if x > minutes]
    return common, [*common, *longer]


def candidates(
    folder: Path, minutes: float
) -> dict[str, tuple[Path, Callable[[], Training], Pictures]]:
    def peer(name: str, network: Callable[[], nn.Module]) -> Any:
        place = folder / name
        return (
            place,
            lambda: Peer(place, network),
            lambda weights, texts: diffusers_pictures(network, weights, texts),
        )

    own = folder / f"ours-{minutes:g}"  # only ours depends on its length
    return {
        "diffusers": peer("diffusers", DiffusersUNet),
        "our network, diffusers' recipe": peer("our-network", our_network),
        "ours": (own, lambda: Ours(own, minutes), our_pictures),
    }


def earlier(minutes: float) -> dict[str, Any]:
    """The cells of a run of the same length that was stopped."""
    path = machine.RESULTS / f"{NAME}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return before["candidates"] if before.get("minutes") == minutes else {}


# ------------------------------------------------------------------- for reading


def section(result: dict[str, Any]) -> str:
    """The result in Markdown; moments that are not there yet are left out."""
    cells = {name: rows for name, rows in result["candidates"].items() if rows}
    longest = max((float(key) for key in cells.get("diffusers", {})), default=result["minutes"])
    options = f"--minutes {result['minutes']:g} --peer-minutes {longest:g}"
    lines = [
        "Trainings on the same glyphs and texts, judged on the way by "
        f"{result['samples']} held-out definitions, 20 steps, no guidance, averaged weights "
        f"({machine.described(result['machine'])}; seed {result['seed']}). “diffusers” has the "
        "settings of its training example and its own network, the second our network in that "
        "loop, “ours” the recipe glyph64 for this time; its learning rate reaches 0 at the end, "
        "so its earlier moments are worse than a shorter training would be. Minutes are those of "
        "two cores: processor time over two. Repeat it with "
        f"`python benchmarks/time_to_quality.py {options}`.",
        "",
        *_finding(cells),
        "Each cell: Fréchet distance beyond that of real glyphs, radicals that are right, width of "
        "an edge in pixels (1.0 in the font).",
        "",
        "| minutes | " + " | ".join(cells) + " |",
        "|---|" + "---|" * len(cells),
    ]
    for key in sorted({key for rows in cells.values() for key in rows}, key=float):
        row = [_cell(rows[key]) if key in rows else "" for rows in cells.values()]
        lines.append(f"| {float(key):g} | {' | '.join(row)} |")
    lines += [
        "",
        "| | parameters | glyphs a second | glyphs seen |",
        "|---|---|---|---|",
    ]
    for name, rows in cells.items():
        last = rows[max(rows, key=float)]
        speed = last["images"] / last["seconds"]
        lines.append(
            f"| {name} | {last['parameters'] / 1e6:.1f} M | {speed:.0f} | {last['images']:,} |"
        )
    return "\n".join(lines) + "\n"


def picture(result: dict[str, Any]) -> Any:
    """The curves: distance by minutes of training, one line a candidate."""
    from minidiff.figures import BLUE, GREEN, ORANGE, new

    figure, axis = new(size=(6.4, 3.4))
    styles = ((GREEN, "s"), (BLUE, "^"), (ORANGE, "o"))
    for (name, rows), (colour, marker) in zip(result["candidates"].items(), styles):
        minutes = sorted(rows, key=float)
        excess = [rows[key]["excess"] for key in minutes]
        axis.plot([float(key) for key in minutes], excess, color=colour, marker=marker, label=name)
    axis.set(xlabel="minutes of two cores", ylabel="excess Fréchet distance", yscale="log")
    axis.set(xlim=(0, None), yticks=(10, 30, 100, 300), yticklabels=("10", "30", "100", "300"))
    axis.minorticks_off()
    axis.legend(frameon=False, loc="upper right")
    return figure


def _cell(row: dict[str, Any]) -> str:
    return f"{row['excess']:.1f}, {row['radical_right']:.0%}, {row['edge_width']:.2f}"


def _finding(cells: dict[str, Any]) -> list[str]:
    """When ours was as good as diffusers' recipe at its end, if both are there."""
    if "diffusers" not in cells or "ours" not in cells:
        return []
    theirs, ours = cells["diffusers"], cells["ours"]
    last = max(theirs, key=float)
    goal = theirs[last]["excess"]
    reached = [float(key) for key, row in ours.items() if row["excess"] <= goal]
    start = f"After {float(last):g} minutes diffusers' recipe has an excess of {goal:.1f}; ours "
    if reached:
        at = min(reached)
        end = f"has {ours[f'{at:g}']['excess']:.1f} after {at:g} minutes."
    else:
        at_end = max(ours, key=float)
        end = f"does not reach that: {ours[at_end]['excess']:.1f} after {float(at_end):g}."
    return [start + end, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="of training, each")
    names = list(candidates(Path(), 0))
    parser.add_argument("--only", choices=names, help="one candidate, to train several at once")
    parser.add_argument("--peer-minutes", type=float, default=60.0, help="of diffusers' recipe")
    arguments = parser.parse_args()
    machine.need("diffusers")
    minutes, judge = arguments.minutes, Judge(COUNT)
    result = {
        "machine": machine.machine("diffusers"),
        "seed": SEED,
        "samples": COUNT,
        "minutes": minutes,
        "floor": round(judge.floor, 3),
    }
    common, longer = moments(minutes, arguments.peer_minutes)
    every = candidates(ROOT / "runs" / NAME, minutes)
    for name in [arguments.only] if arguments.only else names:
        folder, make, pictures = every[name]
        cells = earlier(minutes).get(name, {})

        def keep(name: str = name, cells: dict[str, Any] = cells) -> None:
            """Beside what another process may have written meanwhile."""
            both = earlier(minutes) | {name: cells}
            ordered = {each: both[each] for each in names if each in both}
            machine.write(NAME, result | {"candidates": ordered})

        at = longer if name == "diffusers" else common
        follow(make, pictures, folder, at, judge, cells, keep)


if __name__ == "__main__":
    main()
