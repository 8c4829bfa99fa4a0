import pytest
import torch

from kshot.learners.baselines.lbfgs import minimized


def test_a_steep_valley_is_followed_to_its_lowest_point():
    random = torch.Generator().manual_seed(0)
    factor = torch.randn(12, 12, dtype=torch.float64, generator=random)
    matrix = factor @ factor.T + 0.01 * torch.eye(12)  # curvatures from .01 to 40
    target = torch.randn(12, dtype=torch.float64, generator=random)

    def valley(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        slope = matrix @ x - target
        return (slope - target) @ x / 2, slope

    found = minimized(valley, torch.zeros(12, dtype=torch.float64), tolerance=1e-9)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, target), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("memory", [1, 10])
def test_a_function_whose_curvature_changes(memory):
    def function(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (x.exp() - 3 * x).sum(), x.exp() - 3

    start = torch.tensor([[5.0, -4.0, 0.0]], dtype=torch.float64)
    found = minimized(function, start, tolerance=1e-10, memory=memory)
    torch.testing.assert_close(found, torch.full_like(start, 3.0).log())


def test_it_ends_where_it_is_told_to():
    calls = []

    def bowl(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(x)
        return x.square().sum() / 2, x

    start = torch.full((3,), 0.5)
    assert minimized(bowl, start, tolerance=0.5) is start and len(calls) == 1
    minimized(bowl, start, tolerance=0.0, max_steps=1)
    assert len(calls) == 3  # where it starts again, and after one step


def test_rounding_ends_it_too():
    def bowl(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 1e8 + (x - 1).square().sum(), 2 * (x - 1)

    found = minimized(bowl, torch.zeros(2), tolerance=0.0)
    assert bool(found.isfinite().all()) and float(bowl(found)[0]) <= 1e8 + 8
