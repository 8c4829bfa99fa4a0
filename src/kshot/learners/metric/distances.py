"""Distances and set statistics shared by the metric learners."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = [
    "class_maxima",
    "class_means",
    "cosines",
    "scaled_squared_distances",
    "squared_distances",
    "weighted_city_block",
]


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


def scaled_squared_distances(
    points: Float[Tensor, "tasks m dim"],
    centers: Float[Tensor, "tasks way dim"],
    scales: Float[Tensor, "tasks way dim"],
) -> Float[Tensor, "tasks m way"]:
    """Sum over dimensions of scale * (point - center)^2, each center with scales of its own.

    By two matrix products: no (m, way, dim) temporary. Rounding may leave less than zero.
    """
    with torch.autocast(points.device.type, enabled=False):
        points, centers, scales = map(_at_least_float32, (points, centers, scales))
        weighted = scales * centers
        squares = points.square() @ scales.mT - 2 * points @ weighted.mT
        return squares + (weighted * centers).sum(-1).unsqueeze(-2)


def cosines(
    points: Float[Tensor, "tasks m dim"], others: Float[Tensor, "tasks n dim"]
) -> Float[Tensor, "tasks m n"]:
    """Cosine of the angle between every point and every other one; 0 where one is zero."""
    with torch.autocast(points.device.type, enabled=False):
        points, others = _at_least_float32(points), _at_least_float32(others)
        return F.normalize(points, dim=-1) @ F.normalize(others, dim=-1).mT


def weighted_city_block(
    points: Float[Tensor, "tasks m dim"],
    others: Float[Tensor, "tasks n dim"],
    weights: Float[Tensor, " dim"],
) -> Float[Tensor, "tasks m n"]:
    """Sum over dimensions of weight * |point - other|, for weights of either sign.

    |weight| goes into the points and the difference of two unweighted distances is taken, of the
    positive and of the negative weights: no (m, n, dim) temporary.
    """
    with torch.autocast(points.device.type, enabled=False):
        points, others, weights = map(_at_least_float32, (points, others, weights))

        def distances(part: Tensor) -> Tensor:
            return torch.cdist(points * part, others * part, p=1)

        return distances(F.relu(weights)) - distances(F.relu(-weights))


def class_maxima(
    similarities: Float[Tensor, "tasks m n"], targets: Float[Tensor, "tasks n way"]
) -> Float[Tensor, "tasks m way"]:
    """The largest similarity to an example of every class; very low, but finite, without any."""
    absent = (targets == 0).mT.unsqueeze(1)
    lowest = torch.finfo(similarities.dtype).min / 2
    return similarities.unsqueeze(2).masked_fill(absent, lowest).amax(-1)


def _at_least_float32(values: Tensor) -> Tensor:
    """Differences of large products cancel: half precision would leave nothing of them."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
