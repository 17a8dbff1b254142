"""Prompts as callers hand them over: made a list, and those that have no effect are told of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from functools import cache
from typing import Any

from minidiff.inputs import warn


def as_list(prompt: Any) -> list[str]:
    """One text, or several, as a list.

    Raises:
        TypeError: for what is no text.
        ValueError: for none.
    """
    # Of what has no order or several dimensions, iteration gives something else than the texts.
    no_list = (
        isinstance(prompt, str | bytes | bytearray | Mapping | Set)
        or getattr(prompt, "ndim", 1) != 1
    )
    prompts = [prompt] if no_list or not isinstance(prompt, Iterable) else list(prompt)
    if not prompts:
        raise ValueError('there is no prompt: give a text such as "gold" ("" for anything)')
    for text in prompts:
        if not isinstance(text, str):
            raise TypeError(f'a prompt must be a text such as "gold", or a list, got {text!r}')
    return prompts


def warned_without_effect(
    prompt: Any, prompts: list[str], negative_prompt: str, guidance_scale: float
) -> bool:
    """Say of a text that the scale leaves without effect; True if it is the negative one."""
    if guidance_scale == 0 and "".join(prompts).strip():
        warn(
            f"prompt {prompt!r} has no effect, because guidance_scale is 0: give 1 to turn "
            "guidance off, or a scale such as 3",
        )
    idle = guidance_scale == 1 and bool(negative_prompt.strip())
    if idle:
        warn(
            f"negative_prompt {negative_prompt!r} has no effect, because guidance is off "
            "(guidance_scale 1): give a scale such as 3",
        )
    return idle


@cache
def words_of_the_definitions() -> set[str]:
    """All words of the glyphs' definitions, in small letters."""
    from minidiff.glyphs import load_glyphs

    return {w for g in load_glyphs() for w in re.findall(r"\w+", g.definition.lower())}
