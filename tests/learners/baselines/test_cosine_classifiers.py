"""Imprinted weights and Baseline++: cosine classifiers against plain loops."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kshot.backbones.mlp import MLP
from kshot.episodes import Episodes, Examples, one_hot
from kshot.learners.baselines.cosine_classifiers import BaselinePlusPlus, Imprinted

CLASSES = torch.tensor([[4, 0, 7], [2, 7, 9]])
LABELS = torch.tensor([[0, 1, 2, 2, 1, 0, 0], [1, 0, 2, 0, 1, 2, 2]])


@pytest.fixture
def episodes() -> Episodes:
    torch.manual_seed(0)
    support, query = (
        Examples(torch.randn(2, 7, 4, dtype=torch.float64), one_hot(LABELS, 3, torch.float64))
        for _ in range(2)
    )
    return Episodes(support, query, CLASSES)


def built(constructor: type, **options):
    torch.manual_seed(0)
    return constructor(MLP((4,), widths=(5,)), 10, **options).double()


def outputs(learner, episodes: Episodes) -> Tensor:
    return learner.predict(learner.adapt(episodes.support), episodes.query.inputs)


@pytest.mark.parametrize("constructor", [Imprinted, BaselinePlusPlus])
def test_pre_training_compares_angles(constructor: type, episodes: Episodes):
    learner = built(constructor, scale=7.0)
    inputs = torch.cat([episodes.support.inputs, episodes.query.inputs], 1)  # pyright: ignore
    z = learner.encoder(inputs.flatten(0, 1))
    cosines = F.cosine_similarity(z.unsqueeze(1), learner.head.weight.unsqueeze(0), dim=-1)
    labels = CLASSES.gather(1, torch.cat([LABELS, LABELS], 1)).flatten()
    loss = learner(episodes)
    torch.testing.assert_close(loss, F.cross_entropy(7.0 * cosines, labels))
    loss.backward()
    assert learner.head.scale.grad.abs() > 0, "the scale is learned"


def test_weights_are_imprinted(episodes: Episodes):
    learner = built(Imprinted)
    logits = outputs(learner, episodes)
    for task in range(2):
        z = F.normalize(learner.encoder(episodes.support.inputs[task]), dim=-1)  # pyright: ignore
        q = learner.encoder(episodes.query.inputs[task])  # pyright: ignore
        weights = torch.stack([z[LABELS[task] == k].mean(0) for k in range(3)])
        cosines = F.cosine_similarity(q.unsqueeze(1), weights.unsqueeze(0), dim=-1)
        torch.testing.assert_close(logits[task], learner.head.scale * cosines)


@pytest.mark.parametrize("constructor", [Imprinted, BaselinePlusPlus])
def test_steps_are_those_of_gradient_descent_on_each_task(constructor: type, episodes: Episodes):
    learner = built(constructor, num_test_steps=4, inner_lr=0.3)
    start = built(constructor, num_test_steps=0).adapt(episodes.support).summary
    scale = learner.test_scale if constructor is BaselinePlusPlus else learner.head.scale.detach()
    found = learner.adapt(episodes.support).summary
    for task in range(2):
        z = learner.encoder(episodes.support.inputs[task]).detach()  # pyright: ignore
        weights = start[task].detach().clone().requires_grad_()
        optimizer = torch.optim.SGD([weights], lr=0.3)
        for _ in range(4):
            optimizer.zero_grad()
            cosines = F.cosine_similarity(z.unsqueeze(1), weights.unsqueeze(0), dim=-1)
            F.cross_entropy(scale * cosines, LABELS[task]).backward()
            optimizer.step()
        torch.testing.assert_close(found[task], weights.detach())
    assert (found - start).abs().max() > 1e-3


def test_a_class_without_examples_keeps_the_others_apart(episodes: Episodes):
    fewer = episodes.support.targets.clone()
    fewer[..., 2] = 0
    support = episodes.support._replace(targets=fewer)
    for constructor in (Imprinted, BaselinePlusPlus):
        learner = built(constructor, num_test_steps=3)
        weights = learner.adapt(support).summary
        narrow = learner.adapt(support._replace(targets=fewer[..., :2])).summary
        assert weights.isfinite().all()
        torch.testing.assert_close(weights[:, :2], narrow)
