"""Learning curves: the loss of meta-training, and the score on validation episodes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kshot.plots.style import INK, RIGHT, frame

__all__ = ["plot_learning_curve"]


def plot_learning_curve(history: Sequence[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Meta-training loss and validation score against the outer iteration.

    The band is the 95 % interval over validation episodes.

    Args:
        history: lines of metrics.jsonl.
        title: heading.
    """
    metric = next((key for row in history for key in row if key.startswith("validation ")), None)
    figure = Figure(figsize=(6.4, 3.0 if metric is None else 5.0), layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK)
    axes = figure.subplots(1 if metric is None else 2, 1, sharex=True, squeeze=False)[:, 0]
    axes[0].plot([row["iteration"] for row in history], [row["loss"] for row in history], color=INK)
    axes[0].set_ylabel("meta-training loss")
    if metric is not None:
        rows = [row for row in history if metric in row]
        scores = np.array([row[metric] for row in rows])
        best = int(np.argmax(scores) if metric.endswith("accuracy") else np.argmin(scores))
        iterations = [row["iteration"] for row in rows]
        # Runs of before it was kept have no interval.
        half = np.array([row.get("validation ci95", 0.0) for row in rows])
        axes[1].fill_between(
            iterations, scores - half, scores + half, color=RIGHT, alpha=0.2, linewidth=0
        )
        axes[1].plot(iterations, scores, color=RIGHT, marker=".")
        axes[1].annotate(
            f"best: {scores[best]:.4g}",
            (rows[best]["iteration"], scores[best]),
            xytext=(-4, -14),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color=RIGHT,
        )
        axes[1].set_ylabel(metric.replace("_", " "))
    for axis in axes:
        frame(axis)
    axes[-1].set_xlabel("outer iteration")
    return figure
