"""Other tasks made from given ones: of another way, or easy to learn."""

import math

import torch
from torch import Tensor

from kshot.episodes import Episodes, Examples, concatenate, leaves, map_tensors

__all__ = ["separable", "twice_the_way", "without_last_class"]


def twice_the_way(examples: Examples) -> Examples:
    """Each task's examples, and those of the next task as further classes."""
    following = map_tensors(lambda tensor: tensor.roll(-1, 0), examples)
    absent = torch.zeros_like(examples.targets)
    return concatenate(
        examples._replace(targets=torch.cat([examples.targets, absent], dim=-1)),
        following._replace(targets=torch.cat([absent, following.targets], dim=-1)),
    )


def without_last_class(examples: Examples) -> Examples:
    """Examples without the last column; the rows of that class become padding."""
    others = examples.targets[..., -1] == 0
    mask = others if examples.mask is None else examples.mask & others
    return examples._replace(targets=examples.targets[..., :-1], mask=mask)


def separable(episodes: Episodes, kind: str, seed: int = 0) -> Episodes:
    """Episodes of the same shapes that are easy to learn.

    In classification each class is a center with some noise around it; in regression targets are
    linear in the inputs. Inputs that are not floating (tokens) stay as they are.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, like: Tensor) -> Tensor:
        return torch.randn(*shape, generator=generator).to(like)

    if kind == "regression":
        inputs = _floating(episodes.support)
        dims = [math.prod(x.shape[2:]) for x in inputs]
        outputs = episodes.support.targets.shape[-1]
        slopes = [normal(len(x), d, outputs, like=x) for x, d in zip(inputs, dims, strict=True)]

        def with_targets(examples: Examples) -> Examples:
            terms = zip(_floating(examples), slopes, strict=True)
            return examples._replace(
                targets=sum(x.reshape(*x.shape[:2], -1) @ slope for x, slope in terms)
                / sum(dims) ** 0.5
            )

        return episodes._replace(
            support=with_targets(episodes.support), query=with_targets(episodes.query)
        )

    way = episodes.support.targets.shape[-1]
    centers = [normal(len(x), way, *x.shape[2:], like=x) for x in _floating(episodes.support)]

    def with_inputs(examples: Examples) -> Examples:
        place = iter(centers)

        def around_centers(x: Tensor) -> Tensor:
            if not x.is_floating_point():
                return x
            mean = examples.targets.to(x) @ next(place).reshape(len(x), way, -1)
            return mean.view_as(x) + 0.3 * normal(*x.shape, like=x)

        return examples._replace(inputs=map_tensors(around_centers, examples.inputs))

    return episodes._replace(
        support=with_inputs(episodes.support), query=with_inputs(episodes.query)
    )


def _floating(examples: Examples) -> list[Tensor]:
    return [x for x in leaves(examples.inputs) if x.is_floating_point()]
