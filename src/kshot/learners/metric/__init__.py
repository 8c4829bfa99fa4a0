"""Metric learners: the comparison is learned."""

from kshot.learners.metric.prototypical import ProtoNet

__all__ = ["ProtoNet"]
