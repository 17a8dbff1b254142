"""Draw the pictures of the page on what diffusion does elsewhere.

    python tools/book/elsewhere_figures.py [NAME …]

Writes photograph.png, sound.png, video.png, crystal.png, tokens.png, pairs.png, adversaries.png and
history.png into book/_static/elsewhere/, or only those named. Two of them train something: the GAN
and its diffusion twin a minute, the pairs of texts and glyphs a minute.
"""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from minidiff import plots
from minidiff.denoisers import NetworkDenoiser
from minidiff.figures import BLUE, DARK, GREEN, GREY, LIGHT, ORANGE, bare, new
from minidiff.figures.words import pooled
from minidiff.glyphs import Glyph, GlyphDataset, load_glyphs, render, to_float
from minidiff.recogniser import load_recogniser
from minidiff.samplers import sample, seeded_generator
from minidiff.schedules import straight
from minidiff.text import TextEncoder
from minidiff.toys import ToyNetwork, ring

FOLDER = Path(__file__).parents[2] / "book" / "_static" / "elsewhere"
CLOCK = straight()


def noised(x: Tensor, t: int, seed: int = 0) -> Tensor:
    """x_t of the straight line."""
    eps = torch.randn(x.shape, generator=seeded_generator(seed))
    return CLOCK.add_noise(x, eps, t)


# ----------------------------------------------------------------- pictures, sound, video


def photograph() -> Any:
    """A photograph, and the same noise on it and on its small version."""
    from matplotlib.cbook import get_sample_data

    file: Any = get_sample_data("grace_hopper.jpg", asfileobj=False)
    with Image.open(file) as portrait:
        pixels = np.asarray(portrait.convert("L").crop((16, 16, 496, 496)))
    large = torch.from_numpy(pixels.copy())[None, None].float() / 127.5 - 1
    small = F.avg_pool2d(large, 10)
    figure, axes = new(1, 3, size=(6.6, 2.5))
    titles = ("480 × 480 pixels", "its noise at $t$ = 750", "48 × 48, the same noise")
    shown = (large, noised(large, 750), noised(small, 750))
    for axis, title, picture in zip(axes, titles, shown, strict=True):
        reach = float(picture.abs().quantile(0.99)) if picture is not large else 1.0
        style = {"cmap": "gray", "vmin": -reach, "vmax": reach, "interpolation": "antialiased"}
        bare(axis, title).imshow(picture[0, 0], **style)
    return figure


def sound() -> Any:
    """Three tones: as a wave and as a spectrogram, without and with noise."""
    seconds = torch.arange(8000) / 8000
    wave = torch.zeros(8000)
    for start, pitch in ((0.0, 440.0), (0.3, 550.0), (0.6, 660.0)):
        on = (seconds >= start).float() * torch.exp(-3 * (seconds - start).clamp(min=0))
        for overtone in (1, 2, 3):
            wave += on * torch.sin(2 * torch.pi * overtone * pitch * seconds) / overtone
    wave /= wave.std()
    figure, axes = new(2, 2, size=(6.6, 3.4), sharex=True, height_ratios=[1, 1.3])
    for column, (title, heard) in zip(
        axes.T, {"three tones": wave, "$t$ = 600": noised(wave, 600)}.items(), strict=True
    ):
        column[0].plot(seconds, heard, color=ORANGE, linewidth=0.25)
        column[0].set(title=title, yticks=[])
        window = torch.hann_window(512)
        spectrum = torch.stft(heard, 512, 64, window=window, return_complex=True).abs()
        loud = (spectrum[:160] + 0.1).log()
        extent = (0.0, 1.0, 0.0, 160 * 8000 / 512)
        column[1].imshow(loud, cmap="Blues", origin="lower", aspect="auto", extent=extent)
        column[1].set(xlabel="seconds")
    axes[0, 0].set_ylabel("pressure")
    axes[1, 0].set_ylabel("pitch, Hz")
    return figure


