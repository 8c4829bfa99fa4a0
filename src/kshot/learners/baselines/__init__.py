"""Baselines: what meta-learning has to beat."""

from kshot.learners.baselines.contrastive import Contrastive
from kshot.learners.baselines.fine_tuning import FineTuning
from kshot.learners.baselines.nearest_centroid import NearestCentroid

__all__ = ["Contrastive", "FineTuning", "NearestCentroid"]
