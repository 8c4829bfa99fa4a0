"""NIL: no inner loop; a trained body compares queries with the support set."""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.normalization import policy_for, reads_support, split_affine
from kshot.config import BatchNormPolicy
from kshot.episodes import Examples, Inputs
from kshot.learner import MetaLearner
from kshot.learners.embedding import embed_query, embed_support
from kshot.losses import Loss, counted_rows, cross_entropy

__all__ = ["NIL", "NILState"]


class NILState(NamedTuple):
    """What NIL learns from a support set.

    Attributes:
        totals: (tasks, way, dim), the sum of every class's embeddings, each of length 1.
        support_inputs: (tasks, n, *shape), for BatchNorm policies that read them, else None.
        support_mask: (tasks, n), as `support_inputs`.
    """

    totals: Float[Tensor, "tasks way dim"]
    support_inputs: Inputs | None
    support_mask: Bool[Tensor, "tasks n"] | None


class NIL(MetaLearner[NILState]):
    """No inner loop: the score of a class is the sum of cosines with its support examples.

    What is left of MAML or ANIL when the head and its adaptation are taken away at test. If this
    is as good as they are, their features were reused, not learned anew in each task.

    State:
        `NILState`: the summed directions of every class.

    Args:
        encoder: the body of a trained learner, network from inputs (n, *shape) to embeddings
            (n, dim), frozen in place.
        batch_norm: where BatchNorm statistics come from: as the body was trained.
        loss: loss reported for the query.

    Example:
        >>> import torch
        >>> learner = NIL(nn.Flatten())
        >>> support = Examples(torch.eye(3).view(1, 3, 3), torch.eye(3).view(1, 3, 3))
        >>> state = learner.adapt(support)
        >>> learner.predict(state, 2 * torch.eye(3).view(1, 3, 3)).argmax(-1)
        tensor([[0, 1, 2]])

    Reference:
        Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of MAML. ICLR 2020.
        https://arxiv.org/abs/1909.09157
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        batch_norm: BatchNormPolicy = "batch",
        loss: Loss = cross_entropy,
    ) -> None:
        encoder = split_affine(encoder).requires_grad_(False)
        super().__init__(loss=loss, batch_norm=policy_for(encoder, batch_norm))
        self.encoder = encoder

    def adapt(self, support: Examples) -> NILState:
        """Sum the directions of each class's embeddings."""
        embeddings = embed_support(self.encoder, self.batch_norm, support.inputs, support.mask)
        counted = counted_rows(support.targets, support.mask, self.loss.kind).unsqueeze(-1)
        totals = (support.targets * counted).mT @ F.normalize(embeddings, dim=-1)
        kept = reads_support(self.batch_norm)
        return NILState(totals, support.inputs if kept else None, support.mask if kept else None)

    def predict(
        self, state: NILState, inputs: Inputs, mask: Bool[Tensor, "tasks m"] | None = None
    ) -> Float[Tensor, "tasks m way"]:
        """Sums of cosines of each query with each class's support examples."""
        embeddings = embed_query(
            self.encoder, self.batch_norm, inputs, mask, state.support_inputs, state.support_mask
        )
        return F.normalize(embeddings, dim=-1) @ state.totals.mT
