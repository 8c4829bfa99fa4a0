"""The registry of backbones, and what stands around an encoder."""

import pickle

import pytest
import torch
from torch import nn

from kshot.backbones.heads import Flatten, WithHead, embedding_dim
from kshot.backbones.registry import BACKBONES, build_backbone
from kshot.config import Choice


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 32, 24)])
def test_every_row_builds_a_network_that_knows_its_size(name: str, shape: tuple[int, ...]):
    shape = (shape[0], shape[1] + 60, shape[2] + 60) if name == "koch" else shape
    options = {"hidden": 2} if "conv4" in name else {}
    options = {"widths": (2, 2, 2, 2)} if name == "resnet12" else options
    net = build_backbone(Choice(name, options), shape).eval()
    pictures = torch.randn(3, *shape)
    assert net(pictures).shape == (3, embedding_dim(net))
    assert torch.equal(pickle.loads(pickle.dumps(net))(pictures), net(pictures))
    assert BACKBONES[name].summary


def test_presets_make_a_row():
    assert build_backbone(Choice("conv4_strided"), (1, 28, 28)).embedding_dim == 256
    assert build_backbone(Choice("conv4"), (1, 28, 28)).embedding_dim == 64


def test_an_unknown_name_or_option_names_the_nearest():
    with pytest.raises(ValueError, match=r"conv44.*Did you mean 'conv4'"):
        build_backbone(Choice("conv44"), (1, 28, 28))
    with pytest.raises(ValueError, match=r"hiden.*Did you mean 'hidden'"):
        build_backbone(Choice("conv4", {"hiden": 3}), (1, 28, 28))
    with pytest.raises(ValueError, match="input_shape"):
        build_backbone(Choice("conv4", {"input_shape": (1, 2, 3)}), (1, 28, 28))


def test_flatten_and_head():
    flat = Flatten((2, 3))
    assert flat.embedding_dim == 6
    assert torch.equal(flat(torch.ones(4, 2, 3)), torch.ones(4, 6))
    net = WithHead(flat, 5)
    x = torch.randn(4, 2, 3)
    torch.testing.assert_close(net(x), net.head(x.reshape(4, 6)))


def test_an_encoder_without_a_size_says_what_to_set():
    with pytest.raises(ValueError, match=r"Linear.*embedding_dim"):
        WithHead(nn.Linear(3, 4), 5)
