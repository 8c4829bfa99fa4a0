"""Where a learner looks: attention to support examples, and what it reads of its memory."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from kshot.plots.style import INK, RIGHT, WRONG, draw_picture

__all__ = ["plot_attention", "plot_memory"]


def plot_attention(
    weights: np.ndarray,
    support_columns: Sequence[int],
    query_columns: Sequence[int],
    *,
    support: Tensor | None = None,
    query: Tensor | None = None,
    title: str = "",
) -> Figure:
    """How much of its attention each query, a row, gives to each support example, a column.

    On the right stands how much goes to examples of the query's own class.

    Args:
        weights: (m, n) attention, each row of sum 1 at most; what is missing, a query gave to
            itself.
        support_columns: the class of each support example; examples are drawn class by class.
        query_columns: the class of each query.
        support: (n, channels, height, width) pictures, or None for the class's number.
        query: (m, channels, height, width) pictures, or None.
        title: heading.
    """
    m, n = weights.shape
    order = np.argsort(support_columns, kind="stable")
    of_support, of_query = np.asarray(support_columns)[order], np.asarray(query_columns)
    weights = weights[:, order]
    side = min(0.5, 9 / n)
    figure = Figure(figsize=(side * n + 2.0, side * m + 1.8), layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK)
    axis = figure.subplots()
    image = axis.imshow(weights, cmap="gray_r", vmin=0, vmax=1, aspect="equal")
    for edge in np.flatnonzero(np.diff(of_support)) + 0.5:
        axis.axvline(edge, color=RIGHT, linewidth=0.6)
    for row in range(m):
        own = float(weights[row, of_support == of_query[row]].sum())
        most = np.bincount(of_support, weights[row]).argmax()
        color = RIGHT if most == of_query[row] else WRONG
        text = f"{100 * own:.0f} %"
        axis.text(n - 0.3, row, text, va="center", fontsize=8, color=color, clip_on=False)
    axis.set_xticks(range(n), [str(k + 1) for k in of_support], fontsize=7)
    axis.set_yticks(range(m), [str(k + 1) for k in of_query], fontsize=7)
    if support is not None:
        _thumbnails(axis, support[order.tolist()], along="x")
    if query is not None:
        _thumbnails(axis, query, along="y")
    axis.tick_params(length=0)
    axis.set_xlabel("support examples, by class")
    axis.set_ylabel("queries")
    axis.set_title("on its own class", loc="right", fontsize=8, color=INK)
    bar = figure.colorbar(image, ax=axis, location="bottom", shrink=0.5, aspect=40)
    bar.set_label("attention", fontsize=8)
    return figure


def plot_memory(
    weights: np.ndarray,
    columns: Sequence[int],
    *,
    num_queries: int = 0,
    most_slots: int = 64,
    title: str = "",
) -> Figure:
    """What a memory learner reads at each step of a sequence, slot by slot.

    The slots that are read most stand in the order of the step that reads them most. A learner that
    finds a class again reads where it read that class before. Shades go up to the largest weight,
    which the scale tells: where it is small, reading is spread over the memory.

    Args:
        weights: (steps, slots) read weights, each row of sum 1.
        columns: the class of each step's example.
        num_queries: how many of the last steps are queries, each the step after all the others.
        most_slots: how many slots are drawn at most.
        title: heading.
    """
    used = np.argsort(-weights.max(0), kind="stable")[:most_slots]
    used = used[np.argsort(weights[:, used].argmax(0), kind="stable")]
    steps = len(weights)
    size = (max(4.5, 0.16 * steps + 1.6), max(2.6, 0.07 * len(used) + 1.4))
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK)
    axis = figure.subplots()
    image = axis.imshow(weights[:, used].T, cmap="gray_r", vmin=0, aspect="auto")
    axis.set_xticks(range(steps), [str(column + 1) for column in columns], fontsize=7)
    axis.set_yticks([])
    axis.tick_params(length=0)
    axis.set_xlabel("class of the example read at each step")
    axis.set_ylabel(f"{len(used)} of {weights.shape[1]} slots")
    if num_queries:
        axis.axvline(steps - num_queries - 0.5, color=WRONG, linewidth=1.2, linestyle="--")
        axis.set_title("queries", loc="right", fontsize=8, color=WRONG)
    figure.colorbar(image, ax=axis, shrink=0.8).set_label("weight of reading", fontsize=8)
    return figure


def _thumbnails(axis, pictures: Tensor, along: str) -> None:
    """Pictures above the columns, or beside the rows, of a heat map."""
    count = len(pictures)
    for place, picture in enumerate(pictures):
        middle = (place + 0.05) / count
        length = 0.9 / count
        if along == "x":
            where = (middle, 1.01, length, _across(axis, count, "x"))
        else:
            across = _across(axis, count, "y")
            where = (-across - 0.01, 1 - middle - length, across, length)
        draw_picture(axis.inset_axes(where), picture)
    # Class numbers would lie beneath the pictures.
    if along == "y":
        axis.set_yticks([])
        width = axis.figure.get_size_inches()[0] * 72
        axis.yaxis.labelpad = 1.05 * width / (axis.images[0].get_array().shape[1] + 4)


def _across(axis, count: int, along: str) -> float:
    """The other side of a thumbnail, as a fraction of the axis, so that it is square."""
    height, width = axis.images[0].get_array().shape
    return 0.9 / height if along == "x" else 0.9 / width
