"""Matching networks: a query takes the labels of the support examples it resembles."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.heads import embedding_dim
from kshot.config import BatchNormPolicy
from kshot.episodes import Inputs
from kshot.learners.embedding import embed_query
from kshot.learners.embedding_learner import (
    EmbeddingLearner,
    EmbeddingState,
    LabelledEmbeddings,
    labelled_embeddings,
)
from kshot.learners.metric.distances import cosines, squared_distances
from kshot.learners.metric.full_context import QueryContext, SupportContext
from kshot.learners.papers import VINYALS_2016
from kshot.losses import Loss, cross_entropy
from kshot.options import checks_options

__all__ = ["MatchingNet", "log_attention"]


class MatchingNet(EmbeddingLearner[LabelledEmbeddings]):
    """Matching networks: attention over the support examples, whose labels are mixed.

    The probability of class k for a query x is (equation 1 of the paper)

        sum of a(x, x_i) y_ik over the support,   a = softmax over i of similarity(f(x), g(x_i)).

    The similarity is a cosine times a scale, which is learned (a bare cosine, between -1 and 1,
    cannot tell twenty classes apart), or minus the squared Euclidean distance. f and g are the
    encoder; with full context embeddings, g also reads the rest of the support set in its order
    (`SupportContext`) and f the support set too (`QueryContext`).

    State:
        `EmbeddingState` of a `LabelledEmbeddings`: embeddings and targets of the support set.

    Args:
        encoder: network from inputs (n, *shape) to embeddings (n, dim).
        similarity: what examples are compared by.
        scale: of the cosine, at the start; None takes 10.
        full_context: whether an embedding depends on the support set.
        num_reads: with `full_context`, times a query reads the support set; None takes 5.
        rotate_support: in meta-training, let each part of an episode's examples be the support in
            turn; it needs batch_norm "running".
        batch_norm: where BatchNorm statistics come from.
        loss: loss of the query.

    Raises:
        ValueError: for a scale of distances, and for reads without full context.

    Example:
        >>> from kshot.episodes import Examples
        >>> learner = MatchingNet(nn.Identity())
        >>> support = Examples(torch.eye(3).expand(4, 3, 3), torch.eye(3).expand(4, 3, 3))
        >>> state = learner.adapt(support)
        >>> learner.predict(state, torch.eye(3).expand(4, 3, 3))[0, 0].detach()
        tensor([10.,  0.,  0.])

    Reference:
        Matching Networks for One Shot Learning. NeurIPS 2016. https://arxiv.org/abs/1606.04080
    """

    paper = VINYALS_2016

    @checks_options
    def __init__(
        self,
        encoder: nn.Module,
        *,
        similarity: Literal["cosine", "euclidean"] = "cosine",
        scale: float | None = None,
        full_context: bool = False,
        num_reads: int | None = None,
        rotate_support: bool = False,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(encoder, rotate_support=rotate_support, batch_norm=batch_norm, loss=loss)
        if scale is not None and similarity != "cosine":
            raise ValueError("A scale is of cosines: leave it out, or take similarity='cosine'.")
        if num_reads is not None and not full_context:
            raise ValueError("num_reads is of full context embeddings: set full_context=True.")
        self.scale = None
        if similarity == "cosine":
            self.scale = nn.Parameter(torch.tensor(10.0 if scale is None else float(scale)))
        self.classes_apart = not full_context
        self.support_context = self.query_context = None
        if full_context:
            self.support_context = SupportContext(embedding_dim(encoder))
            self.query_context = QueryContext(
                embedding_dim(encoder), 5 if num_reads is None else num_reads
            )

    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> LabelledEmbeddings:
        """Keep every labelled example."""
        kept = labelled_embeddings(embeddings, targets, mask)
        if self.support_context is None:
            return kept
        return kept._replace(embeddings=self.support_context(embeddings, kept.targets.sum(-1) > 0))

    def compare(
        self,
        summary: LabelledEmbeddings,
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Logarithms of the attention to each class."""
        return log_attention(self._similarities(summary, embeddings), summary.targets)

    def attention(
        self, state: EmbeddingState, inputs: Inputs, mask: Bool[Tensor, "tasks m"] | None = None
    ) -> Float[Tensor, "tasks 1 m n"]:
        """How much of its attention each query gives to each support example; rows sum to 1."""
        embeddings = embed_query(
            self.encoder, self.batch_norm, inputs, mask, state.support_inputs, state.support_mask
        )
        similarities = self._similarities(state.summary, embeddings)
        absent = (state.summary.targets.sum(-1) == 0).unsqueeze(1)
        lowest = torch.finfo(similarities.dtype).min
        return similarities.masked_fill(absent, lowest).softmax(-1).unsqueeze(1)

    def _similarities(
        self, summary: LabelledEmbeddings, embeddings: Float[Tensor, "tasks m dim"]
    ) -> Float[Tensor, "tasks m n"]:
        """How alike each query and each support example are."""
        if self.query_context is not None:
            counted = summary.targets.sum(-1) > 0
            embeddings = self.query_context(embeddings, summary.embeddings, counted)
        if self.scale is None:
            return -squared_distances(embeddings, summary.embeddings)
        return self.scale * cosines(embeddings, summary.embeddings)


def log_attention(
    similarities: Float[Tensor, "tasks m n"], targets: Float[Tensor, "tasks n way"]
) -> Float[Tensor, "tasks m way"]:
    """Logits whose softmax is the attention that each class gets from similarities.

    In logarithms, so that small attention keeps its gradient; finite for classes without examples.
    """
    nothing = torch.finfo(similarities.dtype).min / 2  # still finite with a similarity added
    labels = targets.mT.unsqueeze(1).to(similarities.dtype)  # (tasks, 1, way, n)
    weights = torch.where(labels > 0, labels, torch.ones_like(labels)).log()
    weights = weights.masked_fill(labels == 0, nothing)
    return torch.logsumexp(similarities.unsqueeze(2) + weights, dim=-1)
