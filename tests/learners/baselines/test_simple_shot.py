"""SimpleShot: pre-training, the center of the training classes, nearest means."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kshot.backbones.conv4 import Conv4
from kshot.backbones.mlp import MLP
from kshot.episodes import Episodes, Examples, one_hot
from kshot.learners.baselines.nearest_neighbor import NearestNeighbor
from kshot.learners.baselines.simple_shot import SimpleShot

CLASSES = torch.tensor([[4, 0, 7], [2, 7, 9]])
LABELS = torch.tensor([[0, 1, 2, 2, 1, 0], [1, 0, 2, 0, 1, 2]])


def draw(shape: tuple[int, ...], seed: int) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(2, 6, *shape, generator=generator, dtype=torch.float64)
    return Examples(inputs, one_hot(LABELS, 3, torch.float64))


@pytest.fixture
def vectors() -> Episodes:
    return Episodes(draw((4,), 0), draw((4,), 1), CLASSES)


def built(transform: str = "center_and_normalize") -> SimpleShot:
    torch.manual_seed(0)
    return SimpleShot(MLP((4,), widths=(5,)), 10, transform=transform).double()  # pyright: ignore


def test_pre_training_tells_all_training_classes_apart():
    torch.manual_seed(0)
    episodes = Episodes(draw((1, 16, 16), 0), draw((1, 16, 16), 1), CLASSES)
    learner = SimpleShot(Conv4((1, 16, 16), hidden=3), 10).double().train()
    encoder = copy.deepcopy(learner.encoder)
    inputs = torch.cat([episodes.support.inputs, episodes.query.inputs], 1)  # pyright: ignore
    labels = CLASSES.gather(1, torch.cat([LABELS, LABELS], 1)).flatten()
    logits = learner.head(encoder(inputs.flatten(0, 1)))
    torch.testing.assert_close(learner(episodes), F.cross_entropy(logits, labels))
    for ours, theirs in zip(learner.encoder.buffers(), encoder.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_center_is_the_mean_of_the_batches(vectors: Episodes):
    learner = built().train()
    means = []
    for seed in range(3):
        episodes = Episodes(draw((4,), seed), draw((4,), seed + 9), CLASSES)
        both = torch.cat([episodes.support.inputs, episodes.query.inputs], 1)  # pyright: ignore
        means.append(learner.encoder(both.flatten(0, 1)).mean(0))
        learner(episodes)
    torch.testing.assert_close(learner.center, torch.stack(means).mean(0).detach())
    learner.eval()(vectors)
    assert learner.batches == 3, "in evaluation nothing is remembered"


def test_padding_is_no_part_of_the_center(vectors: Episodes):
    learner, other = built().train(), built().train()
    learner(vectors)
    padding = Examples(
        F.pad(vectors.support.inputs, (0, 0, 0, 2), value=5.0),  # pyright: ignore
        F.pad(vectors.support.targets, (0, 0, 0, 2)),
        F.pad(torch.ones(2, 6, dtype=torch.bool), (0, 2)),
    )
    other(vectors._replace(support=padding))
    torch.testing.assert_close(learner.center, other.center)


@pytest.mark.parametrize("transform", ["none", "normalize", "center_and_normalize"])
def test_queries_go_to_the_nearest_mean(transform: str, vectors: Episodes):
    learner = built(transform)
    learner.center += torch.randn(5, generator=torch.Generator().manual_seed(3))

    def transformed(x: Tensor) -> Tensor:
        z = learner.encoder(x)
        if transform == "none":
            return z
        return F.normalize(z - learner.center if transform != "normalize" else z, dim=-1)

    logits = learner.predict(learner.adapt(vectors.support), vectors.query.inputs)
    for task in range(2):
        z, q = (transformed(each.inputs[task]) for each in vectors[:2])  # pyright: ignore
        means = torch.stack([z[LABELS[task] == k].mean(0) for k in range(3)])
        torch.testing.assert_close(logits[task], -torch.cdist(q, means).square())


def test_the_nearest_neighbor_is_one_example(vectors: Episodes):
    learner = NearestNeighbor(nn.Identity())
    logits = learner.predict(learner.adapt(vectors.support), vectors.query.inputs)
    for task in range(2):
        x, q = vectors.support.inputs[task], vectors.query.inputs[task]  # pyright: ignore
        cosines = F.cosine_similarity(q.unsqueeze(1), x.unsqueeze(0), dim=-1)
        assert logits[task].argmax(-1).tolist() == LABELS[task][cosines.argmax(-1)].tolist()
        torch.testing.assert_close(logits[task].amax(-1), cosines.amax(-1))
