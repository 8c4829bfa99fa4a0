"""The learners that read a support set with a network, by the short name of each paper."""

from functools import partial

from kshot.learners.memory.mann import MANN
from kshot.learners.memory.meta_networks import MetaNet
from kshot.learners.memory.ntm import NTM
from kshot.learners.memory.recurrent import RecurrentLearner
from kshot.learners.memory.snail import SNAIL
from kshot.learners.row import LearnerRow, encoder_and_way

__all__ = ["ROWS"]

_read_in_turn = partial(
    LearnerRow,
    arguments=encoder_and_way,
    family="memory",
    kinds=("classification", "regression"),
    online=True,
)

ROWS: dict[str, LearnerRow] = {
    "lstm": _read_in_turn(
        partial(RecurrentLearner, cell="lstm"),
        summary="an LSTM reads examples in turn, each label one step late",
        reference="Learning to Learn Using Gradient Descent, ICANN 2001",
    ),
    "gru": _read_in_turn(
        partial(RecurrentLearner, cell="gru"),
        summary="a GRU reads examples in turn, each label one step late",
        reference="Learning to Learn Using Gradient Descent, ICANN 2001",
    ),
    "ntm": _read_in_turn(
        NTM,
        summary="a controller that reads and writes a memory by content and by place",
        reference="Neural Turing Machines, 2014",
    ),
    "mann": _read_in_turn(
        MANN,
        summary="a memory read by content, and written where it was used least",
        reference="Meta-Learning with Memory-Augmented Neural Networks, ICML 2016",
    ),
    "snail": LearnerRow(
        SNAIL,
        encoder_and_way,
        "memory",
        "attention and causal convolutions over the support set, then the query",
        "A Simple Neural Attentive Meta-Learner, ICLR 2018",
        online=True,
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
