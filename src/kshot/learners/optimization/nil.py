"""NIL: no inner loop; a trained body compares queries with the support set."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.config import BatchNormPolicy
from kshot.learners.embedding_learner import EmbeddingLearner
from kshot.learners.papers import RAGHU_2020
from kshot.losses import Loss, counted_rows, cross_entropy
from kshot.options import checks_options

__all__ = ["NIL"]


class NIL(EmbeddingLearner[Float[Tensor, "tasks way dim"]]):
    """No inner loop: the score of a class is the sum of cosines with its support examples.

    What is left of MAML or ANIL when the head and its adaptation are taken away at test. If this
    is as good as they are, their features were reused, not learned anew in each task.

    State:
        `EmbeddingState` of the summed directions of every class (tasks, way, dim).

    Args:
        encoder: the body of a trained learner, network from inputs (n, *shape) to embeddings
            (n, dim), frozen in place.
        batch_norm: where BatchNorm statistics come from: as the body was trained.
        loss: loss reported for the query.

    Example:
        >>> import torch
        >>> from kshot.episodes import Examples
        >>> learner = NIL(nn.Flatten())
        >>> support = Examples(torch.eye(3).view(1, 3, 3), torch.eye(3).view(1, 3, 3))
        >>> state = learner.adapt(support)
        >>> learner.predict(state, 2 * torch.eye(3).view(1, 3, 3)).argmax(-1)
        tensor([[0, 1, 2]])

    Reference:
        Rapid Learning or Feature Reuse? Towards Understanding the Effectiveness of MAML. ICLR 2020.
        https://arxiv.org/abs/1909.09157
    """

    paper = RAGHU_2020
    classes_apart = True

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        *,
        batch_norm: BatchNormPolicy = "batch",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, frozen=True, batch_norm=batch_norm, loss=loss)

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> Float[Tensor, "tasks way dim"]:
        """Sum the directions of each class's embeddings."""
        counted = counted_rows(targets, mask, self.loss.kind).unsqueeze(-1)
        return (targets * counted).mT @ F.normalize(embeddings, dim=-1)

    def compare(
        self,
        summary: Float[Tensor, "tasks way dim"],
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Sums of cosines of each query with each class's support examples."""
        return F.normalize(embeddings, dim=-1) @ summary.mT
