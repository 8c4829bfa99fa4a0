"""Nearest centroid on a frozen encoder or on the inputs: the baseline of every table."""

from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.normalization import policy_for, split_affine
from kshot.episodes import Examples, Inputs
from kshot.learner import MetaLearner
from kshot.learners.embedding import embed_pooled
from kshot.learners.metric.distances import class_means, squared_distances
from kshot.losses import Loss, cross_entropy

__all__ = ["NearestCentroid", "NearestCentroidState"]


class NearestCentroidState(NamedTuple):
    """What nearest centroid learns: `centroids` (tasks, way, dim), the mean of every class."""

    centroids: Float[Tensor, "tasks way dim"]


class NearestCentroid(MetaLearner[NearestCentroidState]):
    """Nearest class mean in a space that is not learned from tasks.

    The logit of a class is minus the squared distance to its centroid, divided by the embedding's
    size so that it does not grow with it.

    State:
        `NearestCentroidState`: the centroids of every task.

    Args:
        encoder: network to embeddings (n, dim), frozen in place, whose BatchNorm reads its running
            averages; `Flatten` gives the pixel baseline.
        normalize: scale embeddings to length 1 first, so that angles are compared.
        loss: loss reported for the query.

    Example:
        >>> import torch
        >>> learner = NearestCentroid(nn.Flatten())
        >>> support = Examples(torch.eye(3).view(1, 3, 3), torch.eye(3).view(1, 3, 3))
        >>> state = learner.adapt(support)
        >>> learner.predict(state, torch.eye(3).view(1, 3, 3)).argmax(-1)
        tensor([[0, 1, 2]])
    """

    batch_norm_policies = ("running",)

    def __init__(
        self, encoder: nn.Module, *, normalize: bool = False, loss: Loss = cross_entropy
    ) -> None:
        encoder = split_affine(encoder).requires_grad_(False)
        super().__init__(loss=loss, batch_norm=policy_for(encoder, "running"))
        self.encoder = encoder
        self.normalize = normalize

    def adapt(self, support: Examples) -> NearestCentroidState:
        """Average the embeddings of each class."""
        embeddings = self._embed(support.inputs, support.mask)
        return NearestCentroidState(class_means(embeddings, support.targets, support.mask))

    def predict(
        self,
        state: NearestCentroidState,
        inputs: Inputs,
        mask: Bool[Tensor, "tasks m"] | None = None,
    ) -> Float[Tensor, "tasks m way"]:
        """Minus the squared distance of each query to each centroid, per embedding dimension."""
        embeddings = self._embed(inputs, mask)
        return -squared_distances(embeddings, state.centroids) / embeddings.shape[-1]

    def _embed(self, inputs: Inputs, mask: Tensor | None) -> Float[Tensor, "tasks n dim"]:
        embeddings = embed_pooled(self.encoder, inputs, mask)
        return nn.functional.normalize(embeddings, dim=-1) if self.normalize else embeddings
