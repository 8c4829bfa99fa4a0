"""Zero-shot prototypical networks: descriptions stand for classes that were never seen."""

import torch
import torch.nn.functional as F
from torch import nn

from kshot.backbones.normalization import BatchNorm
from kshot.episodes import Episodes, Examples
from kshot.learners.metric.zero_shot import ZeroShotProtoNet
from kshot.testing import check_learner


def described(tasks: int, way: int, seed: int) -> Episodes:
    """Classes are vectors of 6 attributes; an example is a fixed linear map of them, with noise."""
    world = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    attributes = torch.randn(tasks, way, 6, generator=generator)
    examples = (attributes @ world).repeat(1, 3, 1)
    examples = examples + 0.3 * torch.randn(examples.shape, generator=generator)
    targets = torch.eye(way).expand(tasks, way, way)
    return Episodes(Examples(attributes, targets), Examples(examples, targets.repeat(1, 3, 1)))


def test_prototypes_are_the_directions_of_descriptions():
    torch.manual_seed(0)
    learner = ZeroShotProtoNet(nn.Linear(10, 8), nn.Linear(6, 8))
    support, query, _ = described(2, 4, seed=1)
    logits = learner.predict(learner.adapt(support), query.inputs)
    for task in range(2):
        prototypes = F.normalize(learner.description_encoder(support.inputs[task]), dim=-1)  # pyright: ignore
        embeddings = learner.encoder(query.inputs[task])  # pyright: ignore
        torch.testing.assert_close(logits[task], -torch.cdist(embeddings, prototypes).square())


def test_it_names_classes_it_has_never_seen():
    torch.manual_seed(0)
    learner = ZeroShotProtoNet(nn.Linear(10, 16), nn.Linear(6, 16))
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)

    def accuracy() -> float:
        episodes = described(50, 10, seed=10**6)
        logits = learner.predict(learner.adapt(episodes.support), episodes.query.inputs)
        right = logits.argmax(-1) == episodes.query.targets.argmax(-1)
        return right.float().mean().item()

    assert accuracy() < 0.3
    for seed in range(150):
        optimizer.zero_grad()
        learner(described(8, 10, seed)).backward()
        optimizer.step()
    assert accuracy() > 0.8


def test_it_keeps_the_contract():
    torch.manual_seed(0)
    query = described(2, 3, seed=2).query  # descriptions of the same size: a check draws both alike
    check_learner(ZeroShotProtoNet(nn.Linear(10, 8), nn.Linear(10, 8)), Episodes(query, query))


def test_each_network_has_statistics_of_its_own():
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Linear(size, 4), BatchNorm(4)) for size in (10, 6)]
    learner = ZeroShotProtoNet(*networks)
    assert learner.batch_norm == "running"
    episodes = described(2, 3, seed=3)
    inputs = episodes.support.inputs.flatten(0, 1)  # pyright: ignore
    mean = networks[1][0](inputs).mean(0)
    learner.train()(episodes)
    torch.testing.assert_close(networks[1][1].running_mean, 0.1 * mean.detach())  # pyright: ignore
    before = networks[1][1].running_mean.clone()  # pyright: ignore
    learner.adapt(episodes.support)
    assert torch.equal(networks[1][1].running_mean, before)  # pyright: ignore
