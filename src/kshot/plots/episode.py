"""An episode: its support pictures, its queries and what was predicted for them."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from kshot.plots.style import INK, RIGHT, WRONG, draw_picture, short_name

__all__ = ["plot_episode"]


def plot_episode(
    support: Tensor,
    query: Tensor,
    probabilities: Tensor | None,
    query_columns: Sequence[int],
    class_names: Sequence[str],
    *,
    title: str = "",
) -> Figure:
    """One episode: every class a row, its support pictures left, queries right with predictions.

    Under each query stands the confidence of its prediction; a wrong one is framed and names the
    row it was taken for.

    Args:
        support: (way, shot, channels, height, width) pictures in [0, 1].
        query: (m, channels, height, width) pictures.
        probabilities: (m, way) predicted class probabilities; None shows the pictures alone.
        query_columns: the true class of each query.
        class_names: name of each class.
        title: heading.
    """
    way, shot = support.shape[:2]
    queries = [[i for i, column in enumerate(query_columns) if column == k] for k in range(way)]
    most = max(map(len, queries))
    figure = Figure(figsize=(0.9 * (shot + most) + 2.6, 1.15 * way + 0.9), layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK)
    widths = (0.9 * shot + 2.4, 0.9 * most)
    left, right = figure.subfigures(1, 2, width_ratios=widths, squeeze=False)[0]
    support_axes = left.subplots(way, shot, squeeze=False)
    query_axes = right.subplots(way, most, squeeze=False)
    left.supxlabel("support", fontsize=9)
    told = "" if probabilities is None else ", with the probability of the predicted class"
    right.supxlabel(f"queries{told}", fontsize=9)
    for row in range(way):
        label = f"{row + 1}  {short_name(class_names[row])}"
        for place, axis in enumerate(support_axes[row]):
            draw_picture(axis, support[row, place])
            if place == 0:
                axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8, labelpad=6)
        for place, axis in enumerate(query_axes[row]):
            if place >= len(queries[row]):
                axis.set_axis_off()
                continue
            draw_picture(axis, query[queries[row][place]])
            if probabilities is None:
                continue
            chosen = probabilities[queries[row][place]]
            predicted = int(chosen.argmax())
            correct = predicted == row
            text = f"{100 * float(chosen.max()):.0f} %"
            axis.set_xlabel(
                text if correct else f"class {predicted + 1}: {text}",
                fontsize=7,
                color=RIGHT if correct else WRONG,
                labelpad=2,
            )
            for spine in axis.spines.values():
                spine.set(visible=not correct, color=WRONG, linewidth=2)
    return figure
