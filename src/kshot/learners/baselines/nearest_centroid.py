"""Nearest centroid on a frozen encoder or on the inputs: the baseline of every table."""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.learners.embedding_learner import EmbeddingLearner
from kshot.learners.metric.distances import class_means, squared_distances
from kshot.losses import Loss, counted_rows, cross_entropy
from kshot.options import checks_options

__all__ = ["Centroids", "NearestCentroid"]


class Centroids(NamedTuple):
    """Class means, and what was taken off every embedding.

    Attributes:
        means: (tasks, way, dim).
        origin: (tasks, 1, dim), the mean of the support set, or zero.
    """

    means: Float[Tensor, "tasks way dim"]
    origin: Float[Tensor, "tasks 1 dim"]


class NearestCentroid(EmbeddingLearner[Centroids]):
    """Nearest class mean in a space that is not learned from tasks.

    The logit of a class is minus the squared distance to its centroid, divided by the embedding's
    size so that it does not grow with it.

    State:
        `EmbeddingState` of the `Centroids` of every task.

    Args:
        encoder: network to embeddings (n, dim), frozen in place, whose BatchNorm reads its running
            averages; `Flatten` gives the pixel baseline.
        center: take the mean of the labelled support examples off every embedding first.
        normalize: scale embeddings to length 1 before they are averaged and compared, so that
            angles count; centered and scaled, they are SimpleShot's CL2N, with the support set's
            own mean in place of that of training classes.
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

    batch_norm_policies = ("running",)

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        *,
        center: bool = False,
        normalize: bool = False,
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, frozen=True, loss=loss)
        self.center = center
        self.normalize = normalize

    @property
    def classes_apart(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Unless all classes together say what is taken off."""
        return not self.center

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> Centroids:
        """Average the embeddings of each class."""
        if self.center:
            counted = counted_rows(targets, mask, self.loss.kind).unsqueeze(-1)
            origin = class_means(embeddings, counted.to(embeddings.dtype))
        else:
            origin = embeddings.new_zeros(len(embeddings), 1, embeddings.shape[-1])
        return Centroids(class_means(self._transformed(embeddings, origin), targets, mask), origin)

    def compare(
        self,
        summary: Centroids,
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Minus the squared distance of each query to each centroid, per embedding dimension."""
        points = self._transformed(embeddings, summary.origin)
        return -squared_distances(points, summary.means) / embeddings.shape[-1]

    def _transformed(
        self, embeddings: Float[Tensor, "tasks n dim"], origin: Float[Tensor, "tasks 1 dim"]
    ) -> Float[Tensor, "tasks n dim"]:
        embeddings = embeddings - origin
        return F.normalize(embeddings, dim=-1) if self.normalize else embeddings
