"""Similarity of representations before and after adaptation."""

import pytest
import torch
from torch import Tensor

from kshot.backbones.conv4 import Conv4
from kshot.backbones.heads import WithHead
from kshot.episodes import Episodes, Examples, one_hot
from kshot.evaluation.similarity import layer_similarity, linear_cka
from kshot.learners.optimization.maml import MAML


class Noise:
    """Episodes of noise, the same for the same index."""

    def sample(self, indices) -> Episodes:
        (index,) = indices
        generator = torch.Generator().manual_seed(index)
        targets = one_hot(torch.tensor([[0, 1, 2, 2, 1, 0]]), 3)
        support, query = (
            Examples(torch.rand(1, 6, 1, 16, 16, generator=generator), targets) for _ in range(2)
        )
        return Episodes(support, query)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(shape[1]))


def test_cka_by_its_definition_on_features():
    x, y = drawn(20, 3), drawn(20, 5)
    x, y = x - x.mean(0), y - y.mean(0)
    expected = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    torch.testing.assert_close(linear_cka(x, y), expected)
    assert 0 < expected < 0.9


def test_cka_does_not_see_rotation_shift_and_scale():
    x = drawn(10, 4)
    rotation = torch.linalg.qr(drawn(4, 4))[0]
    torch.testing.assert_close(linear_cka(x, 3 * x @ rotation + 1), torch.tensor(1.0))
    assert linear_cka(x, torch.ones(10, 2)) == 0


def test_what_does_not_adapt_stays_and_what_does_changes():
    torch.manual_seed(0)
    learner = MAML(WithHead(Conv4((1, 16, 16), hidden=4), 3), inner_lr=2.0, adapted=("head.*",))
    similarity = layer_similarity(learner, Noise(), 3)
    assert list(similarity) == [*(f"encoder.convolutions.{i}" for i in range(4)), "head"]
    for name, values in similarity.items():
        assert values.shape == (3,)
        assert values.min() == pytest.approx(1) if name != "head" else values.max() < 0.99


def test_the_learner_is_left_as_it_was():
    torch.manual_seed(0)
    learner = MAML(WithHead(Conv4((1, 16, 16), hidden=4), 3)).train()
    modules = list(learner.modules())
    modules[-1].eval()
    layer_similarity(learner, Noise(), 2)
    assert [module.training for module in modules] == [True] * (len(modules) - 1) + [False]
    assert all(not layer._forward_hooks for layer in learner.modules())
