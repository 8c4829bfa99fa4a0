"""Embedding each example once changes nothing but the time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kshot.backbones.conv4 import Conv4
from kshot.config import EpisodeConfig
from kshot.data.dataset import LabelledDataset
from kshot.data.frozen import FrozenEpisodes
from kshot.data.partly_labelled import PartlyLabelledSampler
from kshot.data.sampler import EpisodeSampler
from kshot.evaluation import embedded
from kshot.evaluation.embedded import EmbeddedDataset, embedded_once
from kshot.evaluation.evaluate import evaluate
from kshot.learners.baselines.fine_tuning import FineTuning
from kshot.learners.metric.matching import MatchingNet
from kshot.learners.metric.prototypical import ProtoNet
from kshot.learners.metric.semi_supervised import SemiSupervisedProtoNet
from kshot.learners.optimization.anil import ANIL


def pictures(num_classes: int = 6, examples: int = 10) -> LabelledDataset:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (num_classes * examples, 1, 16, 16), dtype=np.uint8)
    return LabelledDataset.from_labels(values, np.repeat(np.arange(num_classes), examples))


class Counting(nn.Module):
    """A network that counts the examples it embeds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = Conv4((1, 16, 16), hidden=4)
        self.embedding_dim = self.net.embedding_dim
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return self.net(x)


def samplers() -> list[EpisodeSampler | FrozenEpisodes | PartlyLabelledSampler]:
    data, episode = pictures(), EpisodeConfig(way=(2, 3), shot=(1, 2), query_shot=2)
    drawn = EpisodeSampler(data.with_rotations(), episode, split="test")
    some = replace(episode, labelled_share=0.5, label_splits=2, unlabelled=2, distractors=1)
    return [
        drawn,
        FrozenEpisodes(drawn.dataset, drawn.indices(range(30))),
        PartlyLabelledSampler(data, some, split="test"),
    ]


@pytest.mark.parametrize("sampler", samplers(), ids=lambda each: type(each).__name__)
@pytest.mark.parametrize(
    "make",
    [
        ProtoNet,
        lambda net: MatchingNet(net, full_context=True),
        SemiSupervisedProtoNet,
        lambda net: FineTuning(net, 5, num_test_steps=3, inner_lr=0.3, tune="head"),
    ],
)
def test_predictions_are_those_of_embedding_every_example_anew(make, sampler):
    learner = make(Counting()).eval()
    episodes = sampler.sample(range(8))
    expected = learner.predict(
        learner.adapt(episodes.support), episodes.query.inputs, episodes.query.mask
    )
    with torch.no_grad():
        scored, drawn = embedded_once(learner, sampler)
        assert scored is not learner
        for _ in range(2):  # computed, then remembered
            episodes = drawn.sample(range(8))
            state = scored.adapt(episodes.support)
            found = scored.predict(state, episodes.query.inputs, episodes.query.mask)
            torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5)


def test_each_picture_is_embedded_at_most_once_in_each_turn():
    net = Counting()
    evaluate(ProtoNet(net), samplers()[0], 400)
    assert net.seen == 4 * 60
    assert next(net.parameters()).requires_grad and net.training


def test_a_learner_that_tunes_more_than_its_head_is_left_as_it_is():
    learner, sampler = FineTuning(Counting(), 5, tune="all"), samplers()[0]
    assert embedded_once(learner, sampler) == (learner, sampler)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(embedded, "MOST_BYTES", 30 * 4 * 4)  # thirty embeddings
    net = Counting().eval()
    data = EmbeddedDataset.of(pictures(), net)
    classes = np.repeat(np.arange(6), 10)
    seen = []
    for start in (0, 15, 25, 0, 25):
        rows = np.arange(start, start + 20).repeat(2)
        expected = net.net(LabelledDataset.read(data, rows, classes[rows]))
        torch.testing.assert_close(data.read(rows, classes[rows]), expected.detach())
        seen.append(net.seen)
    assert seen == [20, 35, 50, 50, 65], "0 to 29 are kept, what is beyond is embedded each time"


def test_a_picture_turned_otherwise_has_its_own_embedding():
    data = pictures().with_rotations()
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 3))
    turned = EmbeddedDataset.of(data, net)
    classes = np.arange(0, data.num_classes, 6)  # one character, in four turns
    rows = np.array([data.rows[c][0] for c in classes])
    expected = net(data.read(rows, classes)).detach()
    torch.testing.assert_close(turned.read(rows[:2], classes[:2]), expected[:2])
    torch.testing.assert_close(turned.read(rows, classes), expected)


def test_what_depends_on_other_examples_is_left_as_it_is():
    sampler = samplers()[0]
    batch = ProtoNet(Conv4((1, 16, 16), hidden=4), batch_norm="batch")
    anil = ANIL(Conv4((1, 16, 16), hidden=4), max_way=3, batch_norm="batch")
    for learner in (batch, anil):
        assert embedded_once(learner, sampler) == (learner, sampler)


def test_what_reads_examples_in_its_own_way_is_left_as_it_is():
    class OwnSampler(EpisodeSampler):
        pass

    class OwnDataset(LabelledDataset):
        pass

    class OwnProtoNet(ProtoNet):
        def adapt(self, support):
            return super().adapt(support)

    learner, sampler = ProtoNet(Counting()), samplers()[0]
    own_data = OwnDataset(**vars(sampler.dataset))
    for other in (
        OwnSampler(sampler.dataset, EpisodeConfig(2, 1, 2)),
        EpisodeSampler(own_data, EpisodeConfig(2, 1, 2)),
    ):
        assert embedded_once(learner, other) == (learner, other)
    own = OwnProtoNet(Counting())
    pixels = ProtoNet(nn.Flatten())
    for each in (own, pixels):
        assert embedded_once(each, sampler) == (each, sampler)


def test_what_is_no_number_is_refused():
    values = np.ones((6, 1, 16, 16), dtype=np.float32)
    values[2] = np.inf
    data = LabelledDataset.from_labels(values, [0, 0, 0, 1, 1, 1])
    read = EmbeddedDataset.of(data, Counting().eval()).read
    with pytest.raises(ValueError, match="examples hold NaN or infinite"):
        read(np.arange(6), np.zeros(6, dtype=np.int64))
    with pytest.raises(ValueError, match="End it with a flatten"):
        EmbeddedDataset.of(data, nn.Conv2d(1, 2, 3)).read(np.arange(2), np.zeros(2, dtype=np.int64))
