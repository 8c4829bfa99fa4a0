"""Training: the outer loop, its checkpoints and its record."""

from kshot.training.trainer import meta_train

__all__ = ["meta_train"]
