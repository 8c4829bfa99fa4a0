"""Figures: pure functions from data to a matplotlib Figure, readable in grey."""

from kshot.plots.adaptation import plot_adaptation, plot_steps
from kshot.plots.attention import plot_attention, plot_memory
from kshot.plots.comparison import plot_comparison, plot_ways_and_shots
from kshot.plots.confusion import PicturedPair, plot_confusion, plot_hardest_pairs
from kshot.plots.embeddings import plot_embeddings
from kshot.plots.episode import plot_episode
from kshot.plots.learning import plot_learning_curve
from kshot.plots.optimizers import plot_descents, plot_gates
from kshot.plots.regions import Regions, plot_regions
from kshot.plots.similarity import plot_similarity
from kshot.plots.verification import plot_roc

__all__ = [
    "PicturedPair",
    "Regions",
    "plot_adaptation",
    "plot_attention",
    "plot_comparison",
    "plot_confusion",
    "plot_descents",
    "plot_embeddings",
    "plot_episode",
    "plot_gates",
    "plot_hardest_pairs",
    "plot_learning_curve",
    "plot_memory",
    "plot_regions",
    "plot_roc",
    "plot_similarity",
    "plot_steps",
    "plot_ways_and_shots",
]
