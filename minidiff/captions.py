"""What may stand for a glyph in training: its definition, the senses of it, and its radical's name.

A definition rarely says which part a glyph has: of those with the word "heart" about half have the
heart radical. What a caption leaves out cannot be asked for, however long one trains; captions that
say more are followed better (Betker et al. 2023, "Improving image generation with better
captions"). So a share of the prompts names the radical, by the name that Unicode gives it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from types import MappingProxyType

from minidiff.schedules import whole_number

# Of every 20 prompts that are not the whole definition, how many are of each kind.
# benchmarks/captions.py compares these shares with others.
SHARES: Mapping[str, int] = MappingProxyType({
    "sense": 9,  # "dread"
    "sense, named": 6,  # "dread, heart radical"
    "whole, named": 1,  # "dread; fear; be afraid of, heart radical"
    "name": 2,  # "heart radical"
    "short name": 2,  # "heart"
})  # fmt: skip
# The same for glyphs of radicals that few have. A name is learnt by being heard: with the shares
# above those of 100 training glyphs and more were followed in 98 of 100 drawings, those of 50 to
# 100 in 60, those of fewer than 35 in none.
RARE, RARE_SHARES = 150, MappingProxyType({
    "sense": 0, "sense, named": 11, "whole, named": 2, "name": 5, "short name": 2,
})  # fmt: skip
# Names that say nothing when they stand alone, or something else than glyphs of the radical do (who
# types "river" wants the water radical): these always have "radical".
NEVER_ALONE = frozenset({
    "line", "dot", "slash", "second", "hook", "lid", "legs", "down box", "cover", "open box",
    "wrap", "right open box", "hiding enclosure", "private", "again", "enclosure", "go slowly",
    "lame", "short thread", "dotted cliff", "long stride", "snout", "rap", "not", "do not",
    "double x", "half tree trunk", "slice", "dotted tent", "track", "and", "self", "stopping",
    "walk enclosure", "bolt of cloth", "enter", "step", "even", "say", "river", "go", "long", "old",
})  # fmt: skip


def split_senses(definition: str) -> tuple[str, ...]:
    """The senses a definition lists, in order and without repeats.

    ";" and "," part them, but not inside parentheses nor between digits (10,000).
    """
    pieces = re.findall(r"(?:\([^()]*\)|,(?=\d)|[^;,])+", definition)
    senses = (piece.strip() for piece in pieces)
    return tuple(dict.fromkeys(s for s in senses if s.strip(".") not in ("", "etc")))


def prompts_of(text: str) -> tuple[str, ...]:
    """The text and, where it lists several, its senses."""
    senses = split_senses(text)
    return (text, *senses) if len(senses) > 1 else (text,)


def radical_name(number: int) -> str:
    """Unicode's name of a Kangxi radical in small letters: "heart" of 61.

    Args:
        number: 1 to 214.

    Raises:
        ValueError: for another number.
    """
    if not 1 <= whole_number("number", number) <= 214:
        raise ValueError(f"there are radicals 1 to 214, got {number}")
    return unicodedata.name(chr(0x2F00 + number - 1)).removeprefix("KANGXI RADICAL ").lower()


def named(text: str, radical: int) -> str:
    """A prompt that says which radical is wanted: "dragon, heart radical"; of "" the name alone.

    Args:
        radical: its Kangxi number, 1 to 214.
    """
    name = f"{radical_name(radical)} radical"
    return f"{text}, {name}" if text else name


def named_prompts(
    definition: str, radical: int, shares: Mapping[str, int] = SHARES
) -> tuple[str, ...]:
    """The definition, then the prompts that may take its place, each as often as its share says.

    Senses come in turns; those of a long list beyond a share's number do not come at all.

    Args:
        radical: the Kangxi number, 1 to 214.
        shares: how many of each kind, see `SHARES`; as many in all for every glyph.
    """
    senses, name = split_senses(definition) or (definition,), radical_name(radical)
    kinds: dict[str, Sequence[str]] = {
        "sense": senses,
        "sense, named": [named(sense, radical) for sense in senses],
        "whole, named": [named(definition, radical)],
        "name": [named("", radical)],
        "short name": [named("", radical) if name in NEVER_ALONE else name],
    }
    turns = (islice(cycle(kinds[kind]), count) for kind, count in shares.items())
    return (definition, *(text for several in turns for text in several))
