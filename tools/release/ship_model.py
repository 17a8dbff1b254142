"""Put a trained model into the package, with its figures and its model card.

    minidiff evaluate --full --json --model runs/glyph64 > figures.json
    python tools/release/ship_model.py --model runs/glyph64 --figures figures.json \\
        --training training.md --failures failures.md

The figures go into the model's record (`minidiff.pretrained()` prints the most telling ones) and
into README.md beside the weights: the card.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from minidiff.model import load_model, save_model
from minidiff.report import as_text
from minidiff.shelf import MODELS, find_model

ROOT = Path(__file__).resolve().parents[2]
FLOOR, BLURRED = "floor (held-out real glyphs)", "the same, blurred by 1 pixel"


def excess(figures: dict[str, Any], name: str) -> float:
    """Fréchet distance beyond that of real glyphs, in units of what one pixel of blur costs."""
    distance = {key: row["frechet"] for key, row in figures["distances"].items()}
    return (distance[name] - distance[FLOOR]) / (distance[BLURRED] - distance[FLOOR])


def quality(figures: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """The few figures that `minidiff.pretrained()` prints."""
    faithful = figures["faithfulness"]["default guidance"]["share"]
    return {
        "20 words shown": f"{figures['prompts']['mean']:.0%}",
        "radical of held-out definitions": f"{faithful:.0%}",
        "excess distance / 1-pixel blur": round(excess(figures, "guidance 1"), 2),
        "held-out loss": figures["held_out_loss"]["mean"],
        "images seen": record["images_seen_in_all"],
    }


CARD = """# {name}

Draws Chinese glyphs from English words: {size} × {size} pixels, {parameters:.2f} M parameters,
{megabytes:.1f} MB.

    import minidiff
    images = minidiff.load("{name}")("gold", num_images_per_prompt=16)

## Data
{training_images:,} characters with English definitions (Unihan 15.0), drawn in Noto Sans SC; 1,034
more are held out, families of variants and equal definitions as a whole. Text is read by
all-MiniLM-L6-v2.

## Training
{training}

## Figures
`minidiff evaluate --full --model {name}`, seed {seed}:

```text
{figures}
```

The recogniser that looks at them reads the radical of {recogniser:.1%} of held-out real glyphs.

## Known failures
{failures}

## Licence
The weights: MIT, like the code. They were trained on pictures of a font under the SIL Open Font
License 1.1 and on definitions under the Unicode licence; see NOTICE in the package's data folder.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="run or model folder")
    parser.add_argument(
        "--figures", type=Path, required=True, help="of minidiff evaluate --full --json"
    )
    parser.add_argument("--name", default="glyph64")
    parser.add_argument("--training", type=Path, required=True, help="text: how it was trained")
    parser.add_argument("--failures", type=Path, required=True, help="text: what it does badly")
    arguments = parser.parse_args()
    network, config, record = load_model(find_model(arguments.model))
    figures = json.loads(arguments.figures.read_text(encoding="utf-8"))
    record = {**record, "quality": quality(figures, record), "evaluation": figures}
    folder = MODELS / arguments.name
    (folder / "README.md").unlink(missing_ok=True)  # of the model that is replaced
    save_model(folder, network, config, record)
    card = CARD.format(
        name=arguments.name,
        size=config.image_size,
        parameters=sum(p.numel() for p in network.parameters()) / 1e6,
        megabytes=(folder / "model.safetensors").stat().st_size / 1e6,
        training_images=record["training_images"],
        training=arguments.training.read_text(encoding="utf-8").strip(),
        failures=arguments.failures.read_text(encoding="utf-8").strip(),
        seed=figures["seed"],
        figures=as_text(figures),
        recogniser=figures["recogniser"]["sans"]["radical"],
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(card)


if __name__ == "__main__":
    main()
