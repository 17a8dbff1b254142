"""Train the recogniser that `minidiff evaluate` looks through: a quarter of an hour on one core.

    pip download --no-deps --dest wheels pylopdf-fonts-zh-cn==0.1.1
    unzip -j wheels/pylopdf*.whl '*NotoSerifSC-Regular.otf' -d fonts
    sudo apt-get install fonts-lxgw-wenkai
    python tools/data/train_recogniser.py --serif fonts/NotoSerifSC-Regular.otf \\
        --kai /usr/share/fonts/truetype/lxgw-wenkai/LXGWWenKai-Regular.ttf

It sees the training characters only, in three fonts (the package's sans twice as often as the serif
and the handwritten one), moved by up to three pixels. No blur, no noise, nothing a model has drawn.
It learns each character's radical, direct components (those of at least 20 training characters) and
layout. How well it reads characters that it never saw is measured at the end, stands in
minidiff/data/recogniser/config.json and is shown by `minidiff evaluate`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from minidiff.glyphs import Glyph, GlyphDataset, render, to_float
from minidiff.recogniser import LAYOUTS, RADICALS, Recogniser, save_recogniser

LEAST = 20  # training characters that have a component that is learnt
SHIFT = 3  # pixels
BATCH = 128


def targets(glyphs: list[Glyph], components: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Which radical and components each has, (N, 214 + components) of 0 and 1; layouts (N,)."""
    place = {component: RADICALS + i for i, component in enumerate(components)}
    parts = torch.zeros(len(glyphs), RADICALS + len(components))
    for row, glyph in zip(parts, glyphs):
        row[glyph.radical - 1] = 1
        row[[place[c] for c in glyph.components if c in place]] = 1
    return parts, torch.tensor([LAYOUTS.index(glyph.layout) for glyph in glyphs])


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture moved by up to SHIFT pixels in both directions; what comes in is paper."""
    size = images.shape[-1]
    padded = F.pad(images, [SHIFT] * 4, value=1.0)
    rows, columns = torch.randint(2 * SHIFT + 1, (2, len(images), 1), generator=generator)
    rows, columns = rows + torch.arange(size), columns + torch.arange(size)
    each = torch.arange(len(images))[:, None, None]
    return padded[each, 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


@torch.inference_mode()
def accuracy(recogniser: Recogniser, images: Tensor, glyphs: list[Glyph]) -> dict[str, float]:
    """How well it reads: share of right radicals and layouts, and the F1 of components."""
    recogniser.eval()
    outputs = [recogniser(part) for part in to_float(images).split(256)]
    radicals, components, layouts = (torch.cat(column) for column in zip(*outputs))
    parts, layout = targets(glyphs, recogniser.components)
    wanted = parts[:, RADICALS:].bool()
    found = components > 0
    both = (found & wanted).sum().item()
    return {
        "radical": round(
            (radicals.argmax(1) == parts[:, :RADICALS].argmax(1)).float().mean().item(), 4
        ),
        "layout": round((layouts.argmax(1) == layout).float().mean().item(), 4),
        "components_precision": round(both / max(found.sum().item(), 1), 4),
        "components_recall": round(both / wanted.sum().item(), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--serif", type=Path, required=True, help="a font file: Noto Serif SC")
    parser.add_argument("--kai", type=Path, required=True, help="a font file: LXGW WenKai")
    parser.add_argument("--epochs", type=int, default=6, help="passes over all fonts")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    draw = torch.Generator().manual_seed(arguments.seed)
    train, test = GlyphDataset(64, "train"), GlyphDataset(64, "test")
    chars = [glyph.char for glyph in train.glyphs]
    others = [render(chars, 64, font).unsqueeze(1) for font in (arguments.serif, arguments.kai)]
    images = torch.cat([train.images, train.images, *others])
    counts = Counter(c for glyph in train.glyphs for c in set(glyph.components))
    components = tuple(sorted(c for c, n in counts.items() if n >= LEAST))
    parts, layouts = targets(train.glyphs, components)

    recogniser = Recogniser(components)
    steps = arguments.epochs * len(images) // BATCH
    optimizer = torch.optim.AdamW(recogniser.parameters(), lr=3e-3, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    order = torch.cat(
        [torch.randperm(len(images), generator=draw) for _ in range(arguments.epochs)]
    )
    bar = tqdm(order[: steps * BATCH].split(BATCH), "Training", mininterval=5)
    for index in bar:
        who = index % len(chars)
        radicals, found, layout = recogniser(shifted(to_float(images[index]), draw))
        answers = torch.cat([radicals, found], 1)
        loss = F.binary_cross_entropy_with_logits(answers, parts[who], reduction="sum") / BATCH
        # Each is a yes-or-no question; that one radical is the right one is learnt beside.
        loss = loss + F.cross_entropy(radicals, parts[who, :RADICALS].argmax(1))
        loss = loss + 0.5 * F.cross_entropy(layout, layouts[who])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)

    fonts = {"sans": "sans", "serif": arguments.serif, "handwritten": arguments.kai}
    unseen = [glyph.char for glyph in test.glyphs]
    record = {
        "seed": arguments.seed,
        "epochs": arguments.epochs,
        "images_seen": steps * BATCH,
        "training_characters": len(chars),
        "held_out_characters": len(unseen),
        "held_out": {
            name: accuracy(recogniser, render(unseen, 64, font).unsqueeze(1), test.glyphs)
            for name, font in fonts.items()
        },
        "torch": torch.__version__,
    }
    print(record)
    save_recogniser(recogniser, record)


if __name__ == "__main__":
    main()
