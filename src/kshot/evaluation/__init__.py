"""Evaluation: numbers one can trust."""

from kshot.evaluation.evaluate import Evaluation, evaluate, paired_difference
from kshot.evaluation.intervals import MeanInterval, mean_interval

__all__ = ["Evaluation", "MeanInterval", "evaluate", "mean_interval", "paired_difference"]
