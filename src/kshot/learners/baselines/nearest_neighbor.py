"""Nearest neighbor on a frozen encoder or on the inputs: the baseline of the oldest tables."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.learners.embedding_learner import (
    EmbeddingLearner,
    LabelledEmbeddings,
    labelled_embeddings,
)
from kshot.learners.metric.distances import class_maxima, cosines
from kshot.losses import Loss, cross_entropy

__all__ = ["NearestNeighbor"]


class NearestNeighbor(EmbeddingLearner[LabelledEmbeddings]):
    """The class of the support example with the largest cosine.

    State:
        `EmbeddingState` of a `LabelledEmbeddings`: embeddings and targets of the support set.

    Args:
        encoder: network to embeddings (n, dim), frozen in place, whose BatchNorm reads its running
            averages; `Flatten` compares the inputs.
        loss: loss reported for the query.

    Example:
        >>> import torch
        >>> from kshot.episodes import Examples
        >>> learner = NearestNeighbor(nn.Flatten())
        >>> support = Examples(torch.eye(3).view(1, 3, 3), torch.eye(3).view(1, 3, 3))
        >>> state = learner.adapt(support)
        >>> learner.predict(state, torch.eye(3).view(1, 3, 3)).argmax(-1)
        tensor([[0, 1, 2]])
    """

    classes_apart = True
    batch_norm_policies = ("running",)

    def __init__(self, encoder: nn.Module, *, loss: Loss = cross_entropy) -> None:
        super().__init__(encoder, frozen=True, loss=loss)

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> LabelledEmbeddings:
        """Keep every labelled example."""
        return labelled_embeddings(embeddings, targets, mask)

    def compare(
        self,
        summary: LabelledEmbeddings,
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """The largest cosine with an example of each class."""
        return class_maxima(cosines(embeddings, summary.embeddings), summary.targets)
