"""Conv-4: the published sizes, and the same function as the network written with PyTorch layers."""

import pytest
import torch
from torch import nn

from kshot.backbones.conv4 import Conv4


@pytest.mark.parametrize(
    ("shape", "strided", "size"),
    [
        ((1, 28, 28), False, 64),
        ((1, 28, 28), True, 256),
        ((3, 84, 84), False, 1600),
        ((3, 16, 16), False, 64),
        ((3, 21, 30), True, 64 * 2 * 2),
    ],
)
def test_embeddings_have_the_published_size(shape: tuple[int, ...], strided: bool, size: int):
    net = Conv4(shape, strided=strided).eval()
    assert net(torch.zeros(2, *shape)).shape == (2, size) == (2, net.embedding_dim)


def test_the_published_number_of_parameters():
    gray = sum(p.numel() for p in Conv4((1, 28, 28)).parameters())
    color = sum(p.numel() for p in Conv4((3, 84, 84)).parameters())
    assert (gray, color) == (111_936, 113_088)


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_it_is_the_network_of_the_papers(strided: bool, training: bool):
    """Convolution, BatchNorm, ReLU, pooling, in the order that the papers give."""
    torch.manual_seed(0)
    ours = Conv4((1, 20, 20), hidden=3, strided=strided).double().train(training)
    blocks = []
    for channels in (1, 3, 3, 3):
        convolution = nn.Conv2d(channels, 3, 3, stride=2 if strided else 1, padding=1)
        pool = nn.Identity() if strided else nn.MaxPool2d(2)
        blocks.append(nn.Sequential(convolution, nn.BatchNorm2d(3), nn.ReLU(), pool))
    theirs = nn.Sequential(*blocks, nn.Flatten()).double().train(training)
    for block, convolution, norm in zip(blocks, ours.convolutions, ours.norms, strict=True):
        norm.weight.data.uniform_(-1, 1)  # pyright: ignore
        block[0].load_state_dict(convolution.state_dict())
        block[1].load_state_dict(norm.state_dict(), strict=False)
    x = torch.randn(5, 1, 20, 20, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))


def test_too_small_a_picture_says_so():
    with pytest.raises(ValueError, match="at least 16 px"):
        Conv4((1, 15, 28))
