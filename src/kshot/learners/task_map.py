"""Apply a function of one task to every task of a batch: all at once, or one after the other."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kshot.episodes import map_tensors

__all__ = ["Strategy", "map_tasks"]

Strategy = Literal["auto", "vmap", "loop"]
"""How tasks are computed: vectorized by torch.func.vmap, in a Python loop, or chosen by size."""


def map_tasks(
    function: Callable[..., Any],
    *trees: Any,
    strategy: Strategy = "auto",
    chunk_size: int | None = None,
) -> Any:
    """Apply a function of one task to every task.

    Args:
        function: takes the trees of one task, without the leading `tasks` dimension, and returns a
            tensor or a (named) tuple or dictionary of tensors.
        trees: nested tuples and dictionaries of tensors (tasks, ...); None stays None.
        strategy: see `choose_strategy` for "auto".
        chunk_size: with "vmap", how many tasks to vectorize at once, which bounds memory.

    Returns:
        What the function returns, every tensor with a leading `tasks` dimension.

    Example:
        >>> map_tasks(lambda x: x.sum(), torch.ones(3, 4))
        tensor([4., 4., 4.])
    """
    leaves: list[Tensor] = []
    map_tensors(leaves.append, trees)
    num_tasks = leaves[0].shape[0]
    if strategy == "auto":
        strategy = choose_strategy(leaves)
    if strategy == "loop":
        results = [
            function(*map_tensors(lambda tensor, task=task: tensor[task], trees))
            for task in range(num_tasks)
        ]
        return map_tensors(lambda *tensors: torch.stack(tensors), *results)

    def function_of_leaves(*task_leaves: Tensor) -> Any:
        place = iter(task_leaves)
        return function(*map_tensors(lambda _: next(place), trees))

    mapped = torch.func.vmap(function_of_leaves, chunk_size=chunk_size, randomness="different")
    # The CPU's fused attention has no batching rule: it would run task by task, with a warning.
    with sdpa_kernel(SDPBackend.MATH):
        return mapped(*leaves)


def choose_strategy(leaves: list[Tensor]) -> Strategy:
    """The strategy that "auto" stands for."""
    return "vmap"
