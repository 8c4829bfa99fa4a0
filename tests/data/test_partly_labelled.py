"""Episodes with unlabelled examples: where each comes from, and that it tells nothing."""

import numpy as np
import pytest
import torch

from kshot.config import AugmentationConfig, EpisodeConfig
from kshot.data.augment import AugmentedSampler
from kshot.data.dataset import LabelledDataset
from kshot.data.partly_labelled import PartlyLabelledSampler, split_labels
from kshot.data.sources.sinusoid import sinusoid
from kshot.data.splits import LabelledSplits

EPISODE = EpisodeConfig(3, 1, 1, labelled_share=0.1, label_splits=4, unlabelled=5, distractors=2)


def dataset(classes: int = 8, each: int = 20) -> LabelledDataset:
    """Every example is (its class, its own number), so that it can be recognized."""
    labels = np.repeat(np.arange(classes), each)
    examples = np.stack([labels, np.arange(classes * each)], 1).astype(np.float32)
    return LabelledDataset.from_labels(examples, labels)


def test_a_share_of_each_class_is_labelled():
    data = dataset()
    labelled, others = split_labels(data, 0.1, 0)
    for own, rest, rows in zip(labelled.rows, others.rows, data.rows, strict=True):
        assert len(own) == 2 and sorted([*own, *rest]) == sorted(rows)
    again, other = split_labels(data, 0.1, 0)[0], split_labels(data, 0.1, 1)[0]
    assert all(map(np.array_equal, labelled.rows, again.rows))
    assert not all(map(np.array_equal, labelled.rows, other.rows))
    places = [(own - rows[0]).tolist() for own, rows in zip(labelled.rows, data.rows, strict=True)]
    assert len({tuple(place) for place in places}) > 1, "each class draws its own"
    tiny, rest = split_labels(dataset(each=3), 0.1, 0)
    assert all(len(rows) == 1 for rows in tiny.rows)


def test_an_episode_has_labelled_unlabelled_and_distracting_examples():
    data = dataset()
    sampler = PartlyLabelledSampler(data, EPISODE, split="train")
    episodes = sampler.sample(range(40))
    support, query, classes = episodes
    assert isinstance(support.inputs, torch.Tensor) and isinstance(query.inputs, torch.Tensor)
    assert classes is not None and support.mask is None
    assert support.inputs.shape == (40, 3 + 5 * 5, 2) and query.inputs.shape == (40, 3, 2)
    for task in range(40):
        own = split_labels(data, 0.1, task % 4)[0]
        may = {c: set(own.rows[c].tolist()) for c in range(8)}
        rows, targets = support.inputs[task].long(), support.targets[task]
        assert targets.sum(-1).tolist() == [1.0] * 3 + [0.0] * 25
        of_unlabelled = rows[3:, 0]
        counts = torch.bincount(of_unlabelled, minlength=8)
        assert all(counts[c] == 5 for c in classes[task]) and (counts == 5).sum() == 5
        for (c, number), row in zip(rows[:3].tolist(), targets[:3], strict=True):
            assert number in may[c] and classes[task, row.argmax()] == c
        assert all(number not in may[c] for c, number in rows[3:].tolist())
        assert len({number for _, number in rows.tolist()}) == 28, "none comes twice"
        assert all(number in may[c] for c, number in query.inputs[task].long().tolist())


def test_the_order_of_unlabelled_examples_tells_nothing():
    support, _, classes = PartlyLabelledSampler(dataset(), EPISODE).sample(range(400))
    assert isinstance(support.inputs, torch.Tensor) and classes is not None
    first = (support.inputs[:, 3:, 0] == classes[:, :1]).float().mean(0)
    assert (first - 1 / 5).abs().max() < 0.1


def test_an_episode_depends_on_seed_split_and_index_alone():
    def drawn(indices, **options) -> torch.Tensor:
        found = PartlyLabelledSampler(dataset(), EPISODE, **options).sample(indices).support.inputs
        assert isinstance(found, torch.Tensor)
        return found

    together = drawn([5, 2, 9], seed=1, split="val")
    for place, index in enumerate([5, 2, 9]):
        assert torch.equal(together[place], drawn([index], seed=1, split="val")[0])
    assert not torch.equal(together, drawn([5, 2, 9], seed=2, split="val"))
    assert not torch.equal(together, drawn([5, 2, 9], seed=1, split="test"))


