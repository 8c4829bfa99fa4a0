"""Relation networks: the comparison itself is a network, learned with the embedding."""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.convolution import channels_innermost
from kshot.backbones.heads import embedding_dim
from kshot.backbones.normalization import BatchNorm, policy_for, reads_stored
from kshot.config import BatchNormPolicy
from kshot.learners.embedding import embed_pooled, embed_support
from kshot.learners.embedding_learner import EmbeddingLearner
from kshot.learners.papers import SUNG_2018
from kshot.losses import Loss, cross_entropy, squared_score_error
from kshot.options import checks_options

__all__ = ["RelationNet", "RelationSummary"]

RelationSummary = tuple[Float[Tensor, "tasks way dim"], Bool[Tensor, "tasks way"]]
"""The summed embeddings of every class, and which classes have examples."""


class RelationNet(EmbeddingLearner[RelationSummary]):
    """Relation networks: a learned score of each query beside each class.

    With the sum of the support embeddings of class k beside a query's (section 3.2 of the paper),

        score_k(x) = sigmoid(g([sum of f(x_i) over the class, f(x)])),

    where g is two convolution blocks and two linear layers on feature maps, or linear layers on
    plain embeddings. Scores are regressed to 1 for the query's class and 0 for the others.

    State:
        `EmbeddingState` of a `RelationSummary`.

    Args:
        encoder: network from inputs (n, *shape) to embeddings (n, dim), with its `embedding_dim`;
            with a `map_shape` (channels, height, width) these are flattened maps.
        hidden: channels of g's convolutions, or width of its layer on plain embeddings.
        objective: squared error of the scores, or cross-entropy of g's outputs as logits.
        batch_norm: where BatchNorm statistics come from, those of g too: "running", or "batch" as
            in the authors' code, which is transductive.
        loss: loss of the query under the objective "cross_entropy".

    Note:
        The sum makes g depend on the shot: test with as many examples a class as in training.

    Example:
        >>> from kshot.backbones.feature_maps import FeatureMaps
        >>> from kshot.episodes import Examples
        >>> learner = RelationNet(FeatureMaps((1, 28, 28)))
        >>> support = Examples(torch.zeros(2, 3, 1, 28, 28), torch.eye(3).expand(2, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.zeros(2, 7, 1, 28, 28)).shape
        torch.Size([2, 7, 3])

    Reference:
        Learning to Compare: Relation Network for Few-Shot Learning. CVPR 2018.
        https://arxiv.org/abs/1711.06025
    """

    paper = SUNG_2018
    classes_apart = True
    batch_norm_policies = ("running", "batch")

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        *,
        hidden: int = 64,
        objective: Literal["squared_error", "cross_entropy"] = "squared_error",
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(
            encoder,
            batch_norm=batch_norm,
            loss=squared_score_error if objective == "squared_error" else loss,
        )
        self.map_shape: tuple[int, ...] = getattr(encoder, "map_shape", (embedding_dim(encoder),))
        # g reads [class, query]. Its first layer is linear, so it is applied to classes and queries
        # apart, and the sums are those of the pairs: way + m applications instead of way * m.
        self.of_class, self.of_query, self.relation = _relation_module(self.map_shape, hidden)
        for part in (self.of_class, self.of_query, self.relation):  # the encoder is as it was given
            channels_innermost(part)
        if self.batch_norm == "none":  # the encoder does not normalize, but g may
            self.batch_norm = policy_for(self.relation, batch_norm)

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> RelationSummary:
        """Sum the embeddings of each class."""
        if mask is not None:
            targets = targets.masked_fill(~mask.unsqueeze(-1), 0)
        return targets.mT.to(embeddings.dtype) @ embeddings, targets.sum(1) > 0

    def compare(
        self,
        summary: RelationSummary,
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Scores of each query and class, before the sigmoid."""
        classes, present = summary
        tasks, m, way = len(embeddings), embeddings.shape[1], classes.shape[1]
        of_class = self._applied(self.of_class, classes).unsqueeze(1)
        pairs = of_class + self._applied(self.of_query, embeddings).unsqueeze(2)
        pairs = pairs.view(tasks, m * way, *pairs.shape[3:])
        # Pairs that are none must not reach BatchNorm's statistics.
        real = None
        if mask is not None or not bool(present.all()):
            rows = torch.ones_like(embeddings[..., 0], dtype=torch.bool) if mask is None else mask
            real = (rows.unsqueeze(2) & present.unsqueeze(1)).view(tasks, m * way)
        if reads_stored(self.batch_norm):
            scores = embed_pooled(self.relation, pairs, real, update_statistics=True)
        else:
            scores = embed_support(self.relation, self.batch_norm, pairs, real)
        return scores.view(tasks, m, way)

    def _applied(self, layer: nn.Module, embeddings: Float[Tensor, "tasks n dim"]) -> Tensor:
        """A layer's outputs (tasks, n, ...) for the maps of each example."""
        outputs = layer(embeddings.reshape(-1, *self.map_shape))
        return outputs.view(*embeddings.shape[:2], *outputs.shape[1:])


def _relation_module(
    shape: tuple[int, ...], hidden: int
) -> tuple[nn.Module, nn.Module, nn.Sequential]:
    """The first layer's two halves, and the layers after it, for embeddings of a shape."""
    if len(shape) == 1:
        of_class, of_query = nn.Linear(shape[0], hidden), nn.Linear(shape[0], hidden, bias=False)
        rest = [nn.ReLU(), nn.Linear(hidden, 8), nn.ReLU(), nn.Linear(8, 1)]
        return of_class, of_query, nn.Sequential(*rest)
    channels, *space = shape
    # Large maps are not padded, small ones are: 19 px become 3, and 5 px 1, as in the paper.
    padding = 1 if min(space) < 8 else 0
    of_class = nn.Conv2d(channels, hidden, 3, padding=padding)
    of_query = nn.Conv2d(channels, hidden, 3, padding=padding, bias=False)
    blocks: list[nn.Module] = []
    for block in range(2):
        if block:
            padding = 1 if min(space) < 8 else 0
            blocks.append(nn.Conv2d(hidden, hidden, 3, padding=padding))
        space = [side + 2 * padding - 2 for side in space]
        blocks.append(BatchNorm(hidden))
        if min(space) > 1:  # before the ReLU, which is the same function and less work
            blocks.append(nn.MaxPool2d(2))
            space = [side // 2 for side in space]
        blocks.append(nn.ReLU())
    rest = [nn.Flatten(), nn.Linear(hidden * math.prod(space), 8), nn.ReLU(), nn.Linear(8, 1)]
    return of_class, of_query, nn.Sequential(*blocks, *rest)
