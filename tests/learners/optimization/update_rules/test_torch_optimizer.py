"""A rule as a PyTorch optimizer steps as PyTorch's own do."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kshot.learners.optimization.update_rules import (
    SGD,
    Adam,
    GatedRule,
    LearnedOptimizer,
    LearnedRates,
    Momentum,
    UpdateRule,
    torch_optimizer,
)

RULES = {
    "sgd": (SGD(0.1), torch.optim.SGD, {"lr": 0.1}),
    "momentum": (Momentum(0.1), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "adam": (Adam(0.01), torch.optim.Adam, {"lr": 0.01}),
}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(8, 3, generator=generator, dtype=torch.float64)

        def closure(x: Tensor = x) -> Tensor:
            optimizer.zero_grad()
            loss = (network(x) - x[:, :2]).square().mean()
            loss.backward()
            return loss

        assert optimizer.step(closure) is not None
    return torch.cat([value.detach().flatten() for value in network.parameters()])


@pytest.mark.parametrize("name", RULES)
def test_it_steps_as_pytorchs_own(name: str):
    rule, kind, options = RULES[name]
    ours, theirs = net(), net()
    made: Any = kind(theirs.parameters(), **options)
    handed = torch_optimizer(rule, ours.named_parameters())
    assert isinstance(handed, torch.optim.Optimizer)
    torch.testing.assert_close(train(ours, handed, 6), train(theirs, made, 6))


def test_its_state_is_saved_and_loaded():
    whole, halved = net(), net()
    expected = train(whole, torch_optimizer(Adam(0.01), whole.named_parameters()), 1)
    first = torch_optimizer(Adam(0.01), halved.named_parameters())
    torch.testing.assert_close(train(halved, first, 1), expected)
    second = torch_optimizer(Adam(0.01), halved.named_parameters())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    after = train(halved, second, 1)
    other = net()
    optimizer = torch_optimizer(Adam(0.01), other.named_parameters())
    train(other, optimizer, 1)
    torch.testing.assert_close(train(other, optimizer, 1), after)


def test_a_learned_rule_knows_parameters_by_name():
    network = net()
    rule: UpdateRule = LearnedRates(dict(network.named_parameters()), 0.05, 0.05)
    plain = net()
    ours = train(network, torch_optimizer(rule, network.named_parameters()), 3)
    theirs = train(plain, torch.optim.SGD(plain.parameters(), lr=0.05), 3)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rule", [SGD(0.1), LearnedOptimizer(hidden=2), Momentum(0.1)])
def test_a_parameter_without_a_gradient_stays(rule: UpdateRule):
    network = net()
    frozen, unused, *others = network.parameters()
    frozen.requires_grad_(False)
    before = [value.detach().clone() for value in network.parameters()]
    optimizer = torch_optimizer(rule, network.named_parameters())
    for value in others:
        value.grad = torch.ones_like(value)
    optimizer.step()
    assert frozen.equal(before[0]) and unused.equal(before[1])
    assert not any(map(torch.equal, before[2:], others))


def test_a_rule_that_reads_the_loss_needs_a_closure():
    network = net()
    optimizer = torch_optimizer(GatedRule(), network.named_parameters())
    network(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
    with pytest.raises(ValueError, match=r"Call step\(closure\)"):
        optimizer.step()
