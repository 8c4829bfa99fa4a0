"""Small tasks, each of which reads as a sequence."""

import pytest
import torch

from kshot.backbones.heads import Flatten
from kshot.backbones.mlp import MLP
from kshot.episodes import Episodes, Examples, one_hot

TASKS, DIM, WAY = 2, 4, 3


def draw(labels: list[list[int]], way: int = WAY) -> Examples:
    """Random inputs with the labels of each task; -1 is unlabelled."""
    rows = torch.tensor(labels)
    inputs = torch.randn(*rows.shape, DIM, dtype=torch.float64)
    return Examples(inputs, one_hot(rows, way, torch.float64))


@pytest.fixture
def encoder() -> Flatten:
    return Flatten((DIM,))


@pytest.fixture
def mlp() -> MLP:
    torch.manual_seed(1)
    return MLP((DIM,), widths=(6,), activation="tanh")


@pytest.fixture
def episodes() -> Episodes:
    """Two tasks."""
    torch.manual_seed(0)
    support = draw([[0, 2, 1, 1, 0, 2, 0], [1, 1, 0, 2, 2, 1, 0]])
    return Episodes(support, draw([[0, 1, 2], [2, 2, 1]]), torch.arange(6).view(TASKS, WAY))


@pytest.fixture
def vectors() -> Episodes:
    """Three tasks, each with an order of its own."""
    torch.manual_seed(0)
    support = draw([[0, 1, 2, 2, 1, 0, 0], [0, 0, 1, 2, 2, 1, 0], [0, 0, 0, 1, 2, 2, 1]])
    return Episodes(support, draw([[0, 1, 2, 1], [1, 0, 1, 2], [2, 1, 0, 1]]))
