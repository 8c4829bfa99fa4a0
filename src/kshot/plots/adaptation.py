"""Adaptation step by step: curves through a few points, and errors by inner steps."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from kshot.plots.style import INK, LINES, RIGHT, SOFT, WRONG

__all__ = ["plot_adaptation", "plot_steps"]


def plot_adaptation(
    x: np.ndarray,
    truth: np.ndarray,
    support: tuple[np.ndarray, np.ndarray],
    curves: Mapping[str, Mapping[int, np.ndarray]],
) -> Figure:
    """Regression on one task, before and after some inner steps, one panel a learner.

    Args:
        x: (points,) where curves are drawn.
        truth: (points,) the task's own curve.
        support: (n,) places and (n,) values of the support points.
        curves: for each learner, for each number of inner steps, (points,) its prediction.
    """
    figure = Figure(figsize=(4.2 * len(curves), 3.4), layout="constrained")
    axes = figure.subplots(1, len(curves), sharex=True, sharey=True, squeeze=False)[0]
    styles = [(SOFT, ":"), (WRONG, "--"), (RIGHT, "-")]
    for axis, (name, steps) in zip(axes, curves.items(), strict=True):
        axis.plot(x, truth, color=INK, linewidth=1, label="the task")
        for (count, values), (color, style) in zip(steps.items(), styles, strict=False):
            label = "before" if count == 0 else f"after {count} step{'s' * (count > 1)}"
            axis.plot(x, values, color=color, linestyle=style, linewidth=1.8, label=label)
        axis.plot(*support, "^", color=INK, markersize=6, label="support")
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("x")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("y")
    axes[-1].legend(fontsize=8, frameon=False, loc="best")
    return figure


def plot_steps(scores: Mapping[str, Mapping[int, Sequence[float]]], *, metric: str) -> Figure:
    """What inner steps at test bring, one line a learner: the median over its training seeds.

    Args:
        scores: for each learner, for each number of steps, the score of each seed.
        metric: what the scores are, with its unit; drawn on a logarithmic scale that shows the
            medians whole: the band of a seed that diverges leaves the frame.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axis = figure.subplots()
    medians = []
    for number, (name, one) in enumerate(scores.items()):
        color, style, marker = LINES[number % len(LINES)]
        steps = sorted(one)
        lowest, median, highest = np.array([np.quantile(one[k], (0, 0.5, 1)) for k in steps]).T
        medians.extend(median)
        axis.fill_between(steps, lowest, highest, color=color, alpha=0.15, linewidth=0)
        axis.plot(
            steps, median, color=color, linestyle=style, marker=marker, markersize=4, label=name
        )
    axis.set_yscale("log")
    axis.set_ylim(min(medians) / 2, max(medians) * 2)
    axis.set_xscale("log")
    ticks = sorted({steps for one in scores.values() for steps in one})
    axis.set_xticks(ticks, map(str, ticks))
    axis.minorticks_off()
    axis.set_xlabel("inner steps at test; band: all training seeds")
    axis.set_ylabel(metric)
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
    return figure
