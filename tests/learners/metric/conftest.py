"""Three small tasks whose classes have different numbers of examples."""

import pytest
import torch
from torch import nn

from kshot.episodes import Episodes, Examples, one_hot


def draw(labels: list[int], shape: tuple[int, ...], tasks: int = 3, way: int = 3) -> Examples:
    rows = torch.stack([torch.tensor(labels).roll(task) for task in range(tasks)])
    inputs = torch.randn(tasks, len(labels), *shape, dtype=torch.float64)
    return Examples(inputs, one_hot(rows, way, torch.float64))


@pytest.fixture
def vectors() -> Episodes:
    torch.manual_seed(0)
    return Episodes(draw([0, 1, 2, 2, 1, 0, 0], (4,)), draw([0, 1, 2, 1], (4,)))


@pytest.fixture
def pictures() -> Episodes:
    torch.manual_seed(0)
    return Episodes(draw([0, 1, 2, 2, 1, 0], (1, 16, 16)), draw([0, 1, 2, 1], (1, 16, 16)))


@pytest.fixture
def encoder() -> nn.Module:
    """From 4 numbers to 6."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh()).double()
    network.embedding_dim = 6  # pyright: ignore[reportArgumentType]
    return network
