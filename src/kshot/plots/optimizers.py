"""Learned optimizers: how losses fall, and what gates do."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from kshot.plots.style import LINES, SOFT

__all__ = ["plot_descents", "plot_gates"]


def plot_descents(curves: Mapping[str, Mapping[str, np.ndarray]], *, until: int) -> Figure:
    """Losses along the steps of optimizers, a panel a kind of problem: median and range of seeds.

    Args:
        curves: for each kind of problem, for each optimizer (seeds, steps).
        until: the step that optimizers were trained or tuned for.
    """
    columns = min(len(curves), 3)
    rows = math.ceil(len(curves) / columns)
    figure = Figure(figsize=(4.4 * columns, 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(curves) :]:
        axis.remove()
    for axis, (problem, one) in zip(axes.flat, curves.items(), strict=False):
        highest = 2 * max(losses[:, 0].max() for losses in one.values())
        for number, (name, every) in enumerate(one.items()):
            # What diverges leaves the picture instead of flattening all others.
            losses = np.where(every <= highest, every, np.nan)
            color, style, _ = LINES[number % len(LINES)]
            steps = np.arange(1, losses.shape[1] + 1)
            axis.fill_between(
                steps, losses.min(0), losses.max(0), color=color, alpha=0.12, linewidth=0
            )
            axis.plot(steps, np.median(losses, 0), color=color, linestyle=style, label=name)
        axis.axvline(until, color=SOFT, linewidth=0.8)
        axis.set_yscale("log")
        axis.set_title(problem, fontsize=10)
        axis.set_xlabel("step; band: all seeds")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.25)
    axes[0, 0].set_ylabel("median loss over problems")
    axes[0, 0].legend(fontsize=8, frameon=False)
    return figure


def plot_gates(gates: Mapping[str, np.ndarray]) -> Figure:
    """How gates of a learned update rule go over its steps: median and middle 80 % of coordinates.

    Args:
        gates: for each layer (coordinates, steps, 2): forget and input gate.
    """
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True)
    for number, (name, values) in enumerate(gates.items()):
        color, style, marker = LINES[number % len(LINES)]
        steps = np.arange(1, values.shape[1] + 1)
        for axis, each in zip(axes, np.moveaxis(values, 2, 0), strict=True):
            lowest, median, highest = np.quantile(each, (0.1, 0.5, 0.9), axis=0)
            axis.fill_between(steps, lowest, highest, color=color, alpha=0.12, linewidth=0)
            axis.plot(
                steps,
                median,
                color=color,
                linestyle=style,
                marker=marker,
                markersize=4,
                label=name,
            )
    for axis, label in zip(axes, ("forget gate: what stays", "input gate: the rate"), strict=True):
        axis.set_title(label, fontsize=10)
        axis.set_xlabel("inner step; band: 80 % of coordinates")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.25)
    axes[0].legend(fontsize=7, frameon=False, loc="best")
    return figure
