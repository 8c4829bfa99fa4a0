"""Verification: true claims that are accepted against false ones."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from kshot.plots.style import LINES

__all__ = ["plot_roc"]


def plot_roc(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, title: str = "") -> Figure:
    """How many true claims are accepted as more false ones are, one line a learner.

    Args:
        curves: for each learner, false-accept rates and the true-accept rates at them.
        title: of the learners: what their claims are about.
    """
    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    axis = figure.subplots()
    for number, (name, (false, true)) in enumerate(curves.items()):
        color, style, _ = LINES[number % len(LINES)]
        axis.plot(false, true, color=color, linestyle=style, label=name)
    rates = np.geomspace(1e-4, 1, 200)
    axis.plot(rates, 1 - rates, color="0.6", linewidth=0.8)
    axis.annotate("equal errors", (0.02, 0.985), color="0.4", fontsize=8, va="bottom")
    axis.set_xscale("log")
    axis.set_xlim(1e-4, 1)
    axis.set_ylim(0, 1.02)
    axis.set_xlabel("share of false claims that are accepted")
    axis.set_ylabel("share of true claims that are accepted")
    figure.legend(title=title, fontsize=8, frameon=False, loc="outside right upper")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    return figure
