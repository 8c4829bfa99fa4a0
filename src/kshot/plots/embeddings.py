"""An embedding map: where the examples of an episode lie in what an encoder makes of them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from kshot.plots.style import INK, RIGHT, SOFT, WRONG, short_name

__all__ = ["plot_embeddings"]


def plot_embeddings(
    support: np.ndarray,
    support_columns: Sequence[int],
    query: np.ndarray,
    query_columns: Sequence[int],
    predicted: Sequence[int],
    class_names: Sequence[str],
    *,
    title: str = "",
) -> Figure:
    """Support, queries and class means in the two directions in which the examples vary most.

    Every example is drawn as the number of its class: support examples in a box, queries bare, a
    query that was taken for another class ringed, and the mean of a class's support examples, its
    prototype, white on black.

    Args:
        support: (n, dim) embeddings.
        support_columns: the class of each.
        query: (m, dim) embeddings.
        query_columns: the class of each.
        predicted: the class each query was taken for.
        class_names: name of each class.
        title: heading.
    """
    both = np.concatenate([support, query]).astype(np.float64)
    center = both.mean(0)
    _, singular, directions = np.linalg.svd(both - center, full_matrices=False)
    variance = singular**2 / max(float((singular**2).sum()), np.finfo(np.float64).tiny)
    plane = directions[:2].T
    if plane.shape[1] < 2:  # embeddings of one number
        plane, variance = np.pad(plane, ((0, 0), (0, 1))), np.append(variance, 0.0)
    figure = Figure(figsize=(6.8, 5.2), layout="constrained")
    axis = figure.subplots()
    figure.suptitle(title, fontsize=11, color=INK)
    for place, column, taken in zip(
        (query - center) @ plane, query_columns, predicted, strict=True
    ):
        wrong = column != taken
        color = WRONG if wrong else RIGHT
        if wrong:
            axis.plot(*place, "o", markersize=14, fillstyle="none", color=WRONG)
        _number(axis, place, column, color=color)
    columns = np.asarray(support_columns)
    for place, column in zip((support - center) @ plane, support_columns, strict=True):
        box = {"boxstyle": "square,pad=0.25", "facecolor": "white", "edgecolor": INK}
        _number(axis, place, column, color=INK, bbox=box)
    names = []
    for column in range(len(class_names)):
        members = support[columns == column]
        names.append(f"{column + 1}  {short_name(class_names[column])}")
        if len(members) > 1:
            box = {"boxstyle": "circle,pad=0.3", "facecolor": INK, "edgecolor": "white"}
            _number(axis, (members.mean(0) - center) @ plane, column, color="white", bbox=box)
    # Text does not stretch the limits; empty points do.
    axis.scatter(*((both - center) @ plane).T, s=0)
    axis.margins(0.08)
    axis.set_xlabel(f"first direction, {100 * variance[0]:.0f} % of the variance")
    axis.set_ylabel(f"second direction, {100 * variance[1]:.0f} % of the variance")
    axis.tick_params(colors=SOFT, labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    shown = "\n".join(names if len(names) <= 20 else [*names[:19], f"... {len(names)} classes"])
    legend = f"{shown}\n\nboxed: support\nbare: query\nringed: wrong\nblack: class mean"
    figure.text(1.01, 0.5, legend, fontsize=8, va="center", color=INK, transform=axis.transAxes)
    figure.get_layout_engine().set(rect=(0, 0, 0.78, 1))  # pyright: ignore
    return figure


def _number(axis, place: np.ndarray, column: int, **style) -> None:
    axis.text(*place, str(column + 1), ha="center", va="center", fontsize=8, **style)
