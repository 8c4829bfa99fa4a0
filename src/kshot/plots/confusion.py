"""What is mistaken for what: the whole table of a few classes, and the hardest pairs of many."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from kshot.plots.style import INK, WRONG, draw_picture, short_name

__all__ = ["PicturedPair", "plot_confusion", "plot_hardest_pairs"]


class PicturedPair(NamedTuple):
    """Two classes that are mistaken for each other.

    Attributes:
        names: of the two.
        pictures: of each, (k, channels, height, width).
        mistaken: queries of one that were taken for the other.
        queries: of both, in episodes that have both.
    """

    names: tuple[str, str]
    pictures: tuple[Tensor, Tensor]
    mistaken: int
    queries: int


def plot_confusion(shares: np.ndarray, class_names: Sequence[str], *, title: str = "") -> Figure:
    """Which share of each class's queries was taken for each class.

    Args:
        shares: (classes, classes): of the queries of a row's class, in episodes that have both
            classes, the share that was taken for the column's. NaN where the two never met.
        class_names: name of each class.
        title: heading.
    """
    count = len(class_names)
    side = 0.36 * count + 2.6
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK)
    axis = figure.subplots()
    image = axis.imshow(100 * shares, cmap="gray_r", vmin=0, vmax=100)
    for row, column in np.argwhere(shares >= 0.01):
        share = shares[row, column]
        color = "white" if share > 0.5 else (INK if row == column else WRONG)
        axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=color, size=7)
    names = [short_name(name, 16) for name in class_names]
    axis.set_xticks(range(count), names, rotation=90, fontsize=7)
    axis.set_yticks(range(count), names, fontsize=7)
    axis.set_xlabel("taken for")
    axis.set_ylabel("is")
    bar = figure.colorbar(image, ax=axis, shrink=0.6)
    bar.set_label("% of queries in episodes with both classes", fontsize=8)
    return figure


def plot_hardest_pairs(pairs: Sequence[PicturedPair], *, title: str = "") -> Figure:
    """Pairs of classes that are mistaken most often, with pictures of both.

    Between the two stands which share of the queries of both was taken for the other.

    Args:
        pairs: the pairs, the hardest first.
        title: heading.
    """
    most = max(len(one) for pair in pairs for one in pair.pictures)
    figure = Figure(figsize=(1.5 * most + 2.0, 1.0 * len(pairs) + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK)
    # One strip of pictures a class: an axis for each picture would take seconds to lay out.
    axes = figure.subplots(len(pairs), 3, squeeze=False, width_ratios=(most, 1.2, most))
    for row, pair in zip(axes, pairs, strict=True):
        for axis, pictures, name in zip(row[::2], pair.pictures, pair.names, strict=True):
            width = pictures.shape[-1]
            draw_picture(axis, torch.cat(list(pictures), -1))
            for edge in range(1, len(pictures)):
                axis.axvline(edge * width - 0.5, color="white", linewidth=5)
            axis.set_anchor("W")
            axis.set_title(short_name(name, 30), fontsize=8, loc="left", pad=2)
        row[1].set_axis_off()
        share = 100 * pair.mistaken / pair.queries
        row[1].text(
            0.5,
            0.5,
            f"{share:.0f} %\n{pair.mistaken} of {pair.queries}",
            transform=row[1].transAxes,
            fontsize=8,
            color=WRONG,
            ha="center",
            va="center",
        )
    return figure