def video() -> Any:
    """A glyph that moves: five frames with noise, and one row of pixels over all frames."""
    glyph = to_float(render("魚", 32))[0]
    film = torch.ones(32, 40, 96)
    for i in range(32):
        film[i, 4:36, 2 * i : 2 * i + 32] = glyph
    noisy = noised(film, 450)
    figure, axes = new(1, 5, size=(6.6, 1.9), width_ratios=[1.2, 1.2, 1.2, 1, 1])
    for axis, i in zip(axes, (0, 15, 30), strict=False):
        plots.draw(bare(axis, f"frame {i + 1}"), noisy[i])
    for axis, title, block in zip(axes[3:], ("one row", "with noise"), (film, noisy), strict=True):
        axis.imshow(block[:, 20], cmap="gray", vmin=-1.5, vmax=1.5, aspect="auto")
        bare(axis, title).set(xlabel="place", ylabel="frame")
    return figure


# ----------------------------------------------------------------- things that are no pictures


def crystal() -> Any:
    """Two kinds of atoms in a cell that repeats, and what noise makes of their places."""
    cells = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0))
    corners, centres = cells / 4 + 0.06, cells / 4 + 0.185
    figure, axes = new(1, 4, size=(6.6, 1.9))
    for axis, width in zip(axes, (0.0, 0.02, 0.06, 0.4), strict=True):
        for i, (kind, colour, size) in enumerate(((corners, BLUE, 34), (centres, ORANGE, 14))):
            eps = torch.randn(kind.shape, generator=seeded_generator(i))
            there = (kind + width * eps) % 1  # out on one side is in on the other
            axis.scatter(*there.T, s=size, color=colour, linewidths=0)
        bare(axis, f"$\\sigma_t$ = {width:g}" if width else "a crystal").set_aspect("equal")
        axis.set(xlim=(0, 1), ylim=(0, 1))
        axis.spines[:].set_visible(True)
    return figure


def tokens() -> Any:
    """A definition comes out of masks, word by word, by the exact chances of all definitions."""
    known = {g.definition.replace(",", "").replace(";", "") for g in load_glyphs()}
    texts = [text.split() for text in sorted(known) if len(text.split()) == 5]
    draw, words = random.Random(49), [""] * 5
    steps = [list(words)]
    for place in draw.sample(range(5), 5):
        fitting = [t for t in texts if all(w in ("", v) for w, v in zip(words, t, strict=True))]
        words[place] = draw.choice(fitting)[place]
        steps.append([*words, f"{len(fitting):,}"])
    figure, axis = new(size=(6.6, 2.2))
    for row, step in enumerate(steps):
        for column, word in enumerate(step[:5]):
            fresh = word and not steps[row - 1][column]
            axis.text(column, -row, word or "▇▇▇", ha="center", va="center",
                      color=ORANGE if fresh else DARK if word else LIGHT)  # fmt: skip
        said = step[5] if row else "definitions that fit"
        axis.text(6.2, -row, said, ha="right", va="center", color=GREY)
    bare(axis).set(xlim=(-0.6, 6.3), ylim=(-len(steps) + 0.4, 0.6))
    return figure


# ----------------------------------------------------------------- pairs of texts and glyphs

RADICALS = {"water": 85, "tree": 75, "hand": 64, "fish": 195, "bird": 196, "insect": 142}


