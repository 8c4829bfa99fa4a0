"""Nearest centroid on a frozen encoder or on the inputs: the baseline of every table."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.learners.embedding_learner import EmbeddingLearner
from kshot.learners.metric.distances import class_means, squared_distances
from kshot.losses import Loss, cross_entropy

__all__ = ["NearestCentroid"]


class NearestCentroid(EmbeddingLearner[Float[Tensor, "tasks way dim"]]):
    """Nearest class mean in a space that is not learned from tasks.

    The logit of a class is minus the squared distance to its centroid, divided by the embedding's
    size so that it does not grow with it.

    State:
        `EmbeddingState` of the centroids of every task (tasks, way, dim).

    Args:
        encoder: network to embeddings (n, dim), frozen in place, whose BatchNorm reads its running
            averages; `Flatten` gives the pixel baseline.
        normalize: scale embeddings to length 1 first, so that angles are compared.
        loss: loss reported for the query.

    Example:
        >>> import torch
        >>> from kshot.episodes import Examples
        >>> learner = NearestCentroid(nn.Flatten())
        >>> support = Examples(torch.eye(3).view(1, 3, 3), torch.eye(3).view(1, 3, 3))
        >>> state = learner.adapt(support)
        >>> learner.predict(state, torch.eye(3).view(1, 3, 3)).argmax(-1)
        tensor([[0, 1, 2]])
    """

    classes_apart = True
    batch_norm_policies = ("running",)

    def __init__(
        self, encoder: nn.Module, *, normalize: bool = False, loss: Loss = cross_entropy
    ) -> None:
        super().__init__(encoder, frozen=True, loss=loss)
        self.normalize = normalize

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> Float[Tensor, "tasks way dim"]:
        """Average the embeddings of each class."""
        return class_means(self._transformed(embeddings), targets, mask)

    def compare(
        self,
        summary: Float[Tensor, "tasks way dim"],
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Minus the squared distance of each query to each centroid, per embedding dimension."""
        distances = squared_distances(self._transformed(embeddings), summary)
        return -distances / embeddings.shape[-1]

    def _transformed(self, embeddings: Float[Tensor, "tasks n dim"]) -> Tensor:
        return F.normalize(embeddings, dim=-1) if self.normalize else embeddings
