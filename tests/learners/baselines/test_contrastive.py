"""Contrastive pre-training: its loss by a loop, its views, and what it needs no labels for."""

import math

import pytest
import torch
import torch.nn.functional as F

from kshot.backbones.conv4 import Conv4
from kshot.episodes import Episodes, Examples, one_hot
from kshot.learners.baselines.contrastive import Contrastive, contrastive_loss


@pytest.fixture
def episodes() -> Episodes:
    generator = torch.Generator().manual_seed(0)
    targets = one_hot(torch.tensor([[0, 1, 2, 2, 1, 0], [1, 0, 2, 0, 1, 2]]), 3)
    support, query = (
        Examples(torch.rand(2, 6, 1, 16, 16, generator=generator), targets) for _ in range(2)
    )
    return Episodes(support, query)


def learner(**options) -> Contrastive:
    torch.manual_seed(0)
    return Contrastive(Conv4((1, 16, 16), hidden=4), 3, **options)


def test_the_loss_of_a_pair_is_its_share_of_all_cosines():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(4, 3, generator=generator) for _ in range(2))
    views = [*first, *second]
    losses = []
    for i, view in enumerate(views):
        weights = [
            math.exp(F.cosine_similarity(view, other, dim=0).item() / 0.5) for other in views
        ]
        partner = (i + 4) % 8
        losses.append(-math.log(weights[partner] / (sum(weights) - weights[i])))
    found = contrastive_loss(first, second, temperature=0.5)
    assert found.item() == pytest.approx(sum(losses) / 8, rel=1e-5)
    counted = torch.tensor([True, False, True, True])
    torch.testing.assert_close(
        contrastive_loss(first, second, counted, temperature=0.5),
        contrastive_loss(first[counted], second[counted], temperature=0.5),
    )


def test_no_label_is_read_in_pre_training(episodes: Episodes):
    losses = []
    for targets in (episodes.support.targets, episodes.support.targets.flip(1)):
        torch.manual_seed(1)
        support = episodes.support._replace(targets=targets)
        losses.append(learner()(episodes._replace(support=support)))
    assert losses[0] == losses[1]


def test_views_are_moved_in_training_alone(episodes: Episodes):
    assert isinstance(episodes.query.inputs, torch.Tensor)
    still = learner(rotation=0.0, shear=0.0, scale=0.0, shift=0.0)
    torch.testing.assert_close(still._view(episodes.query.inputs), episodes.query.inputs)
    moving = learner()
    assert not torch.allclose(moving._view(episodes.query.inputs), episodes.query.inputs)
    assert torch.equal(moving.eval()._view(episodes.query.inputs), episodes.query.inputs)


def test_the_loss_falls_and_the_encoder_learns(episodes: Episodes):
    net = learner()
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = net(episodes)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert losses[0] == pytest.approx(math.log(2 * 24 - 1), rel=0.1), "all views alike at first"
