"""Accuracy at the k-th example of a class, and the alarm when a label is seen too early."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from kshot.backbones.heads import Flatten
from kshot.config import EpisodeConfig
from kshot.data.dataset import LabelledDataset
from kshot.data.sampler import EpisodeSampler
from kshot.episodes import Episodes, Examples, map_tensors
from kshot.evaluation.instances import evaluate_instances, instance_numbers, most_at_first
from kshot.learners.baselines.nearest_centroid import NearestCentroid
from kshot.learners.memory.mann import MANN
from kshot.learners.memory.recurrent import RecurrentLearner
from kshot.learners.memory.sequence_learner import SequenceLearner
from kshot.losses import mean_squared_error

WAY, SHOT = 3, 4


def dataset(noise: float = 0.2) -> LabelledDataset:
    """Thirty classes of ten vectors around a direction each."""
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(30, 1, 4))
    rows = centers + noise * generator.normal(size=(30, 10, 4))
    return LabelledDataset.from_labels(
        rows.reshape(300, 4).astype(np.float32), np.arange(30).repeat(10)
    )


def sampler(way: int | tuple[int, int] = WAY, shot: int | tuple[int, int] = SHOT) -> EpisodeSampler:
    return EpisodeSampler(dataset(), EpisodeConfig(way, shot, 1), seed=0, split="test")


class Eliminates(SequenceLearner[tuple[Tensor, Tensor]]):
    """Knows all but labels: keeps the classes of its examples, and guesses among those left."""

    def __init__(self, way: int, *, early: bool = False) -> None:
        encoder = Flatten((4,))
        super().__init__(encoder, way)
        self.early = early
        self.precision = torch.nn.Parameter(torch.zeros(()))

    def initial_state(self, tasks: int) -> Tensor:
        return torch.zeros(tasks, self.max_way)

    def project(self, embeddings: Tensor) -> Tensor:
        return embeddings

    def step(self, memory: Tensor, inputs: Tensor, last_targets: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.maximum(memory, last_targets)
        return -seen, seen


class SeesEarly(Eliminates):
    """The mistake that the alarm is for: every label comes with its own example."""

    def outputs_in_turn(self, examples: Examples) -> tuple[Tensor, Tensor]:
        return 1.0 * examples.targets, self.labels.codes(examples.targets)


def test_instances_are_counted_within_classes_and_without_padding():
    targets = torch.eye(3)[torch.tensor([[0, 1, 0, 2, 0, 1], [2, 2, 2, 1, 1, 0]])]
    counted = torch.ones(2, 6, dtype=torch.bool)
    counted[0, 2] = counted[1, 0] = False
    expected = torch.tensor([[1, 1, 0, 1, 2, 2], [0, 1, 2, 1, 2, 1]])
    assert torch.equal(instance_numbers(targets, counted), expected)


def test_most_at_first():
    assert most_at_first(torch.tensor([1, 2, 5])).tolist() == pytest.approx(
        [1, (1 / 2 + 1) / 2, (1 / 5 + 1 / 4 + 1 / 3 + 1 / 2 + 1) / 5]
    )


@pytest.mark.parametrize("way", [WAY, (2, 5)])
def test_accuracies_are_those_of_a_slow_loop(way: int | tuple[int, int]):
    torch.manual_seed(0)
    learner = RecurrentLearner(Flatten((4,)), 5)
    drawn = sampler(way)
    found = evaluate_instances(learner, drawn, 12, instances=(1, 3, 4), batch_episodes=5)
    assert set(found) == {1, 3, 4}
    for index in range(12):
        support, _, classes = drawn.sample([index])
        assert classes is not None
        logits = learner.predict_in_turn(support)[0, :, : int((classes >= 0).sum())]
        right: dict[int, list[bool]] = {1: [], 2: [], 3: [], 4: []}
        seen: dict[int, int] = {}
        real = torch.ones_like(logits[:, 0]) if support.mask is None else support.mask[0]
        labels = support.targets[0].argmax(-1)[real > 0].tolist()
        for row, label in zip(logits[real > 0], labels, strict=True):
            seen[label] = seen.get(label, 0) + 1
            right[seen[label]].append(int(row.argmax()) == label)
        for k, evaluation in found.items():
            assert evaluation.scores[index] == pytest.approx(np.mean(right[k]))
    assert found[1].metric == "accuracy" and found[1].interval.n == 12


def test_an_untrained_learner_is_at_chance_at_every_instance():
    torch.manual_seed(0)
    learner = MANN(Flatten((4,)), WAY, hidden=8, slots=8, width=4)
    for evaluation in evaluate_instances(learner, sampler(), 400, instances=(1, 2, 4)).values():
        mean, half_width, _ = evaluation.interval
        assert abs(mean - 1 / WAY) < 2 * half_width


def test_whole_strings_are_not_guessed_among_the_classes_of_a_task():
    torch.manual_seed(0)
    learner = RecurrentLearner(Flatten((4,)), WAY, labels="letters", hidden=8)
    for evaluation in evaluate_instances(learner, sampler(), 100, instances=(1, 4)).values():
        assert evaluation.interval.mean < 0.02


def test_who_excludes_the_classes_that_came_reaches_the_limit_and_no_alarm():
    """Here every class comes once, so the first examples are all there are."""
    learner = Eliminates(5)
    found = evaluate_instances(learner, sampler(5, 1), 2000, instances=(1,))[1].interval
    assert abs(found.mean - float(most_at_first(torch.tensor([5])))) < 2 * found.half_width


def test_who_sees_a_label_early_is_caught():
    with pytest.raises(ValueError, match=r"named right in 100\.0 % of cases.*61\.1 % at most"):
        evaluate_instances(SeesEarly(WAY), sampler(), 50, instances=(2,))


class InTheirOwnOrder:
    """A sampler that makes the mistake of `numpy.unique`: columns are sorted by class."""

    def __init__(self, sampler: EpisodeSampler) -> None:
        self.sampler = sampler

    def sample(self, episodes: Sequence[int]) -> Episodes:
        drawn = self.sampler.sample(episodes)
        assert drawn.classes is not None
        order = drawn.classes.argsort(1)
        columns = order.unsqueeze(1).expand(-1, WAY * SHOT, -1)
        support = drawn.support._replace(targets=drawn.support.targets.gather(2, columns))
        return Episodes(support, drawn.query, drawn.classes.gather(1, order))


class KnowsTheClasses(Eliminates):
    """Recognizes the classes of a data set, and names them by their number there."""

    def __init__(self, data: LabelledDataset) -> None:
        super().__init__(WAY)
        self.centers = torch.stack([torch.from_numpy(data.examples[r]).mean(0) for r in data.rows])

    def outputs_in_turn(self, examples: Examples) -> tuple[Tensor, Tensor]:
        centers = self.centers.expand(len(examples.targets), -1, -1)
        return -torch.cdist(examples.inputs, centers), self.labels.codes(examples.targets)


def test_labels_that_are_not_drawn_anew_are_caught():
    three = dataset().select(range(WAY))
    learner, drawn = KnowsTheClasses(three), EpisodeSampler(three, EpisodeConfig(WAY, SHOT, 1))
    found = evaluate_instances(learner, drawn, 200, instances=(1,))[1].interval
    assert abs(found.mean - 1 / WAY) < 2 * found.half_width
    with pytest.raises(ValueError, match="not drawn anew in each episode"):
        evaluate_instances(learner, InTheirOwnOrder(drawn), 200, instances=(1,))


def test_two_episodes_are_no_alarm():
    """A rehearsal scores two episodes, and chance can name half of their first examples right."""
    learner = RecurrentLearner(Flatten((4,)), 2)
    for seed in range(12):
        drawn = EpisodeSampler(dataset(), EpisodeConfig(2, 1, 1), seed=seed)
        evaluate_instances(learner, drawn, 2, instances=(1,))


def test_other_learners_adapt_anew_before_each_step():
    learner = NearestCentroid(Flatten((4,)), normalize=True)
    drawn = sampler()
    found = evaluate_instances(learner, drawn, 8, instances=(2, 4))
    support = drawn.sample(range(8)).support
    right = torch.zeros(8, SHOT + 1)
    numbers = instance_numbers(support.targets, torch.ones(8, WAY * SHOT, dtype=torch.bool))
    for place in range(1, WAY * SHOT):
        before = map_tensors(lambda tensor, place=place: tensor[:, :place], support)
        logits = learner.predict(learner.adapt(before), support.inputs[:, place : place + 1])
        logits = logits.masked_fill(~before.targets.any(1, keepdim=True), -torch.inf)
        correct = logits[:, 0].argmax(-1) == support.targets[:, place].argmax(-1)
        right[torch.arange(8), numbers[:, place]] += correct / WAY
    for k in (2, 4):
        torch.testing.assert_close(found[k].scores, right[:, k].double().numpy())
    better = evaluate_instances(learner, drawn, 300, instances=(1, 2, 4))
    # The very first example is a guess; other first ones are named as a class that came.
    assert better[1].interval.mean == pytest.approx(1 / WAY**2, abs=0.05)
    assert 0.9 < better[2].interval.mean < better[4].interval.mean


def test_what_cannot_be_scored_is_refused():
    learner = RecurrentLearner(Flatten((4,)), WAY)
    with pytest.raises(ValueError, match="4 examples at most, and instance 10"):
        evaluate_instances(learner, sampler(), 4)
    with pytest.raises(ValueError, match="the same for all"):
        evaluate_instances(learner, sampler(shot=(1, 4)), 4, instances=(1, 3))
    with pytest.raises(ValueError, match="from 1 on"):
        evaluate_instances(learner, sampler(), 4, instances=(0, 1))
    regression = RecurrentLearner(Flatten((4,)), WAY, loss=mean_squared_error)
    with pytest.raises(ValueError, match="one of regression"):
        evaluate_instances(regression, sampler(), 4)
