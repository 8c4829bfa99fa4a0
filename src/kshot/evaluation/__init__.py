"""Evaluation: numbers one can trust."""

from kshot.evaluation.evaluate import Evaluation, evaluate, paired_difference
from kshot.evaluation.instances import evaluate_instances
from kshot.evaluation.intervals import MeanInterval, mean_interval

__all__ = [
    "Evaluation",
    "MeanInterval",
    "evaluate",
    "evaluate_instances",
    "mean_interval",
    "paired_difference",
]
