"""Prototypical networks: a query belongs to the class whose mean embedding is nearest."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.normalization import policy_for, reads_stored, reads_support, split_affine
from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, Examples, Inputs
from kshot.learner import MetaLearner
from kshot.learners.embedding import embed_query, embed_support, embed_together
from kshot.learners.metric.distances import class_means, squared_distances
from kshot.learners.rotation import require_rotation, rotated_loss
from kshot.losses import Loss, cross_entropy

__all__ = ["ProtoNet", "ProtoNetState"]


class ProtoNetState(NamedTuple):
    """What a prototypical network learns from a support set.

    Attributes:
        prototypes: (tasks, way, dim), the mean embedding of every class.
        support_inputs: (tasks, n, *shape), for BatchNorm policies that read them, else None.
        support_mask: (tasks, n), as `support_inputs`.
    """

    prototypes: Float[Tensor, "tasks way dim"]
    support_inputs: Inputs | None
    support_mask: Bool[Tensor, "tasks n"] | None


class ProtoNet(MetaLearner[ProtoNetState]):
    """Prototypical networks: the comparison is learned.

    The prototype of class k is the mean embedding of its support examples, and the logit of a query
    x is minus its squared Euclidean distance to the prototype (sections 2.1 - 2.2 of the paper):

        c_k = mean of f(x_i) over the support of class k,   logit_k(x) = -||f(x) - c_k||^2.

    State:
        `ProtoNetState`: the prototypes of every task.

    Args:
        encoder: network f from inputs (n, *shape) to embeddings (n, dim). Its fused normalization
            layers are replaced in place, with the same outputs (`split_affine`).
        rotate_support: in meta-training, let each part of an episode's examples be the support in
            turn and the rest its queries. The objective stays the same, and the same embeddings
            tell more of it; it needs batch_norm "running", and labels that are classes.
        batch_norm: where BatchNorm statistics come from; "running" as in the authors' code.
        loss: loss of the query.

    Example:
        >>> import torch
        >>> learner = ProtoNet(nn.Identity())
        >>> support = Examples(torch.eye(3).expand(4, 3, 3), torch.eye(3).expand(4, 3, 3))
        >>> state = learner.adapt(support)
        >>> learner.predict(state, torch.eye(3).expand(4, 3, 3))[0, 0]
        tensor([-0., -2., -2.])

    Reference:
        Prototypical Networks for Few-shot Learning. NeurIPS 2017.
        https://arxiv.org/abs/1703.05175
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        rotate_support: bool = False,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        encoder = split_affine(encoder)
        super().__init__(loss=loss, batch_norm=policy_for(encoder, batch_norm))
        if rotate_support:
            require_rotation(loss, self.batch_norm)
        self.encoder = encoder
        self.rotate_support = rotate_support

    def adapt(self, support: Examples) -> ProtoNetState:
        """Average the embeddings of each class."""
        embeddings = embed_support(self.encoder, self.batch_norm, support.inputs, support.mask)
        kept = reads_support(self.batch_norm)
        return ProtoNetState(
            class_means(embeddings, support.targets, support.mask),
            support.inputs if kept else None,
            support.mask if kept else None,
        )

    def predict(
        self, state: ProtoNetState, inputs: Inputs, mask: Bool[Tensor, "tasks m"] | None = None
    ) -> Float[Tensor, "tasks m way"]:
        """Minus the squared distance of each query to each prototype."""
        embeddings = embed_query(
            self.encoder,
            self.batch_norm,
            inputs,
            mask,
            state.support_inputs,
            state.support_mask,
        )
        return -squared_distances(embeddings, state.prototypes)

    def meta_loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The query loss; under "running", all examples of a meta-batch are embedded in one call.

        As in the authors' code, support and query then share BatchNorm's statistics in training.
        """
        if not reads_stored(self.batch_norm):
            return super().meta_loss(episodes)
        support, query = embed_together(self.encoder, episodes)
        if self.rotate_support and self.training:
            both = torch.cat([support, query], 1)
            return rotated_loss(
                self.loss,
                episodes,
                lambda targets, chosen: (
                    -squared_distances(both, class_means(both, targets, chosen))
                ),
            )
        prototypes = class_means(support, episodes.support.targets, episodes.support.mask)
        return self.query_loss(-squared_distances(query, prototypes), episodes)
