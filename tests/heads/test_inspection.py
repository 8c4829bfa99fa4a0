"""What a support set tells of itself, on points whose faults are planted."""

import numpy as np
import pytest
import torch

from kshot.heads import HEADS, HeldOut
from kshot.heads.inspection import (
    Suspicion,
    Twins,
    hard_pairs,
    hold_out_support,
    likely_mislabelled,
    repeated_rows,
    twins_across_classes,
)


def points(way: int = 5, shot: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes far apart, save the last two."""
    random = np.random.default_rng(0)
    centers = 3 * random.normal(size=(way, 1, 10))
    centers[-1] = centers[-2] + 0.3 * random.normal(size=(1, 10))
    rows = centers + random.normal(size=(way, shot, 10))
    columns = np.repeat(np.arange(way), shot)
    return torch.from_numpy(rows.reshape(-1, 10).astype(np.float32)), torch.from_numpy(columns)


def held_out(rows: torch.Tensor, columns: torch.Tensor, name: str = "logistic") -> HeldOut:
    return hold_out_support(HEADS[name]().eval(), name, rows, columns)


@pytest.mark.parametrize("name", HEADS)
def test_the_nearest_classes_are_the_hardest_pair(name: str):
    rows, columns = points()
    pairs = hard_pairs(held_out(rows, columns, name), most=3)
    assert len(pairs) == 3
    assert (pairs[0].one, pairs[0].other, pairs[0].judged) == (3, 4, 12)
    assert pairs[0].mistaken > 0 and 0.2 < pairs[0].probability < 0.8
    assert all(pair.probability < 0.2 for pair in pairs[1:])


def test_pairs_count_what_is_mistaken():
    columns = torch.tensor([0, 0, 1, 2])
    logits = torch.tensor(
        [
            [[9.0, 0, 0], [0, 9, 0], [0, 9, 0], [0, 0, 0]],
            [[9.0, 0, 0], [9, 0, 0], [9, 0, 0], [0, 0, 0]],
        ]
    )
    judged = torch.tensor([True, True, True, False])
    [first, *others] = hard_pairs(HeldOut(logits, columns, judged, 2))
    assert (first.one, first.other, first.judged) == (0, 1, 3)
    assert first.mistaken == pytest.approx(0.5 + 0.5)  # in one repeat of two, each
    assert [(pair.one, pair.other, pair.mistaken) for pair in others] == [(0, 2, 0), (1, 2, 0)]


def test_classes_that_were_never_held_out_make_no_pair():
    nothing = HeldOut(torch.zeros(1, 2, 2), torch.tensor([0, 1]), torch.tensor([False, False]), 2)
    assert hard_pairs(nothing) == [] and likely_mislabelled(nothing) == []


def test_a_wrong_label_is_found():
    rows, columns = points()
    wrong = columns.clone()
    wrong[2], wrong[8] = 2, 0
    found = likely_mislabelled(held_out(rows, wrong))
    assert {(one.example, one.other) for one in found[:2]} == {(2, 0), (8, 1)}
    assert isinstance(found[0], Suspicion)
    assert found[0].own_probability < 0.1 < found[0].other_probability
    assert len(found) <= 3


def test_right_labels_of_clear_classes_are_not_suspected():
    rows, columns = points()
    clear = columns < 4
    assert likely_mislabelled(held_out(rows[clear], columns[clear])) == []


def test_one_repeat_of_several_is_no_ground_for_suspicion():
    columns = torch.tensor([0, 1])
    once = torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([[0.0, 9.0], [0.0, 9.0]])
    logits = torch.stack([once[0], once[1]])
    judged = torch.tensor([True, True])
    assert likely_mislabelled(HeldOut(logits, columns, judged, 2)) == []
    both = torch.stack([once[1], once[1], once[0]])
    [found] = likely_mislabelled(HeldOut(both, columns, judged, 2), odds=1.5)
    assert (found.example, found.other) == (0, 1)


def test_twins_of_different_classes_are_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kshot.heads.inspection._ROWS_AT_ONCE", 4)
    rows, columns = (part.numpy() for part in points())
    rows[20] = rows[3]
    rows[25] = 2 * rows[10] + 1e-4
    rows[1] = rows[0]  # of one class
    found = twins_across_classes(rows, columns)
    assert [(one.first, one.second, one.same) for one in found] == [(3, 20, True), (10, 25, False)]
    assert isinstance(found[1], Twins) and 0.999 < found[1].cosine <= 1
    assert repeated_rows(rows) == [[0, 1], [3, 20]]
