"""Class splits: disjoint, complete, the same everywhere."""

import numpy as np
import pytest

from kshot.config import EpisodeConfig
from kshot.data.dataset import LabelledDataset
from kshot.data.splits import LabelledSplits, split_classes, split_shares


def classes(num: int) -> LabelledDataset:
    return LabelledDataset.from_labels(
        np.zeros((4 * num, 2)), np.arange(4 * num) % num, [f"c{i}" for i in range(num)]
    )


SHARES = {"train": 0.6, "val": 0.16, "test": 0.24}


@pytest.mark.parametrize("num", [1, 2, 7, 100])
def test_shares_cover_all_classes_once(num):
    splits = split_shares(classes(num), SHARES, seed=0)
    names = [name for part in splits.values() for name in part.class_names]
    assert sorted(names) == sorted(f"c{i}" for i in range(num))
    if num == 100:
        assert [part.num_classes for part in splits.values()] == [60, 16, 24]


def test_shares_depend_on_the_seed_alone():
    def names(seed: int) -> tuple[str, ...]:
        return split_shares(classes(12), SHARES, seed)["test"].class_names

    assert names(0) == names(0)
    assert names(0) != names(1)
    assert names(0) == PINNED_TEST_CLASSES, "a protocol's name stands for its classes for ever"


PINNED_TEST_CLASSES = ("c1", "c4", "c6")


def test_shares_that_do_not_sum_to_one_are_refused():
    with pytest.raises(ValueError, match="must sum to 1"):
        split_shares(classes(5), {"train": 0.5, "test": 0.4}, 0)


def test_lists_name_the_classes_of_each_split():
    splits = split_classes(classes(5), {"train": ["c3", "c0"], "test": ["c4"]})
    assert splits["train"].class_names == ("c3", "c0")
    assert splits["train"].rows[0].tolist() == [3, 8, 13, 18]
    assert splits["test"].class_names == ("c4",)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": ["c1"], "test": ["c2", "c1"]}, "'c1' is in the splits 'train' and 'test'"),
        ({"train": ["c11"]}, "'c11' of split 'train' is not in the data. Did you mean 'c1'"),
    ],
)
def test_lists_that_overlap_or_name_strangers_are_refused(lists, message):
    with pytest.raises(ValueError, match=message):
        split_classes(classes(3), lists)


def test_a_message_does_not_list_a_thousand_classes():
    with pytest.raises(ValueError, match="and 970 more") as error:
        split_classes(classes(1000), {"train": ["d1"]})
    assert len(str(error.value)) < 500


def test_trainval_is_made_of_train_and_val():
    source = LabelledSplits("toy", "p", split_shares(classes(10), SHARES, 0))
    both = source.dataset("trainval")
    assert source.has_split("trainval")
    assert set(both.class_names) == {
        *source.dataset("train").class_names,
        *source.dataset("val").class_names,
    }
    assert both.num_classes == source.num_classes("trainval") == 8
    assert source.sampler("trainval", EpisodeConfig(query_shot=2), 0).dataset.num_classes == 8


def test_a_missing_split_is_named():
    source = LabelledSplits("toy", "p", {"train": classes(3)})
    assert not source.has_split("trainval")
    with pytest.raises(
        ValueError, match=r"toy under protocol 'p' has no split 'tran'\. Did you mean"
    ):
        source.dataset("tran")
