"""Distances and set statistics shared by the metric learners."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["class_means", "squared_distances"]


def class_means(
    embeddings: Float[Tensor, "tasks n dim"],
    targets: Float[Tensor, "tasks n way"],
    mask: Bool[Tensor, "tasks n"] | None = None,
) -> Float[Tensor, "tasks way dim"]:
    """Mean embedding of every class, examples weighted by their class probabilities.

    Unlabelled rows are zero rows of `targets`; a class without examples has mean zero.
    """
    if mask is not None:
        targets = targets.masked_fill(~mask.unsqueeze(-1), 0)
    with torch.autocast(embeddings.device.type, enabled=False):
        embeddings, targets = _at_least_float32(embeddings), _at_least_float32(targets)
        totals = targets.transpose(-2, -1) @ embeddings
        return totals / targets.sum(-2).clamp_min(1e-8).unsqueeze(-1)


def squared_distances(
    points: Float[Tensor, "tasks m dim"], centers: Float[Tensor, "tasks way dim"]
) -> Float[Tensor, "tasks m way"]:
    """Squared Euclidean distances by one matrix product: no (m, way, dim) temporary."""
    with torch.autocast(points.device.type, enabled=False):
        points, centers = _at_least_float32(points), _at_least_float32(centers)
        products = points @ centers.transpose(-2, -1)
        point_norms = points.square().sum(-1).unsqueeze(-1)
        return point_norms - 2 * products + centers.square().sum(-1).unsqueeze(-2)


def _at_least_float32(values: Tensor) -> Tensor:
    """Differences of large products cancel: half precision would leave nothing of them."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
