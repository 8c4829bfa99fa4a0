"""Gaussian prototypical networks: every example also says how much it is to be trusted."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.heads import embedding_dim
from kshot.config import BatchNormPolicy
from kshot.learners.embedding_learner import EmbeddingLearner
from kshot.learners.metric.distances import scaled_squared_distances
from kshot.learners.papers import FORT_2017
from kshot.losses import Loss, cross_entropy
from kshot.options import checks_options

__all__ = ["GaussianProtoNet", "GaussianSummary"]


class GaussianSummary(NamedTuple):
    """The Gaussian of every class.

    Attributes:
        prototypes: (tasks, way, dim), its center.
        precisions: (tasks, way, dim), its inverse variances; all alike where it is a sphere.
    """

    prototypes: Float[Tensor, "tasks way dim"]
    precisions: Float[Tensor, "tasks way dim"]


class GaussianProtoNet(EmbeddingLearner[GaussianSummary]):
    """Gaussian prototypical networks: prototypes weighted, and distances scaled, by certainty.

    Besides its embedding z_i an example gets inverse variances s_i = 1 + softplus(linear(z_i)), one
    for all dimensions ("radius") or one for each ("diagonal"). With sums over the support examples
    of a class (sections 3.2 and 3.3 of the paper),

        p = sum of s_i z_i / sum of s_i,   S = sum of s_i,
        logit of a query = -sqrt(sum over dimensions of S (z - p)^2).

    State:
        `EmbeddingState` of a `GaussianSummary`: center and precision of every class.

    Args:
        encoder: network from inputs (n, *shape) to embeddings (n, dim), with its `embedding_dim`.
        covariance: how many inverse variances an example has.
        rotate_support: in meta-training, let each part of an episode's examples be the support in
            turn; it needs batch_norm "running".
        batch_norm: where BatchNorm statistics come from.
        loss: loss of the query.

    Note:
        In the paper the encoder's last convolution has the numbers for s_i as further channels;
        here they come from a linear layer behind it, so that any encoder serves.

    Example:
        >>> from kshot.backbones.mlp import MLP
        >>> from kshot.episodes import Examples
        >>> learner = GaussianProtoNet(MLP((3,)))
        >>> support = Examples(torch.eye(3).expand(4, 3, 3), torch.eye(3).expand(4, 3, 3))
        >>> learner.adapt(support).summary.precisions.shape
        torch.Size([4, 3, 40])

    Reference:
        Gaussian Prototypical Networks for Few-Shot Learning on Omniglot. 2017.
        https://arxiv.org/abs/1708.02735
    """

    paper = FORT_2017
    classes_apart = True

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        *,
        covariance: Literal["radius", "diagonal"] = "radius",
        rotate_support: bool = False,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, rotate_support=rotate_support, batch_norm=batch_norm, loss=loss)
        dim = embedding_dim(encoder)
        self.certainty = nn.Linear(dim, 1 if covariance == "radius" else dim)

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> GaussianSummary:
        """The Gaussian of each class; the precision of one without examples is zero."""
        precisions = 1 + F.softplus(self.certainty(embeddings))
        if mask is not None:
            targets = targets.masked_fill(~mask.unsqueeze(-1), 0)
        with torch.autocast(embeddings.device.type, enabled=False):
            dtype = torch.promote_types(embeddings.dtype, torch.float32)
            embeddings, precisions = embeddings.to(dtype), precisions.to(dtype)
            columns = targets.to(dtype).mT
            totals = columns @ precisions
            prototypes = columns @ (precisions * embeddings) / totals.clamp_min(1e-8)
        return GaussianSummary(prototypes, totals.expand_as(prototypes))

    def compare(
        self,
        summary: GaussianSummary,
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Minus the distance of each query to each class, in its standard deviations."""
        squares = scaled_squared_distances(embeddings, *summary)
        # The root has no slope at zero, where a query lies on a prototype.
        logits = -(F.relu(squares) + 1e-8).sqrt()
        absent = (summary.precisions == 0).all(-1).unsqueeze(1)
        return logits.masked_fill(absent, torch.finfo(logits.dtype).min / 2)
