"""LabelledDataset: subsets and rotations share one array, and reading is exact."""

import numpy as np
import pytest
import torch

from kshot.data.dataset import LabelledDataset


def pictures(num_classes: int = 3, each: int = 4, size: int = 6) -> LabelledDataset:
    rng = np.random.default_rng(0)
    examples = rng.integers(0, 256, (num_classes * each, 1, size, size), dtype=np.uint8)
    labels = np.tile(np.arange(num_classes), each)  # classes are interleaved in the array
    return LabelledDataset.from_labels(examples, labels, [f"c{i}" for i in range(num_classes)])


def test_examples_are_indexed_by_class():
    data = pictures()
    assert [rows.tolist() for rows in data.rows] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert data.class_names == ("c0", "c1", "c2")
    assert data.input_shape == (1, 6, 6)


def test_pictures_are_read_between_zero_and_one():
    data = pictures()
    read = data.read(np.array([3, 0]), np.array([0, 0]))
    assert read.dtype == torch.float32
    assert torch.equal(read, torch.from_numpy(data.examples[[3, 0]]).float() / 255)


def test_features_keep_their_type():
    features = np.random.default_rng(0).normal(size=(4, 7))
    data = LabelledDataset.from_labels(features, [0, 1, 0, 1])
    read = data.read(np.array([2]), np.array([0]))
    assert read.dtype == torch.float64
    assert torch.equal(read, torch.from_numpy(features[[2]]))


def test_select_and_rotations_share_the_array():
    data = pictures().select([2, 0])
    turned = data.with_rotations()
    assert data.class_names == ("c2", "c0")
    assert turned.num_classes == 8
    assert turned.examples is data.examples
    assert turned.class_names[:4] == ("c2", "c0", "c2@90", "c0@90")


def test_a_rotated_class_is_read_turned_counterclockwise():
    data = pictures().with_rotations()
    rows = np.array([0, 0, 0, 0, 3])
    classes = np.array(
        [data.class_names.index(f"c0{turn}") for turn in ("", "@90", "@180", "@270")]
    )
    read = data.read(rows, np.append(classes, classes[1])).numpy()
    upright = data.examples[0].astype(np.float32) / 255
    for turns in range(4):
        assert np.allclose(read[turns], np.rot90(upright, turns, axes=(1, 2)))
    assert np.allclose(read[4], np.rot90(data.examples[3] / 255, 1, axes=(1, 2)))


def test_rotating_twice_adds_up():
    data = pictures(num_classes=1).with_rotations([1]).with_rotations([0, 3])
    read = data.read(np.array([0, 0]), np.array([0, 1])).numpy()
    upright = pictures(num_classes=1).examples[0] / 255
    assert np.allclose(read[0], np.rot90(upright, 1, axes=(1, 2)))
    assert np.allclose(read[1], upright)


def test_groups_follow_their_classes():
    data = LabelledDataset.from_labels(np.zeros((3, 1, 4, 4), np.uint8), [0, 1, 2], "abc", "xyx")
    assert data.select([2, 1]).groups == ("x", "y")
    assert data.with_rotations([0, 2]).groups == ("x", "y", "x", "x", "y", "x")


def test_a_class_without_examples_is_kept():
    data = LabelledDataset.from_labels(np.zeros((2, 3)), [0, 2], ["a", "b", "c"])
    assert [len(rows) for rows in data.rows] == [1, 0, 1]


@pytest.mark.parametrize(
    ("labels", "names", "groups", "message"),
    [
        ([0, 1], None, None, "3 examples but 2 labels"),
        ([0, 1, 2], ["a", "b"], None, r"Labels must be 0 \.\. 1"),
        ([0, -1, 1], ["a", "b"], None, r"they are -1 \.\. 1"),
        ([0, 1, 1], ["a", "b"], ["x"], "2 classes but 1 groups"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, names, groups, message):
    with pytest.raises(ValueError, match=message):
        LabelledDataset.from_labels(np.zeros((3, 2)), labels, names, groups)


def test_only_square_pictures_can_be_turned():
    data = LabelledDataset.from_labels(np.zeros((2, 1, 4, 6), np.uint8), [0, 1])
    with pytest.raises(ValueError, match=r"square pictures .* not \(1, 4, 6\)"):
        data.with_rotations()
