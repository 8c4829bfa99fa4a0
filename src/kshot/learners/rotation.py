"""More of an episode from the same embeddings: each part of its examples is the support in turn."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kshot.backbones.normalization import reads_stored
from kshot.config import BatchNormPolicy
from kshot.episodes import Episodes, concatenate
from kshot.losses import Loss, mask_absent

__all__ = ["require_rotation", "rotated_loss"]


def require_rotation(loss: Loss, batch_norm: BatchNormPolicy) -> None:
    """Check that episodes can be rotated.

    Raises:
        ValueError: in regression, and where support and query are not embedded together.
    """
    if loss.kind == "regression":
        raise ValueError("rotate_support=True needs labels that are classes, not regression.")
    if not reads_stored(batch_norm):
        raise ValueError(
            f"rotate_support=True embeds support and query together, so batch_norm must be "
            f"'running', not {batch_norm!r}."
        )


def rotated_loss(
    loss: Loss,
    episodes: Episodes,
    embeddings: Float[Tensor, "tasks n dim"],
    logits_from: Callable[[Tensor, Tensor, Tensor], Float[Tensor, "tasks n way"]],
) -> Float[Tensor, ""]:
    """The mean of the query losses in which each part of the examples is the support.

    A part has as many examples of each class as the support set; what does not fill a part is
    always a query.

    Args:
        loss: of the queries.
        episodes: whose support and then query are the examples.
        embeddings: of all examples.
        logits_from: from the embeddings, target rows and mask of a support set, the logits of all
            examples.
    """
    targets, mask = concatenate(episodes.support, episodes.query)[1:]
    targets = targets if mask is None else targets * mask.unsqueeze(-1)
    support = targets[:, : episodes.support.targets.shape[1]]
    shots, counts = support.sum(1, keepdim=True), targets.sum(1, keepdim=True)
    # The place of each example within its class, and the part of the class it falls into.
    place = ((targets.cumsum(1) - 1) * targets).sum(-1)
    part = place // (shots * targets).sum(-1).clamp_min(1)
    labelled = targets.sum(-1) > 0
    # As many turns as every class of a task has whole parts.
    whole = torch.where(shots > 0, counts // shots.clamp_min(1), counts.amax())
    turns = whole.flatten(1).amin(1)
    total = embeddings.new_zeros(len(turns))
    for turn in range(int(turns.max())):
        # A task that has had all its turns begins again, and does not count.
        chosen: Bool[Tensor, "tasks n"] = labelled & (part == (turn % turns).unsqueeze(1))
        # Their rows, in the order they have, then others up to the largest task's, masked out.
        first = chosen.int().argsort(dim=1, descending=True, stable=True)
        rows = first[:, : int(chosen.sum(1).max())].unsqueeze(-1)
        logits = logits_from(
            embeddings.take_along_dim(rows, 1),
            targets.take_along_dim(rows, 1),
            chosen.take_along_dim(rows.squeeze(-1), 1),
        )
        logits = mask_absent(logits, episodes.present)
        total = total + loss(logits, targets * ~chosen.unsqueeze(-1)) * (turn < turns)
    return (total / turns).mean()
