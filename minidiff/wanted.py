"""Words that a glyph can show: what stands in a picture of "gold", or of "river"."""

from __future__ import annotations

import torch
from torch import Tensor

from minidiff import metrics
from minidiff.recogniser import Recogniser

#: One-word prompts with the radical (Kangxi number) and the components that such a glyph has.
WANTED: dict[str, tuple[int, str]] = {
    "gold": (167, "金钅"),
    "water": (85, "氵水"),
    "tree": (75, "木"),
    "bird": (196, "鳥鸟"),
    "fish": (195, "魚鱼"),
    "insect": (142, "虫"),
    "fire": (86, "火灬"),
    "hand": (64, "扌手"),
    "heart": (61, "忄心"),
    "speak": (149, "言讠"),
    "grass": (140, "艹"),
    "bamboo": (118, "⺮"),
    "silk": (120, "糹纟糸"),
    "horse": (187, "馬马"),
    "woman": (38, "女"),
    "stone": (112, "石"),
    "mountain": (46, "山"),
    "disease": (104, "疒"),
    "dog": (94, "犭犬"),
    "rain": (173, "雨"),
}

# Nouns and verbs that people would type, from those that at least 12 training definitions contain.
# Radical and components are what a dictionary gives for the word, and more than a third of the
# glyphs whose definition contains it have one of them: of "child" only one in six has 子, so the
# word stands for nothing that could be looked for.
#: Everyday words that are not in `WANTED`, in the same form.
EVERYDAY: dict[str, tuple[int, str]] = {
    "eye": (109, "目"),
    "see": (147, "見见目"),
    "mouth": (30, "口"),
    "laugh": (30, "口"),
    "sing": (76, "欠口言讠"),
    "listen": (128, "耳"),
    "teeth": (211, "齒"),
    "hair": (190, "髟毛"),
    "bone": (188, "骨"),
    "meat": (130, "月"),
    "walk": (162, "辶足⻊彳走"),
    "jump": (157, "足⻊走"),
    "eat": (184, "食飠饣𩙿"),
    "knife": (18, "刂刀"),
    "cut": (18, "刂刀"),
    "boat": (137, "舟"),
    "cart": (159, "車车"),
    "door": (169, "門门户"),
    "house": (40, "宀广户"),
    "curtain": (50, "巾"),
    "clothes": (145, "衣衤"),
    "rice": (119, "米禾"),
    "wine": (164, "酉"),
    "sheep": (123, "羊"),
    "cow": (93, "牛"),
    "tiger": (141, "虍虎"),
    "pig": (152, "豕犭"),
    "deer": (198, "鹿"),
    "rat": (208, "鼠"),
    "duck": (196, "鳥鸟"),
    "monkey": (94, "犭犬"),
    "dragon": (212, "龍龙"),
    "jade": (96, "玉王"),
    "money": (154, "貝贝金钅"),
    "iron": (167, "金钅"),
    "rope": (120, "糹纟糸"),
    "leather": (177, "革韋"),
    "basket": (118, "⺮"),
    "earth": (32, "土"),
    "field": (102, "田"),
    "sun": (72, "日"),
    "wind": (182, "風"),
    "cold": (15, "冫"),
    "river": (85, "氵水"),
    "wash": (85, "氵水"),
    "hill": (46, "山阝土"),
    "rock": (112, "石山"),
    "flower": (140, "艹"),
    "wood": (75, "木"),
    "burn": (86, "火灬"),
    "love": (61, "忄心"),
    "think": (61, "忄心"),
    "fear": (61, "忄心"),
    "say": (149, "言讠"),
    "strike": (64, "扌手"),
    "push": (64, "扌手"),
    "mother": (38, "女"),
    "girl": (38, "女"),
    "ghost": (194, "鬼"),
    "die": (78, "歹"),
}


@torch.inference_mode()
def shows(recogniser: Recogniser, images: Tensor, word: str) -> Tensor:
    """(N,) bool: whether the recogniser sees the radical or a component that a word stands for.

    Each is a question of its own, so a picture may show several or none.

    Args:
        images: (N, 1, 64, 64).
        word: one of `WANTED` or `EVERYDAY`.

    Raises:
        ValueError: for another word.
    """
    words = WANTED | EVERYDAY
    if word not in words:
        raise ValueError(f"unknown word {word!r}: choose one of {', '.join(words)}")
    radical, parts = words[word]
    radical_logits, components, _ = recogniser.logits(metrics.features(recogniser, images))
    columns = [recogniser.components.index(part) for part in parts]
    answers = torch.cat([radical_logits[:, [radical - 1]], components[:, columns]], 1)
    return (answers > 0).any(1)
