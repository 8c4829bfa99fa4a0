"""ResNet-12: the published size, and the same function as a plain version."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kshot.backbones.resnet12 import ResNet12


def test_the_published_size():
    net = ResNet12((3, 84, 84))
    assert net.embedding_dim == 640
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions if c.kernel_size == (3, 3)] == [
        width for width in (64, 160, 320, 640) for _ in range(3)
    ]
    # 12.42 million parameters, as reported for the network of MetaOptNet.
    assert sum(p.numel() for p in net.parameters()) == 12_424_320


def test_it_is_the_network_of_the_paper():
    torch.manual_seed(0)
    net = ResNet12((3, 16, 16), widths=(2, 3, 3, 4)).double().eval()
    for buffer in net.buffers():
        buffer.uniform_(0.5, 1.5)
    x = y = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    for block in net.blocks:
        layers = dict(block.named_modules())

        def norm(name: str, x: torch.Tensor, layers=layers) -> torch.Tensor:
            layer = layers[name]
            return F.batch_norm(
                x, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=1e-5
            )

        shortcut = norm("shortcut_norm", layers["shortcut"](y))
        for place in range(3):
            y = norm(f"norms.{place}", layers[f"convolutions.{place}"](y))
            y = F.leaky_relu(y + shortcut if place == 2 else y, 0.1)
        y = F.max_pool2d(y, 2)
    torch.testing.assert_close(net(x), y.mean((2, 3)))


def test_too_small_a_picture_says_so():
    with pytest.raises(ValueError, match="at least 16 px"):
        ResNet12((3, 28, 15))
