"""Prototypical networks: a query belongs to the class whose mean embedding is nearest."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.config import BatchNormPolicy
from kshot.learners.embedding_learner import EmbeddingLearner
from kshot.learners.metric.distances import class_means, cosines, squared_distances
from kshot.learners.papers import SNELL_2017
from kshot.losses import Loss, cross_entropy
from kshot.options import checks_options

__all__ = ["ProtoNet"]


class ProtoNet(EmbeddingLearner[Float[Tensor, "tasks way dim"]]):
    """Prototypical networks: the comparison is learned.

    The prototype of class k is the mean embedding of its support examples, and the logit of a query
    x is minus its squared Euclidean distance to the prototype (sections 2.1 - 2.2 of the paper):

        c_k = mean of f(x_i) over the support of class k,   logit_k(x) = -||f(x) - c_k||^2.

    The paper's other distance is by angle: the logit is then a learned scale times the cosine.

    State:
        `EmbeddingState` of the prototypes of every task (tasks, way, dim).

    Args:
        encoder: network f from inputs (n, *shape) to embeddings (n, dim). Its fused normalization
            layers are replaced in place, with the same outputs (`split_affine`).
        distance: squared Euclidean, or by cosine.
        scale: of the cosine, at the start; None takes 10.
        rotate_support: in meta-training, let each part of an episode's examples be the support in
            turn and the rest its queries. The objective stays the same, and the same embeddings
            tell more of it; it needs batch_norm "running", and labels that are classes.
        batch_norm: where BatchNorm statistics come from; "running" as in the authors' code.
        loss: loss of the query.

    Raises:
        ValueError: for a scale of squared distances.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from kshot.episodes import Examples
        >>> learner = ProtoNet(nn.Identity())
        >>> support = Examples(torch.eye(3).expand(4, 3, 3), torch.eye(3).expand(4, 3, 3))
        >>> state = learner.adapt(support)
        >>> learner.predict(state, torch.eye(3).expand(4, 3, 3))[0, 0]
        tensor([-0., -2., -2.])

    Reference:
        Prototypical Networks for Few-shot Learning. NeurIPS 2017.
        https://arxiv.org/abs/1703.05175
    """

    paper = SNELL_2017
    classes_apart = True

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        *,
        distance: Literal["squared_euclidean", "cosine"] = "squared_euclidean",
        scale: float | None = None,
        rotate_support: bool = False,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, rotate_support=rotate_support, batch_norm=batch_norm, loss=loss)
        if scale is not None and distance != "cosine":
            raise ValueError("A scale is of cosines: leave it out, or take distance='cosine'.")
        self.scale = None
        if distance == "cosine":
            self.scale = nn.Parameter(torch.tensor(10.0 if scale is None else float(scale)))

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> Float[Tensor, "tasks way dim"]:
        """Average the embeddings of each class."""
        return class_means(embeddings, targets, mask)

    def compare(
        self,
        summary: Float[Tensor, "tasks way dim"],
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Minus the squared distance of each query to each prototype, or its scaled cosine."""
        if self.scale is None:
            return -squared_distances(embeddings, summary)
        return self.scale * cosines(embeddings, summary)
