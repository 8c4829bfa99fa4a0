"""Siamese networks against the equations, pair by pair."""

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.backbones.heads import Flatten
from kshot.episodes import Episodes, Examples, concatenate
from kshot.learners.metric.siamese import SiameseNet


def pair_logit(learner: SiameseNet, x: Tensor, y: Tensor) -> Tensor:
    first, second = learner.encoder(x), learner.encoder(y)
    if learner.features is not None:
        first, second = learner.features(first).sigmoid(), learner.features(second).sigmoid()
    return learner.bias + 64 * (learner.alpha * (first - second).abs()).mean()


def siamese(encoder: nn.Module, **options) -> SiameseNet:
    torch.manual_seed(2)
    learner = SiameseNet(encoder, **options).double()
    learner.bias.data += 0.3
    return learner


@pytest.mark.parametrize("features", [0, 5])
def test_every_pair_is_of_one_class_or_of_two(features: int, encoder: nn.Module, vectors: Episodes):
    learner = siamese(encoder, features=features)
    examples = concatenate(vectors.support, vectors.query)
    losses = []
    for inputs, targets in zip(examples.inputs, examples.targets, strict=True):
        labels, same, different = targets.argmax(-1), [], []
        for i, j in combinations(range(len(labels)), 2):
            logit = pair_logit(learner, inputs[i], inputs[j])
            answer = (labels[i] == labels[j]).double()
            loss = F.binary_cross_entropy_with_logits(logit, answer)
            (same if answer else different).append(loss)
        losses.append((torch.stack(same).mean() + torch.stack(different).mean()) / 2)
    torch.testing.assert_close(learner(vectors), torch.stack(losses).mean())


@pytest.mark.parametrize("features", [16, 64, 4096])
def test_logits_and_steps_do_not_grow_with_the_number_of_features(features: int):
    torch.manual_seed(0)
    learner = SiameseNet(Flatten((features,)), features=0)
    first, second = torch.rand(2, 1, 50, features)
    before = learner.pair_logits(first, second).detach()
    optimizer = torch.optim.Adam([learner.alpha], lr=1e-2)
    learner.pair_logits(first, second).mean().backward()
    optimizer.step()
    moved = (learner.pair_logits(first, second) - before).abs().mean()
    assert -4 < before.mean() < -1 and 0.1 < moved < 0.3


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_a_class_is_as_similar_as_its_examples(pool: str, encoder: nn.Module, vectors: Episodes):
    learner = siamese(encoder, pool=pool)
    support, query, _ = vectors
    logits = learner.predict(learner.adapt(support), query.inputs)
    for task, inputs in enumerate(query.inputs):
        labels = support.targets[task].argmax(-1)
        for row, x in enumerate(inputs):
            each = torch.stack([pair_logit(learner, x, y) for y in support.inputs[task]])
            for k in range(3):
                members = each[labels == k]
                expected = members.max() if pool == "max" else members.mean()
                torch.testing.assert_close(logits[task, row, k], expected)


def test_unlabelled_and_padded_examples_are_in_no_pair(encoder: nn.Module, vectors: Episodes):
    learner = siamese(encoder)
    inputs, targets, _ = vectors.support
    assert isinstance(inputs, Tensor)
    more = Examples(
        torch.cat([inputs, 5 * inputs[:, :2]], 1),
        torch.cat([targets, targets[:, :1], torch.zeros_like(targets[:, :1])], 1),
        F.pad(torch.ones(3, 7, dtype=torch.bool), (0, 2)).index_fill(1, torch.tensor([8]), True),
    )
    torch.testing.assert_close(learner(vectors._replace(support=more)), learner(vectors))
    single = Episodes(*(Examples(*(x[:, :0] for x in each[:2])) for each in vectors[:2]))
    assert learner(single) == 0, "no pairs, no loss"


def test_equal_pictures_are_told_by_the_bias(encoder: nn.Module):
    learner = siamese(encoder)
    x = torch.randn(1, 1, 6, dtype=torch.float64)
    assert learner.pair_logits(*[learner.compared(x)] * 2).item() == pytest.approx(0.3)
