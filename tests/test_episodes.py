"""Episodes: trees of tensors, target rows, sets put together."""

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kshot.episodes import (
    Episodes,
    Examples,
    concatenate,
    concatenate_inputs,
    map_tensors,
    one_hot,
)


class Pair(NamedTuple):
    left: Any
    right: Any


def leaves(tree: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    map_tensors(found.append, tree)
    return found


trees = st.recursive(
    st.none() | st.integers(0, 5).map(lambda n: torch.full((2,), n)),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.lists(parts, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from("abc"), parts, max_size=3)
        | st.tuples(parts, parts).map(lambda both: Pair(*both))
    ),
    max_leaves=8,
)


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[k], second[k]) for k in first)
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


@given(tree=trees)
def test_a_map_keeps_the_form_of_a_tree(tree: Any):
    assert same(map_tensors(lambda x: x, tree), tree)
    assert same(map_tensors(lambda x, y: x + y, tree, tree), map_tensors(lambda x: 2 * x, tree))
    assert all(torch.equal(a, b) for a, b in zip(leaves(tree), leaves(tree), strict=True))


def test_trees_of_other_form_are_refused():
    x = torch.zeros(1)
    with pytest.raises(ValueError):
        map_tensors(torch.add, [x, x], [x])
    with pytest.raises(KeyError):
        map_tensors(torch.add, {"a": x}, {"b": x})


def test_one_hot_rows():
    labels = torch.tensor([[0, 2], [-1, 1]])
    expected = [[[1, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0]]]
    assert one_hot(labels, 3).tolist() == expected
    assert one_hot(labels, 3, torch.float64).dtype == torch.float64
    assert one_hot(labels[0], 3).shape == (2, 3)


def examples(n: int, masked: bool, dictionary: bool = False) -> Examples:
    torch.manual_seed(n)
    x: Any = torch.randn(2, n, 3)
    if dictionary:
        x = {"x": x, "tokens": torch.ones(2, n, 4, dtype=torch.long)}
    mask = (torch.rand(2, n) > 0.5) if masked else None
    return Examples(x, torch.eye(3)[:1].expand(2, n, 3), mask)


@pytest.mark.parametrize("dictionary", [False, True])
def test_concatenation_keeps_order_and_masks(dictionary: bool):
    first, second = examples(4, False, dictionary), examples(2, False, dictionary)
    both = concatenate(first, second)
    assert both.mask is None and both.targets.shape == (2, 6, 3)
    assert same(map_tensors(lambda x: x[:, :4], both), first)
    assert same(map_tensors(lambda x: x[:, 4:], both), second)
    masked = examples(2, True, dictionary)
    both = concatenate(first, masked)
    assert both.mask is not None and masked.mask is not None
    assert both.mask[:, :4].all() and torch.equal(both.mask[:, 4:], masked.mask)
    both = concatenate(masked, first)
    assert both.mask is not None and both.mask[:, 2:].all()


def test_inputs_are_joined_key_by_key():
    joined = concatenate_inputs({"a": torch.zeros(2, 1)}, {"a": torch.ones(3, 1)}, dim=0)
    assert isinstance(joined, dict) and joined["a"].flatten().tolist() == [0, 0, 1, 1, 1]


def test_present_columns():
    support = examples(3, False)
    assert Episodes(support, support).present is None
    present = Episodes(support, support, torch.tensor([[4, 0, -1], [1, 2, 3]])).present
    assert present is not None and present.tolist() == [[True, True, False], [True] * 3]


def test_moving_changes_only_floating_tensors():
    episodes = Episodes(examples(3, True, dictionary=True), examples(2, False), None)
    moved = episodes.to("cpu", torch.float64)
    assert isinstance(moved, Episodes) and isinstance(moved.support.inputs, dict)
    assert moved.support.inputs["x"].dtype == moved.query.targets.dtype == torch.float64
    assert moved.support.inputs["tokens"].dtype == torch.long
    assert moved.support.mask is not None and moved.support.mask.dtype == torch.bool
    assert same(episodes.to("cpu"), episodes)


def test_a_label_beyond_the_way_is_refused():
    with pytest.raises(ValueError, match="below way = 3, and one is 3"):
        one_hot(torch.tensor([0, 3]), 3)
