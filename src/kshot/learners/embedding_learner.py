"""Learners that see examples through an encoder only: what their files share."""

import copy
from abc import ABC, abstractmethod
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.conversion import split_affine
from kshot.backbones.normalization import (
    policy_for,
    reads_stored,
    reads_support,
    stored_statistics,
)
from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, Examples, Inputs
from kshot.learner import MetaLearner
from kshot.learners.embedding import embed_query, embed_support, embed_together
from kshot.learners.rotation import require_rotation, rotated_loss
from kshot.losses import Loss, counted_rows, cross_entropy

__all__ = ["EmbeddingLearner", "EmbeddingState", "LabelledEmbeddings", "labelled_embeddings"]

Summary = TypeVar("Summary")
"""What a learner makes of the embedded support set: tensors with a leading `tasks` dimension."""


class EmbeddingState(NamedTuple):
    """What is learned from a support set whose embeddings alone count.

    Attributes:
        summary: what the learner made of the embeddings: tensors (tasks, ...).
        support_inputs: (tasks, n, *shape), for BatchNorm policies that read them, else None.
        support_mask: (tasks, n), as `support_inputs`.
    """

    summary: Any
    support_inputs: Inputs | None
    support_mask: Bool[Tensor, "tasks n"] | None


class LabelledEmbeddings(NamedTuple):
    """The summary of a learner that keeps every labelled example.

    Attributes:
        embeddings: (tasks, n, dim).
        targets: (tasks, n, way), zero rows for what is not a labelled example.
    """

    embeddings: Float[Tensor, "tasks n dim"]
    targets: Float[Tensor, "tasks n way"]


def labelled_embeddings(
    embeddings: Float[Tensor, "tasks n dim"],
    targets: Float[Tensor, "tasks n way"],
    mask: Bool[Tensor, "tasks n"] | None,
) -> LabelledEmbeddings:
    """Keep the labelled examples, whatever the targets of padding hold."""
    counted = counted_rows(targets, mask, "classification")
    return LabelledEmbeddings(embeddings, targets.masked_fill(~counted.unsqueeze(-1), 0))


class EmbeddingLearner(MetaLearner[EmbeddingState], ABC, Generic[Summary]):
    """A learner that summarizes embeddings of the support set and compares queries with that.

    Subclasses say how, for embeddings (tasks, n, dim) of all tasks at once: `summarize` and
    `compare`. How pictures become embeddings, under each BatchNorm policy, is written here.

    Args:
        encoder: network f from inputs (n, *shape) to embeddings (n, dim). Its fused normalization
            layers are replaced in place, with the same outputs (`split_affine`).
        rotate_support: in meta-training, let each part of an episode's examples be the support in
            turn and the rest its queries. The objective stays the same, and the same embeddings
            tell more of it; it needs batch_norm "running", and labels that are classes.
        frozen: whether the encoder is used as it is: nothing of it is trained or written.
        batch_norm: where BatchNorm statistics come from.
        loss: loss of the query.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        rotate_support: bool = False,
        frozen: bool = False,
        batch_norm: BatchNormPolicy = "running",
        loss: Loss = cross_entropy,
    ) -> None:
        encoder = split_affine(encoder)
        super().__init__(loss=loss, batch_norm=policy_for(encoder, batch_norm))
        if rotate_support:
            require_rotation(loss, self.batch_norm)
        self.encoder = encoder.requires_grad_(False) if frozen else encoder
        self.frozen = frozen
        self.rotate_support = rotate_support

    @abstractmethod
    def summarize(
        self,
        embeddings: Float[Tensor, "tasks n dim"],
        targets: Float[Tensor, "tasks n way"],
        mask: Bool[Tensor, "tasks n"] | None,
    ) -> Summary:
        """What to keep of the support set."""

    @abstractmethod
    def compare(
        self,
        summary: Summary,
        embeddings: Float[Tensor, "tasks m dim"],
        mask: Bool[Tensor, "tasks m"] | None,
    ) -> Float[Tensor, "tasks m way"]:
        """Logits, or values, of queries."""

    def adapt(self, support: Examples) -> EmbeddingState:
        """Embed the support set and summarize it."""
        embeddings = embed_support(self.encoder, self.batch_norm, support.inputs, support.mask)
        with stored_statistics():  # of what subclasses normalize: adaptation stores nothing
            summary = self.summarize(embeddings, support.targets, support.mask)
        kept = reads_support(self.batch_norm)
        return EmbeddingState(
            summary, support.inputs if kept else None, support.mask if kept else None
        )

    def predict(
        self,
        state: EmbeddingState,
        inputs: Inputs,
        mask: Bool[Tensor, "tasks m"] | None = None,
    ) -> Float[Tensor, "tasks m way"]:
        """Embed the queries and compare them with the summary."""
        embeddings = embed_query(
            self.encoder, self.batch_norm, inputs, mask, state.support_inputs, state.support_mask
        )
        with stored_statistics():
            return self.compare(state.summary, embeddings, mask)

    def meta_loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The query loss; under "running", all examples of a meta-batch are embedded in one call.

        Support and query then share BatchNorm's statistics in training.
        """
        support, query = self.embed(episodes)
        if self.rotate_support and self.training:
            both = torch.cat([support, query], 1)
            return rotated_loss(
                self.loss,
                episodes,
                both,
                lambda *support: self.compare(self.summarize(*support), both, None),
            )
        summary = self.summarize(support, episodes.support.targets, episodes.support.mask)
        return self.query_loss(self.compare(summary, query, episodes.query.mask), episodes)

    def over_embeddings(self) -> "EmbeddingLearner[Summary]":
        """This learner for inputs that the encoder has embedded: all but the encoder is shared."""
        twin = copy.copy(self)
        twin._modules = {**self._modules, "encoder": nn.Identity()}
        return twin

    def embed(
        self, episodes: Episodes
    ) -> tuple[Float[Tensor, "tasks n dim"], Float[Tensor, "tasks m dim"]]:
        """Embeddings of support and query, as meta-training computes them."""
        if reads_stored(self.batch_norm) and not self.frozen:
            return embed_together(self.encoder, episodes)
        policy, (support, query, _) = self.batch_norm, episodes
        return (
            embed_support(self.encoder, policy, support.inputs, support.mask),
            embed_query(
                self.encoder, policy, query.inputs, query.mask, support.inputs, support.mask
            ),
        )
