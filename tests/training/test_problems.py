"""Problems to learn optimization on are what they say, and no problem depends on another."""

import math

import pytest
import torch
from torch import nn

from kshot.training.problems import classifiers, digits, gaussian_processes, quadratics


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_expected_loss_of_quadratics_where_they_start():
    """E |y|^2 = dim where theta is near zero, and dim^2 |theta|^2 + dim elsewhere."""
    problem = quadratics(4000, generator=generator())
    start = problem.loss(problem.init, 0)
    assert start.mean().item() == pytest.approx(10, abs=0.3)
    ones = {"theta": torch.ones(4000, 10)}
    assert problem.loss(ones, 0).mean().item() == pytest.approx(10 * 10 + 10, abs=2.5)
    # W is square, so that somewhere the loss is zero: there by one step of Newton's method.
    zero = torch.zeros(4000, 10, requires_grad=True)
    (slope,) = torch.autograd.grad(problem.loss({"theta": zero}, 0).sum(), zero, create_graph=True)
    rows = [torch.autograd.grad(slope[:, k].sum(), zero, retain_graph=True)[0] for k in range(10)]
    newton = -torch.linalg.solve(torch.stack(rows, 1), slope.detach())
    assert problem.loss({"theta": newton}, 0).median() < 1e-6


def test_a_classifier_computes_what_a_network_of_pytorch_does():
    inputs, labels = digits()
    assert inputs.shape == (1797, 64) and inputs.min() == 0 and inputs.max() == 1
    problem = classifiers(
        3, (inputs, labels), widths=(7, 5), activation="relu", generator=generator()
    )
    assert [tuple(v.shape) for v in problem.init.values()] == [
        *((3, 64, 7), (3, 1, 7), (3, 7, 5), (3, 1, 5), (3, 5, 10), (3, 1, 10))
    ]
    # All examples equal: whatever a minibatch is, its loss is that of one example.
    same = classifiers(
        3,
        (inputs[:1].expand(9, -1), torch.full((9,), 9)),
        widths=(7, 5),
        activation="relu",
        generator=generator(),
    )
    losses = same.loss(same.init, 4)
    for number in range(3):
        net = nn.Sequential(
            nn.Linear(64, 7), nn.ReLU(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 10)
        )
        with torch.no_grad():
            for place, layer in enumerate(layer for layer in net if isinstance(layer, nn.Linear)):
                layer.weight.copy_(same.init[f"weight_{place}"][number].T)
                layer.bias.copy_(same.init[f"bias_{place}"][number, 0])
            expected = nn.functional.cross_entropy(net(inputs[:1]), torch.tensor([9]))
        torch.testing.assert_close(losses[number], expected)


def test_minibatches_are_a_function_of_the_step():
    problem = classifiers(2, digits(), generator=generator())
    first, again, other = (problem.loss(problem.init, step) for step in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first[0] != first[1]


def test_gaussian_processes_have_the_moments_of_their_kernel():
    problem = gaussian_processes(20_000, 2, lengthscale=0.3, generator=generator())
    x = torch.full((20_000, 2), 0.2)
    near = x + torch.tensor([0.3, 0.0])
    one, other = problem.loss({"x": x}, 0), problem.loss({"x": near}, 0)
    assert one.mean().item() == pytest.approx(0, abs=0.03)
    assert one.var().item() == pytest.approx(1, abs=0.04)
    assert (one * other).mean().item() == pytest.approx(math.exp(-0.5), abs=0.03)
    start = problem.init["x"]
    assert start.min() >= 0 and start.max() <= 1
