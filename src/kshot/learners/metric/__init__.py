"""Metric learners: the comparison is learned."""

from kshot.learners.metric.embedding_losses import MetricEmbedding
from kshot.learners.metric.gaussian import GaussianProtoNet
from kshot.learners.metric.matching import MatchingNet
from kshot.learners.metric.prototypical import ProtoNet
from kshot.learners.metric.relation import RelationNet
from kshot.learners.metric.semi_supervised import SemiSupervisedProtoNet
from kshot.learners.metric.siamese import SiameseNet
from kshot.learners.metric.zero_shot import ZeroShotProtoNet

__all__ = [
    "GaussianProtoNet",
    "MatchingNet",
    "MetricEmbedding",
    "ProtoNet",
    "RelationNet",
    "SemiSupervisedProtoNet",
    "SiameseNet",
    "ZeroShotProtoNet",
]
