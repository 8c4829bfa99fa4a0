"""The learners that read a support set with a network, by the short name of each paper."""

from kshot.learners.memory.meta_networks import MetaNet
from kshot.learners.memory.snail import SNAIL
from kshot.learners.row import LearnerRow, encoder_and_way

__all__ = ["ROWS"]

ROWS: dict[str, LearnerRow] = {
    "snail": LearnerRow(
        SNAIL,
        encoder_and_way,
        "memory",
        "attention and causal convolutions over the support set, then the query",
        "A Simple Neural Attentive Meta-Learner, ICLR 2018",
    ),
    "metanet": LearnerRow(
        MetaNet,
        encoder_and_way,
        "memory",
        "gradients of support examples, made weights and kept in a memory",
        "Meta Networks, ICML 2017",
        meta_gradient="first_order",
    ),
}
"""What the registry holds of this family."""
