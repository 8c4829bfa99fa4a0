"""Baselines: what meta-learning has to beat."""

from kshot.learners.baselines.contrastive import Contrastive
from kshot.learners.baselines.cosine_classifiers import BaselinePlusPlus, Imprinted
from kshot.learners.baselines.fine_tuning import FineTuning
from kshot.learners.baselines.linear_heads import LogisticHead, RidgeHead
from kshot.learners.baselines.nearest_centroid import NearestCentroid
from kshot.learners.baselines.nearest_neighbor import NearestNeighbor
from kshot.learners.baselines.simple_shot import SimpleShot

__all__ = [
    "BaselinePlusPlus",
    "Contrastive",
    "FineTuning",
    "Imprinted",
    "LogisticHead",
    "NearestCentroid",
    "NearestNeighbor",
    "RidgeHead",
    "SimpleShot",
]
