"""Siamese networks: the same network sees two pictures and tells whether they are of one class."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.heads import embedding_dim
from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, concatenate
from kshot.learners.embedding_learner import (
    EmbeddingLearner,
    LabelledEmbeddings,
    labelled_embeddings,
)
from kshot.learners.metric.distances import class_maxima, weighted_city_block
from kshot.learners.papers import KOCH_2015
from kshot.losses import Loss, counted_rows, cross_entropy
from kshot.options import checks_options

__all__ = ["SiameseNet", "pair_loss"]


class SiameseNet(EmbeddingLearner[LabelledEmbeddings]):
    """Siamese networks: learn to verify, then recognize by the most similar support example.

    The logit that two pictures are of one class is (section 3.1 of the paper)

        bias + 64 / d sum over j of alpha_j |h_j(x) - h_j(x')|,   h = sigmoid(linear(encoder(x))),

    where d is the size of h. The factor is in the paper's alpha: with it outside, logits begin as
    large and a step of Adam moves them as far whatever d is, so that neither thousands of features
    nor the learning rate that suits few of them drive every pair into the ends of the sigmoid.

    Meta-training is binary: every pair of examples of an episode is one of the same class or of
    two, and both kinds count half, as in the paper's sampler of pairs. Episodes of two classes
    with one support and one query example each are such pairs; larger ones hold more of them for
    the same embeddings. The logit of a class is that of its most similar support example.

    State:
        `EmbeddingState` of a `LabelledEmbeddings`: h and targets of the support set.

    Args:
        encoder: network from inputs (n, *shape) to embeddings (n, dim), with its `embedding_dim`.
        features: size of h; 4,096 in the paper. 0 compares the encoder's embeddings themselves.
        pool: whether a class is as similar as its most similar example, or as they are on average.
        batch_norm: where BatchNorm statistics come from.
        loss: loss reported for the query; meta-training uses `pair_loss`.

    Note:
        The paper has no bias: without it a pair of equal pictures has probability 1/2.

    Example:
        >>> from kshot.backbones.mlp import MLP
        >>> from kshot.episodes import Examples
        >>> learner = SiameseNet(MLP((3,)))
        >>> support = Examples(torch.eye(3).expand(4, 3, 3), torch.eye(3).expand(4, 3, 3))
        >>> learner.predict(learner.adapt(support), torch.eye(3).expand(4, 3, 3)).shape
        torch.Size([4, 3, 3])

    Reference:
        Siamese Neural Networks for One-shot Image Recognition. ICML Deep Learning Workshop 2015.
        https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf
    """

    paper = KOCH_2015
    classes_apart = True

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        *,
        features: int = 256,
        pool: Literal["max", "mean"] = "max",
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, batch_norm=batch_norm, loss=loss)
        dim = embedding_dim(encoder)
        self.features = nn.Linear(dim, features) if features else None
        # On average, features that differ tell classes apart.
        self.alpha = nn.Parameter(torch.randn(features or dim) / 10 - 1 / 10)
        self.bias = nn.Parameter(torch.zeros(()))
        self.pool = pool

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> LabelledEmbeddings:
        """Keep every labelled example."""
        return labelled_embeddings(self.compared(embeddings), targets, mask)

    def compare(
        self,
        summary: LabelledEmbeddings,
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """The logit that a query is of the class of its most similar support example."""
        logits = self.pair_logits(self.compared(embeddings), summary.embeddings)
        targets = summary.targets.to(logits.dtype)
        if self.pool == "mean":
            return logits @ targets / targets.sum(1, keepdim=True).clamp_min(1e-8)
        return class_maxima(logits, targets)

    def meta_loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The loss of all pairs of labelled examples of an episode."""
        compared = self.compared(torch.cat(self.embed(episodes), 1))
        targets, mask = concatenate(episodes.support, episodes.query)[1:]
        counted = counted_rows(targets, mask, "classification")
        return pair_loss(self.pair_logits(compared, compared), targets, counted).mean()

    def compared(
        self, embeddings: Float[Tensor, "tasks n dim"]
    ) -> Float[Tensor, "tasks n features"]:
        """What of embeddings is compared: h of the paper, or they themselves."""
        return embeddings if self.features is None else self.features(embeddings).sigmoid()

    def pair_logits(
        self, first: Float[Tensor, "tasks m features"], second: Float[Tensor, "tasks n features"]
    ) -> Float[Tensor, "tasks m n"]:
        """The logit that each of the first and of the second are of one class."""
        return self.bias + weighted_city_block(first, second, 64 / len(self.alpha) * self.alpha)


def pair_loss(
    logits: Float[Tensor, "tasks n n"],
    targets: Float[Tensor, "tasks n way"],
    counted: Bool[Tensor, "tasks n"],
) -> Float[Tensor, " tasks"]:
    """Binary cross-entropy of pairs: the mean over those of one class and over those of two.

    Args:
        logits: that the two examples of a pair are of one class.
        targets: classes of the examples.
        counted: which examples there are.
    """
    targets = targets.to(logits.dtype)
    same = targets @ targets.mT  # the probability of it, where labels are soft
    n = logits.shape[-1]
    pairs = counted.unsqueeze(-1) & counted.unsqueeze(-2)
    pairs = pairs & torch.ones(n, n, dtype=torch.bool, device=logits.device).triu(1)

    def mean(losses: Tensor, weights: Tensor) -> Tensor:
        weights = weights * pairs
        return (losses * weights).sum((-2, -1)) / weights.sum((-2, -1)).clamp_min(1e-8)

    return (mean(F.softplus(-logits), same) + mean(F.softplus(logits), 1 - same)) / 2
