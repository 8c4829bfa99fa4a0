"""Figures: episodes, learning curves, adaptation; pure functions from data to a Figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from kshot.evaluation.intervals import MeanInterval

__all__ = [
    "plot_adaptation",
    "plot_comparison",
    "plot_descents",
    "plot_episode",
    "plot_gates",
    "plot_learning_curve",
    "plot_roc",
    "plot_similarity",
    "plot_steps",
]

INK, RIGHT, WRONG, SOFT = "#222222", "#1b6ca8", "#c8553d", "#9a9a9a"
# Lines that stay apart in grey: color, dash, marker.
LINES = [
    (RIGHT, "-", "o"),
    (WRONG, "--", "s"),
    (INK, ":", "^"),
    (SOFT, "-.", "D"),
    (RIGHT, ":", "v"),
    (WRONG, "-", "x"),
]


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
        label = f"{row + 1}  {_short(class_names[row])}"
        for place, axis in enumerate(support_axes[row]):
            _picture(axis, support[row, place])
            if place == 0:
                axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8, labelpad=6)
        for place, axis in enumerate(query_axes[row]):
            if place >= len(queries[row]):
                axis.set_axis_off()
                continue
            _picture(axis, query[queries[row][place]])
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


def plot_learning_curve(history: Sequence[Mapping[str, Any]], *, title: str = "") -> Figure:
    """Meta-training loss and validation score against the outer iteration.

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
        scores = [row[metric] for row in rows]
        best = int(np.argmax(scores) if metric.endswith("accuracy") else np.argmin(scores))
        axes[1].plot([row["iteration"] for row in rows], scores, color=RIGHT, marker=".")
        axes[1].annotate(
            f"best: {scores[best]:.4g}",
            (rows[best]["iteration"], scores[best]),
            xytext=(-4, -14),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color=RIGHT,
        )
        axes[1].set_ylabel(metric)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    axes[-1].set_xlabel("outer iteration")
    return figure


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


def plot_comparison(
    scores: Mapping[str, Sequence[tuple[str, MeanInterval]]], *, metric: str, title: str = ""
) -> Figure:
    """Learners side by side on some tasks, with the intervals of their scores.

    Args:
        scores: for each task, each learner's name with its mean score and interval.
        metric: what the scores are, with its unit.
        title: heading.
    """
    lines = sum(map(len, scores.values())) + len(scores)
    figure = Figure(figsize=(6.8, 0.28 * lines + 1.1), layout="constrained")
    axis = figure.subplots()
    figure.suptitle(title, fontsize=11, color=INK)
    places, labels = [], []
    for task, results in scores.items():
        labels.append(task)
        places.append(len(places))
        for name, (mean, half_width, _) in results:
            axis.errorbar(mean, len(places), xerr=half_width, fmt="o", color=RIGHT, capsize=3)
            labels.append(f"   {name}")
            places.append(len(places))
    axis.set_yticks(places, labels, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel(f"{metric}, 95 % interval over episodes")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="x", alpha=0.25)
    return figure


def plot_similarity(similarities: Mapping[str, Mapping[str, MeanInterval]]) -> Figure:
    """How similar each layer's outputs are before and after adaptation, one line a learner.

    Args:
        similarities: for each learner, each layer's mean similarity and its interval.
    """
    figure = Figure(figsize=(6.8, 3.4), layout="constrained")
    axis = figure.subplots()
    layers = list(dict.fromkeys(layer for one in similarities.values() for layer in one))
    for number, (name, one) in enumerate(similarities.items()):
        color, style, marker = LINES[number % len(LINES)]
        axis.errorbar(
            [layers.index(layer) for layer in one],
            [mean for mean, _, _ in one.values()],
            yerr=[half_width for _, half_width, _ in one.values()],
            color=color,
            linestyle=style,
            marker=marker,
            capsize=3,
            label=name,
        )
    axis.set_xticks(range(len(layers)), layers, fontsize=8)
    axis.set_ylim(0, 1.05)
    axis.set_ylabel("linear CKA, before and after")
    axis.set_xlabel("layer; 95 % interval over episodes")
    axis.legend(fontsize=8, frameon=False, loc="lower left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
    return figure


def plot_descents(curves: Mapping[str, Mapping[str, np.ndarray]], *, until: int) -> Figure:
    """Losses along the steps of optimizers, a panel a kind of problem: median and range of seeds.

    Args:
        curves: for each kind of problem, for each optimizer (seeds, steps).
        until: the step that optimizers were trained or tuned for.
    """
    figure = Figure(figsize=(4.4 * len(curves), 3.6), layout="constrained")
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    for axis, (problem, one) in zip(axes, curves.items(), strict=True):
        for number, (name, losses) in enumerate(one.items()):
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
    axes[0].set_ylabel("median loss over problems")
    axes[0].legend(fontsize=8, frameon=False)
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


def plot_roc(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """How many true claims are accepted as more false ones are, one line a learner.

    Args:
        curves: for each learner, false-accept rates and the true-accept rates at them.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
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
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
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


def _picture(axis: Any, picture: Tensor) -> None:
    image = picture.detach().cpu().permute(1, 2, 0).numpy()
    if image.shape[2] == 1:
        # Ink on paper, whichever of the two the data has as 1.
        dark = image.mean() > 0.5
        axis.imshow(image[:, :, 0], cmap="gray" if dark else "gray_r", vmin=0, vmax=1)
    else:
        axis.imshow(np.clip(image, 0, 1))
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _short(name: str, length: int = 22) -> str:
    """The telling end of a long class name."""
    name = name.rsplit("/", 1)[-1].lower() if name.isupper() or "/" in name else name
    return name if len(name) <= length else "..." + name[-length + 3 :]
