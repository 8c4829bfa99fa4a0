"""Embed the examples of a batch of tasks, under a BatchNorm policy."""

import contextlib
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kshot.backbones.normalization import (
    apply_to_query,
    apply_to_support,
    reads_stored,
    stored_statistics,
)
from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, Inputs, concatenate, leaves, map_tensors
from kshot.learners.task_map import map_tasks

__all__ = [
    "embed_examples",
    "embed_pooled",
    "embed_query",
    "embed_support",
    "embed_together",
    "encoder_of",
]


def encoder_of(learner: nn.Module) -> nn.Module:
    """The network to embeddings within a learner: what it has beneath its head.

    Raises:
        ValueError: when it has none.
    """
    for holder in (learner, getattr(learner, "net", None)):
        encoder = getattr(holder, "encoder", None)
        if isinstance(encoder, nn.Module):
            return encoder
    raise ValueError(f"{type(learner).__name__} has no encoder that another learner could use.")


def embed_pooled(
    encoder: nn.Module,
    inputs: Inputs,
    mask: Bool[Tensor, "tasks n"] | None,
    *,
    update_statistics: bool = False,
) -> Float[Tensor, "tasks n dim"]:
    """Embeddings of the examples of all tasks in one call of the encoder.

    Args:
        encoder: network from (examples, *shape) to (examples, dim).
        inputs: (tasks, n, *shape).
        mask: False rows are not shown to the encoder; their embedding is zero.
        update_statistics: let BatchNorm use and remember the batch's statistics in training mode;
            otherwise it reads its running averages.
    """
    num_tasks, size = _batch_shape(inputs)

    def flatten(tensor: Tensor) -> Tensor:
        flat = tensor.flatten(0, 1)
        return flat if mask is None else flat[mask.flatten()]

    with contextlib.nullcontext() if update_statistics else stored_statistics():
        embeddings = embed_examples(encoder, map_tensors(flatten, inputs))
    if mask is not None:
        scattered = embeddings.new_zeros(num_tasks * size, embeddings.shape[1])
        embeddings = scattered.masked_scatter(mask.flatten().unsqueeze(1), embeddings)
    return embeddings.view(num_tasks, size, embeddings.shape[1])


def embed_together(
    encoder: nn.Module, episodes: Episodes
) -> tuple[Float[Tensor, "tasks n dim"], Float[Tensor, "tasks m dim"]]:
    """Embeddings of support and query, all tasks in one call, as "running" trains its averages.

    Support and query share BatchNorm's statistics in training mode, which also remembers them.
    """
    both = concatenate(episodes.support, episodes.query)
    embeddings = embed_pooled(encoder, both.inputs, both.mask, update_statistics=True)
    size = episodes.support.targets.shape[1]
    return embeddings[:, :size], embeddings[:, size:]


def embed_support(
    encoder: nn.Module,
    policy: BatchNormPolicy,
    inputs: Inputs,
    mask: Bool[Tensor, "tasks n"] | None,
) -> Float[Tensor, "tasks n dim"]:
    """Embeddings of each task's support inputs (tasks, n, *shape)."""
    if reads_stored(policy):
        return embed_pooled(encoder, inputs, mask)
    return map_tasks(
        lambda inputs, mask: apply_to_support(_network(encoder), policy, inputs, mask), inputs, mask
    )


def embed_query(
    encoder: nn.Module,
    policy: BatchNormPolicy,
    inputs: Inputs,
    mask: Bool[Tensor, "tasks m"] | None,
    support_inputs: Inputs | None,
    support_mask: Bool[Tensor, "tasks n"] | None,
) -> Float[Tensor, "tasks m dim"]:
    """Embeddings of each task's query inputs (tasks, m, *shape)."""
    if reads_stored(policy):
        return embed_pooled(encoder, inputs, mask)

    def embed_one_task(
        inputs: Inputs,
        mask: Tensor | None,
        support_inputs: Inputs | None,
        support_mask: Tensor | None,
    ) -> Tensor:
        return apply_to_query(_network(encoder), policy, inputs, mask, support_inputs, support_mask)

    return map_tasks(embed_one_task, inputs, mask, support_inputs, support_mask)


def _network(encoder: nn.Module) -> Callable[[Inputs], Tensor]:
    return lambda inputs: embed_examples(encoder, inputs)


def embed_examples(encoder: nn.Module, inputs: Inputs) -> Float[Tensor, "n dim"]:
    """Embeddings of examples (n, *shape), one each.

    Raises:
        ValueError: when the encoder gives anything else.
    """
    embeddings = encoder(inputs)
    size = _batch_shape(inputs)[0]
    if embeddings.dim() != 2 or embeddings.shape[0] != size:
        raise ValueError(
            f"The encoder gave outputs of shape {tuple(embeddings.shape)} for {size} examples; "
            f"expected ({size}, embedding). End it with a flatten or a mean over space."
        )
    return embeddings


def _batch_shape(inputs: Inputs) -> torch.Size:
    return leaves(inputs)[0].shape[:2]
