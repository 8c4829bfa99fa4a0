"""Memory learners: a network reads the support set."""

from kshot.learners.memory.meta_networks import MetaNet
from kshot.learners.memory.snail import SNAIL

__all__ = ["SNAIL", "MetaNet"]
