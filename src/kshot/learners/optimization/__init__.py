"""Optimization learners: the initialization or the update rule is learned."""

from kshot.learners.optimization.inner_loop import inner_loop
from kshot.learners.optimization.maml import MAML

__all__ = ["MAML", "inner_loop"]
