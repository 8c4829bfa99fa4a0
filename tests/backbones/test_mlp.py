"""Fully connected networks."""

import math

import pytest
import torch

from kshot.backbones.mlp import MLP


@pytest.mark.parametrize("activation", ["relu", "tanh", "softplus"])
def test_an_activation_follows_every_layer(activation: str):
    torch.manual_seed(0)
    net = MLP((2, 3), widths=(5, 4), activation=activation)  # pyright: ignore
    x = torch.randn(7, 2, 3)
    functions = {"relu": torch.relu, "tanh": torch.tanh, "softplus": torch.nn.functional.softplus}
    y = x.reshape(7, 6)
    for layer in net.layers:
        y = functions[activation](y @ layer.weight.T + layer.bias)  # pyright: ignore
    torch.testing.assert_close(net(x), y)
    assert net.embedding_dim == 4


def test_a_truncated_normal_initialization():
    torch.manual_seed(0)
    net = MLP((100,), widths=(200, 50), initialization="truncated_normal")
    for layer in net.layers:
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, torch.Tensor) and isinstance(bias, torch.Tensor)
        assert weight.abs().max() <= 0.02 and not bias.any()
        # A normal of standard deviation s, cut at 2 s, has standard deviation 0.8796 s.
        assert weight.std().item() == pytest.approx(0.008796, rel=0.03)
    assert math.prod(net.layers[0].weight.shape) == 20_000  # pyright: ignore
