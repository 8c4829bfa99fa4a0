"""Optimization learners: the initialization or the update rule is learned."""

from kshot.learners.optimization.anil import ANIL
from kshot.learners.optimization.inner_loop import inner_loop
from kshot.learners.optimization.maml import MAML
from kshot.learners.optimization.meta_sgd import MetaSGD
from kshot.learners.optimization.reptile import Reptile
from kshot.learners.optimization.ridge import R2D2

__all__ = ["ANIL", "MAML", "R2D2", "MetaSGD", "Reptile", "inner_loop"]
