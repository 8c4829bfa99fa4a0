"""Pre-training as one supervised problem: all classes of all tasks told apart."""

from abc import ABC
from typing import Generic

from jaxtyping import Float, Int
from torch import Tensor, nn

from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, concatenate, one_hot
from kshot.learners.embedding import embed_pooled
from kshot.learners.embedding_learner import EmbeddingLearner, Summary
from kshot.losses import Loss

__all__ = ["PretrainedLearner", "targets_among_all"]


class PretrainedLearner(EmbeddingLearner[Summary], ABC, Generic[Summary]):
    """A learner over embeddings of an encoder that was trained to tell all training classes apart.

    Args:
        encoder: network from inputs (n, *shape) to embeddings (n, dim).
        head: from embeddings to the logits of all training classes; only pre-training uses it.
        batch_norm: where BatchNorm statistics come from on new tasks; pre-training always uses,
            and remembers, those of its batch.
        loss: loss of pre-training, and of the query.
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Module, *, batch_norm: BatchNormPolicy, loss: Loss
    ) -> None:
        super().__init__(encoder, batch_norm=batch_norm, loss=loss)
        self.head = head

    def meta_loss(self, episodes: Episodes) -> Float[Tensor, ""]:
        """The joint loss of all support and query examples of all tasks."""
        examples = concatenate(episodes.support, episodes.query)
        embeddings = embed_pooled(
            self.encoder, examples.inputs, examples.mask, update_statistics=True
        ).flatten(0, 1)
        mask = None if examples.mask is None else examples.mask.flatten()
        if self.training:
            self.observe((embeddings if mask is None else embeddings[mask]).detach())
        logits = self.head(embeddings)
        targets = targets_among_all(examples.targets, episodes.classes, logits.shape[-1])
        return self.loss(logits, targets.flatten(0, 1), mask)

    def observe(self, embeddings: Float[Tensor, "n dim"]) -> None:
        """Remember what is needed of embeddings in pre-training: nothing, unless said otherwise."""


def targets_among_all(
    targets: Float[Tensor, "tasks n way"],
    classes: Int[Tensor, "tasks way"] | None,
    num_classes: int,
) -> Float[Tensor, "tasks n classes"]:
    """Target rows over all training classes instead of those of the episode.

    Raises:
        ValueError: when the episodes do not say their `classes`, or have more of them.
    """
    if classes is None:
        raise ValueError(
            "Pre-training tells all training classes apart, so episodes need `classes`: "
            "the data set's own class of each column."
        )
    largest = int(classes.max())
    if largest >= num_classes:
        raise ValueError(
            f"The episodes have class {largest}, counted from 0, and the network has "
            f"{num_classes} outputs, one for each training class: build it with "
            f"num_outputs={largest + 1} or more, and train on the training split only."
        )
    return targets @ one_hot(classes, num_classes, targets.dtype)