def test_without_unlabelled_examples_it_is_few_labels_alone():
    few = EpisodeConfig(3, 1, 1, labelled_share=0.1)
    support = PartlyLabelledSampler(dataset(), few).sample(range(200)).support
    assert isinstance(support.inputs, torch.Tensor) and support.inputs.shape[1] == 3
    assert len(support.inputs[..., 1].unique()) <= 8 * 2


def test_too_few_without_labels_say_so():
    more = EpisodeConfig(3, 1, 1, labelled_share=0.1, unlabelled=20)
    with pytest.raises(ValueError, match=r"2 examples with labels and 18 without; .* and 20"):
        PartlyLabelledSampler(dataset(), more)
    grouped = EpisodeConfig(3, 1, 1, True, labelled_share=0.1, unlabelled=1, distractors=1)
    with pytest.raises(ValueError, match="Distractors come from all groups"):
        PartlyLabelledSampler(dataset(), grouped)


def test_ranges_of_way_and_shot():
    ranges = EpisodeConfig((2, 4), (1, 2), 1, labelled_share=0.2, unlabelled=3, distractors=1)
    episodes = PartlyLabelledSampler(dataset(), ranges).sample(range(30))
    support, _, classes = episodes
    assert support.mask is not None and classes is not None
    ways = (classes >= 0).sum(1)
    unlabelled = support.mask & (support.targets.sum(-1) == 0)
    assert unlabelled.sum(1).tolist() == (3 * (ways + 1)).tolist()


def test_ranges_and_several_ways_to_label():
    ranges = EpisodeConfig((2, 3), 1, 2, labelled_share=0.2, label_splits=2, unlabelled=2)
    sampler = PartlyLabelledSampler(dataset(), ranges)
    together = sampler.sample(range(20))
    for examples in together[:2]:
        assert examples.mask is not None  # pyright: ignore
    for index in range(20):
        alone = sampler.sample([index])
        for both, one in zip(together[:2], alone[:2], strict=True):
            real = both.mask[index]  # pyright: ignore
            kept = slice(None) if one.mask is None else one.mask[0]  # pyright: ignore
            assert torch.equal(both.inputs[index][real], one.inputs[0][kept])  # pyright: ignore


def test_splits_choose_the_sampler():
    splits = LabelledSplits("made", "up", {"train": dataset()})
    assert isinstance(splits.sampler("train", EPISODE, 0), PartlyLabelledSampler)
    assert not isinstance(splits.sampler("train", EpisodeConfig(), 0), PartlyLabelledSampler)


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="set labelled_share below 1"):
        EpisodeConfig(unlabelled=5)
    with pytest.raises(ValueError, match="set unlabelled above 0"):
        EpisodeConfig(labelled_share=0.5, distractors=5)
    with pytest.raises(ValueError, match="labelled_share must be above 0"):
        EpisodeConfig(labelled_share=0.0)
    with pytest.raises(ValueError, match="at least 0"):
        EpisodeConfig(labelled_share=0.5, unlabelled=-1)
    many = EpisodeConfig(7, 1, 1, labelled_share=0.1, unlabelled=1, distractors=2)
    with pytest.raises(
        ValueError, match="7 classes and 2 others as distractors, and this split has 8"
    ):
        PartlyLabelledSampler(dataset(), many).sample([0])
    with pytest.raises(ValueError, match="2 examples with labels and 18 without; an episode"):
        PartlyLabelledSampler(dataset(), EpisodeConfig(3, 1, 2, labelled_share=0.1))
    with pytest.raises(ValueError, match="no share of them to label"):
        sinusoid().sampler("train", EpisodeConfig(labelled_share=0.5), 0)


def test_unlabelled_pictures_are_moved_one_by_one():
    pictures = LabelledDataset.from_labels(
        np.zeros((40, 1, 8, 8), dtype=np.uint8), np.repeat(np.arange(4), 10)
    )
    episode = EpisodeConfig(2, 1, 1, labelled_share=0.2, unlabelled=3)
    sampler = PartlyLabelledSampler(pictures, episode)
    moved = AugmentedSampler(sampler, AugmentationConfig(rotation=5.0)).sample([0])
    assert moved.support.inputs.shape == (1, 8, 1, 8, 8)  # pyright: ignore
    with pytest.raises(ValueError, match="cannot be moved as their class is"):
        AugmentedSampler(sampler, AugmentationConfig(mirror=True)).sample([0])
