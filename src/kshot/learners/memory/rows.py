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
        notes=(
            "the baseline of MANN's paper; labels one step late; the forget gate's bias starts "
            "at 1; trained as `mann` is"
        ),
    ),
    "gru": _read_in_turn(
        partial(RecurrentLearner, cell="gru"),
        summary="a GRU reads examples in turn, each label one step late",
        notes="as `lstm`",
    ),
    "ntm": _read_in_turn(
        NTM,
        summary="a controller that reads and writes a memory by content and by place",
        notes=(
            "[the machine copies](../results/memory/copy_task.json) sequences twice as long as "
            "any it was trained on; read heads read before write heads write; memory starts at "
            "1e-6 everywhere, heads at the first slot; Adam instead of RMSProp"
        ),
    ),
    "mann": _read_in_turn(
        MANN,
        summary="a memory read by content, and written where it was used least",
        notes=(
            "each head has a least used slot of its own; labels are one-hot unless "
            "`labels` says letters; the last predictions of a sequence are those of queries that "
            "are not written; heads say how sharply they read (`sharpness`), which the paper's do "
            "not; Adam at 3e-3; test pictures are not moved"
        ),
    ),
    "snail": LearnerRow(
        SNAIL,
        encoder_and_way,
        "memory",
        "attention and causal convolutions over the support set, then the query",
        online=True,
        notes=(
            "several queries an episode instead of one, each the last step of its own sequence;"
            " dilations 2, 4, ... as printed; queries and keys of attention begin with the same"
            " weights; training pictures are moved a little and classes mirrored"
        ),
    ),
    "metanet": LearnerRow(
        MetaNet,
        encoder_and_way,
        "memory",
        "gradients of support examples, made weights and kept in a memory",
        meta_gradient="first_order",
        notes=(
            "fast weights of the linear layers alone, where the authors give them to the "
            "convolutions too on Omniglot, and those have BatchNorm; inner gradients are "
            "constants, as in their code; the contrastive loss for several examples a class, "
            "which their code lacks"
        ),
    ),
}
"""What the registry holds of this family."""
