"""Two small tasks of three classes, the same for every optimization learner."""

import pytest
import torch

from kshot.episodes import Episodes, Examples, one_hot

LABELS = torch.tensor([[0, 1, 2, 2, 1, 0], [1, 0, 2, 0, 1, 2]])


@pytest.fixture
def episodes() -> Episodes:
    """Support and query of six random vectors a task, with the same labels."""
    generator = torch.Generator().manual_seed(0)
    targets = one_hot(LABELS, 3, torch.float64)
    support, query = (
        Examples(torch.randn(2, 6, 4, generator=generator, dtype=torch.float64), targets)
        for _ in range(2)
    )
    return Episodes(support, query)
