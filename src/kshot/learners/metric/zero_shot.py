"""Zero-shot prototypical networks: a description of a class is its prototype."""

from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.conversion import split_affine
from kshot.backbones.normalization import policy_for
from kshot.episodes import Episodes, Examples, Inputs
from kshot.learner import MetaLearner
from kshot.learners.embedding import embed_pooled
from kshot.learners.metric.distances import class_means, squared_distances
from kshot.learners.papers import SNELL_2017
from kshot.losses import Loss, cross_entropy

__all__ = ["ZeroShotProtoNet", "ZeroShotState"]


class ZeroShotState(NamedTuple):
    """What is learned of described classes: `prototypes` (tasks, way, dim)."""

    prototypes: Float[Tensor, "tasks way dim"]


class ZeroShotProtoNet(MetaLearner[ZeroShotState]):
    """Prototypical networks without examples: two encoders meet in one space.

    The support set holds descriptions v of classes (attributes, say) instead of examples of them,
    mostly one a class, and the query set examples (section 2.7 of the paper):

        c_k = mean of g(v) / |g(v)| over the descriptions of class k,
        logit_k(x) = -||f(x) - c_k||^2.

    State:
        `ZeroShotState`: the prototypes of every task.

    Args:
        encoder: network f from examples (n, *shape) to embeddings (n, dim).
        description_encoder: network g from descriptions (n, *shape) to embeddings (n, dim).
        loss: loss of the query.

    Example:
        >>> import torch
        >>> learner = ZeroShotProtoNet(nn.Linear(1024, 64), nn.Linear(312, 64))
        >>> descriptions = Examples(torch.randn(4, 50, 312), torch.eye(50).expand(4, 50, 50))
        >>> learner.predict(learner.adapt(descriptions), torch.randn(4, 7, 1024)).shape
        torch.Size([4, 7, 50])

    Reference:
        Prototypical Networks for Few-shot Learning. NeurIPS 2017.
        https://arxiv.org/abs/1703.05175
    """

    paper = SNELL_2017
    batch_norm_policies = ("running",)

    def __init__(
        self,
        encoder: nn.Module,
        description_encoder: nn.Module,
        *,
        loss: Loss = cross_entropy,
    ) -> None:
        encoder, description_encoder = split_affine(encoder), split_affine(description_encoder)
        both = nn.ModuleList([encoder, description_encoder])
        super().__init__(loss=loss, batch_norm=policy_for(both, "running"))
        self.encoder = encoder
        self.description_encoder = description_encoder

    def adapt(self, support: Examples) -> ZeroShotState:
        """Embed the descriptions, and average those of each class."""
        return self._described(support, update_statistics=False)

    def predict(
        self, state: ZeroShotState, inputs: Inputs, mask: Bool[Tensor, "tasks m"] | None = None
    ) -> Float[Tensor, "tasks m way"]:
        """Minus the squared distance of each example to each prototype."""
        return -squared_distances(embed_pooled(self.encoder, inputs, mask), state.prototypes)

    def meta_loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The loss of the examples; BatchNorm remembers its statistics, of each network apart."""
        prototypes = self._described(episodes.support, update_statistics=True).prototypes
        query = episodes.query
        embeddings = embed_pooled(self.encoder, query.inputs, query.mask, update_statistics=True)
        return self.query_loss(-squared_distances(embeddings, prototypes), episodes)

    def _described(self, support: Examples, *, update_statistics: bool) -> ZeroShotState:
        embeddings = embed_pooled(
            self.description_encoder,
            support.inputs,
            support.mask,
            update_statistics=update_statistics,
        )
        directions = F.normalize(embeddings, dim=-1)
        return ZeroShotState(class_means(directions, support.targets, support.mask))
