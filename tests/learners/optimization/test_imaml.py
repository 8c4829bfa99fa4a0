"""iMAML: its gradient is that of the inner minimum, in closed form and by unrolling."""

import pytest
import torch
from torch import Tensor, nn

from kshot.backbones.heads import WithHead
from kshot.backbones.mlp import MLP
from kshot.episodes import Episodes, Examples
from kshot.learners.optimization.imaml import IMAML, conjugate_gradient
from kshot.learners.optimization.maml import MAML
from kshot.losses import mean_squared_error


def net() -> nn.Module:
    torch.manual_seed(0)
    return WithHead(MLP((4,), widths=(6, 5), activation="softplus"), 3).double()


def slopes(learner: MAML | IMAML, loss: Tensor) -> Tensor:
    grads = torch.autograd.grad(loss, list(learner.net.parameters()))
    return torch.cat([gradient.flatten() for gradient in grads])


class PulledMAML(MAML):
    """Unrolled steps on the same inner objective."""

    def regularization(self, params, start):
        return 2.0 / 2 * sum((params[name] - start[name]).square().sum() for name in params)


@pytest.mark.parametrize("strategy", ["vmap", "loop"])
def test_at_the_minimum_it_is_the_gradient_through_all_steps(strategy, episodes: Episodes):
    steps = {"inner_lr": 0.2, "num_inner_steps": 120}
    unrolled = PulledMAML(net(), **steps)
    implicit = IMAML(net(), strength=2.0, num_solver_steps=40, strategy=strategy, **steps)
    losses = unrolled(episodes), implicit(episodes)
    torch.testing.assert_close(*losses)
    expected, found = slopes(unrolled, losses[0]), slopes(implicit, losses[1])
    assert (found - expected).norm() < 1e-6 * expected.norm()


def test_far_from_it_the_gradients_differ(episodes: Episodes):
    unrolled = PulledMAML(net(), inner_lr=0.2, num_inner_steps=1)
    implicit = IMAML(net(), inner_lr=0.2, strength=2.0, num_inner_steps=1)
    expected, found = slopes(unrolled, unrolled(episodes)), slopes(implicit, implicit(episodes))
    assert (found - expected).norm() > 1e-2 * expected.norm()


@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_the_closed_form_of_linear_regression(damping):
    """With squared errors of a linear network all of it is linear algebra."""
    generator = torch.Generator().manual_seed(0)
    x, z = (torch.randn(1, 8, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    y, t = (torch.randn(1, 8, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    torch.manual_seed(0)
    network = nn.Linear(3, 1, bias=False).double()
    learner = IMAML(
        network,
        inner_lr=0.1,
        strength=0.5,
        num_inner_steps=400,
        num_solver_steps=3,
        damping=damping,
        loss=mean_squared_error,
    )
    learner(Episodes(Examples(x, y), Examples(z, t))).backward()
    start = network.weight.detach().T
    hessian = 2 * x[0].T @ x[0] / 8
    pulled = hessian + 0.5 * torch.eye(3, dtype=torch.float64)
    minimum = torch.linalg.solve(pulled, 2 * x[0].T @ y[0] / 8 + 0.5 * start)
    query_slope = 2 * z[0].T @ (z[0] @ minimum - t[0]) / 8
    damped = pulled + damping * torch.eye(3, dtype=torch.float64)
    expected = (0.5 + damping) * torch.linalg.solve(damped, query_slope)
    assert network.weight.grad is not None
    torch.testing.assert_close(network.weight.grad.T, expected)


def test_as_many_solver_steps_as_unknowns_solve_a_system():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    system = root @ root.T + torch.eye(5, dtype=torch.float64)
    target = torch.randn(5, generator=generator, dtype=torch.float64)

    def product(v: dict[str, Tensor]) -> dict[str, Tensor]:
        image = system @ torch.cat([v["a"], v["b"]])
        return {"a": image[:2], "b": image[2:]}

    parts = {"a": target[:2], "b": target[2:]}
    for steps in (5, 9):  # more change nothing
        found = conjugate_gradient(product, parts, steps)
        solution = torch.cat([found["a"], found["b"]])
        torch.testing.assert_close(solution, torch.linalg.solve(system, target))


def test_where_the_minimum_is_none_it_stops():
    found = conjugate_gradient(lambda v: {"x": -v["x"]}, {"x": torch.ones(2)}, 3)
    assert found["x"].isfinite().all()


def test_no_pull_is_refused():
    with pytest.raises(ValueError, match=r"above 0, not 0\.0"):
        IMAML(net(), strength=0.0)


def test_damping_below_zero_is_refused():
    with pytest.raises(ValueError, match="damping must be at least 0"):
        IMAML(net(), damping=-1.0)


def test_no_step_of_the_solver_is_refused():
    with pytest.raises(ValueError, match="the meta-gradient is zero"):
        IMAML(net(), num_solver_steps=0)
