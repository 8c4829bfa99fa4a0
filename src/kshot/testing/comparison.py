"""What the checks share: a copy in float64, one seed, trees of tensors that must agree."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kshot.episodes import Episodes, Examples, leaves, map_tensors
from kshot.learner import MetaLearner

__all__ = [
    "double_copy",
    "expect",
    "expect_same",
    "one_task",
    "predict_query",
    "predictions_of",
    "seeded",
    "trainable",
]

Result = TypeVar("Result")


def expect(condition: bool, contract: str) -> None:
    """Raise an AssertionError that states the broken contract, unless the condition holds."""
    if not condition:
        raise AssertionError(f"{contract[0].upper()}{contract[1:]}.")


def expect_same(actual: Any, expected: Any, contract: str, tolerance: float = 1e-8) -> None:
    """Expect that trees of tensors agree, relative to the largest number of the expected one."""
    pairs = list(zip(leaves(actual), leaves(expected), strict=True))
    expect(all(a.shape == b.shape for a, b in pairs), f"{contract}; shapes differ")
    numbers = [b for _, b in pairs if b.is_floating_point() and b.numel()]
    largest = max((b.abs().max().item() for b in numbers), default=0.0)
    for a, b in pairs:
        if not b.is_floating_point():
            expect(torch.equal(a, b), contract)
        elif b.numel():
            error = (a - b).abs().max().item() / max(largest, 1e-30)
            expect(error <= tolerance, f"{contract}; they are {error:.1e} apart (relative)")


def double_copy(learner: MetaLearner, episodes: Episodes) -> tuple[MetaLearner, Episodes]:
    """A copy of the learner in float64, and the episodes in float64 beside it."""
    tensors = [*learner.parameters(), *learner.buffers(), *leaves(episodes)]
    return copy.deepcopy(learner).double(), episodes.to(tensors[0].device, torch.float64)


def seeded(seed: int | None, function: Callable[[], Result]) -> Result:
    """What a function returns when the global generator starts from a seed; None leaves it."""
    if seed is None:
        return function()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return function()


def predictions_of(learner: MetaLearner, episodes: Episodes) -> Tensor:
    """Predictions of the query after adaptation to the support."""
    return predict_query(learner, learner.adapt(episodes.support), episodes.query)


def predict_query(learner: MetaLearner, state: Any, query: Examples) -> Tensor:
    """Predictions of the query from a state."""
    return learner.predict(state, query.inputs, query.mask)


def one_task(tree: Any, task: int) -> Any:
    """The batch of one task out of a batch."""
    return map_tensors(lambda tensor: tensor[task : task + 1], tree)


def trainable(learner: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen."""
    return [parameter for parameter in learner.parameters() if parameter.requires_grad]
