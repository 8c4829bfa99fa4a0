"""Koch's encoder has the paper's sizes."""

import pytest
import torch

from kshot.backbones.koch import KochEncoder


def test_sizes_are_those_of_figure_4():
    encoder = KochEncoder((1, 105, 105))
    shapes = []
    x = torch.rand(1, 1, 105, 105)
    for block, convolution in enumerate(encoder.convolutions):
        x = torch.relu(convolution(x))
        shapes.append(tuple(x.shape[1:]))
        x = torch.max_pool2d(x, 2) if block < 3 else x
    assert shapes == [(64, 96, 96), (128, 42, 42), (128, 18, 18), (256, 6, 6)]
    assert encoder.embedding_dim == 9216
    torch.testing.assert_close(
        encoder(torch.ones(2, 1, 105, 105))[0], encoder(torch.ones(1, 1, 105, 105))[0]
    )


def test_weights_are_drawn_as_in_the_paper():
    torch.manual_seed(0)
    last = KochEncoder((1, 105, 105)).convolutions[-1]
    assert last.weight.std().item() == pytest.approx(0.01, rel=0.02)  # pyright: ignore
    assert last.bias.mean().item() == pytest.approx(0.5, abs=0.01)  # pyright: ignore


def test_pictures_that_are_too_small_say_so():
    with pytest.raises(ValueError, match="too small for four unpadded"):
        KochEncoder((1, 28, 28))
