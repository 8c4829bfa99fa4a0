"""Scores side by side: of learners, and of one learner by way and shot."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from kshot.evaluation.intervals import MeanInterval
from kshot.plots.style import INK, RIGHT, frame, line

__all__ = ["plot_comparison", "plot_ways_and_shots"]


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


def plot_ways_and_shots(
    scores: Mapping[tuple[int, int], MeanInterval], *, title: str = ""
) -> Figure:
    """Accuracy against shot, a line each way, and against way, a line each shot.

    A panel is drawn where it has a line of two points at least.

    Args:
        scores: for (way, shot), the mean accuracy in % and its interval.
        title: heading.

    Raises:
        ValueError: when all scores are of one way and one shot.
    """
    panels = []
    for place, (axis_name, line_name) in enumerate((("way", "shot"), ("shot", "way"))):
        lines: dict[int, list[tuple[int, MeanInterval]]] = {}
        for task, score in sorted(scores.items()):
            lines.setdefault(task[1 - place], []).append((task[place], score))
        if any(len(one) > 1 for one in lines.values()):
            panels.append((axis_name, line_name, lines))
    if not panels:
        raise ValueError("Accuracy against way or shot needs at least two ways or two shots.")
    figure = Figure(figsize=(4.4 * len(panels) + 0.4, 3.6), layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (axis_name, line_name, lines) in zip(axes, reversed(panels), strict=True):
        for number, (value, points) in enumerate(lines.items()):
            means = [score.mean for _, score in points]
            halves = [score.half_width for _, score in points]
            label = f"{value}-{line_name}"
            style = line(number)
            axis.errorbar([x for x, _ in points], means, halves, capsize=3, label=label, **style)
        ticks = sorted({x for points in lines.values() for x, _ in points})
        axis.set_xscale("log")
        axis.set_xticks(ticks, map(str, ticks))
        axis.minorticks_off()
        names = {"way": "way: classes an episode", "shot": "shot: support examples a class"}
        axis.set_xlabel(names[axis_name])
        axis.legend(fontsize=8, frameon=False)
        frame(axis)
    axes[0].set_ylabel("accuracy in %, 95 % interval")
    return figure
