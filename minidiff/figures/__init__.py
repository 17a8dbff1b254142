"""The book's figures: what a chapter would otherwise need a page of plotting code for.

What many chapters draw is in `minidiff.figures.panels`, what only one of them draws in a module a
subject. Functions take plain tensors, return a matplotlib figure and draw nothing but what they are
given; a few beside them compute what only a figure needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BLUE = "#2b6cb0"  #: data, and what is true
ORANGE = "#d9730d"  #: what is drawn, learnt or estimated
GREEN = "#2f855a"  #: a third thing
DARK, GREY, LIGHT = "#222222", "#767676", "#d0d0d0"  #: text, axes and what stands back

STYLE: dict[Any, Any] = {
    "figure.dpi": 100,
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": DARK,
    "ytick.color": DARK,
}


def new(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = (7.0, 3.2), **settings: Any
) -> tuple[Any, Any]:
    """A figure in the book's style and its axes: one, or an array (rows, columns).

    Args:
        size: width and height in inches; the text of a page is 7 inches wide.
        settings: of `matplotlib.pyplot.subplots`, for instance sharex or width_ratios.
    """
    import matplotlib.pyplot as plt

    from minidiff.plots import use_glyph_font

    use_glyph_font()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", **settings)
    # Closed, it is no longer pyplot's, so a notebook shows it once, where it is returned.
    plt.close(figure)
    return figure, axes


def bare(axis: Any, title: str = "") -> Any:
    """An axis without frame and ticks, for pictures."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    if title:
        axis.set_title(title)
    return axis


def legend_below(figure: Any, axis: Any, **settings: Any) -> None:
    """One legend for all panels, below them: that of `axis`, in a row."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        **{"loc": "outside lower center", "ncols": len(labels), "frameon": False, **settings},
    )


def arrow(axis: Any, start: Sequence[float], end: Sequence[float], **style: Any) -> None:
    """An arrow that begins and ends exactly there; `style` as in matplotlib's arrowprops."""
    line = {"arrowstyle": "-|>", "color": DARK, "lw": 1.4, "shrinkA": 0, "shrinkB": 0, **style}
    axis.annotate("", xy=end, xytext=start, arrowprops=line)
