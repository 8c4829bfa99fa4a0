"""EpisodeSampler: episodes are right, random, and a function of (seed, split, index) alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kshot.config import EpisodeConfig, bounds
from kshot.data.dataset import LabelledDataset
from kshot.data.sampler import EpisodeSampler, random_bits, uniform
from kshot.episodes import Episodes, map_tensors


def numbered(counts: list[int], groups: list[str] | None = None) -> LabelledDataset:
    """Features that say who they are: (class, place)."""
    labels = np.repeat(np.arange(len(counts)), counts)
    features = np.stack([labels, np.arange(len(labels))], axis=1).astype(np.float32)
    return LabelledDataset.from_labels(
        features, labels, [f"c{i}" for i in range(len(counts))], groups
    )


def same(first: Episodes, second: Episodes) -> bool:
    equal = []
    map_tensors(lambda a, b: equal.append(torch.equal(a, b)), first, second)
    return all(equal)


counts_of = st.integers(1, 4) | st.tuples(st.integers(1, 2), st.integers(2, 4))


@settings(max_examples=60)
@given(
    way=counts_of,
    shot=counts_of,
    query_shot=st.integers(1, 4),
    spare=st.lists(st.integers(0, 5), min_size=4, max_size=7),
    seed=st.integers(0, 2**40),
    first=st.integers(0, 10**9),
)
def test_every_episode_is_right(way, shot, query_shot, spare, seed, first):
    config = EpisodeConfig(way=way, shot=shot, query_shot=query_shot)
    data = numbered([bounds(shot)[1] + query_shot + extra for extra in spare])
    tasks = 6
    sampler = EpisodeSampler(data, config, seed=seed, split="train")
    episodes = sampler.sample(range(first, first + tasks))
    assert episodes.classes is not None
    for task in range(tasks):
        classes = episodes.classes[task]
        present = classes[classes >= 0].tolist()
        assert bounds(way)[0] <= len(present) <= bounds(way)[1]
        assert len(set(present)) == len(present)
        assert (classes[len(present) :] == -1).all(), "padded columns come last"

        seen = []
        per_class = {}
        for name, part in (("support", episodes.support), ("query", episodes.query)):
            assert isinstance(part.inputs, torch.Tensor)
            real = torch.ones(part.inputs.shape[1], dtype=torch.bool)
            if part.mask is not None:
                real = part.mask[task]
                assert not part.targets[task][~real].any(), "padding has no target"
            assert part.inputs.isfinite().all()
            rows, targets = part.inputs[task][real], part.targets[task][real]
            assert (targets.sum(1) == 1).all()
            assert (rows[:, 0] == classes[targets.argmax(1)]).all(), "a column is its class"
            seen.extend(rows[:, 1].int().tolist())
            per_class[name] = targets.sum(0)[: len(present)]
        assert len(seen) == len(set(seen)), "no example is in an episode twice"
        assert (per_class["query"] == query_shot).all()
        assert per_class["support"].unique().numel() == 1
        assert bounds(shot)[0] <= per_class["support"][0] <= bounds(shot)[1]


def test_an_episode_does_not_depend_on_its_batch():
    config = EpisodeConfig(way=(2, 4), shot=(1, 3), query_shot=2)
    sampler = EpisodeSampler(numbered([9] * 12), config, seed=3, split="val")
    together = sampler.indices([5, 0, 123456789012, 7])
    for place, index in enumerate([5, 0, 123456789012, 7]):
        alone = EpisodeSampler(numbered([9] * 12), config, seed=3, split="val").indices([index])
        for part, whole in zip(alone, together, strict=True):
            assert np.array_equal(part[0], whole[place])


@pytest.mark.parametrize(
    ("seed", "split", "index"), [(1, "train", 0), (0, "test", 0), (0, "train", 1)]
)
def test_another_seed_split_or_index_is_another_episode(seed, split, index):
    data, config = numbered([30] * 40), EpisodeConfig(way=5, shot=2, query_shot=3)
    first = EpisodeSampler(data, config, seed=0, split="train").sample([0])
    assert not same(first, EpisodeSampler(data, config, seed=seed, split=split).sample([index]))
    assert same(first, EpisodeSampler(data, config, seed=0, split="train").sample([0]))


def test_episodes_are_those_of_every_version():
    """A stored number names its episodes by seed and index: they must never change."""
    data, config = numbered([20] * 50), EpisodeConfig(way=4, shot=1, query_shot=2)
    indices = EpisodeSampler(data, config, seed=7, split="test").indices([0, 1000])
    assert indices.classes.tolist() == PINNED_CLASSES
    assert indices.query_rows.tolist() == PINNED_QUERY_ROWS


PINNED_CLASSES = [[43, 30, 2, 28], [47, 37, 19, 42]]
PINNED_QUERY_ROWS = [
    [619, 563, 570, 40, 873, 47, 871, 602],
    [757, 398, 394, 844, 752, 845, 941, 946],
]


def test_classes_examples_and_columns_are_uniform():
    num_classes, each, tasks = 12, 8, 6000
    config = EpisodeConfig(way=3, shot=2, query_shot=2)
    indices = EpisodeSampler(numbered([each] * num_classes), config, seed=1).indices(range(tasks))
    counts = [
        np.bincount(indices.classes[:, 0], minlength=num_classes),
        np.bincount(indices.classes[:, 2], minlength=num_classes),
        np.bincount(indices.support_rows.ravel() % each, minlength=each),
        np.bincount(indices.query_rows.ravel() % each, minlength=each),
        np.bincount(indices.query_columns[:, 0], minlength=3),
        np.bincount(indices.support_columns[:, 3], minlength=3),
        # pairs of classes: the order of classes is independent too
        np.bincount(indices.classes[:, 0] * num_classes + indices.classes[:, 1])[1:],
    ]
    for count in counts:
        assert stats.chisquare(count[count > 0]).pvalue > 1e-4
    assert (counts[-1] > 0).sum() == num_classes * (num_classes - 1)


def test_the_first_column_is_at_chance():
    """Nothing about the order of classes or queries tells the label."""
    config = EpisodeConfig(way=5, shot=1, query_shot=5)
    episodes = EpisodeSampler(numbered([6] * 20), config).sample(range(4000))
    labels = episodes.query.targets.argmax(-1).float()
    assert labels.eq(0).float().mean() == pytest.approx(0.2, abs=1e-6)  # each class 5 of 25
    first_query = labels[:, 0].eq(0).float().mean()
    assert first_query == pytest.approx(0.2, abs=4 * (0.16 / 4000) ** 0.5)
    # The class with the lowest number is in the first column one time in five.
    assert episodes.classes is not None
    lowest = episodes.classes.argmin(1).eq(0).float().mean()
    assert lowest == pytest.approx(0.2, abs=4 * (0.16 / 4000) ** 0.5)


def test_the_label_of_a_class_is_drawn_anew():
    config = EpisodeConfig(way=3, shot=1, query_shot=1)
    indices = EpisodeSampler(numbered([4] * 3), config).indices(range(600))
    columns_of_class_0 = np.bincount((indices.classes == 0).argmax(1), minlength=3)
    assert stats.chisquare(columns_of_class_0).pvalue > 1e-4


def test_query_order_says_nothing_about_support_order():
    config = EpisodeConfig(way=4, shot=1, query_shot=1)
    indices = EpisodeSampler(numbered([4] * 9), config).indices(range(3000))
    agree = (indices.support_columns == indices.query_columns).mean()
    assert agree == pytest.approx(0.25, abs=0.02)


def test_ranges_are_drawn_uniformly_and_padded():
    config = EpisodeConfig(way=(2, 5), shot=(1, 3), query_shot=2)
    episodes = EpisodeSampler(numbered([6] * 8), config).sample(range(2000))
    assert episodes.classes is not None
    assert episodes.support.mask is not None
    assert episodes.query.mask is not None
    assert episodes.support.targets.shape == (2000, 15, 5)
    ways = (episodes.classes >= 0).sum(1)
    shots = episodes.support.mask.sum(1) / ways
    assert stats.chisquare(np.bincount(ways)[2:]).pvalue > 1e-4
    assert stats.chisquare(np.bincount(shots.int())[1:]).pvalue > 1e-4
    table = stats.contingency.crosstab(ways.numpy(), shots.int().numpy()).count
    assert stats.chi2_contingency(table).pvalue > 1e-4
    assert torch.equal(episodes.query.mask.sum(1), 2 * ways)


def test_no_mask_without_padding():
    episodes = EpisodeSampler(numbered([6] * 8), EpisodeConfig(query_shot=2)).sample([0])
    assert episodes.support.mask is None
    assert episodes.query.mask is None


def test_within_keeps_to_one_group_that_is_large_enough():
    groups = ["a"] * 3 + ["b"] * 6 + ["c"] * 4
    config = EpisodeConfig(way=4, shot=1, query_shot=1, within=True)
    indices = EpisodeSampler(numbered([2] * 13, groups), config).indices(range(2000))
    names = np.array(groups)[indices.classes]
    assert (names == names[:, :1]).all()
    assert stats.chisquare(np.unique(names[:, 0], return_counts=True)[1]).pvalue > 1e-4
    assert set(names.ravel()) == {"b", "c"}
    used = np.bincount(indices.classes[names == "b"] - 3, minlength=6)
    assert stats.chisquare(used).pvalue > 1e-4


@pytest.mark.parametrize(
    ("counts", "groups", "config", "message"),
    [
        ([9] * 4, None, EpisodeConfig(way=5), "needs 5 classes and this split has 4"),
        ([], None, EpisodeConfig(way=5), "needs 5 classes and this split has 0"),
        ([16, 4, 16], None, EpisodeConfig(way=2), "Class 'c1' has 4 examples.* needs 16"),
        ([6] * 5, None, EpisodeConfig(way=2, query_shot=2, within=True), "has none"),
        (
            [6] * 5,
            ["a", "a", "b", "b", "b"],
            EpisodeConfig(way=4, query_shot=2, within=True),
            "No group has the 4 classes.* largest has 3",
        ),
    ],
)
def test_data_too_small_for_an_episode_is_refused(counts, groups, config, message):
    with pytest.raises(ValueError, match=message):
        EpisodeSampler(numbered(counts, groups), config)


def test_random_numbers_are_uniform_and_uncorrelated():
    numbers = uniform(random_bits(0, "train/examples", np.arange(2000, dtype=np.uint64), 50))
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel())[0, 1]) < 0.02
    other = uniform(random_bits(1, "train/examples", np.arange(2000, dtype=np.uint64), 50))
    assert abs(np.corrcoef(numbers.ravel(), other.ravel())[0, 1]) < 0.02


def test_aligned_examples_are_by_the_same_drawers():
    """The k-th example of every class is by drawer k: support by one of them, queries by others."""
    labels = np.repeat(np.arange(6), 8)
    drawn = np.stack([labels, np.tile(np.arange(8), 6)], 1).astype(np.float32)
    data = LabelledDataset.from_labels(drawn, labels)
    episode = EpisodeConfig(4, 1, 2, aligned=True)
    support, query, _ = EpisodeSampler(data, episode).sample(range(30))
    assert isinstance(support.inputs, torch.Tensor) and isinstance(query.inputs, torch.Tensor)
    first, others = support.inputs[..., 1], query.inputs[..., 1]
    assert (first == first[:, :1]).all() and len(first.unique()) == 8
    assert all(len(set(row)) == 2 and row.count(row[0]) == 4 for row in others.tolist())
    assert not any(set(a) & set(b) for a, b in zip(first.tolist(), others.tolist(), strict=True))
    uneven = LabelledDataset.from_labels(drawn[:-1], labels[:-1])
    with pytest.raises(ValueError, match="here classes have 7 to 8 examples"):
        EpisodeSampler(uneven, episode)