def pairs() -> Any:
    """CLIP in small: texts and glyphs that belong together are brought together."""
    recogniser, _ = load_recogniser()
    learnt, unseen = GlyphDataset(64, "train"), GlyphDataset(64, "test")
    encoder, every = TextEncoder(), slice(None, None, 8)

    def meaning(glyphs: list[Glyph]) -> Tensor:
        texts = [glyph.definition for glyph in glyphs]
        return torch.cat([pooled(encoder.encode(part)) for part in batched(texts)])

    def look(images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([recogniser.features(part) for part in images.split(256)])

    text, picture = contrasted(meaning(learnt.glyphs[every]), look(learnt.images[every]))
    columns = [
        next(i for i, g in enumerate(unseen.glyphs) if g.radical == n and word in g.definition)
        for word, n in RADICALS.items()
    ]
    asked = pooled(encoder.encode(list(RADICALS)))
    with torch.no_grad():
        seen = F.normalize(picture(look(unseen.images[columns])), dim=1)
        likeness = F.normalize(text(asked), dim=1) @ seen.T
        all_seen = F.normalize(picture(look(unseen.images)), dim=1)
        all_told = F.normalize(text(meaning(unseen.glyphs)), dim=1)
    rank = (all_told @ all_seen.T).argsort(1, descending=True)
    first = (rank[:, :10] == torch.arange(len(rank))[:, None]).any(1).float().mean()
    said = f"of {len(rank)} unseen glyphs the right one is among the first 10"
    print(f"pairs: {said} for {first:.1%} of the definitions")
    return as_table(likeness, [unseen.glyphs[i].char for i in columns])


def batched(texts: list[str], size: int = 256) -> Iterator[list[str]]:
    """The texts, so many at a time."""
    return (texts[i : i + size] for i in range(0, len(texts), size))


def contrasted(texts: Tensor, looks: Tensor) -> tuple[nn.Module, nn.Module]:
    """Two maps into one space, in which each text is nearest its own picture (eq. 1 of CLIP)."""
    torch.manual_seed(0)
    text, picture = nn.Linear(texts.shape[1], 64), nn.Linear(looks.shape[1], 64)
    weights = [*text.parameters(), *picture.parameters()]
    optimiser = torch.optim.AdamW(weights, 3e-3, weight_decay=0.1)
    source = seeded_generator(0)
    for _ in range(1500):
        rows = torch.randperm(len(texts), generator=source)[:256]
        a, b = F.normalize(text(texts[rows]), dim=1), F.normalize(picture(looks[rows]), dim=1)
        table, right = a @ b.T / 0.1, torch.arange(len(rows))
        loss = F.cross_entropy(table, right) + F.cross_entropy(table.T, right)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return text, picture


def as_table(likeness: Tensor, chars: list[str]) -> Any:
    """Words in rows, glyphs in columns, their likeness as colour and number."""
    figure, axis = new(size=(5.0, 3.3))
    axis.imshow(likeness, cmap="Blues", vmin=-0.4, vmax=1.0, aspect="auto")
    for (row, column), value in np.ndenumerate(likeness.numpy()):
        colour = "white" if value > 0.55 else DARK
        text = f"{value:.2f}".replace("-", "−")
        axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    axis.set_xticks(range(len(chars)), chars, fontsize=16)
    axis.set_yticks(range(len(RADICALS)), list(RADICALS))
    axis.tick_params(length=0, top=False)
    axis.xaxis.tick_top()
    axis.spines[:].set_visible(False)
    return figure


# ----------------------------------------------------------------- how it came about


UPDATES = (1000, 2000, 5000)


def adversaries() -> Any:
    """A GAN at three moments and a diffusion model, of as many weights, on the same eight spots."""
    target = ring()
    data = target.sample(20_000, seeded_generator(0))
    panels = {"data": data[:1000]}
    panels |= {f"GAN, {n:,}": points for n, points in zip(UPDATES, gan(data), strict=True)}
    panels[f"diffusion, {UPDATES[-1]:,}"] = diffusion(data)
    colours = (BLUE, ORANGE, ORANGE, ORANGE, GREEN)
    figure, axes = new(1, 5, size=(7.0, 2.0), sharex=True, sharey=True)
    for axis, (name, points), colour in zip(axes, panels.items(), colours, strict=True):
        near = torch.cdist(points, target.means).amin(1) < 0.3  # three deviations
        axis.scatter(*points.T, s=1.5, color=colour, linewidths=0)
        bare(axis).set_aspect("equal")
        axis.set_title(f"{name}\n{near.float().mean():.0%} on a spot", fontsize=9)
        axis.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2))
    return figure


