"""Episodes: what every stage exchanges, a batch of tasks each with a support and a query set."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = [
    "Episodes",
    "Examples",
    "Inputs",
    "concatenate",
    "concatenate_inputs",
    "full_mask",
    "leaves",
    "map_tensors",
    "one_hot",
]

Inputs = Tensor | dict[str, Tensor]
"""What a network reads: a tensor (tasks, n, *shape), or a dictionary of such tensors."""


class Examples(NamedTuple):
    """Examples of a batch of tasks.

    Attributes:
        inputs: (tasks, n, *shape), or a dictionary of such tensors.
        targets: (tasks, n, way) class probabilities (mostly one-hot; a zero row is an unlabelled
            example), or (tasks, n, outputs) regression values.
        mask: (tasks, n), False where a row is padding, not an example at all. None: no padding.
    """

    inputs: Inputs
    targets: Float[Tensor, "tasks n way"]
    mask: Bool[Tensor, "tasks n"] | None = None


class Episodes(NamedTuple):
    """One draw of support and query from each task of a batch.

    Attributes:
        support: what the learner adapts on.
        query: what it is judged on.
        classes: (tasks, way) the data set's own class of each column, -1 for a padded column.
            None when columns are not classes (regression).
    """

    support: Examples
    query: Examples
    classes: Int[Tensor, "tasks way"] | None = None

    @property
    def present(self) -> Bool[Tensor, "tasks way"] | None:
        """Which columns are classes of the episode; None when there is no padding to tell."""
        return None if self.classes is None else self.classes >= 0

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Episodes":
        """The same episodes on a device, floating tensors in `dtype` when it is given."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype if tensor.is_floating_point() else None)

        return map_tensors(move, self)


def map_tensors(function: Callable[..., Any], *trees: Any) -> Any:
    """Apply `function` to the tensors at the same place of nested (named) tuples, lists and dicts.

    None stays None. Adapted states are such trees, so this slices, stacks and moves them.

    Example:
        >>> state = {"prototypes": torch.zeros(4, 5, 64)}
        >>> map_tensors(lambda tensor: tensor[:2], state)["prototypes"].shape
        torch.Size([2, 5, 64])
    """
    first = trees[0]
    if isinstance(first, Tensor):
        return function(*trees)
    if isinstance(first, dict):
        return {key: map_tensors(function, *(tree[key] for tree in trees)) for key in first}
    if isinstance(first, tuple | list):
        parts = [map_tensors(function, *branches) for branches in zip(*trees, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return first


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of nested (named) tuples, lists and dicts, in the order `map_tensors` sees them.

    Example:
        >>> [tensor.shape for tensor in leaves((torch.zeros(2), {"mask": None}))]
        [torch.Size([2])]
    """
    found: list[Tensor] = []
    map_tensors(found.append, tree)
    return found


def with_leaves(tree: Any, tensors: Iterable[Tensor]) -> Any:
    """The same tree with other tensors, in the order of `leaves`."""
    place = iter(tensors)
    return map_tensors(lambda _: next(place), tree)


def one_hot(
    labels: Int[Tensor, "*tasks n"], way: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "*tasks n way"]:
    """Target rows of integer labels in 0 .. way - 1; -1 gives a zero row (unlabelled).

    Raises:
        ValueError: for a label of `way` or more, on a CPU (a GPU would have to be waited for).
    """
    if labels.device.type == "cpu" and labels.numel() and int(labels.max()) >= way:
        raise ValueError(f"Labels must be below way = {way}, and one is {int(labels.max())}.")
    return (labels.unsqueeze(-1) == torch.arange(way, device=labels.device)).to(dtype)


def concatenate(first: Examples, second: Examples) -> Examples:
    """The examples of both sets of each task, `first`'s rows first."""
    mask = None
    if first.mask is not None or second.mask is not None:
        mask = torch.cat([full_mask(first), full_mask(second)], dim=1)
    return Examples(
        concatenate_inputs(first.inputs, second.inputs, dim=1),
        torch.cat([first.targets, second.targets], dim=1),
        mask,
    )


def concatenate_inputs(first: Inputs, second: Inputs, dim: int) -> Inputs:
    """Inputs joined along a dimension, key by key when they are dictionaries."""
    return map_tensors(lambda *tensors: torch.cat(tensors, dim), first, second)


def full_mask(examples: Examples) -> Bool[Tensor, "tasks n"]:
    """Which rows are examples, also where there is no padding to tell."""
    if examples.mask is not None:
        return examples.mask
    return torch.ones(examples.targets.shape[:2], dtype=torch.bool, device=examples.targets.device)
