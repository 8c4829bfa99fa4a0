"""map_tasks: every strategy gives what a loop over tasks gives."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kshot.backbones.conv4 import Conv4
from kshot.backbones.mlp import MLP
from kshot.episodes import leaves, map_tensors
from kshot.learners.task_map import Strategy, choose_strategy, forward_flops, map_tasks

STRATEGIES: list[dict[str, Any]] = [
    {},
    {"strategy": "loop"},
    {"strategy": "vmap"},
    {"strategy": "vmap", "chunk_size": 1},
    {"strategy": "vmap", "chunk_size": 3},
    {"strategy": "vmap", "chunk_size": 99},
]


class Result(NamedTuple):
    total: Tensor
    named: dict[str, Tensor]


def one_task(inputs: dict[str, Tensor], pair: tuple[Tensor, None], mask: Tensor | None) -> Result:
    """A function of one task that sees no tasks dimension, and None where None was given."""
    x, nothing = pair
    assert nothing is None and x.shape == (4, 2) and inputs["a"].shape == (3,)
    weight = torch.ones(4, dtype=x.dtype) if mask is None else mask.to(x.dtype)
    return Result((x.sum(1) * weight).sum(), {"b": inputs["a"] * x.mean(), "same": torch.ones(2)})


@pytest.mark.parametrize("options", STRATEGIES, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_strategies_agree(options: dict[str, Any], masked: bool):
    torch.manual_seed(0)
    inputs = {"a": torch.randn(5, 3)}
    x = torch.randn(5, 4, 2)
    mask = torch.rand(5, 4) > 0.5 if masked else None
    result = map_tasks(one_task, inputs, (x, None), mask, **options)
    assert isinstance(result, Result)
    for task in range(5):
        alone = one_task({"a": inputs["a"][task]}, (x[task], None), mask[task] if masked else None)  # pyright: ignore
        map_tensors(
            lambda part, whole, task=task: torch.testing.assert_close(whole[task], part),
            alone,
            result,
        )
    assert result.named["same"].shape == (5, 2), "what does not depend on the task is repeated"


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
def test_gradients_flow_through(strategy: Strategy):
    weight = torch.tensor([2.0, 3.0], requires_grad=True)
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    result = map_tasks(lambda x: (weight * x).square().sum(), x, strategy=strategy)
    gradients = torch.autograd.grad(result.sum(), (weight, x))
    torch.testing.assert_close(gradients[0], 2 * weight.detach() * x.detach().square().sum(0))
    torch.testing.assert_close(gradients[1], 2 * weight.detach() ** 2 * x.detach())


class NumbersMade(TorchDispatchMode):
    """Counts the elements of what operations return."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.count += sum(tensor.numel() for tensor in leaves((made,)))
        return made


def test_the_backward_pass_of_a_loop_is_linear_in_the_tasks():
    def numbers_made(tasks: int) -> int:
        x = torch.ones(tasks, 1000, requires_grad=True)
        total = map_tasks(lambda x: x.sum(), x, strategy="loop").sum()
        with NumbersMade() as made:
            total.backward()
        return made.count

    assert numbers_made(20) < 3 * numbers_made(10)


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
def test_one_task_is_a_batch_of_one(strategy: Strategy):
    assert map_tasks(lambda x: x + 1, torch.zeros(1, 3), strategy=strategy).shape == (1, 3)


def test_random_numbers_differ_between_tasks():
    torch.manual_seed(0)
    drawn = map_tasks(lambda x: x + torch.rand_like(x), torch.zeros(3, 2), strategy="vmap")
    assert drawn.unique().numel() == 6


def test_auto_takes_vmap_for_small_tasks_and_a_loop_for_large_ones():
    strided, pooled = Conv4((1, 28, 28), strided=True), Conv4((1, 28, 28))
    one_shot, fifteen = torch.zeros(5, 1, 28, 28), torch.zeros(75, 1, 28, 28)
    assert choose_strategy(forward_flops(strided, one_shot)) == "vmap"
    assert choose_strategy(forward_flops(strided, fifteen)) == "loop"
    assert choose_strategy(forward_flops(pooled, one_shot)) == "loop"
    assert choose_strategy(forward_flops(pooled, fifteen)) == "loop"
    assert choose_strategy(forward_flops(MLP((1,)), torch.zeros(100, 1))) == "vmap"


def test_counting_operations_changes_nothing():
    network = Conv4((1, 28, 28), hidden=2).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    # 3x3 convolutions over 1 and 2 channels, two operations for each multiplication and addition.
    assert forward_flops(network, torch.zeros(1, 1, 28, 28)) == 2 * 9 * 2 * (
        28 * 28 + 2 * (14 * 14 + 7 * 7 + 3 * 3)
    )
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
