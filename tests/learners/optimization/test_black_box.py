"""The network that minimizes without gradients: what it sees, its losses, and that it learns."""

import pytest
import torch

from kshot.learners.optimization.black_box import BlackBoxOptimizer
from kshot.training.problems import classifiers, digits, gaussian_processes
from kshot.training.truncated import backpropagated, train_unrolled
from kshot.training.unroll import losses_along, search


def problem(num: int = 5, seed: int = 0):
    return gaussian_processes(num, 2, generator=torch.Generator().manual_seed(seed))


def test_it_looks_where_the_values_so_far_say():
    torch.manual_seed(0)
    optimizer = BlackBoxOptimizer(2, hidden=8)
    x, y = optimizer.minimize(lambda x: problem().loss({"x": x}, 0), 6, 5)
    assert x.shape == (6, 5, 2) and x.min() > 0 and x.max() < 1
    assert torch.equal(x[0], x[0, :1].expand(5, 2)), "nothing is known yet"
    torch.testing.assert_close(y, torch.stack([problem().loss({"x": each}, 0) for each in x]))
    torch.testing.assert_close(losses_along(search(problem(), optimizer), 6), y)

    def changed(x: torch.Tensor) -> torch.Tensor:
        return problem().loss({"x": x}, 0) + torch.tensor([0, 0, 1.0, 0, 0])

    other, _ = optimizer.minimize(changed, 6, 5)
    same = (other == x).flatten(1).view(6, 5, 2).all(-1)
    assert same[0].all() and same[1:, [0, 1, 3, 4]].all() and not same[1:, 2].any()


def test_observed_improvement_by_its_definition():
    """The sum of min(y_t - lowest of the earlier, 0), the mean of functions being the first."""
    torch.manual_seed(0)
    optimizer = BlackBoxOptimizer(2, hidden=8)
    values = losses_along(search(problem(), optimizer), 6)
    losses = losses_along(search(problem(), optimizer, observed_improvement=True), 6)
    for number in range(5):
        lowest = 0.0
        for value, loss in zip(values[:, number].tolist(), losses[:, number], strict=True):
            torch.testing.assert_close(loss, torch.tensor(min(value - lowest, 0.0)))
            lowest = value if lowest == 0.0 else min(lowest, value)


def test_functions_of_something_else_are_refused():
    with pytest.raises(ValueError, match=r"3 dimensions .* \(3,\) each; these are of x \(2,\)"):
        search(problem(), BlackBoxOptimizer(3))
    networks = classifiers(2, digits(), generator=torch.Generator())
    with pytest.raises(ValueError, match=r"these are of .*bias"):
        search(networks, BlackBoxOptimizer(2))


def test_gradients_flow_through_the_values():
    optimizer = BlackBoxOptimizer(2, hidden=8)
    for _ in backpropagated(search(problem(), optimizer), 4, 4):
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in optimizer.parameters())


@pytest.mark.slow
def test_it_learns_to_find_lower_values():
    torch.manual_seed(0)
    optimizer = BlackBoxOptimizer(2, hidden=32)
    before = losses_along(search(problem(200, 1), optimizer), 10).min(0).values.mean()
    train_unrolled(
        optimizer,
        lambda i: search(problem(64, 2 + i), optimizer, observed_improvement=True),
        iterations=100,
        num_steps=20,
        truncation=20,
        outer_lr=0.005,
        clip_norm=1.0,
    )
    after = losses_along(search(problem(200, 1), optimizer), 10).min(0).values.mean()
    assert after < before - 0.2
