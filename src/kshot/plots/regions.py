"""Decision regions of tasks in the plane."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from kshot.plots.style import INK, LINES

__all__ = ["Regions", "plot_regions"]


class Regions(NamedTuple):
    """What a learner makes of a support set in the plane.

    Attributes:
        probabilities: (rows, columns, way) class probabilities on a grid, the first row at the
            bottom.
        support: (n, 2) places of the support examples.
        support_columns: the class of each.
    """

    probabilities: np.ndarray
    support: np.ndarray
    support_columns: Sequence[int]


def plot_regions(
    panels: Mapping[str, Regions],
    extent: tuple[float, float, float, float],
    *,
    title: str = "",
) -> Figure:
    """Which class a learner would give each place of the plane: step by step, or task by task.

    The surer it is, the deeper the shade; a line parts the regions, and every class has a marker.

    Args:
        panels: what is drawn in each panel, by its name.
        extent: left, right, bottom and top of the grid.
        title: heading.
    """
    figure = Figure(figsize=(2.9 * len(panels) + 0.3, 3.4), layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK)
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axis, (name, (grid, support, support_columns)) in zip(axes, panels.items(), strict=True):
        columns = np.asarray(support_columns)
        rows, width, way = grid.shape
        colors = np.array([to_rgb(LINES[k % len(LINES)][0]) for k in range(way)])
        sure = ((grid.max(-1) - 1 / way) / (1 - 1 / way)).clip(0, 1)[..., None]
        shade = 1 - 0.55 * sure * (1 - colors[grid.argmax(-1)])
        axis.imshow(shade, origin="lower", extent=extent, aspect="auto", interpolation="bilinear")
        x, y = np.linspace(*extent[:2], width), np.linspace(*extent[2:], rows)
        for column in range(way):
            lead = grid[..., column] - np.delete(grid, column, -1).max(-1)
            if lead.min() < 0 < lead.max():
                axis.contour(x, y, lead, levels=[0], colors=INK, linewidths=0.8)
            color, _, marker = LINES[column % len(LINES)]
            axis.plot(
                *support[columns == column].T,
                marker,
                color=color,
                markeredgecolor="white" if marker != "x" else color,
                markersize=8,
                linestyle="none",
                label=f"class {column + 1}",
            )
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("$x_1$")
    axes[0].set_ylabel("$x_2$")
    axes[0].legend(fontsize=7, loc="lower right", framealpha=0.8)
    return figure
