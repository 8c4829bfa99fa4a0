"""Apply a function of one task to every task of a batch: all at once, or one after the other."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kshot.backbones.normalization import stored_statistics
from kshot.episodes import Inputs, leaves, map_tensors, with_leaves

__all__ = ["Strategy", "choose_strategy", "forward_flops", "map_tasks"]

Strategy = Literal["auto", "vmap", "loop"]
"""How tasks are computed: vectorized by torch.func.vmap, in a Python loop, or chosen by size."""


def map_tasks(
    function: Callable[..., Any],
    *trees: Any,
    strategy: Literal["vmap", "loop"] = "vmap",
    chunk_size: int | None = None,
) -> Any:
    """Apply a function of one task to every task.

    Args:
        function: takes the trees of one task, without the leading `tasks` dimension, and returns a
            tensor or a (named) tuple or dictionary of tensors.
        trees: nested tuples and dictionaries of tensors (tasks, ...); None stays None.
        strategy: all tasks at once, or one after the other.
        chunk_size: with "vmap", how many tasks to vectorize at once, which bounds memory.

    Returns:
        What the function returns, every tensor with a leading `tasks` dimension.

    Example:
        >>> map_tasks(lambda x: x.sum(), torch.ones(3, 4))
        tensor([4., 4., 4.])
    """
    tensors = leaves(trees)
    if strategy == "loop":
        # Unbound at once: the backward pass of each single index would fill zeros for all tasks.
        tasks = zip(*(tensor.unbind() for tensor in tensors), strict=True)
        results = [function(*with_leaves(trees, task)) for task in tasks]
        return map_tensors(lambda *each: torch.stack(each), *results)

    def function_of_leaves(*task_tensors: Tensor) -> Any:
        return function(*with_leaves(trees, task_tensors))

    mapped = torch.func.vmap(function_of_leaves, chunk_size=chunk_size, randomness="different")
    # The CPU's fused attention has no batching rule: it would run task by task, with a warning.
    with sdpa_kernel(SDPBackend.MATH):
        return mapped(*tensors)


def choose_strategy(flops: int) -> Literal["vmap", "loop"]:
    """The strategy that "auto" stands for on a CPU; on a GPU it is always vmap.

    Under vmap, convolutions with weights of each task's own become grouped ones. For small tasks
    one large call beats many small ones; the grouped convolutions of large tasks are slower on a
    CPU than plain ones, task by task.

    Args:
        flops: floating-point operations of the network's forward pass on one task.
    """
    return "vmap" if flops <= _LARGEST_FOR_VMAP else "loop"


def forward_flops(network: nn.Module, inputs: Inputs) -> int:
    """Floating-point operations of a network's forward pass, counted in a pass that leaves nothing.

    Not of a copy: within `torch.func` transformations, parameters cannot be copied.
    """
    with (
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
        stored_statistics(),
        FlopCounterMode(display=False) as counter,
    ):
        network(inputs)
    return counter.get_total_flops()


_LARGEST_FOR_VMAP = 80_000_000
"""Between strided and pooled conv4 of five pictures: benchmarks/inner_loop.py times both ways."""