def gan(data: Tensor) -> list[Tensor]:
    """(1000, 2) for each of UPDATES: a generator against a critic (Goodfellow et al. 2014)."""
    torch.manual_seed(0)

    def network(ins: int, outs: int) -> nn.Sequential:
        wide = [nn.Linear(ins, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 96)]
        return nn.Sequential(*wide, nn.SiLU(), nn.Linear(96, outs))

    maker, critic = network(2, 2), network(2, 1)
    optimisers = [torch.optim.Adam(n.parameters(), 1e-3, (0.5, 0.9)) for n in (maker, critic)]
    source, drawn = seeded_generator(1), list[Tensor]()
    for step in range(1, UPDATES[-1] + 1):
        rows = torch.randint(len(data), (256,), generator=source)
        made = maker(torch.randn(256, 2, generator=source))
        losses = [
            F.softplus(-critic(made)).mean(),
            F.softplus(-critic(data[rows])).mean() + F.softplus(critic(made.detach())).mean(),
        ]
        for optimiser, loss in zip(optimisers, losses, strict=True):
            optimiser.zero_grad()
            loss.backward(retain_graph=True)
        for optimiser in optimisers:
            optimiser.step()
        if step in UPDATES:
            with torch.no_grad():
                drawn.append(maker(torch.randn(1000, 2, generator=seeded_generator(2))))
    return drawn


def diffusion(data: Tensor) -> Tensor:
    """(1000, 2) by a denoiser that saw as many points."""
    torch.manual_seed(0)
    network, source = ToyNetwork(), seeded_generator(1)
    denoiser = NetworkDenoiser(network, CLOCK, "flow")
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(UPDATES[-1]):
        rows = torch.randint(len(data), (256,), generator=source)
        t = torch.randint(1, 1001, (256,), generator=source)
        eps = torch.randn(256, 2, generator=source)
        optimiser.zero_grad()
        denoiser.loss(data[rows], t, eps).mean().backward()
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / UPDATES[-1])
        optimiser.step()
    return sample(denoiser, torch.randn(1000, 2, generator=source), "heun", 40)


EVENTS = [
    (2014.45, "GANs", GREY), (2015.2, "diffusion", BLUE), (2018.95, "StyleGAN", GREY),
    (2019.5, "score, noise conditional", BLUE), (2020.45, "DDPM", BLUE),
    (2020.9, "SDE and ODE", BLUE), (2021.15, "CLIP, DALL-E", GREEN),
    (2021.35, "“beat GANs”", BLUE), (2021.95, "latent diffusion", BLUE),
    (2022.35, "DALL-E 2, Imagen", GREEN), (2022.65, "Stable Diffusion", GREEN),
    (2022.8, "flow matching", BLUE), (2022.95, "diffusion transformer", BLUE),
    (2023.1, "ControlNet", GREEN), (2023.2, "consistency", BLUE),
    (2023.55, "RFdiffusion", ORANGE), (2024.15, "Sora", GREEN), (2024.35, "AlphaFold 3", ORANGE),
    (2025.05, "MatterGen", ORANGE),
]  # fmt: skip


def history() -> Any:
    """When what appeared: methods blue, text to picture and film green, science orange."""
    figure, axis = new(size=(6.6, 4.6))
    for row, (year, name, colour) in enumerate(EVENTS):
        axis.plot([2014, year], [-row, -row], color=LIGHT, linewidth=0.8, zorder=0)
        axis.plot(year, -row, "o", color=colour, markersize=6, zorder=4)
        left = year > 2022
        axis.text(year + (-0.15 if left else 0.15), -row, name, color=colour, va="center",
                  ha="right" if left else "left", fontsize=9, backgroundcolor="white")  # fmt: skip
    axis.set(xlim=(2014, 2025.6), yticks=[], xticks=range(2014, 2026))
    axis.spines["left"].set_visible(False)
    return figure


DRAWN = (photograph, sound, video, crystal, tokens, pairs, adversaries, history)


def main(names: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for draw in DRAWN:
        if names and draw.__name__ not in names:
            continue
        buffer = io.BytesIO()
        draw().savefig(buffer, format="png", dpi=130, metadata={"Software": None})
        buffer.seek(0)
        few = Image.open(buffer).convert("RGB").quantize(64, dither=Image.Dither.NONE)
        plots.save_picture(FOLDER / f"{draw.__name__}.png", few)


if __name__ == "__main__":
    main(sys.argv[1:])
