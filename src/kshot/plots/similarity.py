"""How much adaptation changes what each layer computes."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from kshot.evaluation.intervals import MeanInterval
from kshot.plots.style import LINES

__all__ = ["plot_similarity"]


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
