"""Three small tasks of three classes, each with examples in an order of its own."""

import pytest
import torch

from kshot.backbones.mlp import MLP
from kshot.episodes import Episodes, Examples, one_hot


def draw(labels: list[int], way: int = 3) -> Examples:
    rows = torch.stack([torch.tensor(labels).roll(task) for task in range(3)])
    inputs = torch.randn(3, len(labels), 4, dtype=torch.float64)
    return Examples(inputs, one_hot(rows, way, torch.float64))


@pytest.fixture
def vectors() -> Episodes:
    torch.manual_seed(0)
    return Episodes(draw([0, 1, 2, 2, 1, 0, 0]), draw([0, 1, 2, 1]))


@pytest.fixture
def encoder() -> MLP:
    torch.manual_seed(1)
    return MLP((4,), widths=(6,), activation="tanh")
