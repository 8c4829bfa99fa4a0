from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def trained() -> Callable[[nn.Module], nn.Module]:
    """Gives a network weights and running averages unlike those it starts with."""

    def train(net: nn.Module) -> nn.Module:
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.data.uniform_(0.5, 1.5)
        return net.double()

    return train
